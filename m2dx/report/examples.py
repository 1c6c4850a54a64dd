"""One clip as the model sees it in training: clean, with noise, and what masking leaves of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from m2dx.report.style import cover_patches, draw_logmel, label_axes, limits_of

View = Literal["clean", "noisy", "visible"]


@dataclass(frozen=True)
class MaskedExample:
    """One clip as the model sees it. Raises ValueError where the shapes do not fit each other."""

    name: str
    clean: NDArray[np.floating]  # (M, L) log-mel
    noisy: NDArray[np.floating]  # (M, L) log-mel; the clean one where the recipe has no noise
    is_masked: NDArray[np.bool_]  # (F, T), true where masked
    seconds: float  # length of the clip

    def __post_init__(self) -> None:
        shape, grid = self.clean.shape, self.is_masked.shape
        if len(shape) != 2 or self.noisy.shape != shape:
            raise ValueError(f"clean and noisy must both be (M, L), but are {shape} and {self.noisy.shape}")
        if len(grid) != 2 or 0 in grid or shape[0] % grid[0] or shape[1] % grid[1]:
            raise ValueError(f"is_masked must be a patch grid (F, T) that divides {shape}, but is {grid}")
        if not self.seconds > 0:
            raise ValueError(f"seconds must be positive, but is {self.seconds}")

    @property
    def has_noise(self) -> bool:
        """Whether the noisy view differs from the clean one."""
        return not np.array_equal(self.clean, self.noisy)

    @property
    def views(self) -> tuple[View, ...]:
        """The views that differ."""
        return ("clean", "noisy", "visible") if self.has_noise else ("clean", "visible")

    def title(self, view: View) -> str:
        """What a picture of a view shows."""
        if view == "clean":
            return "Clean"
        if view == "noisy":
            return "With noise: what is given"
        return f"Visible patches ({np.mean(~self.is_masked):.0%} of {self.is_masked.size})"


def draw_example(axes: Axes, example: MaskedExample, view: View) -> None:
    """A view of an example; all of its views have one range of colours."""
    limits = limits_of(np.concatenate([example.clean.ravel(), example.noisy.ravel()]))
    logmel = example.clean if view == "clean" else example.noisy
    draw_logmel(axes, logmel, seconds=example.seconds, limits=limits)
    if view == "visible":
        cover_patches(axes, example.is_masked, seconds=example.seconds, mels=len(logmel))
    label_axes(axes)
