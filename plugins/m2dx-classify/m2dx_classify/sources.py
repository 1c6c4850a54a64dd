"""The labelled clips that a classifier is fitted to: a run's own, a list, or a folder per class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import m2dx
from m2dx.data.csv_list import CsvDataset
from m2dx.data.datasets import FolderDataset
from m2dx.data.division import divided
from m2dx.evaluation.features import CACHE_FOLDER, FeatureCache
from m2dx.recipe.schema import EvaluationTaskSection

FOLDS = 5
"""Of cross validation, where the clips have no test part."""


class LabelledClips(m2dx.Dataset):
    """Clips that have a label, and a test part or folds."""

    name = "labelled"

    def __init__(self, name: str, clips: list[m2dx.Clip]) -> None:
        labelled = [clip for clip in clips if clip.labels]
        if {clip.split for clip in labelled} <= {None, "train", "valid"}:
            groups = len({clip.group or str(clip.path) for clip in labelled})
            undivided = [replace(clip, split=None) for clip in labelled]
            labelled = (
                divided(undivided, name, split=None, folds=min(FOLDS, groups)) if groups > 1 else undivided
            )
        self._clips = labelled

    def clips(self, split: str | None = None) -> list[m2dx.Clip]:
        """Clips of one split or fold, or all of them."""
        return [clip for clip in self._clips if split is None or clip.split == split]


def task_of_list(path: Path) -> m2dx.ClipTask:
    """The task of a list (.csv, .tsv), or of a folder whose folders are the classes.

    Raises AudioError or RecipeError where it cannot be used.
    """
    dataset = FolderDataset(path=path, label_from_folder=True) if path.is_dir() else CsvDataset(path=path)
    return m2dx.ClipTask.from_dataset(path.stem, LabelledClips(str(path), dataset.clips()))


def task_of_run(model: Path, name: str | None, host: m2dx.PluginHost) -> m2dx.ClipTask:
    """The evaluation task of that name of a run, or its only one; without any, its data set with labels.

    Raises RecipeError where there is no such task, or several and no name.
    """
    run = model.parent if model.name == "encoder" else model
    if not (run / "recipe.yaml").is_file():
        raise m2dx.RecipeError(
            f"{model} must be a classifier's folder, or a run's with a recipe.yaml that names labelled clips, but is "
            "neither; give labelled clips: --train LABELS.csv"
        )
    recipe = m2dx.load_recipe(run / "recipe.yaml", host=host)
    sections: Mapping[str, EvaluationTaskSection] = recipe.evaluation.tasks or {
        key: EvaluationTaskSection(dataset=section.dataset, short_clips=recipe.data.short_clips)
        for key, section in recipe.data.sets.items()
        if host.build("dataset", section.dataset).label_names()
    }
    if name not in sections and (name is not None or len(sections) != 1):
        there = ", ".join(sections) or "none; give them: --train LABELS.csv"
        what = "one set of labelled clips" if name is None else f"labelled clips {name!r} (--task)"
        raise m2dx.RecipeError(f"{run}: there must be {what}, but there are: {there}")
    key = next(iter(sections)) if name is None else name
    section = sections[key]
    dataset = host.build("dataset", section.dataset)
    return m2dx.ClipTask.from_dataset(
        key,
        LabelledClips(key, dataset.clips()),
        unit_seconds=section.unit_seconds or (dataset.task and dataset.task.unit_seconds),
        short_clips=section.short_clips,
        max_bad_fraction=recipe.data.max_bad_fraction,
        shared_groups=section.shared_groups,
        cache=FeatureCache(recipe.output / CACHE_FOLDER) if recipe.evaluation.cache else None,
    )
