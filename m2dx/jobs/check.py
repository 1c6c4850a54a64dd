"""What a recipe amounts to, before training costs anything: its shapes, sizes, and one step's losses."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table
from torch import nn

from m2dx.contract.components import Clip
from m2dx.contract.host import PluginHost
from m2dx.contract.wording import counted, duration
from m2dx.data.bad_files import BadFiles
from m2dx.data.clips import list_clips
from m2dx.data.crops import Batch, CropItem, collate
from m2dx.evaluation.splits import SPLITS
from m2dx.jobs.doubts import print_doubts
from m2dx.model.precision import autocast
from m2dx.model.shapes import model_shapes
from m2dx.recipe.loading import recipe_to_yaml
from m2dx.recipe.schema import Recipe
from m2dx.results.scoring import Scoring
from m2dx.training.blame import blaming_components
from m2dx.training.distributed import Processes, pick_device
from m2dx.training.memory import is_shortage
from m2dx.training.prepare import PreparedRun, prepare
from m2dx.training.trainer import Trainer

MOST_CLIPS = 8  # of the trial step
TIMED_STEPS, TIMED_SECONDS = 4, 4.0  # at most
MOST_STATS_CLIPS = 200  # statistics of a check need not be exact
MOST_CLASSES = 50  # of a table of an evaluation task
LATER = "auto: as many as fit, found when the training starts"


def check_recipe(recipe: Recipe, host: PluginHost, console: Console) -> None:
    """Prints the resolved recipe, the evaluation's clips, shapes, sizes, losses of one step, doubts, and the time.

    Statistics that the recipe leaves open are measured on at most 200 clips; nothing is written. Raises the errors of
    training: RecipeError for what cannot be trained or evaluated, TrainingError for too many bad files, and for losses
    or gradients that are not finite.
    """
    console.print(Syntax(recipe_to_yaml(recipe), "yaml", background_color="default"))
    brief = recipe.data.model_copy(update={"stats_clips": min(recipe.data.stats_clips, MOST_STATS_CLIPS)})
    processes = Processes(0, 1, pick_device(recipe.train.device))
    if recipe.evaluation.tasks:
        for name, dataset in Scoring.of(recipe, host).datasets.items():
            console.print(division_table(name, list_clips(name, dataset)))
    found_later = recipe.train.accumulate == "auto"
    train = recipe.train.model_copy(update={"accumulate": 1}) if found_later else recipe.train
    run = prepare(recipe.model_copy(update={"data": brief, "train": train}), host, processes, console)
    for line in run.missing:
        console.print(f"missing: {line}", style="yellow")
    for line in run.notes:
        console.print(f"note: {line}")
    console.print(_shapes_table(run, found_later=found_later))
    console.print(_parameters_table(run))
    keys = next(iter(run.batches()))[:MOST_CLIPS]
    started = time.perf_counter()
    items = [run.crops[key] for key in keys]
    reading = (time.perf_counter() - started) / len(items)
    batch = collate(items)
    bad_files = BadFiles(run.num_files, max_bad_fraction=run.recipe.data.max_bad_fraction)
    for path, reason in bad_files.add((*run.bad, *batch.bad)):
        console.print(f"cannot use {path}: {reason}", style="yellow")
    bad_files.check()
    console.print(_losses_table(run, batch))
    print_doubts(run, console)
    with console.status("timing steps"):
        line = _time_line(run, items, reading)
    console.print(line)


def division_table(name: str, clips: Sequence[Clip]) -> Table:
    """The clips of each class in each split or fold, of all classes, and the groups where they are known."""
    given = {str(clip.split) for clip in clips}
    folds = sorted(given.difference(SPLITS), key=lambda fold: (len(fold), fold))
    splits = [*(split for split in SPLITS if split in given), *folds]
    counts = Counter((label, str(clip.split)) for clip in clips for label in (*clip.labels, None))
    groups = Counter(split for _, split in {(c.group, str(c.split)) for c in clips if c.group is not None})
    labels = sorted({label for label, _ in counts if label is not None})
    table = _table(f"clips of {name}", "class", *splits)
    for label in labels[:MOST_CLASSES]:
        table.add_row(label, *(f"{counts[label, split]}" for split in splits))
    if len(labels) > MOST_CLASSES:
        table.add_row(f"({len(labels) - MOST_CLASSES} more)")
    table.add_row("all", *(f"{counts[None, split]}" for split in splits))
    if groups:
        table.add_row("groups", *(f"{groups[split]}" for split in splits))
    return table


def _time_line(run: PreparedRun, items: list[CropItem], reading: float) -> str:
    """How long the training will take, from real steps on a few clips, and reading them (s a clip); and the basis."""
    batches, train, device = run.batches(), run.recipe.train, run.processes.device
    few = train.model_copy(update={"batch_size": len(items), "accumulate": 1, "compile": False})
    try:
        trainer = Trainer(replace(run, recipe=run.recipe.model_copy(update={"train": few})))
        timed, began = list[tuple[float, int]](), time.perf_counter()
        while len(timed) < TIMED_STEPS and time.perf_counter() - began < TIMED_SECONDS:
            started = time.perf_counter()
            trainer.watch.push(trainer.train_step(iter([collate(items)]))[0])
            trainer.check_finite()  # a GPU is waited for
            timed.append(((time.perf_counter() - started) / len(items), len(items)))
            if timed[-1][0] * batches.micro_batch_size < TIMED_SECONDS / TIMED_STEPS:
                items = (items * batches.micro_batch_size)[: batches.micro_batch_size]
    except (RuntimeError, MemoryError) as error:
        if not is_shortage(error):
            raise
        return f"the time cannot be told: memory ran out in a step on {len(items)} clips; see docs/memory.md"
    (computing, clips), loading = min(timed), reading / max(run.workers, 1)
    a_clip = max(computing, loading) if run.workers else computing + loading
    steps = run.total_steps
    return (
        f"the training takes about {duration(steps * train.batch_size * a_clip)} here: {counted(steps, 'step')} of "
        f"{counted(train.batch_size, 'clip')}, each {computing * 1000:.3g} ms in a step on {clips} on {device}, and "
        f"{loading * 1000:.3g} ms to read ({counted(run.workers, 'worker')}); one process, without the evaluation"
    )


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    return table


def _shapes_table(run: PreparedRun, *, found_later: bool) -> Table:
    recipe, shapes = run.recipe, model_shapes(run.recipe.input, run.recipe.model)
    batches = run.batches()
    freq, time = shapes.grid.shape
    table = _table("shapes", "what", "value")
    size = "{} x {}".format(*shapes.grid.input_size)
    grid = f"{freq} x {time} = {shapes.grid.num_patches}"
    masks = recipe.model.masks_per_clip
    several = f" ({masks} masks per clip)" if masks > 1 else ""
    visible = {"visible, masked patches": f"{shapes.num_visible}, {shapes.num_masked}{several}"}
    of_audio = {
        "crop": f"{recipe.audio.crop_seconds:g} s, {recipe.audio.crop_samples} samples",
        "log-mel (mels x frames)": size,
        "patch grid (frequency x time)": grid,
        **visible,
        "features per frame": f"{freq * shapes.size.embed_dim}",
        "frames per second": f"{time / recipe.audio.crop_seconds:.3f}",
    }
    of_images = {
        "image (height x width), channels": f"{size}, {shapes.grid.in_chans}",
        "patch grid (height x width)": grid,
        **visible,
        "features per image": f"{shapes.size.embed_dim}",
    }
    rows = {
        "clips": f"{len(run.clips)}",
        **(of_audio if recipe.image is None else of_images),
        "steps": f"{run.total_steps} ({batches.steps_per_epoch} per epoch)",
        "clips per backward pass": LATER if found_later else f"{batches.micro_batch_size}",
        "peak learning rate": f"{recipe.train.base_lr * recipe.train.batch_size / 256:.3g}",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    for name, shape in run.model.target_shapes.items():
        table.add_row(f"task {name}: target", "(B, " + ", ".join(map(str, shape)) + ")")
    return table


def _parameters_table(run: PreparedRun) -> Table:
    model = run.model
    table = _table("parameters", "part", "trained", "frozen")
    parts = dict(model.masked_model.named_children())
    for name, task in model.tasks.items():
        parts |= {f"tasks.{name}.{child}": module for child, module in task.named_children()}
    for name, part in parts.items():
        if any(_count(part)):
            table.add_row(name, *(f"{count:,}" for count in _count(part)))
    table.add_row("all", *(f"{count:,}" for count in _count(model)))
    return table


def _count(module: nn.Module) -> tuple[int, int]:
    """Trained and frozen weights."""
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    return trained, sum(p.numel() for p in module.parameters()) - trained


def _losses_table(run: PreparedRun, batch: Batch) -> Table:
    """Of each term: its loss, weight, and where there are tasks the norm of its weighted gradient at the encoder."""
    device = run.processes.device
    model = run.model.to(device).train()
    with (
        blaming_components(run.host, "a step"),
        torch.set_grad_enabled(bool(model.tasks)),
        autocast(run.recipe.train.precision, device),
    ):
        losses = model(batch.to(device), "gradients")
        if model.balanced:
            model.balance(losses.measured)
            losses = model(batch.to(device), "gradients")
    title = f"losses of one step on {len(batch.inputs)} clips, before training"
    table = _table(title, "loss", "value", "weight", "gradient at the encoder")
    terms: dict[str, Any] = {model.method: model, **dict(model.tasks.items())}
    of_method = float(losses.measured.get(f"gradient_{model.method}", 0.0))
    for name, value in losses.parts.items():
        weight = float(terms[name].weight)
        gradient = float(losses.measured.get(f"gradient_{name}", 0.0))
        ratio = f", {gradient / of_method:.2g} x {model.method}" if name in model.tasks and of_method else ""
        written = f"auto, {weight:.2g}" if name in model.balanced else f"{weight:g}"
        beside = f"{gradient:.2g}{ratio}" if model.tasks else ""
        table.add_row(name, f"{float(value.detach()):.4f}", written, beside)
    table.add_row("total", f"{float(losses.total.detach()):.4f}", "", "")
    return table
