"""The golden clip of an export: a second of sound and what the encoder gave for it, computed again at each load."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from m2dx.contract.atomic import Writer
from m2dx.contract.errors import CheckpointError
from m2dx.encoder.weights import read_tensors, tensors_writer

if TYPE_CHECKING:
    from m2dx.encoder.audio import AudioEncoder

GOLDEN = "golden.safetensors"
MOST_DIFFERENCE = 1e-3  # relative; other processors and versions of torch give some 1e-6


@torch.inference_mode()
def golden_writer(network: AudioEncoder) -> Writer:
    """Writes noise, in which no band of the log-mel is silent, and what the encoder gives for it."""
    wav = 0.1 * torch.randn(network.sample_rate, generator=torch.Generator().manual_seed(0))
    return tensors_writer({"wav": wav, **_given(network, wav)}, {"torch": torch.__version__})


@torch.inference_mode()
def check_golden(network: AudioEncoder, folder: Path) -> None:
    """CheckpointError where an export's encoder gives something else than when it was written."""
    if not (folder / GOLDEN).exists():
        raise CheckpointError(f"{folder}: must have {GOLDEN}, which `m2dx export` writes; export it anew")
    golden, about = read_tensors(folder / GOLDEN)
    with CheckpointError.blaming(f"{folder / GOLDEN}: not a golden clip"):
        given = _given(network, golden["wav"])
        expected = {name: golden[name] for name in given}
    for name, blamed in {"logmel": "audio, mean or std in config.json", "frames": "the weights"}.items():
        alike = given[name].shape == expected[name].shape
        off = ((given[name] - expected[name]).norm() / expected[name].norm()).item() if alike else math.inf
        if not off <= MOST_DIFFERENCE:
            raise CheckpointError(
                f"{folder}: the {name} of the sound in {GOLDEN} must be those of the export, but are off by {off:.2g} "
                f"of their norm: {blamed} are others, or torch {torch.__version__} computes something else than "
                f"{about.get('torch')}; export or copy the folder again"
            )


def _given(network: AudioEncoder, wav: Tensor) -> dict[str, Tensor]:
    """The standardised log-mel (1, 1, M, L) of samples (N,), and features (1, T, F*D) of as much as one input has."""
    with torch.autocast(wav.device.type, enabled=False):
        logmel = network.standard_logmel(wav)
        (frames,) = network.encode_logmel(logmel[..., : network.encoder.grid.input_size[1]])
    return {"logmel": logmel, "frames": frames}
