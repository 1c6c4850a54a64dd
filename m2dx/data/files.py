"""Finds the audio files or the images of a folder."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from m2dx.contract.errors import AudioError

AUDIO_EXTENSIONS = frozenset(
    "wav wave bwf flac ogg oga opus mp3 mp2 mp1 mpga aif aiff aifc au snd caf w64 rf64 sph nist "
    "paf voc wve avr sds svx iff ircam sf".split()
)
"""Extensions of the files that soundfile reads without being told the sampling rate."""
IMAGE_EXTENSIONS = frozenset("jpg jpeg jpe png bmp gif tif tiff webp ppm pgm".split())
"""Extensions of the files that an image folder takes."""
_UNREADABLE = frozenset("m4a m4b 3gp 3gpp 3g2 aac mp4 wma webm mka amr ape wv dsf ac3".split())


@dataclass(frozen=True)
class AudioFiles:
    """The audio files of a folder, sorted by path."""

    folder: Path
    readable: tuple[Path, ...]
    unreadable: tuple[Path, ...]  # of formats that soundfile does not decode; not where extensions are chosen
    closed: tuple[str, ...] = ()  # folders that could not be read, each with the reason

    def missing(self) -> list[str]:
        """A line for each format that cannot be read, with the number of its files, and for each closed folder."""
        counts = Counter(extension_of(file) for file in self.unreadable)
        formats = [
            f"{count} .{extension} files in {self.folder}, which soundfile cannot read; convert them to FLAC"
            for extension, count in sorted(counts.items())
        ]
        return formats + [f"a folder that cannot be read: {reason}" for reason in self.closed]


def list_audio(
    folder: Path, *, extensions: Collection[str] | None = None, recursive: bool = True
) -> AudioFiles:
    """The audio files of a folder; AudioError where it is not a folder.

    Hidden files (a name that starts with a dot) are left out, links are followed. `extensions`, without the dot, are
    those to use; by default all that soundfile reads.
    """
    if not folder.is_dir():
        what = "a file" if folder.exists() else "missing"
        raise AudioError(f"`path` must be a folder, but {folder} is {what}")
    wanted = AUDIO_EXTENSIONS if extensions is None else {e.lower().lstrip(".") for e in extensions}
    closed: list[str] = []
    found: list[str] = []
    seen: set[str] = set()  # real paths: links to folders are followed, but in no circle

    def refuse(error: OSError) -> None:
        closed.append(f"{error.filename} ({error.strerror})")

    for top, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        seen.add(os.path.realpath(top))
        found += (os.path.join(top, name) for name in names if not name.startswith("."))
        folders[:] = [
            name
            for name in sorted(folders)
            if recursive and not name.startswith(".") and os.path.realpath(Path(top, name)) not in seen
        ]
    # Texts sort ten times as fast as paths, which matters with millions; "/" before all else gives the paths' order.
    files = [Path(name) for name in sorted(found, key=lambda name: name.replace(os.sep, "\0"))]
    return AudioFiles(
        folder,
        readable=tuple(file for file in files if extension_of(file) in wanted),
        unreadable=tuple(file for file in files if not extensions and extension_of(file) in _UNREADABLE),
        closed=tuple(sorted(closed)),
    )


def is_audio(path: Path) -> bool:
    """Whether a file is called as audio is, of a format that soundfile reads or not."""
    return extension_of(path) in AUDIO_EXTENSIONS | _UNREADABLE


def extension_of(path: Path) -> str:
    """The extension in lower case, without the dot."""
    return path.suffix.lower().lstrip(".")
