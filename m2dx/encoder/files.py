"""Features of audio files, as tables or arrays; a few minutes of audio are held at a time."""

from __future__ import annotations

import codecs
import csv
import logging
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from m2dx.contract.atomic import replace_file
from m2dx.contract.components import Clip
from m2dx.contract.errors import AudioError, CheckpointError, M2dxError
from m2dx.contract.progress import Progress
from m2dx.contract.wording import some_of
from m2dx.data.pcm import check_scale
from m2dx.data.reading import AudioFile
from m2dx.encoder.audio import AudioEncoder
from m2dx.model.precision import autocast

logger = logging.getLogger(__name__)

TABLES = (".csv", ".npy", ".npz", ".parquet")  # suffixes of files that hold the features of all clips
MOST_BYTES_OF_NAME = 242
"""Of an audio file whose features become a file of their own: `.NAME.npy.partial` has 255 at most."""
_PATCHES = {"cuda": 16_384}
"""Patches that go through the network at a time, by device; more would take memory, and save no time."""
_PATCHES_ELSEWHERE = 2048

UnreadableFiles = list[tuple[Path, str]]


@dataclass(frozen=True, eq=False)
class Encoded:
    """The features of a clip, in one row, or of its T frames."""

    path: Path
    times: NDArray[np.float64]  # (T, 2) start and end of each row, s from the beginning of the file
    features: NDArray[np.float32]  # (T, F*D)


@dataclass(eq=False)
class Reading:
    """A clip that is being read."""

    path: Path
    start: float = 0.0  # s
    end: float = 0.0
    failed: bool = False


ClipPart = tuple[Reading, Tensor]


def encode_clips(
    encoder: AudioEncoder, clips: Sequence[Clip], *, frames: bool, bad: UnreadableFiles, progress: Progress
) -> Iterator[Encoded]:
    """Features of each clip, or of its frames, in order; clips that cannot be read go to `bad` with the reason.

    Inputs of the network go through it together where they are equally long. Raises CheckpointError for features that
    are not finite.
    """
    grid = encoder.encoder.grid
    parts = read_parts(clips, encoder.stream, encoder, bad, progress)
    outputs = by_clip(parts, lambda x: encoder.encode_logmel(x)[-1], grid.num_patches / grid.input_size[1])
    for clip, features in outputs:
        rows = _joined(features, encoder.embed_dim) if frames else _mean(features)
        if not clip.failed:
            edges = clip.start + encoder.times(len(rows) + 1).numpy() - 0.5 / encoder.frame_rate
            edges[0], edges[-1] = clip.start, clip.end  # the last patch may be filled up
            yield Encoded(clip.path, np.stack((edges[:-1], edges[1:]), axis=1), rows)


def _joined(parts: Iterable[NDArray[np.float32]], width: int) -> NDArray[np.float32]:
    """(T, D), the rows of all parts, which are not held twice."""
    held = bytearray()
    for part in parts:
        held += part.tobytes()
    return np.frombuffer(held, np.float32).reshape(-1, width)


def _mean(parts: Iterable[NDArray[np.float32]]) -> NDArray[np.float32]:
    """(1, D), the mean of all rows (T, D) of the parts, of which one is held at a time."""
    total, count = np.zeros(1), 0
    for part in parts:
        total, count = total + part.sum(axis=0, dtype=np.float64), count + len(part)
    return (total[None] / count).astype(np.float32)


def check_table(output: Path, inputs: Sequence[Path], *, suffixes: Sequence[str] = TABLES) -> None:
    """Raises M2dxError where a table would take the place of what it is made from, or of no file."""
    if output.suffix.lower() not in suffixes:
        raise M2dxError(f"--output must be a file ({', '.join(suffixes)}), but is {output}")
    if output.exists() and not output.is_file():
        raise M2dxError(
            f"--output must be a file, but {output} is {'a folder' if output.is_dir() else 'none'}"
        )
    if os.path.realpath(output) in map(os.path.realpath, inputs):
        raise M2dxError(f"--output must be another file than those that are read, but is {output}")


def check_output(output: Path, clips: Sequence[Clip], inputs: Sequence[Path] = ()) -> None:
    """Raises M2dxError where `write_features` would not write features of these clips; `inputs` are lists of them."""
    suffix = output.suffix.lower()
    if suffix in TABLES and not output.is_dir():
        check_table(output, [*inputs, *(clip.path for clip in clips)])
    if output.is_dir() if suffix in TABLES else (suffix or output.exists()) and not output.is_dir():
        raise M2dxError(f"--output must be a folder or a file ({', '.join(TABLES)}), but is {output}")
    if suffix == ".parquet" and find_spec("pyarrow") is None:
        raise M2dxError("Parquet needs pyarrow: pip install 'm2dx[parquet]'; or take .csv, .npy or .npz")
    if suffix not in TABLES:
        fold = str if sys.platform == "linux" else str.casefold  # others' disks take A.wav for a.wav
        if long := [clip.path for clip in clips if len(os.fsencode(clip.path.name)) > MOST_BYTES_OF_NAME]:
            raise M2dxError(
                f"{long[0]}: the name is too long for a file beside it; write a table instead (-o features.csv)"
            )
        name, count = Counter(fold(clip.path.name) for clip in clips).most_common(1)[0]
        if count > 1:
            raise M2dxError(
                f"names must differ to be written beside each other, but {count} clips are of a file {name}; write a "
                "table instead (--output features.csv)"
            )


def write_features(encoded: Iterator[Encoded], output: Path, *, frames: bool) -> None:
    """Writes a file of one of `TABLES`, or a folder of .npy files named as the audio files.

    Each file appears when it is whole. Nothing is written without clips, and what is there stays. Raises OSError.
    """
    suffix = output.suffix.lower()
    if suffix not in TABLES:
        for item in encoded:
            array = item.features if frames else item.features[0]
            replace_file(output / f"{item.path.name}.npy", partial(np.save, arr=array))
    elif first := next(encoded, None):
        items = chain([first], encoded)
        write = partial(_write_csv, items) if suffix == ".csv" else partial(_write_arrays, items, output)
        replace_file(output, write)


def csv_table(file: BinaryIO) -> Any:
    """A `csv.writer` in UTF-8."""
    return csv.writer(codecs.getwriter("utf-8")(file, "backslashreplace"), lineterminator="\n")


def _write_csv(encoded: Iterable[Encoded], file: BinaryIO) -> None:
    table = csv_table(file)
    for number, item in enumerate(encoded):
        if number == 0:
            table.writerow(["path", "start", "end", *(f"f{i}" for i in range(item.features.shape[1]))])
        for times, row in zip(item.times, item.features, strict=True):
            table.writerow([item.path, *(f"{x:.3f}" for x in times), *(f"{x:.8g}" for x in row.tolist())])


def _write_arrays(encoded: Iterable[Encoded], output: Path, file: BinaryIO) -> None:
    paths: list[str] = []
    times = []
    with TemporaryFile(dir=output.parent) as held:  # features may be more than the memory holds
        for item in encoded:
            held.write(item.features.tobytes())
            paths += [str(item.path).encode(errors="backslashreplace").decode()] * len(item.times)
            times.append(item.times)
        held.flush()
        features = np.memmap(held, np.float32, "r").reshape(len(paths), -1)
        start, end = np.concatenate(times).T
        if output.suffix.lower() == ".npy":
            np.save(file, features)
        elif output.suffix.lower() == ".npz":
            np.savez(file, path=np.array(paths), start=start, end=end, features=features)
        else:
            import pyarrow as pa
            import pyarrow.parquet as pq

            rows = pa.FixedSizeListArray.from_arrays(pa.array(features.ravel()), features.shape[1])
            columns = {"path": paths, "start": start, "end": end, "features": rows}
            pq.write_table(pa.table(columns), file, row_group_size=16_384)


def read_parts(
    clips: Sequence[Clip],
    cut: Callable[[Iterable[Tensor]], Iterator[Tensor]],
    encoder: AudioEncoder,
    bad: UnreadableFiles,
    progress: Progress,
) -> Iterator[ClipPart]:
    """Each part that `cut` makes of the samples (1, N) of a clip, with the clip, one clip after another.

    A warning counts the clips that are shorter than a frame of the log-mel.
    """
    device, hop = next(encoder.parameters()).device, encoder.logmel.hop_length
    short: list[str] = []

    def samples(file: AudioFile, first: int, frames: int, number: int) -> Iterator[Tensor]:
        done = 0.0  # s
        for piece in file.pieces(first, frames, sample_rate=encoder.sample_rate):
            yield torch.from_numpy(check_scale(piece))[None].to(device)  # (1, N)
            done += len(piece) / encoder.sample_rate
            progress(number + done * file.info.sample_rate / frames, len(clips), "")

    for number, clip in enumerate(clips):
        reading = Reading(clip.path)
        try:
            with AudioFile(clip.path) as file:
                first, frames = file.extent(clip.start, clip.duration)
                reading.start = first / file.info.sample_rate
                reading.end = reading.start + frames / file.info.sample_rate
                yield from ((reading, part) for part in cut(samples(file, first, frames, number)))
                if frames * encoder.sample_rate < hop * file.info.sample_rate:
                    short.append(str(clip.path))
        except AudioError as error:
            reading.failed = True
            bad.append((clip.path, str(error)))
        progress(number + 1, len(clips), "")
    if short:
        logger.warning(
            "%d of %d clips are shorter than a frame of the log-mel (%.3g s), which says little: %s",
            len(short), len(clips), hop / encoder.sample_rate, some_of(short)
        )  # fmt: skip


def by_clip(
    parts: Iterator[ClipPart], network: Callable[[Tensor], Tensor], patches: float
) -> Iterator[tuple[Reading, Iterator[NDArray[np.float32]]]]:
    """What the network gives for the parts (1, ..., N) of each clip, in order.

    `patches` (how many each of the N stands for) says how many parts are read before they go through it, those of one
    shape together. Whether the clip has failed is known after its last part.
    """

    def outputs() -> Iterator[tuple[Reading, NDArray[np.float32]]]:
        window: list[ClipPart] = []
        waiting = 0.0
        for reading, part in parts:
            window.append((reading, part))
            waiting += patches * part.shape[-1]
            if waiting >= _PATCHES.get(part.device.type, _PATCHES_ELSEWHERE):
                yield from _together(window, network)
                window, waiting = [], 0.0
        yield from _together(window, network)

    for clip, group in groupby(outputs(), key=itemgetter(0)):
        yield clip, map(itemgetter(1), group)


def _together(
    parts: Sequence[ClipPart], network: Callable[[Tensor], Tensor]
) -> Iterator[tuple[Reading, NDArray[np.float32]]]:
    alike: dict[torch.Size, list[int]] = {}
    for number, (_, part) in enumerate(parts):
        alike.setdefault(part.shape, []).append(number)
    found: dict[int, NDArray[np.float32]] = {}
    for numbers in alike.values():
        batch = torch.cat([parts[number][1] for number in numbers])
        with torch.inference_mode(), autocast("fp32", batch.device):
            found |= zip(numbers, network(batch).float().cpu().numpy(), strict=True)
    for number, (reading, _) in enumerate(parts):
        if not np.isfinite(found[number]).all():
            raise CheckpointError(
                f"{reading.path}: what the network gives must be finite, but is not; its weights, mean or std are "
                "damaged: export it anew from its checkpoint"
            )
        yield reading, found[number]
