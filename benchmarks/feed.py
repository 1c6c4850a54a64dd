"""Speed of the feed: clips per second through the training loader, by format of the files and number of workers.

Crops of 6 s from clips of 10 s at 16 kHz, cut from real recordings, with labels and masks drawn. See
benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import timing
import torch
from m2dx_pack.packing import ClipSet, PackOptions, pack
from m2dx_pack.reading import PackedDataset
from numpy.typing import NDArray
from timing import Quartiles

from m2dx.contract.components import Dataset
from m2dx.contract.errors import M2dxError
from m2dx.data.batches import TrainingBatches
from m2dx.data.clips import ClipList, join_sets
from m2dx.data.crops import AudioCrops, TrainingCrops
from m2dx.data.csv_list import CsvDataset
from m2dx.data.files import list_audio
from m2dx.data.loader import batch_loader
from m2dx.data.noise import ClipNoise
from m2dx.data.reading import read_wav

SOUNDS = Path(__file__).resolve().parents[1] / "examples" / "sounds"
RATE = 16_000  # Hz
FORMATS = ("wav", "flac", "ogg", "packed-wav", "packed-flac")
CLASSES = 50
PATCHES = 190  # of 16 x 16 in 80 x 608
PREFETCH = 4  # batches per worker, as in training


@dataclass(frozen=True)
class Setting:
    """What one row of the table is about."""

    form: str
    workers: int

    def __str__(self) -> str:
        return f"{self.form} {self.workers} workers"


@dataclass(frozen=True)
class Timing:
    """Clips per second of one timing."""

    clock: float
    own: float  # by the processor time of this process
    samples: str  # type in which they travel

    def __str__(self) -> str:
        return f"{self.clock:.0f}"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = timing.options_of(__doc__, recipe_fields=False)
    add, at_least = parser.add_argument, timing.at_least
    add("--sounds", type=Path, default=SOUNDS, help="folder of recordings to cut clips from")
    add("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    add("--workers", type=at_least(0), nargs="+", default=[0, 1, 2], help="loading processes")
    add("--clips", type=at_least(1), default=400, help="clips of each format")
    add("--seconds", type=float, default=10.0, help="length of a clip, s")
    add("--crop-seconds", type=float, default=6.0, help="length of a crop, s")
    add("--batch", type=at_least(1), default=32, help="clips per batch")
    add("--batches", type=at_least(1), default=20, help="batches of one timing")
    add("--repeats", type=at_least(1), default=5, help="timings of each setting")
    add("--noise", action="store_true", help="a noise crop of the same files with each clip")
    add("--cold", action="store_true", help="drop the files from the page cache before each timing")
    add("--folder", type=Path, help="keep the clips here; default a temporary folder")
    return parser.parse_args(arguments)


def pieces(folder: Path, seconds: float) -> Iterator[NDArray[np.int16]]:
    """Clips of 16-bit samples, from all recordings of a folder one after the other, over and over."""
    length, rest = round(seconds * RATE), np.zeros(0, dtype=np.float32)
    files = list_audio(folder).readable
    if not files:
        raise M2dxError(f"--sounds must have audio files, but {folder} has none")
    for path in itertools.cycle(np.random.default_rng(0).permutation(np.array(files, dtype=object))):
        rest = np.concatenate([rest, read_wav(path, sample_rate=RATE)])
        while len(rest) >= length:
            steps = np.rint(rest[:length] * 2**15).clip(-(2**15), 2**15 - 1)
            yield steps.astype(np.int16)
            rest = rest[length:]


def prepare(options: argparse.Namespace, folder: Path) -> dict[str, Dataset]:
    """The data set of each format, written where it is not there yet."""
    plain = [form for form in ("wav", "flac", "ogg") if not (folder / form / "list.csv").exists()]
    if plain:
        for form in plain:
            (folder / form).mkdir(parents=True, exist_ok=True)
        for i, samples in enumerate(itertools.islice(pieces(options.sounds, options.seconds), options.clips)):
            for form in plain:
                soundfile.write(folder / form / f"{i}.{form}", samples, RATE)
        for form in plain:
            lines = [f"{i}.{form},class {i % CLASSES}" for i in range(options.clips)]
            (folder / form / "list.csv").write_text(
                "\n".join(["path,label", *lines]) + "\n", encoding="utf-8"
            )
    found: dict[str, Dataset] = {}
    for form in options.formats:
        source = CsvDataset(path=folder / form.removeprefix("packed-") / "list.csv")
        found[form] = source
        if form.startswith("packed-"):
            if not (folder / form).exists():
                clips = ClipSet(tuple(source.clips()), source.label_names())
                stored = PackOptions("flac" if form == "packed-flac" else "wav", shard_bytes=64 * 10**6)
                pack({"clips": clips}, folder / form, stored)
            found[form] = PackedDataset(path=folder / form)
    return found


def draw_mask(generator: torch.Generator) -> torch.Tensor:
    """A mask as training draws it."""
    return torch.randperm(PATCHES, generator=generator)


def time_feed(clips: ClipList, setting: Setting, options: argparse.Namespace, *, seed: int) -> Timing:
    """The speed of some batches, after those that are loaded beforehand."""
    crops = TrainingCrops(
        clips,
        AudioCrops(round(options.crop_seconds * RATE), RATE),
        seed=0,
        draw_mask=draw_mask,
        noise=ClipNoise(RATE, clips) if options.noise else None,
    )
    keys = TrainingBatches(len(crops), batch_size=options.batch, seed=seed)
    loader = iter(batch_loader(crops, keys, workers=setting.workers, prefetch=PREFETCH))
    for _ in range(max(2, PREFETCH * setting.workers)):  # what is loaded beforehand, and what starts
        first = next(loader)
    started, own = time.perf_counter(), time.process_time()
    for _ in range(options.batches):
        next(loader)
    number = options.batches * options.batch
    seconds, own_seconds = time.perf_counter() - started, time.process_time() - own
    samples = str(first.inputs.dtype).removeprefix("torch.")
    return Timing(number / seconds, number / own_seconds, samples)


def forget(folder: Path) -> None:
    """Drops a folder's files from the page cache."""
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        os.fdatasync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def measure(options: argparse.Namespace, folder: Path) -> timing.Tables:
    """The speed of each setting."""
    torch.set_num_threads(1)
    clips = {
        form: join_sets({"clips": (dataset, None)}) for form, dataset in prepare(options, folder).items()
    }
    settings = itertools.starmap(Setting, itertools.product(options.formats, options.workers))

    def time_setting(setting: Setting, repeat: int) -> Timing:
        if options.cold:
            forget(folder / setting.form)
        return time_feed(clips[setting.form], setting, options, seed=repeat)

    timings = timing.in_turns(list(settings), options.repeats, time_setting)
    return {
        f"Speed of the feed (soundfile {soundfile.__version__}, {soundfile.__libsndfile_version__})": [
            {
                "format": setting.form,
                "MB on the disk": sum(p.stat().st_size for p in (folder / setting.form).iterdir()) / 1e6,
                "travels as": found[0].samples,
                "workers": setting.workers,
                "clips/s": Quartiles.of([one.clock for one in found]),
                # Known where nothing is loaded by other processes.
                "clips per core second": None
                if setting.workers
                else Quartiles.of([one.own for one in found]),
            }
            for setting, found in timings.items()
        ]
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, writes; 1 where m2dx refuses something."""
    options = parse(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        return timing.give(options, lambda: measure(options, folder))


if __name__ == "__main__":
    sys.exit(main())
