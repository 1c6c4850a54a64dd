"""The numbers of a run's summary, and what a reader has to be warned of."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import yaml

from m2dx.contract.wording import duration, hours_text, number
from m2dx.report.figures import Metrics
from m2dx.results.run_folder import RunFolder

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


Fact = tuple[str, str]
"""Title and value."""

_METHODS = {"m2d": "M2D", "msm_mae": "MSM-MAE"}


def read_recipe_text(text: str) -> dict[str, Any]:
    """The recipe as nested plain data; empty where the text is not a mapping in YAML."""
    try:
        recipe = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}
    return recipe if isinstance(recipe, dict) else {}


def recipe_facts(recipe: Mapping[str, Any]) -> list[Fact]:
    """Model, training and tasks in a few lines each; what a recipe of an older version lacks is left out."""
    model, train = section(recipe, "model"), section(recipe, "train")
    facts = [
        ("Method", _METHODS.get(str(model.get("method")), _text(model.get("method")))),
        ("Encoder", _encoder(model)),
        ("Patches", _patches(model, section(recipe, "audio"), section(recipe, "image"))),
        ("Masked", _masked(model)),
        ("Predictor", _predictor(model)),
        ("EMA decay", _range(model)),
        ("Starts from", _text(recipe.get("init_from")) or "random weights"),
        ("Training", _training(train)),
        ("Learning rate", _learning_rate(train)),
        ("Precision", _text(train.get("precision"))),
        ("Noise", _noise(section(recipe, "noise"))),
    ]
    tasks = section(recipe, "tasks")
    facts += [(f"Task {name}", _task(tasks, str(name))) for name in tasks]
    return [(title, value) for title, value in facts if value] if model else []


def section(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A part of nested plain data; empty where it is not there."""
    part = values.get(name)
    return part if isinstance(part, dict) else {}


def _text(value: object) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _encoder(model: Mapping[str, Any]) -> str:
    depth = model.get("depth")
    return f"ViT {_text(model.get('size'))}" + ("" if depth is None else f", {_text(depth)} blocks")


def _patches(model: Mapping[str, Any], audio: Mapping[str, Any], image: Mapping[str, Any]) -> str:
    patch, seconds, mels = model.get("patch_size"), audio.get("crop_seconds"), audio.get("n_mels")
    if not isinstance(patch, list) or len(patch) != 2:
        return ""
    if isinstance(image.get("size"), list):
        return f"{patch[0]} x {patch[1]} pixels, of {' x '.join(map(_text, image['size']))}"
    if seconds is None:
        return ""
    return f"{patch[0]} mels x {patch[1]} frames, of {_text(mels)} mels and {_text(seconds)} s"


def _masked(model: Mapping[str, Any]) -> str:
    ratio, masking = model.get("mask_ratio"), section(model, "masking").get("name")
    if not isinstance(ratio, int | float):
        return ""
    return f"{ratio:.4g} of the patches" + ("" if masking is None else f", {_text(masking)}")


def _predictor(model: Mapping[str, Any]) -> str:
    part = section(model, "predictor")
    if not part:
        return ""
    width, depth, heads = (_text(part.get(key)) for key in ("embed_dim", "depth", "num_heads"))
    return f"{width} wide, {depth} {'block' if depth == '1' else 'blocks'}, {heads} heads"


def _range(model: Mapping[str, Any]) -> str:
    decay = section(model, "ema_decay")
    return (
        f"{_text(decay.get('start'))} to {_text(decay.get('end'))}"
        if decay and model.get("method") == "m2d"
        else ""
    )


def _training(train: Mapping[str, Any]) -> str:
    if "epochs" not in train:
        return ""
    warmup = _text(train.get("warmup_epochs"))
    return f"{_text(train['epochs'])} epochs, {warmup} of them warm-up, {_text(train.get('batch_size'))} clips a step"


def _learning_rate(train: Mapping[str, Any]) -> str:
    rate, batch = train.get("base_lr"), train.get("batch_size")
    if not isinstance(rate, int | float) or not isinstance(batch, int):
        return ""
    return f"{rate * batch / 256:.4g} at its peak (base {rate:.4g})"


def _noise(noise: Mapping[str, Any]) -> str:
    return f"mixed in at ratio {_text(noise['ratio'])}" if noise.get("ratio") else "none"


def _task(tasks: Mapping[str, Any], name: str) -> str:
    task = section(tasks, name)
    parts = [section(task, part).get("name") for part in ("offline_encoder", "online_mapper", "loss")]
    return f"{', '.join(_text(part) for part in parts)}; weight {_text(task.get('weight', 1))}"
