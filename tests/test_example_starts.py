"""examples/plugins/m2dx_transformers.py: a start from weights with the names of Hugging Face's transformers."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from test_example_plugins import MOST_LINES, PLUGINS, module_of, same
from torch import Tensor

import m2dx
from m2dx.contract.errors import CheckpointError, RecipeError
from m2dx.jobs import core
from m2dx.jobs.train import make_trainer
from m2dx.results.scoring import encoders_to_compare
from m2dx.testing import check_weight_map
from m2dx.training.distributed import Processes
from m2dx.training.prepare import prepare

ONE = Processes(0, 1, torch.device("cpu"))
LAYER = "vit.encoder.layer.{}."


def vit(width: int, depth: int, *, patch: int = 16, chans: int = 3, seed: int = 0) -> dict[str, Tensor]:
    """Random weights of a `ViTForImageClassification` for 4 x 4 patches."""
    generator = torch.Generator().manual_seed(seed)
    shapes: dict[str, tuple[int, ...]] = {
        "vit.embeddings.cls_token": (1, 1, width),
        "vit.embeddings.position_embeddings": (1, 17, width),
        "vit.embeddings.patch_embeddings.projection.weight": (width, chans, patch, patch),
        "vit.embeddings.patch_embeddings.projection.bias": (width,),
        "vit.layernorm.weight": (width,),
        "vit.layernorm.bias": (width,),
        "classifier.weight": (10, width),
        "classifier.bias": (10,),
    }
    for number in range(depth):
        for name, (rows, columns) in {
            "attention.attention.query": (width, width),
            "attention.attention.key": (width, width),
            "attention.attention.value": (width, width),
            "attention.output.dense": (width, width),
            "intermediate.dense": (4 * width, width),
            "output.dense": (width, 4 * width),
        }.items():
            shapes[f"{LAYER.format(number)}{name}.weight"] = (rows, columns)
            shapes[f"{LAYER.format(number)}{name}.bias"] = (rows,)
        for norm in ("layernorm_before", "layernorm_after"):
            shapes |= {f"{LAYER.format(number)}{norm}.{part}": (width,) for part in ("weight", "bias")}
    return {name: 0.1 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def encoded(state: dict[str, Tensor], logmel: Tensor, grid: tuple[int, int], heads: int) -> Tensor:
    """What that network gives for an input (B, 1, M, L) in each channel: (B, 1 + F*T, D)."""

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        spread = (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return centred / spread * state[f"{name}.weight"] + state[f"{name}.bias"]

    kernel, start = "vit.embeddings.patch_embeddings.projection", "vit.embeddings."
    images = logmel.expand(-1, 3, -1, -1)
    x = F.conv2d(images, state[f"{kernel}.weight"], state[f"{kernel}.bias"], stride=16).flatten(2).mT
    table = state[f"{start}position_embeddings"]
    square = table[:, 1:].unflatten(1, (4, 4)).permute(0, 3, 1, 2)
    x = x + F.interpolate(square, grid, mode="bicubic", antialias=True).flatten(2).mT
    first = (state[f"{start}cls_token"] + table[:, :1]).expand(len(x), -1, -1)
    x = torch.cat([first, x], dim=1)
    for number in range(sum(name.endswith("query.weight") for name in state)):
        layer = LAYER.format(number)
        y = norm(x, f"{layer}layernorm_before")
        query, key, value = (
            linear(y, f"{layer}attention.attention.{part}").unflatten(2, (heads, -1)).transpose(1, 2)
            for part in ("query", "key", "value")
        )
        weights = (query @ key.mT / key.shape[-1] ** 0.5).softmax(-1)
        x = x + linear((weights @ value).transpose(1, 2).flatten(2), f"{layer}attention.output.dense")
        y = F.gelu(linear(norm(x, f"{layer}layernorm_after"), f"{layer}intermediate.dense"))
        x = x + linear(y, f"{layer}output.dense")
    return norm(x, "vit.layernorm")


@pytest.fixture
def host() -> m2dx.PluginHost:
    return m2dx.PluginHost({"m2dx": core, "plugin": module_of("m2dx_transformers")})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The folder of a model of one block, 192 wide, as `save_pretrained` writes it."""
    folder = tmp_path / "vit"
    folder.mkdir()
    save_file(vit(192, 1), folder / "model.safetensors")
    return folder


def test_the_weight_map_is_short_and_passes_its_check() -> None:
    assert len((PLUGINS / "m2dx_transformers.py").read_text().splitlines()) <= MOST_LINES
    cls = module_of("m2dx_transformers").TransformersViT
    check_weight_map(cls)
    check_weight_map(cls, {name: of for name, of in vit(24, 2).items() if "embeddings.p" not in name})


@pytest.mark.parametrize("transposed", [False, True])
def test_the_start_computes_what_the_other_project_does(
    transposed: bool, file: Path, tiny_recipe: Callable[..., Any], host: Any, console: Any
) -> None:
    state = vit(192, 1)
    options = f"weight_map={{name: transformers_vit, transposed: {str(transposed).lower()}}}"
    if transposed:
        turned = {name: of.T.contiguous() if of.ndim == 2 else of for name, of in state.items()}
        save_file(turned, file / "model.safetensors")
    recipe = tiny_recipe(f"init_from={file}", options, with_host=host)
    run = prepare(recipe, host, ONE, console)
    model = run.model.masked_model
    logmel = torch.randn(2, 1, 80, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(
            model.online(logmel), encoded(state, logmel, (5, 2), heads=3), atol=1e-4, rtol=1e-4
        )
    assert same(dict(model.target.state_dict()), dict(model.online.trunk.state_dict()))
    lines = console.export_text().splitlines()
    assert "classifier.bias, classifier.weight" in next(line for line in lines if "not used" in line)
    assert not any(line.startswith("│ not in the file") for line in lines)


def test_what_the_file_lacks_starts_at_random_and_is_told(
    file: Path, tiny_recipe: Callable[..., Any], host: Any, console: Any
) -> None:
    state = vit(192, 1)
    del state["vit.embeddings.cls_token"]
    save_file(state, file / "model.safetensors")
    recipe = tiny_recipe(f"init_from={file}", "weight_map=transformers_vit", with_host=host)
    online: Any = prepare(recipe, host, ONE, console).model.masked_model.online
    random: Any = prepare(recipe, host, ONE, console, initialise=False).model.masked_model.online
    assert torch.equal(online.cls_token, random.cls_token)
    line = next(x for x in console.export_text().splitlines() if x.startswith("│ not in the file"))
    assert "1" in line and "cls_token" in line


def test_a_start_by_a_weight_map_trains_resumes_and_is_a_baseline(
    file: Path, tiny_recipe: Callable[..., Any], host: Any, console: Any
) -> None:
    few = [f"init_from={file}", "weight_map=transformers_vit", "train.epochs=1.2", "train.checkpoint_every=3"]

    def trained(name: str, *, resume: bool = False) -> tuple[Any, dict[str, Any]]:
        recipe = tiny_recipe(f"name={name}", *few, with_host=host)
        trainer = make_trainer(recipe, host, ONE, console, resume=resume)
        trainer.fit()
        return trainer.run, torch.load(trainer.checkpoints.newest(), weights_only=True)

    run, straight = trained("straight")
    halved = shutil.copytree(run.folder, run.folder.with_name("halved"))
    next((halved / "checkpoints").glob("*6.pt")).unlink()  # as if stopped before
    _, again = trained("halved", resume=True)
    assert straight["step"] == 6 and all(
        same(straight[part], again[part]) for part in ("model", "optimizer", "rng")
    )
    losses = [
        [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (run.folder, halved)
    ]
    assert losses[0] == losses[1]
    encoder = m2dx.AudioEncoder(run.model.masked_model.online, m2dx.LogMel(), mean=-7.0, std=4.0)
    start: Any = encoders_to_compare(run.recipe, encoder, host)["start"](0)
    assert torch.equal(start.encoder.cls_token, vit(192, 1)["vit.embeddings.cls_token"])
    assert (start.mean, start.std) == (-7.0, 4.0)


FAULTS = {
    "a name": ({}, "weight_map=transformers", r"weight_map: there is no weight map 'transformers'"),
    "no file": ({}, "init_from=null", r"weight_map needs init_from, the file with the weights"),
    "an option": (
        {},
        "weight_map={name: transformers_vit, positions: [2, 3]}",
        r"weight_map\.positions must have 16 patches, but is \[2, 3\]",
    ),
    "a width": (
        {},
        "model.size=small",
        r"cls_token must be \(1, 1, 384\), but is \(1, 1, 192\)(.*\n)+  and 13 more",
    ),
    "more blocks": (
        {"vit.encoder.layer.1.layernorm_after.bias": torch.zeros(192)},
        "weight_map=transformers_vit",
        r"trunk\.blocks\.1\.norm2\.bias must be left out .*, but is \(192,\)",
    ),
}


@pytest.mark.parametrize(("more", "change", "message"), FAULTS.values(), ids=FAULTS)
def test_what_cannot_be_a_start_is_told(
    more: dict[str, Tensor],
    change: str,
    message: str,
    file: Path,
    tiny_recipe: Callable[..., Any],
    host: Any,
    console: Any,
) -> None:
    save_file({**vit(192, 1), **more}, file / "model.safetensors")
    given = {"init_from": str(file), "weight_map": "transformers_vit"}
    field, _, value = change.partition("=")
    with pytest.raises(RecipeError, match=message):
        fields = [f"{name}={text}" for name, text in {**given, field: value}.items()]
        prepare(tiny_recipe(*fields, with_host=host), host, ONE, console)


def test_strangers_and_broken_files_are_told_with_the_file(
    tmp_path: Path, tiny_recipe: Callable[..., Any], host: Any, console: Any
) -> None:
    torch.save({"state_dict": {"backbone.conv1": torch.zeros(2)}}, tmp_path / "other.pt")
    (tmp_path / "cut.pt").write_bytes(b"PK")
    for name, kind, message in (
        (
            "other.pt",
            RecipeError,
            r"other\.pt does not fit .*\n  it knows none of its names, such as backbone\.conv1",
        ),
        ("cut.pt", CheckpointError, r"cut\.pt: not a"),
    ):
        fields = [f"init_from={tmp_path / name}", "weight_map=transformers_vit"]
        with pytest.raises(kind, match=message):
            prepare(tiny_recipe(*fields, with_host=host), host, ONE, console)
