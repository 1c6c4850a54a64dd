"""What `m2dx pack` does and prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from m2dx.contract.components import Dataset
from m2dx.contract.errors import AudioError, RecipeError
from m2dx.contract.host import PluginHost
from m2dx.contract.progress import ProgressLine
from m2dx.contract.wording import counted, noise_name
from m2dx.data.clips import call_dataset, list_clips
from m2dx.data.csv_list import CsvDataset
from m2dx.data.datasets import FolderDataset
from m2dx.recipe.schema import Recipe
from m2dx_pack.packing import BAD_FILES, ClipSet, PackOptions, PackSummary, pack


def run_pack(source: Source, folder: Path, options: PackOptions, *, console: Console) -> None:
    """Packs the lists, and prints how to use the pack."""
    if options.form != "keep" and options.sample_rate is None and source.sample_rate is not None:
        options = replace(options, sample_rate=source.sample_rate)
    with ProgressLine(console, "packing") as progress:
        summary = pack(source.sets, folder, options, progress=progress.update)
    for line in [*_lines(summary, folder), *source.notes, *_use(source, folder)]:
        console.print(line)


def _lines(summary: PackSummary, folder: Path) -> Iterator[str]:
    lists = ", ".join(f"{name} {count}" for name, count in summary.clips.items())
    yield (
        f"packed: {folder}, clips: {lists}; {counted(summary.members, 'piece')} of audio in "
        f"{counted(summary.shards, 'shard')}, "
        f"{summary.bytes / 1e9:.3g} GB"
    )
    if summary.kept_shards:
        yield f"{counted(summary.kept_shards, 'shard')} kept from the interrupted packing"
    if summary.bad:
        yield (
            f"warning: {counted(summary.bad, 'file')} could not be used, and {counted(summary.left_out, 'clip')} left "
            f"out; {folder / BAD_FILES} lists the files"
        )
    if summary.rounded:
        yield (
            f"rounded to 16 bits: {counted(summary.rounded, 'piece')} not mono 16-bit PCM at the rate; "
            "`--format keep` stores files as they are"
        )
    if summary.clipped:
        yield f"warning: clipped {counted(summary.clipped, 'piece')} with samples beyond full scale"


def _use(source: Source, folder: Path) -> Iterator[str]:
    path = folder.absolute()
    if not source.fields:
        yield f"in a recipe: dataset: {{name: packed, path: {path}}}"
        return
    yield "add to `m2dx train RECIPE`:"
    for field, part in source.fields.items():
        yield f"  '{field}={{name: packed, path: {path}, part: {part}}}'"


LIST = "clips"
"""The name of the single list in a pack of a folder or a CSV list."""


@dataclass(frozen=True)
class Source:
    """Lists of clips by name, and the recipe fields that they serve."""

    sets: Mapping[str, ClipSet]
    fields: Mapping[str, str]  # recipe fields that a list can replace: list by field
    sample_rate: int | None = None  # Hz, of the recipe
    notes: tuple[str, ...] = ()


def source_of_path(path: Path) -> Source:
    """A folder's audio files, or the clips of a CSV or TSV file."""
    dataset: Dataset = FolderDataset(path=path) if path.is_dir() else CsvDataset(path=path)
    clips = list_clips(LIST, dataset)
    if not clips:
        raise AudioError(f"there must be clips to pack, but {path} has none")
    return Source({LIST: ClipSet(tuple(clips), tuple(call_dataset(LIST, dataset, "label_names")))}, {})


def source_of_recipe(recipe: Recipe, host: PluginHost) -> Source:
    """Each data set of a recipe, and its noise, as lists of one pack."""
    if recipe.image is not None:
        raise RecipeError("a pack holds audio only, but the recipe is on images")
    sets: dict[str, ClipSet] = {}
    fields: dict[str, str] = {}
    notes: list[str] = []
    for name, section in recipe.data.sets.items():
        sets[name] = _clip_set(name, host.build("dataset", section.dataset), section.split)
        fields[f"data.sets.{name}.dataset"] = name
    noise = noise_name(sets)
    if recipe.noise is not None and recipe.noise.dataset is not None:
        sets[noise] = _clip_set(noise, host.build("dataset", recipe.noise.dataset), recipe.noise.split)
        fields["noise.dataset"] = noise
    elif recipe.noise is not None and recipe.noise.source is not None:
        notes.append(f"the noise source {recipe.noise.source.name} makes its own noise, and stays as it is")
    return Source(sets, fields, recipe.audio.sample_rate, tuple(notes))


def _clip_set(name: str, dataset: Dataset, split: str | None) -> ClipSet:
    clips = list_clips(name, dataset, split)
    if not clips:
        raise AudioError(f"data set {name!r} must have clips to pack, but has none (split: {split})")
    if split is not None:  # so that a recipe with this split finds all of them
        clips = [replace(clip, split=split) for clip in clips]
    return ClipSet(tuple(clips), tuple(call_dataset(name, dataset, "label_names")))
