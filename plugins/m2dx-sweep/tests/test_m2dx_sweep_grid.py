"""The syntax of a sweep's arguments, and the names of its runs."""

import re

import pytest
from m2dx_sweep.grid import LONGEST, parse_grid, run_name, short_keys, split_values, sweep_name

from m2dx.contract.errors import RecipeError

SWEPT = "model.depth=1,2"


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0.1,0.2", ["0.1", "0.2"]),
        (" 0.1 , 1e-4 ", ["0.1", "1e-4"]),
        ("[16, 16],[80, 4]", ["[16, 16]", "[80, 4]"]),
        ("{start: 0.9, end: [1, 2]},null", ["{start: 0.9, end: [1, 2]}", "null"]),
        ("\"a,b\",'c,]d'", ['"a,b"', "'c,]d'"]),
        ("'it''s, so',x", ["'it''s, so'", "x"]),
        (r'"a\",b",x', [r'"a\",b"', "x"]),
        ("it's,that's", ["it's", "that's"]),  # a quote inside a word is a letter
        ("{path: '},'},x", ["{path: '},'}", "x"]),
        ("${ROOT}/a.csv,${ROOT}/b.csv", ["${ROOT}/a.csv", "${ROOT}/b.csv"]),
        ("a,,b,", ["a", "", "b", ""]),
        ("", [""]),
    ],
)
def test_commas_divide_outside_of_brackets_and_quotes(text: str, values: list[str]) -> None:
    assert split_values(text) == values


def test_a_grid_is_every_combination_and_the_last_key_changes_fastest() -> None:
    grid = parse_grid(["noise.ratio=0.1,0.2", "train.epochs=3", "name=first", "seed=0,1"])
    points = [tuple(choice.values()) for choice in grid.choices()]
    assert points == [(ratio, "3", "first", seed) for ratio in ("0.1", "0.2") for seed in ("0", "1")]
    assert grid.swept == [("noise.ratio",), ("seed",)]


def test_keys_joined_by_plus_change_together() -> None:
    grid = parse_grid(
        ["audio.crop_seconds+model.patch_size+noise=[2.08, [16, 16], keep],[6.08, [80, 4], null]"]
    )
    assert list(grid.choices()) == [
        {"audio.crop_seconds": "2.08", "model.patch_size": "[16, 16]", "noise": "keep"},
        {"audio.crop_seconds": "6.08", "model.patch_size": "[80, 4]", "noise": "null"},
    ]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "must have a key with several values, .* `m2dx train`"),
        (["train.epochs=3"], "must have a key with several values"),
        (["model.depth"], "argument 1: model.depth: must be key.path=value,value,..., but has no `=`"),
        (["model..depth=1,2"], "must have keys between dots, but the path is 'model..depth'"),
        (["model. depth=1,2"], "must have keys between dots"),
        (["a+=1,2"], "must have keys between dots, but the path is ''"),
        (["model.depth=1,,2"], "must have a value before and after each comma; write null for none, or keep"),
        (["model.depth="], "must have a value before and after each comma"),
        (["model.patch_size=[16,16],[80,4"], "argument 1: .*: must be YAML, but is not: "),
        (["model.patch_size=[16,16]],[80,4]"], "must be YAML, but is not: "),
        (["a=[1},2"], "must be YAML, but is not: "),
        (["a='1,2"], "must be YAML, but is not: "),
        (["a=&x 1,*y"], r"argument 1: a=&x 1,\*y: must be YAML, but is not: found undefined alias"),
        (["a={b: 1, b: 2},3"], "a key must be given once, but 'b' is there twice"),
        (["a+b=[1, 2],[3]"], r"must be a list of 2, a value for each key, such as \[1, 2\], but is '\[3\]'"),
        (["a+b=1,2"], "must be a list of 2, .* but is '1'"),
        (["a+b=[1,],[2, 3]"], "must have a value before and after each comma"),
        (
            [SWEPT, "model.depth=3"],
            "argument 2: model.depth=3: a key must be given once; give all its values at once",
        ),
        ([SWEPT, "a+a=[1, 2],[3, 4]"], "a key must be given once; give all"),
        (["name=a,b"], "name must have one value alone"),
        (["output=a,b"], "output must have one value alone"),
        (["name+a=[x, 1],[y, 2]"], "name must have one value alone"),
        (["seed+a=[0, 1],[1, 2]"], "seed must stand alone"),
    ],
)
def test_what_is_wrong_with_an_argument(arguments: list[str], told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        parse_grid(arguments)


def test_all_wrong_arguments_are_told_at_once() -> None:
    with pytest.raises(RecipeError) as error:
        parse_grid(["a", "b=1,,2", "c=[", SWEPT])
    assert [line.split(":")[0] for line in str(error.value).splitlines()] == [
        f"argument {n}" for n in (1, 2, 3)
    ]


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"model.mask_ratio": "0.6", "seed": "1"}, "mask_ratio-0p6-seed-1"),
        ({"model.mask_ratio": "0.60"}, "mask_ratio-0p6"),  # the same number
        ({"model.patch_size": "[16, 4]"}, "patch_size-16x4"),
        ({"model.size": "base"}, "size-base"),
        ({"noise": "null"}, "noise-null"),
        ({"noise": "keep"}, "noise-keep"),
        ({"train.compile": "true"}, "compile-true"),
        ({"train.base_lr": "1e-4"}, "base_lr-0p0001"),
        ({"train.base_lr": "0.0001"}, "base_lr-0p0001"),
        ({"train.base_lr": "1e-7"}, "base_lr-1e-07"),
        ({"train.epochs": "3.0"}, "epochs-3"),
        ({"model.weight": "0", "tasks.hubert.weight": "0.5"}, "model_weight-0-hubert_weight-0p5"),
    ],
)
def test_runs_are_named_by_their_values(values: dict[str, str], name: str) -> None:
    assert run_name(values) == name


def test_long_and_nested_values_get_a_digest_that_stays() -> None:
    loss = run_name({"tasks.labels.loss": "{name: bce, smooth: 0.1}"})
    assert re.fullmatch(r"loss-bce-[0-9a-f]{8}", loss)
    assert loss == run_name({"tasks.labels.loss": "{smooth: 0.1, name: bce}"})
    assert loss != run_name({"tasks.labels.loss": "{name: bce, smooth: 0.2}"})
    path = run_name({"init_from": "/data/some where/m2d.pth"})
    assert re.fullmatch(r"init_from-m2d-[0-9a-f]{8}", path)
    many = {f"key{number}": "a" * 40 for number in range(9)}
    assert len(run_name(many)) == LONGEST
    assert run_name(many) != run_name({**many, "key8": "b" * 40})


@pytest.mark.parametrize(
    "value", ["'../../etc'", "/", "'a b'", "äö", "[a, /]", "{a: ..}", "'*'", "-1", "1e+20", ".inf"]
)
def test_names_are_fit_for_recipes_and_folders(value: str) -> None:
    assert re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", run_name({"key": value}))


def test_sweeps_are_named_for_recipe_and_keys() -> None:
    assert sweep_name("lungs", ["model.mask_ratio", "noise"]) == "lungs-mask_ratio-noise"
    assert sweep_name("lungs", ["model.mask_ratio", "seed"]) == "lungs-mask_ratio"
    assert sweep_name("lungs", ["seed"]) == "lungs-seed"
    assert short_keys(["a.weight", "b.weight", "c"]) == {
        "a.weight": "a.weight",
        "b.weight": "b.weight",
        "c": "c",
    }
