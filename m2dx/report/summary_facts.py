"""The numbers of a run's summary, and what a reader has to be warned of."""

from __future__ import annotations

from datetime import UTC, datetime

from m2dx.report.figures import Metrics
from m2dx.report.recipe_facts import Fact
from m2dx.report.run_folder import RunFolder

_TITLES = {
    "data_clips": "Clips in the data",
    "hours_of_data": "Hours of data",
    "bad_files": "Bad files",
    "collapse_warnings": "Collapse warnings",
}
_SHOWN_ELSEWHERE = (
    "steps",
    "total_steps",
    "clips",
    "seconds",
    "stopped_by",
    "last_metrics",
    "missing",
    "failed_evaluations",
    "command",
    "folder",
    "machine",
    "gpus",
)


def date_of(metrics: Metrics) -> str:
    """When the last line of metrics was written."""
    times = [line["time"] for line in metrics if "time" in line]
    if not times:
        return "date not known"
    return f"{datetime.fromtimestamp(times[-1], tz=UTC):%d %B %Y, %H:%M} UTC".lstrip("0")


def summary_facts(run: RunFolder) -> list[Fact]:
    """Title and value of each number of the summary; what the page has no title for keeps its own name."""
    summary = run.summary
    facts = []
    if "steps" in summary:
        total = summary.get("total_steps", summary["steps"])
        of_total = "" if total == summary["steps"] else f" of {number(total)}"
        facts.append(("Steps", number(summary["steps"]) + of_total))
    if "clips" in summary:
        facts.append(("Clips trained on", number(summary["clips"])))
    if isinstance(summary.get("seconds"), int | float):
        facts.append(("Training time", duration(summary["seconds"])))
    for key in dict.fromkeys([*_TITLES, *summary]):
        value = summary.get(key)
        if key == "hours_of_data" and isinstance(value, int | float):
            facts.append((_TITLES[key], hours_text(value)))
        elif key not in _SHOWN_ELSEWHERE and isinstance(value, int | float | str):
            facts.append((_TITLES.get(key, key.replace("_", " ").capitalize()), number(value)))
    if "bad_files" not in summary:
        facts.append(("Bad files", number(len(run.bad_files))))
    return facts


def warnings(run: RunFolder) -> list[str]:
    """What to know before trusting the run."""
    summary, found = run.summary, []
    if summary.get("collapse_warnings"):
        found.append(
            f"The features came close to collapse: {number(summary['collapse_warnings'])} RankMe measurements "
            "were below the alarm. Look at the RankMe curve before trusting any score."
        )
    if summary.get("stopped_by"):
        found.append(f"The run was stopped by {summary['stopped_by']} before its last step.")
    if summary.get("failed_evaluations"):
        found.append(
            f"Evaluations on the way that failed, so that scores are missing: {number(summary['failed_evaluations'])}."
        )
    missing = summary.get("missing")
    if isinstance(missing, list):
        found += [f"Missing from the data: {line}" for line in missing]
    return found


def number(value: object) -> str:
    """A value for people."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.4g}" if isinstance(value, float) else str(value)


def duration(seconds: float) -> str:
    """Seconds for people."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def hours_text(hours: float) -> str:
    """Hours for people, with minutes where there are few."""
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.1f}" if hours >= 10 else f"{hours:.2f}"
