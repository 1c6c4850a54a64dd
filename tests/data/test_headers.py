"""Files whose header tells no length, or another than their frames have: the right length, or the true reason."""

import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

import m2dx
from m2dx.data.reading import probe

RATE = 16_000
MP3_KILOBITS = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)


def sound(seconds: float, rate: int = RATE) -> NDArray[np.float32]:
    t = np.arange(int(seconds * rate)) / rate
    noise = np.random.default_rng(0).standard_normal(len(t))
    return (0.3 * np.sin(2 * np.pi * (200 + 300 * t) * t) + 0.05 * noise).astype(np.float32)


def encoded(seconds: float, format: str, rate: int = RATE, **options: object) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, sound(seconds, rate), rate, format=format, **options)
    return out.getvalue()


def mp3(seconds: float, mode: str = "VARIABLE", *, tag: bool = True) -> bytes:
    data = encoded(seconds, "MP3", 44_100, bitrate_mode=mode, compression_level=0.5)
    if tag:
        return data
    head = int.from_bytes(data[:4], "big")  # without the first frame, which holds the tag
    length = 144 * MP3_KILOBITS[(head >> 12) & 15] * 1000 // (44_100, 48_000, 32_000)[(head >> 10) & 3]
    return data[length + ((head >> 9) & 1) :]


def with_picture(data: bytes) -> bytes:
    picture = b"\0\0\0image/jpeg\0\3\0\xff\xd8" + np.random.default_rng(0).bytes(300_000)
    frame = b"APIC" + len(picture).to_bytes(4, "big") + picture
    size = bytes([(len(frame) >> shift) & 127 for shift in (21, 14, 7, 0)])
    return b"ID3\3\0\0" + size + frame + data


def flac(total: Callable[[int], int], **options: object) -> bytes:
    data = bytearray(encoded(4.0, "FLAC", **options))
    packed = int.from_bytes(data[18:26], "big")
    data[18:26] = (packed >> 36 << 36 | total(packed & (1 << 36) - 1)).to_bytes(8, "big")
    return bytes(data)


def wav(told: int, *, after: bytes = b"", channels: int = 1) -> bytes:
    samples = (sound(4.0 / channels) * 32767).astype("<i2")
    samples = np.repeat(samples, channels)
    align = 2 * channels
    form = struct.pack("<IHHIIHH", 16, 1, channels, RATE, RATE * align, align, 16)
    body = b"WAVEfmt " + form + b"data" + struct.pack("<I", told) + samples.tobytes() + after
    return b"RIFF" + struct.pack("<I", min(told + 36, 2**32 - 1)) + body


FOUR_SECONDS = 4 * RATE * 2
INFO = b"LIST" + struct.pack("<I", 4) + b"INFO"

WHOLE = {
    "mp3 of variable rate without a tag": ("a.mp3", mp3(30.0, tag=False), 30.0),
    "mp3 of constant rate without a tag, with a picture": (
        "a.mp3", with_picture(mp3(30.0, "CONSTANT", tag=False)), 30.0),
    "mp3 with a tag and a picture": ("a.mp3", with_picture(mp3(10.0)), 10.0),
    "mp3 joined of two": ("a.mp3", mp3(20.0) + mp3(10.0), 30.0),
    "mp3 joined of two, each with a picture": ("a.mp3", with_picture(mp3(20.0)) + with_picture(mp3(10.0)), 30.0),
    "mp3 with rubbish at its end": ("a.mp3", mp3(10.0, tag=False) + bytes(3000), 10.0),
    "mp3 of low rate": ("a.mp3", encoded(5.0, "MP3", bitrate_mode="CONSTANT", compression_level=0.9), 5.0),
    "flac of unknown length": ("a.flac", flac(lambda n: 0), 4.0),
    "flac of twice its length": ("a.flac", flac(lambda n: 2 * n), 4.0),
    "flac of half its length": ("a.flac", flac(lambda n: n // 2), 4.0),
    "flac of 2^35 samples": ("a.flac", flac(lambda n: n | 1 << 35), 4.0),
    "flac of 24 bits, unknown length": ("a.flac", flac(lambda n: 0, subtype="PCM_24"), 4.0),
    "flac as it should be": ("a.flac", flac(lambda n: n), 4.0),
    "wav of 44 bytes": ("a.wav", wav(44), 4.0),
    "wav of 44 bytes, two channels": ("a.wav", wav(44, channels=2), 2.0),
    "wav whose size was never written": ("a.wav", wav(0), 4.0),
    "wav whose size is that of a stream": ("a.wav", wav(2**32 - 1), 4.0),
    "wav with a list after the sound": ("a.wav", wav(FOUR_SECONDS, after=INFO), 4.0),
    "wav with a tag of MP3 after the sound": ("a.wav", wav(FOUR_SECONDS, after=with_picture(b"")), 4.0),
    "wav as it should be": ("a.wav", wav(FOUR_SECONDS), 4.0),
}  # fmt: skip


@pytest.mark.parametrize(("name", "data", "seconds"), WHOLE.values(), ids=WHOLE.keys())
def test_every_frame_is_read_whatever_the_header_says(
    name: str, data: bytes, seconds: float, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    assert probe(path).seconds == pytest.approx(seconds, abs=0.15)
    whole = m2dx.read_wav(path, sample_rate=RATE)
    assert len(whole) / RATE == pytest.approx(seconds, abs=0.15)
    late = m2dx.read_wav(path, start=seconds - 1.0, duration=0.5, sample_rate=RATE)
    assert len(late) == RATE // 2
    assert np.abs(late).max() > 0.1


CUT = {
    "flac": ("a.flac", encoded(4.0, "FLAC")[:-700], "truncated"),
    "wav": ("a.wav", wav(FOUR_SECONDS)[:-20_000], "truncated"),
    "mp3 with a tag": ("a.mp3", mp3(30.0)[:-60_000], "truncated"),
}


@pytest.mark.parametrize(("name", "data", "reason"), CUT.values(), ids=CUT.keys())
def test_what_was_cut_is_not_taken_for_a_wrong_header(
    name: str, data: bytes, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(m2dx.AudioError, match=reason):
        m2dx.read_wav(path)


FORWARD = [
    ("call.wav", "GSM610"),
    ("call.aiff", "GSM610"),
    ("call.w64", "GSM610"),
    ("g721.wav", "G721_32"),
    ("g721.au", "G721_32"),
    ("g723.au", "G723_24"),
    ("nms.wav", "NMS_ADPCM_24"),
    ("dwvw.aifc", "DWVW_16"),
]


@pytest.mark.parametrize(("name", "subtype"), FORWARD)
def test_codecs_that_run_forward_only_are_decoded_to_the_segment(
    name: str, subtype: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    soundfile.write(path, sound(3.0), RATE, subtype=subtype, format="AIFF" if name.endswith("aifc") else None)
    whole = m2dx.read_wav(path)
    assert len(whole) == 3 * RATE
    np.testing.assert_array_equal(m2dx.read_wav(path, start=1.5, duration=1.0), whole[24_000:40_000])
    np.testing.assert_array_equal(m2dx.read_wav(path, start=0.5, duration=0.5), whole[8_000:16_000])


def ogg_pages(data: bytes) -> list[bytes]:
    found, at = [], 0
    while at < len(data):
        count = data[at + 26]
        size = 27 + count + sum(data[at + 27 : at + 27 + count])
        found.append(data[at : at + size])
        at += size
    return found


def test_opus_that_was_started_again_ends(tmp_path: Path) -> None:
    whole = encoded(3.0, "OGG", subtype="OPUS")
    path = tmp_path / "restarted.opus"
    path.write_bytes(whole + b"".join(ogg_pages(whole)[:2]))
    assert len(m2dx.read_wav(path)) / RATE == pytest.approx(3.0, abs=0.1)


@pytest.mark.parametrize("rate", [1, 50, 4_290_000_000])
def test_rates_that_no_audio_has_are_refused_at_once(rate: int, tmp_path: Path) -> None:
    data = bytearray(wav(FOUR_SECONDS))
    data[24:28] = struct.pack("<I", rate)
    (tmp_path / "a.wav").write_bytes(data)
    with pytest.raises(m2dx.AudioError, match=r"which is no audio \(100 Hz to 1 MHz"):
        m2dx.read_wav(tmp_path / "a.wav")


def test_a_thousand_channels_are_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros((100, 1000), np.float32), RATE)
    with pytest.raises(m2dx.AudioError, match="1,000 channels, which is no audio"):
        m2dx.read_wav(tmp_path / "a.wav")
