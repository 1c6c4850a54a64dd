"""The training loop: from a prepared run to checkpoints and metrics."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict
from itertools import chain
from typing import Any, Protocol

import torch
from rich.console import Console
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.profiler import record_function

from m2dx.contract.errors import CheckpointError, RecipeError
from m2dx.contract.package import package_version
from m2dx.contract.progress import ProgressLine
from m2dx.data.bad_files import BadFile, BadFiles
from m2dx.data.crops import Batch
from m2dx.data.loader import DeviceCopies, batch_loader
from m2dx.encoder.checkpoint import Checkpoint, CheckpointFolder
from m2dx.encoder.weights import CHECKPOINT_FORMAT, encoder_writer
from m2dx.model.multitask import BALANCE_EVERY, Measure, StepLosses
from m2dx.model.precision import autocast
from m2dx.recipe.loading import recipe_to_mapping
from m2dx.training.blame import blaming_components
from m2dx.training.distributed import FullyShardedDataParallel, share_model
from m2dx.training.memory import is_shortage
from m2dx.training.monitor import (
    CollapseAlarm,
    Look,
    LossWatch,
    Measured,
    MetricsWriter,
    StepRecord,
    TrainingSummary,
    describe,
    mean_losses,
    not_finite,
    rankme,
)
from m2dx.training.optim import Rates, build_optimizer, clip_gradients, load_moments
from m2dx.training.prepare import PreparedRun
from m2dx.training.signals import StopRequests, StopVotes

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.1


class CheckpointScoring(Protocol):
    """What scores the checkpoints of a run while it trains; none of its calls waits."""

    failed: int

    @property
    def waiting(self) -> Collection[int]:
        """Steps whose encoders must stay."""

    def take(self, step: int) -> None:
        """Notes the encoder of a step, if it is one to be scored."""

    def poll(self) -> None:
        """Takes note of what has been scored, and starts with the next checkpoint."""


class Trainer:
    """Trains a prepared run from its start, or from a checkpoint (`resume`). Writes nothing before `fit`.

    `Trainer(prepare(recipe, host, processes, console)).fit()` trains from Python: metrics, checkpoints and what the
    encoders need go into `run.folder`. `state_dict` is what a checkpoint holds of a run after a step; a trainer of the
    same recipe that loads it continues as if there had been no stop. Raises RecipeError if the recipe does not suit the
    device or the run is past its end, CheckpointError if `resume` does not fit the recipe.
    """

    def __init__(
        self, run: PreparedRun, *, resume: Checkpoint | None = None, console: Console | None = None
    ) -> None:
        self.run, self.console = run, console or Console()
        self.recipe, self.processes = run.recipe, run.processes
        train, device = self.recipe.train, self.processes.device
        self.batches = run.batches()
        self.total_steps = run.total_steps
        self.rates = Rates.of(
            self.recipe, run.host, total_steps=self.total_steps, steps_per_epoch=self.batches.steps_per_epoch
        )
        self.to_device = DeviceCopies(device)
        self.model = run.model.to(device).train()
        self.parallel = share_model(self.model, train, self.processes)
        first = self.rates.learning_rate(0)
        self.optimizer = build_optimizer(self.model, train, run.host, learning_rate=first)
        self.scaler = GradScaler(device.type, enabled=train.precision == "fp16")
        self.bad_files = BadFiles(run.num_files, max_bad_fraction=self.recipe.data.max_bad_fraction)
        self._found: list[BadFile] = []  # bad files of this process that the others do not know yet
        self.checkpoints = CheckpointFolder(run.folder / "checkpoints")
        self.watch, self.alarm = LossWatch(check_grad_norm=not self.scaler.is_enabled()), CollapseAlarm()
        self.requests, self.votes = StopRequests(), StopVotes()
        self.callbacks = run.callbacks
        self.scoring: CheckpointScoring | None = None
        """May be set before `fit`, in the main process; it is given all checkpoints but the last."""
        self._of_method: Mapping[str, float] = {}  # what it shows of the last step
        self.step = self.clips = 0
        self.seconds_before = 0.0  # of the run before this process
        self._started = time.perf_counter()
        torch.manual_seed(self.recipe.seed + self.processes.rank)  # of dropout in a mapper and the like
        self.resumed = resume is not None
        if resume is not None:
            self._resume(resume)

    def _resume(self, checkpoint: Checkpoint) -> None:
        try:
            self.load_state_dict(checkpoint.state)
        except (RuntimeError, LookupError, TypeError, AttributeError, ValueError) as error:
            if is_shortage(error):
                raise
            raise CheckpointError(
                f"{checkpoint.path}: does not fit the recipe: {error}; set back what has changed in it, or start anew"
            ) from error
        if self.processes.is_main:
            self.console.print(f"resuming from step {self.step} ({checkpoint.path})")

    def state_dict(self) -> dict[str, Any]:
        """The state after the last step; every process has to ask for it, that of the main one is whole."""
        on_gpu = self.processes.device.type == "cuda"
        return {
            "format": CHECKPOINT_FORMAT,
            "version": 1,
            "m2dx_version": package_version(),
            "step": self.step,
            "recipe": recipe_to_mapping(self.recipe),
            "label_names": {name: list(labels) for name, labels in self.run.clips.label_names.items()},
            **{
                name: {"count": len(clips), "fingerprint": clips.fingerprint}
                for name, clips in self.run.lists.items()
            },
            "model": self.parallel.whole(self.model.training_state()),
            "optimizer": self.parallel.whole(self.optimizer.state_dict()),
            "scaler": self.scaler.state_dict(),
            "pending": self.watch.pending(),
            "measured": self.watch.measured,
            "totals": {"clips": self.clips, "seconds": self.seconds, "collapse_warnings": self.alarm.count},
            "rng": self.processes.gather(torch.get_rng_state()),
            **({"gpu_rng": self.processes.gather(torch.cuda.get_rng_state())} if on_gpu else {}),
            "bad_files": self.bad_files.state_dict(),
            "callbacks": self.callbacks.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on after what `state_dict` gave in the main process; every process has to load it, before `fit`.

        RecipeError where the run is past its end or had another optimizer; RuntimeError, ValueError and others where
        the state does not fit.
        """
        step, totals = int(state["step"]), state["totals"]
        if step > self.total_steps:
            raise RecipeError(
                f"the run must not be past its end, but its checkpoint is of step {step}, and train.epochs "
                f"{self.recipe.train.epochs:g} ends at step {self.total_steps}; set train.epochs to at least "
                f"{step / self.batches.steps_per_epoch:g}"
            )
        name = self.recipe.train.optimizer.name
        if (before := state["recipe"]["train"]["optimizer"]["name"]) != name:
            raise RecipeError(
                f"train.optimizer must be {before}, with which the run started and whose moments its checkpoint has, "
                f"but is {name}; set it back, or start anew (--overwrite, or another name=...)"
            )
        self.step, self.clips, self.seconds_before = step, totals["clips"], totals["seconds"]
        self.model.load_training_state(self.parallel.own_weights(state["model"]))
        load_moments(self.optimizer, self.parallel.own_moments(state["optimizer"], self.optimizer))
        self.scaler.load_state_dict(state["scaler"])
        if state["recipe"]["tasks"].keys() == self.recipe.tasks.keys():
            self.watch.restore(state["pending"], step=step, device=self.processes.device)
        self.watch.measured = state["measured"]
        self.alarm = CollapseAlarm(totals["collapse_warnings"])
        self.bad_files.load_state_dict(state["bad_files"])
        self.callbacks.load_state_dict(state["callbacks"])
        before, now = len(state["rng"]), self.processes.world_size
        if before == now:
            torch.set_rng_state(state["rng"][self.processes.rank])
            if self.processes.device.type == "cuda" and "gpu_rng" in state:
                torch.cuda.set_rng_state(state["gpu_rng"][self.processes.rank])
        elif self.processes.is_main:
            logger.warning("%d processes now, %d before: torch's own random state starts anew", now, before)

    def fit(self) -> TrainingSummary:
        """Trains to the last step, or until a signal asks to stop; either way the last step is saved."""
        self.run.folder.mkdir(parents=True, exist_ok=True)
        self._report_bad_files(self.run.bad)
        loader = batch_loader(
            self.run.crops,
            self.run.batches(start_step=self.step, total_steps=self.total_steps),
            workers=self.run.workers,
            pin_memory=self.processes.device.type == "cuda",
        )
        metrics = MetricsWriter(self.run.folder, self.step) if self.processes.is_main else None
        progress = ProgressLine(self.console, "step", done=self.step, kept=True, enabled=metrics is not None)
        try:
            progress.update(self.step, self.total_steps)
            self.callbacks.notify("start", recipe_to_mapping(self.recipe), self.run.folder, self.step)
            self.callbacks.state_dict()  # one that no checkpoint can hold ends the run now
            self._started = time.perf_counter()
            with self.requests, self.processes.reporting_lost_processes():
                stopped = self._loop(iter(loader), metrics, progress)
        finally:
            progress.close()
            if metrics is not None:
                metrics.close()
            self.parallel.close()
        received = self.requests.received
        summary = TrainingSummary(
            steps=self.step,
            total_steps=self.total_steps,
            seconds=self.seconds,
            clips=self.clips,
            bad_files=len(self.bad_files),
            collapse_warnings=self.alarm.count,
            last_metrics={} if metrics is None else metrics.last,
            failed_callbacks=self.callbacks.failed,
            stopped_by=(received.name if received else "another process") if stopped else None,
        )
        self.callbacks.notify("end", asdict(summary))
        return summary

    def _loop(self, batches: Iterator[Batch], metrics: MetricsWriter | None, progress: ProgressLine) -> bool:
        """Trains; whether a signal ended it before the last step."""
        train, watch, alone = self.recipe.train, self.watch, self.processes.world_size == 1
        window_start, window_step = time.perf_counter(), self.step
        on_cpu = self.processes.device.type == "cpu"
        ended = self._ended() if self.step else None
        while self.step < self.total_steps and ended is None:
            record, measured = self.train_step(batches)
            watch.push(record)
            due, save = self._is_time(train.log_every), self._is_time(train.checkpoint_every)
            stop = self.requests.received is not None if alone else self.votes.count(record.stop_vote)
            if due or save or stop or alone:
                found, self._found = self.processes.gather(self._found), []
                self._report_bad_files(chain.from_iterable(found))
            if on_cpu or due or save or stop or measured is not None:  # reading a loss makes a GPU wait
                self.check_finite()
            if measured is not None and self.processes.is_main:
                watch.measured = {name: float(value) for name, value in measured.scalars.items()}
                watch.measured["rankme"] = rankme(measured.features)
                self.alarm.check(self.step, watch.measured)
            if due:
                now = time.perf_counter()
                speed = (self.step - window_step) * train.batch_size / (now - window_start)
                line = {
                    "step": self.step,
                    "epoch": self.step / self.batches.steps_per_epoch,
                    **watch.drain_means(),
                    "lr": self.rates.learning_rate(self.step - 1),
                    **self._of_method,
                    "clips_per_second": speed,
                    "time": time.time(),
                }
                if self.scoring is not None and self.scoring.failed:
                    line["failed_evaluations"] = self.scoring.failed
                window_start, window_step = now, self.step
                if metrics is not None:
                    metrics.write(line)
                    self.callbacks.notify("metrics", line)
            news = describe(metrics.last, batch_size=train.batch_size) if due and metrics is not None else ""
            progress.update(self.step, self.total_steps, news)
            if save or stop:
                self.save()
                if self.scoring is not None and self.step < self.total_steps:
                    self.scoring.take(self.step)
            if stop and self.step < self.total_steps:
                return True
            if self.scoring is not None:
                self.scoring.poll()
            if due or save:
                ended = self._ended()
                if ended is not None and not save:
                    self.save()
        return ended == "signal"

    def _ended(self) -> str | None:
        """Who ends the training before its last step, after waiting for scores of this one: "signal" or "callback"."""
        if not self.callbacks.changing or self.step == self.total_steps:
            return None
        every = self.recipe.evaluation.every
        ended: str | None = None
        if self.processes.is_main:
            waits = self.callbacks.wait_for_scores and every is not None and self.step % every == 0
            while waits and self.scoring is not None and self.scoring.waiting and not self.requests.received:
                time.sleep(_POLL_SECONDS)
                self.scoring.poll()
            if waits and self.requests.received:
                ended = "signal"
            elif reason := self.callbacks.stop():
                ended = "callback"
                self.console.print(f"ended after step {self.step} by {reason}")
        everywhere: str | None = self.processes.from_main(ended)
        return everywhere

    def _report_bad_files(self, found: Iterable[BadFile]) -> None:
        """Warns of files, known to every process, that are new; TrainingError where there are too many by now."""
        new = self.bad_files.add(found)
        if new and self.processes.is_main:
            for path, reason in new:
                logger.warning("cannot use %s: %s", path, reason)
            self.bad_files.write(self.run.folder / "bad_files.tsv")
        if new:
            self.bad_files.check()

    @property
    def seconds(self) -> float:
        """Time in the loop since the run's first step, also before it was resumed."""
        return self.seconds_before + time.perf_counter() - self._started

    def _is_time(self, every: int, *, done: int = 0) -> bool:
        """Whether something is due after this step (or, with `done` 1, after the next one)."""
        step = self.step + done
        return step % every == 0 or step == self.total_steps

    def check_finite(self) -> None:
        """TrainingError where a loss or gradient of the steps that `watch` was given is not finite."""
        if record := self.watch.first_not_finite():
            paths = {str(self.run.clips[int(i)].path) for part in record.clip_ids for i in part}
            raise not_finite(record, sorted(paths), self.recipe.train)

    def train_step(self, batches: Iterator[Batch]) -> tuple[StepRecord, Measured | None]:
        """One optimizer step over its accumulation steps: its losses, and what is measured where RankMe is due.

        PluginError where a plugin's component fails in it.
        """
        with blaming_components(self.run.host, f"step {self.step + 1}"):
            return self._train_step(batches)

    def _train_step(self, batches: Iterator[Batch]) -> tuple[StepRecord, Measured | None]:
        train, accumulate = self.recipe.train, self.recipe.train.backward_passes
        sums: dict[str, Tensor] = {}
        clip_ids, look = [], Look(accumulate, self.processes)
        measures = self._is_time(train.rankme_every, done=1)
        balances = bool(self.model.balanced) and self.step % BALANCE_EVERY == 0
        # Nothing is kept for a second backward pass by these.
        keeps = not train.compile and not isinstance(self.parallel, FullyShardedDataParallel)
        measure: Measure = "nothing" if not (measures or balances) else "gradients" if keeps else "target"
        step = min(self.step, self.total_steps - 1)  # a trial may take more steps than a short run has
        self.model.progress = step / self.total_steps
        learning_rate = self.rates.learning_rate(step)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate * group.get("lr_scale", 1.0)
        for micro in range(accumulate):
            with record_function("m2dx::loading"):
                batch = next(batches)
            self._found += batch.bad
            clip_ids.append(batch.clip_ids)
            on_device = self.to_device(batch)
            with self.parallel.accumulation(last=micro == accumulate - 1):
                with autocast(train.precision, self.processes.device, compiled=train.compile):
                    losses: StepLosses = self.parallel.forward(on_device, measure)
                with record_function("m2dx::backward"):
                    self.scaler.scale(losses.total / accumulate).backward()
            parts = {"loss": losses.total, **{f"loss_{name}": part for name, part in losses.parts.items()}}
            for name, value in parts.items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value.detach() / accumulate
            look.add(losses, rows=measures)
        with record_function("m2dx::optimizer"):
            self.scaler.unscale_(self.optimizer)
            parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
            grad_norm = clip_gradients(parameters, train.clip_norm)
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.optimizer.zero_grad(set_to_none=True)
        with record_function("m2dx::ema"):
            self._of_method = self.model.masked_model.after_step(self.rates.ema_decay(step))
            self.callbacks.after_step(self.model.masked_model, self.step + 1, self.total_steps)
        self.step += 1
        self.clips += train.batch_size
        means, vote = mean_losses(sums, self.processes, stop=self.requests.received is not None)
        record = StepRecord(self.step, means, grad_norm, tuple(clip_ids), vote)
        scalars = look.scalars()
        if balances:
            self.model.balance(scalars)
        return record, look.measured(scalars) if measures else None

    def save(self) -> None:
        """Writes a checkpoint of this step (main process only); every process has to call it."""
        state, train = self.state_dict(), self.recipe.train
        if self.processes.is_main:
            path = self.checkpoints.save(
                self.step,
                state,
                encoder=encoder_writer(state, whole=self.model.masked_model.reconstructs),
                keep_last=train.keep_last,
                keep_every=train.keep_every,
                keep_encoders=() if self.scoring is None else self.scoring.waiting,
            )
            self.callbacks.notify("checkpoint", self.step, path)
