"""Audio files good and bad: formats, rates, channels, and ten kinds of file that cannot be used."""

import math
import os
import resource
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from m2dx.contract.errors import AudioError
from m2dx.data import reading
from m2dx.data.reading import AudioFile, probe, read_wav

RATE = 16_000


def tone(seconds: float, *, rate: int = RATE, hertz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def hiss(seconds: float) -> np.ndarray:
    """Noise, which no codec can shrink to a few pages."""
    return (0.1 * np.random.default_rng(0).standard_normal(round(seconds * RATE))).astype(np.float32)


def write_cut(path: Path, fraction: float = 0.5, **options: str) -> None:
    soundfile.write(path, hiss(20.0), RATE, **options)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * fraction)])


def write_text(path: Path) -> None:
    path.write_text("not audio\n" * 1000)


def write_empty_wav(path: Path) -> None:
    soundfile.write(path, np.zeros(0), RATE)


def write_value(value: float) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        wav = tone(1.0)
        wav[1000] = value
        soundfile.write(path, wav, RATE, subtype="FLOAT")

    return write


def write_header_only(path: Path) -> None:
    soundfile.write(path, tone(1.0), RATE)
    path.write_bytes(path.read_bytes()[:20])


BAD = {
    "missing.wav": (lambda path: None, "missing"),
    "zero.wav": (lambda path: path.touch(), "empty: 0 bytes"),
    "no_frames.wav": (write_empty_wav, "empty: no samples"),
    "text.wav": (write_text, "Format not recognised"),
    "folder.wav": (lambda path: path.mkdir(), "folder"),
    "pipe.wav": (os.mkfifo, "not a regular file"),
    "header.wav": (write_header_only, "cannot be opened"),
    "cut.wav": (write_cut, "truncated: the header promises 20.000 s"),
    "cut.aiff": (write_cut, "truncated: the header promises 20.0"),
    "cut.flac": (write_cut, "truncated"),
    "cut.ogg": (write_cut, "truncated"),
    "cut_early.ogg": (lambda path: write_cut(path, 0.1), "truncated|cannot be opened"),
    "cut.mp3": (write_cut, "truncated"),
    "nan.wav": (write_value(np.nan), "NaN or infinite"),
    "inf.wav": (write_value(np.inf), "NaN or infinite"),
    "huge.wav": (write_value(1e20), "not audio"),
    "headerless.raw": (lambda path: path.write_bytes(b"\0" * 1000), "cannot be opened"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_file_gives_the_reason_without_the_path(name: str, tmp_path: Path) -> None:
    write, reason = BAD[name]
    path = tmp_path / name
    write(path)
    with pytest.raises(AudioError, match=reason) as caught:
        read_wav(path, sample_rate=RATE)
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_no_permission(tmp_path: Path) -> None:
    path = tmp_path / "secret.wav"
    soundfile.write(path, tone(1.0), RATE)
    path.chmod(0)
    with pytest.raises(AudioError, match="permission"):
        read_wav(path, sample_rate=RATE)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.wav", {"subtype": "PCM_U8"}),
        ("a.wav", {"subtype": "PCM_16"}),
        ("a.wav", {"subtype": "PCM_24"}),
        ("a.wav", {"subtype": "DOUBLE"}),
        ("a.w64", {}),
        ("a.rf64", {}),
        ("a.aiff", {}),
        ("a.au", {}),
        ("a.caf", {}),
        ("a.flac", {"subtype": "PCM_24"}),
        ("a.ogg", {}),
        ("a.opus", {"format": "OGG", "subtype": "OPUS"}),
        ("a.mp3", {}),
    ],
)
def test_formats_give_the_same_sound(name: str, options: dict[str, str], tmp_path: Path) -> None:
    wav = tone(1.0)
    soundfile.write(tmp_path / name, wav, RATE, **options)
    read = read_wav(tmp_path / name, sample_rate=RATE)
    assert read.dtype == np.float32
    assert abs(len(read) - len(wav)) <= 0.1 * RATE
    spectrum = np.abs(np.fft.rfft(read[: RATE // 2]))
    assert np.argmax(spectrum) * 2 == pytest.approx(440, abs=2)
    assert 20 * np.log10(np.sqrt(np.mean(read[2000:12000] ** 2)) / np.sqrt(0.125)) == pytest.approx(
        0, abs=0.2
    )


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 96_000])
def test_resampling_keeps_length_and_pitch(rate: int, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(2.0, rate=rate), rate, subtype="FLOAT")
    read = read_wav(tmp_path / "a.wav", sample_rate=RATE)
    assert len(read) == 2 * RATE
    np.testing.assert_allclose(read[800:-800], tone(2.0)[800:-800], atol=1e-3)


@pytest.mark.parametrize(
    ("rate", "channels", "level"), [(16_000, 1, 0.5), (24_000, 2, 0.0), (44_100, 2, 0.9)]
)
def test_a_part_of_an_mp3_of_variable_rate_is_that_of_the_whole(
    rate: int, channels: int, level: float, tmp_path: Path
) -> None:
    """Of noise with silence and clicks, for which an encoder saves bits and spends them."""
    random, frames = np.random.default_rng(1), 15 * rate
    wav = (np.arange(frames) // (rate // 2) % 2) * 0.2 * random.standard_normal(frames)
    wav[random.integers(0, frames, 40)] += 0.7
    wavs = np.stack([wav, np.roll(wav, 100)][:channels], axis=1).clip(-1, 1)
    soundfile.write(tmp_path / "a.mp3", wavs, rate, bitrate_mode="VARIABLE", compression_level=level)
    with AudioFile(tmp_path / "a.mp3") as file:
        whole = file.read(0, file.info.frames, sample_rate=rate)
    for first in random.integers(1, 14 * rate, 60).tolist():
        with AudioFile(tmp_path / "a.mp3") as file:
            part = file.read(first, rate // 2, sample_rate=rate)
        np.testing.assert_allclose(part, whole[first : first + rate // 2], atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.wav", {}),  # read without a decoder
        ("a.wav", {"subtype": "FLOAT"}),
        ("a.wav", {"subtype": "GSM610"}),  # runs forward only
        ("a.flac", {}),
        ("a.ogg", {}),
        ("a.opus", {"format": "OGG", "subtype": "OPUS"}),
        ("a.mp3", {}),  # its decoder rounds otherwise each time
        ("a.caf", {"subtype": "ALAC_16"}),
    ],
)
@pytest.mark.parametrize(("first", "seconds"), [(0, 7.3), (5_000, 4.0), (0, 2.0), (0, 0.5), (0, 5.00003)])
@pytest.mark.parametrize("rate", [RATE, 11_025, 48_000])
def test_pieces_are_the_whole(
    name: str,
    options: dict[str, str],
    first: int,
    seconds: float,
    rate: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reading, "PIECE_SECONDS", 1)
    soundfile.write(tmp_path / name, hiss(7.3), RATE, **options)
    with AudioFile(tmp_path / name) as file:
        frames = min(round(seconds * RATE), file.info.frames - first)
        whole = file.read(first, frames, sample_rate=rate)
        pieces = list(file.pieces(first, frames, sample_rate=rate))
    np.testing.assert_allclose(np.concatenate(pieces), whole, atol=1e-6 if name == "a.mp3" else 0)
    assert max(map(len, pieces)) <= 2.1 * rate


def test_pieces_of_a_file_that_ends_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A piece must be whole, or the file is truncated; the end of the last may be missing within the tolerance."""
    monkeypatch.setattr(reading, "PIECE_SECONDS", 1)
    soundfile.write(tmp_path / "a.wav", hiss(4.0), RATE, subtype="FLOAT")
    with AudioFile(tmp_path / "a.wav") as file:
        for missing in (0, 1, 1_500):
            pieces = list(file.pieces(0, 4 * RATE + missing, sample_rate=RATE))
            assert sum(map(len, pieces)) == 4 * RATE
        for promised in (4.2, 5.0, 6.5, 60.0):
            with pytest.raises(AudioError, match=r"truncated: .* but decoding ends at 4.000 s"):
                list(file.pieces(0, round(promised * RATE), sample_rate=8_000))


def test_channels_are_averaged(tmp_path: Path) -> None:
    channels = np.stack([np.full(1000, level) for level in (0.8, 0, 0, 0, -0.4, 0, 0, 0.4)], axis=1)
    soundfile.write(tmp_path / "a.wav", channels, RATE, subtype="FLOAT")
    np.testing.assert_allclose(read_wav(tmp_path / "a.wav", sample_rate=RATE), 0.1, atol=1e-6)
    info = probe(tmp_path / "a.wav")
    assert (info.sample_rate, info.frames, info.channels, info.seconds) == (RATE, 1000, 8, 1000 / RATE)


@pytest.mark.parametrize(("samples", "rate", "expected"), [(1, RATE, 1), (3, RATE, 3), (3, 8_000, 6)])
def test_a_few_samples_are_audio(samples: int, rate: int, expected: int, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.full(samples, 0.5), rate)
    assert len(read_wav(tmp_path / "a.wav", sample_rate=RATE)) == expected


def test_too_few_samples_for_one_at_the_target_rate(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.full(1, 0.5), 96_000)
    with pytest.raises(AudioError, match="too short"):
        read_wav(tmp_path / "a.wav", sample_rate=RATE)


def test_stretches(tmp_path: Path) -> None:
    wav = np.linspace(-0.5, 0.5, 2 * RATE, dtype=np.float32)
    soundfile.write(tmp_path / "a.wav", wav, RATE, subtype="FLOAT")

    def read(start: float, duration: float | None) -> np.ndarray:
        return read_wav(tmp_path / "a.wav", start=start, duration=duration, sample_rate=RATE)

    np.testing.assert_array_equal(read(0.5, 0.25), wav[8000:12000])
    np.testing.assert_array_equal(read(1.5, None), wav[24000:])
    np.testing.assert_array_equal(read(1.5, 0.55), wav[24000:])  # lists round durations
    with pytest.raises(AudioError, match=r"truncated: listed to 2\.200 s, but the file ends at 2\.000 s"):
        read(1.5, 0.7)
    for start in (2.0, -1.0, math.nan, math.inf):
        with pytest.raises(AudioError, match=rf"start \({start:g} s\) must be within the file"):
            read(start, None)
    for duration in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(AudioError, match=rf"duration \({duration:g} s\) must be above 0"):
            read(0.0, duration)


def test_only_the_stretch_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write(tmp_path / "long.flac", hiss(60.0), RATE)
    frames: list[int] = []
    original = soundfile.SoundFile.read

    def counted(self: soundfile.SoundFile, *args: object, **options: object) -> np.ndarray:
        samples = original(self, *args, **options)
        frames.append(len(samples))
        return samples

    monkeypatch.setattr(soundfile.SoundFile, "read", counted)
    read_wav(tmp_path / "long.flac", start=30.0, duration=1.0, sample_rate=8_000)
    assert frames == [RATE]


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000])
def test_wav_of_a_writer_that_could_not_seek_is_not_truncated(size: int, tmp_path: Path) -> None:
    path = tmp_path / "streamed.wav"
    soundfile.write(path, tone(1.0), RATE)
    content = bytearray(path.read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 4] = struct.pack("<I", size)
    path.write_bytes(content)
    assert len(read_wav(path, sample_rate=RATE)) == RATE


def test_tags_after_the_sound_are_not_a_truncation(tmp_path: Path) -> None:
    for name in ("a.ogg", "a.mp3"):
        soundfile.write(tmp_path / name, tone(1.0), RATE)
        with (tmp_path / name).open("ab") as file:
            file.write(b"TAG" + b"\0" * 125)
        assert len(read_wav(tmp_path / name, sample_rate=RATE)) >= 0.9 * RATE


@pytest.mark.parametrize("form", ["wav", "flac", "ogg", "mp3"])
def test_a_file_is_not_bad_where_none_can_be_opened(form: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{form}"
    soundfile.write(path, np.zeros(16_000, dtype=np.float32), 16_000)
    assert probe(path).frames > 0
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))  # those that are open stay so
    try:
        with pytest.raises(OSError, match="Too many open files"):
            probe(path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert probe(path).frames > 0
