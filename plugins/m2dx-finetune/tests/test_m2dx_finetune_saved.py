"""Fine-tuned networks that are kept, loaded again, and used on files."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from m2dx_finetune.evaluator import Finetune, Run
from typer.testing import CliRunner

import m2dx
from m2dx.cli import app
from m2dx.contract.errors import CheckpointError
from m2dx.encoder.audio import AudioEncoder, random_encoder
from m2dx.evaluation.features import MeanLogMel
from m2dx.recipe.schema import AudioSection, ModelSection
from m2dx.testing.evaluators import tone_task

SHORT: dict[str, Any] = {"epochs": 2, "warmup_epochs": 1, "batch_size": 6, "freq_mask": 8, "time_mask": 8}
AUDIO = AudioSection(crop_seconds=0.32, f_min=60.0, f_max=7000.0)


@pytest.fixture(scope="module")
def encoder() -> AudioEncoder:
    model = ModelSection(size="tiny", depth=1)
    return random_encoder(AUDIO, model, mean=-7.0, std=4.0, seed=0)


@pytest.fixture
def tones() -> Any:
    with tone_task() as task:
        yield task


def accuracy(classifier: m2dx.AudioClassifier, task: Any) -> float:
    """Of the test clips, whole files read anew."""
    right = []
    for row in task.folds[0].test:
        clip = task.clips[row]
        wav = torch.from_numpy(m2dx.read_wav(clip.path, sample_rate=classifier.sample_rate))
        best = int(classifier.probabilities(wav)[0].argmax())
        right.append(classifier.label_names[best] == clip.labels[0])
    return sum(right) / len(right)


@pytest.mark.parametrize("options", [{}, {"patchout": 0.5, "adjust_positions": False}])
@pytest.mark.parametrize("short_clips", ["pad", "repeat"])
def test_a_kept_network_is_the_one_that_was_tested(
    encoder: Any, tones: Any, tmp_path: Path, monkeypatch: Any, options: Any, short_clips: str
) -> None:
    logits = {}
    score_of_run = Run.score

    def keep(self: Run, rows: Any) -> float:
        for row, output in zip(rows.tolist(), self.network(next(self.examples.plain([rows]))), strict=True):
            logits[row] = output
        return score_of_run(self, rows)

    monkeypatch.setattr(Run, "score", keep)
    task = replace(tones, unit_seconds=1.5 * tones.unit_seconds, short_clips=short_clips)
    (score,) = Finetune(**SHORT, **options, save_dir=tmp_path).evaluate(encoder, task, seeds=(0, 1))
    folders: Any = score.details["saved"]
    assert [len(row) for row in folders] == [2] and folders[0][0] != folders[0][1]
    classifier = m2dx.load_classifier(folders[0][1])  # the last one, whose logits were kept last
    assert classifier.label_names == task.label_names and not classifier.multi_label
    assert accuracy(classifier, task) == pytest.approx(score.values[1])
    row = int(task.folds[0].test[0])
    wav = torch.from_numpy(m2dx.read_wav(task.clips[row].path, sample_rate=classifier.sample_rate))
    torch.testing.assert_close(classifier(wav)[0], logits[row], rtol=1e-4, atol=1e-5)
    long = torch.cat([wav, torch.ones(40_000)])
    length = round(task.unit_seconds * classifier.sample_rate)
    torch.testing.assert_close(classifier(long), classifier(long[:length]))
    probabilities = classifier.probabilities(torch.stack([wav, wav]))
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(2))
    config = json.loads((Path(folders[0][1]) / "config.json").read_text())
    about = config["classifier"]
    assert (about["task"], about["seed"], about["score"]) == (task.name, 1, score.values[1])
    assert AudioSection(**config["audio"]) == AUDIO


def test_the_folder_is_an_encoder_too(encoder: Any, tones: Any, tmp_path: Path) -> None:
    (score,) = Finetune(**SHORT, save_dir=tmp_path).evaluate(encoder, tones, seeds=(0,))
    ((folder,),) = score.details["saved"]  # type: ignore[misc]
    tuned, classifier = m2dx.load_encoder(folder), m2dx.load_classifier(folder)
    wav = torch.randn(1, 5000)
    with torch.no_grad():
        assert torch.equal(tuned.clip(wav), classifier.network.encoder.clip(wav))
        assert not torch.allclose(tuned.clip(wav), encoder.clip(wav))
    assert (tuned.mean, tuned.std) == (encoder.mean, encoder.std)


def test_labels_of_a_clip_may_be_several(encoder: Any, tones: Any, tmp_path: Path) -> None:
    clips = [replace(clip, labels=(*clip.labels, "sound")) for clip in tones.clips]
    task = replace(tones, clips=clips, label_names=(*tones.label_names, "sound"))
    assert task.multi_label
    (score,) = Finetune(**SHORT, save_dir=tmp_path).evaluate(encoder, task, seeds=(0,))
    ((folder,),) = score.details["saved"]  # type: ignore[misc]
    classifier = m2dx.load_classifier(folder)
    wav = torch.randn(2, 3000)
    with torch.no_grad():
        assert classifier.multi_label
        torch.testing.assert_close(classifier.probabilities(wav), classifier(wav).sigmoid())


def test_networks_are_kept_only_where_that_is_asked_for(encoder: Any, tones: Any, tmp_path: Path) -> None:
    """Nor are there any of encoders without a network."""
    (score,) = Finetune(**SHORT).evaluate(encoder, tones, seeds=(0,))
    assert "saved" not in score.details
    (score,) = Finetune(**SHORT, save_dir=tmp_path).evaluate(MeanLogMel(AUDIO), tones, seeds=(0,))
    assert score.details["saved"] == [[None]] and list(tmp_path.iterdir()) == []


def test_a_run_that_ended_without_its_network_is_trained_once_more(
    encoder: Any, tones: Any, tmp_path: Path, monkeypatch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    states, networks = tmp_path / "states", tmp_path / "networks"
    (first,) = Finetune(**SHORT, checkpoint_dir=states).evaluate(encoder, tones, seeds=(0,))
    keeping = Finetune(**SHORT, checkpoint_dir=states, save_dir=networks)
    (second,) = keeping.evaluate(encoder, tones, seeds=(0,))
    assert second.values == first.values and "training once more" in caplog.text
    assert accuracy(m2dx.load_classifier(next(networks.iterdir())), tones) == pytest.approx(first.mean)
    monkeypatch.setattr(Run, "train_epoch", lambda self: pytest.fail("it had ended, with its network"))
    (third,) = keeping.evaluate(encoder, tones, seeds=(0,))
    assert third.values == first.values and third.details["saved"] == second.details["saved"]


def test_folds_whose_names_differ_in_signs_keep_networks_of_their_own(
    encoder: Any, tones: Any, tmp_path: Path
) -> None:
    (fold,) = tones.folds
    names = ("<5", ">=5", "_5")
    task = replace(tones, folds=tuple(replace(fold, name=name) for name in names))
    finetune = Finetune(**SHORT, save_dir=tmp_path / "networks", checkpoint_dir=tmp_path / "states")
    (score,) = finetune.evaluate(encoder, task, seeds=(0,))
    saved: Any = score.details["saved"]
    configs = [json.loads((Path(folder) / "config.json").read_text()) for (folder,) in saved]
    assert tuple(config["classifier"]["fold"] for config in configs) == names
    assert len(list((tmp_path / "states").iterdir())) == 3


def test_what_is_no_fine_tuned_network_is_told(encoder: Any, tones: Any, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere must be a folder with a classifier"):
        m2dx.load_classifier(tmp_path / "nowhere")
    (score,) = Finetune(**SHORT, save_dir=tmp_path).evaluate(encoder, tones, seeds=(0,))
    ((name,),) = score.details["saved"]  # type: ignore[misc]
    folder = Path(name)
    whole = json.loads((folder / "config.json").read_text())

    def with_config(config: Any) -> Any:
        (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
        return pytest.raises(CheckpointError)

    with with_config({key: value for key, value in whole.items() if key != "classifier"}) as caught:
        m2dx.load_classifier(folder)
    assert "is an encoder without a classifier" in str(caught.value)
    with with_config("{") as caught:
        m2dx.load_classifier(folder)
    assert "not an m2dx export" in str(caught.value)
    short = {key: value for key, value in whole["classifier"].items() if key != "unit_seconds"}
    with with_config({**whole, "classifier": short}) as caught:
        m2dx.load_classifier(folder)
    assert "classifier.unit_seconds: Field required" in str(caught.value)
    more = {**whole["classifier"], "label_names": [*whole["classifier"]["label_names"], "more"]}
    with with_config({**whole, "classifier": more}) as caught:
        m2dx.load_classifier(folder)
    assert "the classifier's weights do not fit" in str(caught.value)


def test_a_disk_that_refuses_is_told(encoder: Any, tones: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(CheckpointError, match=r"must be written to .*save_dir.*but cannot be"):
        Finetune(**SHORT, save_dir=tmp_path / "file").evaluate(encoder, tones, seeds=(0,))


def test_files_are_classified_from_the_command_line(
    encoder: Any, tones: Any, tmp_path: Path, make_wav: Any
) -> None:
    (score,) = Finetune(**SHORT, save_dir=tmp_path / "networks").evaluate(encoder, tones, seeds=(0,))
    ((folder,),) = score.details["saved"]  # type: ignore[misc]
    unit = tones.unit_seconds
    good = make_wav("good.wav", seconds=2.5 * unit)
    (tmp_path / "bad.wav").write_text("not audio")
    table = tmp_path / "table.csv"
    done = CliRunner().invoke(app, ["classify", folder, str(good), "-o", str(table), "--whole"])
    assert done.exit_code == 0, done.output
    rows = list(csv.DictReader(table.open()))
    assert list(rows[0]) == ["path", "start", "end", "label", *tones.label_names]
    assert [float(row["start"]) for row in rows] == pytest.approx([0, unit, 2 * unit], abs=1e-3)
    assert float(rows[-1]["end"]) == pytest.approx(2.5 * unit, abs=1e-3)
    for row in rows:
        values = {name: float(row[name]) for name in tones.label_names}
        assert sum(values.values()) == pytest.approx(1.0, abs=1e-3)
        assert values[row["label"]] == max(values.values())
    done = CliRunner().invoke(app, ["classify", folder, str(good), str(tmp_path / "bad.wav")])
    assert done.exit_code == 1 and "bad.wav" in done.output
    assert len([line for line in done.stdout.splitlines() if line.startswith(str(good))]) == 1
