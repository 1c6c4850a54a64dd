"""The recipe: every field that a recipe file may have, its unit, default and source.

This module and those of the sections do not import torch, so that the command line starts fast.
"""

from pathlib import Path

from pydantic import NonNegativeInt, model_validator

from m2dx.recipe.data_sections import AudioSection, DataSection, DataSetSection, ImageSection, NoiseSection
from m2dx.recipe.model_sections import EmaSection, ModelSection, PredictorSection, TaskSection
from m2dx.recipe.paths import RecipePath, RunPath
from m2dx.recipe.run_sections import EvaluationSection, EvaluationTaskSection, TrainSection
from m2dx.recipe.section import ComponentSpec, Identifier, Kind, Section, ShortClips

__all__ = [
    "AudioSection",
    "ComponentSpec",
    "DataSection",
    "DataSetSection",
    "EmaSection",
    "EvaluationSection",
    "EvaluationTaskSection",
    "ImageSection",
    "Kind",
    "ModelSection",
    "NoiseSection",
    "PredictorSection",
    "Recipe",
    "Section",
    "ShortClips",
    "TaskSection",
    "TrainSection",
]


class Recipe(Section):
    """One pre-training run."""

    name: Identifier = "recipe"
    """Name of the run; default the recipe file's."""
    output: RunPath = Path("runs")
    """Folder that the run's folder (by name) is made in; relative to the current folder."""
    seed: NonNegativeInt = 0
    """Seed of weights, crops, masks and noise."""
    audio: AudioSection = AudioSection()
    """Log-mel settings."""
    image: ImageSection | None = None
    """Images as input, instead of audio; default none."""
    data: DataSection
    """Pre-training data."""
    noise: NoiseSection | None = None
    """Background noise; default none."""
    model: ModelSection = ModelSection()
    """Masked Modeling Duo."""
    init_from: RecipePath | None = None
    """Weights to start from (M2D-X, IV-E): an export, a run, a checkpoint or a published file; default none."""
    tasks: dict[Identifier, TaskSection] = {}
    """Offline tasks by name, beside M2D."""
    train: TrainSection = TrainSection()
    """Optimisation."""
    evaluation: EvaluationSection = EvaluationSection()
    """Evaluation after pre-training, and during it."""

    @property
    def input(self) -> AudioSection | ImageSection:
        """What goes into the model."""
        return self.audio if self.image is None else self.image

    @model_validator(mode="after")
    def _audio_or_images(self) -> "Recipe":
        if self.image is None:
            return self
        if self.audio != AudioSection():
            raise ValueError("audio must be left out where image is given; the input is one of the two")
        if self.noise is not None:
            raise ValueError("noise must be left out with image: background noise is mixed into audio only")
        if self.data.mean is not None:
            raise ValueError(
                "data.mean and data.std are those of log-mel spectrograms and must be left out with image; give "
                "image.mean and image.std"
            )
        return self

    @model_validator(mode="after")
    def _whole_patches(self) -> "Recipe":
        mels, frames = self.model.patch_size
        if self.image is not None:
            if self.image.size[0] % mels or self.image.size[1] % frames:
                raise ValueError(
                    f"image.size must be a multiple of model.patch_size ({mels} x {frames}), but is "
                    f"{self.image.size[0]} x {self.image.size[1]}"
                )
            return self
        if self.audio.n_mels % mels:
            raise ValueError(
                f"audio.n_mels must be a multiple of the patch's {mels} mels (model.patch_size), "
                f"but is {self.audio.n_mels}"
            )
        length, frame_seconds = self.audio.crop_frames, self.audio.hop_length / self.audio.sample_rate
        if length % frames or not length:
            nearest = [n * frames * frame_seconds for n in (length // frames, length // frames + 1) if n]
            raise ValueError(
                f"audio.crop_seconds must be a multiple of the patch's {frames} frames (model.patch_size), but is "
                f"{self.audio.crop_seconds:g} s, {length} frames; nearest: "
                + " or ".join(f"{seconds:.6g} s" for seconds in nearest)
            )
        return self

    @model_validator(mode="after")
    def _evaluated_checkpoints(self) -> "Recipe":
        every, saved = self.evaluation.every, self.train.checkpoint_every
        if every is not None and every % saved:
            raise ValueError(
                f"evaluation.every must be a multiple of train.checkpoint_every ({saved}), since checkpoints are "
                f"scored, but is {every}"
            )
        return self
