"""A checkpoint's encoder as a self-describing folder: model.safetensors and config.json."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from m2dx.contract.errors import CheckpointError
from m2dx.contract.version import package_version
from m2dx.encoder.audio import AudioEncoder, load_any_encoder
from m2dx.encoder.checkpoint import read_checked
from m2dx.encoder.images import ImageEncoder
from m2dx.encoder.published import published_names
from m2dx.encoder.weights import CHECKPOINT_FORMAT, EXPORT_FORMAT, EXPORT_WEIGHTS, newest_checkpoint


def export_encoder(checkpoint: Path, folder: Path) -> Path:
    """Writes the online encoder of a checkpoint (or of a run's newest one) to a folder, and returns the folder.

    model.safetensors has the published parameter names; config.json holds sizes, log-mel settings, mean and std, and
    the whole recipe. `load_encoder(folder)` (or `load_image_encoder`) reads it back.
    """
    if not checkpoint.exists():
        raise CheckpointError(f"{checkpoint}: no such checkpoint or run")
    path = newest_checkpoint(checkpoint) if checkpoint.is_dir() else checkpoint
    state = read_checked(path)
    if state.get("format") != CHECKPOINT_FORMAT:
        raise CheckpointError(f"{path}: only m2dx checkpoints can be exported")
    encoder = load_any_encoder(path)
    grid, recipe = encoder.encoder.grid, state["recipe"]
    config: dict[str, Any] = {
        "format": EXPORT_FORMAT,
        "version": 1,
        "m2dx_version": package_version(),
        "step": state["step"],
        "embed_dim": encoder.embed_dim,
        "input_size": list(grid.input_size),
        "patch_size": list(grid.patch_size),
        "vit": asdict(encoder.encoder.size),
        "audio": recipe["audio"],
        **_input_settings(encoder),
        "label_names": state["label_names"],
        "recipe": recipe,
    }
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        key: value.contiguous() for key, value in published_names(encoder.encoder.state_dict()).items()
    }
    save_file(weights, folder / EXPORT_WEIGHTS, metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    return folder


def _input_settings(encoder: AudioEncoder | ImageEncoder) -> dict[str, Any]:
    if isinstance(encoder, ImageEncoder):
        return {"image": encoder.section.model_dump(mode="json")}
    return {
        "sample_rate": encoder.sample_rate,
        "frame_rate": encoder.frame_rate,
        "mean": encoder.mean,
        "std": encoder.std,
    }
