"""Log-mel spectrograms as in the published settings, in batches on the device."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
import torchaudio
from torch import Tensor, nn


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
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # of empty filters
            filters = torchaudio.functional.melscale_fbanks(
                n_fft // 2 + 1, f_min, f_max, n_mels, sample_rate, norm="slaney", mel_scale="slaney"
            )  # (n_fft/2+1, M)
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
            spectrum = torch.stft(
                wav,
                self.n_fft,
                hop_length=self.hop_length,
                win_length=self.win_length,
                window=self.window,
                center=True,
                pad_mode="reflect",
                return_complex=True,
            )
            power = spectrum.real.square() + spectrum.imag.square()  # (B, n_fft/2+1, L)
            mel = power.mT @ self.filters  # (B, L, M)
            logmel = (mel + torch.finfo(torch.float32).eps).log()
            return logmel.mT.unsqueeze(1).contiguous()  # (B, L, M) -> (B, 1, M, L)

    def crop(self, wav: Tensor) -> Tensor:
        """(B, 1, M, N // hop_length) from (B, N): for training crops, without the last frame."""
        logmel: Tensor = self(wav)
        return logmel[..., : wav.shape[-1] // self.hop_length]
