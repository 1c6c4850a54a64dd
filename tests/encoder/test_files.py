"""Features of files: those of each clip alone, whatever it is read and batched with, in every kind of table."""

import copy
import csv
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from m2dx.cli import app
from m2dx.contract.components import Clip
from m2dx.contract.errors import AudioError, CheckpointError, M2dxError
from m2dx.data import reading
from m2dx.data.reading import read_wav
from m2dx.encoder import files
from m2dx.encoder.audio import AudioEncoder, load_encoder, random_encoder
from m2dx.encoder.config import EncoderConfig
from m2dx.encoder.files import Encoded, check_output, encode_clips, write_features
from m2dx.encoder.weights import write_export
from m2dx.recipe.schema import AudioSection, ModelSection

AUDIO = AudioSection(crop_seconds=0.64)  # 64 frames, 4 of patches
MODEL = ModelSection(size="tiny", depth=1, patch_size=(16, 16))
LENGTHS = (0.64, 3.0, 0.64, 0.001, 1.28, 0.64, 2.345, 0.7, 0.64)


@pytest.fixture(scope="module")
def encoder() -> AudioEncoder:
    return random_encoder(AUDIO, MODEL, mean=-7.0, std=4.0, seed=0)


@pytest.fixture
def clips(make_wav: Callable[..., Path]) -> list[Clip]:
    """Whole files of many lengths and two rates, and segments of one."""
    rates = [16_000, 44_100]
    paths = [make_wav(f"{i}.wav", seconds=s, rate=rates[i % 2], seed=i) for i, s in enumerate(LENGTHS)]
    segments = [Clip(paths[1], start=0.5, duration=1.0), Clip(paths[1], start=2.5), Clip(paths[1])]
    return [*map(Clip, paths), *segments]


def encoded(encoder: AudioEncoder, clips: list[Clip], *, frames: bool = False) -> tuple[list[Encoded], Any]:
    bad: list[tuple[Path, str]] = []
    told: list[float] = []

    def progress(done: float, total: int, news: str) -> None:
        assert total == len(clips) and not news
        told.append(done)

    found = list(encode_clips(encoder, clips, frames=frames, bad=bad, progress=progress))
    assert told[-1] == len(clips) and all(np.diff(told) > -0.1)
    return found, bad


@pytest.mark.parametrize("patches", [1, 40, 10_000])
@pytest.mark.parametrize("piece_seconds", [1, 60])
@torch.no_grad()
def test_features_are_those_of_each_clip_alone(
    encoder: AudioEncoder,
    clips: list[Clip],
    patches: int,
    piece_seconds: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alone = []
    for clip in clips:
        wav = read_wav(clip.path, start=clip.start, duration=clip.duration, sample_rate=16_000)
        alone.append(encoder.encode_logmel(encoder.standard_logmel(torch.from_numpy(wav)))[0][0].numpy())
    monkeypatch.setattr(files, "_PATCHES_ELSEWHERE", patches)
    monkeypatch.setattr(reading, "PIECE_SECONDS", piece_seconds)
    for frames in (False, True):
        found, bad = encoded(encoder, clips, frames=frames)
        assert bad == [] and [item.path for item in found] == [clip.path for clip in clips]
        for clip, item, expected in zip(clips, found, alone, strict=True):
            expected = expected if frames else expected.mean(axis=0, keepdims=True)
            np.testing.assert_allclose(item.features, expected, atol=1e-5)
            end = clip.start + (clip.duration or soundfile.info(clip.path).duration - clip.start)
            assert item.times[0, 0] == clip.start and item.times[-1, 1] == pytest.approx(end, abs=1e-4)
            assert (item.times[1:, 0] == item.times[:-1, 1]).all()
            middles = clip.start + encoder.times(len(item.times)).numpy()
            assert item.times[1:, 0] == pytest.approx((middles[1:] + middles[:-1]) / 2)


@pytest.mark.gpu
def test_a_gpu_gives_the_same(encoder: AudioEncoder, clips: list[Clip]) -> None:
    there = copy.deepcopy(encoder).to("cuda")
    for frames in (False, True):
        for item, expected in zip(
            encoded(there, clips, frames=frames)[0], encoded(encoder, clips, frames=frames)[0], strict=True
        ):
            np.testing.assert_allclose(item.features, expected.features, atol=1e-3)


def test_a_file_that_cannot_be_read_takes_nothing_with_it(
    encoder: AudioEncoder, clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it is found on the way: its frames up to there are in no table."""
    monkeypatch.setattr(reading, "PIECE_SECONDS", 1)
    cut = tmp_path / "cut.flac"
    soundfile.write(cut, np.random.default_rng(0).normal(scale=0.1, size=16_000 * 9), 16_000)
    cut.write_bytes(cut.read_bytes()[:-60_000])
    missing = Clip(tmp_path / "none.wav")
    late = Clip(clips[1].path, start=7.0)
    for frames in (False, True):
        good, _ = encoded(encoder, clips[:3], frames=frames)
        for listed in (
            [Clip(cut), *clips[:3]],
            [*clips[:3], Clip(cut)],
            [missing, *clips[:2], late, clips[2]],
        ):
            found, bad = encoded(encoder, listed, frames=frames)
            assert [item.path for item in found] == [item.path for item in good]
            assert [path for path, _ in bad] == [clip.path for clip in listed if clip not in clips]
            for item, expected in zip(found, good, strict=True):
                np.testing.assert_allclose(item.features, expected.features, atol=1e-5)


@pytest.mark.parametrize("frames", [False, True])
@pytest.mark.parametrize("name", ["f.csv", "f.CSV", "f.parquet", "f.npy", "f.npz", "deep/er/f.npz"])
def test_tables(encoder: AudioEncoder, clips: list[Clip], name: str, frames: bool, tmp_path: Path) -> None:
    output = tmp_path / name
    items, _ = encoded(encoder, clips, frames=frames)
    write_features(iter(items), output, frames=frames)
    features = np.concatenate([item.features for item in items])
    times = np.concatenate([item.times for item in items])
    paths = [str(item.path) for item in items for _ in item.times]
    start, end = times.T
    if output.suffix == ".npy":
        np.testing.assert_array_equal(np.load(output), features)
    elif output.suffix == ".npz":
        table = np.load(output)
        np.testing.assert_array_equal(table["features"], features)
        assert table["path"].tolist() == paths
        assert table["start"].tolist() == start.tolist() and table["end"].tolist() == end.tolist()
    elif output.suffix == ".parquet":
        columns = pq.read_table(output).to_pydict()
        assert list(columns) == ["path", "start", "end", "features"] and columns["path"] == paths
        np.testing.assert_array_equal(np.array(columns["features"], np.float32), features)
        assert columns["start"] == start.tolist() and columns["end"] == end.tolist()
    else:
        rows = list(csv.reader(output.open(encoding="utf-8")))
        assert rows[0][:5] == ["path", "start", "end", "f0", "f1"] and len(rows[0]) == 3 + encoder.embed_dim
        assert [row[0] for row in rows[1:]] == paths
        numbers = np.array([row[1:] for row in rows[1:]], np.float64)
        np.testing.assert_allclose(numbers[:, :2], times, atol=6e-4)
        np.testing.assert_allclose(numbers[:, 2:], features, rtol=1e-7)
    assert [path.name for path in output.parent.iterdir() if path.name.startswith(".")] == []


def test_a_folder_has_an_array_for_each_file(
    encoder: AudioEncoder, clips: list[Clip], tmp_path: Path
) -> None:
    for frames in (False, True):
        items, _ = encoded(encoder, clips[:3], frames=frames)
        write_features(iter(items), tmp_path / "out", frames=frames)
        for item in items:
            array = np.load(tmp_path / "out" / f"{item.path.name}.npy")
            np.testing.assert_array_equal(array, item.features if frames else item.features[0])


@pytest.mark.parametrize(
    ("output", "text"),
    [
        ("features.xlsx", r"must be a folder or a file \(.csv, .npy, .npz, .parquet\), but is features.xlsx"),
        ("v1.2", "must be a folder or a file .* but is v1.2"),
        ("there.csv", "must be a folder or a file .* but is there.csv"),
        ("file", "must be a folder or a file .* but is file"),
        ("features", "2 clips are of a file a.wav; write a table"),
        ("there.old", "2 clips are of a file a.wav"),
        ("f.parquet", "Parquet needs pyarrow: pip install"),
        ("f.PARQUET", "Parquet needs pyarrow: pip install"),
        ("f.csv", None),
        ("f.npz", None),
        ("x/a.csv", "must be another file than those that are read"),
        ("long", "the name is too long for a file beside it"),
    ],
)
def test_outputs_that_cannot_be_are_told_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str, text: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    Path("there.csv").mkdir()
    Path("there.old").mkdir()
    Path("file").touch()
    clips = [Clip(Path("x/a.wav")), Clip(Path("x/b.wav")), Clip(Path("y/a.wav"))]
    clips = [Clip(Path("n" * 250))] if output == "long" else clips
    Path("x").mkdir()
    Path("x/a.csv").touch()
    if text is None:
        check_output(Path(output), clips)
        return
    with pytest.raises(M2dxError, match=rf"\A[^\n]*{text}[^\n]*\Z"):
        check_output(Path(output), clips, [Path("x/a.csv")])


@pytest.mark.parametrize(("system", "refused"), [("linux", False), ("darwin", True), ("win32", True)])
def test_names_that_differ_in_case_alone_are_one_file_on_other_systems(
    system: str, refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    clips = [Clip(Path("x/A.wav")), Clip(Path("x/a.wav"))]
    with pytest.raises(M2dxError, match=r"2 clips are of a file a.wav") if refused else nullcontext():
        check_output(tmp_path / "features", clips)


def exported(encoder: AudioEncoder, folder: Path, *, std: float = 4.0) -> Path:
    grid = encoder.encoder.grid
    config = EncoderConfig(
        input_size=grid.input_size, patch_size=grid.patch_size, vit=encoder.encoder.size, audio=AUDIO,
        mean=-7.0, std=std,
    )  # fmt: skip
    write_export(folder, encoder.encoder, config)
    return folder


def test_samples_that_were_not_scaled_are_a_bad_file(encoder: AudioEncoder, tmp_path: Path) -> None:
    for name, scale in (("good", 0.1), ("loud", 3000.0)):
        soundfile.write(tmp_path / f"{name}.wav", np.full(16_000, scale), 16_000, subtype="FLOAT")
    clips = [Clip(tmp_path / "loud.wav"), Clip(tmp_path / "good.wav")]
    bad: list[tuple[Path, str]] = []
    found = list(encode_clips(encoder, clips, frames=False, bad=bad, progress=lambda *_: None))
    assert [of.path.name for of in found] == ["good.wav"]
    assert [(path.name, "divide those of 16 bits" in reason) for path, reason in bad] == [("loud.wav", True)]
    with pytest.raises(AudioError, match=r"loud\.wav: samples up to 3000"):
        encoder.encode_file(tmp_path / "loud.wav")


def test_clips_below_a_frame_are_one_warning(
    encoder: AudioEncoder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clips = []
    for rate, samples in ((16_000, 1), (16_000, 159), (44_100, 440), (16_000, 160), (44_100, 441)):
        clips.append(Clip(tmp_path / f"{rate}-{samples}.wav"))
        soundfile.write(clips[-1].path, np.full(samples, 0.1), rate)
    found, _ = encoded(encoder, [*clips, Clip(clips[-1].path, duration=0.001)])
    assert len(found) == 6 and len(caplog.messages) == 1
    assert caplog.messages[0].startswith("4 of 6 clips are shorter than a frame of the log-mel (0.01 s)")


@pytest.mark.parametrize("output", ["f.csv", "f.npz", "f.parquet", "f.npy", "folder"])
def test_features_that_are_not_finite_end_it(
    clips: list[Clip], encoder: AudioEncoder, tmp_path: Path, output: str
) -> None:
    broken = AudioEncoder(encoder.encoder, encoder.logmel, mean=-7.0, std=0.0).eval()
    (tmp_path / "out").mkdir()
    for damaged in (broken, random_encoder(AUDIO, MODEL, mean=float("nan"), std=4.0, seed=0)):
        items = encode_clips(damaged, clips, frames=False, bad=[], progress=lambda *_: None)
        with pytest.raises(CheckpointError, match=r"0.wav: what the network gives must be finite"):
            write_features(items, tmp_path / "out" / output, frames=False)
        assert list((tmp_path / "out").iterdir()) == []


def test_from_the_command_line(
    encoder: AudioEncoder, clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    network = str(exported(encoder, tmp_path / "network"))
    Path("list.txt").write_text("".join(f"{clip.path}\n" for clip in clips[:3]))
    whole = load_encoder(network)
    expected = [
        whole.clip(torch.from_numpy(read_wav(clip.path, sample_rate=16_000)))[0].detach().numpy()
        for clip in clips[:3]
    ]

    def run(*arguments: str, **options: Any) -> Any:
        return CliRunner().invoke(app, ["encode", network, *arguments], **options)

    done = run("list.txt", "-o", "f.npy", "--device", "cpu")
    assert done.exit_code == 0, done.output
    assert "3 clips on cpu" in done.stderr and "3 clips encoded to f.npy" in done.stdout
    np.testing.assert_allclose(np.load("f.npy"), expected, atol=1e-5)
    done = run("-", "none.wav", "-o", "f.csv", input=Path("list.txt").read_bytes())
    assert done.exit_code == 1 and "none.wav: missing: no such file" in done.output
    assert len(Path("f.csv").read_text().splitlines()) == 4
    done = run("none.wav", "-o", "g.csv")
    assert done.exit_code == 1 and not Path("g.csv").exists() and "0 clips encoded" in done.stdout
    done = run("list.txt", "-o", "h.csv", "--device", "quantum")
    assert "--device must be auto, cpu, cuda, cuda:N or mps, but is 'quantum'" in str(done.exception)
