"""A fine-tuned network on disk: an export of its encoder, with the classifier beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

import m2dx
from m2dx.errors import CheckpointError
from m2dx.evaluation.finetuning.network import FinetunedNetwork
from m2dx.evaluation.tasks import EvaluationTask
from m2dx.model.published import published_names
from m2dx.training.checkpoint import replace_file
from m2dx.weights import EXPORT_FORMAT, EXPORT_WEIGHTS

HEAD = "head."
"""Start of the names of the classifier's tensors in model.safetensors."""
CLASSIFIER = "classifier"
"""Key of config.json with what an export of an encoder alone does not have."""


@dataclass(frozen=True)
class NetworkFolder:
    """Where the network of one fine-tuning goes. An encoder's export, which `load_encoder` reads, and a classifier."""

    path: Path
    task: EvaluationTask
    about: Mapping[str, object]  # what else config.json says of the classifier

    @property
    def is_whole(self) -> bool:
        """Whether the network is there; config.json is written last."""
        return (self.path / "config.json").is_file()

    def write(self, network: FinetunedNetwork, outcome: Mapping[str, object]) -> None:
        """Writes model.safetensors and config.json, each at once. CheckpointError where the disk refuses it."""
        tensors: dict[str, Tensor] = published_names(network.encoder.encoder.state_dict())
        tensors |= {f"{HEAD}{name}": tensor for name, tensor in network.head.state_dict().items()}
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        config = {**encoder_config(network), CLASSIFIER: {**self._of_task(), **self.about, **outcome}}
        data = safetensors.torch.save(weights, metadata={"format": "pt"})
        text = json.dumps(config, indent=1) + "\n"
        try:
            (self.path / "config.json").unlink(missing_ok=True)
            replace_file(self.path / EXPORT_WEIGHTS, lambda file: file.write(data))
            replace_file(self.path / "config.json", lambda file: file.write(text.encode()))
        except OSError as error:
            raise CheckpointError(
                f"the fine-tuned network must be written to {self.path} (save_dir), but cannot be: "
                f"{error.strerror or error}; mend the disk (its space, quota or rights), or leave save_dir out"
            ) from error

    def _of_task(self) -> dict[str, Any]:
        return {
            "task": self.task.name,
            "label_names": list(self.task.label_names),
            "multi_label": self.task.multi_label,
            "unit_seconds": self.task.unit_seconds,
            "short_clips": self.task.short_clips,
        }


def encoder_config(network: FinetunedNetwork) -> dict[str, Any]:
    """config.json of the encoder, and how the network reads its features."""
    encoder = network.encoder
    logmel, grid = encoder.logmel, encoder.encoder.grid
    return {
        "format": EXPORT_FORMAT,
        "version": 1,
        "m2dx_version": m2dx.__version__,
        "sample_rate": encoder.sample_rate,
        "embed_dim": encoder.embed_dim,
        "frame_rate": encoder.frame_rate,
        "input_size": list(grid.input_size),
        "patch_size": list(grid.patch_size),
        "vit": asdict(encoder.encoder.size),
        "audio": {
            "sample_rate": logmel.sample_rate,
            "n_fft": logmel.n_fft,
            "win_length": logmel.win_length,
            "hop_length": logmel.hop_length,
            "n_mels": logmel.n_mels,
            "f_min": logmel.f_min,
            "f_max": logmel.f_max,
            "crop_seconds": grid.input_size[1] * logmel.hop_length / logmel.sample_rate,
        },
        "mean": encoder.mean,
        "std": encoder.std,
        "long_clips": encoder.long_clips,
        "patchout": network.patchout,
    }
