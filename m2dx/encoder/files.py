"""Features of audio files, as .npy files or one Parquet table, and probabilities of their labels, as CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO, TextIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from m2dx.contract.atomic import replace_file
from m2dx.contract.errors import AudioError
from m2dx.data.reading import read_wav
from m2dx.encoder.audio import AudioEncoder
from m2dx.encoder.finetuned import AudioClassifier
from m2dx.model.precision import autocast

EncodedFile = tuple[Path, NDArray[np.float32]]
"""A file, and the features (F*D,) of its clip, or (T, F*D) by frame."""


def encode_files(
    encoder: AudioEncoder, paths: Sequence[Path], *, frames: bool, bad: list[tuple[Path, str]]
) -> Iterator[EncodedFile]:
    """Clip (or frame) features of each file, whole; files that cannot be read are added to `bad` with the reason."""
    device = next(encoder.parameters()).device
    for path, wav in _read(paths, encoder.sample_rate, bad):
        with torch.inference_mode(), autocast("fp32", device):
            features = encoder(wav.to(device))[0] if frames else encoder.clip(wav.to(device))[0]
        yield path, features.float().cpu().numpy()


def write_npy(encoded: Iterable[EncodedFile], folder: Path) -> int:
    """One .npy file per audio file, `<its name>.npy`; the number written. AudioError where two names are the same."""
    written: dict[str, Path] = {}
    for path, features in encoded:
        name = f"{path.name}.npy"
        if name in written:
            raise AudioError(
                f"names must differ to be written beside each other, but {written[name]} and {path} are both "
                f"{path.name}; write a Parquet table instead (--output FILE.parquet)"
            )
        replace_file(folder / name, partial(np.save, arr=features))
        written[name] = path
    return len(written)


def write_parquet(encoded: Iterable[EncodedFile], path: Path) -> int:
    """One table with columns `path`, `frame` and `features` (a row per clip, or per frame); the number of files."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise AudioError("Parquet needs pyarrow: pip install 'm2dx[parquet]'") from error
    schema = pa.schema([("path", pa.string()), ("frame", pa.int32()), ("features", pa.list_(pa.float32()))])
    count = 0

    def write(file: BinaryIO) -> None:
        nonlocal count
        with pq.ParquetWriter(file, schema) as writer:
            for source, features in encoded:
                rows = np.atleast_2d(features)
                columns = [[str(source)] * len(rows), list(range(len(rows))), list(rows)]
                writer.write_table(pa.table(columns, schema=schema))
                count += 1

    replace_file(path, write)
    return count


def classify_files(
    classifier: AudioClassifier,
    paths: Sequence[Path],
    file: TextIO,
    *,
    whole: bool,
    bad: list[tuple[Path, str]],
) -> int:
    """Writes a CSV row per stretch: path, start and end (s), the most probable label, and each one's probability.

    A stretch is the first `unit_seconds` of a file, or with `whole` each part of that length. Files that cannot be read
    are added to `bad` with the reason. Returns the number of the others.
    """
    table = csv.writer(file, lineterminator="\n")
    table.writerow(["path", "start", "end", "label", *classifier.label_names])
    rate, length, count = classifier.sample_rate, classifier.unit_samples, 0
    for path, wav in _read(paths, rate, bad):
        count += 1
        for number, stretch in enumerate(wav.split(length) if whole else (wav[:length],)):
            start, found = number * length / rate, classifier.probabilities(stretch)[0]
            label = classifier.label_names[int(found.argmax())]
            times = (f"{start:.3f}", f"{start + len(stretch) / rate:.3f}")
            table.writerow([path, *times, label, *(f"{value:.4f}" for value in found.tolist())])
    return count


def _read(
    paths: Iterable[Path], sample_rate: int, bad: list[tuple[Path, str]]
) -> Iterator[tuple[Path, Tensor]]:
    for path in paths:
        try:
            yield path, torch.from_numpy(read_wav(path, sample_rate=sample_rate))
        except AudioError as error:
            bad.append((path, str(error)))
