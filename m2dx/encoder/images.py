"""Images to features, with a pre-trained encoder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from m2dx.contract.components import Backbone
from m2dx.contract.errors import CheckpointError, ImageError
from m2dx.data.images import middle_box, read_image, resized
from m2dx.encoder.weights import Weights, read_weights
from m2dx.model.views import standardised
from m2dx.recipe.schema import ImageSection

if TYPE_CHECKING:
    from m2dx.contract.host import PluginHost


class ImageEncoder(nn.Module):
    """Images to features (M2D-X, appendix A).

    Attributes: `input_size` (height, width) and `channels` of the images that it wants, `embed_dim` (D, width of its
    features).
    """

    def __init__(self, encoder: Backbone, section: ImageSection) -> None:
        """`section` has the mean and standard deviation of the channels."""
        super().__init__()
        self.encoder, self.section = encoder, section
        self.input_size, self.channels = encoder.grid.input_size, encoder.grid.in_chans
        self.embed_dim = encoder.size.embed_dim

    def forward(self, images: Tensor) -> Tensor:
        """Features of the patches (B, rows, columns, D), from images (B, C, H, W), or (C, H, W), of the input's size.

        Values are uint8, or floating-point in [0, 1]. Raises TypeError or ValueError for others.
        """
        if not isinstance(images, Tensor) or not (images.dtype == torch.uint8 or images.is_floating_point()):
            kind = getattr(images, "dtype", type(images).__name__)
            raise TypeError(f"images must be a tensor, uint8 or floating-point in [0, 1], but are {kind}")
        images = images[None] if images.ndim == 3 else images
        wanted = (self.channels, *self.input_size)
        if images.ndim != 4 or tuple(images.shape[1:]) != wanted or len(images) == 0:
            raise ValueError(
                f"images must be (B, C, H, W) with {wanted}, but are {tuple(images.shape)}; `load` cuts files to it"
            )
        # Resizing may overshoot, but not by as much as another range or standardised values do.
        if images.is_floating_point() and not (images - 0.5).abs().amax() <= 1:
            raise ValueError(f"images must be in [0, 1], but are {images.amin():g} to {images.amax():g}")
        standard = standardised(images, self.section).to(next(self.encoder.parameters()).dtype)
        tokens: Tensor = self.encoder(standard)[:, 1:]  # (B, P, D)
        placed: Tensor = tokens.unflatten(1, self.encoder.grid.shape)  # (B, P, D) -> (B, rows, columns, D)
        return placed

    def clip(self, images: Tensor) -> Tensor:
        """Features of images (B, D): the mean over the patches."""
        return self(images).mean(dim=(1, 2))  # type: ignore[no-any-return]

    def load(self, path: Path | str) -> Tensor:
        """An image file as this encoder wants it, (C, H, W) uint8: its middle, resized to the input's size.

        Raises `ImageError` for a file that cannot be used.
        """
        try:
            image = read_image(Path(path), channels=self.channels)
            return resized(image, self.input_size, middle_box(image.size, self.input_size))
        except ImageError as error:
            raise ImageError(f"{path}: {error}") from error


def load_image_encoder(path: str | Path) -> ImageEncoder:
    """The encoder of an export, a checkpoint or a run's folder on images: frozen, in eval mode, on the CPU.

    Raises CheckpointError where the path is missing, corrupt or something else, such as an encoder of audio.
    """
    return image_encoder_of(read_weights(path))


def image_encoder_of(weights: Weights, host: PluginHost | None = None) -> ImageEncoder:
    """The encoder of weights on images, frozen, in eval mode; CheckpointError where they are of an encoder of audio."""
    if weights.config.image is None:
        raise CheckpointError(f"{weights.path}: an encoder of audio; m2dx.load_encoder loads it")
    return ImageEncoder(weights.encoder(host), weights.config.image).requires_grad_(False).eval()
