"""Starts a model from pre-trained weights: further pre-training (M2D-X, III-B4 iii, IV-E)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, nn

from m2dx.contract.components import Backbone, MaskedModel, PatchGrid
from m2dx.contract.errors import CheckpointError, PluginError, RecipeError
from m2dx.contract.host import PluginHost
from m2dx.encoder.config import BackboneConfig, EncoderConfig
from m2dx.encoder.weights import EXPORT_WEIGHTS, Weights, read_tensors, read_weights
from m2dx.model.patches import resample_positions, sincos_positions
from m2dx.model.vit import Encoder, Predictor, encoder_of
from m2dx.recipe.schema import AudioSection, ImageSection, Recipe

_POSITIONS = "pos_embed"
MOST_NAMED = 5  # tensors that do not fit, of those that an error names


@dataclass(frozen=True)
class InitialPart:
    """What became of one part of the model."""

    part: str
    loaded: int  # tensors
    missing: int  # tensors that keep their random start
    note: str


def weights_of_start(recipe: Recipe, encoder: Backbone, host: PluginHost) -> Weights:
    """What `init_from` has; with a weight map, an encoder like this one, whose own values stay where the file has none.

    CheckpointError where the file cannot be read; RecipeError where what the map gives does not fit the encoder.
    """
    assert recipe.init_from is not None
    if recipe.weight_map is None:
        return read_weights(recipe.init_from, whole=True)
    path, own = recipe.init_from, encoder.state_dict()
    path = path / EXPORT_WEIGHTS if path.is_dir() else path
    state, _ = read_tensors(path)
    state = state.get("model", state.get("state_dict", state))
    left = {name: tensor for name, tensor in state.items() if isinstance(tensor, Tensor)}
    weight_map = host.build("weight_map", recipe.weight_map, grid=encoder.grid, size=encoder.size)
    with PluginError.blaming(f"weight_map {weight_map.name!r}: the names of {path} failed"):
        given = weight_map.tensors(left)
        shapes = {name: tuple(tensor.shape) for name, tensor in own.items()}
        wrong = [
            f"  {name} must be {shapes.get(name, 'left out (the encoder has none)')}, but is {tuple(tensor.shape)}"
            for name, tensor in given.items()
            if shapes.get(name) != tuple(tensor.shape)
        ]
    if wrong or not given:
        more = [f"  and {len(wrong) - MOST_NAMED} more"] if len(wrong) > MOST_NAMED else []
        names = f"  it knows none of its names, such as {', '.join(sorted(left)[:3])}"
        raise RecipeError(
            f"init_from: by weight_map {weight_map.name}, {path} does not fit the recipe's model:\n"
            + "\n".join([*wrong[:MOST_NAMED], *more] if wrong else [names])
        )
    grid, backbone = encoder.grid, BackboneConfig.of(encoder)
    sizes: dict[str, Any] = {
        "input_size": grid.input_size,
        "patch_size": grid.patch_size,
        "vit": encoder.size,
    }
    return Weights(
        f"weights by {weight_map.name},",
        path,
        {f"online.{name}": given.get(name, value) for name, value in own.items()},
        EncoderConfig(**sizes, backbone=backbone, audio=recipe.audio, image=recipe.image),
        unused=tuple(sorted({re.sub(r"\.\d+\.", ".*.", name) for name in left})),
        missing=tuple(sorted(own.keys() - given.keys())),
        like=encoder,
    )


@torch.no_grad()
def load_initial_weights(
    model: MaskedModel, weights: Weights, source: AudioSection | ImageSection
) -> list[InitialPart]:
    """Starts the online encoder, and the method's other parts where the file has them, from pre-trained weights.

    The method may start parts that the file lacks from those that it has, as M2D does its target network. A part of
    another size, such as a predictor, keeps its random start. Positions of another grid are computed anew if the file's
    are the fixed sine-cosine ones, and resampled otherwise. Raises `RecipeError`, with every difference, where the
    online encoder is of another size, patch or mel count, or of another number of channels; `CheckpointError` where
    tensors are missing.
    """
    _check_sizes(model, weights, source)
    parts: dict[str, InitialPart] = {}
    children = {name: child for name, child in model.named_children() if child.state_dict()}
    for name, child in children.items():
        state, label = weights.part(name), model.fitting_parts.get(name, name)
        must_fit = name == "online" or (name in model.fitting_parts and state)
        problem = "" if must_fit else _problem(child, state, weights)
        if problem:
            parts[name] = InitialPart(label, 0, len(child.state_dict()), f"{problem}: starts at random")
        else:
            with CheckpointError.blaming(f"{weights.path}: init_from: the weights of the {label} do not fit"):
                parts[name] = _load_part(label, child, state, weights.config.grid)
    missing = [name for name, part in parts.items() if not part.loaded]
    for name, done in model.complete_start(missing).items():
        count, label = len(children[name].state_dict()), parts[name].part
        parts[name] = InitialPart(label, count, 0, f"not in the file: {done}")
    return list(parts.values())


def initial_weights_table(
    weights: Weights, parts: list[InitialPart], source: AudioSection | ImageSection
) -> Table:
    """What was loaded, missing and resized, and how the file's audio settings differ from the recipe's."""
    table = Table(title=f"initial weights: {weights.source} {weights.path}", title_justify="left")
    for column in ("part", "loaded", "missing", "note"):
        table.add_column(column, justify="right" if column in ("loaded", "missing") else "left")
    for part in parts:
        table.add_row(part.part, str(part.loaded), str(part.missing), part.note)
    others = sorted({*weights.unused, *(["head"] if weights.head else [])})
    if others:
        table.add_row("not used", "", "", ", ".join(others))
    if weights.missing:
        table.add_row("not in the file", "", str(len(weights.missing)), ", ".join(weights.missing))
    config = weights.config
    if weights.like is not None or config.image is not None or isinstance(source, ImageSection):
        return table
    for name, value in config.audio.model_dump(exclude={"crop_seconds"}).items():
        here = getattr(source, name)
        if value != here:
            table.add_row(f"audio.{name}", "", "", f"the file's encoder had {value}, the recipe has {here}")
    of_file = f"the file's encoder had {config.mean:.3f}, {config.std:.3f}"
    table.add_row("log-mel mean, std", "", "", of_file)
    return table


def _check_sizes(model: MaskedModel, weights: Weights, source: AudioSection | ImageSection) -> None:
    encoder, config = encoder_of(model), weights.config
    have = {
        "model.backbone": tuple(map(_backbone_text, (BackboneConfig.of(encoder), config.backbone))),
        "model.patch_size": (encoder.grid.patch_size, config.patch_size),
        "channels of the input": (encoder.grid.in_chans, config.grid.in_chans),
        "width of model.size": (encoder.size.embed_dim, config.vit.embed_dim),
        "model.depth": (encoder.size.depth, config.vit.depth),
        "attention heads of model.size": (encoder.size.num_heads, config.vit.num_heads),
    }
    if isinstance(source, AudioSection):
        have["audio.n_mels"] = (source.n_mels, config.input_size[0])
    wrong = [
        f"  {name} must be {theirs} as in the file, but is {ours}"
        for name, (ours, theirs) in have.items()
        if ours != theirs
    ]
    if wrong:
        raise RecipeError(f"init_from: {weights.path} does not fit the recipe's model:\n" + "\n".join(wrong))


def _backbone_text(backbone: BackboneConfig | None) -> str:
    """A backbone with its options, in the words of a recipe."""
    if backbone is None:
        return Encoder.name
    options = backbone.model_dump(mode="json")["options"]
    return f"{backbone.name} {options}" if options else backbone.name


def _problem(module: nn.Module, state: Mapping[str, Tensor], weights: Weights) -> str:
    """Why a part of the file cannot be loaded; empty: it can."""
    if isinstance(module, Predictor) and weights.source == "checkpoint":
        assert weights.config.recipe is not None
        heads, theirs = module.size.num_heads, weights.config.recipe["model"]["predictor"]["num_heads"]
        if heads != theirs:  # shapes would not tell
            return f"{theirs} heads in the file, {heads} here"
    if not state:
        return "not in the file"
    own = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    file = {name: tuple(tensor.shape) for name, tensor in state.items()}
    differing = [
        f"{name} {file.get(name, 'missing')} in the file, {own.get(name, 'missing')} here"
        for name in [*file, *sorted(own.keys() - file.keys())]
        if file.get(name) != own.get(name) and not (name == _POSITIONS and name in file and name in own)
    ]
    return f"of another size ({differing[0]})" if differing else ""


def _load_part(part: str, module: nn.Module, state: Mapping[str, Tensor], grid: PatchGrid) -> InitialPart:
    """Positions (1, 1 + F*T, D) of another grid are fitted to the module's."""
    own, note, state = module.state_dict(), "", dict(state)
    if _POSITIONS in own and _POSITIONS in state and own[_POSITIONS].shape != state[_POSITIONS].shape:
        positions, new = state[_POSITIONS].float(), module.grid
        assert isinstance(new, PatchGrid)
        sizes = "{} x {} to {} x {} patches".format(*grid.shape, *new.shape)
        if torch.allclose(positions, sincos_positions(grid.shape, positions.shape[-1]), atol=1e-4):
            state[_POSITIONS] = own[_POSITIONS]
            note = f"positions: fixed sine-cosine, computed anew ({sizes})"
        else:
            state[_POSITIONS] = resample_positions(positions, grid.shape, new.shape)
            note = f"positions: resampled ({sizes})"
    module.load_state_dict(state)
    return InitialPart(part, len(state), 0, note)
