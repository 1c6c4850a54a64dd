"""What a run tells while it trains: metrics, RankMe, and alarms."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from m2dx.contract.atomic import replace_text
from m2dx.contract.errors import TrainingError
from m2dx.model.multitask import StepLosses, target_shares
from m2dx.recipe.schema import TrainSection
from m2dx.training.distributed import Processes

logger = logging.getLogger(__name__)

RANKME_ROWS = 2048
TARGET_VALUES = 2**25  # of the target, at most, that shares of its energy are measured on
LEAST_RANKME = 3.0
"""Below this effective rank the features are taken to have collapsed to (almost) one direction."""
MOST_CONSTANT = 0.8
"""Above this share of a vector that is the same for all patches and clips, a target is taken to have collapsed."""
CONSTANT_ADVICE = "Try model.ema_decay closer to the length of the run, or fewer epochs"


def rankme(features: Tensor) -> float:
    """Effective rank of features (n, D): exp of the entropy of the normalised singular values.

    Garrido et al., "RankMe: Assessing the downstream performance of pretrained self-supervised representations by
    their rank", ICML 2023, eq. 1-2. At most 2048 evenly spaced rows are taken.
    """
    values = torch.linalg.svdvals(spaced_rows(features, RANKME_ROWS).float())
    shares = values / values.sum().clamp_min(1e-7) + 1e-7
    return float(torch.exp(-(shares * shares.log()).sum()))


def spaced_rows(features: Tensor, most: int) -> Tensor:
    """At most `most` evenly spaced rows of features (n, D); at least one."""
    return features[:: max(-(-len(features) // max(most, 1)), 1)]


@dataclass(frozen=True)
class StepRecord:
    """What one optimizer step gave; tensors stay on the device until they are read."""

    step: int  # counted from 1: steps done
    losses: dict[str, Tensor]  # "loss", "loss_m2d", ...
    grad_norm: Tensor
    clip_ids: tuple[Tensor, ...]  # of each accumulation step
    stop_vote: Tensor  # the share of processes that a signal had asked to stop

    def values(self) -> Tensor:
        """The losses and the gradient norm, float32."""
        return torch.stack([value.float() for value in (*self.losses.values(), self.grad_norm)])


@dataclass(frozen=True)
class Measured:
    """What is looked at of some steps, of all processes."""

    features: Tensor  # (n, D), of visible patches
    scalars: dict[str, Tensor]  # of `StepLosses.measured`, and `target_shares`


class Look:
    """Looks at a step whose batch is in several passes, of each process, as if it were one."""

    def __init__(self, accumulate: int, processes: Processes) -> None:
        self._processes, self._accumulate = processes, accumulate
        self._passes = accumulate * processes.world_size  # of all processes
        self._means: dict[str, Tensor] = {}  # of the scalars; of the squares of norms
        self._rows: list[Tensor] = []
        self._targets: list[tuple[Tensor, Tensor]] = []

    def add(self, losses: StepLosses, *, rows: bool) -> None:
        """A pass; `rows`: its features and target, too, in part."""
        for name, value in losses.measured.items():
            value = value.square() if _is_norm(name) else value
            sums = self._means.get(name, torch.zeros_like(value))
            self._means[name] = sums + value / self._accumulate
        if rows:
            features = losses.latent.flatten(0, 1)  # (B, V, D) -> (B*V, D)
            self._rows.append(spaced_rows(features, RANKME_ROWS // self._passes))
        if rows and losses.target is not None:
            target, masked = losses.target
            most = TARGET_VALUES // (self._passes * target[0].numel())
            self._targets.append((spaced_rows(target, most), spaced_rows(masked, most)))

    def scalars(self) -> dict[str, Tensor]:
        """Of `StepLosses.measured`, the same in all processes; norms are those of the whole batch's gradient."""
        if not self._means:
            return {}
        shared = self._processes.mean(torch.stack(list(self._means.values())))
        return {
            name: (value / self._passes).sqrt() if _is_norm(name) else value
            for name, value in zip(self._means, shared.unbind(), strict=True)
        }

    def measured(self, scalars: dict[str, Tensor]) -> Measured:
        """With the shares of the target's energy."""
        shares: dict[str, Tensor] = {}
        if self._targets:
            parts = (torch.cat(of) for of in zip(*self._targets, strict=True))
            target, masked = map(self._processes.concat, parts)
            shares = target_shares(target, masked)
        return Measured(self._processes.concat(torch.cat(self._rows)), {**shares, **scalars})


def _is_norm(name: str) -> bool:
    return name.startswith("gradient_")


@dataclass(frozen=True, kw_only=True)
class TrainingSummary:
    """What a run did, from its first step on, also before it was resumed."""

    steps: int
    total_steps: int
    seconds: float  # in the loop
    clips: int  # trained on
    bad_files: int
    collapse_warnings: int
    last_metrics: Mapping[str, float]  # empty but in the main process
    failed_callbacks: int = 0  # calls of callbacks that have failed
    stopped_by: str | None  # the signal that ended it before the last step


class MetricsWriter:
    """metrics.jsonl and TensorBoard of a run; on resume, lines after the step of the checkpoint are dropped."""

    def __init__(self, folder: Path, start_step: int) -> None:
        path = folder / "metrics.jsonl"
        self.last: dict[str, float] = {}  # the newest value of each metric
        kept = []
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []:
            # Not a line that a crash has cut off, or something else.
            with contextlib.suppress(ValueError, LookupError, TypeError):
                values = json.loads(line)
                if values["step"] <= start_step:
                    kept.append(f"{line}\n")
                    self.last |= values
        if path.exists():
            replace_text(path, "".join(kept))
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115  closed with the run
        self._tensorboard = SummaryWriter(str(folder / "tensorboard"), purge_step=start_step + 1)

    def write(self, values: dict[str, float]) -> None:
        """One line of metrics; `values` holds `step`."""
        self._file.write(json.dumps(values) + "\n")
        self._file.flush()
        self.last |= values
        for name, value in values.items():
            if name not in ("step", "time"):
                self._tensorboard.add_scalar(name, value, int(values["step"]))

    def close(self) -> None:
        """Closes the files."""
        self._file.close()
        self._tensorboard.close()


class LossWatch:
    """Keeps the losses of the steps since the last line of metrics, on the device until they are read."""

    def __init__(self, *, check_grad_norm: bool) -> None:
        self.measured: dict[str, float] = {}  # RankMe and others, if they were since the last line of metrics
        self._records: list[StepRecord] = []
        self._checked = 0
        self._check_grad_norm = check_grad_norm  # not with a loss scaler, which skips such steps by itself

    def push(self, record: StepRecord) -> None:
        """Takes note of a step without waiting for the device."""
        self._records.append(record)

    def pending(self) -> list[dict[str, Tensor]]:
        """Losses and gradient norm of each step since the last line of metrics, for a checkpoint."""
        return [{**record.losses, "grad_norm": record.grad_norm} for record in self._records]

    def restore(self, pending: list[dict[str, Tensor]], *, step: int, device: torch.device) -> None:
        """Goes on from what `pending` gave after `step`, so that the next line of metrics misses none."""
        for number, values in enumerate(pending, start=step - len(pending) + 1):
            losses = {name: value.to(device) for name, value in values.items()}
            grad_norm = losses.pop("grad_norm")
            self._records.append(StepRecord(number, losses, grad_norm, (), torch.zeros_like(grad_norm)))
        self._checked = len(self._records)

    def first_not_finite(self) -> StepRecord | None:
        """The first step since the last call whose loss or gradient norm is not finite."""
        records = self._records[self._checked :]
        self._checked = len(self._records)
        if not records:
            return None
        values = torch.stack([record.values() for record in records])  # (steps, losses and norm)
        if not self._check_grad_norm:
            values = values[:, :-1]
        finite = values.isfinite().all(dim=1).tolist()
        return None if all(finite) else records[finite.index(False)]

    def drain_means(self) -> dict[str, float]:
        """Mean losses and gradient norm over the steps since the last call, and what was measured beside them."""
        means = torch.stack([record.values() for record in self._records]).mean(dim=0).tolist()
        values = dict(zip([*self._records[0].losses, "grad_norm"], means, strict=True)) | self.measured
        self._records, self._checked, self.measured = [], 0, {}
        return values


def not_finite(record: StepRecord, clip_paths: list[str], train: TrainSection) -> TrainingError:
    """The error for a step whose loss or gradient is not finite: where, what, and what to try."""
    values = {**{n: float(v) for n, v in record.losses.items()}, "grad_norm": float(record.grad_norm)}
    listing = "\n".join(f"  {path}" for path in clip_paths)
    clip = "a train.clip_norm" if train.clip_norm is None else f"a train.clip_norm below {train.clip_norm:g}"
    precision = {"fp16": "train.precision bf16 or fp32", "bf16": "train.precision fp32"}.get(train.precision)
    ideas = ["a lower train.base_lr", "longer train.warmup_epochs", clip, precision]
    return TrainingError(
        f"the loss or its gradient must be finite, but at step {record.step} they are "
        f"{', '.join(f'{name} {value:.4g}' for name, value in values.items())}.\n"
        f"Clips of that step:\n{listing}\n"
        f"What to try: {', '.join(filter(None, ideas))}; look at those clips and at the tasks' losses. "
        "The last checkpoint, if there is one, is from before this step."
    )


def describe(metrics: dict[str, float], *, batch_size: int) -> str:
    """Losses, learning rate, speed (in s/step below a clip/s) and what was measured, in one line."""
    losses = {name.removeprefix("loss_"): value for name, value in metrics.items() if name.startswith("loss")}
    speed = metrics["clips_per_second"]
    digits = 0 if speed >= 10 else 1
    pace = f"{speed:.{digits}f} clips/s" if speed >= 1 else f"{batch_size / speed:.1f} s/step"
    parts = [*(f"{name} {value:.4f}" for name, value in losses.items()), f"lr {metrics['lr']:.2e}", pace]
    if "rankme" in metrics:
        parts.append(f"rankme {metrics['rankme']:.1f}")
    if "target_constant" in metrics:
        parts.append(f"target {metrics['target_constant']:.0%} constant")
    start = "gradient_"
    if named := [f"{k.removeprefix(start)} {v:.2g}" for k, v in metrics.items() if k.startswith(start)]:
        parts.append(f"gradients {', '.join(named)}")
    return "  ".join(parts)


@dataclass
class CollapseAlarm:
    """Warns where the features, or what they are to predict, become almost one direction; counts from `count` on."""

    count: int = 0

    def check(self, step: int, measured: Mapping[str, float]) -> None:
        """Takes what was measured after a step: `rankme` and, of methods with a target network, `target_constant`."""
        rank, constant = measured["rankme"], measured.get("target_constant", 0.0)
        if rank < LEAST_RANKME:
            self._warn(
                f"the features are collapsing: RankMe is {rank:.2f} at step {step} (alarm below {LEAST_RANKME:g}). "
                "Try another train.base_lr, a higher model.ema_decay.start, or a larger train.batch_size"
            )
        if constant > MOST_CONSTANT:
            self._warn(
                f"the target is nearly the same for all sounds, so a low loss says little: {constant:.0%} of its "
                f"energy is constant at step {step} (alarm above {MOST_CONSTANT:.0%}). {CONSTANT_ADVICE}"
            )

    def _warn(self, text: str) -> None:
        self.count += 1
        logger.warning("%s", text)


def mean_losses(
    losses: dict[str, Tensor], processes: Processes, *, stop: bool
) -> tuple[dict[str, Tensor], Tensor]:
    """The losses averaged over the processes, and the share of them that ask to stop, in one transfer."""
    values = [loss.detach().float() for loss in losses.values()]
    *means, vote = processes.mean(torch.stack([*values, torch.full_like(values[0], float(stop))])).unbind()
    return dict(zip(losses, means, strict=True)), vote
