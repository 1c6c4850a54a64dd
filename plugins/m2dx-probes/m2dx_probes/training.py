"""What the probes over tokens share: the training of a small head, stopped by the validation part.

The annotations are no texts here: the types of the options must be known in the modules of the subclasses, too.
"""

import abc
import copy
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from m2dx.contract.components import ClipEncoder, EvaluationTask, Evaluator, Fold, Score
from m2dx.contract.errors import RecipeError, TrainingError
from m2dx.encoder.images import ImageEncoder
from m2dx.evaluation.features import check_layers, device_of, targets_of
from m2dx.evaluation.metrics import losses_of, predictions_of, probabilities_of, score_of, summarise
from m2dx_probes.tokens import Layers, TokenKind, TokenStandardiser, check_size, token_maps, token_width


class Mix(nn.Module):
    """A mean of layers with learned weights, the softmax of `weight` (S,): (B, S, K, D) -> (B, K, D)."""

    def __init__(self, num_layers: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(num_layers))

    def forward(self, tokens: Tensor) -> Tensor:
        if len(self.weight) == 1:
            return tokens[:, 0]
        return torch.einsum("s,bskd->bkd", self.weight.softmax(0), tokens)


@dataclass(frozen=True, eq=False)
class Run:
    """A head in training for one fold and seed."""

    maps: Tensor  # (n, S, K, D), float16
    y: Tensor  # (n,) or (n, C)
    standardise: TokenStandardiser
    train: Tensor  # rows
    generator: torch.Generator
    num_classes: int

    def tokens(self, rows: Tensor) -> Tensor:
        """Standardised tokens (b, S, K, D) of clips."""
        return self.standardise(self.maps[rows])


@dataclass(frozen=True, kw_only=True)
class TokenProbe(Evaluator, abc.ABC):
    """A head over all tokens, trained by AdamW and stopped by the validation loss.

    Options:
        tokens: time frames, the patches of a moment side by side (M2D-X, eq. 4), or single patches.
        layers: last, mix (a learned softmax mix of the outputs of all blocks), or a list of blocks, from 1, to mix.
        lr: learning rate of AdamW.
        weight_decay: of AdamW.
        epochs: passes over the training part, at most.
        patience: epochs without a lower validation loss after which a run stops; the best epoch is tested.
        batch_size: clips per step.
        max_gb: memory for the tokens of all clips in float16, at most, GB.
    """

    needs_wav = False

    tokens: TokenKind = "frames"
    layers: Layers = "last"
    lr: PositiveFloat = 1e-3
    weight_decay: NonNegativeFloat = 1e-2
    epochs: PositiveInt = 100
    patience: PositiveInt = 10
    batch_size: PositiveInt = 32
    max_gb: PositiveFloat = 4.0

    @abc.abstractmethod
    def head(self, run: Run) -> nn.Module:
        """A head (B, S, K, D) -> (B, C) as it starts; all that is random comes from the run's generator."""

    def check_encoder(self, encoder: ClipEncoder, task: EvaluationTask) -> None:
        """RecipeError where it gives no tokens, not those of the layers, or more than `max_gb`."""
        token_width(encoder, self.tokens)
        if self.layers == "mix" and isinstance(encoder, ImageEncoder):
            raise RecipeError("`layers` must be last where the input is images, but is mix")
        check_layers(encoder, () if isinstance(self.layers, str) else self.layers, first=1)
        check_size(encoder, task, tokens=self.tokens, layers=self.layers, max_gb=self.max_gb)

    def evaluate(self, encoder: ClipEncoder, task: EvaluationTask, *, seeds: tuple[int, ...]) -> list[Score]:
        """Scores over folds and seeds.

        Raises what `token_maps` raises, and TrainingError for a loss that is not finite.
        """
        self.check_encoder(encoder, task)
        maps = token_maps(encoder, task, tokens=self.tokens, layers=self.layers)
        y = targets_of(task)
        device = device_of(encoder)
        by_run, epochs, mixes, predictions = [], [], [], []
        for fold in task.folds:
            outcomes = [self._fit(maps, y, task, fold, seed, device) for seed in seeds]
            logits = [outcome[0] for outcome in outcomes]
            by_run.append([score_of(of_run, y[fold.test]) for of_run in logits])
            epochs.append([outcome[1] for outcome in outcomes])
            mixes.append([outcome[2] for outcome in outcomes])
            probabilities = probabilities_of(logits[0], multi_label=task.multi_label)
            predictions += predictions_of(task, fold, probabilities)
        details = {**asdict(self), "best_epochs": epochs, **({"mix": mixes} if maps.shape[1] > 1 else {})}
        return [summarise(task, by_run, protocol=self.name, details=details, predictions=predictions)]

    def _fit(
        self, maps: Tensor, y: Tensor, task: EvaluationTask, fold: Fold, seed: int, device: torch.device
    ) -> tuple[Tensor, int, list[float]]:
        """Test logits (m, C), the epoch that they are of, and the weights of the layers."""
        train, valid, test = (torch.from_numpy(rows) for rows in (fold.train, fold.valid, fold.test))
        run = Run(
            maps,
            y,
            TokenStandardiser(maps, train),
            train,
            torch.Generator().manual_seed(seed),
            len(task.label_names),
        )
        head = self.head(run).to(device)
        optimizer = torch.optim.AdamW(head.parameters(), lr=self.lr, weight_decay=self.weight_decay)
        best, best_epoch, lowest = copy.deepcopy(head.state_dict()), 0, math.inf
        for epoch in range(1, self.epochs + 1):
            for batch in train[torch.randperm(len(train), generator=run.generator)].split(self.batch_size):
                optimizer.zero_grad()
                loss = losses_of(head(run.tokens(batch).to(device))[None], y[batch][None].to(device)).mean()
                loss.backward()
                optimizer.step()
            logits = self._logits(head, run, valid, device)
            loss = losses_of(logits[None], y[valid][None]).mean()
            if not loss.isfinite():
                raise TrainingError(
                    f"{self.name}: the loss must be finite, but is {float(loss)} (epoch {epoch}); lower `lr`"
                )
            if float(loss) < lowest:
                best, best_epoch, lowest = copy.deepcopy(head.state_dict()), epoch, float(loss)
            elif epoch - best_epoch >= self.patience:
                break
        head.load_state_dict(best)
        mix: Callable[[], Tensor] = head.mix.weight.detach().softmax(0).cpu  # type: ignore[union-attr, operator]
        return self._logits(head, run, test, device), best_epoch, [round(w, 4) for w in mix().tolist()]

    @torch.no_grad()
    def _logits(self, head: nn.Module, run: Run, rows: Tensor, device: torch.device) -> Tensor:
        return torch.cat([head(run.tokens(part).to(device)).cpu() for part in rows.split(self.batch_size)])
