"""Log-mel spectrograms as in the published settings, in batches on the device."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

LINEAR_HZ, LINEAR_MELS = 200 / 3, 15.0
"""Slaney's mel scale: hertz per mel up to 15 mel (1 kHz), and from there on 27 mel for each factor of 6.4."""
LOG_STEP = math.log(6.4) / 27

LOUDEST = 1000.0
"""What no sample in [-1, 1] reaches, however it was resampled, and what those of 16 bits do that were not scaled."""


def mel_filters(frequencies: Tensor, *, n_mels: int, f_min: float, f_max: float) -> Tensor:
    """Triangles of area 1 (K, M) at the frequencies (K,) in Hz, evenly placed on Slaney's mel scale.

    They are those of torchaudio's melscale_fbanks with norm and mel_scale "slaney", bit for bit.
    """
    mels = torch.linspace(slaney_mel(f_min), slaney_mel(f_max), n_mels + 2)
    corners = LINEAR_HZ * mels
    above = mels >= LINEAR_MELS
    corners[above] = 1000.0 * torch.exp(LOG_STEP * (mels[above] - LINEAR_MELS))
    widths = corners.diff()
    distances = corners - frequencies[:, None]  # (K, M + 2)
    falling, rising = distances[:, 2:] / widths[1:], -distances[:, :-2] / widths[:-1]
    return torch.minimum(rising, falling).clamp_min(0) * (2.0 / (corners[2:] - corners[:-2]))


def slaney_mel(hertz: float) -> float:
    """A frequency on the mel scale: linear below 1 kHz, logarithmic above."""
    return hertz / LINEAR_HZ if hertz < 1000.0 else LINEAR_MELS + math.log(hertz / 1000.0) / LOG_STEP


class LogMel(nn.Module):
    """Natural log of the mel power spectrogram, not standardised.

    Centred frames with reflected edges, periodic Hann window, Slaney mel scale with area normalisation, log
    of (power + float32 epsilon). M2D-X, IV-A: at 16 kHz n_fft = win_length = 400, hop_length 160, 80 mels,
    50-8000 Hz. It has no state to save; everything follows from its arguments (samples and Hz).
    """

    window: Tensor
    filters: Tensor

    def __init__(
        self,
        *,
        sample_rate: int = 16_000,
        n_fft: int = 400,
        win_length: int = 400,
        hop_length: int = 160,
        n_mels: int = 80,
        f_min: float = 50.0,
        f_max: float = 8000.0,
    ) -> None:
        super().__init__()
        self.n_fft, self.win_length, self.hop_length, self.n_mels = n_fft, win_length, hop_length, n_mels
        self.sample_rate, self.f_min, self.f_max = sample_rate, f_min, f_max
        frequencies = torch.linspace(0, sample_rate // 2, n_fft // 2 + 1)
        filters = mel_filters(frequencies, n_mels=n_mels, f_min=f_min, f_max=f_max)
        self.register_buffer("window", torch.hann_window(win_length), persistent=False)
        self.register_buffer("filters", filters, persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> LogMel:
        """Goes where the module goes, but keeps float32, whatever dtype the network is brought to."""
        return super()._apply(lambda tensor: tensor.to(fn(tensor).device), recurse)  # type: ignore[no-untyped-call, no-any-return]

    @property
    def empty_filters(self) -> int:
        """Mel bands that always have the least value, since no frequency of the FFT lies in them."""
        return int((self.filters.amax(0) == 0).sum())

    def num_frames(self, num_samples: int) -> int:
        """L, frames that `forward` gives for N samples."""
        return max(num_samples, self._least_samples) // self.hop_length + 1

    @property
    def _least_samples(self) -> int:
        return self.n_fft // 2 + 1  # fewer cannot be reflected at the edges

    def forward(self, wav: Tensor) -> Tensor:
        """(B, 1, M, L) from (B, N), L = N // hop_length + 1; float32 whatever the autocast.

        Audio of n_fft / 2 samples or fewer is padded with zeros first.
        """
        with torch.autocast(wav.device.type, enabled=False):
            wav = wav.float()
            if wav.shape[-1] < self._least_samples:
                wav = nn.functional.pad(wav, (0, self._least_samples - wav.shape[-1]))
            sizes = self.n_fft, self.hop_length, self.win_length
            spectrum = torch.stft(wav, *sizes, self.window, pad_mode="reflect", return_complex=True)
            power = spectrum.real.square() + spectrum.imag.square()  # (B, n_fft/2+1, L)
            mel = power.mT @ self.filters  # (B, L, M)
            logmel = (mel + torch.finfo(torch.float32).eps).log()
            return logmel.mT.unsqueeze(1).contiguous()  # (B, L, M) -> (B, 1, M, L)

    def crop(self, wav: Tensor) -> Tensor:
        """(B, 1, M, N // hop_length) from (B, N): for training crops, without the last frame."""
        logmel: Tensor = self(wav)
        return logmel[..., : wav.shape[-1] // self.hop_length]
