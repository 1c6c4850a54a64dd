"""The Markdown tables of against_baseline.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def spread(values: Mapping[str, Any]) -> str:
    """Median and quartiles."""
    return f"{values['median']:.2f} ({values['q1']:.2f} to {values['q3']:.2f})"


def markdown(report: Mapping[str, Any]) -> str:
    """Speeds beside the baseline's, the gain of each measure, and where it was measured."""
    whole = [result for result in report["results"] if result["without"] is None]
    lines = ["| step | clips/s (quartiles) | against the baseline |", "| --- | ---: | ---: |"]
    for result in whole:
        name = result["precision"] if result["precision"] == "baseline" else f"m2dx {result['precision']}"
        lines.append(
            f"| {name} | {spread(result['clips_per_second'])} | {spread(result['against_baseline'])} |"
        )
    parts = [result for result in report["results"] if result["without"] is not None]
    if parts:
        lines += ["", *gains(parts)]
    return "\n".join([*lines, "", *facts(report)])


def gains(parts: list[dict[str, Any]]) -> list[str]:
    """How many times as fast a step is with a measure as without it."""
    precisions = list(dict.fromkeys(part["precision"] for part in parts))
    lines = [f"| measure | {' | '.join(precisions)} |", f"| --- |{' ---: |' * len(precisions)}"]
    for name in dict.fromkeys(part["without"] for part in parts):
        of = {part["precision"]: part["against_all_measures"] for part in parts if part["without"] == name}
        inverse = {
            p: {"median": 1 / r["median"], "q1": 1 / r["q3"], "q3": 1 / r["q1"]} for p, r in of.items()
        }
        lines.append(f"| {name} | {' | '.join(spread(inverse[p]) for p in precisions)} |")
    return lines


def facts(report: Mapping[str, Any]) -> list[str]:
    """Machine, versions, settings and the losses of both."""
    machine, versions, options = report["machine"], report["versions"], report["options"]
    return [
        f"- {report['date']}, {machine['device']}; processor {machine['cpu']}, {machine['cores']} cores, "
        f"{machine['threads']} threads, load before {machine['load_before']}, {machine['system']}.",
        f"- m2dx {versions['m2dx']}, torch {versions['torch']}, Python {versions['python']}.",
        f"- ViT {options['size']}, {options['batch']} clips of {options['crop_seconds']:g} s a step, seed "
        f"{options['seed']}; {options['repeats']} timings of {options['steps']} steps, in turns, by the "
        f"{options['clock']} clock.",
        "- Loss of the first batch, float32: "
        + ", ".join(f"{name} {loss:.6f}" for name, loss in report["losses"].items())
        + ".",
    ]
