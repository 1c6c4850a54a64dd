"""What the commands `m2dx draw ...` do once their arguments are read; each gives the files that it wrote."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from m2dx.contract.errors import RecipeError
from m2dx.data.csv_list import CsvDataset
from m2dx.encoder.audio import load_encoder, random_like
from m2dx.evaluation.tasks import ClipTask
from m2dx.report.attention import attention_figure
from m2dx.report.curves import read_curves, runs_figure
from m2dx.report.embedding import Method, embed, embedding_figure, labelled_clips
from m2dx.report.masks import masks_of
from m2dx.report.reconstruction import draw_reconstructions, load_reconstructor, reconstructions
from m2dx.report.saving import save_figure
from m2dx.report.sounds import read_sound, write_wav

if TYPE_CHECKING:
    from m2dx.contract.host import PluginHost
    from m2dx.recipe.schema import Recipe


def draw_reconstruction(
    path: Path,
    files: Sequence[Path],
    output: Path,
    *,
    ratios: Sequence[float] | None,
    patterns: Sequence[str] | None,
    attempts: int,
    seed: int,
    start: float,
    outline: bool,
    audio: bool,
) -> list[Path]:
    """Files under the masks of `masks_of`; `audio`: input and reconstructions as sounds, too.

    All sounds are made by Griffin-Lim, so that they compare.
    """
    model = load_reconstructor(path)
    masks = masks_of(ratios, patterns, attempts=attempts, seed=seed, own_ratio=model.mask_ratio)
    sounds = [read_sound(file, model.sample_rate, start=start) for file in files]
    blocks = reconstructions(model, sounds, masks)
    written = [save_figure(draw_reconstructions(blocks, outline=outline), output)]
    for number, block in enumerate(blocks if audio else (), start=1):
        logmels = {"input": block[0].logmel} | {
            f"reconstruction{i if len(block) > 1 else ''}": item.result
            for i, item in enumerate(block, start=1)
        }
        for what, logmel in logmels.items():
            name = f"{output.stem}-{number}-{Path(block[0].name).stem}-{what}.wav"
            written.append(write_wav(output.with_name(name), model.wav(logmel), model.sample_rate))
    return written


def draw_attention_maps(
    path: Path, files: Sequence[Path], output: Path, *, points: Sequence[tuple[int, int]] | None, start: float
) -> list[Path]:
    """What points of files attend to."""
    encoder = load_encoder(path)
    sounds = [read_sound(file, encoder.sample_rate, start=start) for file in files]
    return [save_figure(attention_figure(encoder, sounds, points), output)]


def draw_embedding(
    path: Path, clips: ClipTask, output: Path, *, method: Method, random_weights: bool, seed: int
) -> list[Path]:
    """Labelled clips by an encoder's features, and by those of random weights where asked."""
    encoder = load_encoder(path)
    resolved = path.resolve()
    name = resolved.parent.name if resolved.name == "encoder" else resolved.name
    encoders = {f"{clips.name}: {name}": encoder}
    if random_weights:
        encoders["random weights"] = random_like(encoder, seed=seed)
    found = [embed(of, clips, title=title, method=method, seed=seed) for title, of in encoders.items()]
    return [save_figure(embedding_figure(found), output)]


def draw_curves(runs: Sequence[Path], output: Path, *, names: Sequence[str] | None) -> list[Path]:
    """What runs measured while they trained."""
    return [save_figure(runs_figure([read_curves(run) for run in runs], names), output)]


def labelled_set(
    path: Path,
    recipe: tuple[PluginHost, Recipe] | None,
    *,
    task: str | None,
    split: str | None,
    most: int,
    seed: int,
) -> ClipTask:
    """The labelled clips of a recipe's evaluation task, or (without a recipe) of a CSV file at `path`.

    RecipeError where the recipe has no such task, or several and none is named.
    """
    if recipe is None:
        if task is not None:
            raise RecipeError(f"--task names a task of a recipe, but {path} is a list of clips; leave it out")
        return labelled_clips(path.name, CsvDataset(path=path), split=split, most=most, seed=seed)
    host, tasks = recipe[0], recipe[1].evaluation.tasks
    if task is None and len(tasks) == 1:
        task = next(iter(tasks))
    if task not in tasks:
        which = "there must be a task to draw" if task is None else f"the task {task!r} must be in it"
        raise RecipeError(
            f"{path}: {which}; its evaluation has {', '.join(tasks) or 'none'}; choose one with --task"
        )
    section = tasks[task]
    dataset, unit = host.build("dataset", section.dataset), section.unit_seconds
    fill = section.short_clips
    return labelled_clips(
        task, dataset, unit_seconds=unit, short_clips=fill, split=split, most=most, seed=seed
    )
