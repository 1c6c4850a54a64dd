"""Kills train, pack and sweep at random moments, gives the same command again, and compares with an undisturbed run.

    python tests/reliability/kills.py --folder F [--kills 20] [--seed 0] [--only train pack sweep] [--minutes M]

Each kill is a line of F/kills.jsonl; the same command goes on with those that are missing, also after --minutes. The
signal, the moment and whether the whole process group gets it follow from the seed. Commands, and the runs of a sweep,
are forks of this process, which has imported torch, so that the moments fall on the work, not on imports; pages are not
drawn, which would take as long as the rest. Exit code 1: something is lost, hangs, or is told with a traceback.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import forks
import m2dx_sweep.running
import m2dx_sweep.table
import torch

import m2dx.jobs.train
import m2dx.results.scoring
from m2dx.contract.atomic import replace_text
from m2dx.contract.parent import end_with_parent

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
import kills as benchmark  # noqa: E402

SOUNDS = ROOT / "examples" / "sounds"
RECIPE = f"""
data:
  sets: {{notes: {{dataset: {{name: csv, path: {SOUNDS / "instrument.csv"}}}, split: train}}}}
  epoch_size: 20
  workers: 1
  stats_clips: 16
audio: {{crop_seconds: 0.32}}
model:
  size: tiny
  depth: 1
  mask_ratio: 0.6
  predictor: {{embed_dim: 24, depth: 1, num_heads: 2}}
  ema_decay: {{start: 0.99, end: 0.999}}
train:
  {{epochs: 8, warmup_epochs: 1, batch_size: 4, base_lr: 1e-3, device: cpu, threads: 1, log_every: 1,
   checkpoint_every: 5}}
evaluation:
  tasks: {{drums: {{dataset: {{name: csv, path: some_drums.csv}}}}}}
  evaluators: {{knn: {{name: knn}}}}
  baselines: []
"""
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
PATIENCE_SECONDS = 60.0  # that a process may take to end after a signal; the machine may be busy
TOO_LONG_SECONDS = 300.0
COMMANDS = ("train", "pack", "sweep")


def command(what: str, folder: Path) -> list[str]:
    """The command that starts, or goes on."""
    recipe = str(folder.parent / "recipe.yaml")
    if what == "pack":
        options = ["--format", "wav", "--shard-size", "1", "--workers", "1"]
        return ["pack", str(SOUNDS / "drums.csv"), str(folder / "packed"), *options]
    if what == "sweep":
        return ["sweep", recipe, "seed=0,1", "train.epochs=4", f"output={folder}", "name=swept"]
    return ["train", recipe, "--resume-or-begin", f"output={folder}", "name=run"]


def differences(what: str, whole: Path, killed: Path) -> Iterator[str]:
    """In what the result differs from that of the undisturbed run; what is left that should not be."""
    if what == "pack":
        names = {path.name for path in (*whole.glob("packed/*"), *killed.glob("packed/*"))}
        _, wrong, missing = filecmp.cmpfiles(
            whole / "packed", killed / "packed", sorted(names), shallow=False
        )
        yield from (f"{name}: other bytes" for name in wrong)
        yield from (f"{name}: only in one" for name in missing)
        return
    points = ("swept/seed-0", "swept/seed-1") if what == "sweep" else ("run",)
    for point in points:
        yield from benchmark.differences(whole / point, killed / point)
        scores = [json.loads((folder / point / "scores.json").read_text()) for folder in (whole, killed)]
        if scores[0] != scores[1]:
            yield "scores"
        if not (killed / point / "report.html").exists():
            yield "no report.html"
    if what == "sweep":
        tables = [str(m2dx_sweep.table.sweep_table(folder / "swept")) for folder in (whole, killed)]
        if tables[0] != tables[1]:
            yield "table"
    yield from (f"left over: {path.name}" for path in benchmark.partials(killed))


def undisturbed(what: str, folder: Path) -> tuple[Path, float]:
    """The run that nothing disturbs, made once, and how long it took (s)."""
    whole, seconds = folder / f"{what}-undisturbed", folder / f"{what}-undisturbed.seconds"
    if not seconds.exists():
        began = time.monotonic()
        log = folder / f"{what}-undisturbed.log"
        if code := forks.wait(forks.start(command(what, whole), log), TOO_LONG_SECONDS):
            raise SystemExit(f"the undisturbed {what} ended with {code}:\n{log.read_text()}")
        seconds.write_text(str(time.monotonic() - began))
    return whole, float(seconds.read_text())


def kill_once(what: str, number: int, folder: Path, seed: int) -> dict[str, Any]:
    """One kill, the command again, and what is wrong afterwards (`faults`)."""
    whole, seconds = undisturbed(what, folder)
    draw = random.Random(f"{seed}/{what}/{number}")
    by, delay, group = draw.choice(SIGNALS), draw.uniform(0, seconds), draw.random() < 0.5
    killed, log = folder / f"{what}-{number}", folder / f"{what}-{number}.log"
    for path in (killed, log):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    faults: list[str] = []
    process = forks.start(command(what, killed), log)
    time.sleep(delay)
    gone, status = os.waitpid(process, os.WNOHANG)
    if gone:
        first: int | None = os.waitstatus_to_exitcode(status)
    else:
        (os.killpg if group else os.kill)(process, by)
        if (first := forks.wait(process, PATIENCE_SECONDS)) is None:
            faults.append(f"still there {PATIENCE_SECONDS:.0f} s after {by.name}")
    second = forks.wait(forks.start(command(what, killed), log), TOO_LONG_SECONDS)
    told = log.read_text(errors="replace")
    if second and what == "pack" and "must not be a finished pack" in told:  # it was killed when all was done
        second = 0
    if second:
        faults.append(f"the command again ends with {second}: {told[-600:]}")
    elif second is None:
        faults.append(f"the command again does not end in {TOO_LONG_SECONDS:.0f} s")
    else:
        faults += differences(what, whole, killed)
    if forks.TRACEBACK in told:
        faults.append("a traceback")
    if not faults:
        shutil.rmtree(killed)
    drawn = {"what": what, "number": number, "signal": by.name, "group": group, "delay": round(delay, 2)}
    return drawn | {"ended": first, "faults": faults}


class ForkedRun:
    """A run of a sweep, as the sweep sees its process."""

    def __init__(self, command: Sequence[str], *, output: BinaryIO, gpus: str | None = None) -> None:
        parent = os.getpid()
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            os.setpgid(0, 0)
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            end_with_parent(parent)  # as m2dx_sweep.point does
            forks.become(list(command[command.index("train") :]))

    def poll(self) -> int | None:
        """Its exit code, as subprocess has it; None: it is at work."""
        if self.returncode is None:
            found, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if found else None
        return self.returncode

    def wait(self) -> None:
        """Waits for its end."""
        while self.poll() is None:
            time.sleep(0.01)

    def send_signal(self, number: int) -> None:
        """Sends it a signal."""
        os.kill(self.pid, number)


def main() -> int:
    """Kills what is missing in the file, then counts; 1 where there is a fault."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--folder", type=Path, required=True, help="where the runs and kills.jsonl go")
    add("--kills", type=int, default=20, help="of each command")
    add("--seed", type=int, default=0, help="of signals and moments")
    add("--only", nargs="+", choices=COMMANDS, default=COMMANDS)
    add("--minutes", type=float, default=float("inf"), help="no kill is begun after these")
    options = parser.parse_args()
    end, folder = time.monotonic() + 60 * options.minutes, options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(RECIPE)
    head, *rows = (SOUNDS / "drums.csv").read_text().splitlines()
    some = [f"{SOUNDS}/{row}" for row in rows[::6]]
    (folder / "some_drums.csv").write_text("\n".join([head, *some]) + "\n")
    m2dx_sweep.running.start_child = ForkedRun  # type: ignore[assignment]
    m2dx.jobs.train.write_page = lambda run: replace_text(run.folder / "report.html", "page")  # type: ignore
    torch.set_num_threads(1)
    lines = folder / "kills.jsonl"
    known = [json.loads(line) for line in lines.read_text().splitlines()] if lines.exists() else []
    done = {(one["what"], one["number"]) for one in known}
    for what, number in [(what, number) for number in range(options.kills) for what in options.only]:
        if (what, number) not in done and time.monotonic() < end:
            known.append(kill_once(what, number, folder, options.seed))
            with lines.open("a") as file:
                file.write(json.dumps(known[-1]) + "\n")
            print(json.dumps(known[-1]), flush=True)
    for what in options.only:
        of = [one for one in known if one["what"] == what]
        print(f"{what}: {len(of)} kills, {sum(bool(one['faults']) for one in of)} with faults")
    return int(any(one["faults"] for one in known))


if __name__ == "__main__":
    sys.exit(main())
