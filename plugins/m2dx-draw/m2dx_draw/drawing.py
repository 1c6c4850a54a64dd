"""What the commands `m2dx draw ...` do, beyond reading arguments and calling functions of the other modules."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile
from matplotlib.figure import Figure
from torch import Tensor

from m2dx.contract.errors import AudioError, RecipeError
from m2dx.data.csv_list import CsvDataset
from m2dx.encoder.audio import load_encoder, random_like
from m2dx.evaluation.tasks import ClipTask
from m2dx_draw.embedding import Method, embed, embedding_figure, labelled_clips
from m2dx_draw.masks import RANDOM, PatchMask
from m2dx_draw.reconstruction import Reconstruction, Reconstructor

if TYPE_CHECKING:
    from m2dx.contract.host import PluginHost
    from m2dx.recipe.schema import Recipe


def masks_of(
    ratios: Sequence[float] | None,
    patterns: Sequence[str] | None,
    *,
    attempts: int = 1,
    seed: int = 0,
    own_ratio: float = 0.75,
) -> list[PatchMask]:
    """The masks of each pattern (default: random): for the random one, `attempts` of each ratio (default: `own_ratio`).

    RecipeError where ratios are given, but no random mask that they could be of.
    """
    names = [RANDOM] if patterns is None else list(patterns)
    if RANDOM not in names and (ratios is not None or attempts > 1):
        raise RecipeError(
            f"ratios and attempts are of random masks, but the patterns are {', '.join(names)}; leave them out, or add "
            "random"
        )
    masks = []
    for name in names:
        if name == RANDOM:
            chosen = [own_ratio] if ratios is None else ratios
            masks += [PatchMask(name, ratio, seed + i) for ratio in chosen for i in range(attempts)]
        else:
            masks.append(PatchMask(name, seed=seed))
    return masks


def write_sounds(
    model: Reconstructor, blocks: Sequence[Sequence[Reconstruction]], output: Path
) -> list[Path]:
    """Writes input and reconstructions of each sound beside a picture, all by Griffin-Lim, so that they compare."""
    written = []
    for number, block in enumerate(blocks, start=1):
        logmels = {"input": block[0].logmel} | {
            f"reconstruction{i if len(block) > 1 else ''}": item.result
            for i, item in enumerate(block, start=1)
        }
        for what, logmel in logmels.items():
            name = f"{output.stem}-{number}-{Path(block[0].name).stem}-{what}.wav"
            written.append(write_wav(output.with_name(name), model.wav(logmel), model.sample_rate))
    return written


def write_wav(path: Path, wav: Tensor, sample_rate: int) -> Path:
    """Writes a 16-bit WAV file, turned down where it is louder than full scale; AudioError where that fails."""
    samples = wav.numpy()
    try:
        soundfile.write(path, samples / max(1.0, float(np.abs(samples).max())), sample_rate, subtype="PCM_16")
    except (OSError, soundfile.SoundFileError) as error:
        raise AudioError(f"{path} could not be written: {error}") from error
    return path


def draw_embedding(path: Path, clips: ClipTask, *, method: Method, random_weights: bool, seed: int) -> Figure:
    """Draws labelled clips by an encoder's features and, if asked, by those of random weights."""
    encoder = load_encoder(path)
    resolved = path.resolve()
    name = resolved.parent.name if resolved.name == "encoder" else resolved.name
    encoders = {f"{clips.name}: {name}": encoder}
    if random_weights:
        encoders["random weights"] = random_like(encoder, seed=seed)
    return embedding_figure(
        [embed(of, clips, title=title, method=method, seed=seed) for title, of in encoders.items()]
    )


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

    RecipeError if the recipe has no such task, or has several and `task` is None.
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
