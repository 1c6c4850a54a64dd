"""Packs that were changed after they were packed, and packings that a kill ended at their start or end."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from m2dx_pack import packing
from m2dx_pack import reading as packs
from m2dx_pack.packing import ClipSet, PackOptions, pack
from m2dx_pack.reading import PackedDataset

from m2dx.contract.errors import AudioError
from m2dx.data.clips import join_sets
from m2dx.data.datasets import FolderDataset
from m2dx.data.reading import probe, read_wav

RATE = 16_000


def clips_of(folder: Path) -> ClipSet:
    return ClipSet(tuple(FolderDataset(path=folder).clips()), ("a", "b"))


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sounds")
    generator = np.random.default_rng(0)
    for number in range(4):
        samples = (3000 * generator.standard_normal(RATE)).astype(np.int16)
        soundfile.write(folder / f"{number}.wav", samples, RATE)
    return folder


@pytest.fixture(scope="module")
def whole(sounds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packs") / "whole"
    pack({"clips": clips_of(sounds)}, folder, PackOptions("wav", workers=0))
    return folder


def use(folder: Path) -> None:
    """What training asks of a pack."""
    clips = join_sets({"set": (PackedDataset(path=folder), None)})
    for clip in clips:
        assert probe(clip.path).seconds > 0
        read_wav(clip.path, start=clip.start, duration=clip.duration)


def _changes(value: Any, where: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Each place of plain data, with what may stand there by mistake."""
    yield from ((where, wrong) for wrong in ([], "x", -1, 1e308, None))
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _changes(item, (*where, key))


def changed(value: Any, where: tuple[Any, ...], wrong: Any) -> Any:
    if not where:
        return wrong
    copy = value.copy()
    copy[where[0]] = changed(copy[where[0]], where[1:], wrong)
    return copy


def test_a_manifest_with_wrong_content_is_told(whole: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(whole, tmp_path / "pack")
    manifest = json.loads((whole / "pack.json").read_text())
    needed = {key: manifest[key] for key in ("m2dx_pack", "lists", "sha256", "shardlist")}
    texts = [json.dumps({**manifest, **changed(needed, *change)}) for change in _changes(needed) if change[0]]
    texts += [json.dumps({key: manifest[key] for key in manifest if key != gone}) for gone in needed]
    texts += ["", "[]", "null", "5", "[" * 100_000, '{"lists":' * 5000, "9" * 5000, "\0", "\udcff"]
    told = 0
    for text in texts:
        (folder / "pack.json").write_text(text, errors="surrogateescape")
        try:
            use(folder)
        except AudioError as error:
            told += 1
            assert "\n" not in str(error) and len(str(error)) < 1000
            assert "pack" in str(error) or "shard" in str(error)
    assert told > 70
    assert (
        len(texts) - told <= 6
    )  # `sha256` and the checksum of a shard that is not fetched say nothing of what is read


@pytest.mark.parametrize("keeps_checksum", [True, False])
@pytest.mark.parametrize(
    "line",
    [
        "",
        "[]",
        "5",
        '"x"',
        "{",
        "[" * 100_000,
        '{"path": 5}',
        '{"start": 1}',
        *(
            '{"path": "shard-00000.tar/00000-000000.wav", %s}' % field  # noqa: UP031
            for field in (
                '"start": "x"', '"start": NaN', '"start": -1', '"start": 1e308', f'"start": {"9" * 5000}',
                '"duration": 0', '"duration": "x"', '"duration": NaN', '"duration": 1e308', '"duration": []',
                '"weight": "x"', '"weight": NaN', '"weight": 0', '"weight": 1e308', '"weight": []',
                '"labels": [["a"]]', '"labels": "a"', '"labels": [1]', '"split": 5', '"group": {}',
            )
        ),
    ],
)  # fmt: skip
def test_a_list_with_wrong_content_is_told(
    whole: Path, tmp_path: Path, line: str, keeps_checksum: bool
) -> None:
    """Also where whoever changed it took out its checksum."""
    folder = shutil.copytree(whole, tmp_path / "pack")
    lines = (whole / "clips.jsonl").read_text().splitlines()
    (folder / "clips.jsonl").write_text("\n".join([*lines[:2], line, *lines[3:]]) + "\n")
    if not keeps_checksum:
        drop_checksum(folder, "clips.jsonl")
    with pytest.raises(AudioError, match=r"^[^\n]*clips\.jsonl[^\n]*$") as caught:
        use(folder)
    assert keeps_checksum or "clips.jsonl, line 3: " in str(caught.value)


def drop_checksum(folder: Path, name: str) -> None:
    manifest = json.loads((folder / "pack.json").read_text())
    del manifest["sha256"][name]
    (folder / "pack.json").write_text(json.dumps(manifest))


def saved(array: Any) -> bytes:
    np.save(file := io.BytesIO(), array)
    return file.getvalue()


@pytest.mark.parametrize("keeps_checksum", [True, False])
@pytest.mark.parametrize(
    "content",
    [
        lambda rows: b"",
        lambda rows: b"x" * 300,
        lambda rows: saved(rows)[:200],
        lambda rows: saved(rows).replace(b"(4, 5)", b"(" * 6),
        lambda rows: saved(rows.astype(float)),
        lambda rows: saved(rows.astype(np.int32)),
        lambda rows: saved(rows[:3]),
        lambda rows: saved(rows.ravel()),
        lambda rows: saved([*rows.tolist(), ["x"] * 5]),
        lambda rows: saved(rows * [1, 1, 0, 1, 1]),
        lambda rows: saved(rows * [1, 1, 1, 0, 1]),
        lambda rows: saved(rows * [-1, 1, 1, 1, 1]),
        lambda rows: saved(rows * [1, 2**40, 1, 1, 1]),
    ],
)
def test_places_that_are_wrong_are_told(
    whole: Path, tmp_path: Path, content: Callable[[Any], bytes], keeps_checksum: bool
) -> None:
    folder = shutil.copytree(whole, tmp_path / "pack")
    (folder / "members.npy").write_bytes(content(np.load(whole / "members.npy")))
    if not keeps_checksum:
        drop_checksum(folder, "members.npy")
    with pytest.raises(AudioError, match=r"^[^\n]*members\.npy[^\n]*$"):
        use(folder)


@pytest.mark.parametrize(
    ("form", "in_memory"), [("wav", True), ("flac", True), ("flac", False), ("keep", True)]
)
def test_other_bytes_of_a_shard_are_told_where_they_are_read(
    sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any, form: Any, in_memory: bool
) -> None:
    """At each of 20 places, one bit; clips of other blocks are as before."""
    for module in (packs, packing):
        monkeypatch.setattr(module, "BLOCK_BYTES", 4096)
    if not in_memory:
        monkeypatch.setattr(packs, "_MOST_IN_MEMORY", 1000)
    out = tmp_path / "pack"
    pack({"clips": clips_of(sounds)}, out, PackOptions(form, workers=0))
    shard, rows = out / "shard-00000.tar", np.load(out / "members.npy")
    content = shard.read_bytes()
    draw = np.random.default_rng(1)
    for _ in range(20):
        number = int(draw.integers(4))
        harmed = bytearray(content)
        harmed[rows[number, 0] + int(draw.integers(rows[number, 1]))] ^= 1 << int(draw.integers(8))
        shard.write_bytes(harmed)
        packs._pack.cache_clear()
        packs._checked_blocks.cache_clear()
        clips = PackedDataset(path=out).clips()
        with pytest.raises(AudioError, match="damaged: the shard shard-00000.tar" if in_memory else "."):
            read_wav(clips[number].path)
        far = (number + 2) % 4
        np.testing.assert_array_equal(read_wav(clips[far].path), read_wav(sounds / f"{far}.wav"))
    assert "Traceback" not in capfd.readouterr().err
    shard.write_bytes(content)
    packs._pack.cache_clear()
    use(out)


def content_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_damaged_record_of_a_shard_is_made_anew(whole: Path, sounds: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    fingerprint = json.loads((out / "pack.json").read_text())["fingerprint"]
    os.remove(out / "pack.json")
    (out / ".started.json").write_text(json.dumps({"fingerprint": fingerprint}))
    (out / "shard-00000.tar.json").write_text("[1]")
    pack({"clips": clips_of(sounds)}, out, PackOptions("wav", workers=0))
    assert content_of(out) == content_of(whole)
    os.remove(out / "pack.json")
    (out / ".started.json").write_text("[1]")
    with pytest.raises(AudioError, match=r"\.started\.json cannot be read"):
        pack({"clips": clips_of(sounds)}, out, PackOptions("wav", workers=0))


@pytest.mark.parametrize("left", ["start", "end", "tidying"])
def test_the_same_command_goes_on_after_a_kill(whole: Path, sounds: Path, tmp_path: Path, left: str) -> None:
    out = tmp_path / "out"
    if left == "start":
        out.mkdir()
        (out / "..started.json.partial").write_text('{"finge')
    else:
        shutil.copytree(whole, out)
        fingerprint = json.loads((whole / "pack.json").read_text())["fingerprint"]
        summary = {"clips": {"clips": 4}, "bytes": 1, "shards": 1, "members": 4, "bad": 0, "left_out": 0}
        summary |= {"rounded": 0, "clipped": 0, "kept_shards": 0}
        (out / ".started.json").write_text(json.dumps({"fingerprint": fingerprint, "summary": summary}))
        (out / ".pack.json.partial").touch()
    if left == "end":
        (out / "shard-00000.tar.json").write_text("{}")
    found = pack({"clips": clips_of(sounds)}, out, PackOptions("wav", workers=0))
    assert found.clips == {"clips": 4} and found.members == 4
    assert content_of(out) == content_of(whole)
