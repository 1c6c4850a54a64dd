"""Duplicates and confounds that are planted in real recordings, to see which the audit finds."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

import m2dx

CODECS = {"mp3": ("MP3", "MPEG_LAYER_III"), "vorbis": ("OGG", "VORBIS"), "opus": ("OGG", "OPUS")}
KINDS = (
    "mp3",
    "vorbis",
    "opus",
    "louder",
    "quieter",
    "padded",
    "shifted",
    "excerpt",
    "shifted mp3",
    "louder opus",
)


def coded(wav: NDArray[np.float32], rate: int, codec: str) -> NDArray[np.float32]:
    """The samples after a codec, at its default quality."""
    file = io.BytesIO()
    form, subtype = CODECS[codec]
    soundfile.write(file, np.clip(wav, -1, 1), rate, format=form, subtype=subtype)
    file.seek(0)
    decoded: NDArray[np.float32] = soundfile.read(file, dtype="float32")[0]
    return decoded


def altered(
    wav: NDArray[np.float32], rate: int, kind: str, generator: np.random.Generator
) -> NDArray[np.float32]:
    """A near duplicate of a kind of `KINDS`."""
    for what in kind.split():
        if what in CODECS:
            wav = coded(wav, rate, what)
        elif what == "louder":
            wav = np.clip(wav * 10 ** (generator.uniform(3, 9) / 20), -1, 1)
        elif what == "quieter":
            wav = wav * 10 ** (-generator.uniform(3, 15) / 20)
        elif what == "padded":
            wav = np.pad(wav, (int(generator.uniform(0.05, 2.0) * rate), 0))
        elif what in ("shifted", "excerpt"):
            wav = _cut(wav, rate, what, generator)
    return np.ascontiguousarray(wav, dtype=np.float32)


def _cut(
    wav: NDArray[np.float32], rate: int, what: str, generator: np.random.Generator
) -> NDArray[np.float32]:
    """Without its first 10 to 40 % (at most 2 s), or 50 to 80 % of it; with a third of its energy or more."""
    while True:
        first, end = int(generator.uniform(0.1, min(0.4, 2.0 * rate / len(wav))) * len(wav)), len(wav)
        if what == "excerpt":
            length = int(generator.uniform(0.5, 0.8) * len(wav))
            first = int(generator.integers(0, len(wav) - length + 1))
            end = first + length
        if np.square(wav[first:end]).sum() >= np.square(wav).sum() / 3:
            return wav[first:end]
        if what == "shifted":  # a stroke that has faded by then
            what = "excerpt"


def plant_duplicates(
    clips: list[m2dx.Clip], folder: Path, *, count: int, seed: int
) -> list[tuple[Path, Path, str]]:
    """Writes near duplicates of some of the clips; gives the original, the copy, and its kind."""
    generator = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    planted = []
    for number, row in enumerate(generator.permutation(len(clips))[:count].tolist()):
        clip, kind = clips[row], KINDS[number % len(KINDS)]
        rate = soundfile.info(str(clip.path)).samplerate
        wav = altered(m2dx.read_wav(clip.path), rate, kind, generator)
        path = folder / f"copy{number:03}.wav"
        soundfile.write(path, wav, rate, subtype="PCM_16")
        planted.append((clip.path, path, kind))
    return planted
