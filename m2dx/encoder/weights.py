"""Reads the weights of exports, checkpoints, runs and published files, under the parameter names of M2D and MSM-MAE."""

from __future__ import annotations

import argparse
import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from m2dx.contract.errors import CheckpointError
from m2dx.encoder import published
from m2dx.encoder.checkpoint import CheckpointFolder, check_records, load_plain
from m2dx.model.patches import PatchGrid
from m2dx.model.shapes import model_shapes
from m2dx.model.vit import Encoder, ViTSize
from m2dx.recipe.schema import AudioSection, ImageSection, ModelSection

CHECKPOINT_FORMAT = "m2dx-checkpoint"
EXPORT_FORMAT = "m2dx-encoder"
EXPORT_WEIGHTS = "model.safetensors"

_CHECKPOINT_PREFIX = "masked_model."


@dataclass(frozen=True)
class Weights:
    """Pre-trained weights, and what is needed to use them."""

    source: str  # "export", "checkpoint" or "published checkpoint"
    path: Path
    tensors: Mapping[str, Tensor]  # online.*, and target.* and predictor.* where the file has them
    grid: PatchGrid
    size: ViTSize
    audio: AudioSection
    mean: float  # of the log-mels
    std: float
    predictor_heads: int | None = None  # None: the file does not tell
    head: Mapping[str, Tensor] = field(default_factory=dict)  # of a published fine-tuned file
    unused: tuple[str, ...] = ()  # what else the file holds
    image: ImageSection | None = (
        None  # of encoders of images, with mean and std; then audio, mean and std say nothing
    )

    def encoder(self) -> Encoder:
        """The online encoder; CheckpointError where the tensors do not fit."""
        encoder = Encoder(self.grid, self.size)
        try:
            encoder.load_state_dict(self.part("online"))
        except RuntimeError as error:
            raise CheckpointError(f"{self.path}: the weights do not fit: {error}") from error
        return encoder

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors of `online`, `target` or `predictor`, without that prefix; empty where the file has none."""
        start = f"{name}."
        return {key[len(start) :]: value for key, value in self.tensors.items() if key.startswith(start)}


def read_weights(
    path: str | Path, *, sample_rate: int | None = None, num_heads: int | None = None
) -> Weights:
    """The weights of an export, a checkpoint, a run's folder or a published file, on the CPU.

    `sample_rate` (Hz) and `num_heads` are for published files only, whose tensors cannot tell them; by default the
    folder's name is asked for the rate (16 kHz where it says nothing), and heads are 64 wide.
    Raises CheckpointError where the path is missing, corrupt or something else.
    """
    path = Path(path)
    if not path.exists():
        raise CheckpointError(f"{path}: no such file or folder")
    if path.name in (EXPORT_WEIGHTS, "config.json") and (path.parent / "config.json").is_file():
        path = path.parent  # an export's weights need what is beside them: log-mel settings, mean and std
    if path.is_dir():
        if (path / "config.json").is_file():
            return _of_export(path)
        path = newest_checkpoint(path)
    state = read_tensors(path)
    if state.get("format") == CHECKPOINT_FORMAT:
        return _of_checkpoint(path, state)
    model_state = state.get("model", state)
    if not isinstance(model_state, Mapping) or not all(isinstance(v, Tensor) for v in model_state.values()):
        raise CheckpointError(
            f"{path}: neither an m2dx checkpoint nor a published one: it holds {sorted(state)[:5]}"
        )
    try:
        return _of_published(path, model_state, sample_rate or _rate_of_folder_name(path), num_heads)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def read_tensors(path: Path) -> dict[str, Any]:
    """What a .safetensors file or a torch checkpoint holds; only tensors and plain data are unpickled."""
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        if zipfile.is_zipfile(path):  # not so the files of PyTorch before 1.6
            check_records(path)
        with torch.serialization.safe_globals([argparse.Namespace]):  # published files keep their arguments
            state = load_plain(path)
    except CheckpointError:
        raise
    except Exception as error:  # any, when the bytes of another kind of file are unpickled
        raise CheckpointError(f"{path}: not a readable checkpoint: {error}") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: a checkpoint must hold a dict, but holds a {type(state).__name__}")
    return state


def newest_checkpoint(folder: Path) -> Path:
    """The newest checkpoint of a run's folder; CheckpointError where there is none."""
    checkpoints = CheckpointFolder(folder / "checkpoints" if (folder / "checkpoints").is_dir() else folder)
    newest = checkpoints.newest()
    if newest is None:
        raise CheckpointError(f"{folder}: neither an export (no config.json) nor a run with checkpoints")
    return newest


def _of_export(folder: Path) -> Weights:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if config.get("format") != EXPORT_FORMAT:
            raise CheckpointError(
                f"{folder}/config.json: format must be {EXPORT_FORMAT}, but is {config.get('format')}"
            )
        image = None if config.get("image") is None else ImageSection(**config["image"])
        channels = 1 if image is None else image.channels
        grid = PatchGrid(tuple(config["input_size"]), tuple(config["patch_size"]), channels)
        size, audio = ViTSize(**config["vit"]), AudioSection(**config["audio"])
        mean, std = (float(config["mean"]), float(config["std"])) if image is None else (0.0, 1.0)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{folder}/config.json: not an m2dx export: {error!r}") from error
    tensors = published.rename(read_tensors(folder / EXPORT_WEIGHTS), published.MODEL_NAMES)
    return Weights("export", folder, tensors, grid, size, audio, mean, std, image=image)


def _of_checkpoint(path: Path, state: Mapping[str, Any]) -> Weights:
    recipe = state["recipe"]
    # Without the masking, whose options only its plugin knows; an encoder does not need it.
    settings = {key: value for key, value in recipe["model"].items() if key != "masking"}
    audio, model = AudioSection(**recipe["audio"]), ModelSection(**settings)
    image = None if recipe.get("image") is None else ImageSection(**recipe["image"])
    shapes = model_shapes(image or audio, model)
    stats = state["statistics"] if image is None else {"mean": 0.0, "std": 1.0}
    tensors = {
        key[len(_CHECKPOINT_PREFIX) :]: value
        for key, value in state["model"].items()
        if key.startswith(_CHECKPOINT_PREFIX)
    }
    return Weights(
        "checkpoint",
        path,
        tensors,
        shapes.grid,
        shapes.size,
        audio,
        stats["mean"],
        stats["std"],
        predictor_heads=model.predictor.num_heads,
        unused=tuple(sorted({key.rpartition(".")[0] for key in state["model"] if key.startswith("tasks.")})),
        image=image,
    )


def _of_published(
    path: Path, state: Mapping[str, Tensor], sample_rate: int, num_heads: int | None
) -> Weights:
    backbone = published.backbone_state(state)
    sizes = published.infer_sizes(backbone, num_heads=num_heads)
    if sizes.in_chans != 1:
        raise CheckpointError(
            f"an audio encoder must have 1 input channel, but this one has {sizes.in_chans}"
        )
    used = (*published.MODEL_NAMES, "norm_stats")
    seconds = sizes.grid.input_size[1] / 100  # published hops are 10 ms
    return Weights(
        "published checkpoint",
        path,
        published.rename(backbone, published.MODEL_NAMES),
        sizes.grid,
        sizes.size,
        AudioSection(sample_rate=sample_rate, crop_seconds=seconds),
        sizes.mean,
        sizes.std,
        head=published.rename(state, published.HEAD_NAMES),
        unused=tuple(sorted({key.split(".")[0] for key in backbone if not key.startswith(used)})),
    )


def _rate_of_folder_name(path: Path) -> int:
    """The rate that published folder names carry, e.g. `m2d_vit_base-80x608p16x16p32k-...`; 16 kHz without."""
    match = re.search(r"\d+x\d+p\d+x\d+p(\d+)k", path.resolve().as_posix())
    return int(match.group(1)) * 1000 if match else 16_000
