"""What an encoder's weights need beside them, as config.json of an export, or as metadata of a checkpoint's weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from m2dx.contract.errors import CheckpointError
from m2dx.contract.version import package_version
from m2dx.model.patches import PatchGrid
from m2dx.model.shapes import model_shapes
from m2dx.model.vit import ViTSize
from m2dx.recipe.schema import AudioSection, ImageSection, ModelSection, ShortClips

EXPORT_CONFIG = "config.json"


class ClassifierConfig(BaseModel):
    """A classifier on an encoder's features; `model_extra` says how it was trained."""

    model_config = ConfigDict(frozen=True, extra="allow")

    label_names: tuple[str, ...]
    multi_label: bool
    unit_seconds: float
    short_clips: ShortClips
    long_clips: Literal["split", "interpolate"]
    patchout: float
    deviation: bool = False


class EncoderConfig(BaseModel):
    """Sizes of an encoder, how its input is made, and what is known of its training."""

    model_config = ConfigDict(frozen=True)

    format: Literal["m2dx-encoder"] = "m2dx-encoder"
    version: int = 1
    m2dx_version: str = Field(default_factory=package_version)
    input_size: tuple[int, int]
    patch_size: tuple[int, int]
    vit: ViTSize
    audio: AudioSection  # of encoders of images, this and mean and std say nothing
    mean: float = 0.0  # of the log-mels
    std: float = 1.0
    image: ImageSection | None = None  # with mean and std of the channels; None: an encoder of audio
    step: int | None = None
    label_names: dict[str, tuple[str, ...]] | None = None
    recipe: dict[str, Any] | None = None  # of the run
    classifier: ClassifierConfig | None = None  # of a fine-tuned network

    @model_validator(mode="after")
    def _grid_fits(self) -> EncoderConfig:
        assert self.grid.num_patches > 0
        return self

    @property
    def grid(self) -> PatchGrid:
        """The grid of patches."""
        return PatchGrid(self.input_size, self.patch_size, 1 if self.image is None else self.image.channels)

    @classmethod
    def of_run(cls, state: Mapping[str, Any]) -> EncoderConfig:
        """From the state of a training, as a checkpoint has it."""
        recipe, image = state["recipe"], state["recipe"].get("image")
        # Without components, whose options only their plugins know; an encoder does not need them.
        settings = {key: value for key, value in recipe["model"].items() if key not in ("method", "masking")}
        model, audio = ModelSection(**settings), AudioSection(**recipe["audio"])
        section = None if image is None else ImageSection(**image)
        shapes = model_shapes(audio if section is None else section, model)
        return cls(
            input_size=shapes.grid.input_size,
            patch_size=shapes.grid.patch_size,
            vit=shapes.size,
            audio=audio,
            image=section,
            **({key: recipe["data"][key] for key in ("mean", "std")} if section is None else {}),
            **{key: state[key] for key in ("step", "label_names", "recipe") if key in state},
        )

    @classmethod
    def from_json(cls, text: str, path: Path) -> EncoderConfig:
        """What `to_json` gave, read from `path`; CheckpointError for something else."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise CheckpointError(f"{path}: not an m2dx export: {problems}") from error

    def to_json(self) -> dict[str, Any]:
        """Plain data, of which `embed_dim`, `sample_rate` and `frame_rate` are for readers other than m2dx."""
        content = self.model_dump(mode="json", exclude=None if self.image is None else {"mean", "std"})
        if self.image is None:
            content["embed_dim"] = self.vit.embed_dim * self.grid.shape[0]
            content["sample_rate"] = self.audio.sample_rate
            content["frame_rate"] = self.audio.sample_rate / self.audio.hop_length / self.patch_size[1]
        else:
            content["embed_dim"] = self.vit.embed_dim
        return {key: value for key, value in content.items() if value is not None}


def read_config(folder: Path) -> EncoderConfig:
    """What an export's config.json says; CheckpointError where it is missing or something else."""
    path = folder / EXPORT_CONFIG
    try:
        return EncoderConfig.from_json(path.read_text(encoding="utf-8"), path)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not an m2dx export: {error}") from error
