"""Files whose header does not tell their length, or tells another than their frames have.

libsndfile believes the header. Recorders that lost power, streams written to a pipe, cut or joined MP3s and firmware
faults leave headers that are wrong while every frame is whole. `mended` finds the real length by the frames themselves
and gives the decoder the same file with a header that is right; the file on the disk stays as it is.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

Part = bytes | tuple[int, int]
"""Bytes, or a piece of the file: its first byte and the one after its last."""
Parts = tuple[Part, ...]
ReadAt = Callable[[int, int], bytes]
"""Gives bytes of a file, from one on, so many."""

_TAIL_BYTES = 1 << 20
_MOST_PADDING = 4096  # bytes


class Spliced(io.RawIOBase):
    """Pieces of a file and bytes, one after the other, as a file."""

    def __init__(self, read: ReadAt, parts: Parts) -> None:
        self._read, self._parts = read, parts
        lengths = [len(part) if isinstance(part, bytes) else part[1] - part[0] for part in parts]
        self._starts = [sum(lengths[:i]) for i in range(len(lengths) + 1)]
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = (0, self._at, self._starts[-1])[whence]
        self._at = max(base + offset, 0)
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        for part, start, end in zip(self._parts, self._starts, self._starts[1:], strict=False):
            if start <= self._at < end:
                inside, count = self._at - start, min(len(buffer), end - self._at)
                if isinstance(part, bytes):
                    data = part[inside : inside + count]
                else:
                    data = self._read(part[0] + inside, count)
                buffer[: len(data)] = data
                self._at += len(data)
                return len(data)
        return 0


def mended(file: BinaryIO, size: int) -> Parts | None:
    """What a WAV, FLAC or MP3 file of `size` bytes has to be read as; None where its header agrees with its frames."""
    read = reader_of(file)
    head = read(0, 16)
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return _mended_wav(read, size)
    start = _after_id3(read, 0, size)
    if read(start, 4) == b"fLaC":
        return _mended_flac(read, start, size)
    return _mended_mp3(read, start, size)


def reader_of(file: BinaryIO) -> ReadAt:
    """Reads an open file anywhere."""

    def read(first: int, count: int) -> bytes:
        file.seek(first)
        return file.read(count)

    return read


def _mended_wav(read: ReadAt, size: int) -> Parts | None:
    """A data chunk that is said to be empty or short, while sound and no other chunk follows it."""
    at, rate = 12, 0
    while at + 8 <= size:
        name, length = struct.unpack("<4sI", read(at, 8))
        if name == b"fmt " and length >= 16 and at + 24 <= size:
            rate = struct.unpack("<8xI", read(at + 8, 12))[0]
        if name == b"data":
            end = at + 8 + length + length % 2
            rest = size - at - 8
            if length >= rest or rest > 0xFFFFFFF0 or not rate or _chunks_follow(read, end, size):
                return None
            return (0, 4), struct.pack("<I", at + rest), (8, at + 4), struct.pack("<I", rest), (at + 8, size)
        at += 8 + length + length % 2
    return None


def _chunks_follow(read: ReadAt, at: int, size: int) -> bool:
    """Whether the bytes from `at` on are chunks, or so few that they are padding."""
    while at + 8 <= size:
        name, length = struct.unpack("<4sI", read(at, 8))
        if name[:3] == b"ID3":  # a tag of some taggers, which is no chunk
            return True
        if name == bytes(4):  # padding with zeros, which may be silence that was not written yet
            return size - at <= _MOST_PADDING
        if not all(32 <= byte < 127 for byte in name):
            return False
        at += 8 + length + length % 2
    return True


def _after_id3(read: ReadAt, at: int, size: int) -> int:
    """The byte after the ID3v2 tags at a byte, which may hold a picture that looks like frames."""
    while at + 10 <= size:
        head = read(at, 10)
        if head[:3] != b"ID3" or max(head[6:10]) > 127:
            break
        at += 10 + sum(byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
        at += 10 if head[5] & 0x10 else 0  # a footer
    return at


def _mended_flac(read: ReadAt, start: int, size: int) -> Parts | None:
    """Another number of samples in STREAMINFO than the last frame ends at."""
    info = read(start, 42)
    if len(info) < 42 or info[4] & 127:
        return None
    packed = int.from_bytes(info[18:26], "big")
    promised, fixed_block = packed & (2**36 - 1), int.from_bytes(info[8:10], "big")
    found = _last_flac_frame(read, start, size, fixed_block=fixed_block, promised=promised)
    if found is None or found == promised:
        return None
    right = ((packed >> 36 << 36) | found).to_bytes(8, "big")
    return (start, start + 18), right, (start + 26, size)


def _last_flac_frame(read: ReadAt, start: int, size: int, *, fixed_block: int, promised: int) -> int | None:
    """Samples to the end of the last whole frame; None where no frame is found near the end, or the last one is cut."""
    first, low, step = max(start + 42, size - _TAIL_BYTES), size, 1 << 15
    while low > first:  # most last frames are found in the last 32 KiB
        low = max(first, size - step)
        tail = read(low, size - low)
        for at in _backwards(tail):
            end = _flac_frame_end(tail[at : at + 16], fixed_block=fixed_block)
            if end is not None:
                whole = end == promised or _crc(tail[at:-2], 0x8005, 16) == int.from_bytes(tail[-2:], "big")
                return end if whole else None
        step *= 8
    return None


def _backwards(tail: bytes) -> Iterator[int]:
    at = len(tail)
    while (at := tail.rfind(b"\xff", 0, at)) >= 0:
        if at + 1 < len(tail) and tail[at + 1] in (0xF8, 0xF9):
            yield at


def _flac_frame_end(data: bytes, *, fixed_block: int) -> int | None:
    """The sample after a frame's last; None where these bytes are no frame's header (RFC 9639, 9.1)."""
    if len(data) < 6:
        return None
    size_code, rate_code = data[2] >> 4, data[2] & 15
    extra = 0
    while extra < 7 and data[4] >> (7 - extra) & 1:
        extra += 1
    if size_code == 0 or rate_code == 15 or data[3] & 1 or (extra in (1, 7) and data[4] != 0xFE):
        return None
    length = max(extra, 1)
    number = data[4] if extra == 0 else data[4] & ((1 << max(7 - extra, 0)) - 1)
    for byte in data[5 : 4 + length]:
        number = number << 6 | byte & 63
    at = 4 + length
    if size_code in (6, 7):
        width = size_code - 5
        block = int.from_bytes(data[at : at + width], "big") + 1
        at += width
    else:
        block = 192 if size_code == 1 else 576 << size_code - 2 if size_code < 6 else 256 << size_code - 8
    at += 0 if rate_code < 12 else 1 if rate_code == 12 else 2
    if at >= len(data) or _crc(data[:at], 0x07, 8) != data[at]:
        return None
    return (number if data[1] & 1 else number * fixed_block) + block


def _crc(data: bytes, polynomial: int, bits: int) -> int:
    crc, top = 0, 1 << bits
    for byte in data:
        crc ^= byte << bits - 8
        for _ in range(8):
            crc <<= 1
            crc ^= (top | polynomial) if crc & top else 0
    return crc


_RATES = (44_100, 48_000, 32_000)
_KILOBITS = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)  # MPEG-1
_KILOBITS_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)  # MPEG-2 and 2.5


@dataclass(frozen=True)
class _Mp3Frame:
    length: int  # bytes
    tag: int  # the byte where a Xing or Info tag starts: after the header and the side information


def _mp3_frame(head: bytes) -> _Mp3Frame | None:
    """What the four bytes of the header of a layer III frame say (ISO 11172-3, 2.4.2.3); None for anything else."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    bitrate, rate, padding = head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    if version == 1 or layer != 1 or bitrate in (0, 15) or rate == 3:
        return None
    first, mono = version == 3, head[3] >> 6 == 3  # first: MPEG-1
    kilobits = (_KILOBITS if first else _KILOBITS_2)[bitrate]
    hertz = _RATES[rate] >> (0 if first else 1 if version == 2 else 2)
    length = (144 if first else 72) * kilobits * 1000 // hertz + padding
    side = (17 if mono else 32) if first else 9 if mono else 17
    return _Mp3Frame(length, 4 + side)


def _mended_mp3(read: ReadAt, start: int, size: int) -> Parts | None:
    """No length tag, one that is wrong, or tags before the frames: libsndfile's length would be an estimate."""
    head = read(start, 4)
    frame = _mp3_frame(head)
    if frame is None:
        return None
    first = read(start, frame.length)
    has_tag = first[frame.tag : frame.tag + 4] in (b"Xing", b"Info")
    declared: int | None = None  # frames
    if has_tag and len(first) >= frame.tag + 16:
        flags, frames, length = struct.unpack(">III", first[frame.tag + 4 : frame.tag + 16])
        if flags & 1:
            declared = frames
            if flags & 2 and size - start - length <= _MOST_PADDING:
                return None  # as long as it says, or cut
    audio = start + frame.length if has_tag or first[36:40] == b"VBRI" else start
    count, end = _count_mp3_frames(read, audio, size)
    if not count or declared == count:
        return None
    return _length_tag(head, frame.tag, count, end - audio), (audio, end)


def _count_mp3_frames(read: ReadAt, at: int, size: int) -> tuple[int, int]:
    """Whole frames from `at` on, and the byte after the last one; tags and rubbish between them are passed over."""
    count, end = 0, at
    while at + 4 <= size:
        frame = _mp3_frame(read(at, 4))
        if frame is not None and at + frame.length <= size:
            count += 1
            at = end = at + frame.length
            continue
        window = read(at, 4096 + 4)
        if window[:3] == b"ID3":
            at = max(_after_id3(read, at, size), at + 10)  # a file that was joined, with tags of its own
            continue
        starts = (k for k in range(1, len(window) - 3) if _mp3_frame(window[k : k + 4]) is not None)
        at += next(starts, 4096)
    return count, end


def _length_tag(head: bytes, tag: int, count: int, length: int) -> bytes:
    """A frame without sound, as encoders write it first, that tells the number of frames."""
    for bitrate in range(1, 15):  # the smallest that has room for the tag
        header = bytes([0xFF, head[1] | 1, bitrate << 4 | head[2] & 0x0C, head[3]])
        empty = _mp3_frame(header)
        if empty is not None and empty.length >= tag + 16:
            body = b"Info" + struct.pack(">III", 3, count, length + empty.length)
            return (header + bytes(tag - 4) + body).ljust(empty.length, b"\0")
    raise AssertionError("each rate of layer III has a frame of 64 bytes")
