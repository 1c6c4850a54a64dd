"""The job of `m2dx pack`: it stores what a plan says in shards, goes on where it was interrupted, and lists it."""

from __future__ import annotations

import errno
import gc
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from m2dx.contract.atomic import replace_file, replace_json, replace_text
from m2dx.contract.components import Clip
from m2dx.contract.errors import AudioError
from m2dx.contract.wording import counted
from m2dx.data.bad_files import BadFiles
from m2dx.data.loader import worker_loader
from m2dx.data.packing.encoding import Encoded, Format, Members, gather
from m2dx.data.packing.plan import ClipSet, Plan, fingerprint, key_of, make_plan
from m2dx.data.packing.shards import ShardRecord, ShardWriter
from m2dx.data.packs import MANIFEST, MEMBERS, VERSION

BAD_FILES = "bad_files.tsv"
_STARTED = ".started.json"  # whose packing a folder is
_LOCK = ".lock"
_MOST_SHOWN = 5  # unusable files in an error
_BATCH = 8  # stretches that a loading process encodes at a time

Progress = Callable[[int, int], None]
"""Called with the stretches done and the stretches in all."""


@dataclass(frozen=True)
class PackOptions:
    """How the audio is stored."""

    form: Format = "flac"
    sample_rate: int | None = None  # Hz; None: each file's own
    shard_bytes: int = 512 * 10**6  # of a shard, about
    workers: int | None = None  # loading processes; None: one per core
    max_bad_fraction: float = 0.05  # share of unusable files above which there is no pack


@dataclass(frozen=True)
class PackSummary:
    """What has been packed."""

    clips: Mapping[str, int]  # of each list
    bytes: int
    shards: int
    members: int
    bad: int  # files that could not be used
    left_out: int  # clips of them
    rounded: int  # files that were not mono 16-bit PCM at the rate
    clipped: int  # files with samples beyond full scale
    kept_shards: int  # of an interrupted packing


def pack(
    sets: Mapping[str, ClipSet], folder: Path, options: PackOptions, *, progress: Progress | None = None
) -> PackSummary:
    """Stores the clips of the lists in `folder`, which is a pack when this returns.

    What an interrupted packing of the same lists and options has finished is kept. Raises `AudioError` where the
    folder holds anything else, too many files cannot be read, or the disk is full.
    """
    stored_as = {"form": options.form, "sample_rate": options.sample_rate, "shard_bytes": options.shard_bytes}
    identity = fingerprint(sets, {**stored_as, "version": VERSION})
    plan = make_plan(sets.values(), whole_files=options.form == "keep")
    try:
        with _alone(folder):
            done = _begin(folder, identity)
            records = list(done)
            for record in _write_shards(plan, sets, folder, options, done, progress):
                records.append(record)
            _refuse_too_many_bad(folder, plan, records, options.max_bad_fraction)
            return _finish(sets, plan, folder, records, identity, stored_as, kept=len(done))
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        what = "the disk is full" if full else f"{error.strerror or error}"
        raise AudioError(
            f"{folder}: cannot be written: {what}. {'Free some space' if full else 'Mend it'} and start the same "
            "command again: it goes on with the shard that it was writing"
        ) from error


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """AudioError where another process is packing into the folder, such as a job that was started again too early."""
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / _LOCK, blocking=False)
    try:
        with lock:
            try:
                yield
            finally:
                (folder / _LOCK).unlink(missing_ok=True)
    except Timeout:
        raise AudioError(
            f"only one process may pack into {folder}, but another is at it; wait for it"
        ) from None


def _begin(folder: Path, identity: str) -> list[ShardRecord]:
    """The shards that are done; AudioError where the folder is not for this packing."""
    there = {path.name for path in folder.iterdir()} - {_LOCK}
    if MANIFEST in there:
        raise AudioError(f"{folder} must not be a finished pack; remove it, or take another folder")
    if not there:
        replace_text(folder / _STARTED, json.dumps({"fingerprint": identity}))
        return []
    try:
        begun = json.loads((folder / _STARTED).read_text(encoding="utf-8"))["fingerprint"]
    except FileNotFoundError:
        raise AudioError(
            f"{folder} must be empty or new, but has {sorted(there)[0]}; take another folder"
        ) from None
    if begun != identity:
        raise AudioError(
            f"{folder} must be of the same packing, but was begun with other clips or options; remove it, or take "
            "another folder"
        )
    for partial in folder.glob(".*.partial"):
        partial.unlink()
    return list(_done(folder))


def _done(folder: Path) -> Iterator[ShardRecord]:
    """The shards from the first on, up to the one that is missing."""
    end = 0
    while True:
        name = f"shard-{end:05}.tar"
        shard, record = folder / name, folder / f"{name}.json"
        if not (shard.exists() and record.exists()):
            return
        found = ShardRecord.read(record)
        if shard.stat().st_size != found.bytes:
            return
        yield found
        end += 1


def _write_shards(
    plan: Plan,
    sets: Mapping[str, ClipSet],
    folder: Path,
    options: PackOptions,
    done: Sequence[ShardRecord],
    progress: Progress | None,
) -> Iterator[ShardRecord]:
    first, total = done[-1].end if done else 0, len(plan.stretches)
    batches = [range(begin, min(begin + _BATCH, total)) for begin in range(first, total, _BATCH)]
    members = Members(plan.stretches, form=options.form, sample_rate=options.sample_rate)
    loader = worker_loader(members, batches, collate=gather, workers=options.workers)
    about = _about(plan, sets)
    number, writer = len(done), None
    gc.freeze()  # or each loading process would copy millions of listed clips when it collects garbage
    try:
        for stretch, encoded in enumerate((item for batch in loader for item in batch), start=first):
            if writer is None:
                writer = ShardWriter(folder, number, stretch)
            _add(writer, stretch, encoded, plan, about)
            if writer.size >= options.shard_bytes:
                yield writer.finish(stretch + 1)
                number, writer = number + 1, None
            if progress is not None:
                progress(stretch + 1, total)
        if writer is not None:
            yield writer.finish(total)
            writer = None
    finally:
        gc.unfreeze()
        if writer is not None:
            writer.abandon()


def _add(
    writer: ShardWriter, number: int, encoded: Encoded, plan: Plan, about: Mapping[int, list[dict[str, Any]]]
) -> None:
    stretch, record = plan.stretches[number], writer.record
    record.bad += [(stretch.path, *extent, reason) for extent, reason in encoded.bad]
    if encoded.content:
        source = {"source": stretch.path, "begin": stretch.begin, "clips": about[number]}
        writer.add(number, encoded, source)
        record.rounded += encoded.rounded
        record.clipped += encoded.clipped > 0


def _about(plan: Plan, sets: Mapping[str, ClipSet]) -> dict[int, list[dict[str, Any]]]:
    """What is known of the clips of each stretch, for readers of the shards other than m2dx."""
    found: dict[int, list[dict[str, Any]]] = {i: [] for i in range(len(plan.stretches))}
    for name, clip_set in sets.items():
        for clip in clip_set.clips:
            number = plan.stretch_of(clip)
            found[number].append({"list": name, **_known(clip, plan.stretches[number].begin)})
    return found


def _known(clip: Clip, begin: int) -> dict[str, Any]:
    """What is known of a clip in a stretch that begins there (s)."""
    _, start, duration = key_of(clip)
    known = {
        "start": start - begin or None,
        "duration": duration,
        "labels": clip.labels or None,
        "split": clip.split,
        "group": clip.group,
        "weight": None if clip.weight == 1.0 else float(clip.weight),
    }
    return {key: value for key, value in known.items() if value is not None}


def _refuse_too_many_bad(folder: Path, plan: Plan, records: Sequence[ShardRecord], most: float) -> None:
    """AudioError where a larger share of the files than `most` cannot be used, or all of them.

    The shards from the first such file on are removed, so that the same command packs them anew: the files may be back.
    """
    reasons = {path: why for record in records for path, *_, why in record.bad}
    files = len({stretch.path for stretch in plan.stretches})
    if len(reasons) <= most * files and any(record.rows for record in records):
        return
    first = next((number for number, record in enumerate(records) if record.bad), 0)
    for record in records[first:]:
        record.remove(folder)
    shown = "".join(f"\n  {path}: {why}" for path, why in list(reasons.items())[:_MOST_SHOWN])
    allowed = f"at most {most:.1%} of the {counted(files, 'file')} may be unusable, but {len(reasons)} are"
    if len(reasons) == files:
        allowed = f"there must be audio to pack, but none of {counted(files, 'file')} can be used"
    raise AudioError(
        f"{allowed}. Mend them (is their disk mounted?) and start the same command again, or allow more with "
        f"--max-bad-fraction. The first:{shown}"
    )


def _finish(
    sets: Mapping[str, ClipSet],
    plan: Plan,
    folder: Path,
    records: Sequence[ShardRecord],
    identity: str,
    stored_as: Mapping[str, object],
    *,
    kept: int,
) -> PackSummary:
    """Writes the lists and, last, the manifest."""
    names = {
        stretch: f"{record.name}/{record.name[6:11]}-{row:06}{'.' * bool(suffix)}{suffix}"
        for record in records
        for row, (stretch, suffix) in enumerate(zip(record.stretches, record.suffixes, strict=True))
    }
    bad = {(path, start, duration): why for record in records for path, start, duration, why in record.bad}
    counts = {
        name: _write_list(folder / f"{name}.jsonl", clip_set, plan, names, bad)
        for name, clip_set in sets.items()
    }
    ledger = BadFiles(len(plan.stretches), max_bad_fraction=1.0)
    ledger.add((path, why) for (path, *_), why in bad.items())
    ledger.write(folder / BAD_FILES)
    rows = np.array([row for record in records for row in record.rows], dtype=np.int64)
    replace_file(folder / MEMBERS, lambda file: np.save(file, rows))
    shards = [
        {"url": r.name, "nsamples": len(r.rows), "filesize": r.bytes, "sha256": r.sha256} for r in records
    ]
    manifest = {
        "__kind__": "wids-shard-index-v1",
        "wids_version": 1,
        "m2dx_pack": VERSION,
        "lists": counts,
        "stored_as": stored_as,
        "fingerprint": identity,
        "shardlist": shards,
    }
    replace_json(folder / MANIFEST, manifest)
    for record in records:
        (folder / f"{record.name}.json").unlink()
    (folder / _STARTED).unlink()
    return PackSummary(
        clips=counts,
        bytes=sum(record.bytes for record in records),
        shards=len(records),
        members=len(names),
        bad=len(ledger),
        left_out=sum(len(clip_set.clips) for clip_set in sets.values()) - sum(counts.values()),
        rounded=sum(record.rounded for record in records),
        clipped=sum(record.clipped for record in records),
        kept_shards=kept,
    )


def _write_list(
    path: Path,
    clip_set: ClipSet,
    plan: Plan,
    names: Mapping[int, str],
    bad: Mapping[tuple[str, float, float | None], str],
) -> int:
    """The clips that can be used, a line each, after one with the label names; how many they are."""
    lines = [json.dumps({"label_names": clip_set.label_names})]
    for clip in clip_set.clips:
        number = plan.stretch_of(clip)
        if number in names and key_of(clip) not in bad:
            lines.append(json.dumps({"path": names[number], **_known(clip, plan.stretches[number].begin)}))
    replace_text(path, "\n".join(lines) + "\n")
    return len(lines) - 1
