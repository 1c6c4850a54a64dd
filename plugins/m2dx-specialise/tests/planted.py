"""Near duplicates that are planted in real recordings, to see which the audit finds.

python plugins/m2dx-specialise/tests/planted.py LIST [LIST ...] [--count 50] [--seed 0]

For each list: copies that are found, the kinds of those that are missed, and the other pairs that the audit names, with
their correlation where they overlap (high frequencies raised). Nothing is left.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
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


def find_planted(path: Path, *, count: int, seed: int) -> str:
    """What the audit finds of so many near duplicates of a list's clips, as a line of a table."""
    from m2dx_specialise import audit, duplicates, listing

    def correlation(one: listing.Clip, other: listing.Clip) -> float:
        parts = (duplicates._part(clip, 0.0) for clip in (one, other))
        return duplicates._lag(*map(duplicates._bright, parts))[1]

    before, found = time.monotonic(), listing.read(path)
    with tempfile.TemporaryDirectory() as folder:
        own = [m2dx.Clip(clip.path) for clip in found.clips]
        planted = plant_duplicates(own, Path(folder), count=count, seed=seed)
        copies = [listing.Clip(copy, 0.0, soundfile.info(str(copy)).duration) for _, copy, _ in planted]
        clips = (*found.clips, *copies)
        pairs = audit.audit(replace(found, clips=clips, groups=())).duplicates
        named = {frozenset((clips[pair.first].path, clips[pair.second].path)) for pair in pairs}
        missed = [kind for source, copy, kind in planted if frozenset((source, copy)) not in named]
        others = [pair for pair in pairs if max(pair.first, pair.second) < len(own)]
        alike = [correlation(clips[pair.first], clips[pair.second]) for pair in others]
    above = ", ".join(f"{sum(value > least for value in alike)} above {least}" for least in (0.95, 0.9, 0.8))
    seconds = time.monotonic() - before
    return (
        f"{path.stem}: {len(own)} clips; {count - len(missed)} of {count} found; missed: "
        f"{', '.join(missed) or 'none'}; {len(others)} other pairs, {above}; {seconds:.0f} s"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("lists", nargs="+", type=Path)
    parser.add_argument("--count", type=int, default=len(KINDS) * 5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    for path in options.lists:
        print(find_planted(path, count=options.count, seed=options.seed), flush=True)


if __name__ == "__main__":
    main()
