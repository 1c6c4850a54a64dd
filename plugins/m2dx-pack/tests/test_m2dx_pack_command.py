"""`m2dx pack`: what it takes, says and refuses."""

import tomllib
from pathlib import Path

import numpy as np
import pytest
import soundfile
import typer
from m2dx_pack.command import commands
from m2dx_pack.job import source_of_recipe
from m2dx_pack.reading import PackedDataset
from typer.testing import CliRunner

import m2dx
from m2dx.contract.errors import AudioError, M2dxError, RecipeError
from m2dx.recipe.loading import load_recipe


@pytest.fixture(scope="module")
def host() -> m2dx.PluginHost:
    return m2dx.PluginHost.discover()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sounds").mkdir()
    for i in range(3):
        wav = 0.5 * np.random.default_rng(i).standard_normal(8000)
        soundfile.write(tmp_path / "sounds" / f"{i}.wav", wav, 16_000, subtype="FLOAT")
    return tmp_path / "sounds"


def run(*arguments: object) -> str:
    done = CliRunner().invoke(commands, [*map(str, arguments), "--workers", "0"])
    if isinstance(done.exception, M2dxError):
        raise done.exception
    return done.output


def test_a_folder_is_packed_and_what_it_cost_is_said(folder: Path, tmp_path: Path) -> None:
    (folder / "bad.wav").write_bytes(b"no audio")
    with pytest.raises(AudioError, match="allow more with --max-bad-fraction"):
        run(folder, tmp_path / "out")
    said = run(folder, tmp_path / "out", "--max-bad-fraction", 0.25)
    assert "clips: clips 3; 3 pieces of audio in 1 shard" in said
    assert "1 file could not be used, and 1 clip left out" in said
    assert "rounded to 16 bits: 3 pieces not mono 16-bit PCM" in said
    assert "clipped 3 pieces with samples beyond full scale" in said
    assert f"dataset: {{name: packed, path: {tmp_path / 'out'}}}" in said
    assert len(PackedDataset(path=tmp_path / "out").clips()) == 3


def test_nothing_is_said_of_rounding_where_files_are_kept(folder: Path, tmp_path: Path) -> None:
    said = run(folder, tmp_path / "out", "--format", "keep")
    assert "rounded" not in said and "clipped" not in said
    content = (folder / "1.wav").read_bytes()
    assert content in (tmp_path / "out" / "shard-00000.tar").read_bytes()


def test_arguments_that_do_not_go_together(folder: Path, tmp_path: Path) -> None:
    for wrong, reason in (
        (["--format", "keep", "--sample-rate", 8000], "--sample-rate is for --format flac and wav"),
        (["seed=1"], "only recipes take changes"),
    ):
        assert reason in " ".join(run(folder, tmp_path / "out", *wrong).replace("│", " ").split())
    with pytest.raises(AudioError, match="cannot read the list"):
        run(tmp_path / "none.csv", tmp_path / "out")
    with pytest.raises(RecipeError, match=r"none\.yaml"):
        run(tmp_path / "none.yaml", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def recipe_of(folder: Path, tmp_path: Path, host, *overrides: str):
    path = tmp_path / "recipe.yaml"
    path.write_text(f"data: {{sets: {{noise: {{dataset: {{name: folder, path: {folder}}}}}}}}}\n")
    return load_recipe(path, overrides, host=host)


def test_noise_of_files_becomes_a_list_and_made_noise_stays(folder: Path, tmp_path: Path, host) -> None:
    files = f"noise={{ratio: 0.1, dataset: {{name: folder, path: {folder}}}}}"
    source = source_of_recipe(recipe_of(folder, tmp_path, host, files), host)
    assert source.fields == {"data.sets.noise.dataset": "noise", "noise.dataset": "noise_"}
    assert len(source.sets["noise_"].clips) == 3
    pink = "noise={ratio: 0.1, source: {name: coloured}}"
    source = source_of_recipe(recipe_of(folder, tmp_path, host, pink), host)
    assert list(source.sets) == ["noise"]
    assert source.notes == ("the noise source coloured makes its own noise, and stays as it is",)


def test_a_recipe_on_images_is_refused(folder: Path, tmp_path: Path, host) -> None:
    path = tmp_path / "images.yaml"
    path.write_text(
        f"image: {{}}\ndata: {{sets: {{a: {{dataset: {{name: image_folder, path: {folder}}}}}}}}}\n"
    )
    with pytest.raises(RecipeError, match="a pack holds audio only"):
        source_of_recipe(load_recipe(path, [], host=host), host)


def test_the_readme_explains_each_option_and_the_package_has_the_command() -> None:
    package = Path(__file__).parents[1]
    readme = (package / "README.md").read_text(encoding="utf-8")
    for parameter in typer.main.get_command(commands).params:
        if parameter.param_type_name == "argument":
            assert parameter.metavar.strip("[].") in readme
        else:
            assert [option for option in parameter.opts if f"`{option}`" not in readme] == []
    entry_points = tomllib.loads((package / "pyproject.toml").read_text())["project"]["entry-points"]
    assert entry_points == {
        "m2dx": {"pack": "m2dx_pack"},
        "m2dx.containers": {"pack": "m2dx_pack.reading"},
        "m2dx.commands": {"pack": "m2dx_pack.command:commands"},
    }
