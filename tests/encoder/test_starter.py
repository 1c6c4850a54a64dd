"""The encoder in the package: which texts name it, and that it works wherever an encoder is wanted."""

import json
import re
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

import m2dx
from m2dx import cli
from m2dx.contract.errors import CheckpointError, M2dxError
from m2dx.contract.package import STARTER, find_encoder
from m2dx.encoder.audio import load_encoder
from m2dx.encoder.initial_weights import load_initial_weights
from m2dx.encoder.weights import read_weights
from m2dx.model.build import build_model
from m2dx.model.shapes import model_shapes
from m2dx.recipe.loading import load_recipe
from m2dx.recipe.schema import Recipe
from m2dx.results.scoring import baseline_paths, other_encoders

MOST_BYTES = 25e6


def test_it_is_an_export_of_16_bits_with_a_card_and_licences() -> None:
    tensors = load_file(STARTER / "model.safetensors")
    assert {name for name, tensor in tensors.items() if tensor.dtype != torch.float16} == {"pos_embed"}
    assert sum(file.stat().st_size for file in STARTER.rglob("*") if file.is_file()) < MOST_BYTES
    card = (STARTER / "README.md").read_text(encoding="utf-8")
    licences = {file.name for file in (STARTER / "licences").iterdir()}
    assert licences and all(f"| {name} |" in card for name in licences)
    config = json.loads((STARTER / "config.json").read_text(encoding="utf-8"))
    assert f"-> (B, T, {config['embed_dim']})" in card and f"{config['step']:,} steps" in card


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("starter", STARTER),
        (STARTER, STARTER),
        ("./starter", Path("starter")),
        (Path("starter"), Path("starter")),
        ("runs/starter", Path("runs/starter")),
        ("starter/", Path("starter")),
        ("Starter", Path("Starter")),
    ],
)
def test_only_the_bare_text_is_the_name(given: str | Path, expected: Path) -> None:
    assert find_encoder(given) == expected


@pytest.mark.parametrize(
    ("points", "problem"),
    [
        ([], "x:// needs a package"),
        (["pathlib:Path"], None),
        (["pathlib:Path", "os:fspath"], "x:// is found by pathlib:Path and os:fspath; uninstall all but one"),
        (["gone:find"], "the package gone:find cannot find it: ModuleNotFoundError"),
        (["builtins:print"], "the package builtins:print cannot find it: TypeError"),
    ],
)
def test_addresses_are_found_by_one_package(
    points: list[str], problem: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [EntryPoint("x", value, "m2dx.encoders") for value in points]
    monkeypatch.setattr("m2dx.contract.package.entry_points", lambda group, name: found)
    if problem is None:
        assert find_encoder("x://a") == Path("x://a")
        return
    with pytest.raises(M2dxError, match=problem):
        find_encoder("x://a")


@torch.inference_mode()
def test_the_name_wins_over_a_folder_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("starter").mkdir()
    encoder = load_encoder("starter")
    clips = encoder.clip(torch.randn(2, encoder.sample_rate, generator=torch.Generator().manual_seed(0)))
    assert clips.shape == (2, encoder.embed_dim) and clips.dtype == torch.float32 and clips.isfinite().all()
    assert not encoder.training
    with pytest.raises(CheckpointError, match="neither an export"):
        load_encoder("./starter")


@pytest.mark.parametrize("name", ["startr", "Starter", "m2d", "runs/none"])
def test_an_unknown_name_is_told_what_may_be_given(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        CheckpointError, match=rf"^{name}: no such file .* run's folder.* or `starter`, the one"
    ):
        load_encoder(name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("starter", STARTER),
        ("./starter", "starter"),
        (str(STARTER), STARTER),
        ("more/starter", "more/starter"),
    ],
)
def test_a_recipe_starts_from_it(
    text: str, expected: str | Path, tiny_recipe: Callable[..., Recipe], tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = tiny_recipe(f"init_from={text}")
    assert recipe.init_from == tmp_path / expected


def test_it_is_a_baseline_by_its_name(tiny_recipe: Callable[..., Recipe]) -> None:
    recipe = tiny_recipe("evaluation.baselines=[mean_logmel, starter]")
    assert baseline_paths(recipe) == {"starter": STARTER}
    assert other_encoders(recipe)["starter"].embed_dim == load_encoder("starter").embed_dim


def test_its_weights_are_those_that_a_training_starts_with(
    tiny_recipe: Callable[..., Recipe], host: Any
) -> None:
    weights = read_weights("starter", whole=True)
    config = weights.config
    settings = {"depth": config.vit.depth, "patch_size": list(config.patch_size)}
    recipe = tiny_recipe(
        "init_from=starter", "audio.crop_seconds=0.64", f"model={json.dumps(settings)}", "model.size=tiny"
    )
    model: Any = build_model(recipe, m2dx.DataInfo(16_000, 10_240, {}), host).masked_model
    parts = load_initial_weights(model, weights, recipe.audio)
    assert parts[0].missing == 0 and "computed anew" in parts[0].note
    for name, tensor in weights.part("online").items():
        if name != "pos_embed":
            assert torch.equal(model.online.state_dict()[name], tensor.float()), name


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["encode", "starter", "noise.wav", "-o", "features.csv"], None),
        (["encode", "./starter", "noise.wav", "-o", "features.csv"], "starter: neither an export"),
        (["encode", "startr", "noise.wav", "-o", "features.csv"], "or `starter`"),
        (["export", "--overwrite", "starter", "out"], None),
        (["draw", "reconstruction", "starter", "noise.wav"], "encoder/starter is an exported encoder"),
        (["draw", "attention", "starter", "noise.wav", "-o", "a.png"], None),
    ],
)
def test_commands_take_the_name(
    arguments: list[str], problem: str | None, make_wav: Callable[..., Path], monkeypatch: Any, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    make_wav("noise.wav")
    Path("starter").mkdir()
    result = CliRunner().invoke(cli.app, arguments)
    if problem is None:
        assert result.exit_code == 0, result.output
        assert Path(arguments[-1]).stat().st_size > 0
    else:
        assert result.exit_code == 1 and isinstance(result.exception, CheckpointError)
        assert problem in str(result.exception)


def test_the_recipe_of_the_first_pages_fits_it(host: Any, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "start.md").read_text(encoding="utf-8")
    (text,) = re.findall(
        r"```yaml\n((?:(?!```).)*^init_from: starter$.*?)```", page, re.DOTALL | re.MULTILINE
    )
    (tmp_path / "heart.yaml").write_text(text, encoding="utf-8")
    recipe, config = load_recipe(tmp_path / "heart.yaml", host=host), read_weights("starter").config
    shapes = model_shapes(recipe.audio, recipe.model)
    assert (shapes.size, shapes.grid.patch_size) == (config.vit, config.patch_size)
