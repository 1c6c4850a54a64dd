"""Audio files that a seed has damaged: cut, flipped, filled, renamed, or no files at all."""

from __future__ import annotations

import functools
import io
import os
import random
from pathlib import Path

import numpy as np
import soundfile

RATE = 16_000
FORMATS = {
    "wav": [
        ("WAV", kind)
        for kind in ("PCM_16", "PCM_24", "FLOAT", "PCM_U8", "ULAW", "IMA_ADPCM", "MS_ADPCM", "GSM610")
    ],
    "flac": [("FLAC", "PCM_16"), ("FLAC", "PCM_24")],
    "ogg": [("OGG", "VORBIS")],
    "opus": [("OGG", "OPUS")],
    "mp3": [("MP3", "MPEG_LAYER_III")],
    "aiff": [("AIFF", "PCM_16"), ("AIFF", "ULAW")],
    "au": [("AU", "PCM_16"), ("AU", "G721_32")],
    "caf": [("CAF", "PCM_16"), ("CAF", "ALAC_16")],
    "w64": [("W64", "PCM_16")],
    "rf64": [("RF64", "PCM_16")],
    "sph": [("NIST", "PCM_16")],
    "voc": [("VOC", "PCM_16")],
}
"""By extension: format and subtype of soundfile."""
NAMES = [
    "plain", "with space", "comma,quote\"'", "-o", "é", "名前", "a\u200bb", "\x1b[2J", "line\nbreak",
    "tab\there", "%s{0}", "$HOME", "[bold]x", "dot.dot", "'; rm x", "&", "n" * 200, os.fsdecode(b"caf\xe9"),
    "=1+1", "~", "#",
]  # fmt: skip


def tone(seed: int, seconds: float = 1.0) -> np.ndarray:
    """A sweep with some noise, (N,) float32."""
    time = np.arange(round(seconds * RATE)) / RATE
    noise = np.random.default_rng(seed).standard_normal(len(time))
    return (0.3 * np.sin(2 * np.pi * (200 + 300 * time) * time) + 0.05 * noise).astype(np.float32)


@functools.cache
def whole(form: str, subtype: str) -> bytes:
    """A good file of a second."""
    buffer = io.BytesIO()
    soundfile.write(buffer, tone(0), RATE, format=form, subtype=subtype)
    return buffer.getvalue()


def write_damaged(seed: int, folder: Path) -> Path:
    """Writes the damaged file of a seed; some are whole, but with an odd name or another format's extension.

    Its name has `bad` and the seed in it.
    """
    draw = random.Random(seed)
    extension = draw.choice(list(FORMATS))
    content = bytearray(whole(*draw.choice(FORMATS[extension])))
    if draw.random() < 0.15:
        extension = draw.choice(list(FORMATS))
    path = folder / f"bad{seed:04}-{draw.choice(NAMES) if draw.random() < 0.4 else 'plain'}.{extension}"
    kind = draw.choice(
        ("cut", "cut", "flip", "flip", "flip", "number", "fill", "join", "junk", "empty", "other", "name")
    )
    length = len(content)
    if kind == "cut":
        content = content[
            : draw.choice((1, 4, 12, 44, draw.randrange(length), draw.randrange(length), length - 1))
        ]
    elif kind == "flip":  # most of them in the header
        for _ in range(draw.choice((1, 1, 2, 8))):
            content[draw.randrange(min(length, draw.choice((32, 64, 64, length))))] ^= 1 << draw.randrange(8)
    elif kind == "number":  # a size, a rate or a number of channels that lies
        place = draw.randrange(4, min(length, 64))
        content[place : place + 4] = draw.choice(
            (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f", b"\x7f\xff\xff\xff")
        )
    elif kind == "fill":
        start = draw.randrange(length)
        end = min(length, start + draw.choice((16, 500, length)))
        content[start:end] = bytes(end - start) if draw.random() < 0.5 else draw.randbytes(end - start)
    elif kind == "join":
        content += whole(*draw.choice(FORMATS[draw.choice(list(FORMATS))]))
    elif kind == "junk":
        junk = draw.choice((b"ID3\4\0\0\0\0\0\0", b"\0" * 1000, draw.randbytes(100), b"TAG" + bytes(125)))
        content = junk + content if draw.random() < 0.5 else content + junk
    elif kind == "empty":
        content = bytearray(
            draw.choice((b"", b"\n", b"not audio\n" * 100, bytes(2000), content[:4] + draw.randbytes(3000)))
        )
    elif kind == "other":
        make = draw.choice(("pipe", "folder", "dangling", "circle", "null"))
        if make == "pipe":
            os.mkfifo(path)
        elif make == "folder":
            path.mkdir()
        else:
            os.symlink({"dangling": "nowhere", "circle": path.name, "null": "/dev/null"}[make], path)
        return path
    path.write_bytes(content)
    return path


def write_good(folder: Path) -> list[Path]:
    """Four good files."""
    found = []
    for number, (extension, form, subtype) in enumerate(
        [
            ("wav", "WAV", "PCM_16"),
            ("flac", "FLAC", "PCM_16"),
            ("ogg", "OGG", "VORBIS"),
            ("wav", "WAV", "FLOAT"),
        ]
    ):
        found.append(folder / f"good{number}.{extension}")
        soundfile.write(found[-1], tone(number + 1), RATE, format=form, subtype=subtype)
    return found
