"""The main job: from a recipe to a trained, exported and evaluated encoder, and its page."""

from __future__ import annotations

import contextlib
import logging
import shlex
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from m2dx.contract.atomic import replace_json
from m2dx.contract.errors import CheckpointError, M2dxError
from m2dx.contract.host import PluginHost
from m2dx.encoder.audio import load_any_encoder
from m2dx.encoder.checkpoint import Checkpoint, read_checked
from m2dx.jobs.background_scoring import BackgroundScoring
from m2dx.recipe.loading import load_recipe
from m2dx.recipe.schema import Recipe
from m2dx.results.provenance import describe_data, describe_launch, describe_software
from m2dx.results.run_folder import SUMMARY_FILE, DataFacts, RunSummary
from m2dx.training import run_folder
from m2dx.training.distributed import Processes, join_processes, pick_device
from m2dx.training.memory import memory_advice, training_advice
from m2dx.training.monitor import TrainingSummary
from m2dx.training.prepare import PreparedRun, prepare
from m2dx.training.run_folder import Resume
from m2dx.training.trainer import Trainer

if TYPE_CHECKING:
    from m2dx.results.scoring import Scoring

logger = logging.getLogger(__name__)


def run_recipe(
    recipe: Recipe, host: PluginHost, console: Console, *, resume: Resume = False, overwrite: bool = False
) -> TrainingSummary:
    """Trains; then, unless a signal stopped it, exports, evaluates and writes report.html (in the main process).

    `resume` "or_start" resumes if there is a checkpoint, and starts otherwise. The evaluation's lists and settings are
    checked before anything is trained. If export or evaluation fails, the page is written all the same.
    """
    processes = join_processes(recipe.train.device, timeout_minutes=recipe.train.timeout_minutes)
    folder = recipe.output / recipe.name
    with run_folder.running_alone(folder) if processes.is_main else contextlib.nullcontext():
        return _run(recipe, host, processes, console, resume=resume, overwrite=overwrite)


def _run(
    recipe: Recipe,
    host: PluginHost,
    processes: Processes,
    console: Console,
    *,
    resume: Resume,
    overwrite: bool,
) -> TrainingSummary:
    try:
        scoring = None
        if processes.is_main and recipe.evaluation.tasks:
            from m2dx.results.scoring import Scoring  # imports all evaluators, which training does not need

            scoring = Scoring.of(recipe, host)
        trainer = make_trainer(recipe, host, processes, console, resume=resume, overwrite=overwrite)
        run = trainer.run
        if not processes.is_main:
            return _fit(trainer)
        finished = trainer.step >= trainer.total_steps
        run_folder.start_run_folder(run.recipe, resume=trainer.resumed, finished=finished)
        describe_run(run, console)
        data = describe_data(run.recipe, host)  # before the lists may change
        if not trainer.resumed:
            from m2dx.jobs.doubts import print_doubts

            print_doubts(run, console)
        scores = None
        if recipe.evaluation.every:
            notify = partial(trainer.callbacks.notify, "scores")
            scores = BackgroundScoring(run.folder, recipe.evaluation, console, on_scores=notify)
        with scores or contextlib.nullcontext():
            if scores is not None:
                again = trainer.callbacks.wait_for_scores
                scores.recover(trainer.step, total_steps=trainer.total_steps, again=again)
            trainer.scoring = scores
            summary = _fit(trainer)
            processes.close()  # the others need not wait for scores
            if scores is not None and summary.stopped_by is None:
                stopped = scores.finish()
                summary = replace(summary, stopped_by=None if stopped is None else stopped.name)
    finally:
        processes.close()
    _finish(trainer, summary, data, scoring, console)
    return summary


def _finish(
    trainer: Trainer, summary: TrainingSummary, data: DataFacts, scoring: Scoring | None, console: Console
) -> None:
    """Exports and scores the encoder of a run that was not stopped; records the run and writes its page in any case."""
    run, host = trainer.run, trainer.run.host
    record_run(trainer, summary, data, console)
    folder = run.folder / "encoder"
    try:
        if summary.stopped_by is None:
            from m2dx.encoder.weights import export_encoder

            export_encoder(run.folder, folder, overwrite=True, host=host)
            console.print(f"encoder: {folder}")
            if scoring is not None:
                found = scoring.run(load_any_encoder(folder, host), console, run.folder, step=trainer.step)
                own = [replace(score, predictions=()) for score in found]
                trainer.callbacks.notify("scores", trainer.step, own)
    finally:
        with console.status("writing the report"):
            page = write_page(run)
        console.print(f"report: {page}")
    if summary.stopped_by is None and run.recipe.image is None:
        encode = f"m2dx encode {shlex.quote(str(folder))} FILES -o features"
        console.print(f"next: {encode}  (features of your audio)", soft_wrap=True)


def _fit(trainer: Trainer) -> TrainingSummary:
    with memory_advice("training", lambda: training_advice(trainer.recipe, trainer.processes.world_size)):
        return trainer.fit()


def make_trainer(
    recipe: Recipe,
    host: PluginHost,
    processes: Processes,
    console: Console,
    *,
    resume: Resume = False,
    overwrite: bool = False,
) -> Trainer:
    """A trainer at the run's first step, or at its newest checkpoint, which each process reads once; writes nothing."""
    with processes.reporting_lost_processes():
        checkpoint: Checkpoint | None = None
        if processes.is_main:
            checkpoint = run_folder.open_run_folder(recipe, resume=resume, overwrite=overwrite)
        path = processes.from_main(None if checkpoint is None else checkpoint.path)
        if path is not None and checkpoint is None:
            checkpoint = Checkpoint(path, read_checked(path))
        if checkpoint is not None:
            as_many = len(checkpoint.state["rng"]) == processes.world_size
            recipe = run_folder.as_started(recipe, checkpoint.state["recipe"], accumulation=as_many)
        run = prepare(recipe, host, processes, console, initialise=checkpoint is None)
        if checkpoint is not None:
            run_folder.check_same_data(run.lists, checkpoint.state, with_tasks=bool(recipe.tasks))
        if recipe.train.accumulate == "auto":
            from m2dx.training.micro_batch import choose_accumulation

            run = choose_accumulation(run, console)
        advice = partial(training_advice, run.recipe, processes.world_size)
        with memory_advice("the start of training", advice):
            return Trainer(run, resume=checkpoint, console=console)


def describe_run(run: PreparedRun, console: Console) -> None:
    """Prints what will be trained, and what the data sets lack."""
    parameters = sum(p.numel() for p in run.model.parameters() if p.requires_grad)
    labels = ", ".join(f"{name}: {len(names)} classes" for name, names in run.clips.label_names.items())
    console.print(
        f"{run.recipe.name}: {len(run.clips)} clips{f' ({labels})' if labels else ''}, "
        f"{parameters / 1e6:.1f} M trained parameters, on {run.processes.device} x {run.processes.world_size}"
    )
    for line in run.missing:
        console.print(f"missing: {line}", style="yellow")


def record_run(trainer: Trainer, summary: TrainingSummary, data: DataFacts, console: Console) -> None:
    """Writes summary.json, and prints in a line what the run did."""
    run, scoring = trainer.run, trainer.scoring
    record = RunSummary(
        **asdict(summary),
        failed_evaluations=None if scoring is None else scoring.failed,
        device=str(run.processes.device),
        processes=run.processes.world_size,
        missing=run.missing,
        data=data,
        software=describe_software(run.host),
        launch=describe_launch(),
    )
    replace_json(run.folder / SUMMARY_FILE, asdict(record))
    console.print(
        f"trained {summary.steps} of {summary.total_steps} steps in {summary.seconds / 60:.1f} min, "
        f"{summary.bad_files} bad files, {summary.collapse_warnings} collapse warnings"
    )


def write_page(run: PreparedRun, *, data: DataFacts | None = None) -> Path:
    """Writes report.html, with pictures of clips as far as they can be drawn; `data`: what the lists hold now."""
    from m2dx.report.page import write_report  # imports matplotlib, which training does not need
    from m2dx.report.pictures import draw_run

    return write_report(run.folder, draw_run(run), data=data)


def report_of_run(folder: Path, host: PluginHost, console: Console) -> Path:
    """Writes a run's page again, without pictures of clips if its data can no longer be read.

    Raises CheckpointError where the folder is none of a run.
    """
    from m2dx.report.page import write_report
    from m2dx.report.pictures import RunPictures

    if not (folder / "recipe.yaml").is_file():
        raise CheckpointError(f"{folder} must be the folder of a run, with its recipe.yaml, but has none")
    try:
        recipe = load_recipe(folder / "recipe.yaml", host=host)
        run = prepare(recipe, host, Processes(0, 1, pick_device("cpu")), console, initialise=False)
    except M2dxError as error:
        logger.warning("without pictures of clips: %s", error)
        return write_report(folder, RunPictures(notes=(f"Clips cannot be shown: {error}",)))
    run = replace(run, folder=folder)  # the folder may have been moved
    return write_page(run, data=describe_data(recipe, host))
