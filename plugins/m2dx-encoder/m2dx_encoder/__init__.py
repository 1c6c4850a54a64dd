"""Features of an exported m2dx encoder without torch: numpy, onnxruntime, soundfile and soxr are all it takes.

encoder = m2dx_encoder.Encoder("lungs")            # the folder that `m2dx export RUN lungs --onnx` wrote
encoder.clip([encoder.read("a.wav"), wav])         # (2, F*D); each clip has the features that it has alone
encoder.frames([wav])                              # a list of (T, F*D); their middles: encoder.times(T), s
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2dx_encoder.runner import Runner

GOLDEN = "golden.safetensors"
MOST_DIFFERENCE = {"model.onnx": 1e-3}
"""Relative, of the golden clip's features; elsewhere, in int8, `MOST_ROUNDED`."""
MOST_ROUNDED = 0.5

Samples = NDArray[np.float32]


class ExportError(Exception):
    """A folder that is no whole export with an ONNX file, or no longer gives what it gave."""


class Encoder(Runner):
    """An exported encoder or classifier, checked against its golden clip.

    Attributes: `sample_rate` (Hz), `embed_dim` (F*D), `frame_rate` (Hz), `label_names` (of a classifier). Raises
    ExportError where the folder lacks something, or gives something else than it gave when it was written.
    """

    def __init__(self, folder: str | Path, file: str = "model.onnx", *, threads: int = 0) -> None:
        folder = Path(folder)
        for name in ("config.json", GOLDEN, file):
            if not (folder / name).is_file():
                raise ExportError(
                    f"{folder}: must have {name}; write it with `m2dx export RUN {folder} --onnx`"
                )
        try:
            super().__init__(folder, file, threads=threads)
            self.embed_dim, self.frame_rate = self.config["embed_dim"], self.config["frame_rate"]
            self._hop: int = self.config["audio"]["hop_length"]
            self._patch: int = self.config["patch_size"][1]
            golden = read_safetensors(folder / GOLDEN)
            off = self._off(golden, folder)
        except Exception as error:  # onnxruntime has its own kinds
            raise ExportError(f"{folder}: not a whole export: {type(error).__name__}: {error}") from error
        self.label_names = [] if self.classifier is None else list(self.classifier["label_names"])
        if not off <= MOST_DIFFERENCE.get(file, MOST_ROUNDED):
            raise ExportError(
                f"{folder}: {file} must give what {GOLDEN} holds for its sound, but is off by {off:.2g} of its norm: "
                "one of the files is of another export, or was changed; export or copy the folder again"
            )

    def clip(self, wavs: Sequence[Samples]) -> Samples:
        """(B, F*D), the mean over time, of clips (N,) at `sample_rate` of any lengths; ValueError for no audio."""
        return self._output("clip", wavs)

    def frames(self, wavs: Sequence[Samples]) -> list[Samples]:
        """(T, F*D) of each clip (N,), as `clip`."""
        found = self._output("frames", wavs)
        return [rows[: self.num_frames(len(wav))] for rows, wav in zip(found, wavs, strict=True)]

    def probabilities(self, wavs: Sequence[Samples]) -> Samples:
        """(B, C) of a classifier's labels, as `clip`."""
        return self._output("probabilities", wavs)

    def num_frames(self, samples: int) -> int:
        """T of N samples."""
        return -(-max(samples // self._hop, 1) // self._patch)

    def times(self, frames: int) -> NDArray[np.floating[Any]]:
        """(T,) middles of the first T frames, s from the first sample."""
        middles: NDArray[np.floating[Any]] = np.arange(frames) * self._patch + (self._patch - 1) / 2
        return middles * self._hop / self.sample_rate

    def _output(self, name: str, wavs: Sequence[Samples]) -> Samples:
        if not len(wavs):
            raise ValueError("there must be at least one clip, but there is none")
        outputs = self.run([self._checked(wav) for wav in wavs])
        if name not in outputs:
            raise ValueError(f"the export must give {name}, but gives {' and '.join(outputs)}")
        found: Samples = outputs[name]
        return found

    def _checked(self, wav: Any) -> Samples:
        if not isinstance(wav, np.ndarray) or wav.dtype.kind != "f" or wav.ndim != 1 or len(wav) < self._hop:
            what = f"{wav.dtype} {wav.shape}" if isinstance(wav, np.ndarray) else type(wav).__name__
            raise ValueError(
                f"each clip must be an array (N,) of floats with N >= {self._hop}, but is {what}"
            )
        return wav.astype(np.float32, copy=False)

    def _off(self, golden: dict[str, Samples], folder: Path) -> float:
        """By how much the golden clip's outputs differ, relative to their norm."""
        found = self.run([golden["wav"]])
        if self.classifier is None:
            expected = golden["frames"][0]
            given = found["frames"][0][: len(expected)]
        else:
            expected = np.array(json.loads((folder / "onnx.json").read_text())["golden_logits"], np.float32)
            given = found["logits"][0]
        if given.shape != expected.shape:
            return float("inf")
        return float(np.linalg.norm(given - expected) / np.linalg.norm(expected))


def read_safetensors(path: Path) -> dict[str, Samples]:
    """The float32 tensors of a safetensors file: the length of a JSON header, the header, then all values."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header.pop("__metadata__", None)
    return {
        name: np.frombuffer(
            content[slice(*(start + at for at in about["data_offsets"]))], np.float32
        ).reshape(about["shape"])
        for name, about in header.items()
    }
