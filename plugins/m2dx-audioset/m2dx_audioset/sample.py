"""Writes small data sets in the layouts of AudioSet and FSD50K, with synthetic sounds, for tests and trial runs.

`python -m m2dx_audioset.sample FOLDER [--clips N]` writes FOLDER/audioset and FOLDER/fsd50k.

Names, columns and quoting of the lists are the official ones. The identifiers are made up, and so are the classes but
for the first few: AudioSet's own list has 527 with other names. Some segments have no audio, as on every machine.
"""

from __future__ import annotations

import random
import string
from collections.abc import Iterator, Sequence
from itertools import count, islice
from pathlib import Path

from m2dx.testing.samples import SoundFiles, sample_parser, write_csv, write_lines
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
    others = ((f"/t/dd{n:05d}", f"Sound {n}, synthetic") for n in range(len(_AUDIOSET_CLASSES), NUM_CLASSES))
    classes = [*_AUDIOSET_CLASSES, *others]
    rows = [f'{n},{mid},"{name}"' for n, (mid, name) in enumerate(classes)]
    write_lines(folder / CLASSES_FILE, ["index,mid,display_name", *rows])
    sounds, ids = SoundFiles(folder / "audio"), _video_ids(seed)
    balanced, evaluated = max(1, clips // 3), max(NUM_SOUNDS, clips // 3)
    for name, number in ((BALANCED, balanced), (UNBALANCED, clips - balanced), (EVALUATION, evaluated)):
        rows, found = [], []
        for position, ytid in enumerate(islice(ids, _listed(number))):
            sound = position % NUM_SOUNDS
            start, seconds = 30 * (sound % 2), 8 if sound == NUM_SOUNDS - 1 else 10
            if position < number:
                place = Path(name.removesuffix(".csv"), f"part{position // 1000:02d}")
                path = place / _audioset_name(ytid, start, start + seconds, position)
                _add(sounds, path, sound, seconds, seed)
            mids = sorted({classes[sound][0], *([classes[10 + sound % 3][0]] if position % 3 else [])})
            rows.append(f'{ytid}, {start}.000, {start + seconds}.000, "{",".join(mids)}"')
            found += mids
        counts = f"num_ytids={len(rows)}, num_segs={len(rows)}, num_unique_labels={len(set(found))}"
        counts = f"# {counts}, num_positive_labels={len(found)}"
        names = "# YTID, start_seconds, end_seconds, positive_labels"
        write_lines(folder / name, [_HEADER, counts, names, *sorted(rows)])
    return folder


def write_fsd50k(folder: Path, *, clips: int = 24, seed: int = 0) -> Path:
    """Writes the lists and files for `clips` development clips, and half as many for evaluation.

    Of five rounds of the 8 sounds (tones in noise of 0.5 to 4 s, at 44.1 kHz) the second is for validation. Each list
    has one more clip in ten, without audio.
    """
    others = ((f"Sound_{n:03d}", f"/t/dd{n:05d}") for n in range(len(_FSD50K_CLASSES), NUM_FSD50K_CLASSES))
    classes = [*_FSD50K_CLASSES, *others]
    write_csv(folder / GROUND_TRUTH / VOCABULARY, "", ((n, *names) for n, names in enumerate(classes)))
    sounds, numbers = SoundFiles(folder, 44_100), count(1000 + seed)
    for name, number in (("dev.csv", clips), ("eval.csv", max(NUM_SOUNDS, clips // 2))):
        development, rows = name == "dev.csv", []
        for position, fname in enumerate(islice(numbers, _listed(number))):
            sound = position % NUM_SOUNDS
            if position < number:
                _add(sounds, Path(AUDIO_FOLDERS[name], f"{fname}.wav"), sound, 0.5 + sound / 2, seed)
            labels = [classes[sound], *([classes[10 + sound % 3]] if position % 3 else [])]
            split = "val" if position // NUM_SOUNDS % 5 == 1 else "train"
            cells = [",".join(texts) for texts in zip(*labels, strict=True)]
            rows.append([fname, *cells, *([split] if development else [])])
        header = "fname,labels,mids,split" if development else "fname,labels,mids"
        write_csv(folder / GROUND_TRUTH / name, header, rows)
    return folder


def _add(files: SoundFiles, path: Path, sound: int, seconds: float, seed: int) -> None:
    """Writes one of the distinct sounds, each of its own pitch and beat."""
    files.add_tone(path, 200 * 1.5**sound, seconds=seconds, beat=1.0 + sound, seed=(seed, sound))


def _listed(number: int) -> int:
    """Rows of a list with so many clips: one more in ten has no audio."""
    return number + max(1, number // 10)


def _video_ids(seed: int) -> Iterator[str]:
    """Identifiers of 11 characters, no two alike; first those that are easily misread."""
    yield from _SPECIAL_IDS
    generator = random.Random(seed)
    for number in count():
        yield "".join(generator.choices(f"{string.ascii_letters}{string.digits}-_", k=7)) + f"{number:04x}"


def _audioset_name(ytid: str, start: int, end: int, position: int) -> str:
    """A file name of one of the forms that tools write."""
    forms = (
        f"{ytid}.wav",
        f"Y{ytid}.flac",
        f"{ytid}_{start}.000_{end}.000.wav",
        f"{ytid}_{start * 1000}_{end * 1000}.flac",
        f"{ytid}_{start}_{end}.wav",
    )
    return forms[position % len(forms)]


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; by default with the arguments of this process."""
    parser = sample_parser(write_sample, clips=24, least=NUM_SOUNDS)
    print(write_sample(**vars(parser.parse_args(arguments))))


if __name__ == "__main__":
    main()
