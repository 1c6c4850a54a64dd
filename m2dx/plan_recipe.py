"""A plan as a table with reasons, and as a recipe."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from m2dx.contract.errors import RecipeError
from m2dx.plan import GB_FIXED, LONG_GPU_HOURS, PATCHES_PER_GB, Plan, Request

if TYPE_CHECKING:
    from rich.table import Table

DEFAULT_WEIGHTS = "${M2D_16X4}"
SAME_IN_ALL = "the same in all known settings (M2D-X, IV-A)"
MEMORY = f"estimate, not measured: {GB_FIXED:g} GB + 1 GB per {PATCHES_PER_GB:g} patches of ViT-Base (M2D-X, table XV)"


class Line(NamedTuple):
    """One line of a plan."""

    what: str
    value: str
    reason: str


def plan_lines(plan: Plan) -> list[Line]:
    """The plan, each number with the setting that it is from."""
    strategy, start = Line("strategy", plan.strategy, plan.reason), Line("start", *_start(plan))
    if plan.strategy == "features only":
        return [strategy, start]
    schedule, network = plan.schedule, plan.network
    epoch = f"{plan.epoch_size:,} clips" if plan.epoch_size else f"{plan.request.clips:,} clips"
    repeated = "the list is repeated to that size (M2D-X, IV-E)" if plan.epoch_size else "each clip once"
    mels, frames = network.patch_size
    return [
        strategy,
        start,
        Line("crop, patch", f"{network.crop_seconds:g} s, {mels} x {frames}", network.source),
        Line("batch size", f"{schedule.batch_size}", schedule.source),
        Line("an epoch", epoch, repeated),
        Line("epochs", f"{schedule.epochs}, warm-up {schedule.warmup_epochs}", schedule.source),
        Line("base learning rate", "3e-4", SAME_IN_ALL),
        Line("EMA decay", "0.99995 to 0.99999", SAME_IN_ALL),
        Line("mask ratio", "0.7", "M2D-X, IV-B, IV-C, IV-E; 0.6 was better for speech"),
        Line("backward pass", f"{plan.micro_batch} clips per GPU", MEMORY),
        Line("accumulate", f"{plan.accumulate}", f"for {_gpus(plan.request)}"),
        *_tasks(plan),
        Line(
            "cost", f"about {_rounded(plan.gpu_hours)} GPU-hours, {_rounded(plan.crops)} crops", _cost(plan)
        ),
        *_warning(plan),
    ]


def plan_table(plan: Plan) -> Table:
    """The lines of a plan as a table."""
    from rich.table import Column, Table

    table = Table(*(Column(title, overflow="fold") for title in ("what", "proposal", "where it comes from")))
    for line in plan_lines(plan):
        table.add_row(*line)
    return table


def _gpus(request: Request) -> str:
    memory = f"of {request.gpu_memory:g} GB" if request.gpu_memory else ""
    return "no GPU" if not memory else f"{request.processes} GPU{'s' * (request.processes > 1)} {memory}"


def _start(plan: Plan) -> tuple[str, str]:
    if plan.request.weights is not None:
        return str(plan.request.weights), "as given"
    if plan.strategy == "from scratch":
        return "random weights", "as the published models on this much data"
    if plan.strategy == "features only":
        return "a published M2D", "M2D-AS is the best on average, M2D for speakers (M2D-X, table V)"
    return DEFAULT_WEIGHTS, "the published 16 x 4 model, which ICBHI and SPRSound went on from (M2D-X, IV-E)"


def _tasks(plan: Plan) -> list[Line]:
    if plan.strategy == "from scratch":
        labels = Line("labels", "a task, weight 1.0", "M2D-AS (M2D-X, IV-C), of 2 million clips")
        return [labels] if plan.request.labels else []
    return [
        Line(
            "teacher", "a task, weight 1.0", "ICBHI: score 63.29 with it, 62.73 without (M2D-X, table XIII)"
        ),
        Line("noise", "ratio 0.3", "ICBHI; 0.01 on SPRSound: the number to try on your data (M2D-X, IV-E)"),
    ]


def _cost(plan: Plan) -> str:
    return (
        f"a rough estimate: {_rounded(plan.relative_work)} times the patches, by size of the model, of a published "
        f"run, which took {plan.measured.source}"
    )


def _warning(plan: Plan) -> list[Line]:
    """That the run is long, and what is shorter."""
    if plan.gpu_hours < LONG_GPU_HOURS:
        return []
    days = _rounded(plan.gpu_hours / plan.request.processes / 24)
    return [
        Line(
            "warning",
            f"about {days} days on {_gpus(plan.request)}",
            "the alternative: further pre-training for as long as on ICBHI (7 h on one RTX 3090 Ti), which "
            "`m2dx plan --clips 10000` proposes, with `data.epoch_size=10000` drawn from all clips; or a published "
            "encoder as it is",
        )
    ]


def _rounded(number: float) -> str:
    """A number with one digit that counts: 6,000,000 or 0.5."""
    return f"{float(f'{number:.0e}'):,.10g}"


def recipe_text(plan: Plan) -> str:
    """The plan as a commented recipe; paths that only the user knows are environment variables."""
    reasons = {line.what: line.reason for line in plan_lines(plan)}
    parts = [_head(plan), _data(plan)]
    if plan.strategy != "features only":
        parts += [_noise(plan), _model(plan, reasons), _offline_tasks(plan), _train(plan)]
    if plan.request.labels or plan.strategy == "features only":
        parts.append(EVALUATION)
    return "".join(parts)


def write_recipe(plan: Plan, path: Path, *, overwrite: bool) -> None:
    """Writes the plan as a recipe. Raises `RecipeError` where the file is there already, or cannot be written."""
    try:
        with path.open("w" if overwrite else "x", encoding="utf-8") as file:
            file.write(recipe_text(plan))
    except FileExistsError as error:
        raise RecipeError(
            f"{path}: the recipe must be a new file, but this one exists; give another name, or --overwrite"
        ) from error
    except OSError as error:
        raise RecipeError(f"{path}: cannot be written: {error.strerror}") from error


def _head(plan: Plan) -> str:
    request = plan.request
    seconds = f" of {request.clip_seconds:g} s" if request.clip_seconds else ""
    lines = [
        f"Proposed by `m2dx plan` for {request.clips} clips{seconds} and {_gpus(request)}: {plan.strategy}.",
        f"Why: {plan.reason}.",
    ]
    lines += [f"Warning: {warning.value}; {warning.reason}." for warning in _warning(plan)]
    variables = [] if plan.strategy == "features only" else ["MY_AUDIO"]
    if plan.strategy == "features only":
        encoder = request.weights or "ENCODER"
        lines.append(
            f"Nothing is trained: `m2dx encode {encoder} FILES` writes features, and `m2dx evaluate {encoder} RECIPE` "
            "scores them on your labels, with baselines."
        )
    else:
        launcher = (
            f"torchrun --nproc-per-node {request.processes} -m m2dx" if request.processes > 1 else "m2dx"
        )
        lines.append(f"Use: `m2dx check RECIPE`, then `{launcher} train RECIPE`.")
    if plan.strategy == "further pre-training":
        variables += ["MY_NOISE"] + ["M2D_16X4"] * (request.weights is None)
        lines.append("Needs the plugin m2dx-teacher.")
    if request.labels or plan.strategy == "features only":
        variables.append("MY_LABELS")
    lines += ["Environment variables to set before:", *(f"  {name}: {VARIABLES[name]}" for name in variables)]
    wrapped = (textwrap.wrap(line, 108, subsequent_indent="  ", drop_whitespace=True) for line in lines)
    return "".join(f"# {part}\n" for parts in wrapped for part in parts)


VARIABLES = {
    "MY_AUDIO": "the folder with your audio",
    "MY_NOISE": "a folder with background noise",
    "MY_LABELS": "a CSV file with the columns path, label and split (train, valid, test)",
    "M2D_16X4": "the published 16 x 4 model, or a folder that m2dx has exported one to",
}


def _data(plan: Plan) -> str:
    if plan.strategy == "features only":
        return 'data:\n  sets:\n    mine: {dataset: {name: csv, path: "${MY_LABELS}"}}\n'
    lines = [f"init_from: {_weights(plan)}"] if plan.strategy == "further pre-training" else []
    lines += ["data:", "  sets:"]
    if plan.request.labels:
        lines += TEST_PART_IS_HEARD
    lines.append('    mine: {dataset: {name: folder, path: "${MY_AUDIO}"}}')
    if plan.strategy == "from scratch" and plan.request.labels:
        lines.append('    labelled: {dataset: {name: csv, path: "${MY_LABELS}"}, split: train}')
    if plan.epoch_size:
        lines.append(f"  epoch_size: {plan.epoch_size}  # the list is repeated to that size (M2D-X, IV-E)")
    return "\n".join(lines) + "\n"


TEST_PART_IS_HEARD = [
    "    # All audio of the folder: where the test part of MY_LABELS lies in it, pre-training hears that, too.",
    "    # Keep it in another folder for scores on audio that the encoder has never heard.",
]


def _noise(plan: Plan) -> str:
    if plan.strategy == "from scratch":
        return ""
    return """noise:
  ratio: 0.3  # ICBHI; 0.01 on SPRSound: the number to try on your data (M2D-X, IV-E)
  source: {name: files, path: "${MY_NOISE}"}  # the paper: FSD50K
"""


def _model(plan: Plan, reasons: dict[str, str]) -> str:
    network = plan.network
    mels, frames = network.patch_size
    lines = [
        "audio:",
        *(f"  {name}: {value}" for name, value in network.audio),
        f"  crop_seconds: {network.crop_seconds:g}  # {reasons['crop, patch']}",
        "model:",
        f"  size: {network.size}",
        f"  depth: {network.depth}" if network.depth is not None else "",
        f"  patch_size: [{mels}, {frames}]",
        f"  mask_ratio: 0.7  # {reasons['mask ratio']}",
        f"  ema_decay: {{start: 0.99995, end: 0.99999}}  # {SAME_IN_ALL}",
    ]
    return "".join(f"{line}\n" for line in lines if line)


def _weights(plan: Plan) -> str:
    path = plan.request.weights
    return f'"{DEFAULT_WEIGHTS}"' if path is None else json.dumps(str(path.absolute()), ensure_ascii=False)


def _offline_tasks(plan: Plan) -> str:
    if plan.strategy == "further pre-training":
        return f"""tasks:
  teacher:  # keeps the features near those of the start (M2D-X, IV-E)
    offline_encoder: {{name: m2d_teacher, weights: {_weights(plan)}}}
    online_mapper: {{name: linear}}
    loss: {{name: norm_mse}}
    target_frames: tokens
    weight: 1.0
"""
    return LABELS_TASK if plan.request.labels else ""


LABELS_TASK = """tasks:
  labels:  # M2D-AS (M2D-X, IV-C)
    offline_encoder: {name: labels, dataset: labelled}
    online_mapper: {name: pool_linear}
    loss: {name: bce}  # cross_entropy where a clip has one class
    weight: 1.0
"""


def _train(plan: Plan) -> str:
    schedule = plan.schedule
    every = max(plan.steps_per_epoch * schedule.epochs // (6 * 8), 1)
    return f"""train:
  # {schedule.source}
  epochs: {schedule.epochs}
  warmup_epochs: {schedule.warmup_epochs}
  batch_size: {schedule.batch_size}
  # {plan.micro_batch} clips per GPU and backward pass: {MEMORY}
  accumulate: {plan.accumulate}
  base_lr: 3e-4  # {SAME_IN_ALL}
  precision: bf16
  checkpoint_every: {every}
  keep_every: {8 * every}  # six on the way: the last is not always the best (M2D-X, fig. 5)
"""


EVALUATION = """evaluation:
  tasks:
    mine: {dataset: {name: csv, path: "${MY_LABELS}"}}
  evaluators:
    linear: {name: linear}
    knn: {name: knn}
"""
