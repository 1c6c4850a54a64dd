"""The training loop: from a prepared run to checkpoints and metrics."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.parallel import DistributedDataParallel
from torch.profiler import record_function

import m2dx
from m2dx.audio.bad_files import BadFiles
from m2dx.audio.crops import BadFile, Batch
from m2dx.audio.loader import training_loader
from m2dx.encoder import CHECKPOINT_FORMAT
from m2dx.errors import CheckpointError, RecipeError
from m2dx.model.m2d import M2D
from m2dx.model.mae import MSMMAE
from m2dx.model.multitask import StepLosses
from m2dx.recipe.loading import recipe_to_mapping
from m2dx.training.checkpoint import CheckpointFolder
from m2dx.training.monitor import (
    CollapseAlarm,
    LossWatch,
    MetricsWriter,
    ProgressLine,
    StepRecord,
    mean_losses,
    not_finite,
    rankme,
)
from m2dx.training.optim import Schedule, load_moments, parameter_groups
from m2dx.training.prepare import PreparedRun
from m2dx.training.signals import StopRequests

logger = logging.getLogger(__name__)

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class TrainingSummary:
    """What a run did."""

    steps: int
    total_steps: int
    seconds: float  # in the loop, of this process's life
    clips: int  # trained on since the start or resume
    bad_files: int
    collapse_warnings: int
    last_metrics: dict[str, float] = field(default_factory=dict)
    stopped_by: str | None = None  # the signal that ended it before the last step


class Trainer:
    """Trains a prepared run from its start, or from its newest whole checkpoint."""

    def __init__(self, run: PreparedRun, *, resume: bool, console: Console) -> None:
        self.run, self.console = run, console
        self.recipe, self.processes = run.recipe, run.processes
        train, device = self.recipe.train, self.processes.device
        if train.precision == "fp16" and device.type != "cuda":
            raise RecipeError(
                f"train.precision fp16 needs a GPU, but the device is {device}; take bf16 or fp32"
            )
        self.batches = run.batches()
        self.total_steps = max(round(train.epochs * self.batches.steps_per_epoch), 1)
        self.schedule = Schedule(
            total_steps=self.total_steps,
            warmup_steps=train.warmup_epochs * self.batches.steps_per_epoch,
            peak_lr=train.base_lr * train.batch_size / 256,
            min_lr=train.min_lr,
            ema_start=self.recipe.model.ema_decay.start,
            ema_end=self.recipe.model.ema_decay.end,
        )
        self.model = run.model.to(device).train()
        if train.compile:
            for part in _compiled_parts(self.model.masked_model):
                part.compile()
        self.optimizer = torch.optim.AdamW(
            parameter_groups(self.model.named_parameters(), train.weight_decay),
            lr=self.schedule.learning_rate(0),
            betas=train.betas,
        )
        self.scaler = GradScaler(device.type, enabled=train.precision == "fp16")
        self.bad_files = BadFiles(run.num_files, max_bad_fraction=self.recipe.data.max_bad_fraction)
        self._found_bad: list[BadFile] = []  # in this process, since the processes last told each other
        self.checkpoints = CheckpointFolder(run.folder / "checkpoints")
        self.watch = LossWatch(check_grad_norm=not self.scaler.is_enabled())
        self.step = 0
        if resume:
            self._resume()
        else:
            torch.manual_seed(self.recipe.seed + self.processes.rank)  # of dropout in a mapper and the like
        self.wrapped: nn.Module = self.model
        if self.processes.world_size > 1:
            self.wrapped = DistributedDataParallel(self.model, broadcast_buffers=False)

    def fit(self) -> TrainingSummary:
        """Trains to the last step, or until a signal asks to stop; either way the last step is saved."""
        self._report_bad(self.run.bad)
        loader = training_loader(
            self.run.crops,
            self.run.batches(start_step=self.step, total_steps=self.total_steps),
            workers=self.run.workers,
            pin_memory=self.processes.device.type == "cuda",
        )
        summary = TrainingSummary(self.step, self.total_steps, 0.0, 0, len(self.bad_files), 0)
        metrics = MetricsWriter(self.run.folder, self.step) if self.processes.is_main else None
        progress = ProgressLine(self.console, self.total_steps, self.step, enabled=self.processes.is_main)
        started = time.perf_counter()
        try:
            with StopRequests() as requests:
                self._loop(iter(loader), requests, metrics, progress, summary)
        finally:
            progress.close()
            if metrics is not None:
                metrics.close()
        summary.steps, summary.seconds = self.step, time.perf_counter() - started
        summary.bad_files = len(self.bad_files)
        return summary

    def _loop(
        self,
        batches: Iterator[Batch],
        requests: StopRequests,
        metrics: MetricsWriter | None,
        progress: ProgressLine,
        summary: TrainingSummary,
    ) -> None:
        train, alarm, watch = self.recipe.train, CollapseAlarm(), self.watch
        window_start, window_step, rank = time.perf_counter(), self.step, None
        on_cpu = self.processes.device.type == "cpu"
        while self.step < self.total_steps:
            record, latent = self.train_step(batches)
            watch.push(record)
            summary.clips += train.batch_size
            due, save = self._is_time(train.log_every), self._is_time(train.checkpoint_every)
            if due or save or self.processes.world_size == 1:
                self._share_bad()
            stop = self._stop_agreed(requests, due or save)
            if on_cpu or due or save or stop:  # reading a loss makes a GPU wait
                self._check_finite(watch)
            if self._is_time(train.rankme_every):
                rank = rankme(latent.flatten(0, 1))
                alarm.check(self.step, rank)
                summary.collapse_warnings = alarm.count
            if due:
                now = time.perf_counter()
                speed = (self.step - window_step) * train.batch_size / (now - window_start)
                line = self._line(watch.drain_means(), speed, rank)
                window_start, window_step, rank = now, self.step, None
                if metrics is not None:
                    metrics.write(line)
                summary.last_metrics = {**summary.last_metrics, **line}
            progress.update(self.step, summary.last_metrics if due else None)
            if save or stop:
                self.save()
            if stop and self.step < self.total_steps:
                summary.stopped_by = requests.received.name if requests.received else "another process"
                return

    def _is_time(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.total_steps

    def _stop_agreed(self, requests: StopRequests, now: bool) -> bool:
        """Whether to stop: all processes have to leave the loop at the same step, so they ask each other at times."""
        stop = requests.received is not None
        if self.processes.world_size == 1:
            return stop
        return self.processes.any(stop) if now else False

    def _check_finite(self, watch: LossWatch) -> None:
        record = watch.first_not_finite()
        if record is not None:
            ids = [int(clip_id) for part in record.clip_ids for clip_id in part]
            raise not_finite(record, sorted({str(self.run.clips[i].path) for i in ids}))

    def train_step(self, batches: Iterator[Batch]) -> tuple[StepRecord, Tensor]:
        """One optimizer step over its accumulation steps: its losses, and latent features (B, V, D) of the last."""
        accumulate = self.recipe.train.accumulate
        sums: dict[str, Tensor] = {}
        clip_ids = []
        learning_rate = self.schedule.learning_rate(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        for micro in range(accumulate):
            with record_function("m2dx::loading"):
                batch = next(batches)
            self._found_bad += batch.bad
            clip_ids.append(batch.clip_ids)
            last = micro == accumulate - 1
            losses = self._backward(batch.to(self.processes.device), accumulate, sync=last)
            parts = {"loss": losses.total, **{f"loss_{name}": part for name, part in losses.parts.items()}}
            for name, value in parts.items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value.detach() / accumulate
        with record_function("m2dx::optimizer"):
            grad_norm = self._optimizer_step()
        with record_function("m2dx::ema"):
            if isinstance(self.model.masked_model, M2D):
                self.model.masked_model.update_target(self.schedule.ema_decay(self.step))
        self.step += 1
        return StepRecord(
            self.step, mean_losses(sums, self.processes), grad_norm, tuple(clip_ids)
        ), losses.latent

    def _backward(self, batch: Batch, accumulate: int, *, sync: bool) -> StepLosses:
        dtype = _AUTOCAST.get(self.recipe.train.precision)
        device_type = self.processes.device.type
        no_sync = isinstance(self.wrapped, DistributedDataParallel) and not sync
        with self.wrapped.no_sync() if no_sync else contextlib.nullcontext():  # type: ignore[operator]
            with torch.autocast(device_type, dtype=dtype, enabled=dtype is not None):
                losses: StepLosses = self.wrapped(batch)
            with record_function("m2dx::backward"):
                self.scaler.scale(losses.total / accumulate).backward()
        return losses

    def _optimizer_step(self) -> Tensor:
        self.scaler.unscale_(self.optimizer)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        clip_norm = self.recipe.train.clip_norm
        grad_norm = nn.utils.clip_grad_norm_(parameters, clip_norm if clip_norm is not None else float("inf"))
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return grad_norm

    def _line(
        self, values: dict[str, float], clips_per_second: float, rank: float | None
    ) -> dict[str, float]:
        line = {
            "step": self.step,
            "epoch": self.step / self.batches.steps_per_epoch,
            **values,
            "lr": self.schedule.learning_rate(self.step - 1),
            "ema_decay": self.schedule.ema_decay(self.step - 1),
            "clips_per_second": clips_per_second,
            "time": time.time(),
        }
        return line if rank is None else {**line, "rankme": rank}

    def _report_bad(self, bad: Iterable[BadFile]) -> None:
        """Warns of files not known yet, and stops the run when there are too many (TrainingError)."""
        new = self.bad_files.add(bad)
        if not new:
            return
        if self.processes.is_main:
            for path, reason in new:
                logger.warning("cannot use %s: %s", path, reason)
            self.bad_files.write(self.run.folder / "bad_files.tsv")
        self.bad_files.check()

    def _share_bad(self) -> None:
        """Brings what the processes found since the last call into every process's ledger."""
        found = self.processes.gather(self._found_bad)
        self._found_bad = []
        self._report_bad(entry for entries in found for entry in entries)

    def save(self) -> Path | None:
        """Writes a checkpoint of this step (main process only)."""
        rng = self.processes.gather(torch.get_rng_state())
        if not self.processes.is_main:
            return None
        state = {
            "format": CHECKPOINT_FORMAT,
            "version": 1,
            "m2dx_version": m2dx.__version__,
            "step": self.step,
            "recipe": recipe_to_mapping(self.recipe),
            "statistics": vars(self.run.statistics),
            "label_names": {name: list(labels) for name, labels in self.run.clips.label_names.items()},
            "model": self.model.training_state(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "pending": self.watch.pending(),
            "rng": rng,
            "bad_files": self.bad_files.state_dict(),
        }
        train = self.recipe.train
        return self.checkpoints.save(self.step, state, keep_last=train.keep_last, keep_every=train.keep_every)

    def _resume(self) -> None:
        found = self.checkpoints.load_newest_whole()
        if found is None:
            raise CheckpointError(
                f"{self.checkpoints.path}: no checkpoint to resume from; train without --resume"
            )
        state, path = found
        try:
            self.model.load_training_state(state["model"])
            load_moments(self.optimizer, state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
            self.step = int(state["step"])
            if state["recipe"]["tasks"].keys() == self.recipe.tasks.keys():
                self.watch.restore(state["pending"], step=self.step, device=self.processes.device)
        except (RuntimeError, KeyError, ValueError) as error:
            raise CheckpointError(f"{path}: does not fit the recipe: {error}") from error
        rank = self.processes.rank
        if len(state["rng"]) == self.processes.world_size:
            torch.set_rng_state(state["rng"][rank])
        else:
            logger.warning("%d processes now, %d before: torch's own random state starts anew",
                           self.processes.world_size, len(state["rng"]))  # fmt: skip
        self.bad_files.load_state_dict(state["bad_files"])
        if self.processes.is_main:
            self.console.print(f"resuming from step {self.step} ({path})")


def _compiled_parts(masked_model: M2D | MSMMAE) -> list[nn.Module]:
    parts: list[nn.Module] = [masked_model.online.trunk, masked_model.predictor.trunk]
    return [*parts, masked_model.target] if isinstance(masked_model, M2D) else parts
