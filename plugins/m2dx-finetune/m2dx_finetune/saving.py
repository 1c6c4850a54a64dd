"""The folder that a fine-tuned network is saved in, for `m2dx classify` and `m2dx.load_classifier`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m2dx.contract.components import EvaluationTask
from m2dx.contract.errors import CheckpointError
from m2dx.encoder.config import EXPORT_CONFIG, ClassifierConfig, EncoderConfig
from m2dx.encoder.finetuned import FinetunedNetwork
from m2dx.encoder.weights import write_export
from m2dx.recipe.schema import AudioSection


@dataclass(frozen=True)
class NetworkFolder:
    """Where the network of one fine-tuning goes. An encoder's export, which `load_encoder` reads, and a classifier."""

    path: Path
    task: EvaluationTask
    about: Mapping[str, Any]  # what else config.json says of the classifier

    @property
    def is_whole(self) -> bool:
        """Whether the network is there."""
        return (self.path / EXPORT_CONFIG).is_file()

    def write(self, network: FinetunedNetwork, outcome: Mapping[str, Any]) -> None:
        """Writes model.safetensors and config.json. CheckpointError where the disk refuses it."""
        encoder, task = network.encoder, self.task
        assert task.unit_seconds is not None  # audio
        classifier = ClassifierConfig(
            label_names=task.label_names,
            multi_label=task.multi_label,
            unit_seconds=task.unit_seconds,
            short_clips=task.short_clips,
            long_clips=encoder.long_clips,
            patchout=network.patchout,
            **{"task": task.name, **self.about, **outcome},
        )
        logmel, grid = encoder.logmel, encoder.encoder.grid
        names = AudioSection.model_fields.keys() - {"crop_seconds"}
        seconds = grid.input_size[1] * logmel.hop_length / logmel.sample_rate
        audio = AudioSection(crop_seconds=seconds, **{name: getattr(logmel, name) for name in names})
        known = {"mean": encoder.mean, "std": encoder.std, "recipe": encoder.trained_as}
        config = EncoderConfig.of(encoder.encoder, audio, **known, classifier=classifier)
        try:
            write_export(self.path, encoder.encoder, config, network.head.state_dict())
        except OSError as error:
            raise CheckpointError(
                f"the fine-tuned network must be written to {self.path} (save_dir), but cannot be: "
                f"{error.strerror or error}; mend the disk (its space, quota or rights), or leave save_dir out"
            ) from error
