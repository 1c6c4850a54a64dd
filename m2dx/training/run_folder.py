"""The folder of a run: opened to resume, or cleared to start again."""

from __future__ import annotations

import contextlib
import logging
import os
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from pydantic import ValidationError

from m2dx.contract.atomic import replace_text
from m2dx.contract.errors import CheckpointError, RecipeError
from m2dx.data.clips import ClipList
from m2dx.encoder.checkpoint import Checkpoint, CheckpointFolder
from m2dx.encoder.weights import config_of_checkpoint
from m2dx.recipe.document import plain_yaml
from m2dx.recipe.loading import recipe_to_mapping, recipe_to_yaml
from m2dx.recipe.schema import Recipe

logger = logging.getLogger(__name__)

LOCK = ".lock"
"""The file that says who works in a folder; it stays there after a process that was killed."""

Resume = bool | Literal["or_start"]
"""Whether to resume from a run's newest checkpoint; "or_start": if there is one, else start."""

_WRITTEN = (
    "recipe.yaml metrics.jsonl summary.json bad_files.tsv scores.json predictions.jsonl report.html "
    "scores_by_step.jsonl scores_by_step/step-*.log tensorboard/events.out.tfevents.* "
    "checkpoints/step-*.pt checkpoints/step-*.encoder.safetensors checkpoints/step-*.pt.damaged "
    "checkpoints/.step-*.partial encoder/*.safetensors encoder/config.json encoder/.*.partial"
).split()
"""What training, export and evaluation write into a run's folder."""


_SCORES = ("scores.json", "predictions.jsonl")  # of the encoder that a run ends with

_STATE = {
    "clips": ("count", "fingerprint"),
    "totals": ("clips", "seconds", "collapse_warnings"),
    "optimizer": ("state", "param_groups"),
    **dict.fromkeys(("label_names", "scaler", "pending", "rng", "bad_files"), ()),
}
"""What a checkpoint must have for a run to go on from it, and what that must have; beside what its encoder needs."""


def _check_state(found: Checkpoint, recipe: Recipe) -> None:
    """CheckpointError where a run of the recipe cannot go on from what a checkpoint holds."""
    with CheckpointError.blaming(f"{found.path}: not a whole checkpoint of m2dx"):
        for name, keys in _STATE.items():
            if len(found.state[name]) < len(keys) or any(key not in found.state[name] for key in keys):
                raise ValueError(f"{name} must have {', '.join(keys)}")
        if config_of_checkpoint(found.state, found.path).step is None:
            raise ValueError("it must have a step")
        as_started(recipe, found.state["recipe"])


def open_run_folder(recipe: Recipe, *, resume: Resume, overwrite: bool) -> Checkpoint | None:
    """On resume, the newest whole checkpoint of the run; else None, once nothing is in the way. Changes nothing.

    RecipeError where there is nothing to resume, or a run that would be overwritten; CheckpointError where no
    checkpoint can be read.
    """
    folder = recipe.output / recipe.name
    checkpoints = CheckpointFolder(folder / "checkpoints")
    for path in (item for item in recipe.evaluation.baselines if isinstance(item, Path)):
        _check_elsewhere(path, "evaluation.baselines", folder)
    if resume:
        found = checkpoints.load_newest_whole(lambda checkpoint: _check_state(checkpoint, recipe))
        if found is None and resume != "or_start":
            raise RecipeError(f"{folder} has no checkpoint to resume from; train without --resume")
        if found is not None:
            started_with = found.state["recipe"]
            now, before = recipe_to_mapping(as_started(recipe, started_with)), started_with
            # With the defaults of fields that its m2dx did not have.
            with contextlib.suppress(ValidationError):
                before = recipe_to_mapping(type(recipe).model_validate(started_with))
            changed = sorted(differences(before, now))
            if changed:
                logger.warning("the recipe has changed since this run started: %s", ", ".join(changed))
            return found
    if recipe.init_from is not None:
        _check_elsewhere(recipe.init_from, "init_from", folder)
    steps = checkpoints.steps()
    if (steps or (folder / "encoder" / "config.json").exists()) and not overwrite:
        what = f"a checkpoint of step {steps[-1]}: go on with --resume," if steps else "an encoder:"
        raise RecipeError(
            f"{folder} holds a run with {what} start anew with --overwrite, or give this run another name (name=...)"
        )
    there = [name for name in _WRITTEN if (folder / name).is_file()]
    if there and not overwrite and not _is_whole_recipe(folder / "recipe.yaml", recipe):
        raise RecipeError(
            f"{folder} has files that are not of a run, such as {there[0]}, and a run would write over them; give this "
            "run another name (name=...), or another `output`"
        )
    return None


def _check_elsewhere(encoder: Path, field: str, folder: Path) -> None:
    if encoder.resolve().is_relative_to(folder.resolve()):
        raise RecipeError(
            f"{field} ({encoder}) is in the folder of this run, which would be overwritten; give this run another name "
            "(name=...)"
        )


def _is_whole_recipe(path: Path, recipe: Recipe) -> bool:
    """Whether a file has every field, as runs write their recipes, and people do not."""
    try:
        return recipe_to_mapping(recipe).keys() <= set(plain_yaml(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecipeError):
        return False


@contextlib.contextmanager
def running_alone(folder: Path, *, other: str = "give this run another name (name=...)") -> Iterator[None]:
    """Keeps other processes from working in a run's folder; RecipeError where one does, with the `other` way out.

    A folder that is made for it, and stays empty since the run could not start, is removed.
    """
    made = [each for each in (folder, folder.parent) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        who = "another process"
        with contextlib.suppress(PermissionError):
            who = path.read_text() or who
        raise RecipeError(
            f"{folder} must be used by one process at a time, but {who} works there; wait for its end, or {other}"
        ) from None
    try:
        # Windows lets no one write to a locked file, or read it.
        with contextlib.suppress(PermissionError):
            path.write_text(f"process {os.getpid()} on {platform.node()}")
        yield
    finally:
        lock.release()
        if made and os.listdir(folder) == [path.name]:
            path.unlink()
            with contextlib.suppress(OSError):
                for each in made:
                    each.rmdir()


def check_same_data(lists: Mapping[str, ClipList], state: Mapping[str, Any], *, with_tasks: bool) -> None:
    """Compares the data of a resumed run, and its noise, with those of its checkpoint.

    Raises RecipeError if the classes of tasks have changed, since outputs would change their meaning; warns of other
    clips, labels or files.
    """
    then = {name: tuple(labels) for name, labels in state["label_names"].items()}
    now = lists["clips"].label_names
    changed = [name for name in then.keys() | now.keys() if then.get(name) != now.get(name)]
    if changed and with_tasks:
        name = min(changed)
        old, new = (", ".join(names.get(name, ())) or "none" for names in (then, now))
        raise RecipeError(
            f"the classes of data set {name!r} must be those that the run started with ({old:.200}), but are "
            f"{new:.200}; restore the list, or start anew (--overwrite, or another name=...)"
        )
    for name, clips in lists.items():
        began = state.get(name)  # noise may be new in the recipe
        if began is not None and began["fingerprint"] != clips.fingerprint:
            logger.warning(
                "%s changed since this run started (%d clips then, %d now; files, segments, labels or weights): "
                "it goes on with other batches",
                {"clips": "the data have", "noise": "the noise has"}[name],
                began["count"],
                len(clips),
            )


def start_run_folder(recipe: Recipe, *, resume: bool, finished: bool = False) -> Path:
    """Makes the folder of a run that is ready to train, and writes its resolved recipe (with the measured statistics).

    Without `resume`, files of an earlier run are removed; files that m2dx does not know stay. With it, only scores of
    the earlier end, unless the run is `finished`.
    """
    folder = recipe.output / recipe.name
    folder.mkdir(parents=True, exist_ok=True)
    if resume and not finished:
        for name in _SCORES:
            (folder / name).unlink(missing_ok=True)
    if not resume:
        for path in [path for pattern in _WRITTEN for path in folder.glob(pattern)]:
            path.unlink()
        for name in ("tensorboard", "checkpoints", "encoder", "scores_by_step"):
            with contextlib.suppress(OSError):  # not there, or with files of someone else
                (folder / name).rmdir()
    replace_text(folder / "recipe.yaml", recipe_to_yaml(recipe))
    return folder


def as_started(recipe: Recipe, started_with: Mapping[str, Any], *, accumulation: bool = True) -> Recipe:
    """The recipe, its open statistics and `precision: auto` filled in with those that the run started with.

    `accumulation`: the run's number for `train.accumulate: auto`, too; another world size has to measure it again.
    """
    train, began = recipe.train, started_with["train"]
    chosen = {"precision"} if train.precision == "auto" else set[str]()
    if accumulation and train.accumulate == "auto" and train.batch_size == began["batch_size"]:
        chosen.add("accumulate")
    update: dict[str, Any] = {"train": train.model_copy(update={key: began[key] for key in chosen})}
    for name, section in (("data", recipe.data), ("image", recipe.image), ("noise", recipe.noise)):
        before = started_with.get(name)
        if section is not None and section.mean is None and before is not None:
            keys = ("mean",) if name == "noise" else ("mean", "std")
            values = {key: tuple(before[key]) if name == "image" else before[key] for key in keys}
            update[name] = section.model_copy(update=values)
    return recipe.model_copy(update=update)


def differences(before: Mapping[str, Any], now: Mapping[str, Any], path: str = "") -> list[str]:
    """Fields whose values differ, as `key.path (before -> now)`."""
    found = []
    for key in before.keys() | now.keys():
        old, new = before.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differences(old, new, f"{path}{key}.")
        elif old != new:
            found.append(f"{path}{key} ({old} -> {new})")
    return found
