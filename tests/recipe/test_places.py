"""Errors that are found after a recipe was read say where in it the field stands."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from m2dx import cli
from m2dx.recipe.places import with_places

RECIPE = """\
data:
  sets:
    notes:
      dataset: {name: csv, path: lists/notes.csv}
      split: train
model:
  mask_ratio: 0.9
  masking: {name: time_runs, run_patches: 99}
  predictor:
    num_heads: 5
init_from: start.pth
augmentations:
  - {name: gain}
  - {name: room, path: rooms}
tasks:
  labels:
    loss: mse
train: {device: cuda}
evaluation:
  tasks:
    drums: {dataset: {name: csv, path: drums.csv}}
"""


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("model.mask_ratio must leave at least one patch visible", "r.yaml:7: "),
        ("model.predictor: embed_dim must be a multiple of 4", "r.yaml:9: "),
        ("model.predictor.embed_dim is not there, but its section is", "r.yaml:9: "),
        ("masking time_runs: a run must be no longer than the input", "r.yaml:8: "),
        ("init_from: /x/start.pth does not fit the recipe's model:\n  model.depth must be 2", "r.yaml:11: "),
        ("{folder}/start.pth: no such file or folder", "r.yaml:11: "),
        ("tasks.labels.loss ('mse'): shapes differ", "r.yaml:17: "),
        ("augmentations.1 ('room'): path must be a folder", "r.yaml:14: "),
        ("tasks.labels: 'labels' is a reserved name; give the task another one", "r.yaml:16: "),
        ("train.device is cuda, but torch sees no GPU; set train.device=auto or cpu", "r.yaml:18: "),
        ("train.precision fp16 needs a GPU, but the device is cpu", "override 1: train.precision=fp16: "),
        ("evaluation task 'drums' has no clips.", "r.yaml:21: "),
        ("evaluation task 'drums' cannot be used:\n  3 clips have no label", "r.yaml:21: "),
        ("split 'test' of data set 'notes' must have clips, but has none", "r.yaml:3: "),
        ("data set 'drums' (component 'csv'): clips() failed", "r.yaml:21: "),
        ("cannot read the list {folder}/lists/notes.csv: No such file", "r.yaml:4: "),
        ("the data set reads {folder}/lists/notes.csv/other", ""),
        ("r.yaml:3: model.size: must be tiny", ""),
        ("{folder}/lists/notes.csv:7: `start` must be a number", ""),
        ("override 1: train.precision=fp16: must be", ""),
        ("runs/x holds a run with an encoder", ""),
    ],
)
def test_a_line_has_the_place_of_the_field_that_it_names(
    text: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_text(RECIPE)
    text = text.format(folder=tmp_path)
    assert with_places(text, Path("r.yaml"), ["train.precision=fp16"]) == f"{place}{text}"


def test_without_the_recipe_the_text_stays(tmp_path: Path) -> None:
    assert with_places("model.size", tmp_path / "gone.yaml", []) == "model.size"


@pytest.mark.parametrize(
    ("override", "field"),
    [
        ("model.mask_ratio=0.99", "model.mask_ratio must leave"),
        ("model.predictor.num_heads=5", "model.predictor: embed_dim must be"),
        ("train.batch_size=64", "train.batch_size: an epoch must have a batch or more"),
        ("train.precision=fp16", "train.precision fp16 needs a GPU"),
        ("evaluation.device=cuda:99", "evaluation.device is cuda:99"),
        ("init_from=gone.pth", "gone.pth: no such file or folder"),
        ("data.sets.notes.split=gone", "split 'gone' of data set 'notes' must have clips"),
        ("data.sets.notes.dataset={name: csv, path: gone.csv}", "cannot read the list"),
    ],
)
def test_check_says_where(
    override: str, field: str, tiny_recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_recipe()  # writes the file
    task = "evaluation={tasks: {a: {dataset: {name: csv, path: x.csv}}}, evaluators: {knn: knn}}"
    more = [task] if "evaluation" in override else []
    result = CliRunner().invoke(cli.app, ["check", "tiny.yaml", *more, override])
    text: Any = str(result.exception)
    assert text.startswith(f"override {len(more) + 1}: {override}: ") and field in text, text
