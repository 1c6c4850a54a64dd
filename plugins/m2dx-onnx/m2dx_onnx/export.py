"""ONNX files beside an export, compared with torch, and the runner that needs no m2dx."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import m2dx_encoder
import numpy as np
import onnx
import soundfile
import torch
from m2dx_encoder.runner import Runner
from numpy.typing import NDArray
from onnxruntime.quantization import QuantType, quantize_dynamic

import m2dx
from m2dx.contract.atomic import replace_json, replace_text
from m2dx.contract.wording import counted
from m2dx.encoder.config import read_config
from m2dx.encoder.weights import read_tensors
from m2dx_onnx.graph import classifier_graph, encoder_graph

MODEL, INT8, REPORT, RUNNER = "model.onnx", "model.int8.onnx", "onnx.json", "runner.py"
MOST_DIFFERENCE = 1e-3
LEVELS = (1.0, 0.01, 1e-4, 0.0)
RATES = (8000, 22_050, 44_100, 48_000)

Samples = NDArray[np.float32]


@dataclass(frozen=True)
class Comparison:
    """How far the files are from torch, over sounds of several lengths, levels and sampling rates."""

    sounds: int
    largest_difference: float  # of any value, absolute
    largest_relative: float  # of a sound's features or logits, by their norm
    int8_relative: float  # the same of the int8 file
    int8_cosine: float  # the least of a sound


def write_onnx(folder: Path) -> str:
    """Writes model.onnx, model.int8.onnx, onnx.json and runner.py beside an export; says how far they are from torch.

    Raises m2dx.CheckpointError where the ONNX file does not give what torch gives; the folder then has no ONNX file.
    """
    network: m2dx.AudioEncoder | m2dx.AudioClassifier
    if read_config(folder).classifier is None:
        network = m2dx.load_encoder(folder)
        model = encoder_graph(network)
    else:
        network = m2dx.load_classifier(folder)
        model = classifier_graph(network)
    for name in (MODEL, INT8, REPORT):
        (folder / name).unlink(missing_ok=True)
    with TemporaryDirectory(dir=folder, prefix=".onnx-") as held:
        plain, rounded = Path(held) / MODEL, Path(held) / INT8
        (Path(held) / "config.json").write_bytes((folder / "config.json").read_bytes())
        onnx.save(model, plain)
        # Convolutions stay as they are: with the log-mel in int8, features are off by half of their norm.
        logging.root.addFilter(_is_error)  # there it advises a pre-processing with each file
        try:
            quantize_dynamic(
                plain, rounded, op_types_to_quantize=["MatMul"], weight_type=QuantType.QInt8, per_channel=True
            )
        finally:
            logging.root.removeFilter(_is_error)
        found = compare(network, Path(held))
        if not found.largest_relative <= MOST_DIFFERENCE:
            raise m2dx.CheckpointError(
                f"{folder}: the ONNX file must give what torch gives, but differs by {found.largest_relative:.2g}; use "
                "the export with m2dx, and report this with its config.json"
            )
        report = asdict(found) | {"torch": torch.__version__, "onnx": onnx.__version__}
        if isinstance(network, m2dx.AudioClassifier):
            golden, _ = read_tensors(folder / m2dx_encoder.GOLDEN)
            with torch.inference_mode():
                report["golden_logits"] = network(golden["wav"])[0].tolist()
        replace_json(folder / REPORT, report)
        for path in (rounded, plain):
            os.replace(path, folder / path.name)
    replace_text(folder / RUNNER, (Path(m2dx_encoder.__file__).with_name(RUNNER)).read_text(encoding="utf-8"))
    return (
        f"{folder / MODEL}: of {counted(found.sounds, 'sound')} the largest difference from torch is "
        f"{found.largest_difference:.1e}, relative {found.largest_relative:.1e}; {INT8}: relative "
        f"{found.int8_relative:.2g}, cosine at least {found.int8_cosine:.4f}"
    )


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


def compare(network: m2dx.AudioEncoder | m2dx.AudioClassifier, folder: Path) -> Comparison:
    """What the folder's files give, one by one and in a batch, beside what the network gives for each sound alone."""
    plain, rounded = Runner(folder, MODEL), Runner(folder, INT8)
    wavs = sounds(network, folder, plain)
    expected = [outputs_of(network, wav) for wav in wavs]
    alone = [_flat(plain.run([wav])) for wav in wavs]
    batch = plain.run(wavs)
    together = [
        _flat({name: rows[place : place + 1] for name, rows in batch.items()}, len(expected[place]))
        for place in range(len(wavs))
    ]
    int8 = [_flat(rounded.run([wav])) for wav in wavs]
    apart = [one - other for given in (alone, together) for one, other in zip(given, expected, strict=True)]
    norms = [float(np.linalg.norm(one)) for one in expected]
    return Comparison(
        sounds=len(wavs),
        largest_difference=max(float(np.abs(each).max()) for each in apart),
        largest_relative=_relative(apart, norms * 2),
        int8_relative=_relative([a - b for a, b in zip(int8, expected, strict=True)], norms),
        int8_cosine=min(
            float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for a, b in zip(int8, expected, strict=True)
        ),
    )


def sounds(network: m2dx.AudioEncoder | m2dx.AudioClassifier, folder: Path, runner: Runner) -> list[Samples]:
    """Noise of several lengths, from a frame to more than three inputs, at several levels; and of other rates."""
    encoder = network.network.encoder if isinstance(network, m2dx.AudioClassifier) else network
    hop, length = encoder.logmel.hop_length, encoder.encoder.grid.input_size[1] * encoder.logmel.hop_length
    draw = np.random.default_rng(0)
    lengths = (hop, 3 * hop + 1, network.sample_rate, length, length + hop, 3 * length + 7 * hop + 3)
    noise = [draw.standard_normal(count).astype(np.float32) * np.float32(0.1) for count in lengths]
    found = [wav * np.float32(level) for wav in noise for level in LEVELS]
    for rate in RATES:
        path = folder / f"{rate}.wav"
        soundfile.write(path, 0.1 * draw.standard_normal((rate, 2)), rate, subtype="FLOAT")
        own = m2dx.read_wav(path, sample_rate=network.sample_rate)
        np.testing.assert_allclose(runner.read(path), own, atol=1e-6)
        found.append(own)
    return found


@torch.inference_mode()
def outputs_of(network: m2dx.AudioEncoder | m2dx.AudioClassifier, wav: Samples) -> Samples:
    """Frames of an encoder, or logits of a classifier, as one row of values."""
    found: Samples = network(torch.from_numpy(wav)).numpy().ravel()
    return found


def _flat(outputs: dict[str, Samples], count: int | None = None) -> Samples:
    return outputs["frames" if "frames" in outputs else "logits"].ravel()[:count]


def _relative(apart: Sequence[Samples], norms: Sequence[float]) -> float:
    return max(float(np.linalg.norm(each)) / norm for each, norm in zip(apart, norms, strict=True))
