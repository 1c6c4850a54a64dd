"""Another sampling rate for a batch of waveforms on its device, by interpolation with windowed sincs."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

ZEROS = 6  # zero crossings of the sinc on each side of a sample
ROLLOFF = 0.99  # where the low-pass filter cuts, relative to the lower of the two Nyquist frequencies


def resample(wav: Tensor, rate: int, new_rate: int) -> Tensor:
    """(B, ceil(N * new_rate / rate)) from (B, N) floats, as torchaudio's resample gives with its defaults.

    One strided convolution: after `rate / gcd` input samples, the times of outputs between them are the same again.
    """
    step, phases = rate // math.gcd(rate, new_rate), new_rate // math.gcd(rate, new_rate)
    cutoff = min(step, phases) * ROLLOFF  # zero crossings in `step` input samples
    reach = math.ceil(ZEROS * step / cutoff)  # input samples on each side
    inputs = torch.arange(-reach, reach + step, dtype=wav.dtype, device=wav.device) / step
    outputs = torch.arange(phases, dtype=wav.dtype, device=wav.device)[:, None] / phases
    times = ((inputs - outputs) * cutoff).clamp(-ZEROS, ZEROS)  # (phases, taps), in zero crossings
    kernels = torch.sinc(times) * (math.pi * times / ZEROS / 2).cos() ** 2 * (cutoff / step)
    padded = F.pad(wav, (reach, reach + step))[:, None]  # (B, 1, N + ...)
    found = F.conv1d(padded, kernels[:, None], stride=step)  # (B, phases, ...)
    return found.mT.flatten(1)[:, : -(-wav.shape[1] * new_rate // rate)]
