"""The numbers of benchmarks/cost.py as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from memory_tables import about, table


def markdown(report: Mapping[str, Any]) -> str:
    """A table, and how it came about."""
    head = ["grows", "model", "patch", "input", "patches", "GFLOP", "ms (quartiles)", "of the matrix rate",
            "encoding: GFLOP", "ms", "of the rate"]  # fmt: skip
    rows = [
        [
            result["grows"],
            result["size"],
            result["patch"],
            f"80x{result['frames']}",
            f"{result['patches']}",
            *_numbers(result, "step", with_quartiles=True),
            *_numbers(result, "encoding", with_quartiles=False),
        ]
        for result in report["results"]
    ]
    options, rate = report["options"], report["matrix_flops_per_second"]
    clock = "processor time" if options["clock"] == "cpu" else "time"
    lines = [
        *table(head, rows, texts=4),
        "",
        about(report),
        f"- {options['precision']}, {options['batch']} clips a step; medians of {options['repeats']} timings in turns, "
        f"{clock} of a clip; matrix rate {rate['median'] / 1e9:.4g} GFLOP/s ({rate['q1'] / 1e9:.4g} to "
        f"{rate['q3'] / 1e9:.4g}), measured beside each timing.",
    ]
    return "\n".join(lines)


def _numbers(result: Mapping[str, Any], key: str, *, with_quartiles: bool) -> list[str]:
    gflop = f"{result['flops'][key] / 1e9:.3g}"
    if key not in result["seconds"]:
        return [gflop, "", ""]
    ms = {name: 1e3 * result["seconds"][key][name] for name in ("median", "q1", "q3")}
    spread = f" ({_short(ms['q1'])} to {_short(ms['q3'])})" if with_quartiles else ""
    return [gflop, f"{_short(ms['median'])}{spread}", f"{result['share_of_matrix_rate'][key]:.0%}"]


def _short(value: float) -> str:
    """Three digits, without an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
