"""The labelled clips that a classifier is fitted to: a run's own, a list, or a folder per class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import m2dx
from m2dx.contract.package import STARTER
from m2dx.contract.wording import counted
from m2dx.data.csv_list import CsvDataset
from m2dx.data.datasets import SPLIT_FOLDERS, FolderDataset, plain_name
from m2dx.data.division import divided
from m2dx.evaluation.features import CACHE_FOLDER, FeatureCache
from m2dx.recipe.schema import EvaluationTaskSection

FOLDS = 5
"""Of cross validation, where the clips have no test part."""
FEWEST_GROUPS = 3
"""To fit to, to choose by, and to test on."""


class LabelledClips(m2dx.Dataset):
    """Clips that have a label, and a test part or folds."""

    name = "labelled"

    def __init__(self, name: str, clips: list[m2dx.Clip], missing: Sequence[str] = ()) -> None:
        labelled = [clip for clip in clips if clip.labels]
        self._missing = missing
        if {clip.split for clip in labelled} <= {None, "train", "valid"}:
            groups = len({clip.unit for clip in labelled})
            if 0 < groups < FEWEST_GROUPS:
                raise m2dx.RecipeError(
                    f"{name}: all labelled clips are of {counted(groups, 'group')} (or files), so that nothing can be "
                    f"tested; there must be {FEWEST_GROUPS} or more, or a column `split`"
                )
            undivided = [replace(clip, split=None) for clip in labelled]
            labelled = divided(undivided, name, split=None, folds=min(FOLDS, groups)) if labelled else []
        self._clips = labelled

    def clips(self, split: str | None = None) -> list[m2dx.Clip]:
        """Clips of one split or fold, or all of them."""
        return [clip for clip in self._clips if split is None or clip.split == split]

    def missing(self) -> list[str]:
        """What the data set that they are from lacks."""
        return [*self._missing]


def task_of_list(path: Path) -> m2dx.ClipTask:
    """The task of a list (.csv, .tsv), or of a folder whose folders are the classes.

    Raises AudioError or RecipeError where it cannot be used.
    """
    dataset = FolderDataset(path=path) if path.is_dir() else CsvDataset(path=path)
    clips = dataset.clips()
    if path.is_dir():
        clips = of_folders(path, clips)
    labelled = LabelledClips(str(path), clips, dataset.missing())
    return m2dx.ClipTask.from_dataset(path.stem, labelled, title=f"labelled clips {path}")


def of_folders(root: Path, clips: Sequence[m2dx.Clip]) -> list[m2dx.Clip]:
    """The clips with their folder below the root as label, and the one below that as group, the same in all classes.

    Folders that are all named as parts (train, val, test) say the split, and the classes are those in them. Raises
    AudioError for files that are in no folder of a class.
    """
    folders = [clip.path.relative_to(root).parts[:-1] for clip in clips]
    tops = {parts[0].lower() for parts in folders if parts}
    given = "test" in tops and tops <= set(SPLIT_FOLDERS)
    found = []
    for clip, parts in zip(clips, folders, strict=True):
        below = parts[1:] if given else parts
        if not below:
            raise m2dx.AudioError(
                f"{clip.path} must be in a folder of {root} that names its class, but is in none"
            )
        split = SPLIT_FOLDERS[parts[0].lower()] if given else None
        group = plain_name(below[1]) if len(below) > 1 else None
        found.append(replace(clip, labels=(plain_name(below[0]),), group=group, split=split))
    return found


def task_of_run(model: Path, name: str | None, host: m2dx.PluginHost) -> m2dx.ClipTask:
    """The evaluation task of that name of a run, or its only one; without any, its data set with labels.

    Raises RecipeError where there is no such task, or several and no name, and where its labels are values.
    """
    run = model.parent if model.name == "encoder" else model
    if (model / "classifier" / "config.json").is_file():
        raise m2dx.RecipeError(
            f"{model} is the folder of a search, whose classifier is {model / 'classifier'}"
        )
    if not (run / "recipe.yaml").is_file():
        raise m2dx.RecipeError(
            f"{STARTER.name if model == STARTER else model} must be a classifier's folder, or a run's with a "
            "recipe.yaml that names labelled clips, but is neither; give labelled clips: --train LABELS.csv"
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
    if section.target != "class":
        raise m2dx.RecipeError(
            f"{run}: the labels of {key!r} must be classes, but its `target` is {section.target}; name another task "
            "(--task), or give labelled clips: --train LABELS.csv"
        )
    dataset = host.build("dataset", section.dataset)
    return m2dx.ClipTask.from_dataset(
        key,
        LabelledClips(key, dataset.clips(), dataset.missing()),
        unit_seconds=section.unit_seconds or (dataset.task and dataset.task.unit_seconds),
        short_clips=section.short_clips,
        max_bad_fraction=recipe.data.max_bad_fraction,
        shared_groups=section.shared_groups,
        cache=FeatureCache(recipe.output / CACHE_FOLDER) if recipe.evaluation.cache else None,
    )
