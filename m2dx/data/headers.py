"""Files whose header does not tell their length, or tells another than their frames have.

libsndfile believes the header. Recorders that lost power, streams written to a pipe, cut or joined MP3s and firmware
faults leave headers that are wrong while every frame is whole. `mended` finds the real length by the frames themselves
and gives the decoder the same file with a header that is right; the file on the disk stays as it is.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

Part = bytes | tuple[int, int]
"""Bytes, or a piece of the file: its first byte and the one after its last."""

_TAIL_BYTES = 1 << 20
_WHOLE_SEARCH_BYTES = 1 << 25


@dataclass(frozen=True)
class Mended:
    """A file with a right header, and what was wrong with the one that it has."""

    parts: tuple[Part, ...]
    note: str  # such as "the header promises 8.000 s, but the frames are 4.000 s"

    def open(self, file: BinaryIO) -> BinaryIO:
        """The mended file, read from the open one."""
        return io.BufferedReader(_Spliced(file, self.parts))


def mended(file: BinaryIO, size: int) -> Mended | None:
    """What a WAV, FLAC or MP3 file of `size` bytes has to be read as; None where its header agrees with its frames."""
    file.seek(0)
    head = file.read(16)
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return _mended_wav(file, size)
    start = _after_id3(file, 0, size)
    file.seek(start)
    head = file.read(4)
    if head == b"fLaC":
        return _mended_flac(file, start, size)
    if _mp3_frame(head) is not None:
        return _mended_mp3(file, start, size)
    return None


class _Spliced(io.RawIOBase):
    """Pieces of a file and bytes, one after the other, as a file."""

    def __init__(self, file: BinaryIO, parts: Sequence[Part]) -> None:
        self._file, self._parts = file, parts
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

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        for part, start, end in zip(self._parts, self._starts, self._starts[1:], strict=False):
            if start <= self._at < end:
                count = min(len(view), end - self._at)
                inside = self._at - start
                if isinstance(part, bytes):
                    data = part[inside : inside + count]
                else:
                    self._file.seek(part[0] + inside)
                    data = self._file.read(count)
                view[: len(data)] = data
                self._at += len(data)
                return len(data)
        return 0


def _mended_wav(file: BinaryIO, size: int) -> Mended | None:
    """A data chunk that is said to be empty or short, while sound and no other chunk follows it."""
    at, rate = 12, 0  # bytes per second
    while at + 8 <= size:
        file.seek(at)
        name, length = struct.unpack("<4sI", file.read(8))
        if name == b"fmt " and length >= 16 and at + 24 <= size:
            rate = struct.unpack("<8xI", file.read(12))[0]
        if name == b"data":
            end = at + 8 + length + length % 2
            rest = size - at - 8
            if length >= rest or rest > 0xFFFFFFF0 or not rate or _chunks_follow(file, end, size):
                return None
            head = (0, 4), struct.pack("<I", at + rest), (8, at + 4), struct.pack("<I", rest), (at + 8, size)
            told = f"{length / rate:.3f} s" if length else "none"
            return Mended(head, f"the header promises {told}, but sound goes on to {rest / rate:.3f} s")
        at += 8 + length + length % 2
    return None


def _chunks_follow(file: BinaryIO, at: int, size: int) -> bool:
    """Whether the bytes from `at` on are chunks, or so few that they are padding."""
    while at + 8 <= size:
        file.seek(at)
        name, length = struct.unpack("<4sI", file.read(8))
        printable = all(32 <= byte < 127 for byte in name)
        if not printable and name != bytes(4):
            return False
        if name == bytes(4):  # padding with zeros, which may be silence that was not written yet
            return size - at <= 4096
        at += 8 + length + length % 2
    return True


def _after_id3(file: BinaryIO, at: int, size: int) -> int:
    """The byte after the ID3v2 tags at a byte, which may hold a picture that looks like frames."""
    while at + 10 <= size:
        file.seek(at)
        head = file.read(10)
        if head[:3] != b"ID3" or max(head[6:10]) > 127:
            break
        at += 10 + sum(byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
        at += 10 if head[5] & 0x10 else 0  # a footer
    return at


def _mended_flac(file: BinaryIO, start: int, size: int) -> Mended | None:
    """Another number of samples in STREAMINFO than the last frame ends at."""
    file.seek(start)
    info = file.read(42)
    if len(info) < 42 or info[4] & 127:
        return None
    packed = int.from_bytes(info[18:26], "big")
    rate, promised = packed >> 44, packed & (2**36 - 1)
    fixed_block = int.from_bytes(info[8:10], "big")
    if not rate:
        return None
    found = _last_flac_frame(file, start, size, fixed_block=fixed_block, promised=promised)
    if found is None or found == promised:
        return None
    right = ((packed >> 36 << 36) | found).to_bytes(8, "big")
    told = f"{promised / rate:.3f} s" if promised else "no length"
    parts = (start, start + 18), right, (start + 26, size)
    return Mended(parts, f"the header promises {told}, but the frames are {found / rate:.3f} s")


def _last_flac_frame(file: BinaryIO, start: int, size: int, *, fixed_block: int, promised: int) -> int | None:
    """Samples to the end of the last whole frame; None where no frame is found near the end, or the last one is cut."""
    first = max(start + 42, size - _TAIL_BYTES)
    step = 1 << 15
    low = size
    while low > first:  # most last frames are found in the last 32 KiB
        low = max(first, size - step)
        file.seek(low)
        tail = file.read(size - low)
        for at in _backwards(tail):
            header = _flac_header(tail[at : at + 16], fixed_block=fixed_block)
            if header is None:
                continue
            total = header[0] + header[1]
            if total == promised:
                return total
            return total if _crc16(tail[at:-2]) == int.from_bytes(tail[-2:], "big") else None
        step *= 8
    return None


def _backwards(tail: bytes) -> Iterator[int]:
    at = len(tail)
    while (at := tail.rfind(b"\xff", 0, at)) >= 0:
        if at + 1 < len(tail) and tail[at + 1] in (0xF8, 0xF9):
            yield at


def _flac_header(data: bytes, *, fixed_block: int) -> tuple[int, int] | None:
    """First sample and number of samples of a frame; None where these bytes are no frame's header (RFC 9639, 9.1)."""
    if len(data) < 6:
        return None
    size_code, rate_code = data[2] >> 4, data[2] & 15
    if size_code == 0 or rate_code == 15 or data[3] & 1:
        return None
    extra = 0
    while extra < 7 and data[4] >> (7 - extra) & 1:
        extra += 1
    if extra in (1, 7) and data[4] != 0xFE:
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
    if at >= len(data) or _crc8(data[:at]) != data[at]:
        return None
    return (number if data[1] & 1 else number * fixed_block), block


def _crc8(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ 0x07 if crc & 0x80 else crc << 1) & 0xFF
    return crc


def _crc16(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x8005 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc


_RATES = (44_100, 48_000, 32_000)
_KILOBITS = {
    (3, 3): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),  # MPEG-1, layer I
    (3, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (3, 1): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 3): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),  # MPEG-2 and 2.5
    (2, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 1): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}


@dataclass(frozen=True)
class _Mp3Frame:
    rate: int  # Hz
    samples: int
    length: int  # bytes
    side_bytes: int  # of the side information of layer III


def _mp3_frame(head: bytes) -> _Mp3Frame | None:
    """What the four bytes of a frame's header say (ISO 11172-3, 2.4.2.3); None for anything else."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    bitrate, rate, padding = head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    if version == 1 or layer == 0 or bitrate in (0, 15) or rate == 3:
        return None
    kilobits = _KILOBITS[min(version, 3) if version == 3 else 2, layer][bitrate]
    hertz = _RATES[rate] >> (0 if version == 3 else 1 if version == 2 else 2)
    samples = 384 if layer == 3 else 1152 if layer == 2 or version == 3 else 576
    if layer == 3:
        length = (12 * kilobits * 1000 // hertz + padding) * 4
    else:
        length = samples // 8 * kilobits * 1000 // hertz + padding
    mono = head[3] >> 6 == 3
    side = (17 if mono else 32) if version == 3 else 9 if mono else 17
    return _Mp3Frame(hertz, samples, length, side)


def _mended_mp3(file: BinaryIO, start: int, size: int) -> Mended | None:
    """No length tag, one that is wrong, or tags before the frames: libsndfile's length would be an estimate."""
    file.seek(start)
    head = file.read(4)
    frame = _mp3_frame(head)
    if frame is None or head[1] >> 1 & 3 != 1:  # layer III
        return None
    file.seek(start)
    first = file.read(frame.length)
    tag = 4 + frame.side_bytes
    is_tag = first[tag : tag + 4] in (b"Xing", b"Info") or first[36:40] == b"VBRI"
    told = _tagged_frames(first, tag)
    if told is not None and told[1] is not None and size - start - told[1] <= 4096:
        return None  # as long as it says, or cut
    audio = start + frame.length if is_tag else start
    count, end = _count_mp3_frames(file, audio, size)
    if not count or (told is not None and told[0] == count):
        return None
    seconds = count * frame.samples / frame.rate
    note = f"its frames are {seconds:.3f} s"
    if told is not None:
        note = f"the tag promises {told[0] * frame.samples / frame.rate:.3f} s, but {note}"
    return Mended((_length_tag(head, frame, count, end - audio), (audio, end)), note)


def _tagged_frames(first: bytes, tag: int) -> tuple[int, int | None] | None:
    """Frames and bytes that a Xing or Info tag tells."""
    if first[tag : tag + 4] not in (b"Xing", b"Info") or len(first) < tag + 16:
        return None
    flags, frames, length = struct.unpack(">III", first[tag + 4 : tag + 16])
    return (frames, length if flags & 2 else None) if flags & 1 else None


def _count_mp3_frames(file: BinaryIO, at: int, size: int) -> tuple[int, int]:
    """Whole frames from `at` on, and the byte after the last one; tags and rubbish between them are passed over."""
    count, end = 0, at
    while at + 4 <= size:
        file.seek(at)
        frame = _mp3_frame(file.read(4))
        if frame is not None and at + frame.length <= size:
            count += 1
            at += frame.length
            end = at
            continue
        file.seek(at)
        window = file.read(4096 + 4)
        if window[:3] == b"ID3":
            at = max(_after_id3(file, at, size), at + 10)  # a file that was joined, with tags of its own
            continue
        found = next(
            (k for k in range(1, len(window) - 3) if _mp3_frame(window[k : k + 4]) is not None), None
        )
        at += 4096 if found is None else found
    return count, end


def _length_tag(head: bytes, frame: _Mp3Frame, count: int, length: int) -> bytes:
    """A frame without sound, as encoders write it first, that tells the number of frames."""
    tag = 4 + frame.side_bytes
    for bitrate in range(1, 15):  # the smallest that has room for the tag
        header = bytes([0xFF, head[1] | 1, bitrate << 4 | head[2] & 0x0C, head[3]])
        empty = _mp3_frame(header)
        if empty is not None and empty.length >= tag + 16:
            body = b"Info" + struct.pack(">III", 3, count, length + empty.length)
            return (header + bytes(frame.side_bytes) + body).ljust(empty.length, b"\0")
    raise AssertionError("each rate of layer III has a frame of 64 bytes")
