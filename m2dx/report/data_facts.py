"""What a run was trained on: its data sets as they are listed, and what the page says of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
from m2dx.report.summary_facts import Fact, as_mapping, find, section
from m2dx.results.run_folder import RunFolder
from m2dx.results.run_summary import DataFacts, SetFacts

HEADERS = 500
"""Files whose header is asked for their length, at most, where a list does not say it."""


def describe_data(recipe: Recipe, host: PluginHost) -> DataFacts:
    """Facts of each data set of the recipe and of its noise; the lists are read anew."""
    sets = {
        name: replace(describe_set(name, of.dataset, of.split, host), repeat=of.repeat)
        for name, of in recipe.data.sets.items()
    }
    noise = recipe.noise
    if noise is None or noise.ratio == 0.0:
        return DataFacts(sets)
    if noise.dataset is None:
        assert noise.source is not None
        return DataFacts(sets, SetFacts("noise", noise.source.name))
    return DataFacts(sets, describe_set("noise", noise.dataset, noise.split, host))


def describe_set(name: str, spec: ComponentSpec, split: str | None, host: PluginHost) -> SetFacts:
    """The facts of one set, or its `error`."""
    facts = SetFacts(name, spec.name, split)
    try:
        dataset = host.build("dataset", spec)
        clips = list_clips(name, dataset, split)
        labelled = sum(bool(clip.labels) for clip in clips)
        hours, counted = hours_of(clips) if dataset.media != "image" else (None, len(clips))
        return replace(
            facts,
            clips=len(clips),
            files=len({clip.path for clip in clips}),
            hours=hours,
            hours_from=None if counted == len(clips) else counted,
            labelled=labelled,
            classes=len(names_of(name, dataset)) if labelled else 0,
            missing=tuple(missing_of(name, dataset)),
            fingerprint=fingerprint(clips),
        )
    except M2dxError as error:
        return replace(facts, error=str(error))


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


@dataclass(frozen=True)
class DataRow:
    """A data set as the page tells it; empty texts: not known."""

    name: str
    source: str  # its component, and where it is
    split: str
    clips: str
    files: str
    hours: str
    labels: str
    repeat: str
    fingerprint: str


@dataclass(frozen=True)
class DataTable:
    """What the page says about the data."""

    rows: tuple[DataRow, ...]
    facts: tuple[Fact, ...]
    notes: tuple[str, ...]
    bad_share: str  # a sentence; empty: not known


def data_table(run: RunFolder, recipe: Mapping[str, Any], now: DataFacts | None) -> DataTable:
    """From the facts that were recorded with the run, else those of the lists `now`, else what the recipe names."""
    recorded = None if run.summary is None else run.summary.data
    notes = []
    if recorded is None and now is not None:
        notes.append(
            "Not recorded with the run: these are its lists as they were when this page was written."
        )
    elif recorded is not None and now is not None and (changed := changed_sets(recorded, now)):
        notes.append(f"Lists that have changed since the training: {', '.join(changed)}.")
    facts = (recorded or now or DataFacts()).by_name
    notes += [f"{name} could not be listed: {of.error}" for name, of in facts.items() if of.error is not None]
    asked = {
        **section(recipe, "data.sets"),
        **({"noise": recipe["noise"]} if section(recipe, "noise") else {}),
    }
    rows = tuple(_row(str(name), facts.get(str(name)), asked) for name in dict.fromkeys([*asked, *facts]))
    return DataTable(rows, _settings(run, recipe), tuple(notes), _bad_share(run, list(facts.values())))


def changed_sets(recorded: DataFacts, now: DataFacts) -> list[str]:
    """Names of the data sets whose lists are others than those that were recorded."""
    after = now.by_name
    return [
        name
        for name, facts in recorded.by_name.items()
        if facts.fingerprint is not None and name in after and facts.fingerprint != after[name].fingerprint
    ]


def _row(name: str, facts: SetFacts | None, recipe_sets: Mapping[str, Any]) -> DataRow:
    asked = as_mapping(recipe_sets.get(name))
    dataset = section(asked, "dataset") or section(asked, "source")
    if facts is None:
        facts = SetFacts(name, str(dataset.get("name", "")), asked.get("split"), asked.get("repeat"))
    where = next((str(dataset[key]) for key in ("path", "root", "folder") if dataset.get(key)), "")
    return DataRow(
        name=name,
        source=f"{facts.dataset}: {where}" if where else facts.dataset,
        split=str(facts.split or "all"),
        clips="" if facts.clips is None else number(facts.clips),
        files="" if facts.files is None else number(facts.files),
        hours=_hours(facts),
        labels=_labels(facts),
        repeat="" if facts.repeat is None else f"{facts.repeat} x",
        fingerprint=facts.fingerprint or "",
    )


def _hours(facts: SetFacts) -> str:
    if facts.hours is None:
        return "" if facts.hours_from is None else "not known"
    return hours_text(facts.hours) if facts.hours_from is None else f"about {hours_text(facts.hours)}"


def _labels(facts: SetFacts) -> str:
    if facts.labelled is None:
        return ""
    return f"{number(facts.labelled)} clips, {number(facts.classes)} classes" if facts.labelled else "none"


_AUDIO_SETTINGS = (
    ("Sampling rate", "audio.sample_rate", " Hz"),
    ("Crop", "audio.crop_seconds", " s"),
    ("Short clips", "data.short_clips", ""),
    ("Log-mel mean", "data.mean", ""),
    ("Log-mel std", "data.std", ""),
)


def _settings(run: RunFolder, recipe: Mapping[str, Any]) -> tuple[Fact, ...]:
    facts: list[Fact] = []
    if run.summary is not None:
        facts.append(("Clips, each once", number(run.summary.data_clips)))
        if run.summary.hours_of_data is not None:
            facts.append(("Hours, each clip once", hours_text(run.summary.hours_of_data)))
    image, settings = section(recipe, "image"), [("Clips an epoch", "data.epoch_size", "")]
    facts_of_images = [
        (
            f"Images: {key}",
            ", ".join(map(number, image[key])) if isinstance(image[key], list) else number(image[key]),
        )
        for key in ("size", "mean", "std")
        if image.get(key)
    ]
    if not image:  # else these are defaults that play no part
        settings += _AUDIO_SETTINGS
    settings.append(("Log-mel mean of the noise", "noise.mean", ""))
    facts += [
        (title, f"{number(value)}{unit}")
        for title, path, unit in settings
        if (value := find(recipe, path)) is not None
    ]
    return (*facts, *facts_of_images)


def _bad_share(run: RunFolder, facts: Sequence[SetFacts]) -> str:
    total = sum(of.files or 0 for of in facts)
    if not run.bad_files or not total or any(of.error is not None for of in facts):
        return ""
    return f"{len(run.bad_files) / total:.2%} of the {total:,} files of the lists above."
