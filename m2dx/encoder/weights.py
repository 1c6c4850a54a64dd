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
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from m2dx.contract.atomic import Writer
from m2dx.contract.errors import CheckpointError
from m2dx.encoder import published
from m2dx.encoder.checkpoint import CheckpointFolder, check_records, encoder_file, load_plain
from m2dx.encoder.config import EXPORT_CONFIG, EncoderConfig, read_export_config
from m2dx.model.vit import Encoder
from m2dx.recipe.schema import AudioSection

CHECKPOINT_FORMAT = "m2dx-checkpoint"
EXPORT_WEIGHTS = "model.safetensors"

_CONFIG = "config"
"""Key of the metadata of a checkpoint's weights, with what config.json of an export holds."""
_BESIDE = ("online.", "predictor.")
"""What of a model lies beside its checkpoint: what makes features, and what draws reconstructions of MSM-MAE."""
_CHECKPOINT_PREFIX = "masked_model."


@dataclass(frozen=True)
class Weights:
    """Pre-trained weights, and what is needed to use them."""

    source: str  # "export", "checkpoint" or "published checkpoint"
    path: Path
    tensors: Mapping[str, Tensor]  # online.*, and target.* and predictor.* where the file has them
    config: EncoderConfig
    about: Mapping[str, Any] = field(default_factory=dict)
    """Of checkpoints and exports: `step`, `label_names` and `recipe` of the run, as plain data."""
    head: Mapping[str, Tensor] = field(default_factory=dict)  # of a published fine-tuned file
    unused: tuple[str, ...] = ()  # what else the file holds

    def encoder(self) -> Encoder:
        """The online encoder; CheckpointError where the tensors do not fit."""
        encoder = Encoder(self.config.grid, self.config.size)
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
    path: str | Path, *, whole: bool = False, sample_rate: int | None = None, num_heads: int | None = None
) -> Weights:
    """The weights of an export, a checkpoint, a run's folder or a published file, on the CPU.

    Of a checkpoint these are the ones that lie beside it, online encoder and predictor. With `whole` they are all of
    the model's, for which the checkpoint itself is read, with the optimizer's state. `sample_rate` (Hz) and `num_heads`
    are for published files only, whose tensors cannot tell them; by default the folder's name is asked for the rate
    (16 kHz where it says nothing), and heads are 64 wide.
    Raises CheckpointError where the path is missing, corrupt or something else.
    """
    path = Path(path)
    if not path.exists():
        raise CheckpointError(f"{path}: no such file or folder")
    if path.name in (EXPORT_WEIGHTS, EXPORT_CONFIG) and (path.parent / EXPORT_CONFIG).is_file():
        path = path.parent  # an export's weights need what is beside them: log-mel settings, mean and std
    if path.is_dir():
        if (path / EXPORT_CONFIG).is_file():
            return _of_export(path)
        path = newest_checkpoint(path)
    if not whole and encoder_file(path).is_file():
        path = encoder_file(path)
    state, metadata = read_tensors(path)
    if _CONFIG in metadata:
        content = json.loads(metadata[_CONFIG])
        tensors = published.rename(state, published.MODEL_NAMES)
        return Weights("checkpoint", path, tensors, EncoderConfig.from_json(content, path), _about(content))
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


def encoder_writer(state: Mapping[str, Any]) -> Writer:
    """Writes what `read_weights` reads of a checkpoint with this state: online encoder and predictor, as safetensors.

    Parameters have their published names; the metadata holds what config.json of an export does.
    """
    names = {own: name for name, own in published.MODEL_NAMES.items() if own.startswith(_BESIDE)}
    tensors = published.rename(_masked_model(state["model"]), names)
    config = EncoderConfig.of_run(state["recipe"], state["statistics"]).to_json() | _about(state)
    return tensors_writer(tensors, {_CONFIG: json.dumps(config)})


def tensors_writer(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> Writer:
    """Writes tensors, of any device, as a safetensors file."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return lambda file: file.write(save(plain, metadata={"format": "pt", **(metadata or {})}))


def read_tensors(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """What a .safetensors file or a torch checkpoint holds, and the former's metadata.

    Of a torch file only tensors and plain data are unpickled.
    """
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
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
    return state, {}


def newest_checkpoint(folder: Path) -> Path:
    """The newest checkpoint of a run's folder; CheckpointError where there is none."""
    checkpoints = CheckpointFolder(folder / "checkpoints" if (folder / "checkpoints").is_dir() else folder)
    newest = checkpoints.newest()
    if newest is None:
        raise CheckpointError(f"{folder}: neither an export (no config.json) nor a run with checkpoints")
    return newest


def _of_export(folder: Path) -> Weights:
    content = read_export_config(folder)
    config = EncoderConfig.from_json(content, folder / EXPORT_CONFIG)
    tensors, _ = read_tensors(folder / EXPORT_WEIGHTS)
    return Weights(
        "export", folder, published.rename(tensors, published.MODEL_NAMES), config, _about(content)
    )


def _of_checkpoint(path: Path, state: Mapping[str, Any]) -> Weights:
    config = EncoderConfig.of_run(state["recipe"], state["statistics"])
    unused = sorted({key.rpartition(".")[0] for key in state["model"] if key.startswith("tasks.")})
    tensors = _masked_model(state["model"])
    return Weights("checkpoint", path, tensors, config, _about(state), unused=tuple(unused))


def _about(content: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint or an export says of its run; exports of fine-tuned networks say nothing."""
    return {key: content[key] for key in ("step", "label_names", "recipe") if key in content}


def _masked_model(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the masked model among those of a whole training."""
    start = _CHECKPOINT_PREFIX
    return {key[len(start) :]: value for key, value in state.items() if key.startswith(start)}


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
    audio = AudioSection(sample_rate=sample_rate, crop_seconds=seconds)
    return Weights(
        "published checkpoint",
        path,
        published.rename(backbone, published.MODEL_NAMES),
        EncoderConfig(sizes.grid, sizes.size, audio, sizes.mean, sizes.std),
        head=published.rename(state, published.HEAD_NAMES),
        unused=tuple(sorted({key.split(".")[0] for key in backbone if not key.startswith(used)})),
    )


def _rate_of_folder_name(path: Path) -> int:
    """The rate that published folder names carry, e.g. `m2d_vit_base-80x608p16x16p32k-...`; 16 kHz without."""
    match = re.search(r"\d+x\d+p\d+x\d+p(\d+)k", path.resolve().as_posix())
    return int(match.group(1)) * 1000 if match else 16_000
