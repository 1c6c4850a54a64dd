"""Speed of the feed: clips per second through the training loader, by format of the files and number of workers.

Crops of 6 s from clips of 10 s at 16 kHz, cut from real recordings, with labels and masks drawn. See
benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from feed_tables import BEGIN, END, has_markers, show, write_page
from numpy.typing import NDArray
from rich.console import Console
from step import machine_and_versions, quartiles, words

from m2dx.contract.components import Dataset
from m2dx.contract.errors import M2dxError
from m2dx.data.batches import ItemKey, TrainingBatches
from m2dx.data.clips import ClipList, join_sets
from m2dx.data.crops import AudioCrops, CropItem, TrainingCrops
from m2dx.data.datasets import CsvDataset
from m2dx.data.files import list_audio
from m2dx.data.loader import training_loader
from m2dx.data.noise import ClipNoise
from m2dx.data.packing import ClipSet, PackOptions, pack
from m2dx.data.packs import PackedDataset
from m2dx.data.pcm import float_tensor
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
    samples: str  # what travels: int16 where it can, or float32

    def __str__(self) -> str:
        return f"{self.form} {self.workers} workers {self.samples}"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sounds", type=Path, default=SOUNDS, help="folder of recordings to cut clips from")
    parser.add_argument("--formats", type=words, default=list(FORMATS), help=",".join(FORMATS))
    parser.add_argument("--workers", type=words, default=["0", "1", "2"], help="numbers of loading processes")
    parser.add_argument("--samples", type=words, default=["int16"], help="int16,float32: what travels")
    parser.add_argument("--clips", type=int, default=400, help="clips of each format")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a clip, s")
    parser.add_argument("--crop-seconds", type=float, default=6.0, help="length of a crop, s")
    parser.add_argument("--batch", type=int, default=32, help="clips per batch")
    parser.add_argument("--batches", type=int, default=20, help="batches of one timing")
    parser.add_argument("--repeats", type=int, default=5, help="timings of each setting")
    parser.add_argument("--noise", action="store_true", help="a noise crop of the same files with each clip")
    parser.add_argument(
        "--cold", action="store_true", help="drop the files from the page cache before each timing"
    )
    parser.add_argument("--folder", type=Path, help="keep the clips here; default a temporary folder")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write everything measured to this file")
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="replace the table between the markers of this page"
    )
    options = parser.parse_args(arguments)
    for name in ("clips", "batch", "batches", "repeats"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1, but is {getattr(options, name)}")
    for name, known in (("formats", FORMATS), ("samples", ("int16", "float32"))):
        if unknown := [value for value in getattr(options, name) if value not in known]:
            parser.error(f"--{name} must be of {', '.join(known)}, but has {', '.join(unknown)}")
    if not all(text.isdecimal() for text in options.workers):
        parser.error(f"--workers must be numbers, but is {','.join(options.workers)}")
    if options.write and not has_markers(options.write):
        parser.error(f"--write: {options.write} must be a page with the lines {BEGIN} and {END}")
    return options


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


class FloatCrops(TrainingCrops):
    """Crops that become float32 in the loading process."""

    def __getitem__(self, key: ItemKey) -> CropItem:
        item = super().__getitem__(key)
        noise = None if item.noise_wav is None else float_tensor(item.noise_wav)
        return replace(item, inputs=float_tensor(item.inputs), noise_wav=noise)


def time_feed(
    crops: TrainingCrops, *, workers: int, batch: int, batches: int, seed: int
) -> tuple[float, float, int]:
    """Clips per second, by the clock and by this process's own time, and the bytes of the samples of a clip."""
    keys = TrainingBatches(len(crops), batch_size=batch, seed=seed)
    loader = iter(training_loader(crops, keys, workers=workers, prefetch=PREFETCH))
    for _ in range(max(2, PREFETCH * workers)):  # what is loaded beforehand, and what starts
        first = next(loader)
    stored = sum(part.nbytes for part in (first.inputs, first.noise_wav) if part is not None) // batch
    started, own = time.perf_counter(), time.process_time()
    for _ in range(batches):
        next(loader)
    clips = batches * batch
    return clips / (time.perf_counter() - started), clips / (time.process_time() - own), stored


def forget(folder: Path) -> None:
    """Drops a folder's files from the page cache."""
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        os.fdatasync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def measure(options: argparse.Namespace, folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Everything measured, as plain data for JSON."""
    torch.set_num_threads(1)
    about = machine_and_versions(torch.device("cpu"))
    clips = {
        form: join_sets({"clips": (dataset, None)}) for form, dataset in prepare(options, folder).items()
    }
    parts = product(options.formats, map(int, options.workers), options.samples)
    settings = [Setting(*part) for part in parts]
    speeds: dict[Setting, list[tuple[float, float, int]]] = {setting: [] for setting in settings}
    for repeat in range(options.repeats):
        # There and back: a machine that gets slower slows every setting by the same.
        for setting in settings if repeat % 2 == 0 else reversed(settings):
            if options.cold:
                forget(folder / setting.form)
            speeds[setting].append(
                time_feed(
                    crops_of(clips[setting.form], setting, options),
                    workers=setting.workers,
                    batch=options.batch,
                    batches=options.batches,
                    seed=repeat,
                )
            )
            say(f"{repeat + 1}/{options.repeats} {setting}: {speeds[setting][-1][0]:.0f} clips/s")
    names = ("clips", "seconds", "crop_seconds", "batch", "batches", "repeats", "noise", "cold")
    return {
        "benchmark": "feed",
        "options": {name: getattr(options, name) for name in names},
        **about,
        "versions": {
            **about["versions"],
            "soundfile": soundfile.__version__,
            "libsndfile": f"libsndfile {soundfile.__libsndfile_version__}",
        },
        "results": [result_of(setting, found, folder) for setting, found in speeds.items()],
    }


def crops_of(clips: ClipList, setting: Setting, options: argparse.Namespace) -> TrainingCrops:
    """The crops of one setting."""
    kind = TrainingCrops if setting.samples == "int16" else FloatCrops
    return kind(
        clips,
        AudioCrops(round(options.crop_seconds * RATE), RATE),
        seed=0,
        draw_mask=draw_mask,
        noise=ClipNoise(RATE, clips) if options.noise else None,
    )


def result_of(setting: Setting, found: list[tuple[float, float, int]], folder: Path) -> dict[str, Any]:
    """One setting's numbers; the speed of one core is known where nothing is loaded elsewhere."""
    clock, own, stored = zip(*found, strict=True)
    return {
        **vars(setting),
        "clips_per_second": quartiles(clock),
        "clips_per_core_second": quartiles(own) if setting.workers == 0 else None,
        "sample_bytes_per_clip": stored[0],
        "disk_bytes": sum(path.stat().st_size for path in (folder / setting.form).iterdir()),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, writes; 1 where m2dx refuses something."""
    options, errors = parse(arguments), Console(stderr=True)
    try:
        with tempfile.TemporaryDirectory() as temporary:
            folder = options.folder or Path(temporary)
            report = measure(options, folder, lambda line: errors.print(line, highlight=False))
    except M2dxError as error:
        errors.print(str(error), style="red", markup=False, highlight=False)
        return 1
    show(report, Console(width=None if sys.stdout.isatty() else 140))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if options.write:
        write_page(options.write, report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
