"""Crops: only what is needed is read, and nothing depends on who loads them."""

import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from m2dx.contract.components import Clip, NoiseSource
from m2dx.contract.errors import AudioError, PluginError
from m2dx.data.batches import ItemKey, TrainingBatches
from m2dx.data.clips import ClipList, join_sets, pack_clips
from m2dx.data.crops import AudioCrops, Batch, TrainingCrops
from m2dx.data.csv_list import CsvDataset
from m2dx.data.loader import batch_loader, default_workers
from m2dx.data.noise import ClipNoise
from m2dx.recipe.schema import ShortClips

SOUNDS = Path(__file__).parents[2] / "examples" / "sounds"
RATE = 16_000


def draw_mask(generator: torch.Generator) -> torch.Tensor:
    return torch.randperm(12, generator=generator)


def crops_of(clips: ClipList, *, noise: NoiseSource | None = None, seed: int = 3) -> TrainingCrops:
    return TrainingCrops(clips, AudioCrops(8000, RATE), seed=seed, draw_mask=draw_mask, noise=noise)


def example(*, with_bad: bool = False) -> ClipList:
    notes = CsvDataset(path=SOUNDS / "instrument.csv")
    clips = notes.clips("train")[:40]
    return join_sets({"notes": (_Fixed(clips + ([Clip(Path("/none.wav"))] * with_bad)), None)})


class _Fixed(CsvDataset):
    def __init__(self, clips: list[Clip]) -> None:
        self._listed = clips

    def clips(self, split: str | None = None) -> list[Clip]:
        return self._listed


def assert_equal(a: Batch, b: Batch) -> None:
    assert torch.equal(a.inputs, b.inputs)
    assert torch.equal(a.ids_shuffle, b.ids_shuffle)
    assert torch.equal(a.clip_ids, b.clip_ids)
    assert torch.equal(a.seeds, b.seeds)
    assert a.labels.keys() == b.labels.keys()
    for name, labels in a.labels.items():
        torch.testing.assert_close(labels, b.labels[name], rtol=0, atol=0, equal_nan=True)
    assert a.noise_wav is not None and b.noise_wav is not None
    assert torch.equal(a.noise_wav, b.noise_wav)
    assert a.bad == b.bad


def load(workers: int, *, start_step: int = 0, **options: int) -> list[Batch]:
    clips = example(with_bad=True)
    noise = ClipNoise(RATE, CsvDataset(path=SOUNDS / "noise.csv").clips()[:20])
    batches = TrainingBatches(len(clips), batch_size=8, total_steps=7, start_step=start_step, **options)
    return list(batch_loader(crops_of(clips, noise=noise), batches, workers=workers))


def test_batches_do_not_depend_on_workers_or_on_resuming() -> None:
    alone = load(0)
    assert len(alone) == 7
    assert any(batch.bad for batch in alone)
    for batches in (load(2), alone[:3] + load(2, start_step=3)):
        for expected, batch in zip(alone, batches, strict=True):
            assert_equal(expected, batch)


def test_batches_do_not_depend_on_processes() -> None:
    alone = load(0)
    ranks = [load(0, rank=rank, world_size=2) for rank in (0, 1)]
    for expected, first, second in zip(alone, *ranks, strict=True):
        assert torch.equal(expected.inputs, torch.cat([first.inputs, second.inputs]))
        assert torch.equal(expected.ids_shuffle, torch.cat([first.ids_shuffle, second.ids_shuffle]))
        assert torch.equal(expected.seeds, torch.cat([first.seeds, second.seeds]))


def test_batch_shapes() -> None:
    batch = load(0)[0]
    assert batch.inputs.shape == (8, 8000)
    assert batch.inputs.dtype == torch.float32
    assert batch.noise_wav is not None
    assert batch.noise_wav.shape == (8, 8000)
    assert batch.labels["notes"].shape[0] == 8
    assert batch.ids_shuffle.sort(dim=1).values.tolist() == [list(range(12))] * 8
    assert batch.to("cpu").clip_ids.tolist() == batch.clip_ids.tolist()
    assert len(set(map(tuple, batch.ids_shuffle.tolist()))) > 1
    assert (
        batch.seeds.shape == (8,) and batch.seeds.dtype == torch.int64 and len(set(batch.seeds.tolist())) == 8
    )


def test_the_mask_and_the_crop_stay_when_noise_is_added() -> None:
    clips = example()
    noise = ClipNoise(RATE, list(clips))
    key = ItemKey(epoch=2, position=5, clip_id=7)
    plain, noisy = crops_of(clips)[key], crops_of(clips, noise=noise)[key]
    assert plain.noise_wav is None
    assert torch.equal(plain.inputs, noisy.inputs)
    assert torch.equal(plain.ids_shuffle, noisy.ids_shuffle)


@pytest.fixture
def ramp(tmp_path: Path) -> Path:
    """Ten seconds in which sample i is i / 2^18, so that a crop tells where it comes from."""
    soundfile.write(tmp_path / "ramp.wav", np.arange(160_000) / 2**18, RATE, subtype="FLOAT")
    return tmp_path / "ramp.wav"


def test_crops_are_spread_over_the_clip(ramp: Path) -> None:
    crops = crops_of(pack_clips([Clip(ramp, start=2.0, duration=4.0)]))
    starts = np.array([crops[ItemKey(0, i, 0)].inputs[0].item() * 2**18 / RATE for i in range(300)])
    assert starts.min() >= 2.0
    assert starts.max() <= 5.5
    assert np.histogram(starts, bins=5, range=(2.0, 5.5))[0].min() > 30
    assert crops[ItemKey(0, 0, 0)].inputs[0] != crops[ItemKey(1, 0, 0)].inputs[0]


def test_the_crop_at_both_ends_of_the_clip(ramp: Path) -> None:
    def ends(position: float) -> tuple[float, float]:
        _, wav = AudioCrops(8000, RATE).read_at(Clip(ramp), position)
        return wav[0] * 2**18, wav[-1] * 2**18

    assert ends(0.0) == (0, 7999)
    assert ends(1 - 1e-12) == (152_000, 159_999)


def test_only_the_crop_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write(tmp_path / "long.flac", np.random.default_rng(0).uniform(-0.1, 0.1, 44_100 * 60), 44_100)
    frames: list[int] = []
    original = soundfile.SoundFile.read

    def counted(self: soundfile.SoundFile, *args: object, **options: object) -> np.ndarray:
        samples = original(self, *args, **options)
        frames.append(len(samples))
        return samples

    monkeypatch.setattr(soundfile.SoundFile, "read", counted)
    item = crops_of(pack_clips([Clip(tmp_path / "long.flac")]))[ItemKey(0, 0, 0)]
    assert item.inputs.shape == (8000,)
    assert frames == [22_050]


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000])
def test_a_crop_at_any_rate_is_whole(rate: int, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.full(2 * rate, 0.25), rate, subtype="FLOAT")
    for samples in (7999, 8000, 8001):
        _, wav = AudioCrops(samples, RATE).read_at(Clip(tmp_path / "a.wav"), 0.3)
        assert wav.shape == (samples,)
        assert wav[500:-500] == pytest.approx(0.25, abs=1e-3)
        assert wav[-1] > 0.1  # not padded


@pytest.mark.parametrize("short_clips", ["pad", "repeat"])
def test_short_clips(short_clips: ShortClips, ramp: Path) -> None:
    _, wav = AudioCrops(8000, RATE, short_clips).read_at(Clip(ramp, start=1.0, duration=0.2), 0.9)
    stretch = (np.arange(3200) + RATE) / 2**18
    rest = np.zeros(4800) if short_clips == "pad" else np.concatenate([stretch, stretch[:1600]])
    np.testing.assert_allclose(wav, np.concatenate([stretch, rest]))


def test_bad_clips_are_replaced_and_named(ramp: Path, tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("text")
    crops = crops_of(pack_clips([Clip(ramp), Clip(tmp_path / "none.wav"), Clip(tmp_path / "text.wav")]))
    items = [crops[ItemKey(0, i, 1)] for i in range(20)]
    assert {item.clip_id for item in items} == {0}
    assert all(item.bad[0] == (str(tmp_path / "none.wav"), "missing: no such file") for item in items)
    assert {path for item in items for path, _ in item.bad} == {
        str(tmp_path / "none.wav"),
        str(tmp_path / "text.wav"),
    }
    assert torch.equal(items[3].inputs, crops[ItemKey(0, 3, 1)].inputs)
    assert len({item.inputs[0].item() for item in items}) > 10


def test_nothing_but_bad_clips(tmp_path: Path) -> None:
    crops = crops_of(pack_clips([Clip(tmp_path / "none.wav")]))
    with pytest.raises(AudioError, match=r"none of 100 clips .*none\.wav: missing"):
        crops[ItemKey(0, 0, 0)]


def test_bad_noise_files_are_named(ramp: Path, tmp_path: Path) -> None:
    noise = ClipNoise(RATE, [Clip(ramp), Clip(tmp_path / "none.wav")])
    crops = crops_of(pack_clips([Clip(ramp)]), noise=noise)
    bad = [crops[ItemKey(0, i, 0)].bad for i in range(20)]
    assert ((str(tmp_path / "none.wav"), "missing: no such file"),) in bad
    assert () in bad


class Giving(NoiseSource):
    """Gives what the test wants."""

    name = "giving"

    def __init__(self, noise: object) -> None:
        super().__init__(RATE)
        self.noise = noise

    def draw(self, num_samples: int, generator: torch.Generator) -> torch.Tensor:
        if isinstance(self.noise, Exception):
            raise self.noise
        return self.noise  # type: ignore[return-value]


BAD_NOISE = [
    (torch.zeros(7999), r"must give a tensor \(8000,\) torch\.float32, but gave \(7999,\) torch\.float32"),
    (torch.zeros(1, 8000), r"but gave \(1, 8000\) torch\.float32"),
    (torch.zeros(8000, dtype=torch.float64), r"but gave \(8000,\) torch\.float64"),
    (np.zeros(8000, dtype=np.float32), "but gave ndarray"),
    (torch.full((8000,), torch.nan), "must be finite"),
    (torch.cat([torch.zeros(7999), torch.tensor([torch.inf])]), "must be finite"),
    (ZeroDivisionError("of the plugin"), r"draw\(8000, generator\) failed: ZeroDivisionError: of the plugin"),
]


@pytest.mark.parametrize(("noise", "message"), BAD_NOISE)
def test_a_noise_source_that_breaks_its_contract_is_named(noise: object, message: str, ramp: Path) -> None:
    crops = crops_of(pack_clips([Clip(ramp)]), noise=Giving(noise))
    with pytest.raises(PluginError, match=f"noise source 'giving': .*{message}"):
        crops[ItemKey(0, 0, 0)]


@pytest.mark.parametrize("workers", [0, 1])
def test_errors_come_from_workers_as_they_were_raised(workers: int) -> None:
    clips = example()
    crops = crops_of(clips, noise=Giving(torch.zeros(1)))
    batches = TrainingBatches(len(clips), batch_size=8, total_steps=2)
    with pytest.raises(PluginError) as caught:
        list(batch_loader(crops, batches, workers=workers))
    assert str(caught.value).startswith("noise source 'giving'") and "Traceback" not in str(caught.value)


def test_workers_outlive_a_signal_to_the_whole_group() -> None:
    """The trainer saves on Ctrl-C and SIGTERM, which must not fail for want of its workers."""
    clips = example()
    loader = batch_loader(
        crops_of(clips), TrainingBatches(len(clips), batch_size=8, total_steps=30), workers=2
    )
    batches = iter(loader)
    next(batches)
    workers = multiprocessing.active_children()
    assert len(workers) >= 2
    for worker in workers:
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGINT)
        os.kill(worker.pid, signal.SIGTERM)
    assert len(list(batches)) == 29


def test_default_workers() -> None:
    assert 1 <= default_workers() <= 16
    assert default_workers(processes=10_000) == 1


def test_items_say_where_their_audio_is_from_if_asked() -> None:
    clips = example()
    crops = TrainingCrops(clips, AudioCrops(4000, RATE), seed=3, draw_mask=draw_mask, with_crops=True)
    loader = batch_loader(crops, TrainingBatches(len(clips), batch_size=8, total_steps=2), workers=1)
    for batch in loader:
        assert batch.crops is not None
        for crop, clip_id, wav in zip(batch.crops, batch.clip_ids, batch.inputs, strict=True):
            assert crop.clip == clips[int(clip_id)]
            file, rate = soundfile.read(crop.clip.path, dtype="float32")
            assert rate == RATE  # so that the crop is the file's own samples
            first = round(crop.start * rate)
            piece = file[first : first + 4000]
            np.testing.assert_allclose(wav[: len(piece)], piece, atol=1e-6)
    assert crops_of(clips)[ItemKey(0, 0, 0)].crop is None


def test_a_replaced_clip_s_crop_is_that_of_the_replacement() -> None:
    """A cache of features by clip would otherwise hold those of another recording."""
    clips = pack_clips([Clip(Path("/none.wav")), *example()])
    crops = TrainingCrops(clips, AudioCrops(4000, RATE), seed=3, draw_mask=draw_mask, with_crops=True)
    for position in range(8):
        item = crops[ItemKey(0, position, 0)]
        assert item.clip_id != 0 and item.bad[0][0] == "/none.wav"
        assert item.crop is not None and item.crop.clip == clips[item.clip_id]
        file, rate = soundfile.read(item.crop.clip.path, dtype="float32")
        first = round(item.crop.start * rate)
        piece = file[first : first + 4000]
        np.testing.assert_allclose(item.inputs[: len(piece)], piece, atol=1e-6)
