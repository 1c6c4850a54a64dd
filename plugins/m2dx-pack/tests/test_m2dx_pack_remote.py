"""Packs elsewhere: shards are fetched when they are read, whole and once, in an order that needs few of them."""

import json
import multiprocessing
import os
import time
import weakref
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from m2dx_pack import reading as packs
from m2dx_pack.packing import ClipSet, PackOptions, pack
from m2dx_pack.reading import PackedDataset

from m2dx.contract.errors import AudioError, TrainingError
from m2dx.data.batches import Blocks, TrainingBatches, epoch_order
from m2dx.data.clips import join_sets
from m2dx.data.containers import find_member
from m2dx.data.crops import AudioCrops, TrainingCrops
from m2dx.data.datasets import FolderDataset
from m2dx.data.loader import batch_loader
from m2dx.data.reading import probe, read_wav

RATE = 16_000
URL = "memory://bucket/pack"


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pack of 12 clips in 6 shards, on an object store in memory."""
    import fsspec

    monkeypatch.setattr(packs, "_PAUSE_SECONDS", 0.0)
    folder = tmp_path / "sounds"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for i in range(12):
        soundfile.write(folder / f"{i:02}.wav", generator.integers(-9000, 9000, RATE).astype(np.int16), RATE)
    source = FolderDataset(path=folder)
    options = PackOptions("wav", shard_bytes=50_000, workers=0)
    pack({"clips": ClipSet(tuple(source.clips()), ())}, tmp_path / "pack", options)
    store = fsspec.filesystem("memory")
    for path in (tmp_path / "pack").iterdir():
        store.pipe(f"/bucket/pack/{path.name}", path.read_bytes())
    yield tmp_path / "pack"
    store.rm("/bucket", recursive=True)


def shards_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.tar"))


def test_a_shard_is_fetched_when_it_is_first_read(remote: Path, tmp_path: Path) -> None:
    dataset = PackedDataset(path=tmp_path / "copy", url=URL)
    clips = dataset.clips()
    assert dataset.missing() == shards_in(tmp_path / "copy") == []
    assert probe(clips[5].path).frames == RATE  # the index says it
    assert shards_in(tmp_path / "copy") == []
    here = PackedDataset(path=remote).clips()
    np.testing.assert_array_equal(read_wav(clips[5].path), read_wav(here[5].path))
    assert shards_in(tmp_path / "copy") == ["shard-00002.tar"]
    for clip, other in zip(clips, here, strict=True):
        np.testing.assert_array_equal(read_wav(clip.path), read_wav(other.path))
    assert shards_in(tmp_path / "copy") == shards_in(remote)
    assert [path.name for path in (tmp_path / "copy").glob(".*.partial")] == []


def test_shards_that_were_not_used_for_longest_make_room(remote: Path, tmp_path: Path) -> None:
    clips = PackedDataset(path=tmp_path / "copy", url=URL, keep_gb=150_000 / 1e9).clips()
    for clip in clips:
        assert len(read_wav(clip.path)) == RATE
    assert shards_in(tmp_path / "copy") == ["shard-00004.tar", "shard-00005.tar"]


def test_a_removed_shard_takes_no_room_when_the_next_is_open(remote: Path, tmp_path: Path) -> None:
    clips = PackedDataset(path=tmp_path / "copy", url=URL, keep_gb=1e-9).clips()
    kept = [find_member(str(clip.path)).shard for clip in clips[:2]]
    assert kept[0] is kept[1]
    shard = weakref.ref(kept.pop())
    kept.clear()
    assert shard() is not None
    read_wav(clips[2].path)  # removes the first shard
    assert shard() is None


def test_a_shard_that_another_process_removes_at_once_is_read(
    remote: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = PackedDataset(path=tmp_path / "copy", url=URL, keep_gb=1.0).clips()
    replace = os.replace

    def replace_and_lose(source: Path, target: Path) -> None:
        replace(source, target)
        target.unlink()

    monkeypatch.setattr(os, "replace", replace_and_lose)
    assert len(read_wav(clips[0].path)) == RATE
    assert shards_in(tmp_path / "copy") == []


def read_all(folder: Path, seed: int) -> list[bool]:
    """Whether each of many clips, in an order of its own, has as many samples as it should."""
    clips = PackedDataset(
        path=folder / "copy", url=f"file://{folder / 'pack'}", keep_gb=150_000 / 1e9
    ).clips()
    order = np.random.default_rng(seed).integers(len(clips), size=60)
    return [len(read_wav(clips[number].path)) == RATE for number in order]


def test_processes_share_a_folder_with_little_room(
    remote: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("m2dx_pack.reading._MOST_OPEN", 1)
    with ProcessPoolExecutor(3, mp_context=multiprocessing.get_context("fork")) as pool:
        for found in pool.map(read_all, [tmp_path] * 3, range(3)):
            assert all(found)


def test_the_index_is_fetched_once(remote: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy, fetched = packs._copy, []

    def slow(url: str, path: Path) -> str:
        fetched.append(path.name)
        time.sleep(0.2)
        return copy(url, path)

    monkeypatch.setattr(packs, "_copy", slow)
    with ThreadPoolExecutor(3) as pool:
        datasets = [PackedDataset(path=tmp_path / "copy", url=URL) for _ in range(3)]
        assert [len(clips) for clips in pool.map(PackedDataset.clips, datasets)] == [12] * 3
    assert fetched == [".members.npy.partial", ".pack.json.partial", ".clips.jsonl.partial"]


def test_a_damaged_shard_stops_the_run_instead_of_counting_as_bad(remote: Path, tmp_path: Path) -> None:
    import fsspec

    clips = PackedDataset(path=tmp_path / "copy", url=URL).clips()
    fsspec.filesystem("memory").pipe("/bucket/pack/shard-00000.tar", b"other")
    with pytest.raises(TrainingError, match=r"shard-00000\.tar cannot be fetched.*SHA-256.*--resume"):
        read_wav(clips[0].path)
    assert shards_in(tmp_path / "copy") == []
    fsspec.filesystem("memory").rm("/bucket/pack/shard-00001.tar")
    with pytest.raises(TrainingError, match=r"shard-00001\.tar cannot be fetched: FileNotFoundError"):
        read_wav(clips[2].path)


def test_a_store_that_fails_once_is_asked_again(
    remote: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = PackedDataset(path=tmp_path / "copy", url=URL).clips()
    copy, calls = packs._copy, []

    def failing(url: str, path: Path) -> str:
        calls.append(url)
        if len(calls) == 1:
            raise ConnectionError("reset by peer")
        return copy(url, path)

    monkeypatch.setattr(packs, "_copy", failing)
    assert len(read_wav(clips[0].path)) == RATE
    assert len(calls) == 2


def test_addresses_and_folders_that_do_not_fit(remote: Path, tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"members\.npy cannot be fetched: FileNotFoundError"):
        PackedDataset(path=tmp_path / "a", url="memory://nowhere").clips()
    PackedDataset(path=tmp_path / "copy", url=URL).clips()
    with pytest.raises(
        AudioError, match="must be for memory://other, but has the pack of memory://bucket/pack"
    ):
        PackedDataset(path=tmp_path / "copy", url="memory://other").clips()
    with pytest.raises(AudioError, match="must be empty or new"):
        PackedDataset(path=tmp_path / "sounds", url=URL).clips()
    with pytest.raises(AudioError, match="`keep_gb` must be above 0 and beside `url`"):
        PackedDataset(path=tmp_path / "copy", keep_gb=1.0)


def test_batches_of_a_copy_are_those_of_the_pack(remote: Path, tmp_path: Path) -> None:
    def batches(dataset: PackedDataset, workers: int) -> list[torch.Tensor]:
        clips = join_sets({"a": (dataset, None)})
        crops = TrainingCrops(
            clips,
            AudioCrops(4000, RATE),
            seed=0,
            draw_mask=lambda g: torch.randperm(4, generator=g),
        )
        keys = TrainingBatches(12, batch_size=4, total_steps=5, blocks=Blocks(clips.draw_shards, 2))
        return [batch.inputs for batch in batch_loader(crops, keys, workers=workers)]

    here = batches(PackedDataset(path=remote), 0)
    there = batches(PackedDataset(path=tmp_path / "copy", url=URL, keep_gb=150_000 / 1e9), 1)
    for a, b in zip(here, there, strict=True):
        assert torch.equal(a, b)


def test_an_epoch_goes_from_shards_to_shards() -> None:
    numbers = torch.arange(60) // 6  # ten shards
    order = epoch_order(60, 60, seed=1, epoch=0, blocks=Blocks(numbers, 2))
    assert order.sort().values.tolist() == list(range(60))
    groups = [set(numbers[part].tolist()) for part in order.split(12)]
    assert all(len(group) == 2 for group in groups)
    assert numbers[order[:12]].tolist() != sorted(numbers[order[:12]].tolist())
    assert torch.equal(order, epoch_order(60, 60, seed=1, epoch=0, blocks=Blocks(numbers, 2)))
    assert not torch.equal(order, epoch_order(60, 60, seed=1, epoch=1, blocks=Blocks(numbers, 2)))


def test_clips_in_no_shard_are_spread_over_the_epoch() -> None:
    numbers = torch.cat([torch.arange(500) // 50, torch.full((500,), -1)])
    order = epoch_order(1000, 1000, seed=1, epoch=0, blocks=Blocks(numbers, 1))
    assert order.sort().values.tolist() == list(range(1000))
    loose = [(numbers[part] < 0).sum().item() for part in order.split(100)]
    assert min(loose) > 25


def test_a_local_order_goes_on_in_the_middle() -> None:
    blocks = Blocks(torch.arange(40) // 5, 2)
    whole = list(TrainingBatches(40, batch_size=4, total_steps=15, blocks=blocks))
    assert list(TrainingBatches(40, batch_size=4, total_steps=15, start_step=7, blocks=blocks)) == whole[7:]


def test_the_manifest_of_a_copy_names_its_origin(remote: Path, tmp_path: Path) -> None:
    PackedDataset(path=tmp_path / "copy", url=URL, keep_gb=2).clips()
    settings = json.loads((tmp_path / "copy" / "source.json").read_text())
    assert settings == {"url": URL, "keep_bytes": 2_000_000_000}


@pytest.mark.parametrize(
    "url",
    ["https://user:secret@host/pack", "https://user@host/pack", "https://host/pack?X-Amz-Signature=secret"],
)
def test_a_url_with_a_secret_is_refused_and_not_told(url: str, tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="`url` must have no user, password or query") as caught:
        PackedDataset(path=tmp_path / "copy", url=url)
    assert "secret" not in str(caught.value)
