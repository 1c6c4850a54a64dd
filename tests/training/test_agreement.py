"""How far runs of other arithmetic, or of several processes, may be from an eager float32 run of one process.

Each trains the same model from the same weights on the same clips, crops and masks of the quickstart's recordings.
"""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from m2dx.contract.host import PluginHost
from m2dx.recipe.loading import load_recipe
from m2dx.training.distributed import Processes

TOP = Path(__file__).parents[2]
RECIPE = TOP / "benchmarks" / "recipes" / "step.yaml"
SETTINGS = {
    "audio.crop_seconds": 0.64,
    "data.workers": 0,
    "data.mean": -7.1,
    "data.std": 4.2,
    "noise.mean": -7.1,
    "model.depth": 1,
    "model.predictor": "{embed_dim: 64, depth: 1, num_heads: 2}",
    "train.batch_size": 16,
    "train.warmup_epochs": 0,
    "train.base_lr": 4e-3,
    "train.precision": "fp32",
    "train.threads": 1,
    "train.device": "cpu",
}


@dataclass(frozen=True)
class Variant:
    """A way to train, and how far it may be from the reference."""

    overrides: tuple[str, ...]
    processes: int
    loss: float  # largest relative difference of a step's loss
    weights: float  # norm of the difference of the last weights, by that of the way from the first ones


ROUNDING = (1e-5, 2e-3)
"""What another order of the same float32 sums may give."""
BF16 = (5e-3, 0.2)
"""What products of bfloat16 may give."""
REFERENCE = Variant((), 1, 0.0, 0.0)
VARIANTS = {
    "compiled": Variant(("train.compile=true",), 1, *ROUNDING),
    "2 processes": Variant((), 2, *ROUNDING),
    "2 processes, accumulation": Variant(("train.accumulate=2",), 2, *ROUNDING),
    "2 processes, bf16": Variant(("train.precision=bf16",), 2, *BF16),
    "2 processes, shards": Variant(("train.sharding=fsdp",), 2, *ROUNDING),
    "2 processes, shards, accumulation": Variant(("train.sharding=fsdp", "train.accumulate=2"), 2, *ROUNDING),
    "2 processes, shards, bf16": Variant(("train.sharding=fsdp", "train.precision=bf16"), 2, *BF16),
    "2 processes, shards, compiled": Variant(("train.sharding=fsdp", "train.compile=true"), 2, *ROUNDING),
}


@pytest.fixture(scope="module")
def runs() -> Iterator[Any]:
    """The short runs of the benchmarks."""
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TOP / "benchmarks"))
        yield __import__("runs")
    torch.set_num_threads(threads)
    sys.modules.pop("runs", None)


def train(runs: Any, variant: Variant, steps: int, folder: Path) -> Any:
    """Losses and weights of a variant; in this process where it needs no other, and compiles nothing."""
    given = [f"{key}={value}" for key, value in SETTINGS.items()]
    given += [f"output={folder}", *variant.overrides]
    todo = runs.Work(steps, weights=True)
    if variant.processes > 1 or "train.compile=true" in variant.overrides:
        return runs.launch(RECIPE, folder / "out.pt", todo, given, processes=variant.processes)
    host = PluginHost.discover()
    recipe = load_recipe(RECIPE, given, host=host)
    return runs.work(recipe, host, Processes(0, 1, torch.device("cpu")), todo)


def distance(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> float:
    """The norm of the difference of all trained weights."""
    squares = [(value.double() - other[name].double()).square().sum() for name, value in one.items()]
    return float(torch.stack(squares).sum().sqrt())


def assert_near(found: Any, reference: Any, variant: Variant) -> tuple[float, float]:
    """Holds a variant to its tolerances; gives how far its losses and weights are."""
    way = distance(reference.last_weights, reference.first_weights)
    pairs = zip(found.losses, reference.losses, strict=True)
    loss = max(abs(ours / theirs - 1.0) for ours, theirs in pairs)
    weights = distance(found.last_weights, reference.last_weights) / way
    assert distance(found.first_weights, reference.first_weights) == 0.0
    assert loss <= variant.loss and weights <= variant.weights
    return loss, weights


def test_accumulation_and_bf16_stay_within_their_tolerances(runs: Any, tmp_path: Path) -> None:
    reference = train(runs, REFERENCE, 3, tmp_path)
    accumulation = Variant(("train.accumulate=4",), 1, *ROUNDING)
    bf16 = Variant(("train.precision=bf16",), 1, *BF16)
    far = [assert_near(train(runs, v, 3, tmp_path), reference, v) for v in (accumulation, bf16)]
    assert len(reference.losses) == 3
    assert 0 < far[0][1] < far[1][1]  # they differ, so there was something to compare
    assert far[0][0] < 1e-5 < far[1][0] < 5e-3


@pytest.mark.slow
def test_all_variants_stay_within_their_tolerances(runs: Any, tmp_path: Path) -> None:
    """Compiled, in bf16, accumulated, and in two processes with copies or shards."""
    reference = train(runs, REFERENCE, 4, tmp_path)
    for variant in VARIANTS.values():
        assert_near(train(runs, variant, 4, tmp_path), reference, variant)
