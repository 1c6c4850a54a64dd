"""M2D-X: masked modeling and any number of offline tasks, as one weighted sum of losses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import record_function

from m2dx.contract.components import (
    Loss,
    Mask,
    MaskedModel,
    MaskedModelOutput,
    OfflineEncoder,
    OnlineMapper,
    Regulariser,
    Views,
)
from m2dx.contract.errors import RecipeError
from m2dx.model.masking import MaskDraw
from m2dx.model.views import ImageViews, ViewMaker, at_rate

if TYPE_CHECKING:
    from m2dx.data.crops import Batch


Measure = Literal["nothing", "target", "gradients"]
"""What a forward pass measures beside the losses; "gradients" includes the target, and needs what compute it kept."""

BALANCE_EVERY, NEWEST_SHARE = 5, 0.2
"""Steps between changes of weights that are auto; share of the newest gradient norms in the averages behind them."""
LEAST_WEIGHT = 1e-6  # of these weights, also before anything is measured, so that it can be


@dataclass(frozen=True)
class StepLosses:
    """The losses of one batch."""

    total: Tensor  # scalar, the weighted sum (eq. 6)
    parts: dict[str, Tensor]  # the method's name, such as "m2d", and each task's name -> scalar, unweighted
    latent: Tensor  # (B, V, D), features of the visible patches, detached; n*B with n masks per clip
    measured: dict[str, Tensor] = field(default_factory=dict)
    """Scalars that were asked for: weights that are auto, and `gradient_NAME`, the norm of each weighted part's
    gradient at `latent`."""
    target: tuple[Tensor, Tensor] | None = None
    """What `target_shares` takes, if it was asked for and the method has a target network."""


def target_shares(target: Tensor, masked: Tensor) -> dict[str, Tensor]:
    """Shares of the energy of a target (B, m, D) at the patches `masked` (B, m) of the grid, each in [0, 1].

    `target_constant`: the mean over all, which is the same whatever the sound is; `target_position`: what the mean over
    the clips of a patch adds; `target_clip`: what the mean over a clip's patches adds. The rest is of single patches.
    """
    target = target.float()
    total = target.square().mean().clamp_min(1e-12)
    constant = target.mean((0, 1))
    patches, index = masked.unique(return_inverse=True)
    flat, sums = index.flatten(), target.new_zeros(len(patches), target.shape[-1])
    sums.index_add_(0, flat, target.flatten(0, 1))
    position = (sums / flat.bincount()[:, None] - constant)[index]  # (patches, D) -> (B, m, D)
    clip = (target - constant - position).mean(1)
    energies = {"constant": constant, "position": position, "clip": clip}
    return {f"target_{name}": energy.square().mean() / total for name, energy in energies.items()}


def match_frames(target: Tensor, num_frames: int) -> Tensor:
    """The training signal at the patch grid's frames: (B, S, C) -> (B, T, C).

    Where S is a whole multiple of T but for what a receptive field costs (two frames, or one token's if that is less),
    the mean of each token's frames, after the last frame is repeated or frames at the end are left out. Otherwise means
    of what falls into each token's time, or linear interpolation where S is smaller.
    """
    frames = target.shape[1]
    ratio = max(round(frames / num_frames), 1)
    spare = frames - ratio * num_frames
    if abs(spare) <= min(ratio, 2):
        if spare < 0:
            target = torch.cat([target, target[:, -1:].expand(-1, -spare, -1)], dim=1)
        target = target[:, : ratio * num_frames].unflatten(1, (num_frames, ratio))
        return target.mean(dim=2)  # (B, T, ratio, C) -> (B, T, C)
    if frames > num_frames:
        return F.adaptive_avg_pool1d(target.mT, num_frames).mT
    return F.interpolate(target.mT, num_frames, mode="linear", align_corners=False).mT


class Task(nn.Module):
    """One term of the loss: offline encoder, online mapper, loss and weight (M2D-X, III-B).

    A regulariser needs no mapper, and perhaps no offline encoder, since it sees the method's output. With
    `gradient_ratio` the weight follows the training (`balance`), and is a buffer, so that checkpoints have it.
    """

    weight: float | Tensor
    gradient_norms: Tensor  # moving averages: of the method, of this task

    def __init__(
        self,
        offline_encoder: OfflineEncoder | None,
        online_mapper: OnlineMapper | None,
        loss: Loss | Regulariser,
        *,
        weight: float = 0.0,
        gradient_ratio: float | None = None,
        token_frames: int | None = None,
    ) -> None:
        super().__init__()
        if offline_encoder is not None:
            offline_encoder.requires_grad_(False).eval()
        self.offline_encoder, self.online_mapper, self.loss = offline_encoder, online_mapper, loss
        self.needs_tokens = getattr(loss, "needs_tokens", True)
        self.gradient_ratio, self.token_frames = gradient_ratio, token_frames
        if gradient_ratio is None:
            self.weight = weight
        else:
            self.register_buffer("weight", torch.tensor(LEAST_WEIGHT))
            self.register_buffer("gradient_norms", torch.zeros(2))

    def balance(self, method: Tensor, own: Tensor) -> None:
        """Sets the weight from the gradient norms of the method's and this task's weighted losses."""
        assert self.gradient_ratio is not None and isinstance(self.weight, Tensor)
        norms = torch.stack([method, own / self.weight])
        started = self.gradient_norms[1] > 0  # by a batch with labels
        self.gradient_norms.copy_(torch.where(started, self.gradient_norms.lerp(norms, NEWEST_SHARE), norms))
        of_method, unweighted = self.gradient_norms
        ratio = self.gradient_ratio * of_method / unweighted
        self.weight.copy_(torch.where(unweighted > 0, ratio, 0.0).clamp_min(LEAST_WEIGHT))

    def train(self, mode: bool = True) -> Task:
        super().train(mode)
        if self.offline_encoder is not None:
            self.offline_encoder.eval()
        return self

    @torch.no_grad()
    def target(self, views: Views) -> Tensor | None:
        """The training signal, (B, C) or (B, S, C), without gradient; None: there is no offline encoder."""
        if self.offline_encoder is None:
            return None
        return self.at_token_frames(self.offline_encoder(at_rate(views, self.offline_encoder.sample_rate)))

    def at_token_frames(self, signal: Tensor) -> Tensor:
        """An offline encoder's output at the patch grid's frames where the task asks for them."""
        return signal if self.token_frames is None else match_frames(signal, self.token_frames)

    def forward(self, output: MaskedModelOutput, views: Views) -> Tensor:
        """The task's loss, unweighted, from the method's output, such as h-hat (B, F*T, D), and the clean views.

        With n masks per clip the output has n*B rows, and the loss is the mean of n, each of one row per clip.
        """
        target, masks = self.target(views), len(output.latent) // len(views.clean_logmel)
        losses = []
        for rows in (rows_of_mask(output, k, masks) for k in range(masks)):
            features = rows if self.online_mapper is None else self.online_mapper(rows.tokens)
            losses.append(self.loss(features, target))
        return torch.stack(losses).mean()


def rows_of_mask(output: MaskedModelOutput, number: int, masks: int) -> MaskedModelOutput:
    """The part (B, ...) of an output (n*B, ...) that is of one of the n masks of each clip."""
    if masks == 1:
        return output
    parts = {name: getattr(output, name) for name in ("latent", "prediction", "target", "tokens")}
    return replace(output, **{name: x[number::masks] for name, x in parts.items() if x is not None})


class MultiTask(nn.Module):
    """A method with any number of tasks: from a batch of waveforms or images to the weighted sum of losses (eq. 6).

    A batch has waveforms (B, N) or images (B, C, H, W), labels (B, C) by data set, and a permutation of the patches
    (B, F*T) for each clip. `method` names the method's own loss among the parts; `num_visible` is V. `masking` has
    drawn the permutations, and is asked again where it looks.
    """

    def __init__(
        self,
        views: ViewMaker | ImageViews,
        masked_model: MaskedModel,
        tasks: Mapping[str, Task],
        *,
        method: str,
        masking: MaskDraw,
        num_visible: int,
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.views, self.masked_model = views, masked_model
        self.tasks = nn.ModuleDict(tasks)
        self.method, self.num_visible, self.weight = method, num_visible, weight
        self.needs_tokens = any(task.needs_tokens for task in tasks.values())
        self.masking = masking
        self.progress = 0.0  # share of the run's steps that are done, set before each step
        self.target_shapes: dict[str, tuple[int, ...]] = {}
        """Of each task's training signal, without the batch; found by the trial pass of `build_model`."""

    def forward(self, batch: Batch, measure: Measure = "nothing") -> StepLosses:
        """Losses of a batch; M2D sees the noisy view, offline encoders the clean one."""
        (noisy, *others), views = self.views(batch, self.masked_model.num_views)
        mask = self.mask(batch, noisy)
        more = {"others": tuple(others)} if others else {}
        output = self.masked_model(noisy, mask, with_tokens=self.needs_tokens, **more)
        parts, weighted = {self.method: output.loss}, {self.method: self.weight * output.loss}
        total = weighted[self.method]
        with record_function("m2dx::tasks"):
            for name, task in self.tasks.items():
                parts[name] = task(output, views)
                weighted[name] = task.weight * parts[name]
                total = total + weighted[name]
        measured: dict[str, Tensor] = {}
        looks = measure != "nothing" and not self.masked_model.reconstructs
        target = (output.target.detach(), mask.masked) if looks else None
        if measure == "gradients" and self.tasks:
            measured |= {f"weight_{name}": task.weight.clone() for name, task in self.balanced.items()}
            for name, part in weighted.items():
                (gradient,) = torch.autograd.grad(part, output.latent, retain_graph=True, allow_unused=True)
                if gradient is None and (name in self.balanced or (self.balanced and name == self.method)):
                    raise RecipeError(
                        f"`weight: auto` compares gradients at the encoder's output, but {name} has none there; give "
                        "weights as numbers"
                    )
                norm = total.new_zeros(()) if gradient is None else gradient.float().norm()
                measured[f"gradient_{name}"] = norm
        latent = output.latent[:, 1:].detach()
        return StepLosses(total=total, parts=parts, latent=latent, measured=measured, target=target)

    def mask(self, batch: Batch, seen: Tensor) -> Mask:
        """The masks of a batch whose method sees (B, C, M, L)."""
        ids = self.masking.look(batch.ids_shuffle, seen, progress=self.progress, seeds=batch.seeds)
        return Mask(ids, self.num_visible)

    @property
    def balanced(self) -> dict[str, Any]:
        """The tasks whose weights are auto."""
        return {name: task for name, task in self.tasks.items() if getattr(task, "gradient_ratio", None)}

    def balance(self, measured: Mapping[str, Tensor]) -> None:
        """Sets the weights that are auto from what was measured, which has to be the same in all processes."""
        for name, task in self.balanced.items():
            task.balance(measured[f"gradient_{self.method}"], measured[f"gradient_{name}"])

    @property
    def offline_encoders(self) -> list[OfflineEncoder]:
        """Those of the tasks that have one."""
        tasks = (task for task in self.tasks.values() if isinstance(task, Task))
        return [task.offline_encoder for task in tasks if task.offline_encoder is not None]

    def training_state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps: all but offline encoders and augmentations, which the recipe rebuilds."""
        return {key: value for key, value in self.state_dict().items() if not _is_rebuilt(key)}

    def load_training_state(self, state: Mapping[str, Tensor]) -> None:
        """Load what `training_state` gave; RuntimeError where names or shapes differ."""
        rebuilt = {key: value for key, value in self.state_dict().items() if _is_rebuilt(key)}
        self.load_state_dict({**rebuilt, **state})


def _is_rebuilt(key: str) -> bool:
    parts = key.split(".")
    return parts[0] == "views" or (parts[0] == "tasks" and parts[2] == "offline_encoder")
