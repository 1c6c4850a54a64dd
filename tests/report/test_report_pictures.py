"""Clips at each checkpoint: which checkpoints, what is drawn of each method, and what is said of those not read."""

import re

import pytest
import torch

from m2dx.encoder.checkpoint import CheckpointFolder
from m2dx.report.pictures import checkpoint_pictures, draw_run, model_at, seen_clips
from m2dx.report.saving import svg
from m2dx.report.style import Span
from m2dx.training.distributed import Processes
from m2dx.training.prepare import prepare
from m2dx.training.trainer import Trainer


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


def clips(run):
    """Two clips as the model sees them."""
    return seen_clips(run, [])[:2]


def drawn_in(picture):
    """A picture without what is told to those who can't see it."""
    (data,) = re.findall(r'"(data:image/png;base64,[^"]*)"', svg(picture, "strip"))
    return data


def titles(clip):
    return [made.title.split(":")[0] for made in clip.row]


def test_each_clip_is_a_row_of_its_input_the_start_and_the_end(trained):
    run = trained("train.epochs=1.4")
    shown = checkpoint_pictures(run.folder, run.recipe, clips(run), run.host)
    assert not shown.reconstructs and not shown.notes
    assert [clip.name for clip in shown.checkpoints] == [clip.name for clip in clips(run)]
    for clip in shown.checkpoints:
        assert titles(clip) == ["Input", "Start", "Step 7"]
        assert clip.span == Span(0.32, (run.recipe.audio.f_min, run.recipe.audio.f_max))
        assert len({drawn_in(made) for made in clip.row}) == 3


def test_the_start_is_the_model_that_the_run_began_with(trained, host, console, tiny_recipe):
    run = trained("train.epochs=0.6")
    recipe = tiny_recipe("name=again")
    fresh = prepare(recipe, host, Processes(0, 1, torch.device("cpu")), console).model.masked_model.online
    first = model_at(run.recipe, run.host, None).online
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), fresh.parameters(), strict=True))


def test_a_run_from_other_weights_starts_from_these(trained):
    before = trained("train.epochs=0.6")
    weights = CheckpointFolder(before.folder / "checkpoints").newest()
    run = trained("name=next", "train.epochs=0.6", f"init_from={weights}")
    shown = checkpoint_pictures(run.folder, run.recipe, clips(run), run.host)
    old = checkpoint_pictures(before.folder, before.recipe, clips(before), before.host)
    start, end = shown.checkpoints[0].row[1], old.checkpoints[0].row[2]
    assert (
        start.label.partition("attention")[2] == end.label.partition("attention")[2]
    )  # how strong, and where
    weights.unlink()
    shown = checkpoint_pictures(run.folder, run.recipe, clips(run), run.host)
    assert any(note.startswith("Start is not shown") for note in shown.notes)
    assert titles(shown.checkpoints[0]) == ["Input", "Step 3"]


def test_msm_mae_is_shown_with_its_errors(trained):
    run = trained("model.method=msm_mae", "train.epochs=0.4", "train.base_lr=0.3")
    shown = checkpoint_pictures(run.folder, run.recipe, clips(run), run.host)
    assert shown.reconstructs
    for clip in shown.checkpoints:
        assert titles(clip) == ["Visible", "Start", "Step 2"]
        first, last = (float(made.title.split("MSE ")[1]) for made in clip.row[1:])
        assert last < first


def test_a_damaged_checkpoint_is_named_and_the_start_shown(trained):
    run = trained("train.epochs=0.6")
    path = CheckpointFolder(run.folder / "checkpoints").encoder(3)
    path.write_bytes(path.read_bytes()[:2000])
    shown = checkpoint_pictures(run.folder, run.recipe, clips(run), run.host)
    (note,) = shown.notes
    assert note.startswith("Step 3 is not shown") and str(path) in note
    assert titles(shown.checkpoints[0]) == ["Input", "Start"]


def test_a_run_shows_the_same_clips_each_time_and_without_checkpoints_its_start(tiny_recipe, host, console):
    def drawn():
        run = prepare(tiny_recipe(noise=True), host, Processes(0, 1, torch.device("cpu")), console)
        return draw_run(run)

    first, second = drawn(), drawn()
    assert len(first.examples) == len(first.checkpoints) == 3
    assert [clip.name for clip in first.checkpoints] == [example.name for example in first.examples]
    for one, other in ((first.examples, second.examples), (first.checkpoints, second.checkpoints)):
        assert [clip.name for clip in one] == [clip.name for clip in other]
        assert [svg(made, "strip") for clip in one for made in clip.row] == [
            svg(made, "strip") for clip in other for made in clip.row
        ]
    assert first.notes == ["The run's folder has no checkpoints."]
    assert titles(first.checkpoints[0]) == ["Input", "Start"]


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
    assert len(drawn.examples) == 3 and drawn.notes == ["Clips cannot be shown: ZeroDivisionError: a bug"]
    assert "without pictures" in caplog.text
