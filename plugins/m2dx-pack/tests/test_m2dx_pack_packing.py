"""Packs: the same clips, samples and losses as the files they were made of."""

import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from filelock import FileLock
from m2dx_pack import packing
from m2dx_pack.packing import ClipSet, PackOptions, make_segments, pack
from m2dx_pack.reading import PackedDataset

from m2dx.contract.components import Clip, Dataset
from m2dx.contract.errors import AudioError
from m2dx.data.clips import join_sets
from m2dx.data.containers import audio_state, find_member, is_there, origin_of
from m2dx.data.csv_list import CsvDataset
from m2dx.data.pcm import PlainWav
from m2dx.data.reading import AudioFile, probe, read_wav
from m2dx.testing import check_dataset

RATE = 16_000


def hiss(seconds: float, *, seed: int = 0, rate: int = RATE) -> np.ndarray:
    """16-bit noise."""
    return (3000 * np.random.default_rng(seed).standard_normal(round(seconds * rate))).astype(np.int16)


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Five recordings of several formats, and a list of clips in them."""
    folder = tmp_path / "sounds"
    folder.mkdir()
    for i, name in enumerate(("a.wav", "b.flac", "c.wav")):
        soundfile.write(folder / name, hiss(3.0, seed=i), RATE)
    soundfile.write(folder / "long.wav", hiss(60.0, seed=5), RATE)
    soundfile.write(folder / "stereo.wav", np.stack([hiss(2.0), hiss(2.0, seed=9)], axis=1), 44_100)
    lines = [
        "path,start,duration,label,split,group,weight",
        "a.wav,,,dog;cat,train,one,1",
        "long.wav,50.25,2.5,cat,train,two,2",
        "b.flac,0.5,2.0,bird,valid,one,1",
        "long.wav,10.1,5,dog,train,two,0.5",
        "long.wav,12.5,5.2501,,valid,,1",
        "c.wav,,,,train,,1",
        "stereo.wav,0.3,,dog,train,,1",
    ]
    (folder / "list.csv").write_text("\n".join(lines) + "\n")
    return folder


def clip_set(dataset: Dataset) -> ClipSet:
    return ClipSet(tuple(dataset.clips()), dataset.label_names())


def pack_csv(folder: Path, out: Path, **options: object) -> PackedDataset:
    source = clip_set(CsvDataset(path=folder / "list.csv"))
    pack({"clips": source}, out, PackOptions(workers=0, **options))
    return PackedDataset(path=out)


def samples_of(clip: Clip, rate: int) -> np.ndarray:
    return read_wav(clip.path, start=clip.start, duration=clip.duration, sample_rate=rate)


@pytest.mark.parametrize("form", ["flac", "wav", "keep"])
def test_a_pack_has_the_clips_and_their_samples(form: str, recordings: Path, tmp_path: Path) -> None:
    packed = pack_csv(recordings, tmp_path / "out", form=form, shard_bytes=200_000)
    source = CsvDataset(path=recordings / "list.csv")
    assert packed.label_names() == source.label_names() == ("bird", "cat", "dog")
    assert len(list((tmp_path / "out").glob("*.tar"))) > 1
    for old, new in zip(source.clips(), packed.clips(), strict=True):
        assert (new.labels, new.split, new.weight, new.duration) == (
            old.labels, old.split, old.weight, old.duration
        )  # fmt: skip
        assert old.group is None or new.group == old.group
        rate = probe(new.path).sample_rate
        expected, got = samples_of(old, rate), samples_of(new, rate)
        if old.path.name == "stereo.wav" and form != "keep":
            np.testing.assert_allclose(got, expected, atol=2**-16)
        else:
            np.testing.assert_array_equal(got, expected)
    assert packed.clips("valid") == [clip for clip in packed.clips() if clip.split == "valid"]
    assert packed.missing() == []


def test_a_packed_data_set_keeps_the_contract(recordings: Path, tmp_path: Path) -> None:
    pack_csv(recordings, tmp_path / "out")
    check_dataset(PackedDataset, path=tmp_path / "out")


def test_only_the_listed_stretches_are_stored_and_once(recordings: Path, tmp_path: Path) -> None:
    source = clip_set(CsvDataset(path=recordings / "list.csv"))
    segments = make_segments([source, source], whole_files=False)
    assert [(Path(s.path).name, s.start, s.end) for s in segments] == [
        ("a.wav", 0, None),
        ("long.wav", 50, 52.75),
        ("b.flac", 0, 2.5),
        ("long.wav", 10, 17.7501),
        ("c.wav", 0, None),
        ("stereo.wav", 0, None),
    ]
    packed = pack_csv(recordings, tmp_path / "out", form="wav")
    lengths = {clip.path.name: probe(clip.path).seconds for clip in packed.clips()}
    assert sum(lengths.values()) == pytest.approx(3 + 2.75 + 7.7501 + 2.5 + 3 + 32_000 / 44_100, abs=0.01)


@pytest.mark.parametrize(
    ("form", "splits", "groups"),
    [
        ("flac", ("train", "train"), ["file long.wav", "file long.wav", "two", None]),
        ("wav", ("train", "test"), ["file long.wav, train", "file long.wav, test", "two", None]),
        ("keep", ("train", "train"), [None, None, "two", None]),
    ],
)
def test_segments_of_one_file_stay_together(
    form: str, splits: tuple[str, str], groups: list[str | None], recordings: Path, tmp_path: Path
) -> None:
    lines = [
        "path,start,duration,label,split,group",
        f"long.wav,5,2,dog,{splits[0]},",
        f"long.wav,20,2,cat,{splits[1]},",
        "long.wav,40,2,cat,train,two",
        "a.wav,1,2,cat,train,",
    ]
    (recordings / "list.csv").write_text("\n".join(lines) + "\n")
    packed = pack_csv(recordings, tmp_path / "out", form=form)
    assert [clip.group for clip in packed.clips()] == groups


def test_sets_that_share_files_share_clips_in_the_pack_too(recordings: Path, tmp_path: Path) -> None:
    all_clips = clip_set(CsvDataset(path=recordings / "list.csv"))
    some = ClipSet(all_clips.clips[1:4], ("cat", "dog", "bird"))
    pack({"all": all_clips, "some": some}, tmp_path / "out", PackOptions(workers=0))
    parts = {name: (PackedDataset(path=tmp_path / "out", part=name), None) for name in ("some", "all")}
    clips = join_sets(parts)
    assert len(clips) == 7
    assert clips.label_names == {"some": ("cat", "dog", "bird"), "all": ("bird", "cat", "dog")}
    assert clips.labels(0)["some"].tolist() == [1, 0, 0]


def test_a_rate_is_that_of_what_is_stored(recordings: Path, tmp_path: Path) -> None:
    packed = pack_csv(recordings, tmp_path / "out", sample_rate=8000)
    assert {probe(clip.path).sample_rate for clip in packed.clips()} == {8000}
    old = CsvDataset(path=recordings / "list.csv").clips()[1]
    expected, got = samples_of(old, 8000), samples_of(packed.clips()[1], 8000)
    inner = slice(200, -200)  # resampling a cut sees other samples at its ends
    np.testing.assert_allclose(got[inner], expected[inner], atol=2e-4)


def test_a_wav_member_is_read_in_place_and_opens_the_shard_once(recordings: Path, tmp_path: Path) -> None:
    clip = pack_csv(recordings, tmp_path / "out", form="wav").clips()[1]
    with AudioFile(clip.path) as file:
        assert file.read_stored(5000, 1000, sample_rate=RATE).dtype == np.int16
        assert isinstance(file._source, PlainWav)  # read without a decoder
    assert find_member(str(clip.path)) == find_member(str(clip.path)) is not None


def test_what_is_there_and_has_changed(recordings: Path, tmp_path: Path) -> None:
    path = pack_csv(recordings, tmp_path / "out").clips()[0].path
    assert is_there(path) and is_there(recordings / "a.wav")
    assert not is_there(path.with_name("00000-000099.flac")) and not is_there(tmp_path / "none.wav")
    shard = json.loads((tmp_path / "out" / "pack.json").read_text())["shardlist"][0]
    assert audio_state(path) == [shard["sha256"]]
    assert audio_state(recordings / "a.wav")[0] == (recordings / "a.wav").stat().st_size
    assert audio_state(tmp_path / "none.wav") == audio_state(tmp_path / "out" / "x.tar" / "1.wav") == []
    (tmp_path / "out" / "shard-00000.tar").unlink()
    assert not is_there(path)


def test_a_clip_of_a_pack_says_what_it_was_made_of(recordings: Path, tmp_path: Path) -> None:
    packed = pack_csv(recordings, tmp_path / "out").clips()
    for old, new in zip(CsvDataset(path=recordings / "list.csv").clips(), packed, strict=True):
        found = origin_of(new)
        assert found is not None and origin_of(old) is None
        assert (found.path, found.start, found.duration) == (old.path, pytest.approx(old.start), old.duration)
    shard = tmp_path / "out" / "shard-00000.tar"
    shard.write_bytes(shard.read_bytes().replace(b'{"source"', b'["source"'))
    with pytest.raises(AudioError, match=r"the JSON beside 00000-000000\.flac cannot be read"):
        origin_of(packed[0])


def test_a_list_may_name_what_is_in_a_pack(recordings: Path, tmp_path: Path) -> None:
    path = pack_csv(recordings, tmp_path / "out").clips()[0].path
    (tmp_path / "list.csv").write_text(f"path\n{path}\n{path.with_name('00000-000099.flac')}\n")
    listed = CsvDataset(path=tmp_path / "list.csv")
    assert listed.missing()[0].startswith("1 of 2 files")
    np.testing.assert_array_equal(read_wav(listed.clips()[0].path), read_wav(recordings / "a.wav"))


def test_a_folder_that_is_packed_anew_is_read_anew(recordings: Path, tmp_path: Path) -> None:
    def fingerprint(packed: PackedDataset) -> str:
        return join_sets({"clips": (packed, None)}).fingerprint

    packed = pack_csv(recordings, tmp_path / "out", form="wav")
    path = packed.clips()[0].path
    old, before = read_wav(path), fingerprint(packed)
    shutil.rmtree(tmp_path / "out")
    assert fingerprint(pack_csv(recordings, tmp_path / "out", form="wav")) == before
    shutil.rmtree(tmp_path / "out")
    soundfile.write(recordings / "a.wav", hiss(3.0, seed=77), RATE)
    assert fingerprint(pack_csv(recordings, tmp_path / "out", form="wav")) != before
    assert not np.array_equal(read_wav(path), old)
    np.testing.assert_array_equal(read_wav(path), read_wav(recordings / "a.wav"))


@pytest.mark.parametrize("form", ["wav", "keep"])
def test_an_open_file_can_be_read_when_its_pack_has_let_go_of_the_shard(
    form: str, recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("m2dx_pack.reading._MOST_OPEN", 1)
    monkeypatch.setattr("m2dx_pack.reading._MOST_IN_MEMORY", 1000)
    first, *_, last = pack_csv(recordings, tmp_path / "out", form=form, shard_bytes=50_000).clips()
    assert first.path.parent != last.path.parent
    with AudioFile(first.path) as file:
        read_wav(last.path)
        np.testing.assert_array_equal(
            file.read(0, 3 * RATE, sample_rate=RATE), read_wav(recordings / "a.wav")
        )


def test_a_large_member_is_read_in_part(
    recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("m2dx_pack.reading._MOST_IN_MEMORY", 1000)
    packed, source = pack_csv(recordings, tmp_path / "out"), CsvDataset(path=recordings / "list.csv")
    np.testing.assert_array_equal(samples_of(packed.clips()[3], RATE), samples_of(source.clips()[3], RATE))


def test_files_that_cannot_be_used_are_listed_and_left_out(recordings: Path, tmp_path: Path) -> None:
    (recordings / "a.wav").write_bytes(b"no audio")
    (recordings / "c.wav").unlink()
    with (recordings / "list.csv").open("a") as file:
        file.write("b.flac,1,20,dog,,,1\n")
    source = clip_set(CsvDataset(path=recordings / "list.csv"))
    summary = pack({"clips": source}, tmp_path / "out", PackOptions(workers=0, max_bad_fraction=0.6))
    assert (summary.bad, summary.left_out, summary.clips) == (3, 3, {"clips": 5})
    table = (tmp_path / "out" / "bad_files.tsv").read_text().splitlines()
    assert [Path(line.split("\t")[0]).name for line in table[1:]] == ["a.wav", "b.flac", "c.wav"]
    assert "truncated: listed to 21.000 s" in table[2]
    assert [clip.group for clip in PackedDataset(path=tmp_path / "out").clips()][:2] == ["two", "one"]


def test_only_one_process_packs_into_a_folder(recordings: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with FileLock(out / ".lock"), pytest.raises(AudioError, match="only one process may pack into"):
        pack_csv(recordings, out)
    pack_csv(recordings, out)
    assert not (out / ".lock").exists()


class _Stop(Exception):
    pass


def content_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_an_interrupted_packing_goes_on(
    recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"form": "wav", "shard_bytes": 100_000}
    pack_csv(recordings, tmp_path / "whole", **options)
    encode, seen = packing.Members.__getitem__, []

    def stopping(self: packing.Members, number: int) -> object:
        seen.append(number)
        if number == 4:
            raise _Stop
        return encode(self, number)

    monkeypatch.setattr(packing.Members, "__getitem__", stopping)
    monkeypatch.setattr(packing, "_BATCH", 1)
    with pytest.raises(_Stop):
        pack_csv(recordings, tmp_path / "out", **options)
    assert not (tmp_path / "out" / "pack.json").exists()
    with pytest.raises(AudioError, match="finished pack"):
        PackedDataset(path=tmp_path / "out").clips()
    (tmp_path / "out" / ".shard-00009.tar.partial").write_bytes(b"cut")
    monkeypatch.setattr(packing.Members, "__getitem__", encode)
    source = clip_set(CsvDataset(path=recordings / "list.csv"))
    summary = pack({"clips": source}, tmp_path / "out", PackOptions(workers=0, **options))
    assert summary.kept_shards > 0
    assert content_of(tmp_path / "out") == content_of(tmp_path / "whole")


@pytest.mark.parametrize(
    ("change", "kept"),
    [({}, 3), ({"0": 0.1}, 0), ({"3": 3.0}, 1), ({"5": 0.1}, 2), ({"6": 3.0}, 3), ({"0": None}, 3)],
)
def test_shards_whose_files_changed_are_packed_again(
    change: dict[str, float | None], kept: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Two files a shard, until the files have other lengths; one that is gone is still that which was packed."""
    folder, out = tmp_path / "sounds", tmp_path / "out"
    folder.mkdir()
    for name in "01234567":
        soundfile.write(folder / f"{name}.wav", hiss(1.0, seed=int(name)), RATE)
    source = {"clips": ClipSet(tuple(Clip(folder / f"{name}.wav") for name in "01234567"), ())}
    options = PackOptions("wav", shard_bytes=60_000, workers=0)

    def stop(done: int, total: int, text: str) -> None:
        if done == 7:
            raise _Stop

    with pytest.raises(_Stop):
        pack(source, out, options, progress=stop)
    for name, seconds in change.items():
        if seconds is None:
            (folder / f"{name}.wav").unlink()
        else:
            soundfile.write(folder / f"{name}.wav", hiss(seconds, seed=99), RATE)
    assert pack(source, out, options).kept_shards == kept
    assert ("has changed since it was packed into shard-0000" in caplog.text) == (kept < 3)
    if None not in change.values():
        pack(source, tmp_path / "whole", options)
        assert content_of(out) == content_of(tmp_path / "whole")


def killed_at(operation: int, work: Callable[[], object]) -> bool:
    """Does the work in a fork that ends before one of its operations on files; whether it came so far."""
    process = os.fork()
    if process == 0:
        code = 1
        try:
            left = [operation]
            for name in ("replace", "unlink"):
                setattr(os, name, counted_down(getattr(os, name), left))
            work()
            code = 0
        finally:  # else an error would leave a second pytest
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert code in (0, 9)
    return code == 9


def counted_down(function: Callable[..., object], left: list[int]) -> Callable[..., object]:
    def call(*arguments: object, **options: object) -> object:
        left[0] -= 1
        if left[0] < 0:
            os._exit(9)
        return function(*arguments, **options)

    return call


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_packing_that_was_killed_anywhere_goes_on_to_the_same_pack(
    recordings: Path, tmp_path: Path
) -> None:
    options = {"form": "wav", "shard_bytes": 1_000_000}
    pack_csv(recordings, tmp_path / "whole", **options)
    whole, out, operation = contents(tmp_path / "whole"), tmp_path / "out", 0
    while killed_at(operation, lambda: pack_csv(recordings, out, **options)):
        if contents(out).keys() - {".lock"} != whole.keys():  # else it was killed when all was done
            pack_csv(recordings, out, **options)
        (out / ".lock").unlink(missing_ok=True)
        assert contents(out) == whole, operation
        shutil.rmtree(out)
        operation += 1
    assert operation > 10


def test_a_folder_that_is_for_something_else_is_left_alone(recordings: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pack_csv(recordings, out)
    with pytest.raises(AudioError, match="must not be a finished pack"):
        pack_csv(recordings, out)
    with pytest.raises(AudioError, match=r"must be empty or new, but has a\.wav"):
        pack_csv(recordings, recordings)
    (out / "pack.json").unlink()
    (out / ".started.json").write_text(json.dumps({"fingerprint": "another"}))
    with pytest.raises(AudioError, match="started with other clips or options"):
        pack_csv(recordings, out)


def test_a_full_disk_is_told_with_what_to_do(
    recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: object, *_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tarfile.TarFile, "addfile", full)
    with pytest.raises(
        AudioError, match=r"the disk is full\. Free some space and start the same command again"
    ):
        pack_csv(recordings, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".started.json"]


def cut_shard(out: Path) -> None:
    os.truncate(out / "shard-00000.tar", 5000)


def remove_shard(out: Path) -> None:
    (out / "shard-00000.tar").unlink()


@pytest.mark.parametrize(
    ("harm", "reason"),
    [(cut_shard, "truncated: the shard shard-00000.tar"), (remove_shard, "missing: the shard")],
)
def test_a_shard_that_is_not_whole_is_told(harm, reason: str, recordings: Path, tmp_path: Path) -> None:
    packed = pack_csv(recordings, tmp_path / "out")
    harm(tmp_path / "out")
    assert packed.missing()[0].startswith("1 of 1 shards")
    with pytest.raises(AudioError, match=reason):
        read_wav(packed.clips()[0].path)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("out/shard-00000.tar/00000-000099.flac", "no member shard-00000.tar/00000-000099.flac"),
        ("out/shard-00007.tar/00007-000000.flac", "no member"),
        ("out/shard-00000.tar/other.flac", "no member"),
        ("alone.tar/00000-000000.flac", "alone.tar has no pack.json beside it"),
        ("folder.tar/none.wav", "missing: no such file"),
    ],
)
def test_a_path_into_a_shard_that_leads_nowhere(
    path: str, reason: str, recordings: Path, tmp_path: Path
) -> None:
    pack_csv(recordings, tmp_path / "out")
    (tmp_path / "alone.tar").write_bytes(b"x")
    (tmp_path / "folder.tar").mkdir()
    with pytest.raises(AudioError, match=reason):
        read_wav(tmp_path / path)


def test_audio_in_a_folder_named_like_a_shard_is_read(tmp_path: Path) -> None:
    (tmp_path / "sounds.tar").mkdir()
    soundfile.write(tmp_path / "sounds.tar" / "a.wav", hiss(1.0), RATE)
    assert probe(tmp_path / "sounds.tar" / "a.wav").frames == RATE


def change(name: str, old: str, new: str):
    def harm(out: Path) -> None:
        path = out / name
        path.write_text(path.read_text().replace(old, new))

    return harm


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (change("pack.json", '"m2dx_pack": 1', '"m2dx_pack": 9'), "version 1, but says 9"),
        (change("pack.json", "{", "["), "cannot be read: pack.json"),
        (change("pack.json", '"nsamples": 6', '"nsamples": 7'), "members.npy does not fit"),
        (change("clips.jsonl", "{", "["), "clips.jsonl has another SHA-256"),
        (change("pack.json", '"clips": 7', '"clips": 8'), "must have 8 clips, but has 7"),
        (lambda out: (out / "members.npy").unlink(), "members.npy"),
        (lambda out: (out / "pack.json").unlink(), "must be a finished pack"),
    ],
)
def test_a_damaged_pack_is_told(harm, reason: str, recordings: Path, tmp_path: Path) -> None:
    pack_csv(recordings, tmp_path / "out")
    harm(tmp_path / "out")
    with pytest.raises(AudioError, match=reason):
        PackedDataset(path=tmp_path / "out").clips()


def test_a_pack_of_several_lists_wants_to_know_which(recordings: Path, tmp_path: Path) -> None:
    source = clip_set(CsvDataset(path=recordings / "list.csv"))
    pack({"one": source, "two": source}, tmp_path / "out", PackOptions(workers=0))
    for part in (None, "three"):
        with pytest.raises(AudioError, match=r"`part` must be one of the lists of .* \('one', 'two'\)"):
            PackedDataset(path=tmp_path / "out", part=part).clips()


def test_shards_are_plain_tar_files_of_samples(recordings: Path, tmp_path: Path) -> None:
    pack_csv(recordings, tmp_path / "out")
    with tarfile.open(tmp_path / "out" / "shard-00000.tar") as tar:
        content = {member.name: tar.extractfile(member).read() for member in tar}
    assert list(content)[:3] == ["00000-000000.flac", "00000-000000.json", "00000-000001.flac"]
    about = json.loads(content["00000-000000.json"])
    assert about["source"] == str(recordings / "a.wav")
    assert about["clips"] == [{"list": "clips", "labels": ["dog", "cat"], "split": "train", "group": "one"}]
    wav, rate = soundfile.read(io.BytesIO(content["00000-000000.flac"]), dtype="int16")
    assert rate == RATE
    np.testing.assert_array_equal(wav, hiss(3.0))


def test_webdataset_reads_the_shards(recordings: Path, tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    packed = pack_csv(recordings, tmp_path / "out")
    shards = sorted(str(path) for path in (tmp_path / "out").glob("*.tar"))
    samples = list(webdataset.WebDataset(shards, shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == [f"00000-{i:06}" for i in range(6)]
    expected = read_wav(packed.clips()[0].path)
    wav, _ = soundfile.read(io.BytesIO(samples[0]["flac"]), dtype="float32")
    np.testing.assert_array_equal(wav, expected)


def test_a_loading_process_packs_the_same(recordings: Path, tmp_path: Path) -> None:
    source = clip_set(CsvDataset(path=recordings / "list.csv"))
    for workers in (0, 1):
        pack({"clips": source}, tmp_path / str(workers), PackOptions(workers=workers))
    assert content_of(tmp_path / "0") == content_of(tmp_path / "1")
    assert torch.get_num_threads() >= 1
