"""Kills a search at random moments, resumes it each time, and compares it with one that nothing has disturbed.

python plugins/m2dx-specialise/tests/searches_killed.py DATA --folder F [--steps 60] [--kills 5] [--seed 0]

The moments follow from the seed. SIGKILL ends the whole process group: the search and its loading processes. The steps
are given: they depend on the clock else. Commands are forks of this process, which has imported torch, so that the
moments fall on the work. What is there in F is not done again. Exit code 1: the verdict, or a number that it rests on,
is another one.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3] / "tests" / "reliability"))
import forks
from m2dx_specialise import rungs
from m2dx_specialise.budget import Budget, Rung
from m2dx_specialise.state import STATE_FILE


def decisions(folder: Path) -> dict[str, Any]:
    """What a search has decided, and the numbers that this rests on, without what depends on the clock."""
    found = json.loads((folder / "verdict.json").read_text())
    runs = {name: (run["steps"], run["accuracy"], run.get("loss")) for name, run in found["runs"].items()}
    told = ("kind", "sentence", "chosen", "winner", "best", "test")
    again = {key: (found["again"] or {}).get(key) for key in ("name", "accuracy", "loss")}
    return {key: found[key] for key in told} | {"runs": runs, "again": again}


def give_steps(steps: int, count: int = 3) -> None:
    """From here on, so many candidates have so many steps in every search, and the best of them three times as many."""

    def divided(costs: Mapping[str, float], *_: object, **__: object) -> Budget:
        some = list(costs)[:count]
        first, last = dict.fromkeys(some, steps), dict.fromkeys(some, 3 * steps)
        return Budget((Rung(count, first), Rung(1, last)), tuple(list(costs)[count:]))

    rungs.divide_time = divided  # type: ignore[assignment]
    rungs.Rungs._next_steps = lambda self, found, counts: {next(iter(found)): 3 * steps}  # type: ignore[method-assign]
    rungs.Rungs._joins = lambda *given: 0  # type: ignore[method-assign]
    rungs.Rungs._left = lambda self: 1e4  # type: ignore[method-assign]


def run(arguments: Sequence[str], folder: Path, log: Path, *, seconds: float = float("inf")) -> bool:
    """Starts or resumes a search; whether it ended, or was killed after so many seconds."""
    resume = ["--resume"] if (folder / STATE_FILE).exists() else []
    process = forks.start([*arguments, "--yes", "-o", str(folder), *resume], log)
    code = forks.wait(process, seconds)
    if code:
        raise SystemExit(f"the search ended with {code}:\n{log.read_text(errors='replace')[-3000:]}")
    return code == 0


def progress(folder: Path) -> str:
    """The last number that the search has saved."""
    path = folder / STATE_FILE
    return list(json.loads(path.read_text()))[-1] if path.exists() else "nothing"


def kill_and_resume(
    arguments: Sequence[str], folder: Path, log: Path, *, seconds: float, kills: int, seed: int
) -> list[tuple[float, str]]:
    """Kills the search so many times within the seconds that it takes, then lets it end; when, and after what."""
    draw = random.Random(seed)
    moments = [0.0, *sorted(draw.uniform(0, seconds) for _ in range(kills))]
    told = []
    for before, moment in pairwise(moments):
        if run(arguments, folder, log, seconds=moment - before):
            break
        told.append((round(moment - before, 1), progress(folder)))
        print(f"killed after {told[-1][0]} s; saved last: {told[-1][1]}", flush=True)
    run(arguments, folder, log)
    return told


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    whole, killed, log = folder / "whole", folder / "killed", folder / "log"
    arguments = ["specialise", str(options.data.resolve())]
    give_steps(options.steps)
    run(arguments, whole, log)
    seconds = 60 * json.loads((whole / "verdict.json").read_text())["minutes"]
    print(f"undisturbed: {seconds:.0f} s: {decisions(whole)['sentence']}", flush=True)
    kill_and_resume(arguments, killed, log, seconds=seconds, kills=options.kills, seed=options.seed)
    print(f"killed: {decisions(killed)['sentence']}")
    alike = decisions(whole) == decisions(killed)
    print("the same in every number" if alike else f"{decisions(whole)}\n{decisions(killed)}")
    return int(not alike)


if __name__ == "__main__":
    sys.exit(main())
