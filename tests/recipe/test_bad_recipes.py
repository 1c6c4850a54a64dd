"""What a user reads when a recipe is wrong: the file and line, the value, and what to do."""

from types import SimpleNamespace

import pytest

import m2dx
from m2dx.contract.host import PluginHost
from m2dx.recipe.loading import load_recipe, recipe_from_mapping

DATA = "data: {sets: {main: {dataset: {name: folder, path: sounds}}}}\n"
TASK = """\
tasks:
  tags:
    offline_encoder: {name: labels}
    online_mapper: {name: linear}
    loss: {name: norm_mse}
"""

BAD = {
    "unknown key": (
        DATA + "train:\n  batchsize: 64\n",
        "recipe.yaml:3: train.batchsize: unknown key, with value 64; did you mean 'batch_size'?",
    ),
    "unknown key, nothing near": (
        DATA + "train:\n  epochs: 30\nmodel: {predictor: {zzz: 1}}\n",
        "recipe.yaml:4: model.predictor.zzz: unknown key, with value 1; known: depth, embed_dim, num_heads",
    ),
    "unknown section": (
        DATA + "\nmodle: {size: tiny}\n",
        "recipe.yaml:3: modle: unknown key, with value {'size': 'tiny'}; did you mean 'model'?",
    ),
    "missing section": (
        "seed: 1\n",
        "recipe.yaml:1: data: must be given (pre-training data)",
    ),
    "missing field": (
        DATA + "noise:\n  source: {name: hum}\n",
        "recipe.yaml:2: noise.ratio: must be given (noise ratio eta",
    ),
    "missing component option": (
        "data:\n  sets:\n    main:\n      dataset: {name: folder}\n",
        "recipe.yaml:4: data.sets.main.dataset.path: must be given",
    ),
    "no data set": (
        "data:\n  sets: {}\n",
        "recipe.yaml:2: data.sets: must have at least 1 item, but is {}",
    ),
    "text for a number": (
        DATA + "train:\n  epochs: many\n",
        "recipe.yaml:3: train.epochs: must be a valid number, but is 'many'",
    ),
    "fraction for an integer": (
        DATA + "seed: 1.5\n",
        "recipe.yaml:2: seed: must be a valid integer, got a number with a fractional part, but is 1.5",
    ),
    "out of range": (
        DATA + "model:\n  size: tiny\n  mask_ratio: 1.5\n",
        "recipe.yaml:4: model.mask_ratio: must be less than 1, but is 1.5",
    ),
    "not a number": (
        DATA + "train: {epochs: .inf}\n",
        "recipe.yaml:2: train.epochs: must be a finite number, but is inf",
    ),
    "number for text": (
        "data:\n  sets:\n    main:\n      dataset: {name: folder, path: a}\n      split: 1\n",
        "recipe.yaml:5: data.sets.main.split: must be text, but is 1; write it in quotes",
    ),
    "unknown choice": (
        DATA + "model:\n  method: m2dd\n",
        "recipe.yaml:3: model.method: there is no method 'm2dd'; did you mean 'm2d'?",
    ),
    "unknown choice of a component": (
        DATA + TASK.replace("{name: norm_mse}", "{name: huber, reduction: men}"),
        "recipe.yaml:6: tasks.tags.loss.reduction: must be 'mean' or 'sum', but is 'men'; did you mean 'mean'?",
    ),
    "item of a list": (
        DATA + "model:\n  patch_size:\n    - 16\n    - x\n",
        "recipe.yaml:5: model.patch_size.1: must be a valid integer, but is 'x'",
    ),
    "list too long": (
        DATA + "model: {patch_size: [16, 16, 16]}\n",
        "recipe.yaml:2: model.patch_size: must have at most 2 items, but is [16, 16, 16]",
    ),
    "scalar for a section": (
        DATA + "model: tiny\n",
        "recipe.yaml:2: model: must be a mapping of keys to values, but is 'tiny'",
    ),
    "misspelt component": (
        DATA + TASK.replace("norm_mse", "norm_mes"),
        "recipe.yaml:6: tasks.tags.loss.name: there is no loss 'norm_mes'; did you mean 'norm_mse'?",
    ),
    "misspelt option": (
        DATA + TASK.replace("{name: norm_mse}", "\n      name: huber\n      detla: 2"),
        "recipe.yaml:8: tasks.tags.loss.detla: unknown key, with value 2; did you mean 'delta'?",
    ),
    "task without a mapper": (
        DATA + TASK.replace("online_mapper", "weight: 1.0 #"),
        "recipe.yaml:3: tasks.tags: online_mapper must be given, or a regulariser in the place of online_mapper and "
        "loss",
    ),
    "frames of no signal": (
        DATA + "tasks: {tags: {regulariser: spread, target_frames: tokens}}\n",
        "recipe.yaml:2: tasks.tags: target_frames needs an offline_encoder, whose frames it brings to the patch grid; "
        "leave it out",
    ),
    "wrong option": (
        DATA + TASK.replace("{name: linear}", "{name: mlp, hidden_dim: wide}"),
        "recipe.yaml:5: tasks.tags.online_mapper.hidden_dim: must be a valid integer, but is 'wide'",
    ),
    "option of two types": (
        "data: {sets: {main: {dataset: {name: csv, path: a, fold: two}}}}\n",
        "recipe.yaml:1: data.sets.main.dataset.fold: must be a valid integer or must be a valid boolean, but is 'two'",
    ),
    "component as text": (
        DATA + TASK.replace("{name: labels}", "lables"),
        "recipe.yaml:4: tasks.tags.offline_encoder: there is no offline encoder 'lables'; did you mean 'labels'?",
    ),
    "component as text without what it needs": (
        "data: {sets: {main: {dataset: folder}}}\n",
        "recipe.yaml:1: data.sets.main.dataset.path: must be given",
    ),
    "component as a list": (
        DATA + TASK.replace("{name: labels}", "[labels]"),
        "recipe.yaml:4: tasks.tags.offline_encoder: must be a mapping with the `name` of a component "
        "(offline encoder), but is ['labels']; did you mean 'labels'?",
    ),
    "component without name": (
        DATA + TASK.replace("{name: linear}", "{hidden_dim: 3}"),
        "recipe.yaml:5: tasks.tags.online_mapper: must be a mapping with the `name` of a component "
        "(online mapper), but is {'hidden_dim': 3}; known: linear, mlp",
    ),
    "bad name of a task": (
        DATA + TASK.replace("tags:", "my tags:"),
        "recipe.yaml:3: tasks.my tags: must match ^[A-Za-z][A-Za-z0-9_-]*$, but is 'my tags'",
    ),
    "bad name of an evaluator": (
        DATA + "evaluation: {evaluators: {half0.5: {name: knn}}}",
        "recipe.yaml:2: evaluation.evaluators.half0.5: must match ^[A-Za-z][A-Za-z0-9_-]*$, but is 'half0.5'",
    ),
    "empty task": (
        DATA + "tasks:\n  tags:\n",
        "recipe.yaml:3: tasks.tags: must be a mapping of keys to values, but is null "
        "(null removes what an extended recipe has, and none has this); leave it out",
    ),
    "fields that do not fit": (
        DATA + "train:\n  epochs: 10\n  warmup_epochs: 10\n",
        "recipe.yaml:4: train: warmup_epochs must be less than epochs (10), but is 10",
    ),
    "sections that do not fit": (
        DATA + "audio:\n  sample_rate: 16000\n  n_mels: 81\n",
        "recipe.yaml:4: audio.n_mels must be a multiple of the patch's 16 mels (model.patch_size), but is 81",
    ),
    "crop of no whole patches": (
        DATA + "audio:\n  crop_seconds: 1.0\n",
        "recipe.yaml:3: audio.crop_seconds must be a multiple of the patch's 16 frames (model.patch_size), "
        "but is 1 s, 100 frames; nearest: 0.96 s or 1.12 s",
    ),
    "crop of less than a patch": (
        DATA + "audio:\n  crop_seconds: 0.001\n",
        "recipe.yaml:3: audio.crop_seconds must be a multiple of the patch's 16 frames (model.patch_size), "
        "but is 0.001 s, 0 frames; nearest: 0.16 s",
    ),
    "fields that the method does not have": (
        DATA + "model: {method: {name: msm_mae, loss: mse}}\n",
        "recipe.yaml:2: model.method.loss: unknown key, with value 'mse'; known: name",
    ),
    "derived value that does not fit": (
        DATA + "audio:\n  sample_rate: 20\n",
        "recipe.yaml:2: audio.n_fft: must be greater than 0, but is 0",
    ),
    "two of one": (
        DATA + "noise:\n  ratio: 0.1\n  source: {name: hum}\n  dataset: {name: csv, path: a}\n",
        "recipe.yaml:2: noise: exactly one of source and dataset must be given",
    ),
    "duplicate key": (
        DATA + "train:\n  epochs: 30\n  batch_size: 8\n  epochs: 40\n",
        "recipe.yaml:5: a key must be given once, but 'epochs' is there twice (first in line 3); remove one",
    ),
    "key that is no text": (
        DATA + "train:\n  true: 3\n",
        "recipe.yaml:3: a key must be text, but 'true' is read as True; write it in quotes",
    ),
    "variable that is not set": (
        "data:\n  sets:\n    main:\n      dataset:\n        name: folder\n        path: ${M2DX_NOT_SET}/a\n",
        "recipe.yaml:6: data.sets.main.dataset.path: the environment variable M2DX_NOT_SET must be set, but is not; "
        "set it (export M2DX_NOT_SET=/a/folder), or write the path itself (in '${M2DX_NOT_SET}/a')",
    ),
    "path that is no text": (
        "data: {sets: {main: {dataset: {name: folder, path: 3}}}}\n",
        "recipe.yaml:1: data.sets.main.dataset.path: must be a path, but is 3",
    ),
    "tab": (
        DATA + "train:\n\tepochs: 3\n",
        "recipe.yaml:3: must be YAML, but is not: while scanning for the next token, "
        "found character '\\t' that cannot start any token; indent with spaces, not with tabs",
    ),
    "open bracket": (
        DATA + "model: {size: tiny\n",
        "recipe.yaml:3: must be YAML, but is not: while parsing a flow mapping, expected ',' or '}'",
    ),
    "variable between braces": (
        "data:\n  sets:\n    main: {dataset: {name: folder, path: ${CORPUS}/a}}\n",
        "recipe.yaml:3: must be YAML, but is not: while parsing a flow mapping, expected ',' or '}', but got '{'; "
        'between { } and [ ], write a path with a variable in quotes: "${NAME}/folder"',
    ),
    "Python object": (
        DATA + "name: !!python/name:os.system\n",
        "recipe.yaml:2: must be plain YAML, but has the tag '!!python/name:os.system'; remove it",
    ),
    "date for a number": (
        DATA + "seed: 2026-13-45\n",
        "recipe.yaml:2: seed: must be a valid integer, but is '2026-13-45'",
    ),
    "two documents": (
        DATA + "---\n" + DATA,
        "recipe.yaml:2: must be YAML, but is not: expected a single document in the stream",
    ),
    "circular alias": (
        DATA + "tasks: &t\n  a: *t\n",
        "recipe.yaml:3: an alias must not stand inside of what it repeats",
    ),
    "empty file": (
        "# nothing yet\n",
        "recipe.yaml:1: must be a recipe, but is empty; a recipe has at least `data` or `extends`",
    ),
    "list at the top": (
        "- data\n",
        "recipe.yaml:1: must be a mapping of sections (`data:`, `model:`, ...), but is ['data']",
    ),
    "extends nothing": (
        "\nextends: basic.yaml\n",
        "recipe.yaml:2: extends: basic.yaml cannot be read: No such file or directory",
    ),
    "extends several": (
        "extends: {a: b.yaml}\n",
        "recipe.yaml:1: extends must be the path of a recipe file, or a list of such paths, but is {'a': 'b.yaml'}",
    ),
    "a ratio of gradients without auto": (
        DATA + TASK + "    gradient_ratio: 0.5\n",
        "recipe.yaml:7: tasks.tags: gradient_ratio needs weight: auto, but weight is 1",
    ),
    "a weight relative to nothing": (
        DATA + TASK + "    weight: auto\nmodel: {weight: 0}\n",
        "recipe.yaml:7: tasks.tags.weight must be a number where model.weight is 0, but is auto",
    ),
    **{
        f"gradients that are not measured, {setting}": (
            DATA + TASK + f"    weight: auto\ntrain: {{{setting}}}\n",
            "recipe.yaml:7: tasks.tags.weight must be a number with train.compile, train.sharding fsdp or",
        )
        for setting in ("compile: true", "sharding: fsdp", "precision: fp16")
    },
    "extends itself": (
        "extends: ./recipe.yaml\n",
        "recipe.yaml:1: extends must not come back to a file: recipe.yaml -> recipe.yaml",
    ),
    "extends with a variable that is not set": (
        "extends: ${M2DX_NOT_SET}/a.yaml\n",
        "recipe.yaml:1: extends: the environment variable M2DX_NOT_SET must be set, but is not",
    ),
}


def errors(path, overrides=(), *, host):
    with pytest.raises(m2dx.RecipeError) as raised:
        load_recipe(path, overrides, host=host)
    return str(raised.value).splitlines()


@pytest.mark.parametrize(("text", "expected"), BAD.values(), ids=BAD.keys())
def test_each_kind_of_bad_recipe_is_explained(text, expected, host, write):
    lines = errors(write(text), host=host)
    assert [line for line in lines if line.startswith(expected)], lines


def test_all_errors_of_a_recipe_come_at_once_in_the_order_of_its_lines(host, write):
    text = (
        DATA + TASK.replace("norm_mse", "l2") + "    weight: -1\ntrain:\n  epochs: x\n  epochs: 3\nseeds: 1\n"
    )
    lines = errors(write(text), ["train.epoch=3"], host=host)
    assert [line.partition(": ")[0] for line in lines] == [
        "recipe.yaml:6",
        "recipe.yaml:7",
        "recipe.yaml:10",
        "recipe.yaml:11",
        "override 1",
    ]


def test_a_file_that_is_not_there(host, write, tmp_path):
    write("", "other.yaml")
    assert errors("recipe.yaml", host=host) == ["recipe.yaml: cannot be read: No such file or directory"]
    assert errors(tmp_path, host=host) == [f"{tmp_path}: cannot be read: Is a directory"]


def test_a_file_that_is_not_text(host, write):
    path = write("")
    path.write_bytes(b"name: caf\xe9\n")
    assert errors(path, host=host) == ["recipe.yaml: must be UTF-8 text, but byte 9 is not"]


def test_a_component_of_a_broken_plugin_names_the_plugin_and_the_cause(host, write, make_plugin):
    def losses():
        raise OSError("weights.bin is missing")

    broken = SimpleNamespace(losses=m2dx.hookimpl(losses))
    host = PluginHost({"m2dx": make_plugin({"losses": []}), "acme": broken})
    line = errors(write(DATA + TASK), host=host)[-1]
    assert line == (
        "recipe.yaml:6: tasks.tags.loss.name: there is no loss 'norm_mse'; there are none; these plugins failed to "
        "load and may provide it: acme (the hook 'losses' failed: OSError: weights.bin is missing)"
    )


def test_errors_of_a_mapping_name_its_source(host):
    with pytest.raises(m2dx.RecipeError) as raised:
        recipe_from_mapping({"data": {"sets": {}}, "seed": "x"}, host=host, source="step-1.pt")
    assert str(raised.value).splitlines()[0] == "step-1.pt: seed: must be a valid integer, but is 'x'"
