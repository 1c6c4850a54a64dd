"""Every task on its sample: the contract, splits and groups, what is told, and that it can be learnt."""

import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import m2dx_tasks
import pytest
from m2dx_tasks.sample import WRITERS, main, write_sample

import m2dx
from m2dx.testing import check_dataset

CLASSES = {cls.name: cls for cls in m2dx_tasks.datasets()}  # type: ignore[attr-defined]
README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
EXPECTED: dict[str, tuple[int, dict[str, int]]] = {
    "esc50": (50, dict.fromkeys(map(str, range(1, 6)), 100)),
    "us8k": (10, dict.fromkeys(map(str, range(1, 11)), 20)),
    "spcv2": (35, {"train": 280, "valid": 35, "test": 35}),
    "voxceleb1": (13, {"train": 52, "valid": 24, "test": 24}),
    "voxforge": (6, {"train": 168, "valid": 20, "test": 52}),
    "cremad": (6, {"train": 84, "valid": 6, "test": 30}),
    "gtzan": (10, {"train": 50, "valid": 20, "test": 20}),
    "nsynth": (11, {"train": 264, "valid": 33, "test": 33}),
    "nsynth_pitch": (88, {"train": 259, "valid": 31, "test": 33}),
    "surge": (88, {"train": 704, "valid": 88, "test": 176}),
}
"""Classes and clips by split of the samples."""


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command line writes."""
    folder = tmp_path_factory.mktemp("sample")
    main([str(folder)])
    return folder


def folder_of(sample: Path, name: str) -> Path:
    return sample / ("nsynth" if name == "nsynth_pitch" else name)


@pytest.fixture(params=list(CLASSES))
def dataset(sample: Path, request: pytest.FixtureRequest) -> Any:
    return CLASSES[request.param](path=folder_of(sample, request.param))


def test_the_data_set_keeps_the_contract(dataset: Any) -> None:
    check_dataset(type(dataset), path=dataset.path)


def test_classes_and_splits_are_those_of_the_sample(dataset: Any) -> None:
    classes, splits = EXPECTED[dataset.name]
    assert len(dataset.label_names()) == classes
    assert {split: len(dataset.clips(split)) for split in splits} == splits
    assert len(dataset.clips()) == sum(splits.values())


def test_no_group_is_in_training_and_test(dataset: Any) -> None:
    splits = defaultdict(set)
    for clip in dataset.clips():
        assert (clip.group is None) == (dataset.name == "gtzan")
        splits[clip.group].add(clip.split)
    if dataset.name != "gtzan":
        assert {len(found - {"valid"}) for found in splits.values()} <= {0, 1}


def test_numbers_that_are_not_the_published_ones_are_told(dataset: Any) -> None:
    told = [line for line in dataset.missing() if line.startswith("the numbers of clips are not those of")]
    if dataset.name == "nsynth_pitch":  # nothing is published
        assert told == []
    else:
        first, count = next(iter(dataset.counts.items()))
        here = len(dataset.clips(first))
        assert f" {first} has {here} instead of {count}" in told[0] and "M2D-X, table I: " in told[0]


def test_published_numbers_are_not_told(dataset: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "counts", EXPECTED[dataset.name][1])
    assert not any("numbers of clips" in line for line in dataset.missing())


def test_the_published_numbers_are_those_of_table_one() -> None:
    totals = {name: sum(cls.counts.values()) for name, cls in CLASSES.items() if cls.counts}
    assert totals == {
        "esc50": 2000,
        "us8k": 8732,
        "spcv2": 84843 + 9981 + 11005,
        "voxceleb1": 138361 + 6904 + 8251,
        "voxforge": 121281 + 26684 + 28463,
        "cremad": 5155 + 732 + 1551,
        "gtzan": 443 + 197 + 290,
        "nsynth": 289205 + 12678 + 4096,
        "surge": 148896 + 17160 + 17336,
    }


def test_each_task_says_what_is_published(dataset: Any) -> None:
    info = dataset.task
    assert info.num_classes == {"voxceleb1": 1251}.get(dataset.name, EXPECTED[dataset.name][0])
    folds = sum(split.isdecimal() for split in EXPECTED[dataset.name][1])
    assert info.division == (f"{folds} folds" if folds else "train, valid, test")
    assert info.metric == "accuracy"
    assert info.layout in README


def test_the_sample_is_a_task_whose_differences_are_warnings(sample: Path) -> None:
    task = m2dx.ClipTask.from_dataset("gtzan", CLASSES["gtzan"](path=sample / "gtzan"))
    assert task.unit_seconds == 30.0
    (fold,) = task.folds
    assert (len(fold.train), len(fold.valid), len(fold.test)) == (50, 20, 20)
    (warning,) = task.warnings
    assert warning.endswith(
        "train has 50 instead of 443, valid has 20 instead of 197, test has 20 instead of 290"
    )


def test_the_recipe_part_of_the_readme_loads(
    sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = m2dx.PluginHost.discover()
    if "tasks" not in [record.name for record in host.records]:
        host.register("tasks", m2dx_tasks)
    for name, cls in CLASSES.items():
        monkeypatch.setenv(cls.task.variable, str(folder_of(sample, name)))
    part = README.split("```yaml\n")[1].split("```")[0]
    base = "data: {sets: {all: {dataset: {name: folder, path: .}}}}\n"
    (tmp_path / "recipe.yaml").write_text(base + part, encoding="utf-8")
    recipe = m2dx.load_recipe(tmp_path / "recipe.yaml", host=host)
    assert {task.dataset.name for task in recipe.evaluation.tasks.values()} == set(CLASSES)


def test_more_clips_are_links(tmp_path: Path) -> None:
    folder = write_sample(tmp_path, clips=600, tasks=["cremad"]) / "cremad"
    files = list(folder.rglob("*.wav"))
    assert len(files) == 600
    assert len({os.stat(file).st_ino for file in files}) <= 24


def test_chosen_tasks_only_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(tmp_path / "out"), "--task", "gtzan", "--task", "us8k", "--clips", "10"])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["gtzan", "us8k"]
    assert capsys.readouterr().out == f"{tmp_path / 'out'}\n"
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--clips", "0"])
    assert "--clips: must be 1 or more, but is 0" in capsys.readouterr().err


def test_each_task_has_a_writer() -> None:
    assert set(WRITERS) == set(CLASSES) - {"nsynth_pitch"}
