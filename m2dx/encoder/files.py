"""Features of audio files, as .npy files or one Parquet table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray

from m2dx.contract.atomic import replace_file
from m2dx.contract.errors import AudioError
from m2dx.data.reading import read_wav
from m2dx.encoder.audio import AudioEncoder
from m2dx.model.precision import autocast


@dataclass(frozen=True)
class EncodedFile:
    """The features of one file."""

    path: Path
    features: NDArray[np.float32]  # (F*D,) of the clip, or (T, F*D) by frame


def encode_files(
    encoder: AudioEncoder, paths: Sequence[Path], *, frames: bool, bad: list[tuple[Path, str]]
) -> Iterator[EncodedFile]:
    """Clip (or frame) features of each file, whole; files that cannot be read are added to `bad` with the reason."""
    device = next(encoder.parameters()).device
    for path in paths:
        try:
            wav = torch.from_numpy(read_wav(path, sample_rate=encoder.sample_rate)).to(device)
        except AudioError as error:
            bad.append((path, str(error)))
            continue
        with torch.inference_mode(), autocast("fp32", device):
            features = encoder(wav)[0] if frames else encoder.clip(wav)[0]
        yield EncodedFile(path, features.float().cpu().numpy())


def write_npy(encoded: Iterable[EncodedFile], folder: Path) -> int:
    """One .npy file per audio file, `<its name>.npy`; the number written. AudioError where two names are the same."""
    written: dict[str, Path] = {}
    for item in encoded:
        name = f"{item.path.name}.npy"
        if name in written:
            raise AudioError(
                f"names must differ to be written beside each other, but {written[name]} and {item.path} are both "
                f"{item.path.name}; write a Parquet table instead (--output FILE.parquet)"
            )
        replace_file(folder / name, partial(np.save, arr=item.features))
        written[name] = item.path
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
            for item in encoded:
                rows = np.atleast_2d(item.features)
                columns = [[str(item.path)] * len(rows), list(range(len(rows))), list(rows)]
                writer.write_table(pa.table(columns, schema=schema))
                count += 1

    replace_file(path, write)
    return count
