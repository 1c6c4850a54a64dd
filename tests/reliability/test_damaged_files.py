"""Damaged files in encode, pack and check: each is used, or named once with a reason; good ones are not touched."""

import csv
import shutil
from pathlib import Path

import forks
import numpy as np
import pytest
from damaged_files import write_damaged, write_good
from m2dx_pack.reading import PackedDataset

from m2dx.contract.host import PluginHost
from m2dx.testing.samples import write_encoder

CPU_SECONDS = 30  # for ten damaged files and four good ones
AT_A_TIME = 10
RECIPE = """
data:
  sets: {some: {dataset: {name: folder, path: audio}}}
  max_bad_fraction: 1
  workers: 0
audio: {crop_seconds: 0.32}
model:
  {size: tiny, depth: 1, mask_ratio: 0.6, predictor: {embed_dim: 24, depth: 1, num_heads: 2},
   ema_decay: {start: 0.99, end: 0.999}}
train: {epochs: 2, warmup_epochs: 1, batch_size: 4, base_lr: 1e-3, device: cpu, threads: 1}
"""


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import m2dx_pack.job  # noqa: F401  with those below, for the forks

    import m2dx.encoder.audio
    import m2dx.encoder.files
    import m2dx.jobs.check  # noqa: F401

    PluginHost.discover()
    return write_encoder(tmp_path_factory.mktemp("encoder") / "encoder")


def command(folder: Path, *arguments: object, code: int | tuple[int, ...] = 0) -> str:
    ended = forks.run(list(map(str, arguments)), folder / "log", cpu_seconds=CPU_SECONDS)
    codes = (code,) if isinstance(code, int) else code
    assert ended.code in codes and forks.TRACEBACK not in ended.output, (ended.code, ended.output[-3000:])
    assert not any(ord(letter) < 32 and letter not in "\n\t" for letter in ended.output), (
        "orders to the terminal"
    )
    return ended.output


def features(folder: Path) -> dict[str, np.ndarray]:
    return {path.name: np.load(path) for path in folder.glob("*.npy")}


def told(output: str, start: str) -> list[str]:
    """The numbers of the damaged files in the lines that start so, in order."""
    lines = [line for line in output.splitlines() if line.startswith(start)]
    return sorted(line.partition("/bad")[2][:4] for line in lines)


SLOW = [
    pytest.param(range(first, min(first + 64, 200)), marks=pytest.mark.slow) for first in range(10, 200, 64)
]


@pytest.mark.parametrize("seeds", [range(10), *SLOW])
def test_damaged_files_are_counted_once_and_spoil_nothing(
    seeds: range, encoder: Path, tmp_path: Path
) -> None:
    """200 in all."""
    good_folder = tmp_path / "good"
    good_folder.mkdir()
    command(tmp_path, "encode", encoder, *write_good(good_folder), "-o", tmp_path / "expected")
    expected = features(tmp_path / "expected")
    assert len(expected) == 4
    for first in seeds[::AT_A_TIME]:
        there = tmp_path / str(first)
        audio = there / "audio"
        shutil.copytree(good_folder, audio)
        damaged = [write_damaged(seed, audio) for seed in range(first, first + AT_A_TIME)]
        # A folder stands for the files in it, which are none; pack walks past it.
        files = sorted(audio.glob("good*")) + [path for path in damaged if not path.is_dir()]
        output = command(there, "encode", encoder, *files, "-o", there / "features", code=(0, 1))
        bad = told(output, "error: ")
        encoded = features(there / "features")
        assert len(set(bad)) == len(bad) and len(encoded) + len(bad) == len(files), output
        assert all(np.array_equal(encoded[name], value) for name, value in expected.items())
        assert all(np.isfinite(value).all() for value in encoded.values())

        options = ("--format", "wav", "--workers", 0, "--max-bad-fraction", 1)
        command(there, "pack", audio, there / "packed", *options)
        with (there / "packed" / "bad_files.tsv").open(newline="", errors="surrogateescape") as file:
            rows = list(csv.reader(file, delimiter="\t"))[1:]
        left_out = sorted(path.partition("/bad")[2][:4] for path, _ in rows)
        assert left_out == bad, rows
        clips = PackedDataset(path=there / "packed").clips()
        assert len(clips) == len(files) - len(bad)

        (there / "recipe.yaml").write_text(RECIPE)
        output = command(there, "check", there / "recipe.yaml")
        unusable = told(output, "cannot use ")
        assert len(set(unusable)) == len(unusable), output  # some can be read in one go, but not from a place
