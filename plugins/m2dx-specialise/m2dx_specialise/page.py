"""The page of a search: verdict, audit, baselines and candidates, curves, classes, and clips to listen to."""

from __future__ import annotations

import shlex
from collections import defaultdict
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader
from matplotlib.axes import Axes

from m2dx.contract.atomic import replace_text
from m2dx.contract.wording import number
from m2dx.report.classes import MOST_CLASSES, class_rows, confusion_picture, most_certain, sound
from m2dx.report.saving import svg
from m2dx.report.style import ACCENT, INK, MASKED, Picture, frame_curves
from m2dx.results.formats import TEMPLATING
from m2dx.results.predictions import read_predictions
from m2dx.results.scores import read_scores
from m2dx_specialise.judge import PLAIN, of_classifier
from m2dx_specialise.state import State

HARD_CLIPS = 8
SECTIONS = {"verdict": "Verdict", "audit": "Audit", "tried": "Tried", "classes": "Classes", "use": "Use it"}
Lines = dict[str, list[tuple[int, float]]]
"""Steps and percent of each candidate, by its name."""


def write_page(state: State) -> Path:
    """Writes index.html into the search's folder, from what its state and its predictions hold; gives its path.

    The page is one file without scripts; nothing is loaded from elsewhere.
    """
    loader = ChoiceLoader([PackageLoader("m2dx_specialise"), PackageLoader("m2dx.report")])
    environment = Environment(loader=loader, autoescape=True, **TEMPLATING)
    environment.filters |= {"svg": svg, "sound": sound, "number": number, "quote": shlex.quote}
    environment.filters["of_classifier"] = of_classifier
    classes = _classes(state)
    page = environment.get_template("search.html").render(
        {"test": None, "best": None, "again": None} | state.content,  # without labels there are none
        sections={id: title for id, title in SECTIONS.items() if classes or id != "classes"},
        titles={run: f"{of['title']}, {of['steps']:,} steps" for run, of in state.under("run").items()},
        name=state.request.data.resolve().name,
        folder=str(state.folder),
        baselines=dict(state.under("baseline")),
        rungs=_rungs(state),
        curves=_curves(state),
        classes=classes,
        most_classes=MOST_CLASSES,
    )
    path = state.folder / "index.html"
    replace_text(path, page, errors="replace")
    return path


def _rungs(state: State) -> dict[str, list[dict[str, Any]]]:
    """What each rung trained, by its number, the best first, and what became of it."""
    orders: list[list[str]] = [*state.under("order").values()]
    found = []
    for order, after in zip_longest(orders, orders[1:], fillvalue=list[str]()):
        rows, on = [], {name.rpartition("-")[0] for name in after}
        for run in order:
            fate = "goes on" if run.rpartition("-")[0] in on else "stopped" if after else ""
            fate = "tested" if run == state.get("winner") else fate
            rows.append({**state.get(f"run:{run}"), "fate": fate})
        found.append(rows)
    return dict(zip(state.under("order"), found, strict=True))


def _curves(state: State) -> list[Picture]:
    """Percent against the steps, where a candidate has gone on: all in one picture, and the best without training."""
    lines: Lines = defaultdict(list)
    titles = {}
    for key, run in state.under("run").items():
        name = key.removesuffix(f"-{run['steps']}")  # two starts may have one title
        titles[name] = run["title"]
        lines[name].append((run["steps"], 100 * run["accuracy"]))
    if max(map(len, lines.values()), default=0) < 2:
        return []
    level = 100 * max(found["accuracy"] for found in state.under("baseline").values())
    label = "; ".join(
        f"{titles[name]}: {line[-1][1]:.1f} at step {line[-1][0]:,}" for name, line in lines.items()
    )
    return [Picture("Percent by steps", partial(_draw_curves, lines=lines, level=level), label)]


def _draw_curves(axes: Axes, *, lines: Lines, level: float) -> None:
    best = max(lines, key=lambda name: max(value for _, value in lines[name]))
    for name, line in lines.items():
        colour = ACCENT if name == best else MASKED
        axes.plot(*zip(*sorted(line), strict=True), color=colour, marker="o", markersize=3, linewidth=1.2)
    axes.axhline(level, color=INK, linewidth=0.8, linestyle=(0, (3, 2)))
    frame_curves(axes)
    axes.set_xscale("log")
    axes.minorticks_off()
    steps = sorted({step for line in lines.values() for step, _ in line})
    axes.set_xlim(steps[0] / 1.1, steps[-1] * 1.1)
    ends = sorted({steps[0], steps[-1]})
    axes.set_xticks(ends, [f"{step:,}" for step in ends])
    axes.get_xticklabels()[-1].set_horizontalalignment("right")  # so that it is not cut off


def _classes(state: State) -> dict[str, Any] | None:
    """The test clips by class: of the classifier that is given, beside the best of the others or log-mel statistics."""
    if not (state.folder / "scores.json").exists():
        return None
    predictions = {key[0]: items for key, items in read_predictions(state.folder)[0].items()}
    scores = {score.encoder: score for score in read_scores(state.folder / "scores.json")}
    test = state.get("test")
    own = test["classifier"]["encoder"]
    rival = test["rival"] if own == state.get("winner") else test["chosen"] if own == PLAIN else PLAIN
    mine = predictions[own]
    wrong = [item for item in mine if item.label not in item.clip.labels]
    return {
        "own": own,
        "rival": rival,
        "rows": class_rows(scores[own], scores[rival]),
        "confusion": confusion_picture("the test", mine),
        "right": len(mine) - len(wrong),
        "total": len(mine),
        "clips": most_certain(wrong, HARD_CLIPS),
    }
