"""Seconds of the evaluator `logistic` with all threads of both libraries that it uses, and with few, as m2dx has it.

    python benchmarks/classifier_threads.py LIST.csv [LIST.csv ...] [--encoder starter] [--rounds 5]

Features are encoded once, before anything is timed. OMP_NUM_THREADS must not be set.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from unittest import mock

from timing import Quartiles, Tables, at_least, give, in_turns, options_of

import m2dx
from m2dx.data.csv_list import CsvDataset
from m2dx.evaluation import solver
from m2dx.evaluation.features import FeatureCache
from m2dx.evaluation.logistic import Logistic

CASES = {"few": solver.few_threads, "all": lambda _: contextlib.nullcontext()}


def seconds(task: m2dx.ClipTask, encoder: m2dx.AudioEncoder, case: str, turn: int) -> float:
    """Of fitting and scoring."""
    with mock.patch.object(solver, "few_threads", CASES[case]):
        started = time.perf_counter()
        Logistic().evaluate(encoder, task, seeds=(0,))
        return time.perf_counter() - started


def main(arguments: Sequence[str] | None = None) -> int:
    """Times each list; the exit status."""
    parser = options_of(__doc__, recipe_fields=False)
    parser.add_argument("lists", nargs="+", type=Path, metavar="LIST.csv")
    parser.add_argument("--encoder", default="starter")
    parser.add_argument("--rounds", type=at_least(1), default=5)
    options = parser.parse_args(arguments)

    def measure() -> Tables:
        encoder, rows = m2dx.load_encoder(options.encoder), []
        with tempfile.TemporaryDirectory() as folder:
            for path in options.lists:
                task = m2dx.ClipTask.from_dataset(
                    path.stem, CsvDataset(path=path), shared_groups="warn", cache=FeatureCache(Path(folder))
                )
                task.features(encoder)
                timed = partial(seconds, task, encoder)
                found = in_turns(list(CASES), options.rounds, timed, "s")
                rows.append(
                    {"list": path.stem, "clips": len(task.clips), "classes": len(task.label_names)}
                    | {f"{case} threads, s": str(Quartiles.of(times)) for case, times in found.items()}
                    | {"times as fast": str(Quartiles.ratio(found["all"], found["few"]))}
                )
        return {"Seconds of `logistic`": rows}

    return give(options, measure)


if __name__ == "__main__":
    sys.exit(main())
