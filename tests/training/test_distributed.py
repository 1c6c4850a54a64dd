"""Two processes on gloo train as one with the same effective batch."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from m2dx.errors import RecipeError
from m2dx.training.checkpoint import CheckpointFolder, read_checked
from m2dx.training.distributed import Processes, join_processes, pick_device

ROOT = Path(__file__).parents[2]
STEPS, STOP = 6, 3

TWO_PROCESSES = f"""
import signal, sys
from rich.console import Console
from m2dx.plugins import PluginHost
from m2dx.recipe.loading import load_recipe
from m2dx.pipeline import make_trainer
from m2dx.training.distributed import join_processes
from m2dx.training.run_folder import start_run_folder
from m2dx.training.trainer import Trainer

host = PluginHost.discover()
recipe = load_recipe(sys.argv[1], host=host)
processes = join_processes("cpu")
train_step = Trainer.train_step


def stop_in_one(self, batches):
    if self.step == {STOP} - 1 and processes.rank == 1 and not resume:
        signal.raise_signal(signal.SIGTERM)
    return train_step(self, batches)


Trainer.train_step = stop_in_one
for resume in (False, True):
    trainer = make_trainer(recipe, host, processes, Console(quiet=True), resume=resume)
    if processes.is_main:
        start_run_folder(trainer.recipe, resume=resume)
    summary = trainer.fit()
    did = f"steps={{summary.steps}} by={{summary.stopped_by}} bad={{summary.bad_files}}"
    print(f"rank={{processes.rank}} {{did}}", flush=True)
processes.close()
"""


def test_two_processes_equal_one(
    tiny_recipe: Any, make_trainer: Any, sounds: Path, tmp_path: Path, make_wav: Any
) -> None:
    """Labelled and unlabelled clips, noise, a bad file, accumulation; and a stop between two lines of metrics that only
    one process is asked for."""
    make_wav("more/good.wav", seconds=0.4)
    (tmp_path / "more" / "bad.wav").write_text("not audio")
    more = f"data.sets.more={{dataset: {{name: folder, path: {tmp_path / 'more'}}}}}"
    short = tmp_path / "short.csv"
    lines = (sounds / "instrument.csv").read_text().splitlines()
    train = [line for line in lines[1:] if ",train," in line][:16]
    short.write_text("\n".join([lines[0], *(f"{sounds}/{line}" for line in train)]) + "\n")
    options = [
        f"data.sets.notes.dataset.path={short}",
        more,
        "data.max_bad_fraction=0.5",
        "data.epoch_size=18",
        "train.batch_size=8",
        "train.accumulate=2",
        f"train.epochs={STEPS / 2}",
        "train.log_every=4",
        "train.rankme_every=4",
    ]
    recipe = tiny_recipe(*options, "name=one", labels=True, noise=True)
    one = make_trainer(recipe)
    summary = one.fit()
    assert (summary.steps, summary.bad_files) == (STEPS, 1)

    text = (one.run.folder / "recipe.yaml").read_text().replace("name: one", "name: two")
    (tmp_path / "two.yaml").write_text(text)
    (tmp_path / "two.py").write_text(TWO_PROCESSES)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "M2DX_PLUGINS": ""}
    done = subprocess.run(
        [*command, "two.py", "two.yaml"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for rank in (0, 1):
        by = "SIGTERM" if rank == 1 else "another process"
        assert f"rank={rank} steps={STOP} by={by} bad=" in done.stdout
        assert f"rank={rank} steps={STEPS} by=None bad=1" in done.stdout

    folder = tmp_path / "runs" / "two"
    ours, theirs = (
        [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
        for path in (one.run.folder, folder)
    )
    assert [line["step"] for line in theirs] == [4, STEPS]
    for name in ("loss", "loss_m2d", "loss_labels", "grad_norm", "lr", "ema_decay", "rankme"):
        assert [line[name] for line in theirs] == pytest.approx(
            [line[name] for line in ours], abs=1e-3 if name == "rankme" else 1e-5
        ), name
    assert (folder / "bad_files.tsv").read_text().count("bad.wav") == 1
    state = read_checked(CheckpointFolder(folder / "checkpoints").file(STEPS))
    for name, value in one.model.training_state().items():
        parts = [(value, state["model"][name], 1e-4)]
        if name.endswith("qkv.bias"):
            # The bias of the keys has no gradient but rounding, which Adam makes steps of.
            limits = (1e-4, 1e-3, 1e-4)  # of queries, keys and values
            parts = list(zip(value.chunk(3), state["model"][name].chunk(3), limits, strict=True))
        for alone, together, atol in parts:
            torch.testing.assert_close(together, alone, rtol=0, atol=atol, msg=name)
    assert len(state["rng"]) == 2 and not torch.equal(*state["rng"])  # each process has its own dropout


def test_resuming_with_fewer_processes(
    tiny_recipe: Any, make_trainer: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe("train.epochs=0.6")
    trainer = make_trainer(recipe)
    monkeypatch.setattr(Processes, "gather", lambda self, value: [value, value])
    trainer.fit()
    monkeypatch.undo()
    with caplog.at_level(logging.WARNING):
        assert make_trainer(recipe, resume=True).step == 3
    assert "1 processes now, 2 before" in caplog.text


def test_one_process_is_the_plain_case() -> None:
    processes = join_processes("cpu")
    assert (processes.rank, processes.world_size, processes.is_main) == (0, 1, True)
    values = torch.tensor([1.0, 2.0])
    assert processes.mean(values) is values
    assert processes.concat(values) is values
    assert processes.gather("x") == ["x"] and processes.from_main("y") == "y"
    processes.close()


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == pick_device("cpu") == torch.device("cpu")
    with pytest.raises(RecipeError, match=r"torch sees no GPU; set train\.device=auto or cpu"):
        pick_device("cuda:1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert pick_device("auto") == torch.device("cuda")
    with pytest.raises(RecipeError, match=r"torch sees 1 GPU\(s\)"):
        pick_device("cuda:1")


def test_a_gpu_for_each_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RecipeError, match=r"must be cuda or auto with 2 processes.*but is cuda:1"):
        join_processes("cuda:1")
