"""Crops cut from the features of their utterances, and long recordings that are encoded in pieces."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hubert_crops import SECOND, MakeViews, MakeWav, crop_of, files, frames_of, never, whole
from m2dx_hubert import HuBERT, utterances
from m2dx_hubert.cache import FeatureCache
from m2dx_hubert.utterances import CropEncoder, pieces
from m2dx_pack.command import commands
from torch import Tensor
from typer.testing import CliRunner

import m2dx


def test_crops_are_wanted_with_a_cache_only(make: Callable[..., HuBERT]) -> None:
    assert make().wants_crops is True and make(cache=None).wants_crops is False


def test_crops_are_cut_from_the_features_of_their_utterances(
    make: Callable[..., HuBERT], wav_file: MakeWav, views: MakeViews, cache: Path, monkeypatch: Any
) -> None:
    clips = [m2dx.Clip(wav_file("a.wav", 4.0)), m2dx.Clip(wav_file("bc.wav", 2.5))]
    places = [(clips[0], 0.0), (clips[1], 1.0), (clips[0], 2.171), (clips[1], 1.5)]
    crops, wavs = zip(*(crop_of(clip, start) for clip, start in places), strict=True)
    hubert = make()
    given = hubert(views(torch.stack(wavs), *crops))
    assert given.shape == (4, 49, 32) and given.dtype == torch.float32
    for row, (clip, start) in zip(given, places, strict=True):
        first = round(start * 50)
        assert torch.equal(row, whole(hubert, clip)[first : first + 49])
    assert len(files(cache)) == 2 and list(cache.rglob("*.tmp")) == []
    stored = [np.load(file) for file in files(cache)]
    assert {array.dtype for array in stored} == {np.dtype(np.float16)}
    assert sorted(array.shape for array in stored) == [(124, 32), (199, 32)]
    monkeypatch.setattr(hubert, "encode", never)
    assert torch.equal(hubert(views(torch.stack(wavs), *crops)), given)
    other = make()
    monkeypatch.setattr(other, "encode", never)
    assert torch.equal(other(views(torch.stack(wavs), *crops)), given)


def test_crops_of_packed_clips_are_cut_from_their_utterances_too(
    make: Callable[..., HuBERT], wav_file: MakeWav, views: MakeViews, cache: Path, tmp_path: Path
) -> None:
    folder = wav_file("a.wav", 4.0).parent
    packed = CliRunner().invoke(commands, [str(folder), str(tmp_path / "pack"), "--workers", "0"])
    assert packed.exit_code == 0
    clip = m2dx.Clip(tmp_path / "pack" / "shard-00000.tar" / "00000-000000.flac")
    hubert = make()
    crop, wav = crop_of(clip, 1.0)
    assert torch.equal(hubert(views(wav[None], crop))[0], whole(hubert, clip)[50 : 50 + 49])
    assert len(files(cache)) == 1


def test_crops_of_stretches_and_of_other_rates(
    make: Callable[..., HuBERT], wav_file: MakeWav, views: MakeViews, cache: Path
) -> None:
    path = wav_file("a.wav", 6.0, 44_100)
    clips = [m2dx.Clip(path, start=1.003, duration=2.0), m2dx.Clip(path, start=3.0), m2dx.Clip(path)]
    hubert = make()
    for clip in clips:
        crop, wav = crop_of(clip, clip.start + 0.5)
        given = hubert(views(wav[None], crop))[0]
        assert torch.equal(given, whole(hubert, clip)[25 : 25 + 49])
    assert len(files(cache)) == 3


def test_a_crop_at_the_end_has_the_last_frames(
    make: Callable[..., HuBERT], wav_file: MakeWav, views: MakeViews
) -> None:
    """The crop starts 50.6 frames after the clip, but there are no 52 frames from the 51st."""
    clip = m2dx.Clip(wav_file("a.wav", 2.0575))
    crop, wav = crop_of(clip, 1.0125, 1.045)
    hubert = make()
    assert (hubert.num_frames(len(wav)), len(whole(hubert, clip))) == (52, 102)
    assert torch.equal(hubert(views(wav[None], crop))[0], whole(hubert, clip)[-52:])


def test_without_crops_nothing_is_kept(make: Callable[..., HuBERT], views: MakeViews, cache: Path) -> None:
    wav = torch.randn(2, SECOND)
    hubert = make()
    assert torch.equal(hubert(views(wav)), hubert.encode(wav)) and not cache.exists()


def test_the_precision_of_training_does_not_matter(
    make: Callable[..., HuBERT], wav_file: MakeWav, views: MakeViews, cache: Path
) -> None:
    clip = m2dx.Clip(wav_file("a.wav", 2.0))
    crop, wav = crop_of(clip, 0.5)
    with torch.autocast("cpu", torch.bfloat16):
        given = make()(views(wav[None], crop))
    shutil.rmtree(cache)
    assert torch.equal(make()(views(wav[None], crop)), given)


def test_an_utterance_is_encoded_once_in_a_batch(
    make: Callable[..., HuBERT], wav_file: MakeWav, views: MakeViews, monkeypatch: Any
) -> None:
    clip = m2dx.Clip(wav_file("a.wav", 3.0))
    crops, wavs = zip(*(crop_of(clip, 0.05 * n) for n in range(20)), strict=True)
    hubert, lengths = make(), []
    encode = hubert.encode
    monkeypatch.setattr(hubert, "encode", lambda wav: (lengths.append(wav.shape), encode(wav))[1])
    hubert(views(torch.stack(wavs), *crops))
    assert lengths == [(1, 3 * SECOND)]


def test_clips_shorter_than_the_crop_are_kept_as_they_are_filled_up(
    make: Callable[..., HuBERT], wav_file: MakeWav, views: MakeViews, cache: Path, monkeypatch: Any
) -> None:
    clip = m2dx.Clip(wav_file("a.wav", 0.4))
    wav = torch.from_numpy(m2dx.read_wav(clip.path))
    rows = torch.stack([torch.cat([wav, torch.zeros(9_600)]), wav.repeat(3)[:SECOND]])
    crop = m2dx.Crop(clip, 0.0)
    hubert = make()
    given = hubert(views(rows, crop, crop))
    assert torch.equal(given, torch.cat([hubert.encode(row[None]) for row in rows]).half().float())
    assert sorted(np.load(file).shape for file in files(cache)) == [(49, 32), (49, 32)]
    monkeypatch.setattr(hubert, "encode", never)
    assert torch.equal(hubert(views(rows.flip(0), crop, crop)), given.flip(0))


def test_a_clip_that_cannot_be_read_as_a_whole_gives_its_crops_uncached(
    make: Callable[..., HuBERT],
    wav_file: MakeWav,
    views: MakeViews,
    cache: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    samples, rate = soundfile.read(wav_file("a.wav", 12.0))
    path = tmp_path / "cut.flac"
    soundfile.write(path, samples, rate)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    crop, wav = crop_of(m2dx.Clip(path), 1.0)
    gone = m2dx.Crop(m2dx.Clip(tmp_path / "gone.wav"), 0.0)
    hubert = make()
    given = hubert(views(torch.stack([wav, wav]), crop, gone))
    assert torch.equal(given[0], hubert.encode(wav[None])[0].half().float())
    torch.testing.assert_close(given[1], given[0])
    assert files(cache) == [] and len(caplog.messages) == 1
    assert (
        "cut.flac: only crops of it can be encoded" in caplog.messages[0]
        and "truncated" in caplog.messages[0]
    )


def test_values_beyond_float16_stay_finite(tmp_path: Path, wav_file: MakeWav) -> None:
    crop, wav = crop_of(m2dx.Clip(wav_file("a.wav", 2.0)), 0.5)
    encode = CropEncoder(FeatureCache(tmp_path / "c", {}, embed_dim=4), lambda wav: 1e6 * frames_of(wav))
    given = encode([crop], wav[None])
    assert given.isfinite().all() and given.max() == 65_504


def test_long_recordings_are_read_and_encoded_in_pieces(tmp_path: Path, monkeypatch: Any) -> None:
    """A rising sawtooth, whose frames must come out in their places, from no more than 5 s at a time."""
    monkeypatch.setattr(utterances, "PASS_SECONDS", 5)
    samples = np.arange(round(20.33 * SECOND)) / (21 * SECOND)
    soundfile.write(tmp_path / "a.wav", samples, SECOND, subtype="FLOAT")
    lengths, durations = [], []
    read_wav = m2dx.read_wav

    def read(path: Path, **options: Any) -> Any:
        durations.append(options["duration"])
        return read_wav(path, **options)

    def encode(wav: Tensor) -> Tensor:
        lengths.append(wav.shape[1])
        return frames_of(wav)

    for clip, count in (
        (m2dx.Clip(tmp_path / "a.wav"), 1_016),
        (m2dx.Clip(tmp_path / "a.wav", start=2.0, duration=15.0), 749),
        (m2dx.Clip(tmp_path / "a.wav", start=2.0, duration=18.35), 916),  # 20 ms past the end
    ):
        crop, wav = crop_of(clip, clip.start + 7.0, 2.0)
        features = FeatureCache(tmp_path / f"cache {count}", {}, embed_dim=4)
        with monkeypatch.context() as patch:
            patch.setattr(m2dx, "read_wav", read)
            given = CropEncoder(features, encode)([crop], wav[None])
        torch.testing.assert_close(given, frames_of(wav[None]).half().float(), atol=1e-3, rtol=0)
        (file,) = files(features.folder)
        first = round(clip.start * SECOND)
        expected = frames_of(torch.from_numpy(samples[first:]).float()[None])[0].half()
        assert np.array_equal(np.load(file), expected[:count].numpy()) and len(np.load(file)) == count
    assert max(lengths) <= 5 * SECOND and max(durations) <= 5 and len(lengths) > 12


def test_pieces_cover_a_recording_once() -> None:
    for frames in (1, 2_897, 2_898, 2_899, 180_000):
        found = list(pieces(frames))
        assert [piece.first for piece in found[1:]] == [piece.last for piece in found[:-1]]
        assert (found[0].first, found[-1].last) == (0, frames)
        assert all(piece.last - piece.first + piece.before + piece.after <= 2_998 for piece in found)
        assert all(piece.before == 50 for piece in found[1:])
