"""The data of a run as the page tells it: a table of the sets, statistics, bad files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from m2dx.report.data_facts import by_name, changed_sets
from m2dx.report.recipe_facts import Fact, section
from m2dx.report.run_folder import RunFolder
from m2dx.report.summary_facts import hours_text, number

_PATHS = ("path", "root", "folder")


@dataclass(frozen=True)
class DataTable:
    """What the page says about the data."""

    rows: tuple[
        tuple[str, ...], ...
    ]  # set, data set, split, clips, files, hours, labels, repeat, fingerprint
    facts: tuple[Fact, ...]
    notes: tuple[str, ...]
    bad_share: str  # a sentence; empty: not known


def data_table(run: RunFolder, recipe: Mapping[str, Any], now: Mapping[str, Any] | None) -> DataTable:
    """From the facts that were recorded with the run, else those of the lists `now`, else what the recipe names."""
    recorded = section(run.summary, "data")
    notes = []
    if not recorded and now:
        notes.append(
            "Not recorded with the run: these are its lists as they were when this page was written."
        )
    elif recorded and now:
        changed = changed_sets(recorded, now)
        if changed:
            notes.append(f"Lists that have changed since the training: {', '.join(changed)}.")
    facts = by_name(recorded or now or {})
    data = section(recipe, "data")
    sets = dict(section(data, "sets"))
    if section(recipe, "noise"):
        sets["noise"] = recipe["noise"]
    rows = tuple(
        _row(str(name), facts.get(str(name), {}), section(sets, name))
        for name in dict.fromkeys([*sets, *facts])
    )
    errors = [
        f"{name} could not be listed: {fact['error']}" for name, fact in facts.items() if "error" in fact
    ]
    return DataTable(rows, _facts(run, recipe), (*notes, *errors), _bad_share(run, facts))


def _row(name: str, facts: Mapping[str, Any], asked: Mapping[str, Any]) -> tuple[str, ...]:
    dataset = section(asked, "dataset") or section(asked, "source")
    where = next((str(dataset[key]) for key in _PATHS if dataset.get(key)), "")
    kind = str(facts.get("dataset") or facts.get("source") or dataset.get("name", ""))
    return (
        name,
        f"{kind}: {where}" if where else kind,
        str(asked.get("split") or "all"),
        _count(facts, "clips"),
        _count(facts, "files"),
        _hours(facts),
        _labels(facts),
        f"{asked['repeat']} x" if "repeat" in asked else "",
        str(facts.get("fingerprint", "")),
    )


def _count(facts: Mapping[str, Any], key: str) -> str:
    return number(facts[key]) if isinstance(facts.get(key), int) else ""


def _hours(facts: Mapping[str, Any]) -> str:
    hours = facts.get("hours")
    if not isinstance(hours, int | float):
        return "" if facts.get("hours_from") is None else "not known"
    return hours_text(hours) if facts.get("hours_from") is None else f"about {hours_text(hours)}"


def _labels(facts: Mapping[str, Any]) -> str:
    if not isinstance(facts.get("labelled"), int):
        return ""
    if not facts["labelled"]:
        return "none"
    return f"{number(facts['labelled'])} clips, {number(facts.get('classes', 0))} classes"


def _facts(run: RunFolder, recipe: Mapping[str, Any]) -> tuple[Fact, ...]:
    data, audio, summary = section(recipe, "data"), section(recipe, "audio"), run.summary
    facts: list[Fact] = []
    if "data_clips" in summary:
        facts.append(("Clips, each once", number(summary["data_clips"])))
    if isinstance(summary.get("hours_of_data"), int | float):
        facts.append(("Hours, each clip once", hours_text(summary["hours_of_data"])))
    if data.get("epoch_size"):
        facts.append(("Clips an epoch", number(data["epoch_size"])))
    image = section(recipe, "image")
    if image:
        facts += [(f"Images: {key}", _sizes(image[key])) for key in ("size", "mean", "std") if image.get(key)]
        audio, data = {}, {}  # defaults that play no part
    for title, part, key, unit in (
        ("Sampling rate", audio, "sample_rate", " Hz"),
        ("Crop", audio, "crop_seconds", " s"),
        ("Short clips", data, "short_clips", ""),
        ("Log-mel mean", data, "mean", ""),
        ("Log-mel std", data, "std", ""),
        ("Log-mel mean of the noise", section(recipe, "noise"), "mean", ""),
    ):
        if part.get(key) is not None:
            facts.append((title, f"{number(part[key])}{unit}"))
    return tuple(facts)


def _sizes(values: object) -> str:
    return ", ".join(map(number, values)) if isinstance(values, list) else number(values)


def _bad_share(run: RunFolder, facts: Mapping[str, Mapping[str, Any]]) -> str:
    bad, files = run.bad_files, [fact.get("files") for fact in facts.values() if "source" not in fact]
    if not bad or not files or not all(isinstance(count, int) for count in files):
        return ""
    total = sum(count for count in files if isinstance(count, int))
    return f"{len(bad) / max(total, 1):.2%} of the {total:,} files of the lists above." if total else ""
