"""The table of a sweep: pooled values, averages, what lies across, and what is missing."""

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import pytest
from m2dx_sweep.table import SweptGrid, sweep_table
from typer.testing import CliRunner

import m2dx
from m2dx import cli
from m2dx.contract.components import Score
from m2dx.contract.errors import CheckpointError, M2dxError
from m2dx.results.formats import comma_separated, markdown
from m2dx.results.scores import write_scores
from m2dx.results.table import ResultTable

RATIOS, SEEDS = ("0.6", "0.8"), ("0", "1", "2")


def scores_of(
    esc: float,
    drums: float | None,
    *,
    knn: float | None = None,
    encoder: str = "pretrained",
    clips: int = 197,
) -> list[Score]:
    values = {("esc", "linear"): esc, ("drums", "linear"): drums, ("esc", "knn"): knn}
    return [
        Score(task, "accuracy", value, 0.01, (value,), protocol, {"clips": clips}, encoder=encoder)
        for (task, protocol), value in values.items()
        if value is not None
    ]


def finish(folder: Path, name: str, scores: list[Score], *, loss: float = 0.5, pool: str = "f0") -> None:
    run = folder / name
    (run / "encoder").mkdir(parents=True)
    (run / "encoder" / "config.json").touch()
    (run / "recipe.yaml").write_text("evaluation: {tasks: {}}")
    (run / "summary.json").write_text(
        json.dumps({"stopped_by": None, "data": {"sets": {"pool": {"fingerprint": pool}}}})
    )
    if scores:
        write_scores(scores, run / "scores.json")
    lines = [{"step": 1, "loss": 9.0, "rankme": 7.0, "time": 1.0}, {"step": 2, "loss": loss, "time": 2.0}]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 3, "lo')


def start(folder: Path, keys: tuple[tuple[str, ...], ...], points: Mapping[str, dict[str, str]]) -> None:
    folder.mkdir()
    (folder / "grid.json").write_text(json.dumps(asdict(SweptGrid("lungs", keys, points))))


@pytest.fixture
def seeded(tmp_path: Path) -> Path:
    """Two mask ratios with three seeds; of the second ratio, two are not finished."""
    folder = tmp_path / "seeded"
    points = {
        f"r{ratio}-s{seed}": {"model.mask_ratio": ratio, "seed": seed} for ratio in RATIOS for seed in SEEDS
    }
    start(folder, (("model.mask_ratio",), ("seed",)), points)
    for seed, esc, drums in (("0", 0.50, 0.60), ("1", 0.54, 0.70), ("2", 0.55, 0.50)):
        baseline = scores_of(0.1, 0.2, encoder="random_weights")
        finish(folder, f"r0.6-s{seed}", [*scores_of(esc, drums), *baseline], loss=0.5 + int(seed))
    finish(folder, "r0.8-s0", scores_of(0.7, 0.8))
    (folder / "r0.8-s1").mkdir()
    (folder / "r0.8-s1" / "recipe.yaml").write_text("evaluation: {tasks: {}}")
    return folder


def rows(table: ResultTable) -> dict[tuple[str, str], tuple[float, float | None, str]]:
    """(row, column) -> mean, interval, marks."""
    lines = csv.DictReader(io.StringIO(comma_separated(table)))
    return {
        (line[table.heading], line["column"].removesuffix(", linear, accuracy")): (
            float(line["mean"]),
            float(line["ci95"]) if line["ci95"] else None,
            line["marks"],
        )
        for line in lines
    }


def test_seeds_are_pooled_to_mean_and_interval(seeded: Path) -> None:
    table = sweep_table(seeded)
    found = rows(table)
    mean, ci95, marks = found["0.6", "esc"]
    half_width = m2dx.half_width_95([50.0, 54.0, 55.0])
    assert (mean, ci95) == (pytest.approx(53.0), pytest.approx(half_width)) and marks == ""
    assert half_width == pytest.approx(4.302653 * 2.645751 / 3**0.5, rel=1e-5)  # t of 2 degrees, s
    assert found["0.6", "average"][0] == pytest.approx((55 + 62 + 52.5) / 3)
    assert found["0.8", "esc"] == (pytest.approx(70.0), None, "1 of 3 seeds")
    assert table.title == "lungs"
    assert table.column_titles == tuple(f"{task}, linear, accuracy" for task in ("average", "esc", "drums"))


def test_what_is_missing_is_told(seeded: Path) -> None:
    text = markdown(sweep_table(seeded))
    assert "| 0.6 | 3 of 3 |" in text and "| 0.8 | 1 of 3 |" in text
    assert "- Not finished: r0.8-s1, r0.8-s2." in text
    assert "- a: 1 of 3 seeds" in text


def test_a_value_that_is_typed_in_two_ways_is_one_row(tmp_path: Path) -> None:
    typed = {"s0": "0.7", "s1": "0.70", "s2": "7e-1"}
    points = {name: {"model.mask_ratio": ratio, "seed": name[1]} for name, ratio in typed.items()}
    folder = tmp_path / "typed"
    start(folder, (("model.mask_ratio",), ("seed",)), points)
    for name in points:
        finish(folder, name, scores_of(0.5 + int(name[1]) / 10, None))
    (row,) = sweep_table(folder).groups[0].rows
    assert (
        row.texts == ("0.7", "3 of 3") and row.cells[0] is not None and row.cells[0].mean == pytest.approx(60)
    )


@pytest.mark.parametrize(
    ("key", "second_row"),
    [
        ("model.mask_ratio", {"scored on 197 clips", "trained on pool (list f0)"}),
        ("data.sets.pool.repeat", {"scored on 197 clips"}),  # rows of other sets are meant
    ],
)
def test_runs_of_other_data_are_marked(tmp_path: Path, key: str, second_row: set[str]) -> None:
    folder = tmp_path / "other"
    points = {f"{value}-{seed}": {key: value, "seed": seed} for value in "ab" for seed in "01"}
    start(folder, ((key,), ("seed",)), points)
    for name in points:
        clips, pool = (157, "f1") if name == "a-1" else (197, "f0")
        finish(folder, name, scores_of(0.5, None, clips=clips), pool=pool)
    table = sweep_table(folder)
    found = [
        {table.marks[mark] for mark in row.cells[0].marks} for row in table.groups[0].rows if row.cells[0]
    ]
    pools = {"trained on pool (list f0)", "trained on pool (list f1)"}
    assert found == [{"scored on 157 and 197 clips"} | pools, second_row]


def test_who_compares_points_is_told_that_choosing_is_choosing_on_test_clips(
    seeded: Path, tmp_path: Path
) -> None:
    def told(folder: Path, *columns: str) -> bool:
        return any("test clips" in note for note in sweep_table(folder, columns=columns).notes)

    alone = tmp_path / "alone"
    start(alone, (("seed",),), {"s0": {"seed": "0"}, "s1": {"seed": "1"}})
    finish(alone, "s0", scores_of(0.5, None))
    assert (told(seeded), told(seeded, "loss"), told(alone)) == (True, False, False)


def test_columns_are_chosen(seeded: Path) -> None:
    table = sweep_table(seeded, columns=["loss", "average", "*/linear", "rankme"])
    scores = tuple(f"{task}, linear, accuracy" for task in ("average", "esc", "drums"))
    assert table.column_titles == ("loss", *scores, "rankme")
    found = rows(table)
    assert found["0.6", "loss"][0] == pytest.approx(1.5)  # the last whole lines: 0.5, 1.5, 2.5
    assert found["0.6", "rankme"] == (7.0, 0.0, "")
    assert rows(sweep_table(seeded, encoder="random_weights"))["0.6", "drums"][0] == pytest.approx(20)
    with pytest.raises(
        M2dxError, match="--column must be a score or a metric of these runs, but is 'los'; did you mean"
    ):
        sweep_table(seeded, columns=["los"])
    with pytest.raises(
        M2dxError, match="--encoder must be one of those that were scored, but is 'pretraind'; did"
    ):
        sweep_table(seeded, encoder="pretraind")


def test_protocols_are_told_apart_where_they_differ(tmp_path: Path) -> None:
    folder = tmp_path / "two"
    start(folder, (("noise",),), {"a": {"noise": "keep"}, "b": {"noise": "null"}})
    finish(folder, "a", scores_of(0.5, 0.6, knn=0.4))
    finish(folder, "b", scores_of(0.5, None))
    table = sweep_table(folder)
    tasks = ("average, linear", "esc, linear", "drums, linear", "esc, knn")
    assert table.column_titles == tuple(f"{task}, accuracy" for task in tasks)
    found = rows(table)
    assert found["keep", "average"] == (pytest.approx(55.0), None, "")
    assert ("null", "average") not in found  # a mean of other tasks would mislead
    assert found["null", "esc"] == (50.0, 1.0, "")  # the evaluation's own interval


def test_without_scores_the_losses_are_shown(tmp_path: Path) -> None:
    folder = tmp_path / "losses"
    start(folder, (("seed",),), {"s0": {"seed": "0"}, "s1": {"seed": "1"}})
    finish(folder, "s0", [], loss=1.0)
    finish(folder, "s1", [], loss=2.0)
    table = sweep_table(folder)
    assert (table.heading, table.columns) == ("recipe", ("loss", "rankme"))
    assert rows(table)["lungs", "loss"][:2] == (1.5, pytest.approx(m2dx.half_width_95([1.0, 2.0])))


@pytest.fixture
def crossed(tmp_path: Path) -> Path:
    """Three keys, two of which go together; one point is not finished."""
    folder = tmp_path / "crossed"
    keys = (("audio.crop_seconds", "train.accumulate"), ("noise.ratio",))
    points = {
        f"{crop}-{noise}": {"audio.crop_seconds": crop, "train.accumulate": steps, "noise.ratio": noise}
        for crop, steps in (("2", "1"), ("6", "4"))
        for noise in ("0.1", "0.2")
    }
    start(folder, keys, points)
    for name, score in {"2-0.1": 0.21, "2-0.2": 0.22, "6-0.1": 0.61}.items():
        finish(folder, name, scores_of(score, score / 2))
    return folder


def test_keys_that_change_together_share_a_column(crossed: Path) -> None:
    table = sweep_table(crossed, columns=["esc"])
    assert (table.heading, table.info) == ("crop_seconds, accumulate", ("ratio", "runs"))
    text = markdown(table)
    assert "| 6, 4 | 0.1 | 1 of 1 | 61.0 ± 1.0 |" in text and "| 6, 4 | 0.2 | 0 of 1 | - |" in text
    assert "| 2, 1 | 0.1 | 1 of 1 | 21.0 ± 1.0 |" in text and "| 2, 1 | 0.2 | 1 of 1 | 22.0 ± 1.0 |" in text


def test_a_table_needs_something_that_is_finished(tmp_path: Path, seeded: Path) -> None:
    folder = tmp_path / "new"
    start(folder, (("seed",),), {"s0": {"seed": "0"}})
    with pytest.raises(M2dxError, match=r"a table needs a finished run, but .* 0 of 1 points are finished"):
        sweep_table(folder)
    (seeded / "r0.6-s0" / "scores.json").write_text("[1]")
    with pytest.raises(CheckpointError, match="must be scores written by m2dx"):
        sweep_table(seeded)


def test_the_command_writes_every_format(seeded: Path, tmp_path: Path) -> None:
    def table(*arguments: str) -> str:
        result = CliRunner().invoke(cli.app, ["sweep-table", str(seeded), *arguments])
        assert result.exit_code == 0, result.output
        return result.output

    assert table("--column", "esc").startswith("**lungs**\n\n| mask\\_ratio | runs | esc, linear, accuracy |")
    assert table("--format", "csv").startswith("group,mask_ratio,runs,column,mean,ci95,marks\n")
    assert "lungs" in table("--format", "rich")
    for suffix, begins in ((".tex", "% needs"), (".csv", "group,"), (".md", "**lungs")):
        file = tmp_path / f"table{suffix}"
        table("-o", str(file))
        assert file.read_text().startswith(begins)
    wrong = CliRunner().invoke(cli.app, ["sweep-table", "x", "--format", "rich", "-o", "y"])
    assert wrong.exit_code == 2
