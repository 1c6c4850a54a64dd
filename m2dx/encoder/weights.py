"""Weights of exports, checkpoints, runs and published files, by the parameter names of M2D and MSM-MAE; exports."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import methodcaller
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from m2dx.contract.atomic import Writer, replace_files
from m2dx.contract.components import Backbone
from m2dx.contract.errors import CheckpointError
from m2dx.contract.package import STARTER, find_encoder
from m2dx.contract.paths import check_regular
from m2dx.encoder import published
from m2dx.encoder.checkpoint import CheckpointFolder, encoder_file, load_plain
from m2dx.encoder.config import EXPORT_CONFIG, BackboneConfig, EncoderConfig, read_config
from m2dx.model.vit import Encoder

if TYPE_CHECKING:
    from m2dx.contract.host import PluginHost

logger = logging.getLogger(__name__)

CHECKPOINT_FORMAT = "m2dx-checkpoint"
EXPORT_WEIGHTS = "model.safetensors"
EXPORT_MAPPERS = "mappers.safetensors"
"""Of an export whose training had tasks: their online mappers, as in `Weights.mappers`."""
HEAD = "head."  # start of the names of a classifier's tensors in an export

_CONFIG = "config"  # key of the metadata of a checkpoint's weights, with what config.json of an export holds
_OTHERS = "method."
"""Start of the names, beside a checkpoint and in an export, of a method's tensors that have no published name."""
_NAMES = {**published.MODEL_NAMES, _OTHERS: ""}
"""Start of a name in an export or beside a checkpoint -> start of the name in the method."""
_DIGEST = "sha256"  # key of the metadata with `digest_of_tensors` the rest
_MAPPERS = "mappers."  # start of the names, beside a checkpoint, of the tensors of tasks' online mappers
_ENCODER = "encoder"
"""Key of the metadata of an export's mappers, with the SHA-256 of the encoder that they were trained with."""


@dataclass(frozen=True)
class Weights:
    """Pre-trained weights, and what is needed to use them. CheckpointError where they are not finite."""

    source: str  # "export", "checkpoint" or "published checkpoint"
    path: Path
    tensors: Mapping[str, Tensor]  # online.*, and target.* and predictor.* where the file has them
    config: EncoderConfig
    head: Mapping[str, Tensor] = field(default_factory=dict)  # of a fine-tuned network: the state of a `Head`
    mappers: Mapping[str, Tensor] = field(default_factory=dict)  # of online mappers, as `TASK.NAME`
    unused: tuple[str, ...] = ()  # what else the file holds
    missing: tuple[str, ...] = ()  # of the encoder, which the file of another project lacks
    like: Backbone | None = None  # another encoder of its kind; None: the plugins have it

    def __post_init__(self) -> None:
        check_finite({**self.tensors, **self.head, **self.mappers}, self.path)

    def encoder(self, host: PluginHost | None = None) -> Backbone:
        """The online encoder; CheckpointError where the tensors do not fit, or no plugin has its backbone.

        `host`: the plugins that may have it; default those that are installed.
        """
        grid, size, state = self.config.grid, self.config.vit, self.part("online")
        backbone, least = self.config.backbone, size.embed_dim
        if backbone is None:
            least *= grid.num_patches + grid.patch_values + 12 * size.depth * size.embed_dim
        held = sum(tensor.numel() for tensor in state.values())
        with CheckpointError.blaming(f"{self.path}: the weights do not fit"):
            if least > held:  # asked first, since sizes in a damaged file could take all memory
                raise ValueError(f"an encoder of its sizes has {least:,} values or more, the file {held:,}")
            if self.like is not None:
                encoder = self.like.fresh()
            else:
                encoder = Encoder(grid, size) if backbone is None else backbone.build(host, grid, size)
            encoder.load_state_dict(state)
        return encoder

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors of `online`, `target` or `predictor`, without that prefix; empty where the file has none."""
        return published.rename(self.tensors, {f"{name}.": ""})


def read_weights(
    path: str | Path, *, whole: bool = False, sample_rate: int | None = None, num_heads: int | None = None
) -> Weights:
    """The weights of an export, a checkpoint, a run's folder or a published file, on the CPU.

    Of a checkpoint these are the ones that lie beside it (`encoder_writer`). With `whole` they are all of the model's,
    for which the checkpoint itself is read, with the optimizer's state. `sample_rate` (Hz) and `num_heads` are for
    published files only, whose tensors cannot tell them; by default the folder's name is asked for the rate (16 kHz
    where it says nothing), and heads are 64 wide.
    Raises CheckpointError where the path is missing, corrupt or something else.
    """
    path = find_encoder(path)
    if not path.exists():
        raise CheckpointError(
            f"{path}: no such file or folder; an encoder is a run's folder, an export, a checkpoint, a published file, "
            f"or `{STARTER.name}`, the one that comes with m2dx"
        )
    folder = path.parent if path.name in (EXPORT_WEIGHTS, EXPORT_CONFIG) else path
    if (folder / EXPORT_CONFIG).is_file():  # without it, an export's weights are taken for a published file
        config = read_config(folder)
        state, _ = read_tensors(folder / EXPORT_WEIGHTS)
        if (found := digest_of_tensors(state, {})) != config.sha256:
            raise CheckpointError(
                f"{folder}: {EXPORT_WEIGHTS} must have the SHA-256 that {EXPORT_CONFIG} says, {config.sha256}, but has "
                f"{found}: it is damaged or of another export; export or copy both again"
            )
        tensors, head = published.rename(state, _NAMES), published.rename(state, {HEAD: ""})
        return Weights("export", folder, tensors, config, head, _read_mappers(folder, config))
    if path.is_dir():
        if (
            CheckpointFolder(path / "checkpoints").newest() is None
            and (path / "encoder" / EXPORT_CONFIG).is_file()
        ):
            return read_weights(path / "encoder", whole=whole)  # of a run or a search
        path = newest_checkpoint(path)
    if not whole and encoder_file(path).is_file():
        path = encoder_file(path)
    state, metadata = read_tensors(path)
    if _CONFIG in metadata:
        tensors = published.rename(state, _NAMES)
        config, mappers = EncoderConfig.from_json(metadata[_CONFIG], path), {_MAPPERS: ""}
        return Weights("checkpoint", path, tensors, config, mappers=published.rename(state, mappers))
    if state.get("format") == CHECKPOINT_FORMAT:
        config = config_of_checkpoint(state, path)
        tensors = published.rename(state["model"], {"masked_model.": ""})
        unused = {key.rpartition(".")[0] for key in state["model"] if key.startswith("tasks.")}
        own = published.rename(state["model"], _mapper_names(state, ""))
        return Weights("checkpoint", path, tensors, config, unused=tuple(sorted(unused)), mappers=own)
    tensors = state.get("model", state.get("state_dict", state))
    if not isinstance(tensors, Mapping) or not all(isinstance(v, Tensor) for v in tensors.values()):
        held = list(state)[:5]
        raise CheckpointError(f"{path}: neither an m2dx checkpoint nor a published one: it holds {held}")
    tensors = {key.replace("_orig_mod.", ""): tensor for key, tensor in tensors.items()}  # of torch.compile
    with CheckpointError.blaming(str(path)):
        backbone, prefix = published.backbone_state(tensors), published.backbone_prefix(tensors)
        config = published.infer_config(backbone, path, sample_rate=sample_rate, num_heads=num_heads)
    used = (*published.MODEL_NAMES, "norm_stats")
    left = [key for key in backbone if not key.startswith(used)]
    left += [key for key in tensors if not key.startswith((prefix, *published.HEAD_NAMES))]
    return Weights(
        "published checkpoint",
        path,
        published.rename(backbone, published.MODEL_NAMES),
        config,
        head=published.rename(tensors, published.HEAD_NAMES),
        unused=tuple(sorted({key.removeprefix("module.").split(".")[0] for key in left})),
    )


def config_of_checkpoint(state: Mapping[str, Any], path: Path) -> EncoderConfig:
    """What the encoder of a checkpoint of m2dx is; CheckpointError where it is not what `Trainer` saves."""
    with CheckpointError.blaming(f"{path}: not a whole checkpoint of m2dx"):
        if (version := state.get("version", 1)) != 1:
            raise ValueError(f"its version must be 1, but is {version}, of another m2dx; use that one")
        check_finite(state["model"], path)
        return EncoderConfig.of_run(state)


def check_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    """CheckpointError that names the first tensor with a value that is NaN or infinite."""
    floats = {name: value for name, value in tensors.items() if value.is_floating_point() and value.numel()}
    for name, tensor in floats.items():
        # the extremes, which are NaN where a value is: a ninth of the time of tensor.isfinite().all()
        if not torch.stack(tensor.float().aminmax()).isfinite().all():
            raise CheckpointError(f"{path}: weights must be finite, but {name} is not; take an earlier one")


_MADE_OF_WEIGHTS = ("*.onnx", "onnx.json")
"""Files of an export that are wrong beside other weights."""


def encoder_writer(state: Mapping[str, Any], *, whole: bool = False) -> Writer:
    """Writes what `read_weights` reads of a checkpoint with this state, as safetensors: online encoder and mappers.

    `whole`: the whole method, which draws reconstructions. Parameters have their published names, as far as they have
    one; the metadata holds what config.json of an export does.
    """
    names = {f"masked_model.{own}": name for name, own in _NAMES.items()}
    if not whole:
        names = {own: name for own, name in names.items() if own.startswith("masked_model.online.")}
        names["masked_model.online."] = f"{_OTHERS}online."
    names |= _mapper_names(state, _MAPPERS)
    tensors = published.rename(state["model"], names)
    return tensors_writer(tensors, {_CONFIG: json.dumps(EncoderConfig.of_run(state).to_json())})


def _mapper_names(state: Mapping[str, Any], prefix: str) -> dict[str, str]:
    """What names of a checkpoint's online mappers begin with, and what with in the place of that."""
    return {f"tasks.{task}.online_mapper.": f"{prefix}{task}." for task in state["recipe"]["tasks"]}


def export_encoder(
    checkpoint: Path, folder: Path, *, overwrite: bool = False, host: PluginHost | None = None
) -> Path:
    """Writes the online encoder of a checkpoint (or of a run's newest one) to a folder, and returns the folder.

    model.safetensors has the published parameter names; config.json holds sizes, log-mel settings, mean and std, and
    what the encoder comes from; mappers.safetensors has the tasks' online mappers. `load_encoder(folder)` (or
    `load_image_encoder`) reads it back. An export, with its classifier if it has one, is copied. CheckpointError where
    the folder has such files, unless `overwrite`; ONNX files of other weights go. `host` as `Weights.encoder`.
    """
    weights = read_weights(checkpoint)
    if weights.source.startswith("published"):
        raise CheckpointError(f"{checkpoint}: only m2dx checkpoints and exports can be exported")
    if weights.source == "export" and folder.resolve().is_relative_to(weights.path.resolve()):
        raise CheckpointError(f"{folder} must be another folder than the one that is exported, and not in it")
    is_run = (folder / "recipe.yaml").exists() and not (folder / EXPORT_CONFIG).exists()
    if is_run or (folder / "checkpoints").exists():
        raise CheckpointError(
            f"{folder} must be a folder for an encoder alone, but is that of a run or a search"
        )
    there = [name for name in (EXPORT_CONFIG, EXPORT_WEIGHTS) if (folder / name).exists()]
    if there and not overwrite:
        raise CheckpointError(
            f"{folder} must have no model, but has {there[0]}; take another folder, or write over it with --overwrite"
        )
    made = {path: path.stat().st_mtime_ns for name in _MADE_OF_WEIGHTS for path in folder.glob(name)}
    if weights.source == "export":
        _copy_export(weights.path, folder)
    else:
        if said := _card_and_licences(folder):
            logger.warning(
                "%s: %s said what the weights before were; write or remove them before you give it away",
                folder, ", ".join(path.name for path in said),
            )  # fmt: skip
        write_export(folder, weights.encoder(host), weights.config, mappers=weights.mappers)
    for path, time in made.items():
        if path.stat().st_mtime_ns == time:  # not copied along
            path.unlink()
    return folder


def _card_and_licences(folder: Path) -> list[Path]:
    """What an export has for people, of its origin and terms."""
    return sorted(path for name in ("README.md", "LICENSE*", "licences") for path in folder.glob(name))


def copy_licences(source: Path, folder: Path) -> None:
    """Of an export, beside weights that were made of its weights."""
    for path in _card_and_licences(source):
        if path.is_dir():
            shutil.copytree(path, folder / path.name, dirs_exist_ok=True)
        elif path.name != "README.md":
            shutil.copy(path, folder / path.name)


def _text_of(config: Mapping[str, Any]) -> bytes:
    return f"{json.dumps(config, indent=1)}\n".encode()


def _copy_export(source: Path, folder: Path) -> None:
    """With its card and licences; a folder with a config.json is whole."""
    paths = sorted(source.iterdir(), key=lambda path: path.name == EXPORT_CONFIG)  # which comes last
    for path in paths:
        if path.is_dir():
            shutil.copytree(path, folder / path.name, dirs_exist_ok=True)
    contents = {path.name: path.read_bytes() for path in paths if path.is_file()}
    said, names = json.loads(contents[EXPORT_CONFIG]), read_config(source).label_names
    if names is not None and names.keys() != said["label_names"].keys():
        said["label_names"] = names  # without files
        contents[EXPORT_CONFIG] = _text_of(said)
    replace_files(folder, {name: methodcaller("write", content) for name, content in contents.items()})


def _read_mappers(folder: Path, config: EncoderConfig) -> dict[str, Tensor]:
    """Of an export; none where it has none, or those of an encoder that was here before."""
    if not (folder / EXPORT_MAPPERS).is_file():
        return {}
    mappers, about = read_tensors(folder / EXPORT_MAPPERS)
    return mappers if about.get(_ENCODER) == config.sha256 else {}


def write_export(
    folder: Path,
    encoder: Backbone,
    config: EncoderConfig,
    head: Mapping[str, Tensor] | None = None,
    *,
    mappers: Mapping[str, Tensor] | None = None,
) -> None:
    """Writes an encoder, what is said of it, a classifier, tasks' mappers, and for encoders of audio a golden clip.

    A folder with a config.json is whole.
    Raises OSError where the disk refuses it, and leaves what was there; CheckpointError of weights that are not finite.
    """
    from m2dx.encoder.audio import audio_encoder_of  # which reads weights
    from m2dx.encoder.golden import GOLDEN, golden_writer

    names = {own: name for name, own in published.ENCODER_NAMES.items()}
    names[""] = f"{_OTHERS}online."
    tensors = published.rename(encoder.state_dict(), names) | published.rename(head or {}, {"": HEAD})
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    update = {"sha256": digest_of_tensors(tensors, {}), "backbone": BackboneConfig.of(encoder)}
    config = config.model_copy(update=update)
    others: dict[str, Writer] = {}
    if mappers:
        others[EXPORT_MAPPERS] = tensors_writer(mappers, {_ENCODER: str(config.sha256)})
    if config.image is None:
        own = published.rename(tensors, _NAMES)
        weights = Weights("given", folder, own, config, head or {}, like=encoder)
        others[GOLDEN] = golden_writer(audio_encoder_of(weights))
    files = {
        **others,
        EXPORT_WEIGHTS: tensors_writer(tensors, {}),
        EXPORT_CONFIG: lambda file: file.write(_text_of(config.to_json())),
    }
    replace_files(folder, files)


def newest_checkpoint(folder: Path) -> Path:
    """The newest checkpoint of a run's folder; CheckpointError where there is none."""
    checkpoints = CheckpointFolder(folder / "checkpoints" if (folder / "checkpoints").is_dir() else folder)
    newest = checkpoints.newest()
    if newest is None:
        raise CheckpointError(f"{folder}: neither an export (no config.json) nor a run with checkpoints")
    return newest


def read_tensors(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """What a .safetensors file or a torch checkpoint holds, and the former's metadata.

    CheckpointError where it cannot be read, or is not what `tensors_writer` wrote.
    """
    with CheckpointError.blaming(f"{path}: not a readable checkpoint"):
        check_regular(path)  # a pipe would be waited for
    if path.suffix != ".safetensors":
        return load_plain(path), {}
    try:
        with safe_open(path, framework="pt") as file:
            tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except Exception as error:  # safetensors has its own, OSError and others
        raise CheckpointError(f"{path}: not a readable checkpoint: {error}") from error
    about = {key: text for key, text in metadata.items() if key not in ("format", _DIGEST)}
    if _DIGEST in metadata and metadata[_DIGEST] != (found := digest_of_tensors(tensors, about)):
        raise CheckpointError(
            f"{path}: damaged: the SHA-256 of its content must be {metadata[_DIGEST]}, but is {found}; copy it again"
        )
    return tensors, metadata


def tensors_writer(tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> Writer:
    """Writes tensors, of any device, as a safetensors file; texts about them become its metadata, with a checksum.

    Without such texts the file has the same bytes each time; safetensors writes them in any order.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {"format": "pt", **({_DIGEST: digest_of_tensors(plain, about), **about} if about else {})}
    return lambda file: file.write(save(plain, metadata=metadata))


def digest_of_tensors(tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> str:
    """SHA-256 over texts and tensors."""
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    digest.update(save(dict(tensors)))
    return digest.hexdigest()
