"""The recipe: every field that a recipe file may have, its unit, default and source.

This module and those of the sections do not import torch, so that the command line starts fast.
"""

from pathlib import Path

from pydantic import NonNegativeInt, model_validator

from m2dx.recipe.data_sections import AudioSection, DataSection, DataSetSection, NoiseSection
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

    @model_validator(mode="after")
    def _whole_patches(self) -> "Recipe":
        mels, frames = self.model.patch_size
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
