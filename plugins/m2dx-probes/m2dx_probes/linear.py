"""Linear evaluation: one linear layer on frozen features, all folds and seeds trained as one batch."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from itertools import groupby
from typing import Literal

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from m2dx.contract.components import ClipEncoder, EvaluationTask, Evaluator, Fold, Score
from m2dx.contract.errors import TrainingError
from m2dx.evaluation.features import Standardiser, device_of
from m2dx.evaluation.metrics import losses_of, predictions_of, probabilities_of, score_of, summarise

EarlyStopping = Literal["score", "loss"]


@dataclass(frozen=True, kw_only=True)
class Linear(Evaluator):
    """Linear evaluation (M2D-X, IV-B): standardised frozen features, a linear layer, early stopping; accuracy or mAP.

    Adam; after each epoch the layer is scored on the validation part, and the weights of the best epoch are tested.
    The paper runs a learning rate of 3e-5 on sets of 400 to 290,000 clips; on hundreds of clips that ends before it
    converges, so the default here is larger. Seeds set the initial weights and the order of the clips; the paper
    reports the mean over six. Raises TrainingError where a validation loss is not finite.

    Options:
        lr: learning rate of Adam; 3e-5 in the paper.
        epochs: passes over the training part, at most.
        patience: epochs without improvement after which a run stops.
        batch_size: clips per step.
        weight_decay: L2 penalty.
        early_stopping: what counts as better on the validation part: a higher score (accuracy or mAP), as published, or
            a lower loss, which is less noisy if that part has few clips; of equal epochs, the last counts.
        precision: arithmetic of the products in training; sums, weights and the test are fp32. bf16 (on GPUs TF32)
            takes effect where the processor has it and the products are large.
        class_weights: balanced gives each class the same weight in the loss; default each clip.
    """

    name = "linear"
    needs_wav = False

    lr: PositiveFloat = 1e-3
    epochs: PositiveInt = 200
    patience: PositiveInt = 20
    batch_size: PositiveInt = 64
    weight_decay: NonNegativeFloat = 0.0
    early_stopping: EarlyStopping = "score"
    precision: Literal["fp32", "bf16"] = "bf16"
    class_weights: Literal["balanced"] | None = None

    def evaluate(self, encoder: ClipEncoder, task: EvaluationTask, *, seeds: tuple[int, ...]) -> list[Score]:
        """One score, over folds and seeds."""
        found, device = task.features(encoder), device_of(encoder)
        x, y = found.x.to(device), found.y.to(device)
        runs = fit(x, y, task.folds, seeds, num_classes=len(task.label_names), options=self)
        by_run, predictions = [], []
        for fold, row in zip(task.folds, runs, strict=True):
            logits = [run.test_logits.cpu() for run in row]
            by_run.append([score_of(of_run, found.y[fold.test]) for of_run in logits])
            probabilities = probabilities_of(logits[0], multi_label=task.multi_label)
            predictions += predictions_of(task, fold, probabilities)
        details = {**asdict(self), "best_epochs": [[run.epoch for run in row] for row in runs]}
        return [summarise(task, by_run, protocol=self.name, details=details, predictions=predictions)]


def fit(
    x: Tensor,
    y: Tensor,
    folds: tuple[Fold, ...],
    seeds: tuple[int, ...],
    *,
    num_classes: int,
    options: Linear,
) -> list[list[LinearRun]]:
    """Linear layers by fold and seed, each as if trained alone, from features (n, D) and targets (n,) or (n, C)."""
    parts = [_Part.of(x, y, fold, balanced=options.class_weights == "balanced") for fold in folds]
    runs = [LinearRun.start(part, seed, num_classes) for part in parts for seed in seeds]
    optimizer = torch.optim.Adam(
        [parameter for run in runs for parameter in run.layer],
        lr=options.lr,
        weight_decay=options.weight_decay,
        fused=True,
    )
    stack = _Stack(runs, options.batch_size)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium" if options.precision == "bf16" else "highest")
    try:
        for epoch in range(1, options.epochs + 1):
            stack.train_epoch(optimizer)
            stack.validate(epoch, options.early_stopping)
            active = [run for run in stack.runs if epoch - run.epoch < options.patience]
            if not active:
                break
            if len(active) < len(stack.runs):
                stack = _Stack(active, options.batch_size)
    finally:
        torch.set_float32_matmul_precision(before)
    return [runs[first : first + len(seeds)] for first in range(0, len(runs), len(seeds))]


@dataclass(frozen=True, eq=False)
class _Part:
    """The data of one fold."""

    x: Tensor  # (n, D), all clips, standardised by the training ones
    y: Tensor  # (n,) or (n, C)
    train: Tensor  # rows
    valid_x: Tensor
    valid_y: Tensor
    test: Tensor  # rows
    importance: Tensor | None  # of each clip (n,), or of its classes (n, C), in the loss; None: all are equal
    valid_importance: Tensor | None

    @classmethod
    def of(cls, x: Tensor, y: Tensor, fold: Fold, *, balanced: bool) -> _Part:
        train, valid, test = (
            torch.from_numpy(rows).to(x.device) for rows in (fold.train, fold.valid, fold.test)
        )
        standard = Standardiser.fit(x[train])(x)
        importance = balance(y, train) if balanced else None
        of_valid = None if importance is None else importance[valid]
        return cls(standard, y, train, standard[valid], y[valid], test, importance, of_valid)


def balance(y: Tensor, train: Tensor) -> Tensor:
    """Weights that give each class the same in the loss of the training rows, as scikit-learn's; their mean is 1 there.

    Of clips (n,) by class number; of clips' classes (n, C) by multi-hot targets, where each class and its absence weigh
    the same.
    """
    if y.ndim == 1:
        counts = torch.bincount(y[train], minlength=int(y.max()) + 1)
        return (len(train) / ((counts > 0).sum() * counts.clamp_min(1)))[y]
    share = y[train].mean(0).clamp(0.5 / len(train), 1 - 0.5 / len(train))
    return torch.where(y > 0, 0.5 / share, 0.5 / (1 - share))


def _weighted(logits: Tensor, y: Tensor, importance: Tensor | None) -> Tensor:
    """`losses_of`, (R, B), with weights of clips (R, B), or of classes (R, B, C)."""
    if importance is None:
        return losses_of(logits, y)
    if y.ndim == logits.ndim:
        losses = F.binary_cross_entropy_with_logits(logits, y, importance, reduction="none")
        return losses.mean(-1)
    return losses_of(logits, y) * importance


@dataclass(eq=False)
class LinearRun:
    """One linear layer in training; its own generator makes it independent of the others in the stack."""

    part: _Part
    generator: torch.Generator
    layer: tuple[nn.Parameter, nn.Parameter]  # weight (C, D) and bias (C,), in training
    weight: Tensor = field(default=torch.empty(0))  # (D, C), on standardised features, of the best epoch
    bias: Tensor = field(default=torch.empty(0))  # (C,)
    epoch: int = 0  # the best one, from 1
    merit: float = float("-inf")

    @classmethod
    def start(cls, part: _Part, seed: int, num_classes: int) -> LinearRun:
        generator = torch.Generator().manual_seed(seed)
        width = part.x.shape[1]
        bound = width**-0.5  # as nn.Linear
        drawn = (torch.rand(width + 1, num_classes, generator=generator) * 2 - 1) * bound
        drawn = drawn.to(part.x.device)
        return cls(part, generator, (nn.Parameter(drawn[:-1].mT.clone()), nn.Parameter(drawn[-1].clone())))

    @property
    def test_logits(self) -> Tensor:
        """(n, C), of the test clips."""
        return self.part.x[self.part.test] @ self.weight + self.bias

    def order(self) -> Tensor:
        """Training rows in a new random order."""
        shuffled = torch.randperm(len(self.part.train), generator=self.generator)
        return self.part.train[shuffled.to(self.part.train.device)]

    def observe(self, epoch: int, merit: float) -> None:
        """Keeps the weights of an epoch that is as good as the best before, or better (the published rule)."""
        if merit >= self.merit:
            self.merit, self.epoch = merit, epoch
            weight, bias = (parameter.detach().clone() for parameter in self.layer)
            self.weight, self.bias = weight.mT, bias


class _Stack:
    """The runs still in training, their weights in one tensor, so that a step is two batched products.

    The products write into buffers that are made once: a step of a task's size moves more memory than it computes.
    """

    def __init__(self, runs: list[LinearRun], batch_size: int) -> None:
        self.runs, self.batch_size = runs, batch_size
        self.weight = torch.stack([run.layer[0].detach() for run in runs])  # (R, C, D)
        self.bias = torch.stack([run.layer[1].detach() for run in runs])  # (R, C)
        self.weight_grad, self.bias_grad = torch.empty_like(self.weight), torch.empty_like(self.bias)
        self.inputs = self.weight.new_empty(len(runs), batch_size, self.weight.shape[2])  # (R, B, D)
        for run, weight, bias in zip(runs, self.weight, self.bias, strict=True):
            run.layer[0].data, run.layer[1].data = weight, bias  # the optimizer's are slices of the stack

    def train_epoch(self, optimizer: torch.optim.Optimizer) -> None:
        """One pass of each run over its training clips, in its own order."""
        orders = [run.order() for run in self.runs]
        for first in range(0, max(map(len, orders)), self.batch_size):
            self._step([order[first : first + self.batch_size] for order in orders], optimizer)

    def _step(self, batches: list[Tensor], optimizer: torch.optim.Optimizer) -> None:
        """One step on the rows of each run's batch; a run without rows has ended its epoch and is left as it is."""
        rows = pad_sequence(batches, batch_first=True)  # (R, b), b at most B
        inputs = self.inputs[:, : rows.shape[1]]
        for run, row, out in zip(self.runs, rows, inputs, strict=True):
            torch.index_select(run.part.x, 0, row, out=out)
        counted = pad_sequence(
            [self.bias.new_full((len(batch),), 1 / max(len(batch), 1)) for batch in batches], batch_first=True
        )
        logits = torch.baddbmm(self.bias[..., None], self.weight, inputs.mT).requires_grad_()  # (R, C, b)
        parts = [run.part.importance for run in self.runs]
        importance = [of[row] for of, row in zip(parts, rows, strict=True) if of is not None]
        weights = torch.stack(importance) if importance else None
        (_weighted(logits.mT, self.runs[0].part.y[rows], weights) * counted).sum().backward()
        assert logits.grad is not None
        torch.bmm(logits.grad, inputs, out=self.weight_grad)
        torch.sum(logits.grad, dim=2, out=self.bias_grad)
        for number, (run, batch) in enumerate(zip(self.runs, batches, strict=True)):
            for parameter, gradient in zip(run.layer, (self.weight_grad, self.bias_grad), strict=True):
                parameter.grad = gradient[number] if len(batch) else None
        optimizer.step()

    @torch.no_grad()
    def validate(self, epoch: int, early_stopping: EarlyStopping) -> None:
        """Scores each run on its validation part, and lets it keep its weights where that is its best epoch."""
        first = 0
        for part, members in groupby(self.runs, key=lambda run: run.part):
            runs = list(members)
            chosen = slice(first, first + len(runs))
            first += len(runs)
            logits = part.valid_x @ self.weight[chosen].flatten(0, 1).mT  # (v, R * C)
            logits = logits.unflatten(1, (len(runs), -1)).transpose(0, 1) + self.bias[chosen, None]
            losses = _weighted(
                logits, part.valid_y.expand(len(runs), *part.valid_y.shape), part.valid_importance
            ).mean(1)
            for run, score, loss in zip(
                runs, batched_score(logits, part.valid_y).tolist(), losses.tolist(), strict=True
            ):
                if not math.isfinite(loss):
                    raise TrainingError(
                        f"linear: the loss must be finite, but is {loss} (epoch {epoch}); lower `lr`"
                    )
                run.observe(epoch, score if early_stopping == "score" else -loss)


def batched_score(logits: Tensor, y: Tensor) -> Tensor:
    """`score_of` for several classifiers at once, (R, n, C) -> (R,), without leaving the device.

    Tied logits are ranked one after the other in mAP, where `score_of` treats them as one threshold.
    """
    if y.ndim == 1:
        return (logits.argmax(-1) == y).float().mean(-1)
    present = y.sum(0) > 0
    order = logits[..., present].argsort(1, descending=True)  # (R, n, C)
    hits = y[:, present].expand(len(logits), -1, -1).gather(1, order)
    ranks = torch.arange(1, len(y) + 1, device=y.device)[:, None]
    precision = hits.cumsum(1) / ranks
    return ((precision * hits).sum(1) / hits.sum(1)).mean(-1)
