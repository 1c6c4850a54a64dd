"""Writes packs: chooses what to store of each file, encodes it, and writes shards that survive a kill.

A pack stores the listed segments of each file once, in the order in which their clips are first listed. Only a complete
shard has its name and a record beside it. An interrupted packing resumes after the last of these whose sources are as
they were. The manifest comes last and makes the folder a pack, which `m2dx_pack.reading` reads.
"""

from __future__ import annotations

import base64
import errno
import gc
import hashlib
import io
import json
import logging
import math
import os
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from m2dx.contract.atomic import replace_file, replace_json, replace_text
from m2dx.contract.components import Clip
from m2dx.contract.errors import AudioError
from m2dx.contract.progress import Progress
from m2dx.contract.wording import counted
from m2dx.data.bad_files import BadFiles
from m2dx.data.containers import audio_state
from m2dx.data.loader import batch_loader
from m2dx_pack.members import Encoded, Extent, Format, Segment, encode
from m2dx_pack.reading import BLOCK_BYTES, MANIFEST, MEMBERS, TAR_BLOCK, VERSION, sha256_of

logger = logging.getLogger(__name__)

BAD_FILES = "bad_files.tsv"
_STARTED = ".started.json"  # fingerprint of the packing that a folder is for
_LOCK = ".lock"
_MOST_SHOWN = 5  # unusable files in an error
_BATCH = 8  # segments that a loading process encodes at a time

Key = tuple[str, float, float | None]
"""Path and extent of a clip."""


@dataclass(frozen=True)
class ClipSet:
    """The clips of one list of a pack."""

    clips: tuple[Clip, ...]
    label_names: tuple[str, ...]


@dataclass(frozen=True)
class PackOptions:
    """How the audio is stored."""

    form: Format = "flac"
    sample_rate: int | None = None  # Hz; None: each file's own
    shard_bytes: int = 512 * 10**6  # approximate size of a shard
    workers: int | None = None  # loading processes; None: one per core
    max_bad_fraction: float = 0.05  # share of unusable files above which there is no pack


@dataclass(frozen=True)
class PackSummary:
    """What has been packed."""

    clips: Mapping[str, int]  # of each list
    bytes: int
    shards: int
    members: int
    bad: int  # unusable files
    left_out: int  # clips of unusable files
    rounded: int  # files that were not mono 16-bit PCM at the rate
    clipped: int  # files with samples beyond full scale
    kept_shards: int  # from an interrupted packing


def pack(
    sets: Mapping[str, ClipSet], folder: Path, options: PackOptions, *, progress: Progress | None = None
) -> PackSummary:
    """Stores the clips of the lists in `folder`, and makes it a pack.

    Keeps the shards that an interrupted packing of the same lists and options has finished. Raises `AudioError` if the
    folder holds anything else, too many files are unusable, or the disk is full.
    """
    try:
        with _alone(folder):
            return _Packing(sets, folder, options).run(progress)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        what = "the disk is full" if full else f"{error.strerror or error}"
        raise AudioError(
            f"{folder}: cannot be written: {what}. {'Free some space' if full else 'Mend it'} and start the same "
            "command again: it goes on with the shard that it was writing"
        ) from error


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Raises AudioError if another process is packing into the folder, as after a job was started again too early."""
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / _LOCK, blocking=False):
            try:
                yield
            finally:
                (folder / _LOCK).unlink(missing_ok=True)
    except Timeout:
        raise AudioError(
            f"only one process may pack into {folder}, but another is at it; wait for it"
        ) from None


def make_segments(sets: Iterable[ClipSet], *, whole_files: bool) -> list[Segment]:
    """What to store of the clips of all lists, in the order in which they are first listed.

    With `whole_files`, each file as it is; otherwise only its listed segments, and those that overlap or touch as one.
    """
    listed: dict[Key, int] = {}  # position in the lists
    by_path: dict[str, list[Extent]] = {}
    for clip in (clip for clip_set in sets for clip in clip_set.clips):
        path, start, duration = key = _key(clip)
        if key not in listed:
            listed[key] = len(listed)
            by_path.setdefault(path, []).append((start, duration))
    found = [
        segment
        for path, extents in by_path.items()
        for segment in ([Segment(path, 0, None, tuple(extents))] if whole_files else _merged(path, extents))
    ]
    return sorted(found, key=lambda part: min(listed[part.path, *extent] for extent in part.extents))


def _merged(path: str, extents: Sequence[Extent]) -> list[Segment]:
    """The segments of one file."""
    found: list[tuple[int, float, list[Extent]]] = []
    for start, duration in sorted(extents, key=lambda extent: extent[0]):
        second, end = math.floor(start), math.inf if duration is None else start + duration
        if found and second <= found[-1][1]:
            first, last, members = found.pop()
            found.append((first, max(last, end), [*members, (start, duration)]))
        else:
            found.append((second, end, [(start, duration)]))
    return [Segment(path, start, None if end == math.inf else end, tuple(of)) for start, end, of in found]


def _with_recordings(sets: Mapping[str, ClipSet], segments: Sequence[Segment]) -> dict[str, ClipSet]:
    """The lists; ungrouped clips of one file that several members hold become a group, one in each split."""
    several = {path for path, count in Counter(part.path for part in segments).items() if count > 1}
    folder = os.path.commonpath([*map(os.path.dirname, several)]) if several else ""
    found = {}
    for name, clip_set in sets.items():
        splits = Counter(path for path, _ in {(_key(clip)[0], clip.split) for clip in clip_set.clips})
        clips = []
        for clip in clip_set.clips:
            path = _key(clip)[0]
            if clip.group is None and path in several:
                group = f"file {os.path.relpath(path, folder)}"
                clip = replace(clip, group=f"{group}, {clip.split}" if splits[path] > 1 else group)
            clips.append(clip)
        found[name] = ClipSet(tuple(clips), clip_set.label_names)
    return found


def _key(clip: Clip) -> Key:
    """Path and extent in Python's own types; lists may have numpy's, which JSON cannot write."""
    duration = None if clip.duration is None else float(clip.duration)
    return os.path.abspath(clip.path), float(clip.start), duration


class Members(Dataset[Encoded]):
    """The members of the segments, by number."""

    def __init__(self, segments: Sequence[Segment], options: PackOptions) -> None:
        self.segments, self.options = segments, options

    def __getitem__(self, number: int) -> Encoded:
        segment, options = self.segments[number], self.options
        state = audio_state(Path(segment.path))
        return replace(encode(segment, form=options.form, sample_rate=options.sample_rate), state=state)


@dataclass
class ShardRecord:
    """A shard and the outcome of the segments that it covers; the record is kept until the pack is finished."""

    name: str
    end: int = 0  # number of the first segment after the shard
    bytes: int = 0
    sha256: str = ""
    crc32: str = ""  # of its blocks, as the manifest has it
    names: dict[str, str] = field(default_factory=dict)  # of the members, by segment number
    rows: list[tuple[int, ...]] = field(default_factory=list)  # of the members, as `members.npy` has them
    bad: list[tuple[str, float, float | None, str]] = field(default_factory=list)  # key and reason
    rounded: int = 0  # members whose samples were not 16-bit PCM
    clipped: int = 0  # members with samples beyond full scale
    sources: dict[str, list[object]] = field(default_factory=dict)  # state of each file, by path

    def changed(self) -> str | None:
        """A file that is not what was packed; one that is gone counts as unchanged."""
        states = ((path, state, audio_state(Path(path))) for path, state in self.sources.items())
        return next((path for path, state, now in states if now and now != state), None)


class _ShardWriter:
    """Writes one shard, under the name `.NAME.partial` until `finish`."""

    def __init__(self, folder: Path, number: int) -> None:
        self.folder, self.number = folder, number
        self.record = ShardRecord(f"shard-{number:05}.tar")
        self._partial = folder / f".{self.record.name}.partial"
        self._tar = tarfile.open(self._partial, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115  # open until `finish`

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._tar.offset

    def add(
        self, number: int, segment: Segment, encoded: Encoded, clips: Sequence[Mapping[str, Any]]
    ) -> None:
        """Adds a segment: a member with JSON beside it (a sample of WebDataset), or only the reasons why it is bad."""
        record, info = self.record, encoded.info
        record.sources.setdefault(segment.path, encoded.state)
        record.bad += [(segment.path, *extent, reason) for extent, reason in encoded.bad]
        if info is None:
            return
        key = f"{self.number:05}-{len(record.rows):06}"
        name = f"{key}.{encoded.suffix}" if encoded.suffix else key
        place = (self._tar.offset + TAR_BLOCK, len(encoded.content))
        record.rows.append((*place, info.sample_rate, info.frames, info.channels))
        record.names[str(number)] = f"{record.name}/{name}"
        record.rounded += encoded.rounded
        record.clipped += encoded.clipped
        self._add(name, encoded.content)
        about = {"source": segment.path, "begin": segment.start, "clips": clips}
        self._add(f"{key}.json", json.dumps(about).encode())

    def _add(self, name: str, content: bytes) -> None:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        self._tar.addfile(entry, io.BytesIO(content))

    def finish(self, end: int) -> ShardRecord:
        """Closes the shard, which covers the segments before `end`, and gives it its name."""
        self._tar.close()
        record = self.record
        with self._partial.open("rb") as file:
            os.fsync(file.fileno())
            digest, checksums = hashlib.sha256(), bytearray()
            while content := file.read(BLOCK_BYTES):
                digest.update(content)
                checksums += zlib.crc32(content).to_bytes(4, "little")
        record.sha256, record.crc32 = digest.hexdigest(), base64.b64encode(checksums).decode()
        record.end, record.bytes = end, self._partial.stat().st_size
        os.replace(self._partial, self.folder / record.name)
        replace_json(self.folder / f"{record.name}.json", asdict(record))
        return record

    def abandon(self) -> None:
        """Removes what was written."""
        if self._tar.fileobj is not None:
            self._tar.fileobj.close()  # without the end of the tar file, which may not fit on the disk
        self._partial.unlink(missing_ok=True)


class _Packing:
    """One packing into a folder."""

    def __init__(self, sets: Mapping[str, ClipSet], folder: Path, options: PackOptions) -> None:
        self.folder, self.options = folder, options
        self.segments = make_segments(sets.values(), whole_files=options.form == "keep")
        self.sets = _with_recordings(sets, self.segments)
        self.segment_of = {
            (part.path, *extent): number
            for number, part in enumerate(self.segments)
            for extent in part.extents
        }
        stored = ("form", "sample_rate", "shard_bytes")
        self.stored_as = {name: getattr(options, name) for name in stored}

    def run(self, progress: Progress | None) -> PackSummary:
        """Resumes after the existing shards, and finishes the pack."""
        fingerprint = self._fingerprint()
        if (summary := self._claim(fingerprint)) is not None:
            return self._tidy(summary)
        done = list(self._done())
        self._remove_shards(but=done)
        records = [*done, *self._write_shards(done, progress)]
        self._refuse_too_many_bad(records)
        return self._finish(records, fingerprint, kept=len(done))

    def _fingerprint(self) -> str:
        """A SHA-256 of lists and options; an interrupted packing recognises its folder by it."""
        digest = hashlib.sha256(json.dumps({**self.stored_as, "version": VERSION}, sort_keys=True).encode())
        for name, clip_set in self.sets.items():
            digest.update(json.dumps([name, clip_set.label_names]).encode())
            for clip in clip_set.clips:
                known = [*_key(clip), clip.labels, clip.split, clip.group, float(clip.weight)]
                digest.update(json.dumps(known).encode())
        return digest.hexdigest()

    def _claim(self, fingerprint: str) -> PackSummary | None:
        """The summary of a pack that only lacks the tidying, else None.

        Raises AudioError if the folder is not for this packing.
        """
        folder = self.folder
        partials = list(folder.glob(".*.partial"))
        there = {path.name for path in folder.iterdir() if path not in partials} - {_LOCK}
        if MANIFEST in there and _STARTED not in there:
            raise AudioError(f"{folder} must not be a finished pack; remove it, or take another folder")
        if not there:
            replace_text(folder / _STARTED, json.dumps({"fingerprint": fingerprint}))
        elif _STARTED not in there:
            raise AudioError(
                f"{folder} must be empty or new, but has {sorted(there)[0]}; take another folder"
            )
        with AudioError.blaming(f"{folder / _STARTED} cannot be read"):
            started = json.loads((folder / _STARTED).read_text(encoding="utf-8"))
            other = started["fingerprint"] != fingerprint
            summary = PackSummary(**started["summary"]) if MANIFEST in there and not other else None
        if other:
            raise AudioError(
                f"{folder} must be of the same packing, but was started with other clips or options; remove it, or "
                "take another folder"
            )
        for partial in partials:
            partial.unlink(missing_ok=True)  # that of the file that was just written has its name now
        return summary

    def _tidy(self, summary: PackSummary) -> PackSummary:
        """Removes what a finished pack does not need; the last of it says whose packing it is."""
        for record in self.folder.glob("shard-*.tar.json"):
            record.unlink()
        (self.folder / _STARTED).unlink()
        return summary

    def _done(self) -> Iterator[ShardRecord]:
        """The complete shards, from the first up to the first missing one."""
        for number in range(len(self.segments)):
            shard = self.folder / f"shard-{number:05}.tar"
            record = self.folder / f"{shard.name}.json"
            if not (shard.exists() and record.exists()):
                return
            try:
                found = ShardRecord(**json.loads(record.read_text(encoding="utf-8")))
            except (ValueError, TypeError):  # damaged: it is packed again
                return
            if shard.stat().st_size != found.bytes:
                return
            if (path := found.changed()) is not None:
                logger.warning(
                    "%s has changed since it was packed into %s: this shard and those after it are packed again",
                    path, shard.name,
                )  # fmt: skip
                return
            yield found

    def _remove_shards(self, *, but: Sequence[ShardRecord]) -> None:
        """Removes the other shards and records, the last one first, so that a kill leaves no gap."""
        kept = {record.name for record in but}
        for path in sorted(self.folder.glob("shard-*.tar*"), reverse=True):
            if path.name.removesuffix(".json") not in kept:
                path.unlink()

    def _write_shards(self, done: Sequence[ShardRecord], progress: Progress | None) -> Iterator[ShardRecord]:
        first, total = done[-1].end if done else 0, len(self.segments)
        batches = [range(start, min(start + _BATCH, total)) for start in range(first, total, _BATCH)]
        loader = batch_loader(
            Members(self.segments, self.options), batches, collate=list, workers=self.options.workers
        )
        clips = self._clips_of_segments()
        number, writer = len(done), None
        gc.freeze()  # otherwise garbage collection makes each loading process copy millions of listed clips
        try:
            for i, encoded in enumerate((item for batch in loader for item in batch), start=first):
                writer = writer or _ShardWriter(self.folder, number)
                writer.add(i, self.segments[i], encoded, clips[i])
                if writer.size >= self.options.shard_bytes or i == total - 1:
                    yield writer.finish(i + 1)
                    number, writer = number + 1, None
                if progress is not None:
                    progress(i + 1, total, "")
        finally:
            gc.unfreeze()
            if writer is not None:
                writer.abandon()

    def _clips_of_segments(self) -> list[list[dict[str, Any]]]:
        """Descriptions of the clips of each segment, for other readers of the shards than m2dx."""
        found: list[list[dict[str, Any]]] = [[] for _ in self.segments]
        for name, clip_set in self.sets.items():
            for clip in clip_set.clips:
                number = self.segment_of[_key(clip)]
                found[number].append({"list": name, **self._known(clip, number)})
        return found

    def _known(self, clip: Clip, number: int) -> dict[str, Any]:
        """The description of a clip within a segment."""
        _, start, duration = _key(clip)
        known = {
            "start": start - self.segments[number].start or None,
            "duration": duration,
            "labels": clip.labels or None,
            "split": clip.split,
            "group": clip.group,
            "weight": None if clip.weight == 1.0 else float(clip.weight),
        }
        return {key: value for key, value in known.items() if value is not None}

    def _refuse_too_many_bad(self, records: Sequence[ShardRecord]) -> None:
        """Raises AudioError if all files, or more than allowed, are unusable.

        It then removes the shards from the first such file on, so that the same command packs them again: the files
        may be back.
        """
        reasons = {path: why for record in records for path, *_, why in record.bad}
        files = len({segment.path for segment in self.segments})
        most = self.options.max_bad_fraction
        if len(reasons) <= most * files and any(record.rows for record in records):
            return
        first = next((number for number, record in enumerate(records) if record.bad), 0)
        self._remove_shards(but=records[:first])
        shown = "".join(f"\n  {path}: {why}" for path, why in list(reasons.items())[:_MOST_SHOWN])
        allowed = (
            f"at most {most:.1%} of the {counted(files, 'file')} may be unusable, but {len(reasons)} are"
        )
        if len(reasons) == files:
            allowed = f"there must be audio to pack, but none of {counted(files, 'file')} can be used"
        raise AudioError(
            f"{allowed}. Mend them (is their disk mounted?) and start the same command again, or allow more with "
            f"--max-bad-fraction. The first:{shown}"
        )

    def _finish(self, records: Sequence[ShardRecord], fingerprint: str, *, kept: int) -> PackSummary:
        """Writes the lists and, last, the manifest."""
        folder = self.folder
        bad = {
            (path, start, duration): why for record in records for path, start, duration, why in record.bad
        }
        names = {int(number): name for record in records for number, name in record.names.items()}
        counts = {name: self._write_list(name, names, bad) for name in self.sets}
        ledger = BadFiles(len(self.segments), max_bad_fraction=1.0)
        ledger.add((path, why) for (path, *_), why in bad.items())
        ledger.write(folder / BAD_FILES)
        rows = np.array([row for record in records for row in record.rows], dtype=np.int64)
        replace_file(folder / MEMBERS, lambda file: np.save(file, rows))
        index = [MEMBERS, *(f"{name}.jsonl" for name in counts)]
        shards = [
            {
                "url": r.name,
                "nsamples": len(r.rows),
                "filesize": r.bytes,
                "sha256": r.sha256,
                "crc32": r.crc32,
            }
            for r in records
        ]
        manifest = {
            "__kind__": "wids-shard-index-v1",
            "wids_version": 1,
            "m2dx_pack": VERSION,
            "lists": counts,
            "sha256": {name: sha256_of(folder / name) for name in index},
            "stored_as": self.stored_as,
            "fingerprint": fingerprint,
            "shardlist": shards,
        }
        summary = PackSummary(
            clips=counts,
            bytes=sum(record.bytes for record in records),
            shards=len(records),
            members=len(names),
            bad=len(ledger),
            left_out=sum(len(clip_set.clips) for clip_set in self.sets.values()) - sum(counts.values()),
            rounded=sum(record.rounded for record in records),
            clipped=sum(record.clipped for record in records),
            kept_shards=kept,
        )
        # Before the manifest, for the same command if it has to tidy up after a kill.
        replace_json(folder / _STARTED, {"fingerprint": fingerprint, "summary": asdict(summary)})
        replace_json(folder / MANIFEST, manifest)
        return self._tidy(summary)

    def _write_list(self, name: str, members: Mapping[int, str], bad: Mapping[Key, str]) -> int:
        """Writes a line with the label names and a line per usable clip; returns the number of clips."""
        clip_set = self.sets[name]
        lines = [json.dumps({"label_names": clip_set.label_names})]
        for clip in clip_set.clips:
            number = self.segment_of[_key(clip)]
            if number in members and _key(clip) not in bad:
                lines.append(json.dumps({"path": members[number], **self._known(clip, number)}))
        replace_text(self.folder / f"{name}.jsonl", "\n".join(lines) + "\n")
        return len(lines) - 1
