"""Kills a run at random moments, again and again, and compares what comes of it with a run that nothing disturbed.

Each time the run is started with `m2dx train ... --resume-or-begin` and ended with SIGKILL: while it starts, while it
trains, or while it writes a checkpoint. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import timing
import torch

SETTINGS = {
    "audio.crop_seconds": 0.64,
    "data.workers": 1,
    "data.mean": -7.1,
    "data.std": 4.2,
    "noise.mean": -7.1,
    "model.depth": 2,
    "train.batch_size": 8,
    "train.warmup_epochs": 0,
    "train.precision": "fp32",
    "train.device": "cpu",
    "train.log_every": 1,
    "train.rankme_every": 7,
    "train.checkpoint_every": 5,
    "evaluation": "null",
}
PHASES = ("starting", "training", "writing", "training", "writing")
"""When a run is killed: in a random order, each as often as it stands here."""
CLOCK = ("time", "clips_per_second")


@dataclass(frozen=True)
class Kill:
    """One end of the run."""

    phase: str  # starting, training or writing
    seconds_into_phase: float
    group: bool  # its loading process, too; otherwise that process finds out by itself
    step: int  # of the newest checkpoint, from which the next start resumes
    last_line: int  # step of the last line of metrics
    partial: bool  # whether an unfinished checkpoint was there


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = timing.options_of(__doc__)
    add = parser.add_argument
    add("--kills", type=timing.at_least(0), default=20)
    add("--steps", type=timing.at_least(1), default=600, help="too few for so many kills is an error")
    add("--seed", type=int, default=0, help="of the phases and moments")
    add("--folder", type=Path, help="where the two runs go; default a temporary folder")
    return parser.parse_intermixed_args(arguments)


def command_of(options: argparse.Namespace, folder: Path, name: str) -> list[str]:
    """The command that starts or resumes a run."""
    settings = {
        **SETTINGS,
        "train.epochs": 1,
        "data.epoch_size": options.steps * int(SETTINGS["train.batch_size"]),
        "output": folder,
        "name": name,
    }
    overrides = [f"{key}={value}" for key, value in settings.items()]
    start = [sys.executable, "-m", "m2dx", "train", str(timing.RECIPE), "--resume-or-begin"]
    return [*start, *overrides, *options.overrides]


def launch(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Starts a run in a process group of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with open(log, "ab") as file:
        return subprocess.Popen(command, stdout=file, stderr=file, env=environment, start_new_session=True)


def newest_step(run: Path) -> int:
    """The step of the newest checkpoint; 0: there is none."""
    return max((int(path.stem[5:]) for path in run.glob("checkpoints/step-*.pt")), default=0)


def partials(folder: Path) -> list[Path]:
    """Files that are not finished."""
    return [path for pattern in (".*.partial", "*.damaged") for path in folder.rglob(pattern)]


def lines_of(run: Path) -> list[dict[str, Any]]:
    """The whole lines of metrics.jsonl."""
    path = run / "metrics.jsonl"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def last_line(run: Path) -> int:
    """The step of the last line of metrics."""
    lines = lines_of(run)
    return int(lines[-1]["step"]) if lines else 0


def wait_for(phase: str, process: subprocess.Popen[bytes], run: Path) -> bool:
    """Waits until a phase starts; False: the process ended before."""
    lines, launched = (run / "metrics.jsonl"), time.time()
    while process.poll() is None:
        if phase == "starting":
            return True
        # a file that this process has written: a resumed run writes its metrics anew, then appends
        trains = lines.exists() and lines.stat().st_mtime > launched and last_line(run) > newest_step(run)
        if phase == "training" and trains:
            return True
        if phase == "writing" and any(run.glob("checkpoints/.step-*.partial")):
            stale = min(path.stat().st_mtime for path in run.glob("checkpoints/.step-*.partial")) < launched
            if not stale:
                return True
        time.sleep(0.001 if phase == "writing" else 0.01)
    return False


def kill_once(command: list[str], run: Path, log: Path, phase: str, draw: random.Random) -> Kill | None:
    """Starts the run and kills it; None: it ended before."""
    delay = draw.uniform(0.0, {"starting": 6.0, "training": 2.0, "writing": 0.03}[phase])
    group = draw.random() < 0.5
    process = launch(command, log)
    try:
        if not wait_for(phase, process, run):
            return None
        time.sleep(delay)
        ended = process.poll() is not None
    finally:
        (os.killpg if group else os.kill)(process.pid, signal.SIGKILL)
        process.wait()
    if ended:
        return None
    partial = any(run.glob("checkpoints/.step-*.partial"))
    return Kill(phase, round(delay, 3), group, newest_step(run), last_line(run), partial)


def differences(one: Path, other: Path) -> Iterator[str]:
    """What differs between two runs, bit by bit, apart from clocks."""
    step = newest_step(one)
    if newest_step(other) != step:
        yield f"last checkpoint of step {newest_step(other)} instead of {step}"
        return
    states = [
        torch.load(run / "checkpoints" / f"step-{step:08d}.pt", weights_only=True, map_location="cpu")
        for run in (one, other)
    ]
    for part in ("model", "optimizer", "rng", "pending", "measured"):
        if not same(states[0][part], states[1][part]):
            yield part
    if states[0]["totals"]["clips"] != states[1]["totals"]["clips"]:
        yield "clips counted"
    if (one / "encoder/model.safetensors").read_bytes() != (other / "encoder/model.safetensors").read_bytes():
        yield "encoder"
    metrics = [
        [{key: value for key, value in line.items() if key not in CLOCK} for line in lines_of(run)]
        for run in (one, other)
    ]
    if [line["step"] for line in metrics[1]] != list(range(1, step + 1)):
        yield "lines of metrics: lost or doubled"
    elif metrics[0] != metrics[1]:
        yield "metrics"


def same(one: Any, other: Any) -> bool:
    """Whether two values of a checkpoint are the same to the bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def finish(command: list[str], log: Path) -> None:
    """Runs a command to its end."""
    code = launch(command, log).wait()
    if code:
        raise SystemExit(f"the run ended with {code}:\n{log.read_text(errors='replace')[-3000:]}")


def measure(options: argparse.Namespace, folder: Path) -> timing.Tables:
    """Both runs: the kills, what differs, and the unfinished files that are left."""
    undisturbed, killed, draw = folder / "undisturbed", folder / "killed", random.Random(options.seed)
    finish(command_of(options, folder, undisturbed.name), folder / "undisturbed.log")
    command, log = command_of(options, folder, killed.name), folder / "killed.log"
    kills: list[Kill] = []
    phases = [PHASES[number % len(PHASES)] for number in range(options.kills)]
    draw.shuffle(phases)
    for phase in phases:
        kill = kill_once(command, killed, log, phase, draw)
        if kill is None:
            raise SystemExit(f"the run ended after {len(kills)} kills; give it more --steps")
        kills.append(kill)
        print(f"{len(kills)}/{options.kills} {kill}", file=sys.stderr, flush=True)
    finish(command, log)
    return {
        "Kills": [asdict(kill) for kill in kills],
        "Differences from the run that was never killed": [
            {"what": what} for what in differences(undisturbed, killed)
        ],
        "Unfinished files": [{"file": str(path.relative_to(killed))} for path in partials(killed)],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Kills, compares, prints; 1 where anything differs or is left over."""
    options = parse(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        return timing.give(
            options,
            lambda: measure(options, folder),
            failed=lambda tables: any(rows for title, rows in tables.items() if title != "Kills"),
        )


if __name__ == "__main__":
    sys.exit(main())
