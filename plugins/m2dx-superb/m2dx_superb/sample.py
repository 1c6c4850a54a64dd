"""Writes a tiny data set of each task in its corpus's official layout: tones instead of speech.

`python -m m2dx_superb.sample FOLDER` writes `FOLDER/<task>` for `m2dx superb <task> --data`, and
`FOLDER/encoder`, an encoder with random weights. Each class, speaker or phoneme has a pitch of its own.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from m2dx.testing.samples import SoundFiles, write_encoder, write_lines

RATE = 16_000  # Hz
KEYWORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
OTHER_WORDS = ("bed", "cat")
EMOTIONS = ("neu", "hap", "ang", "sad", "exc", "fru")  # `fru` is not of the task
LEXICON = {"ONE": "W AH1 N", "TWO": "T UW1", "SIX": "S IH1 K S", "NINE": "N AY1 N"}
TRIAL_SPEAKERS = (10270, 10271)  # of the verification test
SPEAKERS = (10001, 10002, 10003)


def write_sample(folder: Path, tasks: Sequence[str] = ("pr", "ks", "ic", "sid", "er", "asv")) -> Path:
    """Writes the tasks' data sets and an encoder into a folder, and gives that folder."""
    writers = {"pr": _librispeech, "ks": _speech_commands, "ic": _fluent_commands, "er": _iemocap}
    for task in tasks:
        writers.get(task, _voxceleb)(folder / task)
    write_encoder(folder / "encoder", patch=(80, 2), width=24, heads=2)
    return folder


def _tone(path: Path, pitch: int, *, seconds: float, take: int = 0) -> None:
    """A tone with noise; the pitch is a number of thirds of an octave above 200 Hz."""
    hertz = 200 * 2 ** (pitch / 3)
    SoundFiles(path.parent).add_tone(path.name, hertz, seconds=seconds, noise=0.01, seed=(pitch, take))


def _speech_commands(folder: Path) -> None:
    train, test = folder / "speech_commands_v0.01", folder / "speech_commands_test_set_v0.01"
    training, validation = _speakers(split="train"), _speakers(split="valid")
    takes = [*itertools.islice(training, 3), *itertools.islice(validation, 1)]
    for pitch, word in enumerate((*KEYWORDS, *OTHER_WORDS)):
        for take, speaker in enumerate(takes):
            _tone(train / word / f"{speaker}_nohash_0.wav", pitch, seconds=0.5, take=take)
        for take in (10, 11) if word in KEYWORDS else (10,):
            name = word if word in KEYWORDS else "_unknown_"
            _tone(test / name / f"{word}{take}_nohash_0.wav", pitch, seconds=0.5, take=take)
    for take, kind in enumerate(("white_noise", "running_tap")):
        _noise(train / "_background_noise_" / f"{kind}.wav", seconds=1.5, take=take)
        _noise(test / "_silence_" / f"{kind}.wav", seconds=1.0, take=take + 2)


def _noise(path: Path, *, seconds: float, take: int) -> None:
    wav = np.random.default_rng(take).normal(scale=0.02, size=round(seconds * RATE))
    SoundFiles(path.parent).add(path.name, take, lambda: wav)


def _speakers(*, split: str) -> Iterator[str]:
    """Names of speakers that the data set's rule (the SHA-1 of the name) puts into a split."""
    for number in itertools.count():
        name = f"{number:08x}"
        percentage = int(hashlib.sha1(name.encode()).hexdigest(), 16) % 2**27 * 100 / (2**27 - 1)
        if (split == "valid" and percentage < 10) or (split == "train" and percentage >= 20):
            yield name


def _voxceleb(folder: Path) -> None:
    """Speakers, their division for identification, and the trials of verification."""
    lines, trials = [], []
    for pitch, speaker in enumerate((*SPEAKERS, *TRIAL_SPEAKERS)):
        part = "test" if speaker in TRIAL_SPEAKERS else "dev"
        names = []
        for take, split in enumerate((1, 1, 1, 2, 3)):
            name = f"id{speaker}/video{take}/00001.wav"
            _tone(folder / part / "wav" / name, 2 * pitch, seconds=2.2, take=take)
            lines.append(f"{split} {name}")
            names.append(name)
        if part == "test":
            trials.append(names)
    first, second = trials
    pairs = [(1, first[0], first[1]), (1, second[0], second[1]), (0, first[0], second[0])]
    pairs.append((0, second[1], first[1]))
    write_lines(folder / "iden_split.txt", lines)
    write_lines(folder / "voxceleb1_test_v2.txt", [f"{label} {one} {two}" for label, one, two in pairs])


def _iemocap(folder: Path) -> None:
    for session in range(1, 6):
        scene = f"Ses{session:02d}F_impro01"
        lines = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", ""]
        for number, emotion in enumerate(EMOTIONS * 2):
            name = f"{scene}_F{number:03d}"
            pitch = 3 * EMOTIONS.index(emotion)
            wav = folder / f"Session{session}" / "sentences" / "wav" / scene / f"{name}.wav"
            _tone(wav, pitch, seconds=0.6, take=20 * session + number)
            lines.append(f"[{number}.0000 - {number}.6000]\t{name}\t{emotion}\t[2.5000, 2.5000, 2.5000]")
        write_lines(folder / f"Session{session}" / "dialog" / "EmoEvaluation" / f"{scene}.txt", lines)


def _fluent_commands(folder: Path) -> None:
    intents = [("activate", "lights", "kitchen"), ("deactivate", "music", "none"), ("bring", "shoes", "none")]
    for split, takes in (("train", 4), ("valid", 2), ("test", 2)):
        rows = [",path,speakerId,transcription,action,object,location"]
        for number, ((action, thing, location), take) in enumerate(itertools.product(intents, range(takes))):
            path = f"wavs/speakers/{split}speaker{take}/{split}-{number}.wav"
            pitch = 4 * [intent[0] for intent in intents].index(action)
            _tone(folder / path, pitch, seconds=0.6, take=len(split) + 10 * take)
            rows.append(f"{number},{path},{split}speaker{take},{action} it,{action},{thing},{location}")
        write_lines(folder / "data" / f"{split}_data.csv", rows)


def _librispeech(folder: Path) -> None:
    speakers = []
    for reader, split in enumerate(("train-clean-100", "dev-clean", "test-clean"), 1):
        speakers.append(f"{reader}   | F | {split}  | 25.0 | A Reader")
        chapter = folder / split / str(reader) / "7"
        lines = []
        for number in range(4):
            words = [*LEXICON][number:] + [*LEXICON][:number]
            _tone(chapter / f"{reader}-7-{number:04d}.flac", 5 * number, seconds=2.0, take=reader)
            lines.append(f"{reader}-7-{number:04d} {' '.join(words)}")
        write_lines(chapter / f"{reader}-7.trans.txt", lines)
    write_lines(folder / "SPEAKERS.TXT", [";ID  |SEX| SUBSET           |MINUTES| NAME", *speakers])
    words = [f"{word}\t{phonemes}" for word, phonemes in LEXICON.items()]
    write_lines(folder / "librispeech-lexicon-200k-g2p.txt", words[:2])
    write_lines(folder / "librispeech-lexicon-allothers-g2p.txt", words[2:])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m m2dx_superb.sample", description=write_sample.__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    folder = write_sample(parser.parse_args().folder)
    print(f"m2dx superb ks --encoder {folder / 'encoder'} --data {folder / 'ks'} -- --train.total_steps 20")


if __name__ == "__main__":
    main()
