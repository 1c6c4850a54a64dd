"""A dry run as tables for the terminal, and the sentence that says what to set."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from m2dx.contract.wording import gigabytes
from m2dx.memory.dry_run import DryRun, Row
from m2dx.memory.limits import KEPT_FREE

_LEAST_SHOWN = 2**19
"""Bytes of a part from which on it has a row."""


def print_dry_run(found: DryRun, console: Console) -> None:
    """Prints the parts, the sizes, what fits, and notes."""
    console.print(_parts(found))
    console.print(_sizes(found))
    for line in (*conclusion(found), *(f"Note: {note}." for note in found.notes)):
        console.print(line, highlight=False)


def _parts(found: DryRun) -> Table:
    setting, estimate = found.setting, found.setting.estimate
    last = found.measurements[-1] if found.measurements else None
    table = Table(title="parts of one process", title_justify="left")
    for name in ("part", "estimated", "measured"):
        table.add_column(name, justify="left" if name == "part" else "right")

    def add(name: str, estimated: float, measured: float | None = None) -> None:
        if max(estimated, measured or 0.0, -estimated) >= _LEAST_SHOWN:
            table.add_row(name, gigabytes(estimated), "" if measured is None else gigabytes(measured))

    if setting.program:
        add("program and libraries", setting.program, None if last is None else last.program)
    elif last is not None:
        table.add_row("CUDA's own, and unused parts", "", gigabytes(last.context + last.reserved - last.peak))
    whole = estimate.weights + estimate.target + estimate.frozen
    add("weights, trained", estimate.weights)
    add("target network", estimate.target)
    add("frozen encoders, tables", estimate.frozen)
    add("  together, and libraries", whole, None if last is None else last.network)
    add("gradients", estimate.gradients)
    add("optimizer state", estimate.state, None if last is None else last.state)
    add("shared with other processes", estimate.between)
    add("activations of each clip", estimate.activations, found.clip_measured)
    add("batch, each clip", estimate.batch)
    if setting.loading.workers:
        loading = setting.loading
        table.add_row(
            f"loading processes: {loading.workers}", "", gigabytes(loading.workers * loading.private)
        )
        add(f"batches waiting: {loading.batches}, each clip", loading.batches * estimate.batch)
    return table


def _sizes(found: DryRun) -> Table:
    memory = found.setting.memory
    recipe = found.setting.recipe
    title = f"{recipe.name}, {recipe.train.precision}, on {found.device}"
    caption = (
        f"{gigabytes(memory.total)}, {gigabytes(memory.available)} free, {gigabytes(memory.usable)} usable"
    )
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
    for name in ("clips a pass", "accumulate", "estimated", "measured", "fits"):
        table.add_column(name, justify="left" if name == "fits" else "right")
    for row in found.rows:
        measured = "" if row.measured is None else gigabytes(row.measured)
        table.add_row(f"{row.clips}", f"{row.accumulate}", gigabytes(row.estimated), measured, _fits(row))
    return table


def _fits(row: Row) -> str:
    word = {True: "yes", False: "no", None: "?"}[row.fits]
    return f"{word} ({row.note})" if row.note else word


def conclusion(found: DryRun) -> list[str]:
    """What fits, and what to set for it."""
    setting, best = found.setting, found.best
    batch, several = setting.recipe.train.batch_size, setting.processes > 1
    lines = []
    if best is None:
        lines.append(
            "Not even one clip at a time fits. A smaller model, shorter crops, larger patches or bf16 take less."
        )
    else:
        across = f" in each of {setting.processes} processes" if several else ""
        lines.append(
            f"At least {best.clips} clips a pass fit{across}: an effective batch of {batch} needs "
            f"train.accumulate={best.accumulate}"
            f"{' (or a lower one that was not tried)' if _untried(found) else ''}; train.accumulate=auto finds it."
        )
    lines.append(
        f"Usable is what is free now, less {KEPT_FREE:.0%}. Clips are made up; recordings of the same length take as "
        "much."
    )
    if setting.device.type == "cuda" and setting.loading.workers and best is not None:
        host = setting.loading.bytes(best.clips, setting.estimate.batch)
        lines.append(f"The loading processes take about {gigabytes(host)} of the machine's own memory then.")
    return lines


def _untried(found: DryRun) -> bool:
    return any(row.fits is None for row in found.rows)
