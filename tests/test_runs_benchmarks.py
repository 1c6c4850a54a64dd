"""The benchmarks that compare whole runs: agreement.py, scaling.py and kills.py, at their smallest."""

import copy
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
NAMES = ("agreement", "kills", "scaling", "short_run", "step", "step_measures", "step_tables")
SMALL = [
    "audio.crop_seconds=0.64",
    "model.depth=1",
    "model.predictor={embed_dim: 64, depth: 1, num_heads: 2}",
]


@pytest.fixture(scope="module")
def benchmarks() -> Iterator[SimpleNamespace]:
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        import agreement
        import kills
        import scaling

        yield SimpleNamespace(agreement=agreement, kills=kills, scaling=scaling)
    torch.set_num_threads(threads)
    for name in NAMES:
        sys.modules.pop(name, None)


def test_accumulation_and_bf16_stay_within_their_tolerances(benchmarks: Any, tmp_path: Path) -> None:
    out = tmp_path / "agreement.json"
    options = [
        "--steps",
        "3",
        "--variants",
        "accumulation; bf16",
        "--json",
        str(out),
        *SMALL,
        "train.device=cpu",
    ]
    assert benchmarks.agreement.main(options) == 0
    report = json.loads(out.read_text())
    assert [result["variant"] for result in report["results"]] == ["accumulation", "bf16"]
    accumulation, bf16 = report["results"]
    assert 0 < accumulation["weights"] < bf16["weights"]  # they differ, so there was something to compare
    assert accumulation["loss"] < 1e-5 < bf16["loss"] < 5e-3
    assert len(report["losses"]) == 3


@pytest.mark.slow
def test_all_variants_stay_within_their_tolerances(benchmarks: Any) -> None:
    """Compiled, in bf16, accumulated, and in two processes with copies or shards."""
    assert benchmarks.agreement.main(["--steps", "4", *SMALL, "train.device=cpu"]) == 0


def test_what_is_too_far_is_told(benchmarks: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    start = {"weight": torch.zeros(2)}
    reference = {
        "losses": [2.0, 1.0],
        "weights": {"weight": torch.tensor([3.0, 4.0])},
        "start": start,
        "device": "CPU",
    }
    other = {**reference, "losses": [2.0, 1.1], "weights": {"weight": torch.tensor([3.0, 4.5])}}
    monkeypatch.setattr(benchmarks.agreement, "train", lambda v, *rest: other if v.overrides else reference)
    values = benchmarks.agreement.compare(other, reference)
    assert values == pytest.approx({"first_loss": 0.0, "loss": 0.1, "weights": 0.1, "start": 0.0})
    assert benchmarks.agreement.main(["--steps", "2", "--variants", "compiled"]) == 1
    assert "| compiled | 0.0e+00 | 1.0e-01 | 1e-05 | 1.0e-01 | 2e-03 | no |" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        benchmarks.agreement.main(["--variants", "unknown"])


def test_efficiency_is_by_the_speed_of_one_process_in_the_same_round(
    benchmarks: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    seconds = {1: [1.0, 2.0, 4.0], 2: [1.25, 2.5, 5.0]}

    def launch(recipe: Path, out: Path, work: Any, overrides: list[str], *, processes: int) -> dict[str, Any]:
        assert f"train.batch_size={8 * processes}" in overrides
        return {"seconds": seconds[processes].pop(0), "device": "CPU"}

    monkeypatch.setattr(benchmarks.scaling, "launch", launch)
    out = tmp_path / "scaling.json"
    assert benchmarks.scaling.main(["--processes", "1,2", "--feeds", "held", "--json", str(out)]) == 0
    one, two = json.loads(out.read_text())["results"]
    assert one["clips_per_second"]["samples"] == [40.0, 20.0, 10.0] and one["efficiency"]["median"] == 1.0
    assert two["clips_per_second"]["samples"] == [64.0, 32.0, 16.0]
    assert two["efficiency"]["samples"] == pytest.approx([0.8, 0.8, 0.8])
    assert "| read beforehand | 2 | 32 (24 to 48) | 80% (80% to 80%) |" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        benchmarks.scaling.main(["--processes", "2,4"])


@pytest.mark.slow
def test_two_processes_are_timed(benchmarks: Any, tmp_path: Path) -> None:
    out = tmp_path / "scaling.json"
    options = "--processes 1,2 --warmup 1 --steps 1 --repeats 1 --clips 2 --crop-seconds 0.64".split()
    assert benchmarks.scaling.main([*options, "--json", str(out), "model.depth=1", "train.device=cpu"]) == 0
    assert all(result["clips_per_second"]["median"] > 0 for result in json.loads(out.read_text())["results"])


def test_runs_that_differ_are_told(benchmarks: Any, tmp_path: Path) -> None:
    """In a bit of a weight, in a line that is lost or doubled; and files that are left over."""
    state = {
        "model": {"weight": torch.ones(2)},
        "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}},
        "rng": [torch.zeros(3, dtype=torch.uint8)],
        "pending": [],
        "rankme": None,
        "totals": {"clips": 8},
    }
    other = copy.deepcopy(state)
    other["model"]["weight"][1] = 1.0 + torch.finfo(torch.float32).eps
    lines = ['{"step": 1, "loss": 2.0, "time": 1.0}\n', '{"step": 2, "loss": 1.0, "time": 2.0}\n']
    for name, content, metrics in (
        ("one", state, lines),
        ("same", state, [lines[0].replace('"time": 1.0', '"time": 9.0'), lines[1]]),
        ("bit", other, lines),
        ("doubled", state, [lines[0], *lines]),
    ):
        run = tmp_path / name
        (run / "checkpoints").mkdir(parents=True)
        (run / "encoder").mkdir()
        (run / "encoder" / "model.safetensors").write_bytes(b"weights")
        torch.save(content, run / "checkpoints" / "step-00000002.pt")
        (run / "metrics.jsonl").write_text("".join(metrics))
    found = {name: list(benchmarks.kills.differences(tmp_path / "one", tmp_path / name)) for name in
             ("same", "bit", "doubled")}  # fmt: skip
    assert found == {"same": [], "bit": ["model"], "doubled": ["lines of metrics: lost or doubled"]}
    assert benchmarks.kills.partials(tmp_path) == []
    (tmp_path / "one" / "checkpoints" / ".step-00000003.pt.partial").touch()
    assert [path.name for path in benchmarks.kills.partials(tmp_path)] == [".step-00000003.pt.partial"]


@pytest.mark.slow
def test_a_run_that_is_killed_ends_as_if_it_had_not_been(benchmarks: Any) -> None:
    """3 times here; docs/scaling.md has 20."""
    assert benchmarks.kills.main(["--kills", "3", "--steps", "150", "--seed", "1"]) == 0
