"""Clips at each checkpoint: which checkpoints, what is drawn of each method, and what is said of those not read."""

import re

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from m2dx.encoder.audio import load_encoder
from m2dx.encoder.checkpoint import CheckpointFolder
from m2dx.report import Sound
from m2dx.report.attention import attention_maps
from m2dx.report.pictures import SHADE, attention_clip, checkpoint_pictures, draw_run, first_encoder, spread
from m2dx.report.saving import panel_svg, strip_svg
from m2dx.training.distributed import Processes
from m2dx.training.prepare import prepare
from m2dx.training.trainer import Trainer

ATTENTION = "Attention of the framed patch"


@pytest.fixture
def trained(tiny_recipe, host, console):
    """Trains a tiny model with a checkpoint at every step, and gives the run."""

    def train(*overrides):
        recipe = tiny_recipe(
            "train.checkpoint_every=1", "train.keep_every=1", "train.warmup_epochs=0", *overrides
        )
        run = prepare(recipe, host, Processes(0, 1, torch.device("cpu")), console)
        run.folder.mkdir(parents=True)
        Trainer(run, console=console).fit()
        return run

    return train


def sounds(run):
    generator = torch.Generator().manual_seed(0)
    return [Sound(name, 0.1 * torch.randn(5120, generator=generator)) for name in ("first.wav", "second.wav")]


def drawn_in(picture):
    """A picture without what is told to those who can't see it."""
    data = re.findall(r'"(data:image/png;base64,[^"]*)"', strip_svg(picture))
    assert len(data) == 2  # the log-mel, and the attention over it
    return data


def test_checkpoints_are_evenly_spread_with_both_ends():
    assert spread([], 5) == [] and spread([3, 9], 5) == [3, 9]
    assert spread(list(range(10, 110, 10)), 4) == [10, 40, 70, 100]
    assert spread(list(range(101)), 5) == [0, 25, 50, 75, 100]


def test_m2d_is_shown_from_its_start_to_its_last_step(trained):
    run = trained("train.epochs=1.4")
    shown = checkpoint_pictures(run.folder, run.recipe, sounds(run), run.host)
    assert not shown.reconstructs and [clip.name for clip in shown.checkpoints] == ["first.wav", "second.wav"]
    for clip in shown.checkpoints:
        assert [title[:8] for title in clip.strips] == ["", "Attentio"]
        assert [made.title for made in clip.strips[""]] == ["Log-mel"]
        titles = [made.title.split(":")[0] for made in clip.strips[ATTENTION]]
        assert titles == ["Start", "Step 1", "Step 3", "Step 4", "Step 5", "Step 7"]
    (note,) = shown.checkpoint_notes
    assert note.startswith("Checkpoints in the run's folder: 7, of which 5 are shown.")
    assert "keeps the last 2 and those at multiples of step 1;" in note


def test_the_start_is_the_model_that_the_run_began_with(trained, host, console, tiny_recipe):
    run = trained("train.epochs=0.6")
    recipe = tiny_recipe("name=again")
    fresh = prepare(recipe, host, Processes(0, 1, torch.device("cpu")), console).model.masked_model.online
    first = first_encoder(run.recipe, run.host)
    assert all(torch.equal(a, b) for a, b in zip(first.encoder.parameters(), fresh.parameters(), strict=True))


def test_a_run_from_other_weights_starts_from_these(trained):
    before = trained("train.epochs=0.6")
    weights = CheckpointFolder(before.folder / "checkpoints").newest()
    run = trained("name=next", "train.epochs=0.6", f"init_from={weights}")
    shown = checkpoint_pictures(run.folder, run.recipe, sounds(run), run.host)
    old = checkpoint_pictures(before.folder, before.recipe, sounds(before), before.host)
    start = shown.checkpoints[0].strips[ATTENTION][0]
    assert drawn_in(start) == drawn_in(old.checkpoints[0].strips[ATTENTION][-1])
    weights.unlink()
    shown = checkpoint_pictures(run.folder, run.recipe, sounds(run), run.host)
    assert any(note.startswith("Start is not shown") for note in shown.checkpoint_notes)
    assert shown.checkpoints[0].strips[ATTENTION][0].title.startswith("Step 1:")


def test_msm_mae_is_shown_with_its_errors(trained):
    run = trained("model.method=msm_mae", "train.epochs=0.4", "train.base_lr=0.3")
    shown = checkpoint_pictures(run.folder, run.recipe, sounds(run), run.host)
    assert shown.reconstructs
    for clip in shown.checkpoints:
        inputs, reconstruction, error = clip.strips.values()
        assert [made.title for made in inputs] == ["Log-mel", "Visible: 40%"]
        assert [made.title for made in reconstruction] == ["Start", "Step 1", "Step 2"]
        values = [float(made.title.split("MSE ")[1]) for made in error]
        assert values[2] < values[0]


def test_a_damaged_checkpoint_is_named_and_the_others_shown(trained):
    run = trained("train.epochs=0.6")
    path = CheckpointFolder(run.folder / "checkpoints").encoder(2)
    path.write_bytes(path.read_bytes()[:2000])
    shown = checkpoint_pictures(run.folder, run.recipe, sounds(run), run.host)
    (note,) = [note for note in shown.checkpoint_notes if "not shown" in note]
    assert note.startswith("Step 2 is not shown") and str(path) in note
    titles = [made.title.split(":")[0] for made in shown.checkpoints[0].strips[ATTENTION]]
    assert titles == ["Start", "Step 1", "Step 3"]


def test_a_run_shows_the_same_clips_each_time_and_without_checkpoints_its_start(tiny_recipe, host, console):
    def drawn():
        run = prepare(tiny_recipe(noise=True), host, Processes(0, 1, torch.device("cpu")), console)
        return draw_run(run)

    first, second = drawn(), drawn()
    assert len(first.examples) == 4 and len(first.checkpoints) == 3
    assert [clip.name for clip in first.checkpoints] == [example.name for example in first.examples[:3]]
    assert [example.name for example in first.examples] == [example.name for example in second.examples]
    for one, other in (
        (first.examples, second.examples),
        (first.checkpoints, second.checkpoints),
    ):
        assert [panel_svg(made) for clip in one for strip in clip.strips.values() for made in strip] == [
            panel_svg(made) for clip in other for strip in clip.strips.values() for made in strip
        ]
    assert first.checkpoint_notes == ["The run's folder has no checkpoints."]
    (start,) = first.checkpoints[0].strips[ATTENTION]
    assert start.title.startswith("Start:")


def test_clips_that_cannot_be_read_are_told(tiny_recipe, host, console, make_wav, tmp_path):
    for number in range(3):
        make_wav(f"data/{number}.wav", seed=number)
    (tmp_path / "data" / "0.wav").write_text("not audio")
    data = f"data.sets.notes={{split: null, dataset: {{name: folder, path: {tmp_path / 'data'}}}}}"
    run = prepare(tiny_recipe(data), host, Processes(0, 1, torch.device("cpu")), console)
    drawn = draw_run(run)
    assert len(drawn.examples) == 3
    assert any("another clip is shown" in note and "0.wav" in note for note in drawn.notes)
    for number in range(3):
        (tmp_path / "data" / f"{number}.wav").unlink()
    drawn = draw_run(run)
    assert drawn.examples == () and drawn.notes[0].startswith("Clips cannot be shown: ")


def test_no_bug_of_a_picture_ends_a_training(tiny_recipe, host, console, monkeypatch, caplog):
    def fail(*arguments, **options):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("m2dx.report.pictures.checkpoint_pictures", fail)
    run = prepare(tiny_recipe(), host, Processes(0, 1, torch.device("cpu")), console)
    drawn = draw_run(run)
    assert len(drawn.examples) == 4 and drawn.notes == ["Clips cannot be shown: ZeroDivisionError: a bug"]
    assert "without pictures" in caplog.text


def test_attention_is_drawn_over_the_log_mel(trained):
    run = trained("train.epochs=0.2")
    (item, _) = attention_maps(load_encoder(run.folder), sounds(run)[0])
    assert item.weights.shape == (5, 2)
    clip = attention_clip({"Start": item})
    axes = Figure().add_subplot()
    clip.strips[ATTENTION][0].draw(axes)
    logmel, attention = (np.asarray(image.get_array()) for image in axes.images)
    np.testing.assert_array_equal(logmel, item.logmel)
    np.testing.assert_allclose(attention[..., 3], SHADE * item.weights / item.weights.max(), rtol=1e-6)
    assert clip.strips[ATTENTION][0].title == f"Start: up to {item.weights.max():.1%}"
