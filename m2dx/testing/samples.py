"""Small labelled audio for tests and trials: sounds, files of them in any layout, lists, and an encoder."""

from __future__ import annotations

import csv
import os
import shutil
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray

from m2dx.contract.components import ViTSize
from m2dx.encoder.config import EncoderConfig
from m2dx.encoder.weights import write_export
from m2dx.model.vit import Encoder
from m2dx.recipe.schema import AudioSection


def tone(
    hertz: float,
    *,
    seconds: float,
    sample_rate: int = 16_000,
    beat: float = 0.0,
    noise: float = 0.02,
    seed: int | Sequence[int] = 0,
) -> NDArray[np.float64]:
    """(N,) samples of a tone in white noise drawn from the seed; the tone's level swells `beat` times per second."""
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    level = (1 + np.sin(2 * np.pi * beat * time)) / 2 if beat else 1.0
    wav: NDArray[np.float64] = 0.3 * level * np.sin(2 * np.pi * hertz * time)
    return wav + np.random.default_rng(seed).normal(scale=noise, size=time.size)


@dataclass
class SoundFiles:
    """Audio files below a folder; files of the same sound are links to the first, or copies on disks without links."""

    folder: Path
    sample_rate: int = 16_000  # Hz
    written: dict[tuple[Hashable, str], Path] = field(default_factory=dict)
    sounds: dict[Path, Hashable] = field(default_factory=dict)
    """What each file holds: one that was written again may hold another sound."""

    def add(self, name: str | Path, sound: Hashable, make: Callable[[], NDArray[np.floating]]) -> Path:
        """Writes a file in the format of its extension; calls `make` for the first file of a sound."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        self.sounds[path] = sound
        first = self.written.get((sound, path.suffix), path)
        if first == path or self.sounds[first] != sound:
            self.written[sound, path.suffix] = path
            subtype = "VORBIS" if path.suffix == ".ogg" else "PCM_16"
            soundfile.write(path, make(), self.sample_rate, subtype=subtype)
            return path
        try:
            os.link(first, path)
        except OSError:  # a file system without links, or with a limit on their number
            shutil.copyfile(first, path)
        return path

    def add_tone(
        self,
        name: str | Path,
        hertz: float,
        *,
        seconds: float,
        beat: float = 0.0,
        noise: float = 0.02,
        seed: int | tuple[int, ...] = 0,
    ) -> Path:
        """Writes a file of `tone`; files of the same tone are links to the first."""
        sound: dict[str, Any] = {"seconds": seconds, "beat": beat, "noise": noise, "seed": seed}
        make = partial(tone, hertz, sample_rate=self.sample_rate, **sound)
        return self.add(name, (hertz, *sound.values()), make)


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Writes a text file and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")


def write_csv(path: Path, header: str, rows: Iterable[Iterable[object]]) -> None:
    """Writes a CSV file and its folder; an empty header is left out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(f"{header}\n" if header else "")
        csv.writer(file, lineterminator="\n").writerows(rows)


def sample_parser(write: Callable[..., Path], *, clips: int, least: int = 1) -> ArgumentParser:
    """The command line of a program that makes samples: FOLDER, and `--clips` with its default and its minimum."""

    def number(text: str) -> int:
        if int(text) < least:
            raise ArgumentTypeError(f"must be {least} or more, but is {text}")
        return int(text)

    parser = ArgumentParser(description=write.__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where the sample is written")
    parser.add_argument("--clips", type=number, default=clips, metavar="N", help=f"default {clips}")
    return parser


def write_encoder(
    folder: Path,
    *,
    patch: tuple[int, int] = (16, 16),
    width: int = 192,
    heads: int = 3,
    seed: int = 0,
    sample_rate: int = 16_000,
    mean: float = -7.0,
) -> Path:
    """Writes an export with random weights (two blocks; 0.64 s of 80 mels), and returns its folder."""
    config = EncoderConfig(
        input_size=(80, 64),
        patch_size=patch,
        vit=ViTSize(width, 2, heads),
        audio=AudioSection(sample_rate=sample_rate, crop_seconds=0.64),
        mean=mean,
        std=4.0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Encoder(config.grid, config.vit)
    write_export(folder, network, config)
    return folder
