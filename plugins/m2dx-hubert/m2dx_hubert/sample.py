"""Writes a small LibriSpeech with made-up voices in the official layout: `python -m m2dx_hubert.sample FOLDER`."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from m2dx.testing.samples import SoundFiles, write_lines
from m2dx_hubert.architectures import MODELS, ModelName, build_network
from m2dx_hubert.librispeech import NUM_UTTERANCES

SAMPLE_RATE = 16_000  # Hz
_RECORDINGS = 4  # of each speaker; further clips are links to them
_CHAPTERS = 2  # of each speaker
_SPEAKERS = 2  # of each subset
_FORMANTS = ((730, 1090), (270, 2290), (300, 870), (530, 1840), (640, 1190))  # Hz, of five vowels
_WORDS = "CHAPTER ONE MISTER THE AND OF HOUSE WAS UPON A RIVER".split()
_SUBSETS = ("train-clean-100", "dev-clean", "test-clean")
_FIRST_SPEAKER, _FIRST_CHAPTER = 19, 198  # as in train-clean-100


def write_sample(
    folder: Path,
    *,
    clips: int = 24,
    subsets: Sequence[str] = _SUBSETS,
    seconds: tuple[float, float] = (2.0, 16.0),
    seed: int = 0,
) -> Path:
    """A LibriSpeech of so many utterances in each subset; gives its folder.

    Each speaker gets four recordings at most, of lengths between `seconds`; further utterances are hard links to them.
    """
    root = folder / "LibriSpeech"
    rng, files = np.random.default_rng(seed), SoundFiles(root, SAMPLE_RATE)
    speakers, chapters = [], []
    for number, subset in enumerate(subsets):
        for index in range(_SPEAKERS):
            numbers = itertools.count()
            speaker = _FIRST_SPEAKER + 7 * (number * _SPEAKERS + index)
            speakers.append(
                f"{speaker:<4} | {'FM'[index % 2]} | {subset:<16} | {25.0:<5.2f} | Reader {speaker}"
            )
            for part in range(_CHAPTERS):
                chapter = _FIRST_CHAPTER + 100 * speaker + part
                count = len(range(index * _CHAPTERS + part, clips, _SPEAKERS * _CHAPTERS))
                _write_chapter(
                    files, subset, speaker, chapter, islice(numbers, count), seconds=seconds, rng=rng
                )
                if count:
                    chapters.append(
                        f"{chapter:<6} | {speaker:<6} | 1.00 | {subset:<16} | 1 | 1 | Part | A Book"
                    )
    header = ";ID  |SEX| SUBSET           |MINUTES| NAME"
    write_lines(root / "SPEAKERS.TXT", [header, *speakers])
    header = ";ID    |READER|MINUTES| SUBSET           | PROJ.|BOOK ID| CH. TITLE | PROJECT TITLE"
    write_lines(root / "CHAPTERS.TXT", [header, *chapters])
    return root


def _write_chapter(
    files: SoundFiles,
    subset: str,
    speaker: int,
    chapter: int,
    numbers: Iterable[int],
    *,
    seconds: tuple[float, float],
    rng: np.random.Generator,
) -> None:
    """The utterances and transcripts of a chapter; `numbers` count those of the speaker."""

    def voice() -> NDArray[np.float32]:
        return speech(rng, seconds=float(rng.uniform(*seconds)), pitch=100.0 + 8 * (speaker % 13))

    folder, lines = Path(subset, str(speaker), str(chapter)), []
    for index, number in enumerate(numbers):
        name = f"{speaker}-{chapter}-{index:04d}"
        recording = number if number < _RECORDINGS else int(rng.integers(_RECORDINGS))
        files.add(folder / f"{name}.flac", (speaker, recording), voice)
        lines.append(f"{name} {' '.join(rng.choice(_WORDS, 8))}")
    if lines:
        write_lines(files.folder / folder / f"{speaker}-{chapter}.trans.txt", lines)


def speech(rng: np.random.Generator, *, seconds: float, pitch: float) -> NDArray[np.float32]:
    """(N,) samples at 16 kHz that resemble speech: voiced syllables of `pitch` (Hz), hissing, and pauses."""
    wav = 1e-3 * rng.standard_normal(round(seconds * SAMPLE_RATE))
    position = int(0.1 * SAMPLE_RATE)
    while position < len(wav):
        length = int(rng.uniform(0.08, 0.3) * SAMPLE_RATE)
        part = wav[position : position + length]
        envelope = np.sin(np.pi * np.arange(len(part)) / length)
        if rng.random() < 0.7:
            part += envelope * _vowel(rng, len(part), pitch)
        elif rng.random() < 0.6:
            part += envelope * 0.03 * np.diff(rng.standard_normal(len(part) + 1))
        position += length
    return np.asarray(0.7 * wav / np.abs(wav).max(), dtype=np.float32)


def _vowel(rng: np.random.Generator, num_samples: int, pitch: float) -> NDArray[np.float64]:
    """Harmonics of a gliding pitch under two formants."""
    time = np.arange(num_samples) / SAMPLE_RATE
    phase = 2 * np.pi * pitch * (time + rng.uniform(-0.3, 0.3) * time**2)
    formants = _FORMANTS[int(rng.integers(len(_FORMANTS)))]
    wav: NDArray[np.float64] = np.zeros(num_samples)
    for harmonic in range(1, int(3500 / pitch)):
        gain = sum(np.exp(-(((harmonic * pitch - formant) / 150) ** 2)) for formant in formants)
        wav += (gain + 0.05 / harmonic) * np.sin(harmonic * phase)
    return 0.2 * wav


def write_weights(file: Path, *, model: ModelName = "hubert_base", layer: int = 9, seed: int = 0) -> Path:
    """Random weights of a model's first blocks, float16, to try recipes without the real ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network(MODELS[model], layer, conv_bias=MODELS[model].conv_bias)
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save({name: tensor.half() for name, tensor in network.state_dict().items()}, file)
    return file


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the folder LibriSpeech is written")
    parser.add_argument("--clips", type=int, default=24, help="utterances in each subset")
    parser.add_argument("--subsets", nargs="+", choices=list(NUM_UTTERANCES), default=list(_SUBSETS))
    parser.add_argument(
        "--weights", type=Path, help="write random weights of HuBERT Base into this file, too"
    )
    arguments = parser.parse_args()
    print(write_sample(arguments.folder, clips=arguments.clips, subsets=arguments.subsets))
    if arguments.weights is not None:
        print(write_weights(arguments.weights))


if __name__ == "__main__":
    main()
