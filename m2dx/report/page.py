"""Writes the page of a run."""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from m2dx.contract.atomic import replace_text
from m2dx.contract.wording import hours_text, number
from m2dx.report import facts
from m2dx.report.curves import Metrics, by_column, curve, draw_metric, draw_scores, loss_names, title_of
from m2dx.report.pictures import RunPictures
from m2dx.report.saving import panel_svg, strip_svg
from m2dx.report.scores import arrange_scores, percent, step_table
from m2dx.report.style import Picture
from m2dx.results.formats import html_table
from m2dx.results.records import LIBRARIES
from m2dx.results.run_folder import DataFacts, read_run
from m2dx.results.scores import StepScore
from m2dx.results.verdict import encoder_title, verdict

_OTHER_CURVES = ("lr", "ema_decay", "grad_norm", "rankme", "clips_per_second")
_TITLES = {
    "summary": "Summary",
    "scores": "Scores",
    "by-step": "Scores by step",
    "losses": "Losses",
    "course": "Course of the training",
    "data": "Data",
    "examples": "What the model sees in training",
    "checkpoints": "Clips at each checkpoint",
    "recipe": "Recipe",
    "reproduce": "How to reproduce",
}
"""The sections of the page; each has a template of its name in the folder `sections`."""


def write_report(folder: Path, pictures: RunPictures | None = None, *, data: DataFacts | None = None) -> Path:
    """Writes `report.html` into a run's folder, from what the folder holds, and gives its path.

    `data` is what `describe_data` gives of the run's lists now; the page takes it where the run has not recorded its
    own, and else says which lists have changed. The page is self-contained: no script, and nothing is loaded from
    elsewhere. A file that is missing is named in its section. Raises CheckpointError where the folder has no
    recipe.yaml.
    """
    run = read_run(folder)
    recipe = facts.read_recipe_text(run.recipe)
    summary = {} if run.summary is None else asdict(run.summary)
    recorded = None if run.summary is None else run.summary.data
    other_plots = _plots(run.metrics, _OTHER_CURVES)
    left_out = {
        "by-step": not run.step_scores and "scores_by_step.jsonl" not in run.notes,
        "course": not other_plots,
    }
    evaluated = facts.section(recipe, "evaluation.tasks")
    page = _environment().get_template("page.html").render(
        sections={name: title for name, title in _TITLES.items() if not left_out.get(name)},
        run=run,
        summary=run.summary,
        date=_date(run.metrics),
        summary_facts=facts.facts(facts.SUMMARY, summary),
        launch_facts=facts.facts(facts.LAUNCH, summary),
        recipe_facts=facts.recipe_facts(recipe),
        seeds=facts.facts(facts.SEEDS, recipe if evaluated else {**recipe, "evaluation": None}),
        settings=facts.facts(facts.IMAGES if facts.section(recipe, "image") else facts.AUDIO, recipe),
        data_sets=facts.data_sets(recipe, recorded or data or DataFacts()),
        is_recorded=recorded is not None,
        listed_now=data is not None,
        changed_sets=facts.changed_sets(recorded, data) if recorded and data else [],
        scores=arrange_scores(run.scores),
        verdict=verdict(run.scores),
        step_table=step_table(run.step_scores),
        step_plots=_step_plots(run.step_scores),
        loss_plots=_plots(run.metrics, loss_names(run.metrics)),
        other_plots=other_plots,
        pictures=pictures or RunPictures(),
        libraries=LIBRARIES,
        recipe_data=base64.b64encode(run.recipe.encode("utf-8", errors="replace")).decode(),
    )  # fmt: skip
    path = folder / "report.html"
    replace_text(path, page, errors="replace")  # file names may hold bytes that are not text
    return path


def _environment() -> Environment:
    """The templates, and what they word numbers and draw pictures with."""
    environment = Environment(
        loader=PackageLoader("m2dx.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number,
        "hours": hours_text,
        "encoder": encoder_title,
        "json": partial(json.dumps, default=str, ensure_ascii=False),
        "quote": shlex.quote,
        "score_table": lambda table: Markup(html_table(table)),
        "panel": panel_svg,
        "strip": strip_svg,
    }
    return environment


def _date(metrics: Metrics) -> str:
    """When the last line of metrics was written."""
    times = [line["time"] for line in metrics if "time" in line]
    if not times:
        return "date not known"
    return f"{datetime.fromtimestamp(times[-1], tz=UTC):%d %B %Y, %H:%M} UTC".lstrip("0")


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
        first, last, best = found[0], found[-1], max(found, key=lambda item: item.score.mean)
        label = (
            f"{column[2]} of {column[0]}, {column[1]}, against the step: {percent(first.score)} % at step "
            f"{first.step:,}, {percent(last.score)} % at step {last.step:,}; best {percent(best.score)} % at step "
            f"{best.step:,}."
        )
        plots.append(Picture(title_of(column), partial(draw_scores, scores=found), label))
    return plots
