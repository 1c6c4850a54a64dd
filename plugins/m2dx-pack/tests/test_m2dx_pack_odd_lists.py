"""What is odd in a list: audio that a format cannot hold, names that end in no format, files that are not there yet."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from m2dx_pack.packing import ClipSet, PackOptions, pack
from m2dx_pack.reading import PackedDataset

from m2dx.contract.components import Clip
from m2dx.contract.errors import AudioError
from m2dx.data.reading import probe, read_wav

RATE = 16_000


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """A folder with `a.wav`, 3 s of noise."""
    (tmp_path / "sounds").mkdir()
    wav = (3000 * np.random.default_rng(0).standard_normal(3 * RATE)).astype(np.int16)
    soundfile.write(tmp_path / "sounds" / "a.wav", wav, RATE)
    return tmp_path / "sounds"


def test_audio_that_a_format_cannot_hold_is_left_out(recordings: Path, tmp_path: Path) -> None:
    soundfile.write(recordings / "bats.wav", np.zeros(70_000, np.int16), 700_000)
    soundfile.write(recordings / "b.mp3", np.zeros(RATE), RATE)
    soundfile.write(recordings / "loud.wav", np.float32([0, 20_000]).repeat(RATE), RATE, subtype="FLOAT")
    padded = bytes(100) + (recordings / "b.mp3").read_bytes()  # then only the name says that it is MP3
    (recordings / "b.mp3").write_bytes(padded)
    source = ClipSet(
        tuple(Clip(recordings / name) for name in ("a.wav", "bats.wav", "b.mp3", "loud.wav")), ()
    )
    scale = "loud.wav\tsamples up to 20000, where full scale is 1; divide those of 16 bits by 32768, or store the files"
    for form, *reasons in (
        ("flac", "bats.wav\tcannot be stored as flac at 700000 Hz", scale),
        ("wav", scale),
        ("keep", "b.mp3\tcannot be kept"),
    ):
        summary = pack({"clips": source}, tmp_path / form, PackOptions(form, workers=0, max_bad_fraction=0.5))
        assert (summary.bad, summary.members) == (len(reasons), 4 - len(reasons))
        table = (tmp_path / form / "bad_files.tsv").read_text()
        assert [reason for reason in reasons if reason not in table] == []
        for clip in PackedDataset(path=tmp_path / form).clips():
            assert len(read_wav(clip.path))


def test_a_name_that_ends_in_no_format_is_kept_without_its_end(recordings: Path, tmp_path: Path) -> None:
    odd = (recordings / "a.wav").rename(recordings / ("a.wav, the first of " + "many " * 30))
    pack({"clips": ClipSet((Clip(odd),), ())}, tmp_path / "out", PackOptions("keep", workers=0))
    (clip,) = PackedDataset(path=tmp_path / "out").clips()
    assert clip.path.name == "00000-000000"
    assert probe(clip.path).frames == 3 * RATE


def test_numbers_of_numpy_in_a_list_are_packed(recordings: Path, tmp_path: Path) -> None:
    clip = Clip(recordings / "a.wav", start=np.int64(1), duration=np.float32(0.5), weight=np.float32(2))
    pack({"clips": ClipSet((clip,), ())}, tmp_path / "out", PackOptions(workers=0))
    (packed,) = PackedDataset(path=tmp_path / "out").clips()
    assert (packed.start, packed.duration, packed.weight) == (0.0, 0.5, 2.0)


def test_a_packing_that_lost_its_disk_is_no_pack_and_goes_on_with_the_shards_before(
    recordings: Path, tmp_path: Path
) -> None:
    for i in range(9):
        soundfile.write(recordings / f"{i}.wav", np.full(RATE, i, np.int16), RATE)
    source = ClipSet(tuple(Clip(recordings / f"{i}.wav") for i in range(9)), ())
    options, out = PackOptions("wav", shard_bytes=60_000, workers=0), tmp_path / "out"  # two files a shard
    pack({"clips": source}, tmp_path / "whole", options)
    for i in (5, 7, 8):
        (recordings / f"{i}.wav").rename(tmp_path / f"{i}.wav")
    with pytest.raises(
        AudioError, match=r"at most 5.0% of the 9 files may be unusable, but 3 are.*\n.*5.wav: missing"
    ):
        pack({"clips": source}, out, options)
    assert sorted(path.name for path in out.glob("*.tar")) == ["shard-00000.tar", "shard-00001.tar"]
    with pytest.raises(AudioError, match="must be a finished pack"):
        PackedDataset(path=out).clips()
    for i in (5, 7, 8):
        (tmp_path / f"{i}.wav").rename(recordings / f"{i}.wav")
    assert pack({"clips": source}, out, options).kept_shards == 2
    for file in (tmp_path / "whole").iterdir():
        assert (out / file.name).read_bytes() == file.read_bytes()


def test_a_packing_without_a_usable_file_can_be_started_again(recordings: Path, tmp_path: Path) -> None:
    late = ClipSet((Clip(tmp_path / "mount" / "a.wav"),), ())
    with pytest.raises(AudioError, match="must be audio to pack, but none of 1 file can be used"):
        pack({"clips": late}, tmp_path / "out", PackOptions(workers=0, max_bad_fraction=1.0))
    recordings.rename(tmp_path / "mount")
    assert pack({"clips": late}, tmp_path / "out", PackOptions(workers=0)).members == 1
