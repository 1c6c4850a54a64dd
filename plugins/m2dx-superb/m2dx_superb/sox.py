"""What s3prl asks of `torchaudio.sox_effects`, which torchaudio no longer has."""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor

from m2dx import AudioError

Effects = Sequence[Sequence[str]]

PROGRAM = "sox"
MISSING = (
    f"the effect 'silence' is that of SoX: the program `{PROGRAM}` must be on the PATH, but is not; "
    "install it (Debian and Ubuntu: `apt install sox`)"
)


def apply_effects_tensor(
    tensor: Tensor, sample_rate: int, effects: Effects, channels_first: bool = True
) -> tuple[Tensor, int]:
    """Samples (C, N) in [-1, 1], or (N, C), after the effects, and their rate (Hz).

    `channels`, `rate` and `gain` in dB are computed here; any others are done by the program `sox`, for all of the
    chain. Raises AudioError where that is needed and not there, or fails.
    """
    wav = tensor if channels_first else tensor.T
    if all(effect[0] in ("channels", "rate", "gain") for effect in effects):
        for name, *arguments in effects:
            wav, sample_rate = _apply(name, arguments, wav, sample_rate)
    else:
        wav, sample_rate = _run(wav, sample_rate, effects)
    return (wav if channels_first else wav.T), sample_rate


def apply_effects_file(
    path: str | Path, effects: Effects, normalize: bool = True, channels_first: bool = True
) -> tuple[Tensor, int]:
    """A file's samples after the effects, and their rate (Hz), as `apply_effects_tensor`."""
    wav, rate = read(path)
    wav, rate = apply_effects_tensor(wav, rate, effects)
    return (wav if channels_first else wav.T), rate


def read(path: str | Path, start: int = 0, frames: int = -1) -> tuple[Tensor, int]:
    """Samples (C, N) of a file in [-1, 1], and their rate (Hz)."""
    samples, rate = soundfile.read(path, start=start, frames=frames, dtype="float32", always_2d=True)
    return torch.from_numpy(np.ascontiguousarray(samples.T)), rate


def check_program() -> None:
    """Raises AudioError where the program `sox` is not on the PATH."""
    if shutil.which(PROGRAM) is None:
        raise AudioError(MISSING)


def _apply(name: str, arguments: Sequence[str], wav: Tensor, rate: int) -> tuple[Tensor, int]:
    if name == "gain":
        return (wav * 10 ** (float(arguments[-1]) / 20)).clamp(-1, 1), rate  # SoX clips, too
    if name == "rate":
        return _resampled(wav, rate, int(arguments[-1])), int(arguments[-1])
    if int(arguments[0]) != 1:
        raise AudioError(f"the effect 'channels' must be to 1 channel here, but is to {arguments[0]}")
    return wav.mean(dim=0, keepdim=True), rate  # (C, N) -> (1, N)


def _resampled(wav: Tensor, rate: int, wanted: int) -> Tensor:
    if rate == wanted:
        return wav
    import soxr

    return torch.from_numpy(np.ascontiguousarray(soxr.resample(wav.T.numpy(), rate, wanted).T))


def _run(wav: Tensor, rate: int, effects: Effects) -> tuple[Tensor, int]:
    """The effects by SoX itself, over pipes, in 32-bit floating point."""
    check_program()
    sound = io.BytesIO()
    soundfile.write(sound, wav.T.numpy(), rate, format="WAV", subtype="FLOAT")
    command = [
        PROGRAM,
        "-D",
        "-V1",
        "-t",
        "wav",
        "-",
        "-t",
        "raw",
        "-e",
        "floating-point",
        "-b",
        "32",
        "-L",
        "-",
    ]
    done = subprocess.run(
        [*command, *(word for effect in effects for word in effect)],
        input=sound.getvalue(),
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        text = " ".join(done.stderr.decode(errors="replace").split())
        raise AudioError(f"sox must apply {effects}, but failed: {text}")
    channels = next((int(effect[1]) for effect in effects if effect[0] == "channels"), wav.shape[0])
    rate = next((int(effect[-1]) for effect in effects if effect[0] == "rate"), rate)
    samples = np.frombuffer(done.stdout, dtype="<f4").reshape(-1, channels)
    return torch.from_numpy(samples.T.copy()), rate  # (N, C) -> (C, N); what is read cannot be written to
