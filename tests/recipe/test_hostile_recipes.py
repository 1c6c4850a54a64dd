"""Recipes made to take all memory, to recurse or to overflow: each is refused in a moment, with its place."""

import os
import time

import pytest

import m2dx
from m2dx.recipe.document import plain_yaml, write_yaml
from m2dx.recipe.loading import load_recipe

DATA = "data: {sets: {main: {dataset: {name: folder, path: sounds}}}}\n"


def bomb(item: str, first: str, count: int = 9) -> str:
    """Levels that each repeat the one before nine times."""
    lines = [f"x0: &x0 {first}"]
    lines += [f"x{i}: &x{i} {item.format(', '.join([f'*x{i - 1}'] * 9))}" for i in range(1, count)]
    return "\n".join(lines) + "\n"


HOSTILE = {
    "aliases of lists": (DATA + bomb("[{}]", "[1, 2]"), "must have at most 20,000 values"),
    "aliases of mappings": (
        DATA
        + "x0: &x0 {a: 1}\n"
        + "".join(
            f"x{i}: &x{i} {{{', '.join(f'k{j}: *x{i - 1}' for j in range(9))}}}\n" for i in range(1, 9)
        ),
        "must have at most 20,000 values",
    ),
    "many brackets": (DATA + "name: " + "[" * 1000 + "]" * 1000 + "\n", "must have at most 40 levels"),
    "some brackets": (
        DATA + "name: " + "[" * 60 + "]" * 60 + "\n",
        "recipe.yaml:2: must have at most 40 levels",
    ),
    "merge key": (DATA + "train: {<<: {epochs: 3}}\n", "recipe.yaml:2: `<<` is no key of YAML 1.2"),
    "infinite rate": (
        DATA + "audio: {sample_rate: .inf}\n",
        "recipe.yaml:2: audio.sample_rate: must be a finite",
    ),
    "huge rate": (DATA + "audio: {sample_rate: 1e22}\n", "recipe.yaml:2: audio.sample_rate: "),
    "huge crop": (DATA + "audio: {crop_seconds: 1e308}\n", "recipe.yaml:2: audio.crop_seconds: must be "),
    "crop of an hour": (
        DATA + "audio: {crop_seconds: 3600}\n",
        "recipe.yaml:2: audio.crop_seconds: must be less than or equal to 600, but is 3600",
    ),
    "many epochs": (DATA + "train: {epochs: 1e308}\n", "recipe.yaml:2: train.epochs: must be "),
    "seed of 65 bits": (
        DATA + "seed: 18446744073709551616\n",
        "recipe.yaml:2: seed: must be at most 9.22e+18",
    ),
    "400 digits": (DATA + f"seed: {'9' * 400}\n", "recipe.yaml:2: seed: must be "),
    "5,000 digits": (DATA + f"seed: {'9' * 5000}\n", "recipe.yaml:2: seed: must be "),
    "5,000 digits in quotes": (DATA + f"seed: '{'9' * 5000}'\n", "recipe.yaml:2: seed: must be "),
    "quoted overflow": (DATA + "train: {base_lr: '1e308'}\n", "recipe.yaml:2: train.base_lr: must be "),
    "depth": (
        DATA + "model: {depth: 100000}\n",
        "recipe.yaml:2: model.depth: must be less than or equal to 256",
    ),
    "threads": (
        DATA + "train: {threads: 1000000}\n",
        "recipe.yaml:2: train.threads: must be less than or equal to",
    ),
    "workers": (
        "data: {workers: 100000, sets: {main: {dataset: {name: folder, path: sounds}}}}\n",
        "recipe.yaml:1: data.workers: must be less than or equal to 256, but is 100000",
    ),
    "device": (
        DATA + "train: {device: 'cuda:99999999999999999999'}\n",
        "recipe.yaml:2: train.device: must match",
    ),
    "option of a component": (
        DATA + "tasks: {t: {offline_encoder: {name: labels}, online_mapper: {name: mlp, hidden_dim: "
        f"{'9' * 400}}}, loss: {{name: norm_mse}}}}}}\n",
        "recipe.yaml:2: tasks.t.online_mapper.hidden_dim: must be at most 9.22e+18",
    ),
    "NUL in a path": (
        'data: {sets: {main: {dataset: {name: folder, path: "a\\0b"}}}}\n',
        "recipe.yaml:1: data.sets.main.dataset.path: must be a path, but has a NUL character",
    ),
    "bad integer tag": (DATA + "seed: !!int ''\n", "recipe.yaml:2: seed: must be a valid integer"),
    "bad boolean tag": (
        DATA + "train: {compile: !!bool maybe}\n",
        "recipe.yaml:2: train.compile: must be a valid bool",
    ),
    "bad time tag": (DATA + "seed: !!timestamp abc\n", "recipe.yaml:2: seed: must be a valid integer"),
    "true for a number": (
        DATA + "train: {epochs: true}\n",
        "recipe.yaml:2: train.epochs: must be a number, but is True",
    ),
    "yes for a number": (DATA + "seed: yes\n", "recipe.yaml:2: seed: must be a valid integer, but is 'yes'"),
    "sexagesimal": (
        DATA + "train: {epochs: 1:30}\n",
        "recipe.yaml:2: train.epochs: must be a valid number, but is '1:30'",
    ),
    "nothing but noise": (
        DATA + "noise: {ratio: 1, source: {name: hum}}\n",
        "recipe.yaml:2: noise.ratio: must be less than 1",
    ),
    "nothing to learn": (DATA + "model: {weight: 0}\n", "recipe.yaml:2: model.weight must be above 0"),
    "target that never moves": (
        DATA + "model: {ema_decay: {start: 1, end: 1}}\n",
        "recipe.yaml:2: model.ema_decay: start must be less than 1",
    ),
    "moving average that falls": (
        DATA + "model: {ema_decay: {start: 0.999, end: 0.99}}\n",
        "recipe.yaml:2: model.ema_decay: start must be at most end (0.99), but is 0.999",
    ),
    "rate that rises": (
        DATA + "train: {min_lr: 1, batch_size: 256}\n",
        "recipe.yaml:2: train: min_lr must be at most the peak, base_lr x batch_size / 256 = 0.0003, but is 1",
    ),
    "baseline twice": (
        DATA + "evaluation: {baselines: [mean_logmel, mean_logmel]}\n",
        "recipe.yaml:2: evaluation: baselines must differ",
    ),
}


def errors(path, overrides=(), *, host):
    started = time.process_time()
    with pytest.raises(m2dx.RecipeError) as raised:
        load_recipe(path, overrides, host=host)
    assert time.process_time() - started < 5
    return str(raised.value).splitlines()


@pytest.mark.parametrize(("text", "expected"), HOSTILE.values(), ids=HOSTILE.keys())
def test_what_cannot_be_meant_is_refused_in_a_moment(text, expected, host, write):
    lines = errors(write(text), host=host)
    assert any(expected in line for line in lines), lines


@pytest.mark.parametrize("name", ["[1]", "{a: 1}", "null", "7"])
def test_a_name_that_is_no_text_is_refused_below_another(name, host, write):
    lines = errors(
        write(DATA + "model: {method: {name: m2d}}\n"), [f"model.method={{name: {name}}}"], host=host
    )
    assert "must be a mapping with the `name` of a component (method)" in lines[0]


def test_a_bomb_in_an_override(host, write):
    lists = [f"k{i}: &k{i} [{', '.join([f'*k{i - 1}'] * 9)}]" for i in range(1, 9)]
    lines = errors(write(DATA), [f"tasks={{k0: &k0 [1, 2], {', '.join(lists)}}}"], host=host)
    assert "must have at most 20,000 values" in lines[0]


def test_files_that_extend_two_each_are_read_once(host, write, monkeypatch):
    write(DATA, "level0.yaml")
    write(DATA, "other0.yaml")
    for level in range(1, 19):
        for name in ("level", "other"):
            write(f"extends: [level{level - 1}.yaml, other{level - 1}.yaml]\n", f"{name}{level}.yaml")
    started = time.process_time()
    assert load_recipe("level18.yaml", host=host).name == "level18"
    assert time.process_time() - started < 5


def test_a_long_chain_of_files_is_refused(host, write):
    write(DATA, "r0.yaml")
    for level in range(1, 50):
        write(f"extends: r{level - 1}.yaml\n", f"r{level}.yaml")
    assert "extends must go over at most 20 files" in errors("r49.yaml", host=host)[0]


def test_a_pipe_and_a_huge_file_are_no_recipes(host, write, tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    assert errors(tmp_path / "pipe.yaml", host=host)[0].endswith("Not a regular file, but a pipe or a device")
    write("#" * (2**17 + 1), "big.yaml")
    assert "more than 128 KiB" in errors("big.yaml", host=host)[0]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0777", 777),
        ("0o17", 15),
        ("0x1F", 31),
        ("3e-4", 3e-4),
        ("1:30", "1:30"),
        ("yes", "yes"),
        ("on", "on"),
        ("True", True),
        ("~", None),
        ("2026-01-01", "2026-01-01"),
        ("1_000", "1_000"),
        ("'5'", "5"),
        ("!!str 5", "5"),
        ("-.inf", float("-inf")),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text, value):
    read = plain_yaml(f"key: {text}\n")["key"]
    assert (read, type(read)) == (value, type(value)) or (isinstance(value, str) and read == value)


@pytest.mark.parametrize(
    "value", ["yes", "0777", "1e3", "null", "", "a: b", "ü\n", "2026-01-01", "1_000", 1e-300, 3, True, None]
)
def test_what_is_written_is_read_again(value):
    assert plain_yaml(write_yaml({"b": value, "a": [value]})) == {"b": value, "a": [value]}
