"""The published tasks among the data sets of every plugin, with what of them is on this machine."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from textwrap import indent

from pydantic import ValidationError
from rich.table import Column, Table
from rich.text import Text

from m2dx.contract.components import Clip, TaskInfo
from m2dx.contract.errors import M2dxError, RecipeError
from m2dx.contract.host import PluginHost
from m2dx.contract.paths import expand
from m2dx.contract.wording import suggestion
from m2dx.data.clips import call_dataset, list_clips
from m2dx.evaluation.splits import SPLITS


def published_tasks(host: PluginHost) -> dict[str, TaskInfo]:
    """The data sets that are published tasks, by name, sorted."""
    classes = {name: host.component("dataset", name) for name in host.names("dataset")}
    return {name: cls.task for name, cls in classes.items() if cls.task is not None}


def task_table(host: PluginHost) -> Table:
    """A row for each published task: what it is, and what is on this machine. Lists are read, audio is not."""
    table = Table(*(Column(title, overflow="fold") for title in ("task", "what it is", "on this machine")))
    table.show_lines = True
    table.caption = "m2dx tasks NAME says what must be in a task's folder, and where it is from"
    for name, info in published_tasks(host).items():
        lines = "\n".join(on_this_machine(host, name, info))
        table.add_row(name, Text(_facts(info)), Text(lines))
    return table


def task_page(host: PluginHost, name: str) -> str:
    """How to lay out a published task, where it is from, and how a recipe uses it.

    Raises RecipeError where there is no published task of that name.
    """
    tasks = published_tasks(host)
    if name not in tasks:
        own = f"the data set {name!r} is not a published task" if name in host.names("dataset") else None
        raise RecipeError(f"{own or f'there is no task {name!r}'}; {suggestion(name, tasks)}")
    info = tasks[name]
    here = "\n".join(on_this_machine(host, name, info))
    parts = (
        _facts(info),
        f"The folder that {info.variable} names:\n{indent(info.layout, '  ')}",
        f"From:\n{indent(info.get, '  ')}",
        f"On this machine:\n{indent(here, '  ')}",
        "In a recipe:",
        recipe_part(name, info),
    )
    return "\n\n".join(parts)


def recipe_part(name: str, info: TaskInfo) -> str:
    """The part of a recipe that evaluates on the task."""
    return (
        "evaluation:\n"
        "  tasks:\n"
        f'    {name}: {{dataset: {{name: {name}, path: "${{{info.variable}}}"}}}}\n'
        "  evaluators: {linear: {name: linear}}"
    )


def on_this_machine(host: PluginHost, name: str, info: TaskInfo) -> list[str]:
    """The clips that there are and what is missing, or why there are none; a line each."""
    folder = os.environ.get(info.variable)
    if not folder:
        return [f"set {info.variable} to its folder"]
    try:
        options = {"name": name, "path": expand(folder, folder=Path())}
        dataset = host.build("dataset", host.option_model("dataset", name).model_validate(options))
        return [_counted(list_clips(name, dataset)), *call_dataset(name, dataset, "missing")]
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        return [f"it cannot be built with `path` alone: `{field}`: {first['msg']}"]
    except (M2dxError, ValueError) as error:
        return [str(error).partition("\n")[0]]


def _facts(info: TaskInfo) -> str:
    return (
        f"{info.title}\n{info.num_classes} classes, {info.unit_seconds:g} s, {info.metric}\n"
        f"{info.division}; {info.source}"
    )


def _counted(clips: Sequence[Clip]) -> str:
    counts = Counter(clip.split or "without a split" for clip in clips)
    order = (*SPLITS, "without a split")
    if set(counts) <= set(order):
        return ", ".join(f"{counts[split]} {split}" for split in order if counts[split]) or "no clips"
    return f"{len(clips)} clips in {len(counts)} folds"
