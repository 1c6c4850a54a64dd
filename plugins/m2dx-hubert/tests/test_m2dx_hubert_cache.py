"""The cache of features: its keys and files, what is made anew, and what happens where it cannot be written."""

import errno
import json
import logging
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hubert_crops import MakeViews, MakeWav, crop_of, files, frames_of, whole
from m2dx_hubert import HuBERT, encoder
from m2dx_hubert.cache import FeatureCache
from m2dx_hubert.utterances import CropEncoder
from torch import Tensor

import m2dx


def keys(cache: Path) -> list[str]:
    return [folder.name for folder in sorted(cache.iterdir())]


def test_other_weights_layers_or_models_have_caches_of_their_own(
    make: Callable[..., HuBERT], wav_file: MakeWav, views: MakeViews, cache: Path
) -> None:
    clip = m2dx.Clip(wav_file("a.wav", 2.0))
    crop, wav = crop_of(clip, 0.5)
    makers: list[Callable[[], HuBERT]] = [
        make,
        lambda: make(seed=1),
        lambda: make(layer=1),
        lambda: make(model="hubert_large"),
        lambda: make(model="wav2vec2_base"),  # of the same sizes: the same random weights as HuBERT Base
    ]
    for number, maker in enumerate(makers, 1):
        hubert = maker()
        assert torch.equal(hubert(views(wav[None], crop))[0], whole(hubert, clip)[25:74])
        assert len(keys(cache)) == number
    make()(views(wav[None], crop))
    assert len(keys(cache)) == 5 and len(files(cache)) == 5
    contents = [json.loads((cache / key / "key.json").read_text()) for key in keys(cache)]
    assert len({content["weights_sha256"] for content in contents}) == 4
    assert {(content["model"], content["layer"], content["format"]) for content in contents} == {
        ("hubert_base", 2, 1),
        ("hubert_base", 1, 1),
        ("hubert_large", 2, 1),
        ("wav2vec2_base", 2, 1),
    }


def test_weights_that_are_loaded_later_change_the_key(
    make: Callable[..., HuBERT], wav_file: MakeWav, views: MakeViews, cache: Path
) -> None:
    crop, wav = crop_of(m2dx.Clip(wav_file("a.wav", 2.0)), 0.5)
    hubert, other = make(), make(seed=1)
    first = hubert(views(wav[None], crop))
    torch.nn.ModuleList([hubert]).load_state_dict(torch.nn.ModuleList([other]).state_dict())
    assert not torch.equal(hubert(views(wav[None], crop)), first)
    assert (
        torch.equal(hubert(views(wav[None], crop)), other(views(wav[None], crop))) and len(keys(cache)) == 2
    )


def test_another_context_of_pieces_changes_the_key(
    make: Callable[..., HuBERT], wav_file: MakeWav, views: MakeViews, cache: Path, monkeypatch: Any
) -> None:
    crop, wav = crop_of(m2dx.Clip(wav_file("a.wav", 2.0)), 0.5)
    make()(views(wav[None], crop))
    monkeypatch.setattr(encoder, "CONTEXT", 25)
    make()(views(wav[None], crop))
    assert len(keys(cache)) == 2


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: Any) -> None:
    features = FeatureCache(tmp_path, {}, embed_dim=4)
    sizes, sync = [], os.fsync

    def record(descriptor: int) -> None:
        assert features.get("name") is None
        sizes.append(os.fstat(descriptor).st_size)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    features.put("name", np.ones((3, 4), np.float16))
    assert sizes[-1] == 128 + 3 * 4 * 2  # the header of npy, and all features
    assert len(files(tmp_path)) == 1


def test_a_changed_file_is_encoded_anew(
    make: Callable[..., HuBERT], wav_file: MakeWav, views: MakeViews, cache: Path
) -> None:
    clip = m2dx.Clip(wav_file("a.wav", 2.0))
    crop, wav = crop_of(clip, 0.5)
    hubert = make()
    first = hubert(views(wav[None], crop))
    status = clip.path.stat()
    samples, rate = soundfile.read(clip.path)
    soundfile.write(clip.path, samples[::-1], rate, subtype="FLOAT")
    assert clip.path.stat().st_size == status.st_size
    os.utime(clip.path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    given = hubert(views(wav[None], crop))
    assert torch.equal(given[0], whole(hubert, clip)[25:74]) and not torch.equal(given, first)
    assert len(files(cache)) == 2


def test_a_file_that_changes_while_it_is_encoded_is_encoded_again(
    make: Callable[..., HuBERT], wav_file: MakeWav, views: MakeViews, monkeypatch: Any
) -> None:
    clip = m2dx.Clip(wav_file("a.wav", 2.0))
    crop, wav = crop_of(clip, 0.5)
    hubert = make()
    encode = hubert.encode

    def slow(given: Tensor) -> Tensor:
        monkeypatch.setattr(hubert, "encode", encode)
        samples, rate = soundfile.read(clip.path)
        soundfile.write(clip.path, samples[::-1], rate, subtype="FLOAT")
        status = clip.path.stat()
        os.utime(clip.path, ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))
        return encode(given)

    monkeypatch.setattr(hubert, "encode", slow)
    old, new = (hubert(views(wav[None], crop)) for _ in range(2))
    assert torch.equal(new[0], whole(hubert, clip)[25:74]) and not torch.equal(old, new)


def damage(file: Path, how: str) -> None:
    content = file.read_bytes()
    if how == "cut":
        file.write_bytes(content[:-100])
    elif how == "empty":
        file.write_bytes(b"")
    elif how == "zeros":
        file.write_bytes(bytes(len(content)))
    elif how == "other width":
        np.save(file, np.zeros((99, 31), np.float16))
    elif how == "float32":
        np.save(file, np.zeros((99, 32), np.float32))
    elif how == "NaN":
        np.save(file, np.full((99, 32), np.nan, np.float16))


@pytest.mark.parametrize("how", ["cut", "empty", "zeros", "other width", "float32", "NaN"])
def test_a_damaged_file_is_made_anew_with_a_warning(
    how: str,
    make: Callable[..., HuBERT],
    wav_file: MakeWav,
    views: MakeViews,
    cache: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    crop, wav = crop_of(m2dx.Clip(wav_file("a.wav", 2.0)), 0.5)
    hubert = make()
    expected = hubert(views(wav[None], crop))
    (file,) = files(cache)
    content = file.read_bytes()
    damage(file, how)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(make()(views(wav[None], crop)), expected)
    assert file.read_bytes() == content
    assert f"a damaged file of features is made anew: {file}" in caplog.messages[0]
    caplog.clear()
    assert torch.equal(make()(views(wav[None], crop)), expected) and caplog.messages == []


def test_warnings_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    features = FeatureCache(tmp_path, {}, embed_dim=3)
    for number in range(250):
        features.warn("damaged", f"file {number}")
    assert caplog.messages == [
        f"file {number - 1} ({number} such in this process so far)" for number in (1, 10, 100)
    ]


def test_a_full_disk_is_told_with_what_is_needed(
    make: Callable[..., HuBERT], wav_file: MakeWav, views: MakeViews, cache: Path, monkeypatch: Any
) -> None:
    first, other = (crop_of(m2dx.Clip(wav_file(name, 2.0)), 0.5) for name in ("a.wav", "bc.wav"))
    hubert = make()
    hubert(views(first[1][None], first[0]))
    replace = Path.replace

    def full(self: Path, target: Path) -> Path:
        if self.suffix == ".tmp":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(m2dx.TrainingError) as raised:
        hubert(views(other[1][None], other[0]))
    assert str(raised.value) == (
        f"the cache of features {cache} has no room left (No space left on device); this process wrote 1 files "
        "(0.00 GB), and each hour of audio needs 0.01 GB; make room (what is there will be used), set `cache` to "
        "another folder, or leave it out"
    )
    assert list(cache.rglob("*.tmp")) == [] and len(files(cache)) == 1
    hubert(views(first[1][None], first[0]))  # what is there is still used


def test_a_cache_that_cannot_be_a_folder_is_refused(
    make: Callable[..., HuBERT], wav_file: MakeWav, views: MakeViews, cache: Path
) -> None:
    crop, wav = crop_of(m2dx.Clip(wav_file("a.wav", 2.0)), 0.5)
    cache.write_text("")
    with pytest.raises(m2dx.RecipeError, match=f"cache must be a folder, but {cache} is a file"):
        make()
    with pytest.raises(m2dx.TrainingError, match="must be a folder that can be written"):
        make(cache=cache / "below")(views(wav[None], crop))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_told(
    make: Callable[..., HuBERT], wav_file: MakeWav, views: MakeViews, cache: Path
) -> None:
    crop, wav = crop_of(m2dx.Clip(wav_file("a.wav", 2.0)), 0.5)
    cache.mkdir(mode=0o500)
    with pytest.raises(m2dx.TrainingError, match="Permission denied"):
        make()(views(wav[None], crop))


def fill(folder: Path, clips: list[m2dx.Clip], results: Any) -> None:
    """What each of two processes does: all clips, ten times written anew."""
    features = FeatureCache(folder, {"format": 1}, embed_dim=4)
    crops, wavs = zip(*(crop_of(clip, 0.5) for clip in clips), strict=True)
    rounds = []
    for _ in range(10):
        given = CropEncoder(features, frames_of)(crops, torch.stack(wavs))
        rounds.append(given.sum().item())
        for file in files(features.folder):
            file.unlink(missing_ok=True)
    results.put((rounds, dict(features._warnings)))


def test_processes_share_a_cache(tmp_path: Path, wav_file: MakeWav) -> None:
    clips = [m2dx.Clip(wav_file(f"{'x' * number}.wav", 2.0)) for number in range(1, 7)]
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    workers = [context.Process(target=fill, args=(tmp_path / "c", clips, results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    assert all(warnings == {} for _, warnings in found)
    assert len({value for rounds, _ in found for value in rounds}) == 1
    assert list((tmp_path / "c").rglob("*.tmp")) == []
