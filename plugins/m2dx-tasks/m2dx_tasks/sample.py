"""Writes each task small in its official layout, with synthetic sounds, for tests and trial runs.

`python -m m2dx_tasks.sample FOLDER [--clips N] [--task NAME]...` writes FOLDER/NAME for each task.

Names, columns and nesting are the official ones; the numbers of clips are not, and m2dx says so. Each class is a tone,
so that the tasks can be learnt.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from m2dx.testing.samples import SoundFiles, sample_parser, write_csv, write_lines
from m2dx_tasks.speech import EMOTIONS, LANGUAGES

DISTINCT = 4  # sounds of a class; further clips are links to them


class _Sounds(SoundFiles):
    """Tones, one frequency for each class."""

    def __init__(self, folder: Path, *, seconds: float, sample_rate: int = 16_000) -> None:
        super().__init__(folder, sample_rate)
        self.seconds = seconds

    def clip(self, name: str, *, label: int, number: int) -> None:
        """A file with a sound of a class."""
        take = number % DISTINCT
        hertz = 110 * 2 ** (label / 16) * (1 + 0.004 * take)  # a class every 3/4 of a semitone
        self.add_tone(name, hertz, seconds=self.seconds, seed=(label, take))


def write_esc50(folder: Path, *, clips: int = 100) -> Path:
    """meta/esc50.csv and audio, at 44.1 kHz: two clips of each recording, 50 classes, the five folds in turn."""
    sounds = _Sounds(folder, seconds=0.5, sample_rate=44_100)
    rows = []
    for number in range(max(clips, 500)):
        target, fold, take = number // 2 % 50, number // 100 % 5 + 1, "AB"[number % 2]
        name = f"{fold}-{100_000 + number // 2}-{take}-{target}.wav"
        sounds.clip(f"audio/{name}", label=target, number=number)
        rows.append(
            (name, fold, target, f"class_{target}", target % 5 == 0, str(100_000 + number // 2), take)
        )
    header = "filename,fold,target,category,esc10,src_file,take"
    write_csv(folder / "meta/esc50.csv", header, rows)
    return folder


def write_us8k(folder: Path, *, clips: int = 100) -> Path:
    """metadata/UrbanSound8K.csv and audio: two slices of each recording, 10 classes, the ten folds in turn."""
    sounds = _Sounds(folder, seconds=0.4, sample_rate=44_100)
    rows = []
    for number in range(max(clips, 200)):
        class_id, fold, recording = number // 2 % 10, number // 20 % 10 + 1, 100_000 + number // 2
        name = f"{recording}-{class_id}-0-{number % 2}.wav"
        sounds.clip(f"audio/fold{fold}/{name}", label=class_id, number=number)
        rows.append((name, recording, 0.0, 0.4, 1, fold, class_id, f"class_{class_id}"))
    header = "slice_file_name,fsID,start,end,salience,fold,classID,class"
    write_csv(folder / "metadata/UrbanSound8K.csv", header, rows)
    return folder


def write_spcv2(folder: Path, *, clips: int = 100) -> Path:
    """35 folders of words and the two lists: of ten speakers one is for validation, one for the test."""
    sounds = _Sounds(folder, seconds=0.25)
    lists: dict[str, list[str]] = {"validation_list.txt": [], "testing_list.txt": []}
    for number in range(max(clips, 350)):
        word, speaker = number % 35, number // 35
        name = f"word{word:02d}/{speaker:08x}_nohash_0.wav"
        sounds.clip(name, label=word, number=number)
        if speaker % 10 > 7:
            lists[list(lists)[speaker % 10 - 8]].append(name)
    sounds.clip("_background_noise_/pink_noise.wav", label=60, number=0)
    for file, names in lists.items():
        write_lines(folder / file, sorted(names))
    return folder


def write_voxceleb1(folder: Path, *, clips: int = 100) -> Path:
    """iden_split.txt and wav: each speaker has four videos, one of which is for the test."""
    sounds = _Sounds(folder, seconds=0.5)
    lines = []
    for number in range(clips):
        speaker, video = number // 8, number % 8 // 2
        name = f"id1{speaker + 1:04d}/Video{video:06d}/{number % 2 + 1:05d}.wav"
        sounds.clip(f"wav/{name}", label=speaker % 64, number=number)
        lines.append(f"{(1, 1, 2, 3)[video]} {name}")
    write_lines(folder / "iden_split.txt", sorted(lines))
    return folder


def write_voxforge(folder: Path, *, clips: int = 100) -> Path:
    """A folder for each language with archives of two prompts, two archives by each user; no list of a split."""
    sounds = _Sounds(folder, seconds=0.5)
    for number in range(max(clips, 240)):
        language = number // 4 % len(LANGUAGES)
        user = f"user{number // 24:02d}{LANGUAGES[language]}"
        archive = f"{user}-2014012{number // 2 % 2}-abc"
        name = f"{LANGUAGES[language]}/{archive}/wav/{LANGUAGES[language]}5-{number % 2 + 1:03d}.wav"
        sounds.clip(name, label=language, number=number)
        write_lines(folder / LANGUAGES[language] / archive / "etc/README", ["User Name:" + user])
    return folder


def write_cremad(folder: Path, *, clips: int = 100) -> Path:
    """AudioWAV: each actor says a sentence with the six emotions; no list of a split."""
    sounds = _Sounds(folder, seconds=0.5)
    for number in range(max(clips, 120)):
        emotion, actor = number % 6, 1001 + number // 6
        sounds.clip(f"AudioWAV/{actor}_DFA_{EMOTIONS[emotion]}_XX.wav", label=emotion, number=number)
    return folder


def write_gtzan(folder: Path, *, clips: int = 100) -> Path:
    """Ten folders of genres and the three lists; one file in ten is in none of them."""
    sounds = _Sounds(folder, seconds=0.5, sample_rate=22_050)
    names = "blues classical country disco hiphop jazz metal pop reggae rock".split()
    lists: dict[str, list[str]] = {"train": [], "valid": [], "test": []}
    for number in range(max(clips, 100)):
        genre, place = names[number % 10], number // 10
        name = f"{genre}/{genre}.{place:05d}.wav"
        sounds.clip(f"genres/{name}", label=number % 10, number=number)
        if place % 10 < 9:
            lists[("train", "train", "valid", "test")[place % 4]].append(name)
    for split, files in lists.items():
        write_lines(folder / f"{split}_filtered.txt", files)
    return folder


def write_nsynth(folder: Path, *, clips: int = 100) -> Path:
    """The three parts: eleven families, pitches of 20 to 109 by turns; a tenth each is for validation and the test."""
    families = "bass brass flute guitar keyboard mallet organ reed string synth_lead vocal".split()
    sounds = _Sounds(folder, seconds=0.5)
    notes: dict[str, dict[str, object]] = {"train": {}, "valid": {}, "test": {}}
    for number in range(max(clips, 330)):
        family, pitch, tenth = number % 11, 20 + number % 90, number // 11 % 10
        split = {8: "valid", 9: "test"}.get(tenth, "train")
        instrument = f"{families[family]}_acoustic_{ {'train': 0, 'valid': 1, 'test': 2}[split]:03d}"
        note = f"{instrument}-{pitch:03d}-{25 + number // 90:03d}"
        sounds.clip(f"nsynth-{split}/audio/{note}.wav", label=family, number=number)
        notes[split][note] = {
            "note": number,
            "note_str": note,
            "instrument": family,
            "instrument_str": instrument,
            "pitch": pitch,
            "velocity": 25 + number // 90,
            "sample_rate": 16_000,
            "qualities": [0] * 10,
            "qualities_str": [],
            "instrument_family": family,
            "instrument_family_str": families[family],
            "instrument_source": 0,
            "instrument_source_str": "acoustic",
        }
    for split, described in notes.items():
        write_lines(folder / f"nsynth-{split}/examples.json", [json.dumps(described, indent=4)])
    return folder


def write_surge(folder: Path, *, clips: int = 100) -> Path:
    """A folder for each preset with the 88 keys; no list of a split."""
    sounds = _Sounds(folder, seconds=0.25, sample_rate=44_100)
    for number in range(max(clips, 88 * 11)):
        preset, pitch = number // 88, 21 + number % 88
        name = f"surge-patches-3rdparty-Made-Up-Basses-Bass-{preset + 1}-velocity64/{pitch}.ogg"
        sounds.clip(name, label=(pitch - 21) % 64, number=0)
    return folder


WRITERS: Mapping[str, Callable[..., Path]] = {
    "esc50": write_esc50,
    "us8k": write_us8k,
    "spcv2": write_spcv2,
    "voxceleb1": write_voxceleb1,
    "voxforge": write_voxforge,
    "cremad": write_cremad,
    "gtzan": write_gtzan,
    "nsynth": write_nsynth,
    "surge": write_surge,
}


def write_sample(folder: Path, *, clips: int = 100, tasks: Iterable[str] | None = None) -> Path:
    """Writes each task in a folder of its name. Where a split needs more clips than asked for, there are more."""
    for name in tasks or WRITERS:
        WRITERS[name](folder / name, clips=clips)
    return folder


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; by default with the arguments of this process."""
    parser = sample_parser(write_sample, clips=100)
    only = "only this one; may be given again"
    parser.add_argument("--task", dest="tasks", action="append", choices=WRITERS, help=only)
    print(write_sample(**vars(parser.parse_args(arguments))))


if __name__ == "__main__":
    main()
