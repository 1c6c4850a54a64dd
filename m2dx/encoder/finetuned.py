"""What is trained: a copy of the encoder with a classifier on its clip features."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from m2dx.contract.components import EvaluationTask
from m2dx.contract.errors import CheckpointError
from m2dx.encoder.audio import AudioEncoder
from m2dx.encoder.config import EXPORT_CONFIG, EncoderConfig
from m2dx.encoder.export import write_export
from m2dx.model.masking import gather_tokens
from m2dx.recipe.schema import AudioSection

HEAD_STD = 0.01
"""Of the linear layer's initial weights, in the published code."""


class Head(nn.Module):
    """Batch norm without affine parameters, then a linear layer: (B, D) -> (B, C), as in published fine-tuned files."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width, affine=False)
        self.linear = nn.Linear(width, num_classes)
        nn.init.trunc_normal_(self.linear.weight, std=HEAD_STD)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor, *, random: np.random.Generator | None = None) -> Tensor:
        """Logits in float32 whatever the autocast; nothing in it is random."""
        with torch.autocast(features.device.type, enabled=False):
            logits: Tensor = self.linear(self.norm(features.float()))
        return logits


class FinetunedNetwork(nn.Module):
    """A trainable copy of an encoder and a `Head`: standardised log-mels (B, 1, M, L) -> logits (B, C).

    The head has the mean over time of the features by eq. (4), F*D wide; with patchout the mean of the patches'
    outputs, D wide, since eq. (4) needs all patches (M2D-X, IV-B). The class token's output is not in either.
    """

    def __init__(
        self,
        encoder: AudioEncoder,
        num_classes: int,
        *,
        patchout: float = 0.0,
        adjust_positions: bool = False,
        freeze_patch_embed: bool = False,
    ) -> None:
        """`adjust_positions`: audio longer than the model's input is not split, its positions are interpolated."""
        super().__init__()
        self.encoder = copy.deepcopy(encoder).requires_grad_(True)
        self.encoder.head = None
        self.encoder.long_clips = "interpolate" if adjust_positions else "split"
        self.encoder.encoder.patch_embed.requires_grad_(not freeze_patch_embed)
        self.patchout = patchout
        self.head = Head(encoder.encoder.size.embed_dim if patchout else encoder.embed_dim, num_classes)

    def forward(self, logmel: Tensor, *, random: np.random.Generator | None = None) -> Tensor:
        """Logits; patches are dropped where `random` is given and there is patchout."""
        if self.patchout:
            features = self.patch_mean(logmel, random=random)
        else:
            features = self.encoder.encode_logmel(logmel)[-1].mean(dim=1)  # (B, T, F*D) -> (B, F*D)
        logits: Tensor = self.head(features)
        return logits

    def patch_mean(self, logmel: Tensor, *, random: np.random.Generator | None = None) -> Tensor:
        """Mean output (B, D) of the patches that are left of those of (B, 1, M, L); without `random` of all."""
        vit = self.encoder.encoder
        outputs = []
        for chunk in self.encoder.chunks(logmel):
            tokens = vit.embed(chunk)  # (B, F*T, D)
            if random is not None:
                grid = vit.grid.shape[0], chunk.shape[-1] // vit.grid.patch_size[1]
                kept = structured_patchout(grid, self.patchout, len(tokens), random=random)
                tokens = gather_tokens(tokens, kept.to(tokens.device))  # (B, F*T, D) -> (B, V, D)
            outputs.append(vit.trunk(vit.with_class_token(tokens))[:, 1:])
        return torch.cat(outputs, dim=1).mean(dim=1)


def structured_patchout(
    grid: tuple[int, int], ratio: float, batch_size: int, *, random: np.random.Generator
) -> Tensor:
    """Indices (B, V) of the patches that stay where whole rows and columns of the grid (F, T) are dropped.

    PaSST (Koutini et al., 2022) drops given numbers of rows (frequency) and columns (time). The paper names one ratio:
    here the rows are a random number up to that share of them, the same for all clips of the batch, and the columns
    are as many as bring the share of dropped patches to the ratio. Which ones they are is each clip's own.
    """
    freq, time = grid
    rows = int(random.integers(min(freq - 1, int(ratio * freq + 1e-6)) + 1))
    columns = round(time * (1.0 - (1.0 - ratio) * freq / (freq - rows)))
    columns = min(max(columns, 0), time - 1)
    kept = []
    for _ in range(batch_size):
        stay_f = np.sort(random.permutation(freq)[rows:])
        stay_t = np.sort(random.permutation(time)[columns:])
        kept.append((stay_f[:, None] * time + stay_t).ravel())
    return torch.from_numpy(np.stack(kept))


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
        """Whether the network is there."""
        return (self.path / EXPORT_CONFIG).is_file()

    def write(self, network: FinetunedNetwork, outcome: Mapping[str, object]) -> None:
        """Writes model.safetensors and config.json. CheckpointError where the disk refuses it."""
        head = {f"{HEAD}{name}": tensor for name, tensor in network.head.state_dict().items()}
        classifier = {
            "task": self.task.name,
            "label_names": list(self.task.label_names),
            "multi_label": self.task.multi_label,
            "unit_seconds": self.task.unit_seconds,
            "short_clips": self.task.short_clips,
            **self.about,
            **outcome,
        }
        config = {
            **_config(network.encoder).to_json(),
            "long_clips": network.encoder.long_clips,
            "patchout": network.patchout,
            CLASSIFIER: classifier,
        }
        try:
            write_export(self.path, network.encoder.encoder.state_dict(), config, head)
        except OSError as error:
            raise CheckpointError(
                f"the fine-tuned network must be written to {self.path} (save_dir), but cannot be: "
                f"{error.strerror or error}; mend the disk (its space, quota or rights), or leave save_dir out"
            ) from error


def _config(encoder: AudioEncoder) -> EncoderConfig:
    logmel, grid = encoder.logmel, encoder.encoder.grid
    audio = AudioSection(
        sample_rate=logmel.sample_rate,
        n_fft=logmel.n_fft,
        win_length=logmel.win_length,
        hop_length=logmel.hop_length,
        n_mels=logmel.n_mels,
        f_min=logmel.f_min,
        f_max=logmel.f_max,
        crop_seconds=grid.input_size[1] * logmel.hop_length / logmel.sample_rate,
    )
    return EncoderConfig(grid, encoder.encoder.size, audio, encoder.mean, encoder.std)
