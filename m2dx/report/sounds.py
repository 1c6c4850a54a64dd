"""The sounds that pictures are made of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from m2dx.contract.errors import AudioError
from m2dx.data.reading import read_wav


@dataclass(frozen=True, eq=False)
class Sound:
    """A recording and what it is called in a picture."""

    name: str
    wav: Tensor  # (N,) samples at the rate of the model that it is for

    def __post_init__(self) -> None:
        if self.wav.ndim != 1 or not len(self.wav):
            raise ValueError(f"wav must be (N,) samples with N > 0, but is {tuple(self.wav.shape)}")


def read_sound(path: Path | str, sample_rate: int, *, start: float = 0.0) -> Sound:
    """A file from `start` (s) to its end, named after the file. AudioError, with the path, where it cannot be read."""
    path = Path(path)
    try:
        return Sound(path.name, torch.from_numpy(read_wav(path, start=start, sample_rate=sample_rate)))
    except AudioError as error:
        raise AudioError(f"{path}: {error}") from error
