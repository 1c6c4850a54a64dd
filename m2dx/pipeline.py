"""The main job, from a recipe to a trained, exported and evaluated encoder with its page."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import numpy as np
from rich.console import Console

import m2dx
from m2dx.audio.batches import ItemKey
from m2dx.audio.crops import collate
from m2dx.encoder import AudioEncoder, load_encoder, random_encoder
from m2dx.errors import M2dxError
from m2dx.evaluation.baselines import MeanLogMel
from m2dx.evaluation.features import ClipEncoder
from m2dx.evaluation.runner import EncoderScore, evaluate, write_scores
from m2dx.evaluation.table import score_table
from m2dx.evaluation.tasks import EvaluationTask
from m2dx.export import export_encoder
from m2dx.model.masking import Mask
from m2dx.plugins import PluginHost
from m2dx.recipe.loading import load_recipe
from m2dx.recipe.schema import Recipe
from m2dx.report import MaskedExample, write_report
from m2dx.training.distributed import Processes, join_processes, pick_device
from m2dx.training.prepare import PreparedRun, as_begun, open_run_folder, prepare, write_recipe
from m2dx.training.trainer import Trainer, TrainingSummary

logger = logging.getLogger(__name__)

EXAMPLES_SHOWN = 4


def run_recipe(
    recipe: Recipe, host: PluginHost, console: Console, *, resume: bool = False, overwrite: bool = False
) -> TrainingSummary:
    """Trains; then, unless a signal stopped it, exports, evaluates and writes report.html (in the main process)."""
    processes = join_processes(recipe.train.device)
    try:
        began = processes.from_main(
            open_run_folder(recipe, resume=resume, overwrite=overwrite) if processes.is_main else None
        )
        if began is not None:
            recipe = as_begun(recipe, began)
        run = prepare(recipe, host, processes, console)
        if processes.is_main:
            write_recipe(run)
            describe_run(run, console)
        summary = Trainer(run, resume=resume, console=console).fit()
    finally:
        processes.close()
    if not processes.is_main:
        return summary
    write_summary(run, summary, console)
    if summary.stopped_by is None:
        folder = export_encoder(run.folder, run.folder / "encoder")
        console.print(f"encoder: {folder}")
        if run.recipe.evaluation.tasks:
            evaluate_recipe(run.recipe, load_encoder(folder), host, console, run.folder)
    page = write_report(run.folder, masked_examples(run))
    console.print(f"report: {page}")
    return summary


def describe_run(run: PreparedRun, console: Console) -> None:
    """Prints what is about to train, and what the data sets lack."""
    parameters = sum(p.numel() for p in run.model.parameters() if p.requires_grad)
    labels = ", ".join(f"{name}: {len(names)} classes" for name, names in run.clips.label_names.items())
    console.print(
        f"{run.recipe.name}: {len(run.clips)} clips{f' ({labels})' if labels else ''}, "
        f"{parameters / 1e6:.1f} M trained parameters, on {run.processes.device} x {run.processes.world_size}"
    )
    for line in run.missing:
        console.print(f"missing: {line}", style="yellow")


def write_summary(run: PreparedRun, summary: TrainingSummary, console: Console) -> None:
    """Writes summary.json and says in a line what the run did."""
    content: dict[str, object] = {
        **asdict(summary),
        "data_clips": len(run.clips),
        "missing": list(run.missing),
        "device": f"{run.processes.device} x {run.processes.world_size}",
        "versions": {
            "m2dx": m2dx.__version__,
            **{name: version(name) for name in ("torch", "torchaudio", "timm", "numpy")},
        },
    }
    if np.isfinite(run.clips.durations).all():
        content["hours_of_data"] = round(float(run.clips.durations.sum()) / 3600, 3)
    (run.folder / "summary.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    console.print(
        f"trained {summary.steps} of {summary.total_steps} steps in {summary.seconds / 60:.1f} min, "
        f"{summary.bad_files} bad files, {summary.collapse_warnings} collapse warnings"
    )


def evaluate_recipe(
    recipe: Recipe, encoder: AudioEncoder, host: PluginHost, console: Console, folder: Path
) -> list[EncoderScore]:
    """Runs the recipe's evaluation on an encoder and its baselines; prints the table and writes scores.json."""
    section = recipe.evaluation
    tasks = [
        EvaluationTask.from_dataset(
            name,
            host.build("dataset", task.dataset),
            unit_seconds=task.unit_seconds,
            short_clips=task.short_clips,
            max_bad_fraction=recipe.data.max_bad_fraction,
        )
        for name, task in section.tasks.items()
    ]
    evaluators = {name: host.build("evaluator", spec) for name, spec in section.evaluators.items()}
    with console.status("evaluating") as status:
        scores = evaluate(
            encoders_to_compare(recipe, encoder),
            tasks,
            evaluators,
            seeds=section.seeds,
            progress=lambda done, total, what: status.update(f"evaluating {done}/{total}: {what}"),
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_scores(scores, folder / "scores.json")
    console.print(score_table(scores))
    return scores


def encoders_to_compare(recipe: Recipe, encoder: AudioEncoder) -> dict[str, Callable[[int], ClipEncoder]]:
    """The encoder and the recipe's baselines, each as a function of the seed, on the recipe's device."""
    device = pick_device(recipe.train.device)
    encoder = encoder.to(device)
    mean_logmel = MeanLogMel(recipe.audio).to(device)
    makers: dict[str, Callable[[int], ClipEncoder]] = {
        "random_weights": lambda seed: random_encoder(
            recipe.audio, recipe.model, mean=encoder.mean, std=encoder.std, seed=seed
        ).to(device),
        "mean_logmel": lambda seed: mean_logmel,
    }
    return {
        "pretrained": lambda seed: encoder,
        **{name: makers[name] for name in recipe.evaluation.baselines},
    }


def masked_examples(run: PreparedRun) -> Sequence[MaskedExample]:
    """What M2D sees of a few clips: clean and noisy log-mel, and which patches are masked."""
    count = min(EXAMPLES_SHOWN, len(run.clips))
    ids = [i * len(run.clips) // count for i in range(count)]
    batch = collate([run.crops[ItemKey(0, position, clip_id)] for position, clip_id in enumerate(ids)])
    model = run.model.to("cpu")
    noisy, views = model.views(batch)
    grid = model.masked_model.online.grid.shape
    masked = Mask(batch.ids_shuffle, model.num_visible).is_masked.unflatten(1, grid)
    return [
        MaskedExample(
            name=run.clips[int(batch.clip_ids[i])].path.name,
            clean=views.clean_logmel[i, 0].numpy(),
            noisy=noisy[i, 0].numpy(),
            is_masked=masked[i].numpy(),
            seconds=run.recipe.audio.crop_seconds,
        )
        for i in range(count)
    ]


def report_of_run(folder: Path, host: PluginHost, console: Console) -> Path:
    """Writes a run's page anew; without pictures of masked clips where its data cannot be read any more."""
    recipe_file = folder / "recipe.yaml"
    examples: Sequence[MaskedExample] = ()
    try:
        recipe = load_recipe(recipe_file, [f"output={folder.parent}"], host=host)
        run = prepare(recipe, host, Processes(0, 1, pick_device("cpu")), console)
        examples = masked_examples(run)
    except M2dxError as error:
        logger.warning("without pictures of clips: %s", error)
    return write_report(folder, examples)
