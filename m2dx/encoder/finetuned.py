"""Fine-tuned networks: a copy of an encoder with a classifier, read from a folder, and its use on audio."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from m2dx.contract.errors import CheckpointError
from m2dx.contract.package import find_encoder
from m2dx.encoder.audio import AudioEncoder, Head, audio_encoder_of, check_samples, filled
from m2dx.encoder.config import EXPORT_CONFIG, ClassifierConfig
from m2dx.encoder.weights import read_weights

KeptPatches = Callable[[tuple[int, int], int], Tensor]
"""From a grid (F, T) and a number of clips B to the indices (B, V) of the patches of each clip that stay."""


class FinetunedNetwork(nn.Module):
    """A trainable copy of an encoder and a `Head`: standardised log-mels (B, 1, M, L) -> logits (B, C).

    The head has the mean over time of the features by eq. (4), F*D wide; with patchout the mean of the patches'
    outputs, D wide, since eq. (4) needs all patches (M2D-X, IV-B). The class token's output is not in either. With
    `deviation` it has the standard deviation over time, too, 2*F*D wide. `layer` takes the features of another block
    than the last; 0 is the patch embedding.
    """

    def __init__(
        self,
        encoder: AudioEncoder,
        num_classes: int,
        *,
        patchout: float = 0.0,
        deviation: bool = False,
        layer: int | None = None,
        adjust_positions: bool = False,
    ) -> None:
        """`adjust_positions`: audio longer than the model's input is not split, its positions are interpolated."""
        super().__init__()
        self.encoder = copy.deepcopy(encoder).requires_grad_(True)
        self.encoder.head = None
        self.encoder.long_clips = "interpolate" if adjust_positions else "split"
        self.patchout, self.deviation, self.layer = patchout, deviation, layer
        width = encoder.encoder.size.embed_dim if patchout else encoder.embed_dim * (1 + deviation)
        self.head = Head(width, num_classes)

    def forward(self, logmel: Tensor, *, kept: KeptPatches | None = None) -> Tensor:
        """Logits; with patchout, of the patches that `kept` chooses (default all)."""
        if self.patchout:
            features = self.patch_mean(logmel, kept=kept)
        else:
            (frames,) = self.encoder.encode_logmel(logmel, layers=(self.layer,))
            features = frames.mean(dim=1)  # (B, T, F*D) -> (B, F*D)
            if self.deviation:
                features = torch.cat([features, frames.std(dim=1, correction=0)], dim=1)
        logits: Tensor = self.head(features)
        return logits

    def patch_mean(self, logmel: Tensor, *, kept: KeptPatches | None = None) -> Tensor:
        """Mean output (B, D) of the patches that `kept` leaves of those of (B, 1, M, L); by default of all."""
        vit = self.encoder.encoder
        outputs = []
        for chunk in self.encoder.chunks(logmel):
            tokens, ids = vit.embed(chunk), None  # (B, F*T, D)
            if kept is not None:
                grid = vit.grid.shape[0], chunk.shape[-1] // vit.grid.patch_size[1]
                ids = kept(grid, len(tokens)).to(tokens.device)
            outputs.append(vit.encode(tokens, ids)[:, 1:])  # -> (B, V, D)
        return torch.cat(outputs, dim=1).mean(dim=1)


class AudioClassifier(nn.Module):
    """A network that the evaluator `finetune` or `m2dx classify` trained: audio to scores of labels.

    Attributes: `sample_rate` (Hz, of the audio it wants), `label_names`, `multi_label` (whether several labels may be
    true at a time), `unit_seconds` (length of audio that it was trained on), `short_clips` ("pad" or "repeat").
    """

    def __init__(self, network: FinetunedNetwork, config: ClassifierConfig) -> None:
        super().__init__()
        self.network, self.label_names, self.multi_label = network, config.label_names, config.multi_label
        self.unit_seconds, self.short_clips = config.unit_seconds, config.short_clips
        self.sample_rate = network.encoder.sample_rate

    @property
    def unit_samples(self) -> int:
        """`unit_seconds` in samples."""
        return max(1, round(self.unit_seconds * self.sample_rate))

    def forward(self, wav: Tensor) -> Tensor:
        """Logits (B, C), from samples (B, N) or (N,) at `sample_rate`, as the evaluator's test makes them.

        Longer audio is cut to its first `unit_seconds`; shorter audio is padded or repeated to that length. Raises
        TypeError or ValueError for what is not audio.
        """
        check_samples(wav, least=self.network.encoder.logmel.hop_length, finite=True)
        rows = self.filled(wav[None] if wav.ndim == 1 else wav)
        logits: Tensor = self.network(self.network.encoder.standard_logmel(rows))
        return logits

    def filled(self, rows: Tensor) -> Tensor:
        """Samples (B, N) cut to `unit_seconds`, or padded or repeated to that length."""
        return filled(rows, self.unit_samples, short_clips=self.short_clips)[..., : self.unit_samples]

    @torch.no_grad()
    def probabilities(self, wav: Tensor) -> Tensor:
        """Probabilities (B, C) of the labels, as `forward`: of each by itself if `multi_label`, else they sum to 1."""
        logits = self(wav)
        found: Tensor = logits.sigmoid() if self.multi_label else logits.softmax(dim=1)
        return found


def load_classifier(path: str | Path) -> AudioClassifier:
    """The network in a folder that the evaluator `finetune` or `m2dx classify` saved, in eval mode, on the CPU.

    Raises CheckpointError where the folder is missing, corrupt or something else. `m2dx.load_encoder` reads such a
    folder, too, and gives the fine-tuned encoder without the classifier.
    """
    path = find_encoder(path)
    weights = read_weights(path) if (path / EXPORT_CONFIG).is_file() else None
    config = None if weights is None else weights.config.classifier
    if weights is None or config is None:
        what = f"has no {EXPORT_CONFIG}" if weights is None else "is an encoder without a classifier"
        raise CheckpointError(
            f"{path} must be a folder with a classifier, but {what}; `m2dx classify RUN --save FOLDER` and the "
            "evaluator finetune (save_dir) write such folders"
        )
    network = FinetunedNetwork(
        audio_encoder_of(weights),
        len(config.label_names),
        patchout=config.patchout,
        deviation=config.deviation,
        layer=config.layer,
        adjust_positions=config.long_clips == "interpolate",
    )
    with CheckpointError.blaming(f"{path}: the classifier's weights do not fit"):
        network.head.load_state_dict(weights.head)
    return AudioClassifier(network, config).requires_grad_(False).eval()
