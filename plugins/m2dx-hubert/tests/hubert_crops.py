"""Crops as the engine makes them, and what the encoder must give for them."""

from collections.abc import Callable
from pathlib import Path

import torch
from m2dx_hubert import HuBERT
from torch import Tensor

import m2dx

MakeWav = Callable[..., Path]
MakeViews = Callable[..., m2dx.Views]
SECOND = 16_000  # samples


def crop_of(clip: m2dx.Clip, start: float, seconds: float = 1.0) -> tuple[m2dx.Crop, Tensor]:
    """A crop as the engine makes it; `start` in seconds from the beginning of the file."""
    wav = m2dx.read_wav(clip.path, start=start, duration=seconds, sample_rate=SECOND)
    return m2dx.Crop(clip, start), torch.from_numpy(wav)[: int(seconds * SECOND)]


def files(cache: Path) -> list[Path]:
    return sorted(cache.rglob("*.npy"))


def whole(hubert: HuBERT, clip: m2dx.Clip) -> Tensor:
    """The features of the whole clip, as the cache rounds them."""
    wav = m2dx.read_wav(clip.path, start=clip.start, duration=clip.duration, sample_rate=SECOND)
    return hubert.encode(torch.from_numpy(wav)[None])[0].half().float()


def never(wav: Tensor) -> Tensor:
    raise AssertionError(f"{tuple(wav.shape)} must not be encoded")


def frames_of(wav: Tensor) -> Tensor:
    """(B, S, 4): the first samples of each frame, so that every frame says where it is from."""
    return wav.unfold(1, 400, 320)[..., :4]
