"""Writes the page of a run."""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from m2dx.contract.atomic import replace_text
from m2dx.contract.components import Score
from m2dx.contract.wording import hours_text, number
from m2dx.report import facts
from m2dx.report.classes import MOST_CLASSES, sound, tasks_by_class
from m2dx.report.curves import Metrics, by_column, curve, draw_metric, draw_scores, loss_names, title_of
from m2dx.report.pictures import RunPictures
from m2dx.report.saving import svg
from m2dx.report.style import Picture
from m2dx.results.formats import TEMPLATING, html_table
from m2dx.results.predictions import PREDICTIONS_FILE
from m2dx.results.records import LIBRARIES
from m2dx.results.run_folder import DataFacts, read_run
from m2dx.results.scores import StepScore, without_classes
from m2dx.results.table import Cell, Group, ResultTable, Row, cells_of
from m2dx.results.verdict import encoder_title, scores_by_encoder, verdict

_OTHER_CURVES = ("rankme", "target_constant", "lr", "ema_decay", "grad_norm", "clips_per_second")
_TITLES = {name: name.title() for name in ("result", "classes", "curves", "clips", "data")} | {"facts": "Run"}
"""The sections of the page; each has a template of its name in the folder `sections`."""


def write_report(folder: Path, pictures: RunPictures | None = None, *, data: DataFacts | None = None) -> Path:
    """Writes `report.html` into a run's folder, from what the folder holds, and gives its path.

    `data` is what `describe_data` gives of the run's lists now, for a run that has not recorded its own. The page is
    self-contained: no script, and nothing is loaded from elsewhere. A file that is missing is named in its section.
    The page shows no folders of the machine. Raises CheckpointError where the folder has no recipe.yaml.
    """
    run = read_run(folder)
    recipe = facts.read_recipe_text(run.recipe)
    summary = {} if run.summary is None else asdict(run.summary)
    recorded = None if run.summary is None else run.summary.data
    scores = run.scores
    tasks = tasks_by_class(scores, run.predictions)
    left_out = {"classes": not tasks and PREDICTIONS_FILE not in run.notes}
    rows, columns = scores_by_encoder(scores)
    own = filter(None, (folder.resolve(), facts.find(summary, "launch.folder")))
    listed = (file for file, _ in run.bad_files[:50])  # that are shown
    shorten = facts.without_folders(own, [*facts.absolute_paths(recipe), *listed])
    page = _environment(shorten, has_sound=not facts.section(recipe, "image")).get_template("page.html").render(
        sections={name: title for name, title in _TITLES.items() if not left_out.get(name)},
        run=run,
        summary=run.summary,
        date=_date(run.metrics),
        summary_facts=facts.facts(facts.WORDING["summary"], summary),
        launch_facts=facts.facts(facts.WORDING["launch"], summary),
        recipe_facts=facts.recipe_facts(recipe),
        data_sets=facts.data_facts(recipe, recorded or data or DataFacts()),
        listed_now=recorded is None and data is not None,
        scores=arrange_scores(scores),
        panels={column: [row[column] for row in rows.values() if column in row] for column in columns},
        intervals=any(score.ci95 is not None for score in scores),
        verdict=verdict(scores),
        tasks=tasks,
        most_classes=MOST_CLASSES,
        step_plots=_step_plots(run.step_scores),
        loss_plots=_plots(run.metrics, loss_names(run.metrics)),
        other_plots=_plots(run.metrics, _OTHER_CURVES),
        pictures=pictures or RunPictures(),
        libraries=LIBRARIES,
        recipe_data=Markup(base64.b64encode(shorten(run.recipe).encode("utf-8", errors="replace")).decode()),
    )  # fmt: skip
    path = folder / "report.html"
    replace_text(path, page, errors="replace")  # file names may hold bytes that are not text
    return path


def _environment(shorten: Callable[[str], str], *, has_sound: bool) -> Environment:
    """The templates, and what they word numbers, draw pictures and shorten texts with."""
    environment = Environment(
        loader=PackageLoader("m2dx.report", "templates"),
        autoescape=True,
        finalize=lambda value: shorten(value) if type(value) is str and value[:5] != "data:" else value,
        **TEMPLATING,
    )
    environment.filters |= {
        "number": number,
        "hours": hours_text,
        "encoder": encoder_title,
        "json": partial(json.dumps, default=str, ensure_ascii=False),
        "quote": shlex.quote,
        "without_classes": without_classes,
        "score_table": lambda table: Markup(html_table(table)),
        "svg": svg,
        "sound": sound if has_sound else lambda clip: "",
    }
    return environment


def arrange_scores(scores: Sequence[Score]) -> ResultTable:
    """A row for each task, protocol and metric, a column for each encoder; the best of each row is marked."""
    by_encoder, columns = scores_by_encoder(scores)
    cells = {column: cells_of([row.get(column) for row in by_encoder.values()]) for column in columns}
    rows = [Row("{}, {} ({})".format(*column), (), found) for column, found in cells.items()]
    return ResultTable("", "", (), tuple(map(encoder_title, by_encoder)), (Group("", tuple(rows)),))


def _date(metrics: Metrics) -> str:
    """When the last line of metrics was written."""
    times = [line["time"] for line in metrics if "time" in line]
    try:
        return f"{datetime.fromtimestamp(times[-1], tz=UTC):%d %B %Y, %H:%M} UTC".lstrip("0")
    except (IndexError, OSError, OverflowError, ValueError):  # there is none, or no such time
        return "date not known"


def _plots(metrics: Metrics, names: Sequence[str]) -> list[Picture]:
    """A picture of each metric that occurs."""
    plots = []
    for name in names:
        steps, values = curve(metrics, name)
        if len(steps):
            label = (
                f"{title_of(name)} against the step: {values[0]:.4g} at step {steps[0]:,.0f}, {values[-1]:.4g} at step "
                f"{steps[-1]:,.0f}; between {values.min():.4g} and {values.max():.4g}."
            )
            plots.append(Picture(title_of(name), partial(draw_metric, metrics=metrics, name=name), label))
    return plots


def _step_plots(scores: Sequence[StepScore]) -> list[Picture]:
    """A picture of each task, protocol and metric."""
    plots = []
    for column, found in by_column(scores).items():
        first, last, best = (
            f"{Cell.percent(item.score.mean, item.score.ci95).text} % at step {item.step:,}"
            for item in (found[0], found[-1], max(found, key=lambda item: item.score.mean))
        )
        label = f"{column[2]} of {column[0]}, {column[1]}, against the step: {first}, {last}; best {best}."
        plots.append(Picture(title_of(column), partial(draw_scores, scores=found), label))
    return plots
