from pathlib import Path

import pytest
import yaml

import m2dx
from m2dx.recipe.loading import load_recipe, recipe_from_mapping, recipe_to_mapping, recipe_to_yaml
from m2dx.recipe.schema import Recipe

BASE = """\
name: base
data:
  sets:
    main: {dataset: {name: csv, path: lists/main.csv, root: ../sounds, extra: [a.csv, /b.csv]}}
noise: {ratio: 0.2, source: {name: hum}}
tasks:
  tags:
    offline_encoder: {name: labels, dataset: main}
    online_mapper: {name: mlp, hidden_dim: "64"}
    loss: {name: huber, delta: 1e-1}
    weight: 0.5
train: {base_lr: 3e-4, betas: [0.9, 0.99]}
evaluation:
  evaluators: {nearest: {name: knn, k: 3}}
"""


def test_values_are_coerced_and_defaults_filled_in(host, write):
    recipe = load_recipe(write(BASE), host=host)
    assert isinstance(recipe, Recipe)
    assert recipe.train.base_lr == 3e-4  # YAML 1.1 reads it as text
    assert recipe.train.betas == (0.9, 0.99)
    assert recipe.tasks["tags"].online_mapper.options() == {"hidden_dim": 64, "dropout": 0.0}
    assert recipe.tasks["tags"].loss.options() == {"delta": 0.1, "reduction": "mean"}
    assert recipe.evaluation.evaluators["nearest"].options() == {"k": 3}
    assert recipe.model.predictor.depth == 8


def test_a_recipe_is_frozen(host, write):
    recipe = load_recipe(write(BASE), host=host)
    with pytest.raises(ValueError, match="frozen"):
        recipe.tasks["tags"].loss.delta = 3


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("icbhi.yaml", "icbhi"),
        ("m2d x (16k).yaml", "m2d_x_16k"),
        ("2024.yaml", "recipe_2024"),
        ("ü.yaml", "recipe"),
    ],
)
def test_the_name_is_the_files_unless_it_is_given(file, name, host, write):
    assert load_recipe(write(BASE.replace("name: base\n", ""), file), host=host).name == name
    assert load_recipe(write(BASE, file), host=host).name == "base"


def test_paths_are_relative_to_their_file_and_expanded(host, write, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("CORPUS", "/corpora/libri")
    write(BASE, "settings/base.yaml")
    write(
        "extends: ../settings/base.yaml\nnoise: {dataset: {name: folder, path: n}, source: null}\n",
        "variants/v.yaml",
    )
    recipe = load_recipe("variants/v.yaml", ["data.sets.o.dataset={name: folder, path: here}"], host=host)
    main = recipe.data.sets["main"].dataset.options()
    assert main["path"] == tmp_path / "settings/lists/main.csv"
    assert main["root"] == tmp_path / "sounds"
    assert main["extra"] == [tmp_path / "settings/a.csv", Path("/b.csv")]
    assert recipe.noise.dataset.options()["path"] == tmp_path / "variants/n"
    assert recipe.data.sets["o"].dataset.options()["path"] == tmp_path / "here"
    text = BASE.replace("lists/main.csv", '"${CORPUS}/x.csv"').replace("../sounds", "~/sounds")
    main = load_recipe(write(text), host=host).data.sets["main"].dataset.options()
    assert (main["path"], main["root"]) == (Path("/corpora/libri/x.csv"), Path("/home/someone/sounds"))


def test_relative_values_of_variables_are_relative_to_the_current_folder(host, write, tmp_path, monkeypatch):
    """Where they begin a path: within one, they are a part of it."""
    monkeypatch.setenv("CORPUS", "sample/libri")
    text = BASE.replace("lists/main.csv", '"${CORPUS}/x.csv"').replace("../sounds", '"my/${CORPUS}"')
    main = load_recipe(write(text, "settings/base.yaml"), host=host).data.sets["main"].dataset.options()
    assert main["path"] == tmp_path / "sample/libri/x.csv"
    assert main["root"] == tmp_path / "settings/my/sample/libri"
    monkeypatch.setenv("CORPUS", "settings")
    override = ['data.sets.o.dataset={name: folder, path: "${CORPUS}"}']
    recipe = load_recipe(write("extends: ${CORPUS}/base.yaml\n", "v/v.yaml"), override, host=host)
    assert recipe.data.sets["o"].dataset.options()["path"] == tmp_path / "settings"


def test_output_is_relative_to_the_current_folder(host, write, tmp_path):
    path = write(BASE, "settings/base.yaml")
    assert load_recipe(path, host=host).output == tmp_path / "runs"
    write(BASE + "output: out\n", "settings/base.yaml")
    assert load_recipe(path, host=host).output == tmp_path / "out"


def test_variables_outside_of_paths_are_left_alone(host, write):
    text = BASE.replace("path: lists", "note: '${HOME}', path: lists")
    assert load_recipe(write(text), host=host).data.sets["main"].dataset.options()["note"] == "${HOME}"


def test_extends_merges_and_replaces(host, write):
    write(BASE, "base.yaml")
    write("extends: base.yaml\ntrain: {epochs: 30}\nmodel: {patch_size: [80, 2]}\nseed: 1\n", "middle.yaml")
    variant = """\
extends: middle.yaml
seed: 2
noise: null
tasks:
  tags:
    online_mapper: {name: linear}
    loss: {name: huber, reduction: sum}
  more: {offline_encoder: {name: labels}, online_mapper: {name: mlp}, loss: {name: norm_mse}}
train: {betas: [0.8, 0.9]}
"""
    recipe = load_recipe(write(variant, "variant.yaml"), host=host)
    assert recipe.name == "variant"  # not the base's: both would write into one folder
    assert (recipe.seed, recipe.noise) == (2, None)
    assert (recipe.train.epochs, recipe.train.base_lr, recipe.train.betas) == (30, 3e-4, (0.8, 0.9))
    assert recipe.model.patch_size == (80, 2)
    assert list(recipe.tasks) == ["tags", "more"]
    tags = recipe.tasks["tags"]
    assert tags.online_mapper.options() == {}  # the options of mlp went with it
    assert tags.loss.options() == {"delta": 0.1, "reduction": "sum"}
    assert tags.weight == 0.5


def test_extends_takes_a_list_whose_later_files_change_earlier_ones(host, write):
    write(BASE, "base.yaml")
    write("extends: base.yaml\nseed: 1\ntrain: {epochs: 30}\nmodel: {mask_ratio: 0.6}\n", "first.yaml")
    write("extends: base.yaml\nseed: 2\ntrain: {warmup_epochs: 7}\n", "second.yaml")
    write("train: {batch_size: 64}\n", "part.yaml")  # no recipe of its own
    recipe = load_recipe(write("extends: [first.yaml, second.yaml, part.yaml]\n", "both.yaml"), host=host)
    assert recipe.seed == 2
    # base.yaml, which both extend, counts once: it does not undo what first.yaml changed.
    assert (recipe.train.epochs, recipe.train.warmup_epochs, recipe.train.batch_size) == (30, 7, 64)
    assert recipe.model.mask_ratio == 0.6


def test_null_removes_a_task(host, write):
    write(BASE, "base.yaml")
    recipe = load_recipe(
        write("extends: base.yaml\ntasks: {tags: null}\ntrain: {clip_norm: null}\n"), host=host
    )
    assert recipe.tasks == {}
    assert recipe.train.clip_norm is None


def test_null_for_a_task_that_is_not_there_is_told(host, write):
    write(BASE, "base.yaml")
    write("seed: 1\ntasks: {tag: null}\n", "part.yaml")
    with pytest.raises(m2dx.RecipeError) as raised:
        load_recipe(write("extends: [base.yaml, part.yaml]\n"), host=host)
    assert str(raised.value) == (
        "part.yaml:2: tasks.tag: must be a mapping of keys to values, but is null (null removes what an extended "
        "recipe has, and none has this); did you mean 'tags'?"
    )


def test_errors_point_to_the_file_that_a_value_came_from(host, write):
    write(BASE.replace("weight: 0.5", "weight: -1"), "base.yaml")
    with pytest.raises(m2dx.RecipeError) as raised:
        load_recipe(write("extends: base.yaml\n\nseed: x\n"), host=host)
    assert [line.partition(": ")[0] for line in str(raised.value).splitlines()] == [
        "recipe.yaml:3",
        "base.yaml:11",
    ]


def test_a_longer_cycle_is_refused(host, write):
    write("extends: b.yaml\n", "a.yaml")
    write("seed: 1\nextends: c.yaml\n", "b.yaml")
    write("extends: a.yaml\n", "c.yaml")
    with pytest.raises(
        m2dx.RecipeError, match=r"^c.yaml:1: extends .* a.yaml -> b.yaml -> c.yaml -> a.yaml$"
    ):
        load_recipe("a.yaml", host=host)


def test_anchors(host, write):
    text = BASE + (
        "  tasks:\n    a: &a\n      dataset: {name: folder, path: a}\n      unit_seconds: 2\n    b: *a\n"
    )
    tasks = load_recipe(write(text), host=host).evaluation.tasks
    assert tasks["a"] == tasks["b"] and tasks["b"].unit_seconds == 2


def test_a_recipe_survives_plain_data_and_yaml(host, write, tmp_path):
    write(BASE + "seed: 3\n")
    recipe = load_recipe("recipe.yaml", host=host)
    mapping = recipe_to_mapping(recipe)
    assert mapping["data"]["sets"]["main"]["dataset"]["path"] == str(tmp_path / "lists/main.csv")
    again = recipe_from_mapping(mapping, host=host, source="a checkpoint")
    assert recipe_to_mapping(again) == mapping
    assert again.model_dump() == recipe.model_dump()
    from_file = load_recipe(write(recipe_to_yaml(recipe), "elsewhere/copy.yaml"), host=host)
    assert from_file.model_dump() == recipe.model_dump()


def test_plain_data_has_plain_types_only(host, write):
    mapping = recipe_to_mapping(load_recipe(write(BASE), host=host))
    assert yaml.safe_load(yaml.safe_dump(mapping)) == mapping
