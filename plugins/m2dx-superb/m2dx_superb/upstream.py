"""An encoder of m2dx as an upstream of s3prl, and a control that knows nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

import m2dx

NAME = "m2dx"
"""The upstream's name in `s3prl.hub`."""

ZEROS = "zeros"
"""Instead of an encoder's path: the control."""

SAMPLE_RATE = 16_000  # Hz, of all audio in SUPERB
CONTROL_STRIDE = 320  # samples per frame of the control: 20 ms, as speech models have


class Upstream(nn.Module):
    """Frame features of every block by eq. (4), (B, T, F*D), as s3prl wants them; frozen, and not in checkpoints.

    As in the published wrapper, the waveforms of a batch are filled up with zeros to the longest, standardised with
    the task's own mean and standard deviation, and encoded together. Here they are filled up further, to whole frames,
    so that T is the number of samples over the frame's, rounded up.
    """

    def __init__(self, encoder: m2dx.AudioEncoder) -> None:
        super().__init__()
        if encoder.sample_rate != SAMPLE_RATE:
            raise m2dx.CheckpointError(
                f"the audio of SUPERB is at {SAMPLE_RATE} Hz, so the encoder must be, too, but it is for "
                f"{encoder.sample_rate} Hz"
            )
        # no submodule: checkpoints of a task hold what is trained there, and no train() reaches it
        self._encoder = (encoder.eval().requires_grad_(False),)
        self.stride = round(encoder.sample_rate / encoder.frame_rate)  # samples per frame

    @property
    def encoder(self) -> m2dx.AudioEncoder:
        """The encoder, in eval mode."""
        return self._encoder[0]

    def set_statistics(self, mean: float, std: float) -> None:
        """Standardises with these from now on."""
        self.encoder.mean, self.encoder.std = mean, std

    def get_downsample_rates(self, key: str) -> int:
        """Samples per frame."""
        return self.stride

    def forward(self, wavs: list[Tensor]) -> dict[str, Any]:
        """Features (B, T, F*D) of every block, from waveforms (N,) at 16 kHz."""
        batch = pad_sequence(wavs, batch_first=True)  # (B, N)
        batch = nn.functional.pad(batch, (0, -batch.shape[1] % self.stride))
        with torch.no_grad():
            hidden_states = self.encoder.layers(batch)
        return {"hidden_states": hidden_states, "last_hidden_state": hidden_states[-1]}

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Upstream:
        """Moves the encoder as well, which is no submodule."""
        self.encoder._apply(fn, recurse)  # type: ignore[no-untyped-call]
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


class Zeros(nn.Module):
    """Zeros instead of features: what it scores is what a task gives for nothing."""

    def set_statistics(self, mean: float, std: float) -> None:
        """Nothing."""

    def get_downsample_rates(self, key: str) -> int:
        """Samples per frame."""
        return CONTROL_STRIDE

    def forward(self, wavs: list[Tensor]) -> dict[str, Any]:
        """Zeros (B, T, 16), twice."""
        frames = -(-max(wav.shape[0] for wav in wavs) // CONTROL_STRIDE)
        states = [wavs[0].new_zeros(len(wavs), frames, 16) for _ in range(2)]
        return {"hidden_states": states, "last_hidden_state": states[-1]}


def build_upstream(ckpt: str, refresh: bool = False, model_config: str | None = None) -> nn.Module:
    """What `s3prl.hub` calls: the encoder of a path, or of `path,mean,std` with a task's statistics, or the control.

    `refresh` and `model_config` are always given by s3prl, and mean nothing here.
    """
    path, statistics = split_source(ckpt)
    if path == ZEROS:
        return Zeros()
    upstream = Upstream(m2dx.load_encoder(path))
    if statistics is not None:
        upstream.set_statistics(*statistics)
    return upstream


def join_source(path: str, mean: float, std: float) -> str:
    """Path and statistics as one text, for checkpoints of s3prl to hold."""
    return f"{path},{mean!r},{std!r}"


def split_source(source: str) -> tuple[str, tuple[float, float] | None]:
    """The path, and mean and standard deviation where they are given."""
    parts = source.rsplit(",", 2)
    try:
        return parts[0], (float(parts[1]), float(parts[2]))
    except (IndexError, ValueError):
        return source, None
