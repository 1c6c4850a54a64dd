"""What the commands `m2dx draw ...` do once their arguments are read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from m2dx.contract.errors import RecipeError
from m2dx.data.csv_list import CsvDataset
from m2dx.encoder.audio import load_encoder, random_like
from m2dx.evaluation.tasks import ClipTask
from m2dx.report.attention import attention_figure
from m2dx.report.embedding import Method, embed, embedding_figure, labelled_clips
from m2dx.report.masks import masks_of
from m2dx.report.reconstruction import (
    Reconstruction,
    Reconstructor,
    draw_reconstructions,
    load_reconstructor,
    reconstructions,
)
from m2dx.report.saving import save_figure
from m2dx.report.sounding import reconstruction_wavs, write_wav
from m2dx.report.sounds import read_sound

if TYPE_CHECKING:
    from m2dx.contract.host import PluginHost
    from m2dx.recipe.schema import Recipe


def draw_reconstruction(
    path: Path,
    files: Sequence[Path],
    output: Path,
    *,
    ratios: Sequence[float] | None = None,
    patterns: Sequence[str] | None = None,
    attempts: int = 1,
    seed: int = 0,
    start: float = 0.0,
    outline: bool = True,
    audio: bool = False,
) -> list[Path]:
    """Draws files under the masks of `masks_of`; the files written."""
    model = load_reconstructor(path)
    masks = masks_of(ratios, patterns, attempts=attempts, seed=seed, own_ratio=model.mask_ratio)
    sounds = [read_sound(file, model.sample_rate, start=start) for file in files]
    blocks = reconstructions(model, sounds, masks)
    written = [save_figure(draw_reconstructions(blocks, outline=outline), output)]
    if audio:
        for number, block in enumerate(blocks, start=1):
            stem = f"{output.stem}-{number}-{Path(block[0].name).stem}"
            written += _write_sounds(model, block, output.with_name(stem))
    return written


def _write_sounds(model: Reconstructor, block: Sequence[Reconstruction], stem: Path) -> list[Path]:
    """The input and each reconstruction of a sound, all by Griffin-Lim, so that they compare."""
    written = []
    for number, item in enumerate(block, start=1):
        original, result = reconstruction_wavs(model, item)
        if number == 1:
            written.append(write_wav(stem.with_name(f"{stem.name}-input.wav"), original, model.sample_rate))
        name = f"{stem.name}-reconstruction{number if len(block) > 1 else ''}.wav"
        written.append(write_wav(stem.with_name(name), result, model.sample_rate))
    return written


def draw_attention_maps(
    path: Path,
    files: Sequence[Path],
    points: Sequence[tuple[int, int]] | None,
    output: Path,
    *,
    start: float = 0.0,
) -> Path:
    """Draws what points of files attend to; the picture."""
    encoder = load_encoder(path)
    sounds = [read_sound(file, encoder.sample_rate, start=start) for file in files]
    return save_figure(attention_figure(encoder, sounds, points), output)


def labelled_set(
    path: Path,
    recipe: tuple[PluginHost, Recipe] | None,
    *,
    task: str | None = None,
    split: str | None = None,
    most: int | None = None,
    seed: int = 0,
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
    return labelled_clips(
        task,
        host.build("dataset", section.dataset),
        unit_seconds=section.unit_seconds,
        short_clips=section.short_clips,
        split=split,
        most=most,
        seed=seed,
    )


def draw_embedding(
    path: Path,
    clips: ClipTask,
    output: Path,
    *,
    method: Method = "tsne",
    random_weights: bool = False,
    seed: int = 0,
) -> Path:
    """Draws labelled clips by an encoder's features, and by those of random weights where asked; the picture."""
    encoder = load_encoder(path)
    resolved = path.resolve()
    name = resolved.parent.name if resolved.name == "encoder" else resolved.name
    found = [embed(encoder, clips, title=f"{clips.name}: {name}", method=method, seed=seed)]
    if random_weights:
        untrained = random_like(encoder, seed=seed)
        found.append(embed(untrained, clips, title="random weights", method=method, seed=seed))
    return save_figure(embedding_figure(found), output)
