"""The recipe parts for fine-tuning: the numbers of table II, and that they go together with any recipe."""

from pathlib import Path

import m2dx_audioset
import m2dx_tasks
import pytest
from m2dx_tasks.papers.published import paper_protocols, paper_tasks

from m2dx.recipe.loading import load_recipe

FOLDER = Path(__file__).parents[3] / "recipes" / "finetune"
TABLE = {
    "as2m": (2.0, 64, "lars", 0.5, False, 30, 192, 70, 15, 0.5, True, False),
    "as20k": (0.5, 64, "sgd", 0.3, True, 30, 192, 200, 5, 0.5, True, False),
    "esc50": (0.5, 128, "sgd", 0.0, True, 15, 48, 200, 5, 0.5, False, True),
    "spcv2": (0.5, 128, "sgd", 0.3, True, 30, 48, 200, 5, 0.5, False, False),
    "vc1": (5e-4, 64, "adamw", 0.0, False, 30, 48, 50, 5, 0.0, True, False),
}
"""Table II of M2D-X, by column, in the order of its rows."""
ROWS = (
    *("lr", "batch_size", "optimizer", "mixup", "random_resize_crop", "freq_mask", "time_mask", "epochs"),
    *("warmup_epochs", "patchout", "adjust_positions", "freeze_patch_embed"),
)


@pytest.fixture(scope="module")
def host(host):
    """With the data sets of the parts, installed or not."""
    installed = {record.name for record in host.records}
    for name, plugin in (("audioset", m2dx_audioset), ("tasks", m2dx_tasks)):
        if name not in installed:
            host.register(name, plugin)
    return host


@pytest.fixture
def load(tmp_path, monkeypatch, host):
    for variable in ("AUDIOSET", "ESC50", "SPCV2", "VOXCELEB1"):
        monkeypatch.setenv(variable, str(tmp_path / variable.lower()))

    def loaded(*parts):
        path = tmp_path / "recipe.yaml"
        extended = ", ".join(str(FOLDER / f"{part}.yaml") for part in parts)
        data = f"{{sets: {{sounds: {{dataset: {{name: folder, path: {tmp_path}}}}}}}}}"
        path.write_text(f"extends: [{extended}]\ndata: {data}\n", encoding="utf-8")
        return load_recipe(path, [], host=host)

    return loaded


def test_there_is_a_part_for_each_column():
    assert sorted(path.stem for path in FOLDER.glob("*.yaml")) == sorted(TABLE)


@pytest.mark.parametrize("column", TABLE)
def test_a_part_has_the_numbers_of_its_column(column, load):
    section = load(column).evaluation
    options = section.evaluators[f"finetune_{column}"].options()
    assert tuple(options[row] for row in ROWS) == TABLE[column]
    assert options["epoch_size"] == (200_000 if column == "as2m" else None)
    assert options["precision"] == "fp32" and options["weight_decay"] is None
    assert section.tasks.keys() == {column}
    assert section.tasks[column].evaluators == (f"finetune_{column}",)
    assert len(section.seeds) == 6


@pytest.mark.parametrize("column", TABLE)
def test_scores_of_a_part_compare_with_the_papers(column, load, host):
    section = load(column).evaluation
    options = section.evaluators[f"finetune_{column}"].model_dump()
    published = paper_protocols()["finetune"].settings_for(column)
    assert published.keys() >= {"lr", "batch_size", "optimizer", "epochs", "warmup_epochs", "mixup"}
    for option, value in published.items():
        assert str(options[option]).lower() == value or float(options[option]) == float(value), option
    dataset = host.component("dataset", section.tasks[column].dataset.name)
    assert dataset.task.unit_seconds == pytest.approx(paper_tasks()[column].seconds)
    assert section.tasks[column].unit_seconds is None


def test_parts_go_together(load):
    section = load("esc50", "spcv2", "as20k").evaluation
    assert {name: task.evaluators for name, task in section.tasks.items()} == {
        column: (f"finetune_{column}",) for column in ("esc50", "spcv2", "as20k")
    }


def test_the_default_options_are_those_of_voxceleb1(load, host):
    given = load("vc1").evaluation.evaluators["finetune_vc1"].options()
    assert given == host.option_model("evaluator", "finetune")(name="finetune").options()
