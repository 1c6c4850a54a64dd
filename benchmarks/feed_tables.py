"""The numbers of benchmarks/feed.py as a table: on the screen, and between the markers of a Markdown page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

BEGIN, END = "<!-- feed-benchmark: begin -->", "<!-- feed-benchmark: end -->"


def rows(report: dict[str, Any]) -> list[list[str]]:
    """The table; its first row is the head."""
    found = [["format", "on the disk", "travels as", "kB a clip", "workers", "clips/s (quartiles)",
              "clips per core second"]]  # fmt: skip
    for result in report["results"]:
        speed, own = result["clips_per_second"], result["clips_per_core_second"]
        found.append([
            result["form"],
            f"{result['disk_bytes'] / 1e6:.0f} MB",
            result["samples"] if result["form"] != "ogg" else "float32",
            f"{result['sample_bytes_per_clip'] / 1e3:.0f}",
            str(result["workers"]),
            f"{speed['median']:.0f} ({speed['q1']:.0f} to {speed['q3']:.0f})",
            "" if own is None else f"{own['median']:.0f}",
        ])  # fmt: skip
    return found


def caption(report: dict[str, Any]) -> list[str]:
    """How and where, as sentences for a page or a screen."""
    options, machine, versions = report["options"], report["machine"], report["versions"]
    cache = "dropped from the page cache before each timing" if options["cold"] else "in the page cache"
    noise = ", each with a noise crop" if options["noise"] else ""
    return [
        f"{report['date']}; processor {machine['cpu']}, {machine['cores']} cores, load before "
        f"{machine['load_before']}, {machine['system']}.",
        f"m2dx {versions['m2dx']}, torch {versions['torch']}, soundfile {versions['soundfile']} "
        f"({versions['libsndfile']}), Python {versions['python']}.",
        f"{options['clips']} clips of {options['seconds']:g} s, files {cache}; crops of {options['crop_seconds']:g} s"
        f"{noise}, {options['batch']} a batch; {options['repeats']} timings of {options['batches']} batches.",
    ]


def show(report: dict[str, Any], console: Console) -> None:
    """Prints the table."""
    head, *body = rows(report)
    table = Table(title="Speed of the feed")
    for column, name in enumerate(head):
        table.add_column(name, justify="left" if column in (0, 2) else "right")
    for row in body:
        table.add_row(*row)
    console.print(table)
    for line in caption(report):
        console.print(line, highlight=False)


def markdown(report: dict[str, Any]) -> str:
    """The table as Markdown, between the two markers."""
    head, *body = rows(report)
    rule = ["---" if column in (0, 2) else "---:" for column in range(len(head))]
    lines = [f"| {' | '.join(row)} |" for row in (head, rule, *body)]
    return "\n".join([BEGIN, "", *lines, "", *(f"- {line}" for line in caption(report)), "", END])


def has_markers(page: Path) -> bool:
    """Whether the page has one place for the table."""
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    return text.count(BEGIN) == text.count(END) == 1 and text.index(BEGIN) < text.index(END)


def write_page(page: Path, report: dict[str, Any]) -> None:
    """Replaces what stands between the page's markers."""
    text = page.read_text(encoding="utf-8")
    before, after = text[: text.index(BEGIN)], text[text.index(END) + len(END) :]
    page.write_text(before + markdown(report) + after, encoding="utf-8")
