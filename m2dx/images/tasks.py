"""Labelled images that encoders are scored on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from m2dx.components import Clip, Dataset
from m2dx.errors import RecipeError
from m2dx.evaluation.features import ClipEncoder, read_ahead
from m2dx.evaluation.tasks import BadClip, EvaluationTask, partition
from m2dx.images.encoder import ImageEncoder
from m2dx.images.reading import read_image


@dataclass(frozen=True, slots=True, eq=False)
class ImageTask(EvaluationTask):
    """A labelled set of images, which have no length: `unit_seconds` is 0."""

    @classmethod
    def _usable(
        cls, clips: list[Clip], dataset: Dataset, unit_seconds: float | None
    ) -> tuple[list[Clip], list[BadClip], float]:
        def check(clip: Clip) -> Clip:
            read_image(clip.path, channels=3)
            return clip

        return *partition(clips, check), 0.0

    def batches(self, encoder: ClipEncoder, batch_size: int) -> Iterator[Tensor]:
        """Batches (B, C, H, W) of the middle of each image, uint8, in order.

        Raises RecipeError for an encoder that is not of images, ImageError where a file became unreadable.
        """
        if not isinstance(encoder, ImageEncoder):
            raise RecipeError(f"evaluation task {self.name!r}: images need an encoder of images")
        return read_ahead(self.clips, lambda clip: encoder.load(clip.path), batch_size)
