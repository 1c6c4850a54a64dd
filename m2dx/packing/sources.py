"""What is to be packed: a folder of audio, a CSV list, or the data and the noise of a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from m2dx.audio.clips import list_clips, names_of
from m2dx.audio.datasets import CsvDataset, FolderDataset
from m2dx.audio.noise import ClipNoise
from m2dx.components import Dataset
from m2dx.errors import AudioError, RecipeError
from m2dx.packing.plan import ClipSet
from m2dx.plugins import PluginHost
from m2dx.recipe.schema import Recipe

LIST = "clips"
"""The name of the only list of a pack that is not of a recipe."""


@dataclass(frozen=True)
class Source:
    """Lists of clips by name, and what in the recipe each of them is for."""

    sets: Mapping[str, ClipSet]
    fields: Mapping[str, str]  # recipe fields that a list can take the place of: list by field
    sample_rate: int | None = None  # Hz, of the recipe
    notes: tuple[str, ...] = ()
    replaces_noise_source: bool = False


def source_of_path(path: Path) -> Source:
    """A folder's audio files, or the clips of a CSV or TSV file."""
    dataset: Dataset = FolderDataset(path=path) if path.is_dir() else CsvDataset(path=path)
    clips = list_clips(LIST, dataset)
    if not clips:
        raise AudioError(f"there must be clips to pack, but {path} has none")
    return Source({LIST: ClipSet(tuple(clips), names_of(LIST, dataset))}, {})


def source_of_recipe(recipe: Recipe, host: PluginHost) -> Source:
    """Each data set of a recipe, and its noise, as lists of one pack."""
    if recipe.image is not None:
        raise RecipeError("only audio can be packed, but the recipe is on images")
    sets: dict[str, ClipSet] = {}
    fields: dict[str, str] = {}
    notes: list[str] = []
    replaces_source = False
    for name, section in recipe.data.sets.items():
        sets[name] = _clip_set(name, host.build("dataset", section.dataset), section.split)
        fields[f"data.sets.{name}.dataset"] = name
    noise = _noise_name(sets)
    if recipe.noise is not None and recipe.noise.dataset is not None:
        sets[noise] = _clip_set(noise, host.build("dataset", recipe.noise.dataset), recipe.noise.split)
        fields["noise.dataset"] = noise
    elif recipe.noise is not None and recipe.noise.source is not None:
        source = host.build("noise_source", recipe.noise.source, sample_rate=recipe.audio.sample_rate)
        if type(source).draw is ClipNoise.draw and source.short_clips == "repeat":
            sets[noise] = ClipSet(tuple(source.clips), ())
            fields["noise.dataset"] = noise
            replaces_source = True
        else:
            notes.append(f"the noise source {source.name} makes its own noise, and stays as it is")
    return Source(sets, fields, recipe.audio.sample_rate, tuple(notes), replaces_source)


def _clip_set(name: str, dataset: Dataset, split: str | None) -> ClipSet:
    clips = list_clips(name, dataset, split)
    if not clips:
        raise AudioError(f"data set {name!r} must have clips to pack, but has none (split: {split})")
    if split is not None:  # a recipe that asks for it again finds all of them
        clips = [replace(clip, split=split) for clip in clips]
    return ClipSet(tuple(clips), names_of(name, dataset))


def _noise_name(sets: Mapping[str, ClipSet]) -> str:
    name = "noise"
    while name in sets:
        name += "_"
    return name
