"""16-bit samples: the same bit for bit as libsndfile's float32, whatever way they take to the model."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from m2dx.contract.components import Clip
from m2dx.contract.errors import AudioError
from m2dx.data.batches import ItemKey, Stream, TrainingBatches, seeded_generator
from m2dx.data.clips import pack_clips
from m2dx.data.crops import AudioCrops, TrainingCrops, collate, fit_length
from m2dx.data.loader import batch_loader
from m2dx.data.noise import ClipNoise
from m2dx.data.pcm import float_samples, float_tensor, plain_wav
from m2dx.data.reading import AudioFile, probe, read_wav

RATE = 16_000
ALL = np.arange(-(2**15), 2**15).astype(np.int16)  # every value that there is


def draw_mask(generator: torch.Generator) -> torch.Tensor:
    return torch.randperm(12, generator=generator)


def crops_of(*paths: Path, **options: object) -> TrainingCrops:
    clips = pack_clips([Clip(path) for path in paths])
    return TrainingCrops(clips, AudioCrops(4000, RATE), seed=0, draw_mask=draw_mask, **options)


def write(path: Path, samples: np.ndarray = ALL, rate: int = RATE, **options: str) -> Path:
    soundfile.write(path, samples, rate, **options)
    return path


def test_every_16_bit_value_is_what_libsndfile_gives(tmp_path: Path) -> None:
    path = write(tmp_path / "all.wav")
    expected, _ = soundfile.read(path, dtype="float32")
    assert float_samples(ALL).tobytes() == expected.tobytes()
    assert float_tensor(torch.from_numpy(ALL)).numpy().tobytes() == expected.tobytes()


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.aiff", "a.au", "a.w64"])
def test_mono_16_bit_files_are_read_as_they_are_stored(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / name)
    with AudioFile(path) as file:
        stored = file.read_stored(100, 60_000, sample_rate=RATE)
        assert stored.dtype == np.int16
        np.testing.assert_array_equal(stored, ALL[100:60_100])
        assert file.read_stored(100, 60_000, sample_rate=8000).dtype == np.float32
    expected, _ = soundfile.read(path, dtype="float32")
    assert read_wav(path).tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("samples", "options"),
    [
        (ALL, {"subtype": "PCM_24"}),
        (ALL, {"subtype": "FLOAT"}),
        (np.stack([ALL, ALL[::-1]], axis=1), {"subtype": "PCM_16"}),
        (np.stack([ALL, ALL[::-1], ALL], axis=1), {"subtype": "PCM_16"}),
    ],
)
def test_anything_else_is_float32_and_the_mean_of_its_channels(
    samples: np.ndarray, options: dict[str, str], tmp_path: Path
) -> None:
    path = write(tmp_path / "a.wav", samples, **options)
    with AudioFile(path) as file:
        stored = file.read_stored(0, len(ALL), sample_rate=RATE)
    decoded, _ = soundfile.read(path, dtype="float32", always_2d=True)
    assert stored.dtype == np.float32
    assert stored.tobytes() == decoded.mean(axis=1, dtype=np.float32).tobytes()


def test_a_stored_crop_is_the_crop(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav")
    for length, short in ((4000, "pad"), (70_000, "pad"), (70_000, "repeat")):
        start, stored = AudioCrops(length, RATE, short).read_at(Clip(path), 0.3)
        assert stored.dtype == np.int16
        assert start * RATE == int(0.3 * (len(ALL) - min(length, len(ALL)) + 1))
        decoded, _ = soundfile.read(path, start=round(start * RATE), frames=length, dtype="float32")
        assert float_samples(stored).tobytes() == fit_length(decoded, length, short_clips=short).tobytes()


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_travel_as_int16_and_arrive_as_float32(workers: int, tmp_path: Path) -> None:
    crops = crops_of(write(tmp_path / "a.wav"), write(tmp_path / "b.flac"))
    crops.noise = ClipNoise(RATE, list(crops.clips))
    batches = TrainingBatches(2, batch_size=2, total_steps=3)
    found = list(batch_loader(crops, batches, workers=workers))
    for batch, keys in zip(found, batches, strict=True):
        assert batch.inputs.dtype == torch.int16 == batch.noise_wav.dtype
        arrived, expected = batch.to("cpu"), collate([crops[key] for key in keys]).to("cpu")
        assert arrived.inputs.dtype == torch.float32 == expected.inputs.dtype
        assert torch.equal(arrived.inputs, expected.inputs)
        assert torch.equal(arrived.noise_wav, expected.noise_wav)
        assert torch.equal(arrived.inputs * 2**15, batch.inputs.float())
        assert arrived.inputs.abs().max() > 0


def test_a_mixed_batch_is_float32(tmp_path: Path) -> None:
    crops = crops_of(write(tmp_path / "a.wav"), write(tmp_path / "b.wav", subtype="FLOAT"))
    items = [crops[ItemKey(0, i, i)] for i in range(2)]
    batch = collate(items)
    assert [item.inputs.dtype for item in items] == [torch.int16, torch.float32]
    assert batch.inputs.dtype == torch.float32
    assert torch.equal(batch.inputs, torch.stack([float_tensor(item.inputs) for item in items]))


def chunked(samples: bytes, *, before: bytes = b"", after: bytes = b"", size: int | None = None) -> bytes:
    head = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, RATE, 2 * RATE, 2, 16)
    data = b"data" + struct.pack("<I", len(samples) if size is None else size) + samples
    body = b"WAVE" + before + head + data + after
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize(
    ("content", "is_plain"),
    [
        (chunked(ALL.tobytes()), True),
        (chunked(ALL.tobytes(), after=b"LIST\x04\0\0\0INFO"), True),
        (chunked(ALL.tobytes(), before=b"LIST\x04\0\0\0INFO"), False),
    ],
)
def test_a_plain_header_is_read_without_a_decoder(content: bytes, is_plain: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        assert (plain_wav(descriptor, 0, len(content)) is not None) == is_plain
    finally:
        os.close(descriptor)
    assert probe(path).frames == len(ALL)
    np.testing.assert_array_equal(read_wav(path) * 2**15, ALL)


def test_a_file_that_shrinks_while_it_is_read_is_truncated(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav")
    with AudioFile(path) as file:
        os.truncate(path, 10_000)
        with pytest.raises(AudioError, match="truncated"):
            file.read_stored(0, 60_000, sample_rate=RATE)


@pytest.mark.parametrize(
    ("seed", "epoch", "position"), [(0, 0, 0), (7, 3, 2**31), (2**32 - 1, 1, 5), (2**40, 2, 2**33)]
)
def test_generators_are_those_of_a_plain_seed_sequence(seed: int, epoch: int, position: int) -> None:
    numbers = (Stream.CROP, seed, epoch, position)
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    expected = torch.Generator().manual_seed(int(state[0]))
    got = seeded_generator(Stream.CROP, seed=seed, epoch=epoch, position=position)
    assert torch.equal(torch.rand(4, generator=got), torch.rand(4, generator=expected))


def test_a_disk_that_fails_at_the_header_is_told_as_a_bad_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: int) -> bytes:
        raise OSError(5, "Input/output error")

    path = write(tmp_path / "a.wav")
    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(AudioError, match="cannot be opened: Input/output error"):
        probe(path)
