"""The numbers of benchmarks/memory.py and benchmarks/cost.py as Markdown, and where they stand in a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, texts: int) -> list[str]:
    """Lines of a table whose first `texts` columns are words, and the others numbers."""
    rule = ["---" if column < texts else "---:" for column in range(len(head))]
    return [f"| {' | '.join(row)} |" for row in (head, rule, *rows)]


def about(report: Mapping[str, Any]) -> str:
    """Where and when it was measured."""
    machine, versions = report["machine"], report["versions"]
    return (
        f"- {report['date']}, {machine['device']}; processor {machine['cpu']}, {machine['cores']} cores, "
        f"{machine['threads']} threads, load before {machine['load_before']}, {machine['system']}; m2dx "
        f"{versions['m2dx']}, torch {versions['torch']}, Python {versions['python']}."
    )


def markdown(report: Mapping[str, Any]) -> str:
    """The table of memory."""
    head = ["size", "patch", "precision", "clips a pass", "estimated, GB", "measured, GB", "estimate's error"]
    rows = []
    for result in report["results"]:
        measured = result["measured"]
        rows.append(
            [
                result["size"],
                result["patch"],
                result["precision"],
                f"{result['clips']}",
                f"{result['estimated'] / 2**30:.2f}",
                result["problem"] if measured is None else f"{measured / 2**30:.2f}",
                "" if measured is None else f"{result['estimated'] / measured - 1:+.0%}",
            ]
        )
    programs = [result["program"] / 2**30 for result in report["results"]]
    lines = [
        *table(head, rows, texts=3),
        "",
        about(report),
        f"- Clips of {report['options']['crop_seconds']:g} s, M2D with labels and noise, published predictor, "
        f"gradients of an earlier pass beside each; no loading processes. {max(programs):.2f} GB of each number is the "
        "program itself (Python, torch, plugins), as measured.",
    ]
    return "\n".join(lines)


def _markers(name: str) -> tuple[str, str]:
    return f"<!-- {name}-benchmark: begin -->", f"<!-- {name}-benchmark: end -->"


def has_markers(page: Path, name: str) -> bool:
    """Whether the page has one place for the benchmark's table."""
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    begin, end = _markers(name)
    return text.count(begin) == text.count(end) == 1 and text.index(begin) < text.index(end)


def write_between(page: Path, name: str, content: str) -> None:
    """Replaces what stands between the page's markers."""
    text, (begin, end) = page.read_text(encoding="utf-8"), _markers(name)
    before, after = text[: text.index(begin)], text[text.index(end) :]
    page.write_text(f"{before}{begin}\n\n{content}\n\n{after}", encoding="utf-8")
