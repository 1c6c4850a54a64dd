"""The core's offline encoders."""

from __future__ import annotations

import torch
from torch import Tensor

from m2dx.contract.components import DataInfo, OfflineEncoder, Views
from m2dx.contract.errors import RecipeError


class Labels(OfflineEncoder):
    """The clips' labels, multi-hot: (B, C); rows of NaN where a clip is not labelled.

    Options:
        dataset: the recipe's data set whose labels are taken; may be left out where only one has labels
    """

    name = "labels"
    needs_wav = False

    def __init__(self, data: DataInfo, *, dataset: str | None = None) -> None:
        super().__init__()
        labelled = sorted(data.label_names)
        found = ", ".join(labelled) or "none"
        if dataset is None and len(labelled) != 1:
            raise RecipeError(f"one data set must have labels, or `dataset` must name one; found: {found}")
        self.dataset = dataset or labelled[0]
        if self.dataset not in labelled:
            raise RecipeError(f"`dataset` must be a data set with labels ({found}), but is {dataset!r}")
        self.label_names = data.label_names[self.dataset]
        if len(self.label_names) < 2:
            names = ", ".join(self.label_names)
            raise RecipeError(
                f"data set {self.dataset!r} must have two classes or more to learn, but has one: {names}"
            )
        self.embed_dim = len(self.label_names)

    def forward(self, views: Views) -> Tensor:
        return views.labels[self.dataset]


class LogSpectrum(OfflineEncoder):
    """STFT log-magnitude: a target that needs no weights, (B, S, n_fft / 2 + 1), 50 frames per second.

    Options:
        n_fft: FFT and window length, samples at 16 kHz
    """

    name = "log_spectrum"
    sample_rate = 16_000  # Hz
    frame_rate = 50.0  # Hz
    window: Tensor

    def __init__(self, *, n_fft: int = 512) -> None:
        super().__init__()
        self.n_fft, self.embed_dim = n_fft, n_fft // 2 + 1
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    def forward(self, views: Views) -> Tensor:
        wav = views.clean_wav.float()
        spec = torch.stft(wav, self.n_fft, hop_length=320, window=self.window, return_complex=True)
        return spec.abs().clamp_min(1e-5).log().mT[:, :-1]  # (B, N) -> (B, S, C)
