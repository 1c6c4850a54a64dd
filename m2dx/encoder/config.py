"""What an encoder's weights need beside them, as config.json of an export, or as metadata of a checkpoint's weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from m2dx.contract.components import Backbone, PatchGrid, ViTSize
from m2dx.contract.errors import CheckpointError, M2dxError
from m2dx.contract.package import package_version
from m2dx.model.shapes import model_shapes
from m2dx.model.vit import Encoder
from m2dx.recipe.document import write_yaml
from m2dx.recipe.schema import AudioSection, ImageSection, ModelSection, ShortClips

if TYPE_CHECKING:
    from m2dx.contract.host import PluginHost

EXPORT_CONFIG = "config.json"
_DEEPEST = 1000  # blocks


class ClassifierConfig(BaseModel):
    """A classifier on an encoder's features; `model_extra` says how it was trained."""

    model_config = ConfigDict(frozen=True, extra="allow")

    label_names: tuple[str, ...]
    multi_label: bool
    unit_seconds: Annotated[float, Field(gt=0, le=3600)]
    short_clips: ShortClips
    long_clips: Literal["split", "interpolate"]
    patchout: float
    deviation: bool = False
    layer: NonNegativeInt | None = None  # block, or 0, the patch embedding; None: the last one


class BackboneConfig(BaseModel):
    """The network of an encoder, where a plugin brings it."""

    model_config = ConfigDict(frozen=True)

    name: str
    options: dict[str, Any]
    package: str | None = None  # of Python, in which the class is; a checkpoint does not know it

    @classmethod
    def of(cls, encoder: Backbone) -> BackboneConfig | None:
        """None: m2dx's own ViT."""
        if encoder.name == Encoder.name:
            return None
        package = type(encoder).__module__.partition(".")[0]
        return cls(name=encoder.name, options=encoder.made_with[1], package=package)

    def build(self, host: PluginHost | None, grid: PatchGrid, size: ViTSize) -> Backbone:
        """One with random weights; CheckpointError where no plugin brings it. `host` None: the installed plugins."""
        from m2dx.contract.host import PluginHost  # most encoders need no plugin

        try:
            host = PluginHost.discover() if host is None else host
            spec = host.option_model("backbone", self.name)(name=self.name, **self.options)
            made: Backbone = host.build("backbone", spec, grid=grid, size=size)
        except (M2dxError, ValidationError) as error:
            origin = "" if self.package is None else f" of the package {self.package}"
            raise CheckpointError(
                f"the backbone {self.name!r}{origin} must be installed as a plugin, but cannot be used: {error}"
            ) from error
        return made


class EncoderConfig(BaseModel):
    """Sizes of an encoder, how its input is made, and what is known of its training."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    format: Literal["m2dx-encoder"] = "m2dx-encoder"
    version: Literal[1] = 1
    m2dx_version: str = Field(default_factory=package_version)
    sha256: str | None = None  # of the tensors of an export
    input_size: tuple[PositiveInt, PositiveInt]
    patch_size: tuple[PositiveInt, PositiveInt]
    vit: ViTSize
    backbone: BackboneConfig | None = None  # None: m2dx's own ViT
    audio: AudioSection  # of encoders of images, this and mean and std say nothing
    mean: float = 0.0  # of the log-mels
    std: PositiveFloat = 1.0
    image: ImageSection | None = None  # with mean and std of the channels; None: an encoder of audio
    step: NonNegativeInt | None = None
    label_names: dict[str, tuple[str, ...]] | None = None
    recipe: dict[str, Any] | None = None  # what it takes to use the encoder and to cite it, of the run's
    classifier: ClassifierConfig | None = None  # of a fine-tuned network

    @field_validator("label_names")
    @classmethod
    def _without_files(
        cls, label_names: dict[str, tuple[str, ...]] | None
    ) -> dict[str, tuple[str, ...]] | None:
        """Without those of older exports that are files of clips; see `_without_recordings`."""
        from m2dx.data.files import AUDIO_EXTENSIONS, extension_of  # which encoders do not need

        if label_names is None:
            return None
        extensions = {name: {*map(extension_of, map(Path, of))} for name, of in label_names.items()}
        files = {name for name, of in extensions.items() if of and of <= AUDIO_EXTENSIONS}
        return {name: of for name, of in label_names.items() if name not in files}

    @model_validator(mode="after")
    def _sizes_fit(self) -> EncoderConfig:
        rows = self.audio.n_mels if self.image is None else self.image.size[0]
        if self.grid.num_patches == 0 or self.input_size[0] != rows:
            raise ValueError(f"input_size must be patches in {rows} rows, but is {self.input_size}")
        if not 0 < self.vit.depth <= _DEEPEST or min(self.vit.embed_dim, self.vit.num_heads) <= 0:
            raise ValueError(f"vit must have a width, heads, and up to {_DEEPEST} blocks, but is {self.vit}")
        if self.classifier is not None and (self.classifier.layer or 0) > self.vit.depth:
            most, layer = self.vit.depth, self.classifier.layer
            raise ValueError(f"classifier.layer must be at most {most}, but is {layer}")
        return self

    @property
    def grid(self) -> PatchGrid:
        """The grid of patches."""
        return PatchGrid(self.input_size, self.patch_size, 1 if self.image is None else self.image.channels)

    @classmethod
    def of(cls, network: Backbone, audio: AudioSection, **others: Any) -> EncoderConfig:
        """Of a network of audio; `others` are further fields."""
        grid = network.grid
        return cls(
            input_size=grid.input_size, patch_size=grid.patch_size, vit=network.size, audio=audio, **others
        )

    @classmethod
    def of_run(cls, state: Mapping[str, Any]) -> EncoderConfig:
        """From the state of a training, as a checkpoint has it."""
        recipe, image = state["recipe"], state["recipe"].get("image")
        # Without components, whose options only their plugins know; an encoder does not need them.
        components = ("method", "masking", "backbone")
        settings = {key: value for key, value in recipe["model"].items() if key not in components}
        backbone = dict(recipe["model"].get("backbone", {"name": Encoder.name}))
        name = backbone.pop("name")
        model, audio = ModelSection(**settings), AudioSection(**recipe["audio"])
        section = None if image is None else ImageSection(**image)
        shapes = model_shapes(audio if section is None else section, model)
        return cls(
            input_size=shapes.grid.input_size,
            patch_size=shapes.grid.patch_size,
            vit=shapes.size,
            backbone=None if name == Encoder.name else BackboneConfig(name=name, options=backbone),
            audio=audio,
            image=section,
            **({key: recipe["data"][key] for key in ("mean", "std")} if section is None else {}),
            recipe=_of_recipe(recipe, state.get("clips")),
            step=state.get("step"),
            label_names=_without_recordings(recipe, state.get("label_names")),
        )

    def is_of(self, recipe: Mapping[str, Any]) -> bool:
        """Whether a recipe says the same of the encoder; how often it logs, and the like, may differ."""
        own, said = self.recipe or {}, _of_recipe(recipe, None)
        return all(json.dumps(own.get(key)) == json.dumps(said[key]) for key in ("name", "model", "tasks"))

    @classmethod
    def from_json(cls, text: str, path: Path) -> EncoderConfig:
        """What `to_json` gave, read from `path`; CheckpointError for something else."""
        with CheckpointError.blaming(f"{path}: not an m2dx export"):
            config, given = cls.model_validate_json(text), json.loads(text)
            lacking = {f"audio.{name}" for name in AudioSection.model_fields.keys() - given["audio"].keys()}
            if config.image is None and (lacking := lacking | ({"mean", "std"} - given.keys())):
                raise ValueError(f"{min(lacking)} must be given")
        return config

    def to_json(self) -> dict[str, Any]:
        """Plain data, of which `embed_dim`, `sample_rate` and `frame_rate` are for readers other than m2dx."""
        content = self.model_dump(mode="json", exclude=None if self.image is None else {"mean", "std"})
        content["embed_dim"] = self.vit.embed_dim * (self.grid.shape[0] if self.image is None else 1)
        if self.image is None:
            content["sample_rate"] = self.audio.sample_rate
            content["frame_rate"] = self.audio.sample_rate / self.audio.hop_length / self.patch_size[1]
        return {key: value for key, value in content.items() if value is not None}


def _without_recordings(
    recipe: Mapping[str, Any], label_names: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    """The label names, but of sets whose labels are the files of clips, as an export is given to others."""
    if label_names is None:
        return None
    options = {name: section["dataset"] for name, section in recipe["data"]["sets"].items()}
    return {name: of for name, of in label_names.items() if options.get(name, {}).get("labels") != "path"}


def _of_recipe(recipe: Mapping[str, Any], clips: object) -> dict[str, Any]:
    """What a recipe says of the encoder, and what tells the run's recipe.yaml and its data from others.

    Nothing of where the data are, and no path of the machine: an export is given to others.
    """
    kept = {key: recipe[key] for key in ("name", "init_from", "model", "tasks")}
    digest = hashlib.sha256(write_yaml(recipe).encode()).hexdigest()
    short_clips = recipe["data"]["short_clips"]
    named: dict[str, Any] = _without_folders({**kept, "short_clips": short_clips})
    return {**named, "sha256": digest, "clips": clips}


def _without_folders(value: Any) -> Any:
    """Plain data with the names of files in the place of their paths."""
    if isinstance(value, Mapping):
        return {key: _without_folders(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_folders(item) for item in value]
    return PurePath(value).name if isinstance(value, str) and PurePath(value).is_absolute() else value


def read_config(folder: Path) -> EncoderConfig:
    """What an export's config.json says; CheckpointError where it is missing or something else."""
    path = folder / EXPORT_CONFIG
    with CheckpointError.blaming(f"{path}: not an m2dx export"):
        return EncoderConfig.from_json(path.read_text(encoding="utf-8"), path)
