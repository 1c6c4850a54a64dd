"""Small labelled audio for tests and trials: sounds, files of them in any layout, lists, and an encoder."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor


def tone(
    hertz: float,
    *,
    seconds: float,
    sample_rate: int = 16_000,
    beat: float = 0.0,
    noise: float = 0.02,
    seed: int | Sequence[int] = 0,
) -> NDArray[np.float64]:
    """(N,) samples of a tone in white noise, which follows from the seed; its level swells `beat` times a second."""
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    level = (1 + np.sin(2 * np.pi * beat * time)) / 2 if beat else 1.0
    wav: NDArray[np.float64] = 0.3 * level * np.sin(2 * np.pi * hertz * time)
    return wav + np.random.default_rng(seed).normal(scale=noise, size=time.size)


@dataclass
class SoundFiles:
    """Audio files below a folder; files of one sound are links to the first, or copies where links cannot be."""

    folder: Path
    sample_rate: int = 16_000  # Hz
    written: dict[tuple[Hashable, str], Path] = field(default_factory=dict)

    def add(self, name: str | Path, sound: Hashable, make: Callable[[], NDArray[np.floating]]) -> Path:
        """Writes a file in the format that its extension says; `make` is called for the first file of a sound."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        first = self.written.setdefault((sound, path.suffix), path)
        if first == path:
            subtype = "VORBIS" if path.suffix == ".ogg" else "PCM_16"
            soundfile.write(path, make(), self.sample_rate, subtype=subtype)
            return path
        try:
            os.link(first, path)
        except OSError:  # a file system without links, or with a limit on their number
            shutil.copyfile(first, path)
        return path


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Writes a text file and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")


def write_csv(path: Path, header: str, rows: Iterable[Sequence[object]]) -> None:
    """Writes a CSV file and its folder; no header where that is empty."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(f"{header}\n" if header else "")
        csv.writer(file, lineterminator="\n").writerows(rows)


def write_encoder(
    folder: Path,
    *,
    frames: int = 64,
    patch: tuple[int, int] = (16, 16),
    width: int = 192,
    depth: int = 2,
    heads: int = 3,
    seed: int = 0,
) -> Path:
    """An export of m2dx with random weights, for 80 mels at 16 kHz: `model.safetensors` and `config.json`."""
    generator = torch.Generator().manual_seed(seed)

    def matrix(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).div(shape[-1] ** 0.5)

    patches = (80 // patch[0]) * (frames // patch[1])
    state = {
        "cls_token": 0.02 * matrix(1, 1, width),
        "pos_embed": matrix(1, 1 + patches, width),
        "patch_embed.proj.weight": matrix(width, patch[0] * patch[1]).unflatten(1, (1, *patch)),
        "patch_embed.proj.bias": torch.zeros(width),
    }
    norms = ["norm"]
    sizes = {"attn.qkv": (3, 1), "attn.proj": (1, 1), "mlp.fc1": (4, 1), "mlp.fc2": (1, 4)}
    for block in (f"blocks.{number}" for number in range(depth)):
        norms += [f"{block}.norm1", f"{block}.norm2"]
        for layer, (outputs, inputs) in sizes.items():
            state[f"{block}.{layer}.weight"] = matrix(outputs * width, inputs * width)
            state[f"{block}.{layer}.bias"] = torch.zeros(outputs * width)
    for norm in norms:
        state[f"{norm}.weight"], state[f"{norm}.bias"] = torch.ones(width), torch.zeros(width)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "format": "m2dx-encoder",
        "version": 1,
        "input_size": [80, frames],
        "patch_size": list(patch),
        "vit": {"embed_dim": width, "depth": depth, "num_heads": heads},
        "audio": {"sample_rate": 16_000, "crop_seconds": frames / 100},
        "mean": -7.0,
        "std": 4.0,
    }
    write_lines(folder / "config.json", [json.dumps(config, indent=1)])
    return folder
