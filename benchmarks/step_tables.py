"""The numbers of benchmarks/step.py as tables: on the screen, and between the markers of a Markdown page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

BEGIN, END = "<!-- step-benchmark: begin -->", "<!-- step-benchmark: end -->"


def tables(report: dict[str, Any]) -> dict[str, list[list[str]]]:
    """The two tables, by title: the first row of each is its head."""
    speed = [["size", "patch", "precision", "visible + masked", "clips/s (quartiles)", "speed-up", "GFLOP/clip",
              "GFLOP/s", "of the matrix rate"]]  # fmt: skip
    shares = [["size", "patch", "precision", *report["results"][0]["shares"]]]
    for result in report["results"]:
        names, clips = [result[key] for key in ("size", "patch", "precision")], result["clips_per_second"]
        speed.append([
            *names,
            f"{result['visible']} + {result['masked']}",
            f"{clips['median']:.3g} ({clips['q1']:.3g} to {clips['q3']:.3g})",
            f"{result['speedup']['median']:.2f}",
            f"{result['flops_per_clip']['step'] / 1e9:.3g}",
            f"{result['flops_per_second'] / 1e9:.4g}",
            f"{result['share_of_matrix_rate']:.0%}",
        ])  # fmt: skip
        shares.append([*names, *(f"{100 * share:.1f}" for share in result["shares"].values())])
    return {"Speed of the training step": speed, "Share of each part, % of the step's time": shares}


def caption(report: dict[str, Any]) -> list[str]:
    """How and where, as sentences for a page or a screen."""
    options, machine, versions = report["options"], report["machine"], report["versions"]
    rates = ", ".join(
        f"{name} {rate['median'] / 1e9:.4g}" for name, rate in report["matrix_flops_per_second"].items()
    )
    extra = f", {' '.join(options['overrides'])}" if options["overrides"] else ""
    return [
        f"{report['date']}, {machine['device']}; processor {machine['cpu']}, {machine['cores']} cores, "
        f"{machine['threads']} threads, load before {machine['load_before']}, {machine['system']}.",
        f"m2dx {versions['m2dx']}, torch {versions['torch']}, Python {versions['python']}.",
        f"{report['recipe']}, seed {options['seed']}: {options['batch']} clips of {options['crop_seconds']} s a step, "
        f"{options['workers']} loading processes; {options['repeats']} timings of {options['steps']} steps, each after "
        f"{options['warmup']} for warming up{extra}.",
        f"Matrix rate, {options['matrix']} x {options['matrix']}, GFLOP/s: {rates}.",
    ]


def show(report: dict[str, Any], console: Console) -> None:
    """Prints the tables."""
    for title, (head, *rows) in tables(report).items():
        table = Table(title=title)
        for column, name in enumerate(head):
            table.add_column(name, justify="left" if column < 3 else "right")
        for row in rows:
            table.add_row(*row)
        console.print(table)
    for line in caption(report):
        console.print(line, highlight=False)


def markdown(report: dict[str, Any]) -> str:
    """The tables as Markdown, between the two markers."""
    lines = [BEGIN, ""]
    for title, (head, *rows) in tables(report).items():
        rule = ["---" if column < 3 else "---:" for column in range(len(head))]
        lines += [f"**{title}**", "", *(f"| {' | '.join(row)} |" for row in (head, rule, *rows)), ""]
    return "\n".join([*lines, *(f"- {line}" for line in caption(report)), "", END])


def has_markers(page: Path) -> bool:
    """Whether the page has one place for the tables."""
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    return text.count(BEGIN) == text.count(END) == 1 and text.index(BEGIN) < text.index(END)


def write_page(page: Path, report: dict[str, Any]) -> None:
    """Replaces what stands between the page's markers."""
    text = page.read_text(encoding="utf-8")
    before, after = text[: text.index(BEGIN)], text[text.index(END) + len(END) :]
    page.write_text(before + markdown(report) + after, encoding="utf-8")
