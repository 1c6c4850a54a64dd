"""Writes the page of a run."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from m2dx.contract.atomic import replace_text
from m2dx.report.curves import Metrics, by_column, curve, draw_metric, draw_scores, loss_names, title_of
from m2dx.report.data_facts import data_table
from m2dx.report.examples import MaskedExample, draw_example
from m2dx.report.panels import panel_svg
from m2dx.report.pictures import RunPictures
from m2dx.report.reproduce import reproduction
from m2dx.report.scores import arrange_scores, percent, score_details, step_table, verdict
from m2dx.report.summary_facts import date_of, read_recipe_text, recipe_facts, summary_facts, warnings
from m2dx.results.formats import html_table
from m2dx.results.run_folder import read_run
from m2dx.results.run_summary import DataFacts
from m2dx.results.scores import StepScore

MOST_BAD_FILES = 50
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
    recipe = read_recipe_text(run.recipe)
    environment = Environment(
        loader=PackageLoader("m2dx.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pictures = pictures or RunPictures()
    other_plots = _plots(run.metrics, _OTHER_CURVES)
    left_out = {
        "by-step": not run.step_scores and "scores_by_step.jsonl" not in run.notes,
        "course": not other_plots,
    }
    page = environment.get_template("page.html").render(
        sections={name: title for name, title in _TITLES.items() if not left_out.get(name)},
        run=run,
        date=date_of(run.metrics),
        facts=summary_facts(run),
        warnings=warnings(run),
        scores=arrange_scores(run.scores) if run.scores else None,
        score_details=score_details(run.scores),
        html_table=lambda table: Markup(html_table(table)),
        verdict=verdict(run.scores),
        step_table=step_table(run.step_scores),
        step_plots=_step_plots(run.step_scores),
        loss_plots=_plots(run.metrics, loss_names(run.metrics)),
        other_plots=other_plots,
        data=data_table(run, recipe, data),
        most_bad_files=MOST_BAD_FILES,
        examples=[{"name": example.name, "pictures": _pictures(example)} for example in pictures.examples],
        checkpoints=pictures.checkpoints,
        picture_notes=pictures.notes,
        recipe_facts=recipe_facts(recipe),
        reproduction=reproduction(run, recipe),
    )
    path = folder / "report.html"
    replace_text(path, page, errors="replace")  # file names may hold bytes that are not text
    return path


def _plots(metrics: Metrics, names: Sequence[str]) -> list[Markup]:
    """A panel per metric that occurs."""
    plots = []
    for name in names:
        steps, values = curve(metrics, name)
        if len(steps):
            label = (
                f"{title_of(name)} against the step: {values[0]:.4g} at step {steps[0]:,.0f}, {values[-1]:.4g} at step "
                f"{steps[-1]:,.0f}; between {values.min():.4g} and {values.max():.4g}."
            )
            draw = partial(draw_metric, metrics=metrics, name=name)
            plots.append(panel_svg(draw, title=title_of(name), label=label))
    return plots


def _step_plots(scores: Sequence[StepScore]) -> list[Markup]:
    """A panel per task, protocol and metric."""
    plots = []
    for column, found in by_column(scores).items():
        first, last, best = found[0], found[-1], max(found, key=lambda item: item.score.mean)
        label = (
            f"{column[2]} of {column[0]}, {column[1]}, against the step: {percent(first.score)} % at step "
            f"{first.step:,}, {percent(last.score)} % at step {last.step:,}; best {percent(best.score)} % at step "
            f"{best.step:,}."
        )
        plots.append(panel_svg(partial(draw_scores, scores=found), title=title_of(column), label=label))
    return plots


def _pictures(example: MaskedExample) -> list[Markup]:
    return [
        panel_svg(
            partial(draw_example, example=example, view=view),
            title=example.title(view),
            label=f"Log-mel of {example.name}. {example.title(view)}.",
        )
        for view in example.views
    ]
