"""Writes a small LibriSpeech in the official layout, of tones: `python -m m2dx_hubert.sample FOLDER`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from m2dx.testing.samples import SoundFiles, sample_parser, write_lines
from m2dx_hubert.architectures import MODELS, build_network
from m2dx_hubert.librispeech import NUM_UTTERANCES

RECORDINGS = 4  # of each speaker; further clips are links to them
_WORDS = "CHAPTER ONE MISTER THE AND OF HOUSE WAS UPON A RIVER".split()
_SUBSETS = ("train-clean-100", "dev-clean", "test-clean")


def write_sample(
    folder: Path,
    *,
    clips: int = 24,
    subsets: Iterable[str] = _SUBSETS,
    seconds: tuple[float, float] = (2.0, 16.0),
) -> Path:
    """A LibriSpeech of so many utterances in each subset, by two speakers in two chapters each; gives its folder.

    Each speaker gets four recordings at most, of lengths between `seconds`; further utterances are hard links to them.
    """
    files, random = SoundFiles(folder / "LibriSpeech"), np.random.default_rng(0)
    speakers = [";ID  |SEX| SUBSET           |MINUTES| NAME"]
    chapters = [";ID    |READER|MINUTES| SUBSET           | PROJ.|BOOK ID| CH. TITLE | PROJECT TITLE"]
    for number, subset in enumerate(subsets):
        for index in range(2):
            speaker = 19 + 7 * (2 * number + index)  # 19 and 198 are the first in train-clean-100
            speakers.append(f"{speaker:<4} | {'FM'[index]} | {subset:<16} | 25.00 | Reader {speaker}")
            lengths, spoken = random.uniform(*seconds, RECORDINGS), 0
            for part in range(2):
                chapter, lines = 198 + 100 * speaker + part, []
                place = f"{subset}/{speaker}/{chapter}/{speaker}-{chapter}"
                for utterance in range(len(range(2 * index + part, clips, 4))):
                    take = spoken % RECORDINGS
                    files.add_tone(
                        f"{place}-{utterance:04d}.flac",
                        100.0 + 8 * (speaker % 13),
                        seconds=lengths[take],
                        beat=4.0,
                        seed=(speaker, take),
                    )
                    lines.append(f"{speaker}-{chapter}-{utterance:04d} {' '.join(random.choice(_WORDS, 8))}")
                    spoken += 1
                if lines:
                    write_lines(files.folder / f"{place}.trans.txt", lines)
                    chapters.append(
                        f"{chapter:<6} | {speaker:<6} | 1.00 | {subset:<16} | 1 | 1 | Part | A Book"
                    )
    write_lines(files.folder / "SPEAKERS.TXT", speakers)
    write_lines(files.folder / "CHAPTERS.TXT", chapters)
    return files.folder


def write_weights(file: Path, *, layer: int = 9) -> Path:
    """Random weights of HuBERT Base's first blocks, float16, to try recipes without the real ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_network(MODELS["hubert_base"], layer, conv_bias=MODELS["hubert_base"].conv_bias)
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save({name: tensor.half() for name, tensor in network.state_dict().items()}, file)
    return file


def main() -> None:
    """The command line."""
    parser = sample_parser(write_sample, clips=24)
    parser.add_argument("--subsets", nargs="+", choices=NUM_UTTERANCES, default=_SUBSETS)
    parser.add_argument("--weights", type=Path, help="write random weights of HuBERT Base here, too")
    arguments = vars(parser.parse_args())
    weights = arguments.pop("weights")
    print(write_sample(**arguments))
    if weights is not None:
        print(write_weights(weights))


if __name__ == "__main__":
    main()
