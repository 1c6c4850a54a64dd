"""Runs what `m2dx export --onnx` wrote: `python runner.py FOLDER FILES...` prints features or labels of each file.

What cannot be read is told on stderr, and makes the exit code 1.
It needs numpy, soundfile and onnxruntime, and soxr for files whose sampling rate is not the encoder's.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import soundfile

LOUDEST = 1000.0  # of samples whose full scale is 1; those of 16 bits are above it


class Runner:
    """An exported encoder or classifier; `file` is model.onnx or model.int8.onnx, `threads` 0 takes all cores."""

    def __init__(self, folder: str | Path, file: str = "model.onnx", *, threads: int = 0) -> None:
        self.config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
        self.sample_rate: int = self.config["audio"]["sample_rate"]
        self.classifier = self.config.get("classifier")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        model = str(Path(folder) / file)
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def read(self, path: str | Path) -> np.ndarray:
        """(N,) samples of a file at `sample_rate`, channels averaged."""
        samples, rate = soundfile.read(
            path if os.name == "nt" else os.fsencode(path), dtype="float32", always_2d=True
        )
        wav: np.ndarray = samples.mean(axis=1, dtype=np.float32)
        if rate != self.sample_rate:
            import soxr

            wav = soxr.resample(wav, rate, self.sample_rate)
        return wav

    def run(self, wavs: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name for clips (N,) of any lengths: frames and clip, or logits and probabilities.

        Raises ValueError for clips that are empty, NaN, infinite, or not at full scale 1.
        """
        for wav in wavs:
            if not len(wav):
                raise ValueError("each clip must be samples, but one is empty")
            if not (peak := np.abs(wav).max()) <= LOUDEST:
                raise ValueError(
                    f"each clip must be finite samples in [-1, 1], but one reaches {peak:g}; divide those of "
                    "16 bits by 32768"
                )
        wavs = wavs if self.classifier is None else [self._unit(wav) for wav in wavs]
        lengths = np.array([len(wav) for wav in wavs], np.int64)
        batch = np.zeros((len(wavs), lengths.max()), np.float32)
        for row, wav in zip(batch, wavs, strict=True):
            row[: len(wav)] = wav
        names = [output.name for output in self.session.get_outputs()]
        return dict(zip(names, self.session.run(names, {"wav": batch, "lengths": lengths}), strict=True))

    def _unit(self, wav: np.ndarray) -> np.ndarray:
        length = max(1, round(self.classifier["unit_seconds"] * self.sample_rate))
        repeat = self.classifier["short_clips"] == "repeat"
        return np.resize(wav, length) if repeat else np.pad(wav[:length], (0, max(length - len(wav), 0)))


def main(folder: str, *paths: str) -> int:
    """Prints what each file gives; stderr says of which there is nothing, and the exit code is then 1."""
    runner, failed = Runner(folder), 0
    sys.stdout.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]  # of names that are not text
    for path in paths:
        try:
            outputs = runner.run([runner.read(path)])
        except (ImportError, OSError, RuntimeError, TypeError, ValueError) as error:
            failed += 1
            print(f"{path}: {error}", file=sys.stderr)
        else:
            print(path, *outputs["probabilities" if "probabilities" in outputs else "clip"][0])
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
