import pytest

import m2dx
from m2dx.recipe.loading import load_recipe

RECIPE = """\
data: {sets: {main: {dataset: {name: folder, path: sounds}}}}
tasks:
  spectrum:
    offline_encoder: {name: labels}
    online_mapper: {name: linear}
    loss: {name: huber, delta: 2}
train:
  epochs: 30
"""


def load(write, host, *overrides):
    return load_recipe(write(RECIPE), overrides, host=host)


def test_values_are_yaml(host, write):
    recipe = load(
        write,
        host,
        "train.base_lr=3e-4",
        "train.clip_norm=null",
        "evaluation.seeds=[0, 1]",
        "model={size: tiny, patch_size: [80, 2]}",
        "train.compile=true",
        "data.sets.main.split=a=b",
    )
    assert (recipe.train.base_lr, recipe.train.clip_norm, recipe.train.compile) == (3e-4, None, True)
    assert recipe.evaluation.seeds == (0, 1)
    assert (recipe.model.size, recipe.model.patch_size) == ("tiny", (80, 2))
    assert recipe.data.sets["main"].split == "a=b"


def test_sections_of_the_recipe_are_kept_beside_what_is_set(host, write):
    recipe = load(write, host, "train.batch_size=64", "tasks.spectrum.weight=0.5", "train.batch_size=32")
    assert (recipe.train.epochs, recipe.train.batch_size) == (30, 32)
    assert recipe.tasks["spectrum"].weight == 0.5
    assert recipe.tasks["spectrum"].loss.options() == {"delta": 2.0, "reduction": "mean"}


def test_a_task_is_added_and_one_is_removed(host, write):
    new = "tasks.new={offline_encoder: {name: labels}, online_mapper: {name: linear}, loss: {name: norm_mse}}"
    recipe = load(write, host, new, "tasks.new.weight=2", "tasks.spectrum=null")
    assert list(recipe.tasks) == ["new"]
    assert recipe.tasks["new"].weight == 2


def test_another_component_brings_its_own_options(host, write):
    assert load(write, host, "tasks.spectrum.loss.name=norm_mse").tasks["spectrum"].loss.options() == {}
    overrides = ("tasks.spectrum.online_mapper.name=mlp", "tasks.spectrum.online_mapper.hidden_dim=7")
    mapper = load(write, host, *overrides).tasks["spectrum"].online_mapper
    assert mapper.options() == {"hidden_dim": 7, "dropout": 0.0}


def test_the_runs_name_can_be_set(host, write):
    recipe = load(write, host, "name=other")
    assert recipe.name == "other"
    assert recipe.train.epochs == 30


BAD = {
    "no equals sign": ("train.epochs", "must be key.path=value, but has no `=`"),
    "no path": ("=3", "must have keys between dots, but the path is ''"),
    "empty key": ("train..epochs=3", "must have keys between dots, but the path is 'train..epochs'"),
    "no value": ("train.epochs=", "must have a value after `=`; write null for none"),
    "wrong value": (
        "train.batch_size=x",
        "train.batch_size: must be a valid integer, but is 'x'",
    ),
    "unknown field": ("train.epoch=3", "train.epoch: unknown key, with value 3; did you mean 'epochs'?"),
    "unknown section": (
        "trian.epochs=3",
        "trian: unknown key, with value {'epochs': 3}; did you mean 'train'?",
    ),
    "unknown option": (
        "tasks.spectrum.loss.detla=1",
        "tasks.spectrum.loss.detla: unknown key, with value 1; did you mean 'delta'?",
    ),
    "unknown component": (
        "tasks.spectrum.loss.name=norm_mes",
        "tasks.spectrum.loss.name: there is no loss 'norm_mes'; did you mean 'norm_mse'?",
    ),
    "misspelt task": (
        "tasks.spectrm.weight=1",
        "tasks.spectrm: offline_encoder, online_mapper, loss must be given, or a regulariser in the place of "
        "online_mapper and loss; did you mean 'spectrum'?",
    ),
    "below a value": ("train.epochs.x=3", "train.epochs: must be a valid number, but is {'x': 3}"),
    "not YAML": ("evaluation.seeds=[1", "must be YAML, but is not: while parsing a flow sequence"),
    "duplicate key": (
        "train={epochs: 1, epochs: 2}",
        "a key must be given once, but 'epochs' is there twice",
    ),
    "file in a value": ("extends=other.yaml", "extends: unknown key, with value 'other.yaml'"),
}


@pytest.mark.parametrize(("override", "expected"), BAD.values(), ids=BAD.keys())
def test_each_kind_of_bad_override_is_explained(override, expected, host, write):
    with pytest.raises(m2dx.RecipeError) as raised:
        load(write, host, "seed=1", override)
    lines = str(raised.value).splitlines()
    assert [line for line in lines if line.startswith(f"override 2: {override}: {expected}")], lines


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("tasks.spectrum.loss.delta=3", "tasks.spectrum.loss.name=norm_mse"),
        ("tasks.spectrum.loss.delta=3", "tasks.spectrum.loss={name: norm_mse}"),
        ("model.method.loss=mse", "model.method=msm_mae"),
        ("model.method.loss=mse", "model.method={name: msm_mae}"),
        (
            "tasks.spectrum.online_mapper={name: mlp, dropout: 0.1}",
            "tasks.spectrum.online_mapper={name: linear}",
        ),
    ],
)
def test_an_override_is_not_silently_undone_by_a_later_one(host, write, first, then):
    with pytest.raises(m2dx.RecipeError, match=r"^override 2: .* must come before 'override 1: "):
        load(write, host, first, then)
    assert load(write, host, then)
