"""Writes the page of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import m2dx
from m2dx.report.figures import (
    VIEWS,
    MaskedExample,
    Metrics,
    curve,
    curves_figure,
    example_figure,
    figure_svg,
    loss_names,
    title_of,
    view_title,
)
from m2dx.report.run_folder import RunFolder, read_run
from m2dx.report.scores import arrange_scores, verdict

MOST_BAD_FILES = 50
_OTHER_CURVES = ("lr", "ema_decay", "grad_norm", "rankme", "clips_per_second")
_SUMMARY_TITLES = {
    "data_clips": "Clips in the data",
    "hours_of_data": "Hours of data",
    "collapse_warnings": "Collapse warnings",
    "bad_files": "Bad files",
}
_SHOWN_ELSEWHERE = (
    "steps",
    "total_steps",
    "clips",
    "seconds",
    "stopped_by",
    "last_metrics",
    "versions",
    "missing",
)


def write_report(folder: Path, examples: Sequence[MaskedExample] = ()) -> Path:
    """Writes `report.html` into a run's folder, from what the folder holds, and gives its path.

    The page is self-contained: no script, and nothing is loaded from elsewhere. A file that is missing is named in its
    section. Raises CheckpointError where the folder has no recipe.yaml.
    """
    run = read_run(folder)
    environment = Environment(
        loader=PackageLoader("m2dx.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("page.html").render(
        run=run,
        dates=_dates(run.metrics),
        versions=_versions(run.summary),
        facts=_facts(run),
        warnings=_warnings(run),
        table=arrange_scores(run.scores),
        verdict=verdict(run.scores),
        loss_plots=_plots(run.metrics, loss_names(run.metrics)),
        other_plots=_plots(run.metrics, _OTHER_CURVES),
        examples=[{"name": example.name, "pictures": _pictures(example)} for example in examples],
        most_bad_files=MOST_BAD_FILES,
    )
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8", errors="replace")  # file names may hold bytes that are not text
    return path


def _dates(metrics: Metrics) -> str:
    times = [line["time"] for line in metrics if "time" in line]
    if not times:
        return "date not known"
    return f"{datetime.fromtimestamp(times[-1], tz=UTC):%d %B %Y, %H:%M} UTC".lstrip("0")


def _versions(summary: Mapping[str, Any]) -> dict[str, str]:
    """Versions that the run's summary names, else those that this page is written with."""
    named = summary.get("versions")
    if isinstance(named, dict):
        return {str(package): str(number) for package, number in named.items()}
    return {"m2dx": m2dx.__version__, "torch": version("torch")}


def _facts(run: RunFolder) -> list[tuple[str, str]]:
    """Title and value of each number of the summary; what the page has no title for keeps its own name."""
    summary = run.summary
    facts = []
    if "steps" in summary:
        total = summary.get("total_steps", summary["steps"])
        of_total = "" if total == summary["steps"] else f" of {_number(total)}"
        facts.append(("Steps", _number(summary["steps"]) + of_total))
    if "clips" in summary:
        facts.append(("Clips trained on", _number(summary["clips"])))
    if isinstance(summary.get("seconds"), int | float):
        facts.append(("Training time", _duration(summary["seconds"])))
    for key in dict.fromkeys([*_SUMMARY_TITLES, *summary]):
        value = summary.get(key)
        if key not in _SHOWN_ELSEWHERE and isinstance(value, int | float | str):
            facts.append((_SUMMARY_TITLES.get(key, key.replace("_", " ").capitalize()), _number(value)))
    if "bad_files" not in summary and "bad_files.tsv" not in run.notes:
        facts.append(("Bad files", _number(len(run.bad_files))))
    return facts


def _warnings(run: RunFolder) -> list[str]:
    warnings = []
    if run.summary.get("collapse_warnings"):
        warnings.append(
            f"The features came close to collapse: {_number(run.summary['collapse_warnings'])} RankMe measurements "
            "were below the alarm. Look at the RankMe curve before trusting any score."
        )
    if run.summary.get("stopped_by"):
        warnings.append(f"The run was stopped by {run.summary['stopped_by']} before its last step.")
    missing = run.summary.get("missing")
    if isinstance(missing, list):
        warnings += [f"Missing from the data: {line}" for line in missing]
    return warnings


def _number(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.4g}" if isinstance(value, float) else str(value)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def _plots(metrics: Metrics, names: Sequence[str]) -> list[Markup]:
    """An SVG per metric that occurs."""
    plots = []
    for name in names:
        steps, values = curve(metrics, name)
        if len(steps):
            label = (
                f"{title_of(name)} against the step: {values[0]:.4g} at step {steps[0]:,.0f}, {values[-1]:.4g} at step "
                f"{steps[-1]:,.0f}; between {values.min():.4g} and {values.max():.4g}."
            )
            plots.append(Markup(figure_svg(curves_figure(metrics, [name]), label=label)))
    return plots


def _pictures(example: MaskedExample) -> list[Markup]:
    return [
        Markup(
            figure_svg(
                example_figure(example, [view]),
                label=f"Log-mel of {example.name}. {view_title(example, view)}.",
            )
        )
        for view in VIEWS
    ]
