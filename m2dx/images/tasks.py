"""Labelled images that encoders are scored on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from m2dx.components import Clip, Dataset
from m2dx.errors import RecipeError, TrainingError
from m2dx.evaluation.features import READING_THREADS, ClipEncoder, Features, targets_of
from m2dx.evaluation.tasks import BadClip, EvaluationTask, partition
from m2dx.images.encoder import ImageEncoder
from m2dx.images.reading import read_image


@dataclass(frozen=True, slots=True, eq=False)
class ImageTask(EvaluationTask):
    """A labelled set of images, which have no length: `unit_seconds` is 0. Features are kept in this process only."""

    @classmethod
    def _usable(
        cls, clips: list[Clip], dataset: Dataset, unit_seconds: float | None
    ) -> tuple[list[Clip], list[BadClip], float]:
        def check(clip: Clip) -> Clip:
            read_image(clip.path, channels=3)
            return clip

        return *partition(clips, check), 0.0

    def features(self, encoder: ClipEncoder, *, batch_size: int = 32) -> Features:
        """Frozen features of the middle of each image; computed once per encoder, whose weights must not change.

        Raises RecipeError for an encoder that is not of images, TrainingError where features are not finite.
        """
        found = self._features.get(encoder)
        if found is None:
            if not isinstance(encoder, ImageEncoder):
                raise RecipeError(f"evaluation task {self.name!r}: images need an encoder of images")
            found = self._features[encoder] = self._extract(encoder, batch_size)
        return found

    def _extract(self, encoder: ImageEncoder, batch_size: int) -> Features:
        device = next(encoder.parameters()).device
        with torch.inference_mode():
            rows = [
                encoder.clip(images.to(device)).float().cpu() for images in self._batches(encoder, batch_size)
            ]
        x = torch.cat(rows).clone()  # (n, D); the clone leaves inference mode, so that autograd may use it
        if not x.isfinite().all():
            raise TrainingError(f"features of evaluation task {self.name!r} must be finite, but some are not")
        return Features(x, targets_of(self))

    def _batches(self, encoder: ImageEncoder, batch_size: int) -> Iterator[Tensor]:
        """Batches (B, C, H, W) in order; the next one is read while the caller works on the last."""
        with ThreadPoolExecutor(READING_THREADS) as pool:

            def start(clips: Sequence[Clip]) -> list[Future[Tensor]]:
                return [pool.submit(encoder.load, clip.path) for clip in clips]

            following = start(self.clips[:batch_size])
            for first in range(0, len(self.clips), batch_size):
                current, following = following, start(self.clips[first + batch_size : first + 2 * batch_size])
                yield torch.stack([future.result() for future in current])
