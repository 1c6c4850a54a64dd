"""An encoder as a self-describing folder: model.safetensors and config.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from m2dx.contract.atomic import replace_files
from m2dx.contract.errors import CheckpointError
from m2dx.encoder.config import EXPORT_CONFIG
from m2dx.encoder.published import published_names
from m2dx.encoder.weights import EXPORT_WEIGHTS, newest_checkpoint, read_weights, tensors_writer


def export_encoder(checkpoint: Path, folder: Path) -> Path:
    """Writes the online encoder of a checkpoint (or of a run's newest one) to a folder, and returns the folder.

    model.safetensors has the published parameter names; config.json holds sizes, log-mel settings, mean and std, and
    the whole recipe. `load_encoder(folder)` (or `load_image_encoder`) reads it back.
    """
    if not checkpoint.exists():
        raise CheckpointError(f"{checkpoint}: no such checkpoint or run")
    path = newest_checkpoint(checkpoint) if checkpoint.is_dir() else checkpoint
    weights = read_weights(path)
    if weights.source != "checkpoint":
        raise CheckpointError(f"{path}: only m2dx checkpoints can be exported")
    write_export(folder, weights.encoder().state_dict(), {**weights.config.to_json(), **weights.about})
    return folder


def write_export(
    folder: Path,
    encoder: Mapping[str, Tensor],
    config: Mapping[str, Any],
    further: Mapping[str, Tensor] | None = None,
) -> None:
    """Writes an encoder's state and `further` tensors, and what is said of them; a folder with a config.json is whole.

    Raises OSError where the disk refuses it.
    """
    text = json.dumps(config, indent=1) + "\n"
    files = {
        EXPORT_WEIGHTS: tensors_writer({**published_names(encoder), **(further or {})}),
        EXPORT_CONFIG: lambda file: file.write(text.encode()),
    }
    replace_files(folder, files)
