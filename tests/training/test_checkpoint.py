"""Checkpoints survive crashes and tell damage."""

import multiprocessing
import os
import random
import signal
import time
import zipfile
from pathlib import Path

import pytest
import soundfile
import torch

from m2dx.contract.errors import CheckpointError
from m2dx.encoder.checkpoint import CheckpointFolder, load_plain, read_checked, write_atomically


def state(step: int, *, size: int = 100) -> dict[str, object]:
    return {
        "step": step,
        "weights": torch.full((size,), float(step)),
        "nested": {"list": [1, 2.5, None, "x"]},
    }


def is_whole(loaded: dict[str, object]) -> bool:
    weights = loaded["weights"]
    return isinstance(weights, torch.Tensor) and bool((weights == loaded["step"]).all())


def test_round_trip(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a.pt", state(3))
    loaded = read_checked(tmp_path / "a.pt")
    assert loaded["nested"] == {"list": [1, 2.5, None, "x"]} and is_whole(loaded)
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


def test_pruning(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path / "checkpoints")
    assert folder.newest() is None and folder.load_newest_whole() is None
    for step in range(2, 21, 2):
        folder.save(step, state(step), keep_last=2, keep_every=6)
    assert folder.steps() == [6, 12, 18, 20]
    assert folder.newest() == folder.file(20) == tmp_path / "checkpoints" / "step-00000020.pt"
    folder.save(22, state(22), keep_last=1)
    assert folder.steps() == [22]


def test_steps_are_counted_as_numbers(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    for step in (99_999_999, 100_000_000):
        folder.save(step, state(step), keep_last=2)
    assert folder.steps() == [99_999_999, 100_000_000]
    (tmp_path / "step-7.pt").touch()
    (tmp_path / "notes.txt").touch()
    assert folder.newest() == folder.file(100_000_000)


@pytest.mark.parametrize("left", [0, 1, 100, -1])
def test_truncated_files_are_told(tmp_path: Path, left: int, caplog: pytest.LogCaptureFixture) -> None:
    folder = CheckpointFolder(tmp_path)
    for step in (1, 2):
        folder.save(step, state(step), keep_last=2)
    folder.file(2).write_bytes(folder.file(2).read_bytes()[:left])
    found = folder.load_newest_whole()
    assert found is not None and found.path == folder.file(1) and is_whole(found.state)
    assert f"{folder.file(2)}: not a whole checkpoint" in caplog.text
    folder.file(1).write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"(?s)no checkpoint can be read:.*00000002.*00000001"):
        folder.load_newest_whole()


def test_no_flipped_bit_goes_unnoticed(tmp_path: Path) -> None:
    """Each is told, or does not matter (padding, dates): what loads is what was saved."""
    path = tmp_path / "a.pt"
    write_atomically(path, state(5))
    whole, draw, told = path.read_bytes(), random.Random(0), 0
    for place in draw.sample(range(len(whole)), 400):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        try:
            loaded = read_checked(path)
        except CheckpointError as error:
            assert str(path) in str(error)
            told += 1
        else:
            assert is_whole(loaded) and loaded["nested"] == {"list": [1, 2.5, None, "x"]}
    assert told > 100


def test_a_flipped_compression_method_is_told(tmp_path: Path) -> None:
    """The records are stored; with that bit they look deflated."""
    path = tmp_path / "a.pt"
    write_atomically(path, state(5))
    whole, place = path.read_bytes(), -1
    while (place := whole.find(b"PK\x01\x02", place + 1)) >= 0:
        damaged = bytearray(whole)
        damaged[place + 10] ^= 8
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError):
            read_checked(path)


def test_a_zip_bomb_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    write_atomically(path, state(5))
    with zipfile.ZipFile(path, "a", compression=zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data/9", b"0" * 10**8)
    started = time.monotonic()
    with pytest.raises(CheckpointError, match=r"a\.pt: damaged: records must be stored, but are compressed"):
        read_checked(path)
    assert time.monotonic() - started < 0.5


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"step": 1, "evil": Evil()}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError):
        read_checked(tmp_path / "a.pt")
    assert not (tmp_path / "ran").exists()


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    write_atomically(path, state(1))
    partial = tmp_path / ".a.pt.partial"
    partial.symlink_to("/dev/full")
    with pytest.raises(CheckpointError, match=r"a\.pt could not be written: No space left.*before is whole"):
        write_atomically(path, state(2, size=1_000_000))
    assert read_checked(path)["step"] == 1
    assert not partial.is_symlink()  # what was written of it takes no space


@pytest.mark.filterwarnings("ignore:.*torch.jit", "ignore:.*TorchScript")
@pytest.mark.parametrize("kind", ["zip", "old", "script"])
def test_other_objects_are_refused_without_torch_s_advice(tmp_path: Path, kind: str) -> None:
    """torch advises to set weights_only=False, which runs the code in the file."""
    path = tmp_path / "a.pt"
    value = {"when": time.struct_time(range(9))}
    torch.save(value, path, _use_new_zipfile_serialization=kind != "old")
    if kind == "script":
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("a/constants.pkl", b"")  # what TorchScript is told by
    with pytest.raises(CheckpointError, match="other than tensors and plain data") as error:
        load_plain(path)
    assert "not loaded for safety" in str(error.value) and "weights_only" not in str(error.value)
    assert error.value.__suppress_context__


@pytest.mark.parametrize("name", ["a.wav", "a.FLAC", "a.m4a"])
def test_an_audio_file_in_the_place_of_an_encoder_is_told(tmp_path: Path, name: str) -> None:
    soundfile.write(tmp_path / name, [0.0] * 800, 16_000, format="WAV")
    with pytest.raises(CheckpointError, match=f"{name}: an audio file, where an encoder must be"):
        load_plain(tmp_path / name)


def test_a_file_is_synced_before_it_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the folder after it: without both, a power cut may leave an empty file under the final name."""
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda number: (calls.append("fsync"), fsync(number)))
    monkeypatch.setattr(os, "replace", lambda *args: (calls.append("rename"), replace(*args)))
    write_atomically(tmp_path / "a.pt", state(1))
    assert calls == ["fsync", "rename", "fsync"]


def save_forever(path: Path) -> None:
    fsync = os.fsync

    def slow(number: int) -> None:
        time.sleep(0.02)
        fsync(number)

    os.fsync = slow
    folder, step = CheckpointFolder(path), 0
    while True:
        step += 1
        folder.save(step, state(step, size=200_000), keep_last=2)


def test_kill_9_during_a_save(tmp_path: Path) -> None:
    """Whenever it comes, a whole checkpoint is left, and the partial file is cleared by the next save."""
    folder, draw, partial = CheckpointFolder(tmp_path), random.Random(1), 0
    for _ in range(8):
        process = multiprocessing.get_context("fork").Process(target=save_forever, args=(tmp_path,))
        process.start()
        deadline = time.monotonic() + 30
        while not folder.steps() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(draw.uniform(0.05, 0.12))
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        partial += len(list(tmp_path.glob(".step-*.partial")))
        found = folder.load_newest_whole()
        assert found is not None and is_whole(found.state)
        assert found.path == folder.newest()  # not one of the files under a final name is damaged
    assert partial > 0  # else nothing was interrupted
    folder.save(10_000, state(10_000), keep_last=1)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_damaged_later_file_neither_counts_nor_pushes_out_whole_ones(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    for step in (10, 20):
        folder.save(step, state(step), keep_last=1, keep_every=10)
    folder.file(20).write_bytes(b"damaged")
    folder.save(13, state(13), keep_last=1, keep_every=10)  # a run that went on from 10 was stopped at 13
    assert folder.steps() == [10, 13]
    found = folder.load_newest_whole()
    assert found is not None and found.path == folder.file(13)
    assert (tmp_path / "step-00000020.pt.damaged").read_bytes() == b"damaged"


def test_an_encoder_comes_before_its_checkpoint_and_goes_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = CheckpointFolder(tmp_path)

    def save(step: int) -> None:
        folder.save(step, state(step), encoder=lambda file: file.write(b"%d" % step), keep_last=2)

    (tmp_path / "step-00000009.encoder.safetensors").touch()  # of a save that was killed
    changes: list[str] = []
    replace, unlink = os.replace, Path.unlink
    monkeypatch.setattr(os, "replace", lambda *args: (changes.append(args[1].name), replace(*args)))
    monkeypatch.setattr(Path, "unlink", lambda path: (changes.append(f"no {path.name}"), unlink(path)))
    for step in (1, 2, 3):
        save(step)
    assert changes == [
        "step-00000001.encoder.safetensors",
        "step-00000001.pt",
        "no step-00000009.encoder.safetensors",
        "step-00000002.encoder.safetensors",
        "step-00000002.pt",
        "step-00000003.encoder.safetensors",
        "step-00000003.pt",
        "no step-00000001.pt",
        "no step-00000001.encoder.safetensors",
    ]
    assert folder.steps() == folder.encoder_steps() == [2, 3] and folder.encoder(3).read_bytes() == b"3"
