"""What a run was trained on: clips, files, hours and a fingerprint of each data set, recorded with the run."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from m2dx.contract.components import Clip
from m2dx.contract.errors import M2dxError
from m2dx.contract.host import PluginHost
from m2dx.contract.options import ComponentSpec
from m2dx.contract.wording import hours_text, number
from m2dx.data.clips import list_clips, missing_of, names_of
from m2dx.data.reading import audio_seconds
from m2dx.recipe.schema import Recipe
from m2dx.report.summary_facts import Fact, section
from m2dx.results.run_folder import RunFolder

HEADERS = 500
"""Files whose header is asked for their length, at most, where a list does not say it."""


@dataclass(frozen=True)
class SetFacts:
    """One data set of a recipe, as it was listed."""

    name: str
    dataset: str  # the component
    split: str | None
    clips: int
    files: int
    hours: float | None  # None: not known, or not audio
    hours_from: int | None  # clips that the hours are an estimate from; None: they are all counted
    labelled: int  # clips with a label
    classes: int
    missing: tuple[str, ...]  # what it lacks on this machine
    fingerprint: str


def describe_data(recipe: Recipe, host: PluginHost) -> dict[str, Any]:
    """Facts of each data set of the recipe and of its noise, as plain data for summary.json.

    The lists are read anew. One that cannot be read has `error` in the place of its facts.
    """
    sets = {
        name: describe_set(name, section.dataset, section.split, host) | {"repeat": section.repeat}
        for name, section in recipe.data.sets.items()
    }
    noise = recipe.noise
    if noise is None or noise.ratio == 0.0:
        return {"sets": sets}
    if noise.dataset is None:
        assert noise.source is not None
        return {"sets": sets, "noise": {"source": noise.source.name}}
    return {"sets": sets, "noise": describe_set("noise", noise.dataset, noise.split, host)}


def describe_set(name: str, spec: ComponentSpec, split: str | None, host: PluginHost) -> dict[str, Any]:
    """The facts of one set, or its `error`."""
    try:
        dataset = host.build("dataset", spec)
        clips = list_clips(name, dataset, split)
        labelled = sum(bool(clip.labels) for clip in clips)
        hours, counted = hours_of(clips) if dataset.media != "image" else (None, len(clips))
        facts = SetFacts(
            name=name,
            dataset=spec.name,
            split=split,
            clips=len(clips),
            files=len({clip.path for clip in clips}),
            hours=hours,
            hours_from=None if counted == len(clips) else counted,
            labelled=labelled,
            classes=len(names_of(name, dataset)) if labelled else 0,
            missing=tuple(missing_of(name, dataset)),
            fingerprint=fingerprint(clips),
        )
        return asdict(facts)
    except M2dxError as error:
        return {"name": name, "dataset": spec.name, "error": str(error)}


def hours_of(clips: Sequence[Clip]) -> tuple[float | None, int]:
    """Hours of all clips, and the number of clips that this was counted over.

    Where a list does not give a clip's duration, headers are asked, `HEADERS` of them at most, evenly spread; their
    mean stands for the rest. None: no length is known.
    """
    open_ended = [clip for clip in clips if clip.duration is None]
    listed = sum(clip.duration for clip in clips if clip.duration is not None)
    count = min(len(open_ended), HEADERS)
    lengths = [_seconds(open_ended[i * len(open_ended) // count]) for i in range(count)]
    found = [seconds for seconds in lengths if seconds is not None]
    counted = len(clips) - len(open_ended) + len(found)
    if not counted:
        return None, 0
    rest = sum(found) / len(found) * len(open_ended) if found else 0.0
    return (listed + rest) / 3600, counted


def _seconds(clip: Clip) -> float | None:
    try:
        return max(audio_seconds(clip.path) - clip.start, 0.0)
    except M2dxError:
        return None  # the training names it among the bad files


def fingerprint(clips: Sequence[Clip]) -> str:
    """12 hexadecimal digits of a SHA-256 over a list of clips: paths, starts, durations, labels; not their order.

    Paths count from the folder that all files share, so that data may move; what is in the files does not count.
    """
    if not clips:
        return hashlib.sha256().hexdigest()[:12]
    paths = [os.path.abspath(clip.path) for clip in clips]
    shared = os.path.commonpath({os.path.dirname(path) for path in paths})
    lines = sorted(
        "\t".join([Path(os.path.relpath(path, shared)).as_posix(), _place(clip), *sorted(clip.labels)])
        for path, clip in zip(paths, clips, strict=True)
    )
    return hashlib.sha256("\n".join(lines).encode("utf-8", errors="surrogateescape")).hexdigest()[:12]


def _place(clip: Clip) -> str:
    return f"{clip.start:.3f}\t{'' if clip.duration is None else f'{clip.duration:.3f}'}"


def changed_sets(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Names of the data sets whose lists are others than those that were recorded."""
    before, after = by_name(recorded), by_name(now)
    return [
        name
        for name, facts in before.items()
        if "fingerprint" in facts and facts["fingerprint"] != after.get(name, facts).get("fingerprint")
    ]


def by_name(data: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The facts of `describe_data` by name, the noise last; what is not of that form is left out."""
    sets = data.get("sets")
    found = dict(sets) if isinstance(sets, dict) else {}
    if isinstance(data.get("noise"), dict):
        found["noise"] = data["noise"]
    return {str(name): facts for name, facts in found.items() if isinstance(facts, dict)}


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
