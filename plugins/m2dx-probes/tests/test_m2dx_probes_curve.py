"""Learning curves: which labels a draw has, and the command."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from m2dx_probes.curve import Point, curve_figure, curve_table, parse_sizes
from m2dx_probes.subsets import labelling_order, subset_fold
from rich.console import Console
from typer.testing import CliRunner

import m2dx
from m2dx import Clip
from m2dx.contract.components import Fold
from m2dx.jobs.train import run_recipe
from m2dx.recipe.loading import load_recipe
from m2dx.report.saving import save_figure

SOUNDS = Path(__file__).parents[3] / "examples" / "sounds"


def clips_of(groups: list[str | None]) -> list[Clip]:
    return [Clip(Path(f"{row}.wav"), group=group) for row, group in enumerate(groups)]


def one_hot(y: list[int]) -> Any:
    return np.eye(max(y) + 1, dtype=np.float32)[y]


@pytest.mark.parametrize("known", ["groups", "files"])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("size", [4, 5, 8])
def test_labels_come_by_whole_groups(size: int, seed: int, known: str) -> None:
    """Of groups, or files, with 5 clips each, all but one are there with all of their clips, or none."""
    if known == "groups":
        clips = clips_of([str(row // 5) for row in range(100)])
    else:
        clips = [Clip(Path(f"{row // 5}.wav"), row % 5, 1.0) for row in range(100)]
    order = labelling_order(np.arange(100), clips, one_hot([row % 2 for row in range(100)]), seed)
    assert sorted(order.tolist()) == list(range(100))
    counts = np.bincount(order[: size * 5 - 2] // 5, minlength=20)
    assert sorted(counts.tolist()) == [0] * (20 - size) + [3] + [5] * (size - 1)


@pytest.mark.parametrize("seed", range(3))
def test_classes_keep_their_shares_as_far_as_whole_groups_allow(seed: int) -> None:
    """Three quarters of the clips, each its own group, are of the first class."""
    y = [int(row % 4 == 0) for row in range(200)]
    order = labelling_order(np.arange(200), clips_of([None] * 200), one_hot(y), seed)
    for size in (8, 20, 40, 100):
        assert sum(y[row] for row in order[:size]) == size / 4


def test_draws_differ_and_repeat_by_seed() -> None:
    """Also of groups of different sizes, of which one is always the nearest to the shares of the classes."""
    groups = np.repeat(np.arange(20), np.arange(1, 21))
    y, clips = one_hot([row % 3 for row in range(210)]), clips_of([str(group) for group in groups])
    orders = [labelling_order(np.arange(210), clips, y, seed).tolist() for seed in (0, 1, 2, 0)]
    assert orders[0] == orders[3]
    assert len({frozenset(order[:40]) for order in orders}) == 3


@pytest.mark.parametrize("groups", [[str(row // 4) for row in range(80)], ["one"] * 80, [None] * 80])
@pytest.mark.parametrize("size", [2, 10, 40])
def test_the_labels_of_a_size_are_among_those_of_a_larger_one(groups: list[str | None], size: int) -> None:
    clips, y = clips_of(groups), one_hot([row % 2 for row in range(80)])
    whole = Fold("test", np.arange(50), np.arange(50, 60), np.arange(60, 80))
    small, large = (subset_fold(whole, number, clips, y, 0) for number in (size, size + 10))
    rows = [{*fold.train.tolist(), *fold.valid.tolist()} for fold in (small, large)]
    assert rows[0] < rows[1] < set(range(60)) and (len(rows[0]), len(rows[1])) == (size, size + 10)
    assert len(small.train) and len(small.valid) and not set(small.train) & set(small.valid)
    assert (small.test == whole.test).all()


def points() -> list[Point]:
    return [
        Point("drums", "logistic", "accuracy", encoder, labels, values)
        for encoder, shift in (("pretrained", 0.1), ("random_weights", 0.0))
        for labels, values in (
            (25, (0.3 + shift, 0.4 + shift)),
            (50, (0.5 + shift, 0.5 + shift)),
            (60, (0.6,)),
        )
    ]


def test_the_table_has_a_row_for_each_number_of_labels() -> None:
    table = curve_table(points())
    (group,) = table.groups
    assert (group.name, table.columns) == ("drums, logistic (accuracy)", ("pretrained", "random_weights"))
    assert [row.label for row in group.rows] == ["25", "50", "60"]
    first, best = (
        group.rows[0].cells,
        [[bool(cell and cell.is_best) for cell in row.cells] for row in group.rows],
    )
    assert [cell.text for cell in first if cell] == [
        "45.0 ± 63.5",
        "35.0 ± 63.5",
    ]  # 12.706 of Student's t, df 1
    assert best == [[True, False], [True, False], [True, True]]


def test_the_picture_has_a_line_for_each_encoder(tmp_path: Path) -> None:
    figure = curve_figure(points())
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["pretrained", "random_weights"]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["25", "50", "60"]
    for name in ("curve.svg", "curve.png"):
        save_figure(figure, tmp_path / name)
        assert (tmp_path / name).stat().st_size > 5_000
    with pytest.raises(m2dx.M2dxError, match="could not be written"):
        save_figure(figure, tmp_path / "curve.svg" / "curve.svg")


@pytest.mark.parametrize("text", ["", "a", "25,", "1", "25,-5", "2.5"])
def test_sizes_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(
        m2dx.M2dxError, match=r"--sizes must be numbers of labels, 2 or more, such as 25,50,100"
    ):
        parse_sizes(text)


RECIPE = """
output: {folder}/runs
data:
  sets: {{drums: {{dataset: {{name: csv, path: {sounds}/drums.csv}}}}}}
  mean: -7.0
  std: 4.0
  epoch_size: 8
  workers: 0
audio: {{crop_seconds: 0.32}}
model: {{size: tiny, depth: 1, predictor: {{embed_dim: 24, depth: 1, num_heads: 2}}}}
train: {{epochs: 1, warmup_epochs: 0, batch_size: 8, device: cpu, threads: 1}}
evaluation:
  tasks: {{drums: {{dataset: {{name: csv, path: {sounds}/drums.csv}}, unit_seconds: 0.32}}}}
  evaluators: {{knn: {{name: knn}}}}
  baselines: [mean_logmel]
"""


def test_the_command_scores_encoder_and_baselines_by_the_number_of_labels(
    tmp_path: Path, make_host: Callable[[str], m2dx.PluginHost], no_page: None
) -> None:
    from m2dx_probes import command

    host, recipe = make_host("probes"), tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.format(folder=tmp_path, sounds=SOUNDS), encoding="utf-8")
    loaded = load_recipe(recipe, [], host=host)
    run_recipe(loaded, host, Console(quiet=True), resume=False, overwrite=False)
    out, picture = tmp_path / "curve.csv", tmp_path / "curve.svg"
    sizes = ["--sizes", "12,40", "--draws", "2", "--picture", str(picture), "-o", str(out)]
    arguments = [str(loaded.output / loaded.name), str(recipe), *sizes]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(m2dx.PluginHost, "discover", lambda: host)
        result = CliRunner().invoke(command.commands, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    rows = list(csv.DictReader(out.read_text(encoding="utf-8").splitlines()))
    assert {row["group"] for row in rows} == {"drums, knn (accuracy)"} and picture.is_file()
    clips = host.build("dataset", loaded.evaluation.tasks["drums"].dataset).clips()
    labels = str(sum(clip.split != "test" for clip in clips))
    encoders = ("pretrained", "mean_logmel")
    assert [(row["labels"], row["column"]) for row in rows] == [
        (size, encoder) for size in ("12", "40", labels) for encoder in encoders
    ]
    scores = json.loads((loaded.output / loaded.name / "scores.json").read_text())
    whole = {score["encoder"]: score["mean"] for score in scores}
    assert {row["column"]: float(row["mean"]) for row in rows[-2:]} == pytest.approx(
        {encoder: 100 * whole[encoder] for encoder in encoders}
    )
    assert [row["ci95"] == "" for row in rows] == [False] * 4 + [True] * 2
