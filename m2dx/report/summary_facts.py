"""The numbers of a run's summary, what a reader has to be warned of, and its recipe in short."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import yaml

from m2dx.contract.wording import duration, hours_text, number
from m2dx.report.curves import Metrics
from m2dx.results.run_folder import RunFolder

Fact = tuple[str, str]
"""Title and value."""


def date_of(metrics: Metrics) -> str:
    """When the last line of metrics was written."""
    times = [line["time"] for line in metrics if "time" in line]
    if not times:
        return "date not known"
    return f"{datetime.fromtimestamp(times[-1], tz=UTC):%d %B %Y, %H:%M} UTC".lstrip("0")


def summary_facts(run: RunFolder) -> list[Fact]:
    """Title and value of each number of the summary."""
    summary, bad_files = run.summary, ("Bad files", number(len(run.bad_files)))
    if summary is None:
        return [bad_files]
    of_total = "" if summary.total_steps == summary.steps else f" of {number(summary.total_steps)}"
    facts = [
        ("Steps", number(summary.steps) + of_total),
        ("Clips trained on", number(summary.clips)),
        ("Training time", duration(summary.seconds)),
        ("Clips in the data", number(summary.data_clips)),
    ]
    if summary.hours_of_data is not None:
        facts.append(("Hours of data", hours_text(summary.hours_of_data)))
    return [
        *facts,
        ("Bad files", number(summary.bad_files)),
        ("Collapse warnings", number(summary.collapse_warnings)),
        ("Device", f"{summary.device} x {summary.processes}"),
    ]


def warnings(run: RunFolder) -> list[str]:
    """What to know before trusting the run."""
    summary, found = run.summary, []
    if summary is None:
        return []
    if summary.collapse_warnings:
        found.append(
            f"The features came close to collapse: {number(summary.collapse_warnings)} RankMe measurements "
            "were below the alarm. Look at the RankMe curve before trusting any score."
        )
    if summary.stopped_by is not None:
        found.append(f"The run was stopped by {summary.stopped_by} before its last step.")
    if summary.failed_evaluations:
        found.append(
            f"Evaluations on the way that failed, so that scores are missing: {number(summary.failed_evaluations)}."
        )
    return [*found, *(f"Missing from the data: {line}" for line in summary.missing)]


def read_recipe_text(text: str) -> dict[str, Any]:
    """The recipe as nested plain data; empty where the text is not a mapping in YAML."""
    try:
        return as_mapping(yaml.safe_load(text))
    except yaml.YAMLError:
        return {}


def find(recipe: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path of nested plain data; None: it is not there."""
    value: Any = recipe
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def section(recipe: Mapping[str, Any], path: str) -> dict[str, Any]:
    """The part at a dotted path of nested plain data; empty where it is not there."""
    return as_mapping(find(recipe, path))


def as_mapping(value: object) -> dict[str, Any]:
    """The value itself where it is a mapping, else an empty one."""
    return value if isinstance(value, dict) else {}


_METHODS = {"m2d": "M2D", "m2d_all_patches": "M2D (all patches)", "msm_mae": "MSM-MAE"}
_WITH_TARGET = ("m2d", "m2d_all_patches")


def recipe_facts(recipe: Mapping[str, Any]) -> list[Fact]:
    """Model, training and tasks in a few lines each; what a recipe of an older version lacks is left out."""
    if not section(recipe, "model"):
        return []

    def told(sentence: str, *paths: str) -> str:
        values = [find(recipe, path) for path in paths]
        return "" if None in values else sentence.format(*map(_text, values))

    method = find(recipe, "model.method.name")
    facts = [
        ("Method", _METHODS.get(method, _text(method))),
        ("Encoder", told("ViT {}", "model.size") + told(", {} blocks", "model.depth")),
        ("Patches", _patches(recipe)),
        ("Masked", told("{} of the patches", "model.mask_ratio") + told(", {}", "model.masking.name")),
        ("Predictor", _predictor(section(recipe, "model.predictor"))),
        (
            "EMA decay",
            told("{} to {}", "model.ema_decay.start", "model.ema_decay.end")
            if method in _WITH_TARGET
            else "",
        ),
        ("Starts from", told("{}", "init_from") or "random weights"),
        (
            "Training",
            told(
                "{} epochs, {} of them warm-up, {} clips a step",
                "train.epochs",
                "train.warmup_epochs",
                "train.batch_size",
            ),
        ),
        ("Learning rate", _learning_rate(recipe)),
        ("Precision", told("{}", "train.precision")),
        ("Noise", told("mixed in at ratio {}", "noise.ratio") if find(recipe, "noise.ratio") else "none"),
        *((f"Task {name}", _task(as_mapping(task))) for name, task in section(recipe, "tasks").items()),
    ]
    return [(title, value) for title, value in facts if value]


def _text(value: object) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _patches(recipe: Mapping[str, Any]) -> str:
    patch, image = find(recipe, "model.patch_size"), find(recipe, "image.size")
    seconds, mels = find(recipe, "audio.crop_seconds"), find(recipe, "audio.n_mels")
    if not isinstance(patch, list) or len(patch) != 2:
        return ""
    if isinstance(image, list):
        return f"{patch[0]} x {patch[1]} pixels, of {' x '.join(map(_text, image))}"
    if seconds is None:
        return ""
    return f"{patch[0]} mels x {patch[1]} frames, of {_text(mels)} mels and {_text(seconds)} s"


def _predictor(part: Mapping[str, Any]) -> str:
    if not part:
        return ""
    width, depth, heads = (_text(part.get(key)) for key in ("embed_dim", "depth", "num_heads"))
    return f"{width} wide, {depth} {'block' if depth == '1' else 'blocks'}, {heads} heads"


def _learning_rate(recipe: Mapping[str, Any]) -> str:
    rate, batch = find(recipe, "train.base_lr"), find(recipe, "train.batch_size")
    if not isinstance(rate, int | float) or not isinstance(batch, int):
        return ""
    return f"{rate * batch / 256:.4g} at its peak (base {rate:.4g})"


def _task(task: Mapping[str, Any]) -> str:
    parts = [find(task, f"{part}.name") for part in ("offline_encoder", "online_mapper", "loss")]
    return f"{', '.join(map(_text, parts))}; weight {_text(task.get('weight', 1))}"
