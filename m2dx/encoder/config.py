"""What an encoder's weights need beside them, as config.json of an export, or as metadata of a checkpoint's weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from m2dx.contract.errors import CheckpointError
from m2dx.contract.version import package_version
from m2dx.model.patches import PatchGrid
from m2dx.model.shapes import model_shapes
from m2dx.model.vit import ViTSize
from m2dx.recipe.schema import AudioSection, ImageSection, ModelSection

EXPORT_FORMAT = "m2dx-encoder"
EXPORT_CONFIG = "config.json"


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes of an encoder, and how its input is made: log-mel settings and statistics, or those of images."""

    grid: PatchGrid
    size: ViTSize
    audio: AudioSection  # of encoders of images, and their mean and std, they say nothing
    mean: float = 0.0  # of the log-mels
    std: float = 1.0
    image: ImageSection | None = None  # with mean and std of the channels; None: an encoder of audio

    @classmethod
    def of_run(cls, recipe: Mapping[str, Any], statistics: Mapping[str, Any]) -> EncoderConfig:
        """From a resolved recipe and its statistics, as a checkpoint has them."""
        # Without components, whose options only their plugins know; an encoder does not need them.
        model = ModelSection(
            **{key: value for key, value in recipe["model"].items() if key not in ("method", "masking")}
        )
        audio, image = AudioSection(**recipe["audio"]), recipe.get("image")
        if image is None:
            shapes = model_shapes(audio, model)
            return cls(shapes.grid, shapes.size, audio, statistics["mean"], statistics["std"])
        section = ImageSection(**image)
        shapes = model_shapes(section, model)
        return cls(shapes.grid, shapes.size, audio, image=section)

    @classmethod
    def from_json(cls, content: Mapping[str, Any], path: Path) -> EncoderConfig:
        """What `to_json` gave, read from `path`; CheckpointError for something else."""
        try:
            image = None if content.get("image") is None else ImageSection(**content["image"])
            channels = 1 if image is None else image.channels
            grid = PatchGrid(tuple(content["input_size"]), tuple(content["patch_size"]), channels)
            size, audio = ViTSize(**content["vit"]), AudioSection(**content["audio"])
            if image is not None:
                return cls(grid, size, audio, image=image)
            return cls(grid, size, audio, float(content["mean"]), float(content["std"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{path}: not an m2dx export: {error!r}") from error

    def to_json(self) -> dict[str, Any]:
        """Plain data, of which `embed_dim`, `sample_rate` and `frame_rate` are for readers other than m2dx."""
        audio, rows = self.audio, self.grid.shape[0]
        content: dict[str, Any] = {
            "format": EXPORT_FORMAT,
            "version": 1,
            "m2dx_version": package_version(),
            "embed_dim": self.size.embed_dim * (rows if self.image is None else 1),
            "input_size": list(self.grid.input_size),
            "patch_size": list(self.grid.patch_size),
            "vit": asdict(self.size),
            "audio": audio.model_dump(mode="json"),
        }
        if self.image is not None:
            return {**content, "image": self.image.model_dump(mode="json")}
        return {
            **content,
            "sample_rate": audio.sample_rate,
            "frame_rate": audio.sample_rate / audio.hop_length / self.grid.patch_size[1],
            "mean": self.mean,
            "std": self.std,
        }


def read_export_config(folder: Path) -> dict[str, Any]:
    """The content of an export's config.json; CheckpointError where it is missing or something else."""
    path = folder / EXPORT_CONFIG
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = content.get("format")
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: not an m2dx export: {error!r}") from error
    if found != EXPORT_FORMAT:
        raise CheckpointError(f"{path}: format must be {EXPORT_FORMAT}, but is {found}")
    return dict(content)
