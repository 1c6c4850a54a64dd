"""Writes small data sets in the layouts of AudioSet and FSD50K, with synthetic sounds, for tests and trial runs.

`python -m m2dx_audioset.sample FOLDER [--clips N]` writes FOLDER/audioset and FOLDER/fsd50k.

Names, columns and quoting of the lists are the official ones. The identifiers are made up, and so are the classes but
for the first few: AudioSet's own list has 527 with other names. Some segments have no audio, as on every machine.
"""

from __future__ import annotations

import argparse
import csv
import random
import string
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from m2dx.testing.samples import SoundFiles, tone
from m2dx_audioset.audioset import BALANCED, CLASSES_FILE, EVALUATION, NUM_CLASSES, UNBALANCED
from m2dx_audioset.fsd50k import AUDIO_FOLDERS, GROUND_TRUTH, VOCABULARY
from m2dx_audioset.fsd50k import NUM_CLASSES as NUM_FSD50K_CLASSES

NUM_SOUNDS = 8  # distinct sounds; further clips are links to them
_AUDIOSET_CLASSES = (
    ("/m/09x0r", "Speech"),
    ("/m/05zppz", "Male speech, man speaking"),
    ("/m/02zsn", "Female speech, woman speaking"),
    ("/m/0ytgt", "Child speech, kid speaking"),
    ("/m/01h8n0", "Conversation"),
    ("/m/02qldy", "Narration, monologue"),
    ("/m/0261r1", "Babbling"),
    ("/m/0brhx", "Speech synthesizer"),
)
_FSD50K_CLASSES = (
    ("Accelerating_and_revving_and_vroom", "/m/07q2z82"),
    ("Accordion", "/m/0mkg"),
    ("Acoustic_guitar", "/m/042v_gx"),
    ("Aircraft", "/m/0k5j"),
    ("Alarm", "/m/07pp_mv"),
    ("Animal", "/m/0jbk"),
    ("Applause", "/m/028ght"),
    ("Bark", "/m/05tny_"),
)
_SPECIAL_IDS = ("-made-up_Id", "YgX0Vn_s2bY", "Yq9Rt3mKw0_", "aB_30_40_50")  # file names are easily misread
_HEADER = "# Segments csv created Sun Mar  5 10:54:31 2017"


def write_sample(folder: Path, *, clips: int = 24) -> Path:
    """Writes `audioset` and `fsd50k` in a folder, which is returned; see `write_audioset` and `write_fsd50k`."""
    write_audioset(folder / "audioset", clips=clips)
    write_fsd50k(folder / "fsd50k", clips=clips)
    return folder


def write_audioset(folder: Path, *, clips: int = 24, seed: int = 0) -> Path:
    """Writes the lists and ten-second files for `clips` training segments, and a third as many for evaluation.

    A third of the training segments is in the balanced list. Each list has one more segment in ten, without audio.
    The sounds are 8 tones in noise, each with a class of its own and one that it shares; the files have names of all
    forms that the data set reads.
    """
    folder.mkdir(parents=True, exist_ok=True)
    classes = [*_AUDIOSET_CLASSES]
    classes += [(f"/t/dd{n:05d}", f"Sound {n}, synthetic") for n in range(len(classes), NUM_CLASSES)]
    with (folder / CLASSES_FILE).open("w", encoding="utf-8", newline="") as file:
        file.write("index,mid,display_name\n")
        file.writelines(f'{n},{mid},"{name}"\n' for n, (mid, name) in enumerate(classes))
    sounds, lengths = SoundFiles(folder / "audio"), (10.0,) * (NUM_SOUNDS - 1) + (8.0,)
    ids = _video_ids(seed)
    balanced, evaluated = max(1, clips // 3), max(NUM_SOUNDS, clips // 3)
    for name, number in ((BALANCED, balanced), (UNBALANCED, clips - balanced), (EVALUATION, evaluated)):
        videos = list(islice(ids, number + _without_audio(number)))
        rows = []
        for position, ytid in enumerate(videos):
            sound = position % NUM_SOUNDS
            start = 30 if sound % 2 else 0
            end = start + round(lengths[sound])
            if position < number:
                file_name = _audioset_file(name, ytid, start, end, position)
                sounds.add(file_name, sound, _sound(sound, lengths[sound], sounds.sample_rate, seed))
            mids = sorted({classes[sound][0], *([classes[10 + sound % 3][0]] if position % 3 else [])})
            rows.append(f'{ytid}, {start}.000, {end}.000, "{",".join(mids)}"\n')
        _write_segments(folder / name, sorted(rows))
    return folder


def write_fsd50k(folder: Path, *, clips: int = 24, seed: int = 0) -> Path:
    """Writes the lists and files for `clips` development clips, and half as many for evaluation.

    Of five rounds of the 8 sounds (tones in noise of 0.5 to 4 s, at 44.1 kHz) the second is for validation. Each list
    has one more clip in ten, without audio.
    """
    (folder / GROUND_TRUTH).mkdir(parents=True, exist_ok=True)
    classes = [*_FSD50K_CLASSES]
    classes += [(f"Sound_{n:03d}", f"/t/dd{n:05d}") for n in range(len(classes), NUM_FSD50K_CLASSES)]
    with (folder / GROUND_TRUTH / VOCABULARY).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows((n, *names) for n, names in enumerate(classes))
    sounds, lengths = SoundFiles(folder, 44_100), np.linspace(0.5, 4.0, NUM_SOUNDS)
    numbers = count(1000 + seed)
    for name, number in (("dev.csv", clips), ("eval.csv", max(NUM_SOUNDS, clips // 2))):
        with (folder / GROUND_TRUTH / name).open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["fname", "labels", "mids", *(["split"] if name == "dev.csv" else [])])
            for position in range(number + _without_audio(number)):
                sound, fname = position % NUM_SOUNDS, next(numbers)
                if position < number:
                    make = _sound(sound, float(lengths[sound]), sounds.sample_rate, seed)
                    sounds.add(Path(AUDIO_FOLDERS[name], f"{fname}.wav"), sound, make)
                labels = [classes[sound], *([classes[10 + sound % 3]] if position % 3 else [])]
                cells = [str(fname), *(",".join(texts) for texts in zip(*labels, strict=True))]
                split = "val" if position // NUM_SOUNDS % 5 == 1 else "train"
                writer.writerow([*cells, *([split] if name == "dev.csv" else [])])
    return folder


def _sound(number: int, seconds: float, sample_rate: int, seed: int) -> Callable[[], NDArray[np.float64]]:
    """Makes one of the distinct sounds, each of its own pitch and beat."""
    return partial(
        tone,
        200 * 1.5**number,
        seconds=seconds,
        sample_rate=sample_rate,
        beat=1.0 + number,
        seed=(seed, number),
    )


def _video_ids(seed: int) -> Iterator[str]:
    """Identifiers of 11 characters, no two alike; first those that are easily misread."""
    generator, seen = random.Random(seed), set(_SPECIAL_IDS)
    yield from _SPECIAL_IDS
    while True:
        ytid = "".join(generator.choices(f"{string.ascii_letters}{string.digits}-_", k=11))
        if ytid not in seen:
            seen.add(ytid)
            yield ytid


def _audioset_file(name: str, ytid: str, start: int, end: int, position: int) -> Path:
    """A file name of one of the forms that tools write, in the folders that they make."""
    forms = (
        f"{ytid}.wav",
        f"Y{ytid}.flac",
        f"{ytid}_{start}.000_{end}.000.wav",
        f"{ytid}_{start * 1000}_{end * 1000}.flac",
        f"{ytid}_{start}_{end}.wav",
    )
    part = f"part{position // 1000:02d}"
    return Path(name.removesuffix(".csv"), part, forms[position % len(forms)])


def _without_audio(number: int) -> int:
    """Rows without audio for so many with audio."""
    return max(1, number // 10)


def _write_segments(path: Path, rows: Sequence[str]) -> None:
    found = [mid for row in rows for mid in row.split('"')[1].split(",")]
    counts = (
        f"# num_ytids={len(rows)}, num_segs={len(rows)}, num_unique_labels={len(set(found))}, "
        f"num_positive_labels={len(found)}"
    )
    names = "# YTID, start_seconds, end_seconds, positive_labels"
    path.write_text(f"{_HEADER}\n{counts}\n{names}\n{''.join(rows)}", encoding="utf-8", newline="\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; by default with the arguments of this process."""
    parser = argparse.ArgumentParser(
        prog="python -m m2dx_audioset.sample", description=__doc__.splitlines()[0]
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where audioset and fsd50k are written")
    parser.add_argument(
        "--clips", type=int, default=24, help="training clips with audio in each (default 24)"
    )
    given = parser.parse_args(arguments)
    if given.clips < NUM_SOUNDS:
        parser.error(f"--clips must be {NUM_SOUNDS} or more, but is {given.clips}")
    print(write_sample(given.folder, clips=given.clips))


if __name__ == "__main__":
    main()
