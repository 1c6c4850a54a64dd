"""Random crops from shards, by library: what `m2dx pack` writes, read by m2dx and by wids, and litdata's chunks.

    python benchmarks/feed.py --folder CLIPS --repeats 1      # writes the clips
    python benchmarks/shard_readers.py CLIPS --json out.json  # libraries that are not installed are left out

Each reader gives 6 s crops as int16 of the same clips in the same order, which is that of no shard. Given are clips
per second of a core (processor time of the process), median and quartiles. See docs/feeding.md.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from step import machine_and_versions, quartiles

from m2dx.contract.components import Clip, Dataset
from m2dx.data.crops import read_stored_crop
from m2dx.data.datasets import CsvDataset
from m2dx.data.packs import PackedDataset

RATE, CROP = 16_000, 96_000  # Hz, samples
Reader = Callable[[int, float], NDArray[Any]]
"""From a clip's number and a place in it, in [0, 1), to (CROP,) int16."""


def by_m2dx(dataset: Dataset) -> Reader:
    """As training reads them."""
    clips: list[Clip] = dataset.clips()

    def read(number: int, position: float) -> NDArray[Any]:
        return read_stored_crop(
            clips[number], crop_samples=CROP, sample_rate=RATE, short_clips="pad", position=position
        )[1]

    return read


def decoded(content: io.BytesIO, position: float) -> NDArray[Any]:
    """A crop of a file in memory."""
    with soundfile.SoundFile(content) as file:
        file.seek(int(position * (file.frames - CROP + 1)))
        samples: NDArray[Any] = file.read(CROP, dtype="int16")
    return samples


def by_wids(pack: Path, suffix: str, cache: Path) -> Reader:
    """WebDataset's own random access, on the shards of a pack."""
    wids: Any = import_module("wids")
    samples = wids.ShardListDataset(
        str(pack / "pack.json"), keep=True, cache_dir=str(cache), transformations=[]
    )
    return lambda number, position: decoded(samples[number][f".{suffix}"], position)


def by_litdata(folder: Path, source: Path, *, form: str, chunk_bytes: str = "64MB") -> Reader:
    """litdata's chunks: the bytes of FLAC files, or int16 arrays."""
    writer: Any = import_module("litdata.streaming.writer")
    litdata: Any = import_module("litdata")
    chunks = writer.BinaryWriter(str(folder), chunk_bytes=chunk_bytes)
    for number, clip in enumerate(CsvDataset(path=source / "list.csv").clips()):
        content = clip.path.read_bytes()
        chunks[number] = content if form == "flac" else soundfile.read(io.BytesIO(content), dtype="int16")[0]
    chunks.done()
    chunks.merge()
    samples = litdata.StreamingDataset(str(folder), shuffle=False)

    def read(number: int, position: float) -> NDArray[Any]:
        found = samples[number]
        if form == "flac":
            return decoded(io.BytesIO(found), position)
        begin = int(position * (len(found) - CROP + 1))
        crop: NDArray[Any] = np.array(found[begin : begin + CROP])
        return crop

    return read


def readers(clips: Path, scratch: Path) -> dict[str, Callable[[], Reader]]:
    """How each is opened."""
    return {
        "files, flac": lambda: by_m2dx(CsvDataset(path=clips / "flac" / "list.csv")),
        "m2dx pack, flac": lambda: by_m2dx(PackedDataset(path=clips / "packed-flac")),
        "wids on the same pack, flac": lambda: by_wids(clips / "packed-flac", "flac", scratch / "a"),
        "litdata, flac bytes": lambda: by_litdata(scratch / "b", clips / "flac", form="flac"),
        "files, wav": lambda: by_m2dx(CsvDataset(path=clips / "wav" / "list.csv")),
        "m2dx pack, wav": lambda: by_m2dx(PackedDataset(path=clips / "packed-wav")),
        "wids on the same pack, wav": lambda: by_wids(clips / "packed-wav", "wav", scratch / "c"),
        "litdata, int16 arrays": lambda: by_litdata(scratch / "d", clips / "flac", form="int16"),
    }


def measure(clips: Path, scratch: Path, *, repeats: int) -> dict[str, Any]:
    """Clips per second of a core by reader, all of them of the same crops."""
    order = torch.randperm(len(CsvDataset(path=clips / "flac" / "list.csv").clips())).tolist()
    places = np.random.default_rng(0).random(len(order))
    opened: dict[str, Reader] = {}
    for name, begin in readers(clips, scratch).items():
        try:
            opened[name] = begin()
        except ModuleNotFoundError as error:
            print(f"left out: {name} ({error})", file=sys.stderr)
    expected = [opened["files, wav"](number, places[number]) for number in order[:10]]
    for name, read in opened.items():
        for number, crop in zip(order, expected, strict=False):
            if not np.array_equal(read(number, places[number]), crop):
                raise SystemExit(f"{name}: clip {number} differs")
    speeds: dict[str, list[float]] = {name: [] for name in opened}
    for repeat, name in itertools.product(range(repeats), opened):
        started = time.process_time()
        for number in order:
            opened[name](number, places[number])
        speeds[name].append(len(order) / (time.process_time() - started))
        print(f"{repeat + 1}/{repeats} {name}: {speeds[name][-1]:.0f} clips/s", file=sys.stderr)
    return {name: quartiles(found) for name, found in speeds.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", type=Path, help="the --folder of feed.py")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="OUT")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    about = machine_and_versions(torch.device("cpu"))
    scratch = Path(tempfile.mkdtemp())
    try:
        speeds = measure(options.clips, scratch, repeats=options.repeats)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    found = [name for name in ("litdata", "wids", "webdataset") if _version(name)]
    report = {**about, "libraries": {name: _version(name) for name in found}, "clips_per_core_second": speeds}
    print("| reader | clips/s of a core (quartiles) |\n| --- | ---: |")
    for name, speed in speeds.items():
        print(f"| {name} | {speed['median']:.0f} ({speed['q1']:.0f} to {speed['q3']:.0f}) |")
    print(json.dumps({key: report[key] for key in ("date", "machine", "versions", "libraries")}))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except ModuleNotFoundError:
        return None


if __name__ == "__main__":
    main()
