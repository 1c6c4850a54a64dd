"""What `m2dx pack` does and prints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import Progress as Bar

from m2dx.packing.pack import BAD_FILES, PackOptions, PackSummary, Progress, pack
from m2dx.packing.sources import Source, source_of_path, source_of_recipe
from m2dx.plugins import PluginHost
from m2dx.recipe.loading import load_recipe
from m2dx.results.table import counted

RECIPE_SUFFIXES = (".yaml", ".yml")


def run_pack(
    dataset: Path,
    folder: Path,
    overrides: Sequence[str],
    options: PackOptions,
    *,
    host: PluginHost,
    console: Console,
) -> None:
    """Packs a folder, a CSV list or a recipe's data, and prints how to use the pack."""
    if dataset.suffix.lower() in RECIPE_SUFFIXES:
        source = source_of_recipe(load_recipe(dataset, overrides, host=host), host)
    else:
        source = source_of_path(dataset)
    if options.form != "keep" and options.sample_rate is None and source.sample_rate is not None:
        options = replace(options, sample_rate=source.sample_rate)
    with _bar(console) as progress:
        summary = pack(source.sets, folder, options, progress=progress)
    for line in [*_lines(summary, folder), *source.notes, *_use(source, folder)]:
        console.print(line, soft_wrap=True, highlight=False)


@contextmanager
def _bar(console: Console) -> Iterator[Progress | None]:
    if not console.is_terminal:
        yield None
        return
    with Bar(console=console, transient=True) as bar:
        task = bar.add_task("packing", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _lines(summary: PackSummary, folder: Path) -> Iterator[str]:
    lists = ", ".join(f"{name} {count}" for name, count in summary.clips.items())
    yield (
        f"packed: {folder}, clips: {lists}; {counted(summary.members, 'piece')} of audio in "
        f"{counted(summary.shards, 'shard')}, "
        f"{summary.bytes / 1e9:.3g} GB"
    )
    if summary.kept_shards:
        yield f"{summary.kept_shards} shards are of the packing that was interrupted"
    if summary.bad:
        yield (
            f"warning: {counted(summary.bad, 'file')} could not be used, and {counted(summary.left_out, 'clip')} left "
            f"out; {folder / BAD_FILES} lists the files"
        )
    if summary.rounded:
        yield (
            f"{summary.rounded} pieces were not mono 16-bit PCM at the rate, and are rounded to 16 bits; "
            "`--format keep` stores files as they are"
        )
    if summary.clipped:
        yield f"warning: {summary.clipped} pieces have samples beyond full scale, which are clipped"


def _use(source: Source, folder: Path) -> Iterator[str]:
    path = folder.absolute()
    if not source.fields:
        yield f"in a recipe: dataset: {{name: packed, path: {path}}}"
        return
    yield "add to `m2dx train RECIPE`:"
    for field, part in source.fields.items():
        if field == "noise.dataset" and source.replaces_noise_source:
            yield "  noise.source=null"
        yield f"  '{field}={{name: packed, path: {path}, part: {part}}}'"
