"""Background noise: the mix of eq. (5), and the core's noise sources."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from m2dx.contract.components import Clip, NoiseSource
from m2dx.contract.errors import AudioError
from m2dx.data.bad_files import BadFile
from m2dx.data.clips import pack_clips
from m2dx.data.crops import AudioCrops, read_any_crop
from m2dx.data.pcm import float_tensor

_LOWEST_HZ = 20.0  # below it, coloured noise is flat: what nobody hears must not decide the level


def mix_noise(
    logmel: Tensor, noise_logmel: Tensor, *, ratio: float, mean: float, noise_mean: float
) -> Tensor:
    """The noisy log-mel, centred: log((1 - ratio) exp(logmel - mean) + ratio exp(noise_logmel - noise_mean)).

    M2D-X, III-B2, eq. (5). As in the published code, each data set's own mean is subtracted before the mix, so that
    both have the same floor; divide the result by the main data set's std to standardise it. Ratio 0 gives exactly
    the clean log-mel, 1 exactly the noise. All are of one shape, such as (B, 1, M, L).
    """
    clean, noise = logmel - mean, noise_logmel - noise_mean
    if ratio == 0.0:
        return clean
    if ratio == 1.0:
        return noise
    return torch.logaddexp(clean + math.log1p(-ratio), noise + math.log(ratio))


class ClipNoise(NoiseSource):
    """Random crops of clips, repeated where they are shorter.

    Files that cannot be read are replaced by others, and named by `drain_bad()`.
    """

    name = "clips"

    def __init__(self, sample_rate: int, clips: Sequence[Clip]) -> None:
        super().__init__(sample_rate)
        if not clips:
            raise AudioError("noise needs clips, but there are none")
        self.clips = pack_clips(clips)
        self._bad: list[BadFile] = []

    def draw(self, num_samples: int, generator: torch.Generator) -> Tensor:
        """(N,) samples; every clip is equally likely, whatever its length."""
        return float_tensor(self.draw_stored(num_samples, generator))

    def draw_stored(self, num_samples: int, generator: torch.Generator) -> Tensor:
        """As `draw`; int16 where the clip is mono 16-bit PCM at the rate."""
        first = int(torch.randint(len(self.clips), (), generator=generator))
        reader = AudioCrops(num_samples, self.sample_rate, "repeat")
        found = read_any_crop(self.clips, first, reader, generator)
        self._bad += found.bad
        return found.inputs

    def drain_bad(self) -> list[BadFile]:
        """Files that could not be read since the last call, each with the reason."""
        bad, self._bad = self._bad, []
        return bad


class ColouredNoise(NoiseSource):
    """Gaussian noise with a power spectrum of 1 / f^exponent above 20 Hz, flat below, without DC.

    Options:
        exponent: 0 white, 1 pink, 2 brown; anything between or beyond too
        level_dbfs: RMS level, dB; 0 is an RMS of 1; it tells only where `noise.mean` is given, as a measured one takes
            it away
    """

    name = "coloured"

    def __init__(self, sample_rate: int, *, exponent: float = 1.0, level_dbfs: float = -30.0) -> None:
        super().__init__(sample_rate)
        self.exponent, self.level_dbfs = exponent, level_dbfs

    def draw(self, num_samples: int, generator: torch.Generator) -> Tensor:
        """(N,) samples, exactly at the level."""
        white = torch.randn(num_samples, generator=generator)
        frequencies = torch.fft.rfftfreq(num_samples, 1 / self.sample_rate)
        gains = frequencies.clamp_min(_LOWEST_HZ).div(_LOWEST_HZ) ** (-self.exponent / 2)
        gains[0] = 0.0
        noise: Tensor = torch.fft.irfft(torch.fft.rfft(white) * gains, n=num_samples)
        level = 10 ** (self.level_dbfs / 20)
        return noise * (level / noise.square().mean().sqrt().clamp_min(torch.finfo(torch.float32).tiny))
