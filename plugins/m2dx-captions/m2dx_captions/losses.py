"""Losses between what a mapper gives for clips and the vectors of their captions; NaN rows have no caption."""

from __future__ import annotations

import math
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

import m2dx
from m2dx_captions.sentences import SAME

LARGEST_SCALE = 100.0
"""Of the similarities: the least temperature that is learned is 0.01."""


def _unit(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(n, C) each, of norm 1, and whether a row has a caption (n,); frames count as clips."""
    target = target.float().flatten(0, -2)
    known = target.isfinite().all(dim=-1)
    return (
        F.normalize(prediction.float().flatten(0, -2), dim=-1),
        F.normalize(target.nan_to_num(0.0), dim=-1),
        known,
    )


class Contrastive(m2dx.Loss):
    """Symmetric InfoNCE: each clip finds its caption among those of the micro-batch, and each caption its clip.

    The negatives are those of one micro-batch of one process, `train.batch_size` by `accumulate` and processes. Clips
    whose captions have equal vectors are no negatives of each other: they share the target. A clip without a caption is
    no negative, and adds zero; the sum is divided by all clips.

    Options:
        temperature: that divides the cosines; where it is learned, the first one
        learned: whether the training changes the temperature, down to 0.01
    """

    name = "contrastive"
    log_scale: Tensor

    def __init__(
        self, *, temperature: Annotated[float, Field(ge=0.01, le=10)] = 0.07, learned: bool = True
    ) -> None:
        super().__init__()
        log_scale = torch.tensor([-math.log(temperature)])  # of one dimension, as biases, which do not decay
        if learned:
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("log_scale", log_scale)

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        with torch.autocast(prediction.device.type, enabled=False):
            sounds, texts, known = _unit(prediction, target)
            pairs = known[:, None] & known  # (n, n)
            logits = sounds @ texts.mT * self.log_scale.exp().clamp(max=LARGEST_SCALE)
            logits = logits.masked_fill(~pairs, -1e4)  # finite, so that rows without a caption have no NaN
            same = ((texts @ texts.mT > SAME) & pairs).float()
            shares = same / same.sum(1, keepdim=True).clamp_min(1.0)
            of_sounds = -(shares * logits.log_softmax(1)).sum(1)
            of_texts = -(shares * logits.mT.log_softmax(1)).sum(1)
            return ((of_sounds + of_texts) / 2 * known).mean()


class Cosine(m2dx.Loss):
    """1 - cos of prediction and caption; a clip without a caption adds zero, and the sum is divided by all clips."""

    name = "cosine"

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        sounds, texts, known = _unit(prediction, target)
        return ((1 - (sounds * texts).sum(-1)) * known).mean()
