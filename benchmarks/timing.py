"""What the benchmarks share: options, timings in turns, quartiles, and tables that say where they were measured."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import torch

import m2dx
from m2dx.contract.errors import M2dxError

RECIPE = Path(__file__).resolve().parent / "recipes" / "step.yaml"

Tables = dict[str, list[dict[str, Any]]]
"""Title -> rows, each with its cells by the column's name."""
Case, Result = TypeVar("Case"), TypeVar("Result")


@dataclass(frozen=True)
class Quartiles:
    """Several timings of the same."""

    median: float
    q1: float
    q3: float
    samples: tuple[float, ...]  # by round

    @classmethod
    def of(cls, samples: Sequence[float]) -> Quartiles:
        several = len(samples) > 1
        cuts = statistics.quantiles(samples, n=4, method="inclusive") if several else [samples[0]] * 3
        return cls(cuts[1], cuts[0], cuts[2], tuple(samples))

    @classmethod
    def ratio(cls, ours: Sequence[float], theirs: Sequence[float]) -> Quartiles:
        """Of the ratios of two cases' speeds, round by round."""
        return cls.of([mine / its for mine, its in zip(ours, theirs, strict=True)])

    def __str__(self) -> str:
        return "{} ({} to {})".format(*map(cell, (self.median, self.q1, self.q3)))


def options_of(description: str | None, *, recipe_fields: bool = True) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark has."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="write everything measured to this file")
    if recipe_fields:
        more = "more recipe fields, as of `m2dx train`; before options that are lists"
        parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=more)
    return parser


def at_least(least: int) -> Callable[[str], int]:
    """The type of an option that is a number, this one or more."""

    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"must be a number of at least {least}, but is {text}")
        return int(text)

    return number


def in_turns(
    cases: Sequence[Case], repeats: int, time_once: Callable[[Case, int], Result], unit: str = "clips/s"
) -> dict[Case, list[Result]]:
    """Each case timed once a round; rounds go there and back, so that a machine that gets slower slows all alike."""
    found: dict[Case, list[Result]] = {case: [] for case in cases}
    for repeat in range(repeats):
        for case in cases if repeat % 2 == 0 else reversed(cases):
            found[case].append(time_once(case, repeat))
            shown = cell(found[case][-1])
            print(f"{repeat + 1}/{repeats} {case}: {shown} {unit}", file=sys.stderr, flush=True)
    return found


def give(
    options: argparse.Namespace,
    measure: Callable[[], Tables],
    *,
    failed: Callable[[Tables], bool] = lambda tables: False,
) -> int:
    """Measures, prints the tables as Markdown and writes the JSON; the exit status.

    That is 1 where m2dx refuses a setting, and where what was measured has failed.
    """
    load = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
    try:
        tables = measure()
    except M2dxError as error:
        print(error, file=sys.stderr)
        return 1
    about = {
        "date": datetime.now(UTC).date().isoformat(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "processor": cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load before": load,
        "system": f"{platform.system()} {platform.machine()}",
        "m2dx": m2dx.__version__,
        "torch": torch.__version__,
        "Python": platform.python_version(),
    }
    given = {name: value for name, value in vars(options).items() if not isinstance(value, Path | None)}
    for title, rows in tables.items():
        print(f"**{title}**\n\n{markdown(rows)}\n")
    for facts in (given, about):
        print("- " + ", ".join(f"{name} {value}" for name, value in facts.items()) + ".")
    if options.json is not None:
        report = {**about, "options": given, "tables": tables}
        text = json.dumps(report, indent=1, default=lambda v: asdict(v) if is_dataclass(v) else str(v))
        options.json.write_text(f"{text}\n", encoding="utf-8")
    return int(failed(tables))


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table; columns of numbers are aligned right."""
    if not rows:
        return "None."
    rule = ["---" if isinstance(value, str) else "---:" for value in rows[0].values()]
    lines = [list(rows[0]), rule, *([cell(value) for value in row.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(value: object) -> str:
    """A value as text."""
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return "" if value is None else str(value)


def cpu_name() -> str:
    """The processor's name, as well as the system knows it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"
