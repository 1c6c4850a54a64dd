import importlib
import json
import logging
import os
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from m2dx.data.logmel import LogMel
from m2dx.encoder.audio import random_encoder
from m2dx.evaluation import features
from m2dx.evaluation.features import FeatureCache, MeanLogMel
from m2dx.evaluation.tasks import ClipTask
from m2dx.recipe.schema import AudioSection, ModelSection

AUDIO = AudioSection(sample_rate=8000, n_mels=16, crop_seconds=0.32)


@pytest.fixture
def clips(tone):
    return [tone(label, split=split) for split in ("train", "test") for label in ("low", "mid", "high") * 2]


@pytest.fixture
def computed(monkeypatch):
    """Names of the encoders' classes whose features were computed."""
    names, extract = [], features.extract

    def counted(encoder, task, *, batch_size):
        names.append(type(encoder).__name__)
        return extract(encoder, task, batch_size=batch_size)

    monkeypatch.setattr(features, "extract", counted)
    return names


def encoder(seed=0, **settings):
    model = ModelSection(size="tiny", depth=1, patch_size=(8, 8), predictor={"embed_dim": 64, "num_heads": 1})
    made = random_encoder(AUDIO, model, mean=-7.0, std=4.0, seed=seed)
    for name, value in settings.items():
        setattr(made, name, value)
    return made


def task_of(dataset, folder, **options):
    return ClipTask.from_dataset("tones", dataset, cache=FeatureCache(folder), **options)


CODE = """
import torch

class Loudness(torch.nn.Module):
    sample_rate, embed_dim = 8000, 1

    def clip(self, wav):
        return {scale} * wav.abs().mean(1, keepdim=True)
"""


def test_features_are_computed_again_by_code_that_was_changed(tmp_path, clips, list_dataset, monkeypatch):
    """As a backbone's author changes it."""
    found = []
    monkeypatch.syspath_prepend(tmp_path)
    for scale in (1.0, 100.0):
        (tmp_path / "loudness_of_a_plugin.py").write_text(CODE.format(scale=scale))
        monkeypatch.delitem(sys.modules, "loudness_of_a_plugin", raising=False)
        importlib.invalidate_caches()
        network = importlib.import_module("loudness_of_a_plugin").Loudness()
        found.append(task_of(list_dataset(clips), tmp_path / "features").features(network).x)
    torch.testing.assert_close(100 * found[0], found[1])


def test_features_are_computed_once_for_equal_weights_clips_and_settings(
    tmp_path, clips, list_dataset, computed
):
    first = task_of(list_dataset(clips), tmp_path / "features").features(encoder())
    again = task_of(list_dataset(clips), tmp_path / "features").features(encoder())
    assert computed == ["FrameStatistics"]
    assert torch.equal(first.x, again.x) and torch.equal(first.y, again.y)
    uncached = ClipTask.from_dataset("tones", list_dataset(clips)).features(encoder())
    assert torch.equal(uncached.x, again.x)


@pytest.mark.parametrize(
    "other",
    [
        lambda: encoder(seed=1),
        lambda: encoder(mean=-6.0),
        lambda: encoder(long_clips="interpolate"),
        lambda: encoder(logmel=LogMel(**{**AUDIO.model_dump(exclude={"crop_seconds"}), "hop_length": 40})),
        lambda: MeanLogMel(AUDIO),
    ],
    ids=["weights", "statistics", "long clips", "hop length", "class"],
)
def test_another_encoder_has_features_of_its_own(tmp_path, clips, list_dataset, computed, other):
    task = task_of(list_dataset(clips), tmp_path)
    task.features(encoder())
    task.features(other())
    assert len(computed) == 2 and len(list(tmp_path.glob("tones-*.safetensors"))) == 2


@pytest.mark.parametrize("options", [{"unit_seconds": 0.2}, {"unit_seconds": 0.3, "short_clips": "repeat"}])
def test_another_setting_of_the_task_has_features_of_its_own(
    tmp_path, clips, list_dataset, computed, options
):
    task_of(list_dataset(clips), tmp_path, unit_seconds=0.3).features(encoder())
    task_of(list_dataset(clips), tmp_path, **options).features(encoder())
    assert len(computed) == 2


def test_a_changed_file_or_another_order_of_clips_is_computed_anew(tmp_path, clips, list_dataset, computed):
    task_of(list_dataset(clips), tmp_path).features(encoder())
    os.utime(clips[3].path, ns=(1, 1))
    task_of(list_dataset(clips), tmp_path).features(encoder())
    task_of(list_dataset(clips[::-1]), tmp_path).features(encoder())
    assert len(computed) == 3


def test_another_file_of_the_same_size_and_time_is_computed_anew(tmp_path, clips, list_dataset, computed):
    """As `rsync -t` and `touch -r` leave it."""
    task_of(list_dataset(clips), tmp_path).features(encoder())
    path, status = clips[3].path, os.stat(clips[3].path)
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (os.stat(path).st_size, os.stat(path).st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    task_of(list_dataset(clips), tmp_path).features(encoder())
    assert len(computed) == 2


def test_labels_and_folds_are_not_of_the_cache(tmp_path, clips, list_dataset, computed):
    before = task_of(list_dataset(clips), tmp_path).features(encoder())
    swapped = [
        replace(clip, labels=("mid",) if clip.labels == ("low",) else clip.labels) for clip in clips[:6]
    ]
    after = task_of(list_dataset([*swapped, *clips[6:]]), tmp_path).features(encoder())
    assert computed == ["FrameStatistics"] and torch.equal(before.x, after.x)
    assert not torch.equal(before.y, after.y)


@pytest.mark.parametrize("content", [b"", b"not safetensors", "shape", "nan", "poison", "flipped", "renamed"])
def test_a_broken_file_is_warned_of_and_written_anew(
    tmp_path, clips, list_dataset, computed, caplog, content
):
    found = task_of(list_dataset(clips), tmp_path).features(encoder())
    (file,) = tmp_path.glob("*.safetensors")
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content == "flipped":
        damaged = bytearray(file.read_bytes())
        damaged[-100] ^= 1
        file.write_bytes(damaged)
    elif content == "renamed":
        task_of(list_dataset(clips), tmp_path).features(encoder(seed=1))
        (other,) = set(tmp_path.glob("*.safetensors")) - {file}
        other.replace(file)
        computed.pop()
    else:
        x = torch.cat([part for layer in found.layers.values() for part in layer], dim=1)
        save_file({"x": {"shape": x[:3], "nan": x * torch.nan, "poison": x + 1}[content]}, file)
    with caplog.at_level(logging.WARNING):
        again = task_of(list_dataset(clips), tmp_path).features(encoder())
    assert len(computed) == 2 and torch.equal(again.x, found.x)
    assert f"features are computed again, since {file}" in caplog.text
    task_of(list_dataset(clips), tmp_path).features(encoder())
    assert len(computed) == 2 and list(tmp_path.glob("*.partial")) == []


def test_a_folder_that_cannot_be_written_is_warned_of(tmp_path, clips, list_dataset, caplog):
    (tmp_path / "features").write_text("a file")
    with caplog.at_level(logging.WARNING):
        found = task_of(list_dataset(clips), tmp_path / "features").features(encoder())
    assert found.x.isfinite().all() and "features are not kept" in caplog.text


def test_the_file_tells_what_it_is(tmp_path, clips, list_dataset):
    task_of(list_dataset(clips), tmp_path).features(encoder())
    (file,) = tmp_path.glob("tones-*.safetensors")
    header = file.read_bytes()
    about = json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])["__metadata__"]
    assert about["task"] == "tones" and about["encoder"] == "FrameStatistics"
