"""One fine-tuning: epochs of training, the scores of each, and how it goes on from a checkpoint."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from timm.optim.lars import Lars
from torch import Tensor, nn
from torch.nn import functional as F

from m2dx.contract.errors import CheckpointError, TrainingError
from m2dx.data.batches import epoch_order
from m2dx.encoder.checkpoint import read_checked, write_atomically
from m2dx.encoder.finetuned import FinetunedNetwork, NetworkFolder
from m2dx.evaluation.finetuning.augmentation import StepRandom
from m2dx.evaluation.finetuning.examples import Examples
from m2dx.evaluation.metrics import score_of
from m2dx.model.precision import autocast

logger = logging.getLogger(__name__)

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class TrainingSettings:
    """How the network is trained; see `Finetune`."""

    lr: float
    batch_size: int
    accumulate: int
    optimizer: OptimizerName
    weight_decay: float
    epochs: int
    warmup_epochs: int
    epoch_size: int | None
    precision: Precision


@dataclass(frozen=True, eq=False)
class RunClips:
    """The clips of one run, by row of the task."""

    train: Tensor
    weights: Tensor  # of `train`, for weighted sampling
    valid: Tensor | None  # None: the last epoch is tested
    test: Tensor
    y: Tensor  # of all clips: class numbers (n,) or multi-hot (n, C)

    @property
    def multi_label(self) -> bool:
        """Whether the targets are multi-hot."""
        return self.y.ndim == 2


@dataclass(frozen=True)
class Outcome:
    """The test of one run."""

    score: float
    epoch: int  # that was tested, from 1
    valid: float | None = None  # its score on the validation part; None: there is none
    saved: str | None = None  # folder of the network; None: it was not kept


class Run:
    """A network in training. Everything random follows from the seed, the epoch and the step."""

    def __init__(
        self,
        build: Callable[[], nn.Module],
        examples: Examples,
        clips: RunClips,
        settings: TrainingSettings,
        *,
        device: torch.device,
        seed: int,
        what: str,
    ) -> None:
        """`build` makes the network, its random weights from torch's generator; `what` names the run in the log."""
        self.examples, self.clips, self.settings = examples, clips, settings
        self.device, self.seed, self.what = device, seed, what
        with own_random(device, seed, 0):
            self.network = build().to(device)
        self.optimizer = make_optimizer(
            settings.optimizer, self.network.parameters(), weight_decay=settings.weight_decay
        )
        self.epoch = 0  # done
        self.best: tuple[float, int, dict[str, Tensor]] | None = None
        num_clips = len(clips.train)
        self.epoch_size = num_clips if settings.epoch_size is None else settings.epoch_size
        self.batch_size = min(settings.batch_size, self.epoch_size)
        self.steps_per_epoch = self.epoch_size // self.batch_size

    def finish(self, checkpoint: Path | None = None, folder: NetworkFolder | None = None) -> Outcome:
        """Trains what is left and tests; goes on from the checkpoint where there is one, and writes it each epoch.

        The network that was tested goes into `folder`; a run that ended without it is trained once more. Raises
        TrainingError for a loss that is not finite, CheckpointError for a file that cannot be read or written.
        """
        if checkpoint is not None and checkpoint.exists():
            state = _read(checkpoint)
            if "outcome" not in state:
                self.load_state(state)
                logger.info("%s goes on after epoch %d of %s", self.what, self.epoch, checkpoint)
            elif folder is None or folder.is_whole:
                return Outcome(**state["outcome"])
            else:
                logger.warning(
                    "%s has ended, but %s is not there: training once more", self.what, folder.path
                )
        while self.epoch < self.settings.epochs:
            self.train_epoch()
            if checkpoint is not None:
                write_atomically(checkpoint, self.state())
        if self.best is not None:
            self.network.load_state_dict(self.best[2])
        valid, epoch = (None, self.epoch) if self.best is None else self.best[:2]
        outcome = Outcome(self.score(self.clips.test), epoch, valid)
        if folder is not None:
            assert isinstance(self.network, FinetunedNetwork)
            folder.write(self.network, {"score": outcome.score, "epoch": epoch})
            outcome = replace(outcome, saved=str(folder.path))
        if checkpoint is not None:
            write_atomically(checkpoint, {"outcome": asdict(outcome)})
        return outcome

    def train_epoch(self) -> None:
        """Trains an epoch, and scores it on the validation part, if there is one."""
        order = epoch_order(
            len(self.clips.train),
            self.epoch_size,
            seed=self.seed,
            epoch=self.epoch,
            weights=None if self.settings.epoch_size is None else self.clips.weights,
        )
        batches = self.clips.train[order[: self.steps_per_epoch * self.batch_size]].split(self.batch_size)
        random = [StepRandom.of(self.seed, epoch=self.epoch, step=step) for step in range(len(batches))]
        total = torch.zeros((), device=self.device)
        self.network.train()
        with own_random(self.device, self.seed, 1 + self.epoch), torch.enable_grad():
            for step, (inputs, targets) in enumerate(self.examples.training(batches, random)):
                total += self._step(step, inputs, targets, random[step].patchout)
        self.epoch += 1
        loss = float(total) / self.steps_per_epoch
        if not math.isfinite(loss):
            raise TrainingError(
                f"{self.what}: the loss must be finite, but is {loss} in epoch {self.epoch}; lower `lr`"
            )
        logger.info("%s: epoch %d/%d: loss %.4f", self.what, self.epoch, self.settings.epochs, loss)
        if self.clips.valid is not None:
            score = self.score(self.clips.valid)
            logger.info("%s: epoch %d: validation score %.4f", self.what, self.epoch, score)
            if self.best is None or score > self.best[0]:
                self.best = (score, self.epoch, copy.deepcopy(self.network.state_dict()))

    def _step(self, step: int, inputs: Tensor, targets: Tensor, random: np.random.Generator) -> Tensor:
        """One optimizer step; the loss of the batch. Batch norm sees one piece of it at a time."""
        settings = self.settings
        lr = learning_rate(
            self.epoch * self.steps_per_epoch + step,
            peak=settings.lr,
            warmup_steps=settings.warmup_epochs * self.steps_per_epoch,
            total_steps=settings.epochs * self.steps_per_epoch,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        pieces = min(settings.accumulate, max(1, len(inputs) // 2))  # batch norm needs two clips
        loss = torch.zeros((), device=self.device)
        self.optimizer.zero_grad()
        for some, wanted in zip(inputs.tensor_split(pieces), targets.tensor_split(pieces), strict=True):
            with autocast(settings.precision, self.device):
                logits = self.network(some, random=random)
            share = classification_loss(logits, wanted, multi_label=self.clips.multi_label) * (
                len(some) / len(inputs)
            )
            share.backward()
            loss += share.detach()
        self.optimizer.step()
        return loss

    @torch.no_grad()
    def score(self, rows: Tensor) -> float:
        """Accuracy, or mAP, on these clips."""
        self.network.eval()
        logits = []
        batches = rows.split(max(1, self.settings.batch_size // self.settings.accumulate))
        for inputs in self.examples.plain(batches):
            with autocast(self.settings.precision, self.device):
                logits.append(self.network(inputs).float().cpu())
        return score_of(torch.cat(logits).numpy(), self.clips.y[rows])

    def state(self) -> dict[str, Any]:
        """What `load_state` needs to go on as if there had been no stop."""
        return {
            "epoch": self.epoch,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "best": self.best,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Takes over the state of the same run after an epoch."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.best = state["epoch"], state["best"]


@contextmanager
def own_random(device: torch.device, *numbers: int) -> Iterator[None]:
    """torch's generators depend on the numbers inside, and are as before afterwards."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]))
        yield


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_checked(path)
    except CheckpointError as error:
        raise CheckpointError(f"{error}; remove it to start this fine-tuning again") from error


OptimizerName = Literal["sgd", "lars", "adamw"]
MOMENTUM = 0.9
BETAS = (0.9, 0.95)
WEIGHT_DECAY: dict[OptimizerName, float] = {"sgd": 0.0, "lars": 0.0, "adamw": 1e-4}
"""The published code's."""


def make_optimizer(
    name: OptimizerName, parameters: Iterable[nn.Parameter], *, weight_decay: float
) -> torch.optim.Optimizer:
    """SGD and LARS with momentum 0.9, AdamW with betas 0.9 and 0.95 and AMSGrad, for the parameters with gradients.

    timm's LARS scales the step of a tensor (You et al., 2017) only where there is weight decay; without it, as
    published, it is SGD with momentum.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if name == "sgd":
        return torch.optim.SGD(trained, lr=0.0, momentum=MOMENTUM, weight_decay=weight_decay)
    if name == "lars":
        return Lars(trained, lr=0.0, momentum=MOMENTUM, weight_decay=weight_decay)
    return torch.optim.AdamW(trained, lr=0.0, betas=BETAS, weight_decay=weight_decay, amsgrad=True)


def learning_rate(step: int, *, peak: float, warmup_steps: int, total_steps: int) -> float:
    """Linear warm-up from 0, then half a cosine from the peak to 0; steps count from 0."""
    if step < warmup_steps:
        return peak * step / warmup_steps
    return peak * 0.5 * (1.0 + math.cos(math.pi * (step - warmup_steps) / (total_steps - warmup_steps)))


def classification_loss(logits: Tensor, targets: Tensor, *, multi_label: bool) -> Tensor:
    """Mean over clips and classes of (binary) cross entropy, from logits and soft targets (B, C).

    With one label per clip that is 1/C of the usual cross entropy, as in the published code, which the learning rates
    of SGD in table II are for.
    """
    if multi_label:
        return F.binary_cross_entropy_with_logits(logits, targets)
    return -(targets * logits.log_softmax(dim=1)).mean()
