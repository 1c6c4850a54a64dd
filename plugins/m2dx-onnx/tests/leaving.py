"""What an exported encoder gives outside of m2dx, measured: the tables of docs/leaving.md.

`python plugins/m2dx-onnx/tests/leaving.py features DATA` (or latency, scores DATA, golden) prints a table. DATA is a
folder of recordings, with the lists drums.csv, instrument.csv and esc10.csv in any folder below it.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import m2dx_encoder
import numpy as np
import soundfile
import soxr
import torch
from m2dx_encoder.runner import Runner
from m2dx_onnx.export import write_onnx
from numpy.typing import NDArray

import m2dx
from m2dx.contract.atomic import replace_file
from m2dx.contract.components import ViTSize
from m2dx.contract.package import find_encoder
from m2dx.data.csv_list import CsvDataset
from m2dx.encoder.audio import AudioEncoder
from m2dx.encoder.config import EncoderConfig
from m2dx.encoder.golden import GOLDEN, check_golden, golden_writer
from m2dx.encoder.weights import export_encoder, write_export
from m2dx.evaluation.knn import Knn
from m2dx.evaluation.logistic import Logistic
from m2dx.evaluation.tasks import ClipTask
from m2dx.model.shapes import build_logmel
from m2dx.model.vit import Encoder
from m2dx.recipe.schema import AudioSection

CLIPS = 200
FORMATS = {  # suffix, and the subtype of soundfile
    "WAV 8 bits": ("wav", "PCM_U8"),
    "WAV 16 bits": ("wav", "PCM_16"),
    "WAV 24 bits": ("wav", "PCM_24"),
    "WAV float": ("wav", "FLOAT"),
    "FLAC": ("flac", "PCM_16"),
    "AIFF": ("aiff", "PCM_16"),
    "CAF, ALAC": ("caf", "ALAC_16"),
    "AU, mu-law": ("au", "ULAW"),
    "Ogg Vorbis": ("ogg", "VORBIS"),
    "Ogg Opus": ("opus", "OPUS"),
    "MP3": ("mp3", "MPEG_LAYER_III"),
}
RATES = (8000, 16_000, 24_000, 48_000, 44_100)  # Opus has no 44.1 kHz
INT8 = "model.int8.onnx"
SIZES = {"tiny": ViTSize(192, 12, 3), "small": ViTSize(384, 12, 6), "base": ViTSize(768, 12, 12)}

Samples = NDArray[np.float32]


def exported(encoder: str, folder: Path) -> Path:
    """The export of an encoder, with its ONNX files."""
    export_encoder(find_encoder(encoder), folder)
    print(write_onnx(folder), "\n", flush=True)
    return folder


def random_config(size: ViTSize) -> EncoderConfig:
    """Of an encoder with the published input of 6.08 s."""
    audio = AudioSection(crop_seconds=6.08)
    return EncoderConfig(input_size=(80, 608), patch_size=(16, 16), vit=size, audio=audio, mean=-7.0, std=4.0)


def written(data: Path, folder: Path) -> Iterator[tuple[str, Path]]:
    """The format and the file of real clips of 0.1 to 20 s, in all formats, at several rates, mono and stereo."""
    sources = sorted(path for suffix in ("ogg", "wav") for path in data.rglob(f"*.{suffix}"))
    draw = np.random.default_rng(0)
    for number, source in enumerate(draw.permutation(np.array(sources, object))[:CLIPS]):
        name = list(FORMATS)[number % len(FORMATS)]
        suffix, subtype = FORMATS[name]
        rate = RATES[number // len(FORMATS) % (4 if suffix == "opus" else 5)]
        wav, own = soundfile.read(source, dtype="float32", always_2d=True)
        wav = soxr.resample(wav, own, rate)[: int(rate * draw.uniform(0.1, 20))]
        if draw.uniform() < 0.5:
            wav = np.repeat(wav[:, :1], 2, axis=1) * np.array([1.0, 0.5], np.float32)
        path = folder / f"{number}.{suffix}"
        soundfile.write(path, wav, rate, subtype, format={"opus": "OGG"}.get(suffix))
        yield name, path


def features(args: argparse.Namespace) -> None:
    """Clip features of files from torch, ONNX, the light package, and int8; differences relative to their norm."""
    with TemporaryDirectory() as held:
        folder = exported(args.encoder, Path(held) / "encoder")
        torchs, light = m2dx.load_encoder(folder), m2dx_encoder.Encoder(folder, threads=1)
        plain, rounded = Runner(folder, threads=1), Runner(folder, INT8, threads=1)
        found: dict[str, list[tuple[float, ...]]] = {}
        for name, path in written(args.data, Path(held)):
            expected = torchs.encode_file(path).numpy()
            wav = m2dx.read_wav(path, sample_rate=torchs.sample_rate)
            given = [
                plain.run([wav])["frames"][0],
                light.frames([light.read(path)])[0],
                rounded.run([wav])["frames"][0],
            ]
            norm = np.linalg.norm(expected)
            row = [float(np.linalg.norm(one - expected) / norm) for one in given]
            cosine = float(given[2].ravel() @ expected.ravel() / norm / np.linalg.norm(given[2]))
            found.setdefault(name, []).append((len(wav) / torchs.sample_rate, *row, cosine))
        found = dict(sorted(found.items())) | {"all": list(itertools.chain(*found.values()))}
    table(
        ["format", "clips", "seconds", "ONNX", "light package", "int8", "int8, least cosine"],
        [
            [
                name, len(rows), f"{min(r[0] for r in rows):.1f} to {max(r[0] for r in rows):.1f}",
                *(f"{max(r[i] for r in rows):.1e}" for i in (1, 2)), f"{max(r[3] for r in rows):.2f}",
                f"{min(r[4] for r in rows):.3f}",
            ]
            for name, rows in found.items()
        ],
    )  # fmt: skip


def latency(args: argparse.Namespace) -> None:
    """Medians of paired timings of torch, ONNX and int8, and of their ratios."""
    with TemporaryDirectory() as held:
        if args.encoder == "base":
            config = random_config(SIZES["base"])
            write_export(Path(held) / "base", Encoder(config.grid, config.vit), config)
            args.encoder = str(Path(held) / "base")
        folder = exported(args.encoder, Path(held) / "encoder")
        encoder, rows = m2dx.load_encoder(folder), []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            runners = [Runner(folder, file, threads=threads) for file in ("model.onnx", INT8)]
            for seconds, batch in itertools.product((1, 10, 60), (1, 8)):
                wav = np.random.default_rng(0).standard_normal((batch, seconds * 16_000)).astype(np.float32)
                wav *= np.float32(0.1)
                calls = [lambda: encoder.clip(torch.from_numpy(wav))]  # noqa: B023
                calls += [lambda one=one: one.run(list(wav)) for one in runners]  # type: ignore[misc] # noqa: B023
                times = np.array(paired(calls, most_seconds=args.seconds))  # (n, 3)
                ratios = np.median(times[:, :1] / times[:, 1:], axis=0)
                shown = [f"{1000 * value:.1f}" for value in np.median(times, axis=0)]
                rows.append(
                    [threads, seconds, batch, *shown, *(f"{ratio:.2f}" for ratio in ratios), len(times)]
                )
    table(
        ["threads", "seconds", "batch", "torch, ms", "ONNX, ms", "int8, ms", "ONNX is faster by", "int8 by", "timings"],
        rows,
    )  # fmt: skip


@torch.inference_mode()
def paired(
    calls: Sequence[Callable[[], object]], *, most_seconds: float, most: int = 30
) -> list[list[float]]:
    """Seconds of each call, in turns, after one for warming up."""
    for call in calls:
        call()
    end, found = time.perf_counter() + most_seconds, list[list[float]]()
    while len(found) < 3 or (len(found) < most and time.perf_counter() < end):
        row = []
        for call in calls:
            start = time.perf_counter()
            call()
            row.append(time.perf_counter() - start)
        found.append(row)
    return found


@dataclass(frozen=True)
class Given:
    """Clip features (B, F*D) of samples (B, N) by a function: an encoder that tasks can be scored with."""

    clip: Callable[[torch.Tensor], torch.Tensor]
    embed_dim: int
    sample_rate: int


def remembered(way: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    """The same, computed once for each batch."""
    held: dict[bytes, torch.Tensor] = {}

    def clip(wav: torch.Tensor) -> torch.Tensor:
        key = wav.numpy().tobytes()
        if key not in held:
            held[key] = way(wav)
        return held[key]

    return clip


def of_runner(runner: Runner) -> Callable[[torch.Tensor], torch.Tensor]:
    """Clip features by an ONNX file."""
    return lambda wav: torch.from_numpy(runner.run(list(wav.numpy()))["clip"])


def scores(args: argparse.Namespace) -> None:
    """kNN and logistic regression on the features of torch, of ONNX and of int8: all of the last layer's mean."""
    with TemporaryDirectory() as held:
        folder = exported(args.encoder, Path(held) / "encoder")
        torchs, rows = m2dx.load_encoder(folder), []
        ways = [torchs.clip, *(of_runner(Runner(folder, name, threads=1)) for name in ("model.onnx", INT8))]
        encoders = [Given(remembered(way), torchs.embed_dim, torchs.sample_rate) for way in ways]
        for name in args.lists:
            path = next(args.data.rglob(f"{name}.csv"))
            task = ClipTask.from_dataset(name, CsvDataset(path=path), unit_seconds=args.unit_seconds)
            for protocol, evaluator in (("knn", Knn()), ("logistic", Logistic())):
                values = []
                for encoder in encoders:
                    (score, *_) = evaluator.evaluate(encoder, task, seeds=(0,))
                    values.append(score)
                shown = [f"{100 * score.mean:.1f}" for score in values]
                rows.append([name, protocol, *shown, f"{100 * (values[2].mean - values[0].mean):+.1f}"])
                print(rows[-1], flush=True)
    table(["task", "protocol", "torch", "ONNX", "int8", "int8 against torch"], rows)


def golden(args: argparse.Namespace) -> None:
    """How long the check of the golden clip takes at each load, of networks with the published input of 6.08 s."""
    rows = []
    with TemporaryDirectory() as held:
        for name, size in SIZES.items():
            config = random_config(size)
            network = AudioEncoder(
                Encoder(config.grid, size), build_logmel(config.audio), mean=config.mean, std=config.std
            ).eval()
            replace_file(Path(held) / GOLDEN, golden_writer(network))
            for threads in (1, 2):
                torch.set_num_threads(threads)
                times = paired([lambda: check_golden(network, Path(held))], most_seconds=args.seconds)  # noqa: B023
                rows.append([name, threads, *(f"{1000 * of(times):.0f}" for of in (np.median, np.min))])
    table(["size", "threads", "median, ms", "least, ms"], rows)


def table(head: Sequence[object], rows: Sequence[Sequence[object]]) -> None:
    """Prints Markdown."""
    for row in (head, ["---"] * len(head), *rows):
        print("|", " | ".join(map(str, row)), "|")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["features", "latency", "scores", "golden"])
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--encoder", default="starter", help="for latency also base: random weights")
    parser.add_argument("--seconds", type=float, default=4.0, help="of timings, for each line")
    parser.add_argument("--lists", nargs="+", default=["drums", "instrument", "esc10"])
    parser.add_argument("--unit-seconds", type=float, default=None)
    arguments = parser.parse_args()
    globals()[arguments.what](arguments)
