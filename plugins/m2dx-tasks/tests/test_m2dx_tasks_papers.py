"""The papers' tables: their numbers, what is marked as not comparable, and `m2dx results --table`."""

import os
import re
import subprocess
import sys
import tomllib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from m2dx_tasks.papers import TABLES
from m2dx_tasks.papers.comparability import reasons
from m2dx_tasks.papers.comparison import OWN, paper_table
from m2dx_tasks.papers.published import (
    PaperColumn,
    PaperTable,
    load_table,
    paper_protocols,
    paper_tasks,
    table_keys,
)
from typer.testing import CliRunner

import m2dx
from m2dx import cli
from m2dx.results import (
    Division,
    Protocol,
    ResultRecord,
    ResultTable,
    Row,
    ScoredEncoder,
    append_records,
)

LUNGS = ScoredEncoder("lungs", "ab" * 32, "runs/lungs/encoder", 85_000_000)
SETTINGS = {"lr": 3e-5, "epochs": 200, "patience": 20, "batch_size": 200, "early_stopping": "score"}
AS_PUBLISHED = Protocol("linear", "linear", {**SETTINGS, "weight_decay": 0.0})
ESC50 = ResultRecord(
    date=datetime(2026, 11, 22, 12, tzinfo=UTC),
    encoder=LUNGS,
    task="esc50",
    protocol=AS_PUBLISHED,
    metric="accuracy",
    mean=0.9,
    ci95=0.0125,
    values=(0.9,) * 6,
    seeds=(0, 1, 2, 3, 4, 5),
    recipe="lungs",
    division=Division(5),
    clips=2000,
    classes=50,
    unit_seconds=5.0,
    short_clips="pad",
)
"""A score that is comparable with table III."""


def own_rows(table: ResultTable) -> dict[str, Row]:
    """The rows of m2dx, by label."""
    return {row.label: row for group in table.groups if group.name == OWN for row in group.rows}


# The published numbers


def printed(*rows: str) -> list[Any]:
    """(table, label, cells) from lines such as "m2d-x-iii; M2D/0.7; 91.3 ± 0.6 | 87.6 ± 0.2"."""
    return [tuple(part.strip() for part in row.split(";")) for row in rows]


QUOTED = printed(
    "m2d-x-iii; BYOL-A [20]; 83.2 ± 0.6 | 79.7 ± 0.5 | 93.1 ± 0.4 | 57.6 ± 0.2 | 93.3 ± 0.3 | 63.8 ± 1.0 | 70.1 ± 3.6 "
    "| 73.1 ± 0.8 | 37.6 ± 0.3 | 72.4",
    "m2d-x-iii; BEATs iter3 [21] †; 86.9 ± 1.4 | 84.8 ± 0.1 | 89.4 ± 0.1 | 41.4 ± 0.7 | 94.1 ± 0.3 | 64.7 ± 0.8 "
    "| 72.6 ± 4.3 | 75.9 ± 0.2 | 39.3 ± 0.4 | 72.1",
    "m2d-x-iii; MSM-MAE/0.75 [16]; 89.2 ± 0.9 | 87.4 ± 0.2 | 96.0 ± 0.1 | 73.6 ± 0.2 | 97.8 ± 0.2 | 71.2 ± 0.4 "
    "| 79.2 ± 0.9 | 74.6 ± 0.9 | 43.3 ± 0.3 | 79.1",
    "m2d-x-iii; M2D/0.7; 91.3 ± 0.6 | 87.6 ± 0.2 | 96.0 ± 0.1 | 73.4 ± 0.2 | 98.3 ± 0.0 | 73.0 ± 0.7 | 84.1 ± 2.7 "
    "| 75.7 ± 0.1 | 42.1 ± 0.2 | 80.2",
    "m2d-x-iii; SF NFNet-F0 [40]; 91.1 | - | 93.0 | 64.9 | 90.4 | - | - | 78.2 | - | -",
    "m2d-x-iv; Audio-MAE (local) [13]; 47.3 | 37.1 | 94.1 | 98.3 | 94.8",
    "m2d-x-iv; MSM-MAE/0.75 [16]; 47.4 ± 0.1 | 37.9 ± 0.0 | 95.4 ± 0.1 | 98.4 ± 0.0 | 96.6 ± 0.1",
    "m2d-x-iv; M2D/0.7; 47.9 ± 0.0 | 38.6 ± 0.1 | 96.0 ± 0.2 | 98.4 ± 0.1 | 96.3 ± 0.2",
    "m2d-x-iv; EAT-S/M [67]; 42.6 | - | 96.3 | 98.15 | -",
    "m2d-x-v; HTS-AT [66] †; 95.7 ± 0.7 | 83.8 ± 0.1 | 82.1 ± 0.3 | 18.1 ± 0.4 | 82.3 ± 0.3 | 56.2 ± 0.6 | 85.1 ± 0.5 "
    "| 73.3 ± 0.8 | 26.3 ± 0.5 | 67.0",
    "m2d-x-v; M2D-AS/0.7; 96.1 ± 0.6 | 89.8 ± 0.2 | 95.7 ± 0.0 | 68.3 ± 0.4 | 98.4 ± 0.0 | 73.1 ± 0.6 | 86.9 ± 0.6 "
    "| 75.2 ± 0.2 | 41.7 ± 0.3 | 80.6",
    "m2d-x-vi; M2D-AS/0.7; 48.5 ± 0.0 | 41.8 ± 0.1 | 97.2 ± 0.1 | 98.4 ± 0.1 | 95.6 ± 0.2",
    "m2d-x-vii; η = 0.0 (LS-960 only); 10.98 | 96.85 | 95.02 | 74.77 | 63.02 | 66.54 | 49.83",
    "m2d-x-vii; η = 0.5; 12.53 | 96.82 | 92.14 | 76.58 | 61.07 | 76.38 | 54.73",
    "m2d-x-vii; η = 1.0 (AudioSet only); 27.04 | 95.60 | 82.78 | 68.54 | 60.85 | 83.31 | 61.88",
    "m2d-x-viii; 16 × 16 (M2D [26]); 77.92 | 96.36 | 83.23 | 79.65 | 58.88 | 80.27 | 59.60",
    "m2d-x-viii; 80 × 8 *; 30.28 | 96.30 | 90.51 | 75.66 | 58.97 | 72.62 | 54.28",
    "m2d-x-viii; SSAST-Frame [12]; - | 96.7 | - | 80.8 | 60.5 | - | -",
    "m2d-x-ix; T=3.04s; 9.81 | 97.09 | 95.15 | 79.18 | 63.39 | 74.36 | 52.14",
    "m2d-x-xi; (b); 8.10 | 96.05 | 94.81 | 65.51 | 61.27 | 56.96 | 44.16",
    "m2d-x-xi; (e); 7.02 | 95.48 | 97.10 | 78.12 | 64.09 | 55.49 | 41.51",
    "m2d-x-xii; 80×4/0.7 (T=6.08s); 79.52 ± 1.44 | 40.22 ± 1.43 | 59.87 ± 0.28",
    "m2d-x-xii; M2D pre-training on ICBHI2017 only; 45.36 ± 5.55 | 38.29 ± 3.52 | 41.83",
    "m2d-x-x; HuBERT Base [9] † (baseline); 5.41 | 96.30 | 98.34 | 81.42 | 5.11 | 64.92 | 62.76 | 46.26",
    "m2d-x-x; M2D-S/0.6 T=6.08s; 5.33 | 96.80 | 97.63 | 81.74 | 5.97 | 66.13 | 54.77 | 43.75",
    "m2d-x-x; M2D/0.6, T=6.08s, patch size 16 × 16; 78.30 | 95.65 | 76.77 | 80.68 | - | 61.17 | 88.63 | 66.56",
    "m2d-x-xiii; Moummad et al. (CE) [73]; - | - | -",
    "m2d-x-xiii; Moummad et al. (SCL) [73]; 75.95 | 39.15 | 57.55",
    "m2d-x-xiii; M2D/0.7 (16×4, T=2.0s); 79.48 ± 1.47 | 44.38 ± 1.55 | 61.93 ± 0.25",
    "m2d-x-xiii; M2D-X/0.7 (η = 0.3); 81.51 ± 1.03 | 45.08 ± 1.10 | 63.29 ± 0.22",
    "msm-mae-2; PaSST base (Koutini et al., 2022); 94.0 | 64.0 | 94.7 | -",
    "msm-mae-2; MSM-MAE-512 (ours); 96.4 | 52.2 | 85.6 | 69.4",
    "msm-mae-2; MSM-MAE-200 (16 × 4) (ours); 95.2 | 50.9 | 84.3 | 60.4",
    "msm-mae-3; MSM-MAE-512 (ours); 50.0 | 18.3 | 73.4 | 86.4 | 77.8",
    "msm-mae-3; MSM-MAE-200 (16 × 4) (ours); 52.9 | 12.8 | 73.3 | 87.3 | 85.8",
    "msm-mae-4; CREPE (Kim et al., 2018b); 92.9 | 64.5 | 90.0 | 82.4 | 89.8 | 92.8",
    "msm-mae-4; MSM-MAE-512 (ours); 99.2 | 86.1 | 81.2 | 98.3 | 97.5 | 94.9",
    "msm-mae-4; MSM-MAE-200 (16 × 4) (ours); 97.7 | 86.3 | 84.0 | 98.6 | 97.5 | 95.3",
    "msm-mae-5; MSM-MAE-304; 90.5 | 51.7 | 85.3 | 65.3 | 50.6 | 17.2 | 72.0 | 87.3 | 80.6 | 98.4 | 85.6 | 81.2 | 98.1 "
    "| 97.5 | 94.9",
    "msm-mae-6; MSM-MAE-208 (8 × 16, N = 130); 96.4 | 51.2 | 84.6 | 62.0 | 48.4 | 14.1 | 71.4 | 87.0 | 82.8 | 98.5 "
    "| 86.4 | 83.2 | 98.4 | 97.5 | 92.8",
    "msm-mae-7; MSM-MAE-304 (80 × 4, Strips); 85.7 | 49.1 | 81.5 | 66.0 | 50.0 | 16.8 | 73.8 | 88.1 | 79.7 | 96.9 "
    "| 85.5 | 81.0 | 98.1 | 97.6 | 94.5",
    "m2d-x-xiv; M2D (ours); 83.35 ± 0.21",
)
"""Rows of the papers, taken from their text a second time."""


@pytest.mark.parametrize(("key", "label", "cells"), QUOTED)
def test_published_rows_are_as_printed(key: str, label: str, cells: str) -> None:
    table = load_table(key)
    (row,) = [row for group in paper_table(table, []).groups for row in group.rows if row.label == label]
    assert ["-" if cell is None else cell.text for cell in row.cells] == cells.split(" | ")


@pytest.mark.parametrize(
    ("key", "rows", "numbers", "intervals"),
    [
        ("m2d-x-iii", 14, 126, 95),
        ("m2d-x-iv", 18, 68, 25),
        ("m2d-x-v", 5, 50, 45),
        ("m2d-x-vi", 5, 20, 10),
        ("m2d-x-vii", 8, 56, 0),
        ("m2d-x-viii", 9, 59, 0),
        ("m2d-x-ix", 6, 42, 0),
        ("m2d-x-x", 12, 85, 0),
        ("m2d-x-xi", 5, 35, 0),
        ("m2d-x-xii", 6, 18, 16),
        ("m2d-x-xiii", 10, 27, 18),
        ("m2d-x-fig-4", 2, 8, 0),
        ("msm-mae-2", 10, 37, 0),
        ("msm-mae-3", 10, 50, 0),
        ("msm-mae-4", 10, 60, 0),
        ("msm-mae-5", 5, 75, 0),
        ("msm-mae-6", 4, 60, 0),
        ("msm-mae-7", 2, 30, 0),
        ("m2d-x-xiv", 3, 3, 3),
    ],
)
def test_published_tables_are_whole(key: str, rows: int, numbers: int, intervals: int) -> None:
    table = load_table(key)
    cells = [cell for row in table.rows for cell in row.cells.values()]
    assert (len(table.rows), len(cells)) == (rows, numbers)
    assert sum(cell.ci95 is not None for cell in cells) == intervals
    assert re.fullmatch(r"(M2D-X \(2024\)|MSM-MAE \(2022\)), (table (\d+|[IVX]+)|figure 4)", table.source)
    assert all(0 < cell.mean <= 100 and (cell.ci95 or 0.0) < 11 for cell in cells)


def test_each_table_of_the_package_is_listed() -> None:
    found = {file.name for file in files("m2dx_tasks.papers").iterdir() if file.name.endswith(".yaml")}
    tables = {f"{key.replace('-', '_')}.yaml" for key in table_keys()}
    assert found == tables | {"tasks.yaml", "protocols.yaml"} and tuple(TABLES) == table_keys()


@pytest.mark.parametrize("key", ["m2d-x-iii", "m2d-x-v"])
def test_published_averages_are_those_of_their_rows(key: str) -> None:
    averages = [row.cells for row in load_table(key).rows if "Avg." in row.cells]
    assert len(averages) == {"m2d-x-iii": 8, "m2d-x-v": 5}[key]
    for cells in averages:
        means = [cell.mean for name, cell in cells.items() if name != "Avg."]
        assert len(means) == 9 and abs(sum(means) / 9 - cells["Avg."].mean) <= 0.05 + 1e-9


def test_the_points_of_figure_4_are_means_of_table_iii() -> None:
    nine = {row.label: row.cells for row in load_table("m2d-x-iii").rows}
    figure = load_table("m2d-x-fig-4")
    for row in figure.rows:
        for column in figure.columns:
            titles = [cell for name, cell in nine[row.label].items() if _is_in(column, name)]
            mean = sum(cell.mean for cell in titles) / len(column.tasks)
            assert len(titles) == len(column.tasks) and abs(row.cells[column.name].mean - mean) <= 0.0051


def _is_in(column: PaperColumn, name: str) -> bool:
    """Whether a column of figure 4 has the task of a column of table III."""
    (of_three,) = [other for other in load_table("m2d-x-iii").columns if other.name == name]
    return len(of_three.tasks) == 1 and of_three.tasks.keys() <= column.tasks.keys()


def test_published_rows_of_one_training_agree() -> None:
    """η 0.2, 80 x 4 and 2.08 s are one row of four tables; 4.00 s and more stand in table X, too."""
    rows = {key: {row.label: row.cells for row in load_table(key).rows} for key in table_keys()}
    one = [
        ("m2d-x-vii", "η = 0.2"),
        ("m2d-x-viii", "80 × 4"),
        ("m2d-x-ix", "T=2.08s"),
        ("m2d-x-xi", "(a)"),
    ]
    assert all(rows[key][label] == rows["m2d-x-vii"]["η = 0.2"] for key, label in one)
    for seconds in ("4.00", "5.12", "6.08"):
        longer = rows["m2d-x-ix"][f"T={seconds}s"]
        assert longer == {
            c: cell for c, cell in rows["m2d-x-x"][f"M2D/0.6 T={seconds}s"].items() if "ASV" not in c
        }
    twice = [
        ("16×16/0.7 (T=6.08s)", "M2D/0.7 (16×16, T=6.08s)"),
        ("16×4/0.7 (T=2.00s)", "M2D/0.7 (16×4, T=2.0s)"),
    ]
    assert all(rows["m2d-x-xii"][a] == rows["m2d-x-xiii"][b] for a, b in twice)


@pytest.mark.parametrize(("key", "count"), [("m2d-x-xiii", 9), ("m2d-x-xii", 6)])
def test_published_icbhi_scores_are_means_of_specificity_and_sensitivity(key: str, count: int) -> None:
    rows = [row.cells for row in load_table(key).rows if row.cells]
    assert len(rows) == count
    for cells in rows:
        assert abs((cells["Sp"].mean + cells["Se"].mean) / 2 - cells["Score"].mean) <= 0.0051


@pytest.mark.parametrize(
    ("one", "other", "shared"), [("m2d-x-iii", "m2d-x-v", 4), ("m2d-x-iv", "m2d-x-vi", 4)]
)
def test_rows_that_are_in_two_tables_agree(one: str, other: str, shared: int) -> None:
    """Cells that one of the tables lacks (here it could not be read) are not compared."""
    first, second = ({row.label: row.cells for row in load_table(key).rows} for key in (one, other))
    assert len(first.keys() & second.keys()) == shared
    for label in first.keys() & second.keys():
        for column in first[label].keys() & second[label].keys():
            assert first[label][column] == second[label][column]


def test_published_gaps_of_the_text_follow_from_table_x() -> None:
    """M2D-X, IV-D2: how far M2D-S is from HuBERT and WavLM."""
    rows = {row.label.split(" [")[0]: row.cells for row in load_table("m2d-x-x").rows}
    ours = [cells for label, cells in rows.items() if label.startswith("M2D-S")]
    gaps = {
        ("HuBERT Base", "IC ↑"): (0.54, 0.71),
        ("HuBERT Base", "ASV (EER ↓)"): (0.86, 1.96),
        ("WavLM Base", "PR (PER ↓)"): (0.49, 0.88),
        ("WavLM Base", "IC ↑"): (0.83, 1.0),
        ("WavLM Base", "SID ↑"): (2.54, 3.82),
        ("WavLM Base", "ASV (EER ↓)"): (1.28, 2.38),
    }
    for (model, column), (least, most) in gaps.items():
        found = sorted(abs(cells[column].mean - rows[model][column].mean) for cells in ours)
        assert (round(found[0], 2), round(found[-1], 2)) == (least, most)


def test_names_of_tasks_mean_one_task_in_each_table() -> None:
    for table in map(load_table, table_keys()):
        tasks = {key: task for column in table.columns for key, task in column.tasks.items()}
        names = [name for task in tasks.values() for name in task.names]
        assert len(names) == len(set(names))


# What is comparable


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"seeds": tuple(range(10))}, []),
        ({"unit_seconds": 4.96}, []),
        ({"seeds": (0, 1)}, ["2 seeds, in the paper 6 runs"]),
        ({"unit_seconds": 4.9}, ["clips of 4.90 s, in the paper 5.0 s"]),
        ({"short_clips": "repeat"}, ["short clips are repeated, in the paper padded with zeros"]),
        ({"clips": 1990}, ["1,990 clips, in the paper 2,000"]),
        ({"clips": None}, ["an unknown number of clips, in the paper 2,000"]),
        ({"classes": 10}, ["10 classes, in the paper 50"]),
        ({"division": Division(1, (1600, 200, 200))}, ["1 division, in the paper 5 folds"]),
        ({"warnings": ("groups leak",)}, ["warning of the evaluation: groups leak"]),
        (
            {"metric": "accuracy (of the best epoch)"},
            ["of the best epoch, which the paper does not say of its scores"],
        ),
        (
            {"protocol": Protocol("mine", "linear", {"lr": 1e-3, "epochs": 200})},
            [
                "lr 0.001, in the paper 3.0e-5",
                "patience is not in the record, in the paper 20",
                "batch_size is not in the record, in the paper's code 200",
                "early_stopping is not in the record, in the paper's code score",
                "weight_decay is not in the record, in the paper's code 0.0",
            ],
        ),
        (
            {"protocol": Protocol("knn", "knn", {"k": 5})},
            ["scored by knn, not by linear evaluation as the published rows"],
        ),
    ],
)
def test_what_differs_from_the_paper_is_a_reason(changes: dict[str, Any], expected: list[str]) -> None:
    column = load_table("m2d-x-iii").columns[0]
    assert reasons(replace(ESC50, **changes), column, "esc50") == expected


def test_the_recipe_part_of_table_iii_evaluates_as_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    column = load_table("m2d-x-iii").columns[0]
    part = Path(__file__).parents[3] / "recipes" / "linear" / "nine.yaml"
    for variable in re.findall(r"\$\{(\w+)\}", part.read_text(encoding="utf-8")):
        monkeypatch.setenv(variable, str(tmp_path))
    data = f"{{sets: {{sounds: {{dataset: {{name: folder, path: {tmp_path}}}}}}}}}"
    (tmp_path / "recipe.yaml").write_text(f"extends: {part}\ndata: {data}\n", encoding="utf-8")
    section = m2dx.load_recipe(tmp_path / "recipe.yaml", host=m2dx.PluginHost.discover()).evaluation
    assert section is not None
    published = {task for column in load_table("m2d-x-iii").columns for task in column.tasks}
    assert section.tasks.keys() == published
    options = section.evaluators["linear"].model_dump()
    record = replace(ESC50, protocol=Protocol("linear", "linear", options), seeds=section.seeds)
    assert reasons(record, column, "esc50") == []


def test_each_fine_tuned_task_has_settings_of_its_own() -> None:
    columns = {column.name: column for column in load_table("m2d-x-iv").columns}
    found = [columns[name].protocol.settings_for(*columns[name].tasks) for name in ("AS2M (mAP)", "VC1")]
    assert found[0].items() >= {("batch_size", "64"), ("epochs", "70")}
    assert found[1].items() >= {("batch_size", "64"), ("epochs", "50")}
    linear = reasons(ESC50, columns["ESC-50"], "esc50")
    assert linear == ["scored by linear, not by fine-tuning as the published rows"]


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ((19_746, 2_194, 20_178), []),  # a tenth of the training part was held out
        (
            (19_746, 0, 20_178),
            ["19,746 training, 20,178 test clips, in the paper 21,940 training, 20,178 test clips"],
        ),
    ],
)
def test_parts_of_the_official_size_are_no_reason(parts: tuple[int, int, int], expected: list[str]) -> None:
    column = next(column for column in load_table("m2d-x-iv").columns if "as20k" in column.tasks)
    settings = column.protocol.settings_for("as20k")
    record = replace(
        ESC50,
        task="as20k",
        metric="mAP",
        classes=527,
        unit_seconds=10.0,
        division=Division(1, parts),
        protocol=Protocol("finetune", column.protocol.evaluators[0], settings),
    )
    assert reasons(record, column, "as20k") == expected


# Tables


def test_records_stand_beside_the_published_rows_with_their_marks() -> None:
    few = replace(ESC50, seeds=(0,), mean=0.8, ci95=None, encoder=ScoredEncoder("random_weights", "cd" * 32))
    drums = replace(ESC50, task="drums")
    table = paper_table(load_table("m2d-x-iii"), [few, ESC50, drums])
    rows = own_rows(table)
    assert list(rows) == ["random_weights, linear", "lungs, linear"]
    first, second = (rows[label].cells[0] for label in rows)
    assert (first.text, first.marks) == ("80.0", ("a",))  # type: ignore[union-attr]
    assert (second.text, second.marks) == ("90.0 ± 1.2", ())  # type: ignore[union-attr]
    assert rows["lungs, linear"].info == ("85.0M",) and rows["lungs, linear"].cells[1:] == (None,) * 9
    assert table.marks == {"a": "1 seed, in the paper 6 runs"}
    assert any("drums (accuracy): 1" in note for note in table.notes)
    assert any("crops at random" in note for note in table.notes)


def test_names_of_tasks_or_data_sets_find_the_column() -> None:
    named = [replace(ESC50, task=task) for task in ("ESC-50", "esc_50")]
    of_dataset = replace(ESC50, task="environment", dataset="esc50")
    for record in (*named, of_dataset):
        assert list(own_rows(paper_table(load_table("m2d-x-iii"), [record]))) == ["lungs, linear"]
    other = paper_table(load_table("m2d-x-iii"), [replace(ESC50, metric="mAP")])
    assert own_rows(other) == {} and any(
        "Its tasks' names in recipes: ESC-50: esc50" in n for n in other.notes
    )


def test_the_newest_record_of_a_score_is_shown_or_all() -> None:
    new = replace(ESC50, date=ESC50.date + timedelta(days=1), mean=0.7)
    another_protocol = replace(ESC50, protocol=replace(AS_PUBLISHED, name="mine"), mean=0.6)
    records = [new, ESC50, another_protocol]
    rows = own_rows(paper_table(load_table("m2d-x-iii"), records))
    assert {label: row.cells[0].mean for label, row in rows.items()} == {  # type: ignore[union-attr]
        "lungs, linear": 70.0,
        "lungs, mine": 60.0,
    }
    rows = own_rows(paper_table(load_table("m2d-x-iii"), records, every=True))
    assert list(rows) == ["lungs, linear", "lungs, linear, older", "lungs, mine"]


def test_encoders_of_one_name_are_told_apart_by_their_weights() -> None:
    retrained = replace(ESC50, encoder=replace(LUNGS, sha256="cd" * 32))
    rows = own_rows(paper_table(load_table("m2d-x-iii"), [ESC50, retrained]))
    assert list(rows) == ["lungs (abababab), linear", "lungs (cdcdcdcd), linear"]


def test_means_over_tasks_need_all_of_them() -> None:
    tasks = ("esc50", "us8k", "spcv2", "vc1", "vf", "cremad", "gtzan", "nsynth", "surge")
    records = [replace(ESC50, task=task, mean=number / 10) for number, task in enumerate(tasks, 1)]
    table = load_table("m2d-x-iii")
    (row,) = own_rows(paper_table(table, records)).values()
    average = row.cells[-1]
    assert average is not None and average.text == "50.0"
    assert len(average.marks) > 8  # those of all tasks but ESC-50
    (row,) = own_rows(paper_table(table, records[:8])).values()
    assert row.cells[-1] is None and row.cells[7] is not None


def test_superb_and_linear_evaluation_share_a_row_of_table_x() -> None:
    superb = replace(
        ESC50, task="pr", metric="per", mean=0.0533, protocol=Protocol("superb", "superb"), ci95=None
    )
    linear = [replace(ESC50, task=task, mean=mean) for task, mean in (("esc50", 0.8), ("us8k", 0.7))]
    knn = replace(ESC50, protocol=Protocol("knn", "knn"))
    table = paper_table(load_table("m2d-x-x"), [superb, *linear, knn])
    ((label, row),) = own_rows(table).items()
    texts = {column: cell.text for column, cell in zip(table.columns, row.cells, strict=True) if cell}
    assert texts == {"PR (PER ↓)": "5.33", "ENV ↑": "75.00"} and label == "lungs, linear + superb"
    assert any("of which others lack: esc50 (accuracy): 1" in note for note in table.notes)


ICBHI = replace(
    ESC50,
    task="icbhi",
    metric="score",
    seeds=tuple(range(20)),
    classes=4,
    unit_seconds=8.0,
    division=Division(1, (3728, 414, 2756)),
    protocol=Protocol(
        "icbhi",
        "icbhi",
        {
            "learning_rate": 5e-5,
            "batch_size": 64,
            "epochs": 150,
            "schedule": "constant",
            "mel_mask": 20,
            "time_mask": 40,
            "class_weights": True,
            "weight_decay": 1e-4,
            "freeze_patch_embed": True,
        },
    ),
)
"""A score of the last epoch, by the settings of table XIII."""
OPTIMISTIC = "best epoch on test, optimistic"


def test_scores_of_the_best_test_epoch_are_those_to_compare_with_table_xiii() -> None:
    best = replace(ICBHI, metric=f"score ({OPTIMISTIC})", mean=0.95)
    table = paper_table(load_table("m2d-x-xiii"), [ICBHI, best])
    rows = own_rows(table)
    assert list(rows) == ["lungs, icbhi", f"lungs, icbhi, {OPTIMISTIC}"]
    assert [row.cells[:2] for row in rows.values()] == [(None, None)] * 2
    marks = [row.cells[2].marks for row in rows.values()]  # type: ignore[union-attr]
    assert marks == [("a",), ("b",)] and table.marks.keys() == {"a", "b"}
    reported = "the code that the paper used reports"
    assert table.marks["a"].startswith(f"of the last epoch, but {reported} the best epoch on the test part: ")
    assert "compare the paper's numbers with the rows of m2dx that are marked so" in table.marks["a"]
    assert table.marks["b"].startswith("of the best epoch on the test part itself, which is optimistic; ")
    assert table.marks["b"].endswith(f"{reported} the same: compare the paper's numbers with this row")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"short_clips": "repeat"}, []),  # the evaluator repeats them in its own way
        ({"unit_seconds": 2.7}, ["clips of 2.70 s, in the paper 8.0 s"]),
        ({"mel_mask": 0}, ["mel_mask 0, in the paper's code 20"]),
        ({"time_mask": 0}, ["time_mask 0, in the paper's code 40"]),
        ({"class_weights": False}, ["class_weights False, in the paper's code true"]),
        ({"weight_decay": 0.0}, ["weight_decay 0, in the paper's code 1.0e-4"]),
        ({"freeze_patch_embed": False}, ["freeze_patch_embed False, in the paper's code true"]),
        ({"schedule": "cosine"}, ["schedule cosine, in the paper constant"]),
        ({"epochs": 50}, ["epochs 50, in the paper 150"]),
        (
            {"metric": "score (linear layer only)"},
            ["linear layer only, which the paper does not say of its scores"],
        ),
        (
            {"protocol": Protocol("knn", "knn"), "metric": "score"},
            ["scored by knn, not by fine-tuning on respiratory cycles as the published rows"],
        ),
    ],
)
def test_what_differs_from_table_xiii_is_marked(changes: dict[str, Any], expected: list[str]) -> None:
    column = load_table("m2d-x-xiii").columns[2]
    fields = {key: value for key, value in changes.items() if hasattr(ICBHI, key)}
    settings = {**ICBHI.protocol.settings, **{k: v for k, v in changes.items() if k not in fields}}
    best = replace(
        ICBHI,
        metric=f"score ({OPTIMISTIC})",
        protocol=replace(ICBHI.protocol, settings=settings),
    )
    found = reasons(replace(best, **fields), column, "icbhi")
    assert [text for text in found if text != column.protocol.remarks[OPTIMISTIC]] == expected
    assert (len(found) > len(expected)) == ("metric" not in changes)


# Formats


def all_tables() -> list[Any]:
    records = [
        ESC50,
        replace(ESC50, seeds=(0,), encoder=ScoredEncoder("a_b & 50%", "12")),
        replace(ESC50, task="pr"),
    ]
    tables = [paper_table(load_table(key), records) for key in table_keys()]
    return [pytest.param(table, id=table.title) for table in tables]


@pytest.mark.parametrize("table", all_tables())
def test_every_format_has_all_of_a_table(table: ResultTable, check_written: Any) -> None:
    check_written(table)


# The command


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The entry points of the plugin as pip would leave them, whatever is installed here; gives their folder."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))[
        "project"
    ]
    info = tmp_path / "site" / "m2dx_tasks-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: m2dx-tasks\nVersion: 0.1.0\n", encoding="utf-8"
    )
    lines = [
        line
        for group, points in project["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {value}" for name, value in points.items()))
    ]
    (info / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.syspath_prepend(info.parent)
    monkeypatch.chdir(tmp_path)
    return info.parent


def run(*arguments: str) -> Any:
    return CliRunner().invoke(cli.app, ["results", *arguments])


def test_the_command_sets_records_beside_a_table(installed: Path) -> None:
    append_records(Path("runs/results.jsonl"), [ESC50])
    result = run("runs", "--table", "m2d-x-iii", "-o", "table.tex")
    text = Path("table.tex").read_text(encoding="utf-8")
    assert result.exit_code == 0 and "\\toprule" in text and "lungs, linear" in text
    listed = run("--table", "list").stdout
    assert all(f"{key}: " in listed for key in table_keys()) and "tasks: esc50, us8k" in listed


def test_a_table_that_is_not_there_is_told_with_the_nearest_one(installed: Path) -> None:
    error = str(run("--table", "m2dx-iii").exception)
    assert re.search(r"no published table 'm2dx-iii'.*did you mean 'm2d-x-iii'", error)


def test_the_command_needs_no_torch(installed: Path) -> None:
    append_records(Path("results.jsonl"), [ESC50])
    code = (
        "import sys; from typer.testing import CliRunner; from m2dx.cli import app\n"
        "result = CliRunner().invoke(app, ['results', '.', '--table', 'm2d-x-v', '--format', 'rich'])\n"
        "assert result.exit_code == 0, result.exception\n"
        "assert not {'torch', 'm2dx.jobs.core'} & sys.modules.keys()"
    )
    path = os.pathsep.join([str(installed), os.environ.get("PYTHONPATH", "")])
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": path})


def test_published_settings_are_options_of_the_evaluators() -> None:
    """Of those that are installed."""
    everything = m2dx.PluginHost.discover()
    checked = []
    for protocol in paper_protocols().values():
        for evaluator in set(protocol.evaluators) & set(everything.names("evaluator")):
            options = everything.option_model("evaluator", evaluator).model_fields
            for settings in (protocol.settings, protocol.code_settings, *protocol.by_task.values()):
                assert settings.keys() <= options.keys(), evaluator
            checked.append(evaluator)
    assert "linear" in checked


def test_all_tasks_of_the_papers_are_in_a_table() -> None:
    tables: list[PaperTable] = list(map(load_table, table_keys()))
    used = {key for table in tables for column in table.columns for key in column.tasks}
    assert used == set(paper_tasks())
