"""Further pre-training: what starts from a file, what does not, and what is refused."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

from m2dx.contract.errors import CheckpointError, RecipeError
from m2dx.contract.host import PluginHost
from m2dx.encoder.audio import load_encoder
from m2dx.encoder.published import MODEL_NAMES, rename
from m2dx.encoder.weights import export_encoder
from m2dx.jobs import core
from m2dx.jobs.train import run_recipe
from m2dx.model.build import build_masked_model
from m2dx.model.m2d import M2D
from m2dx.model.patches import sincos_positions
from m2dx.recipe.schema import AudioSection, ModelSection, Recipe
from m2dx.training.distributed import Processes
from m2dx.training.prepare import PreparedRun, prepare

pytestmark = pytest.mark.usefixtures("no_page")
AUDIO = AudioSection(crop_seconds=0.64)  # 5 x 4 patches
MODEL = ModelSection(size="tiny", depth=2, predictor={"embed_dim": 32, "depth": 1, "num_heads": 2})


def m2d(audio: AudioSection = AUDIO, model: ModelSection = MODEL, *, seed: int = 0) -> M2D:
    torch.manual_seed(seed)
    made = build_masked_model(audio, model, PluginHost({"m2dx": core}), with_tokens=False)
    assert isinstance(made, M2D)
    return made


def published_file(path: Path, model: M2D, **changes: Tensor) -> Path:
    """The model under the published names, as the authors' files are."""
    state = rename(model.state_dict(), {own: name for name, own in MODEL_NAMES.items()})
    torch.save({"model": {**state, **changes}}, path)
    return path


@pytest.fixture
def start(tiny_recipe: Callable[..., Recipe], host: Any, console: Console) -> Callable[..., PreparedRun]:
    """A run that starts from a file, with the tiny model above and more overrides."""

    def make(path: Path, *overrides: str) -> PreparedRun:
        options = [
            f"init_from={path}",
            "audio.crop_seconds=0.64",
            "model.depth=2",
            "model.predictor={embed_dim: 32, depth: 1, num_heads: 2}",
        ]
        recipe = tiny_recipe(*options, *overrides)
        return prepare(recipe, host, Processes(0, 1, torch.device("cpu")), console)

    return make


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())


def test_a_published_file_gives_every_part(start: Any, console: Console, tmp_path: Path) -> None:
    source = m2d(seed=7)
    run = start(published_file(tmp_path / "m2d.pth", source, logit_scale=torch.ones(1)))
    assert equal(run.model.masked_model.state_dict(), source.state_dict())
    text = console.export_text()
    assert "initial weights: published checkpoint" in text
    for part in ("online encoder", "target network", "predictor"):
        line = next(line for line in text.splitlines() if part in line)
        assert " 0 " in line  # nothing is missing
    assert "logit_scale" in next(line for line in text.splitlines() if "not used" in line)
    assert "-7.100, 4.200" in text


def test_an_export_gives_the_encoder_and_the_target_its_copy(
    start: Any, tiny_recipe: Any, host: Any, console: Console
) -> None:
    options = ["audio.crop_seconds=0.64", "model.depth=2", "name=first", "train.epochs=1"]
    run_recipe(tiny_recipe(*options), host, console)
    folder = tiny_recipe().output / "first"
    encoder = load_encoder(folder / "encoder").encoder.state_dict()
    run = start(folder / "encoder", "model.method={name: m2d, target_init: random}")
    model = run.model.masked_model
    assert equal(model.online.state_dict(), encoder)
    assert equal(model.target.state_dict(), model.online.trunk.state_dict())
    assert not torch.equal(model.predictor.mask_token, torch.zeros_like(model.predictor.mask_token))
    text = console.export_text()
    assert "a copy of the online one" in text and "not in the file: starts at random" in text

    whole = start(folder)  # the run's newest checkpoint has target and predictor, of another size here
    assert equal(whole.model.masked_model.online.state_dict(), encoder)
    assert not equal(
        whole.model.masked_model.target.state_dict(), whole.model.masked_model.online.trunk.state_dict()
    )
    assert "of another size" in console.export_text()


def test_a_resumed_run_goes_on_without_the_file(
    tiny_recipe: Any, host: Any, console: Console, tmp_path: Path
) -> None:
    source = published_file(tmp_path / "m2d.pth", m2d(seed=7))
    options = [
        f"init_from={source}",
        "audio.crop_seconds=0.64",
        "model.depth=2",
        "model.predictor={embed_dim: 32, depth: 1, num_heads: 2}",
        "train.checkpoint_every=5",
    ]
    straight = run_recipe(tiny_recipe(*options, "name=straight"), host, console)
    runs = tiny_recipe().output
    shutil.copytree(runs / "straight", runs / "halved")
    (runs / "halved" / "checkpoints" / "step-00000010.pt").unlink()  # as if it had been stopped before
    source.unlink()
    resumed = run_recipe(tiny_recipe(*options, "name=halved"), host, console, resume=True)
    assert (straight.steps, resumed.steps) == (10, 10)
    one, other = (load_encoder(runs / name).encoder.state_dict() for name in ("straight", "halved"))
    assert equal(one, other)
    with pytest.raises(CheckpointError, match=r"m2d.pth: no such file"):
        run_recipe(tiny_recipe(*options, "name=again"), host, console)


def test_fixed_positions_of_another_length_are_computed_anew(
    start: Any, console: Console, tmp_path: Path
) -> None:
    longer = m2d(AudioSection(crop_seconds=1.6))  # 5 x 10 patches
    run = start(published_file(tmp_path / "m2d.pth", longer))
    online = run.model.masked_model.online
    torch.testing.assert_close(online.pos_embed, sincos_positions((5, 4), 192))
    torch.testing.assert_close(online.trunk.state_dict(), longer.online.trunk.state_dict())
    assert "fixed sine-cosine, computed anew (5 x 10 to 5 x 4 patches)" in console.export_text()


def test_other_positions_are_resampled(start: Any, console: Console, tmp_path: Path) -> None:
    shorter = m2d(AudioSection(crop_seconds=0.32))  # 5 x 2 patches
    ramp = torch.zeros(1, 11, 192)
    ramp[0, 1:] = torch.tensor([0.0, 1.0]).repeat(5)[:, None]  # by time
    ramp[0, 0] = 9.0
    run = start(published_file(tmp_path / "m2d.pth", shorter, pos_embed=ramp))
    positions = run.model.masked_model.online.pos_embed
    assert positions.shape == (1, 21, 192)
    assert (positions[0, 0] == 9.0).all()  # the class token's stays
    by_time = positions[0, 1:, 0].unflatten(0, (5, 4))
    assert (by_time.diff(dim=1) > 0).all()
    torch.testing.assert_close(by_time[0], by_time[4])
    assert "resampled (5 x 2 to 5 x 4 patches)" in console.export_text()


def test_what_does_not_fit_is_refused_with_every_difference(start: Any, tmp_path: Path) -> None:
    path = published_file(tmp_path / "m2d.pth", m2d())
    with pytest.raises(RecipeError) as caught:
        start(path, "model.size=small", "model.depth=3", "model.patch_size=[80, 4]")
    text = str(caught.value)
    assert "width of model.size must be 192 as in the file, but is 384" in text
    assert "model.depth must be 2 as in the file, but is 3" in text
    assert "model.patch_size must be (16, 16) as in the file, but is (80, 4)" in text


def test_other_audio_settings_are_named(start: Any, console: Console, tmp_path: Path) -> None:
    start(published_file(tmp_path / "m2d.pth", m2d()), "audio.f_min=20")
    line = next(line for line in console.export_text().splitlines() if "audio.f_min" in line)
    assert "had 50.0, the recipe has 20.0" in line


def test_a_predictor_of_other_heads_is_not_taken(
    start: Any, tiny_recipe: Any, host: Any, console: Console
) -> None:
    """Its shapes are the same, so that only the checkpoint's recipe can tell."""
    options = ["audio.crop_seconds=0.64", "model.depth=2", "name=first", "train.epochs=1"]
    run_recipe(
        tiny_recipe(*options, "model.predictor={embed_dim: 32, depth: 1, num_heads: 4}"), host, console
    )
    start(tiny_recipe().output / "first")
    line = next(line for line in console.export_text().splitlines() if "4 heads in the file, 2 here" in line)
    assert "predictor" in line


def test_a_missing_tensor_is_told_with_the_file(start: Any, tmp_path: Path) -> None:
    state = torch.load(published_file(tmp_path / "m2d.pth", m2d()))
    del state["model"]["target_blocks.1.attn.qkv.weight"]
    torch.save(state, tmp_path / "cut.pth")
    with pytest.raises(
        CheckpointError, match=r"cut.pth: init_from: the weights of the target network do not fit"
    ):
        start(tmp_path / "cut.pth")


def test_a_run_may_not_start_from_its_own_folder(tiny_recipe: Any, host: Any, console: Console) -> None:
    run_recipe(tiny_recipe("name=first", "train.epochs=1"), host, console)
    folder = tiny_recipe().output / "first"
    again = tiny_recipe("name=first", f"init_from={folder / 'encoder'}")
    with pytest.raises(RecipeError, match="in the folder of this run"):
        run_recipe(again, host, console, overwrite=True)
    assert load_encoder(folder / "encoder") is not None


def test_msm_mae_starts_from_the_encoder_alone(start: Any, console: Console, tmp_path: Path) -> None:
    source = m2d(seed=7)
    path = published_file(tmp_path / "m2d.pth", source)
    run = start(path, "model.method=msm_mae", "model.ema_decay={start: 0.99995, end: 0.99999}")
    assert equal(run.model.masked_model.online.state_dict(), source.online.state_dict())
    assert "of another size" in console.export_text()


def test_an_export_round_trip_keeps_the_encoder(start: Any, tmp_path: Path) -> None:
    run = start(published_file(tmp_path / "m2d.pth", m2d(seed=7)), "name=kept", "train.epochs=1")
    run_recipe(run.recipe, run.host, Console(quiet=True))
    folder = export_encoder(run.folder, tmp_path / "export")
    again = start(folder, "name=again")
    assert equal(again.model.masked_model.online.state_dict(), load_encoder(folder).encoder.state_dict())
