"""m2dx draw: the files that it writes, and what it refuses."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from m2dx_draw.command import draw
from typer.testing import CliRunner

from m2dx import cli
from m2dx.contract.errors import M2dxError

ROOT = Path(__file__).parents[2]
WITHOUT_TORCH = """
import sys
from typer.testing import CliRunner
from m2dx.cli import app

for arguments, code in (
    (["draw", "--help"], 0),
    (["draw", "curves", "--help"], 0),
    (["draw", "reconstruction", "run"], 2),
    (["draw", "attention", "run", "a.wav", "-o", "a.pdf"], 1),
    (["draw", "embedding", "run", "none.yaml"], 1),
):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == code, (arguments, result.output, result.exception)
    slow = {"torch", "timm", "matplotlib", "m2dx.jobs.core"} & sys.modules.keys()
    assert not slow, (arguments, slow)
"""


def run(*arguments):
    return CliRunner().invoke(cli.app, ["draw", *map(str, arguments)])


def refused(*arguments):
    result = run(*arguments)
    assert result.exit_code == 1 and isinstance(result.exception, M2dxError), result.output
    return str(result.exception)


@pytest.fixture
def wav(make_wav):
    return make_wav("a tone.wav", seconds=0.7)


def test_wrong_arguments_are_told_before_torch_and_matplotlib_are_imported(tmp_path):
    subprocess.run([sys.executable, "-c", WITHOUT_TORCH], cwd=tmp_path, check=True)


def test_reconstructions_are_written_with_their_sounds(runs, wav, tmp_path):
    output = tmp_path / "new" / "r.svg"
    result = run(
        "reconstruction", runs / "msm_mae", wav, "-o", output, "--ratio", "0.5,0.9", "--attempts", 2,
        "--pattern", "random,chessboard", "--audio",
    )  # fmt: skip
    assert result.exit_code == 0, result.exception
    text = output.read_text()
    for title in (
        "a tone.wav",
        "mask ratio 0.5, 10 visible, attempt 2",
        "mask ratio 0.9, 2 visible",
        "chessboard",
    ):
        assert f">{title}" in text
    sounds = sorted(path.name for path in output.parent.glob("*.wav"))
    assert sounds == ["r-1-a tone-input.wav"] + [f"r-1-a tone-reconstruction{n}.wav" for n in range(1, 6)]
    assert all(f"written: {path}" in result.output for path in [output, *output.parent.glob("*.wav")])


def test_the_models_own_ratio_is_the_default(runs, wav, tmp_path):
    run("reconstruction", runs / "msm_mae", wav, "-o", tmp_path / "r.svg")
    assert ">mask ratio 0.6, 8 visible<" in (tmp_path / "r.svg").read_text()


def test_the_same_arguments_give_the_same_bytes(runs, tmp_path):
    for suffix in ("png", "svg"):
        files = [tmp_path / f"{n}.{suffix}" for n in range(2)]
        for file in files:
            assert run("curves", runs / "m2d", "-o", file, "--metric", "loss").exit_code == 0
        assert files[0].read_bytes() == files[1].read_bytes()


def test_attention_of_any_encoder_is_written(runs, wav, tmp_path):
    for path in (runs / "m2d", runs / "msm_mae" / "encoder"):
        result = run("attention", path, wav, "-o", tmp_path / "a.svg", "--point", "2,3", "--point", "0,1")
        assert result.exit_code == 0, result.exception
        text = (tmp_path / "a.svg").read_text()
        assert ">patch (2, 3): up to" in text and ">patch (0, 1): up to" in text


def test_a_labelled_list_or_a_task_of_a_recipe_is_embedded(runs, sounds, tmp_path):
    output = tmp_path / "e.svg"
    options = ["-o", output, "--method", "pca", "--most", 6]
    result = run(
        "embedding", runs / "m2d", sounds / "drums.csv", *options, "--random-weights", "--split", "test"
    )
    assert result.exit_code == 0, result.exception
    text = output.read_text()
    assert ">drums.csv: m2d<" in text and ">random weights<" in text and ">kick<" in text
    recipe = tmp_path / "recipe.yaml"
    tasks = "".join(
        f"    {name}: {{dataset: {{name: csv, path: {sounds / 'instrument.csv'}}}}}\n"
        for name in ("notes", "more")
    )
    recipe.write_text(
        f"data: {{sets: {{a: {{dataset: {{name: csv, path: {sounds / 'pool.csv'}}}}}}}}}\n"
        f"evaluation:\n  evaluators: {{knn: {{name: knn}}}}\n  tasks:\n{tasks}"
    )
    assert "its evaluation has notes, more; choose one with --task" in refused(
        "embedding", runs / "m2d", recipe, *options
    )
    assert run("embedding", runs / "m2d", recipe, "--task", "notes", *options).exit_code == 0
    assert ">notes: m2d<" in output.read_text()
    assert "'none' must be in it" in refused("embedding", runs / "m2d", recipe, "--task", "none", *options)
    assert "is a list of clips" in refused(
        "embedding", runs / "m2d", sounds / "drums.csv", "--task", "drums", *options
    )


def test_curves_of_runs_are_written(runs, tmp_path):
    result = run("curves", runs / "m2d", runs / "msm_mae", "-o", tmp_path / "c.svg", "--metric", "loss,lr")
    assert result.exit_code == 0, result.exception
    text = (tmp_path / "c.svg").read_text()
    assert all(f">{title}<" in text for title in ("m2d", "msm_mae", "Total loss", "Learning rate"))


def test_what_cannot_be_drawn_is_refused_clearly(runs, wav, tmp_path):
    mae, output = runs / "msm_mae", tmp_path / "r.png"
    assert "must end in .png or .svg, but is 'r.pdf'" in refused(
        "curves", runs / "m2d", "-o", tmp_path / "r.pdf"
    )
    assert "but is m2d" in refused("reconstruction", runs / "m2d", wav, "-o", output)
    assert "none.wav: missing" in refused("reconstruction", mae, tmp_path / "none.wav", "-o", output)
    assert "must be in (0, 1), but is 2" in refused("reconstruction", mae, wav, "-o", output, "--ratio", "2")
    assert "but is 'stripes'" in refused("reconstruction", mae, wav, "-o", output, "--pattern", "stripes")
    assert "must be in the 5 x 4 patches" in refused("attention", mae, wav, "-o", output, "--point", "9,9")
    (tmp_path / "file").write_text("")
    assert "could not be written" in refused("curves", runs / "m2d", "-o", tmp_path / "file" / "c.png")
    for arguments in (
        ("reconstruction", mae, wav, "--ratio", "half"),
        ("attention", mae, wav, "--point", "2"),
    ):
        result = run(*arguments, "-o", output)
        assert result.exit_code == 2 and "must be" in result.output
    assert not output.exists()


def test_each_option_is_explained():
    section = (ROOT / "plugins" / "m2dx-draw" / "README.md").read_text(encoding="utf-8")
    group = typer.main.get_command(draw)
    assert list(group.commands) == ["reconstruction", "attention", "embedding", "curves"]
    for name, command in group.commands.items():
        assert f"m2dx draw {name}" in section
        options = [
            o for p in command.params if p.param_type_name == "option" for o in (*p.opts, *p.secondary_opts)
        ]
        assert [option for option in options if f"`{option}`" not in section] == []


def test_the_example_in_python_runs(runs, wav, tmp_path):
    spec = importlib.util.spec_from_file_location("pictures_example", ROOT / "examples" / "pictures.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    example.draw(runs / "msm_mae", wav, tmp_path)
    assert {"reconstruction.png", "attention.png"} <= {path.name for path in tmp_path.iterdir()}
