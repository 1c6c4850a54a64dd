"""The data set of a pack, as `m2dx pack` writes it."""

from __future__ import annotations

import json
import os
from functools import cached_property
from pathlib import Path
from typing import Any

from m2dx.contract.components import Clip, Dataset
from m2dx.contract.errors import AudioError
from m2dx.data.pack_copies import begin_copy, ensure_file
from m2dx.data.packs import MANIFEST, MEMBERS, Pack

_MOST_EXAMPLES = 5  # of shards that are not whole


class PackedDataset(Dataset):
    """The clips of a pack, in the order of the list that was packed, with its labels, splits, groups and weights.

    Raises `AudioError` where the folder is not a finished pack. Shards that are missing or not whole are counted by
    `missing()`; their clips stay in the list, so that they count as bad files when they are read.

    Options:
        path: folder that `m2dx pack` wrote
        part: which of its lists, where it has several: it is of a recipe, and has one for each of its data sets
        url: address of the pack on an object store or another machine (fsspec: s3://, gs://, https://, ...); `path` is
            then the folder into which its shards are fetched, each when it is first read
        keep_gb: with `url`, shards beyond this are removed from `path`, those that were not used for longest; default
            all are kept
    """

    name = "packed"

    def __init__(
        self, *, path: Path, part: str | None = None, url: str | None = None, keep_gb: float | None = None
    ) -> None:
        if keep_gb is not None and (url is None or keep_gb <= 0):
            raise AudioError(f"`keep_gb` must be above 0 and beside `url`, but is {keep_gb} (url: {url})")
        self.path, self.part, self.url, self.keep_gb = path, part, url, keep_gb

    def clips(self, split: str | None = None) -> list[Clip]:
        """Clips of one split, or all of them."""
        return [clip for clip in self._listed[1] if split is None or clip.split == split]

    def label_names(self) -> tuple[str, ...]:
        """Names of the classes, as those of the data set that was packed."""
        return self._listed[0]

    def missing(self) -> list[str]:
        """One line where shards are missing or not whole: how many, and the first ones."""
        shards = self._pack.shards.values()
        if self.url is not None:
            return []
        absent = [shard.name for shard in shards if _size(self.path / shard.name) != shard.bytes]
        if not absent:
            return []
        return [
            f"{len(absent)} of {len(shards)} shards of {self.path} are missing or not whole, e.g. "
            + ", ".join(absent[:_MOST_EXAMPLES])
        ]

    @cached_property
    def _pack(self) -> Pack:
        if self.url is not None:
            keep = None if self.keep_gb is None else round(self.keep_gb * 1e9)
            begin_copy(self.path, self.url, keep_bytes=keep, files=(MEMBERS, MANIFEST))
        return Pack(os.fspath(self.path))

    @cached_property
    def _listed(self) -> tuple[tuple[str, ...], list[Clip]]:
        """The label names, and all clips."""
        lists = self._pack.manifest["lists"]
        part = self._part(tuple(lists))
        path = self.path / f"{part}.jsonl"
        if self.url is not None:
            ensure_file(self.url, self.path, path.name)
        try:
            with path.open(encoding="utf-8") as file:
                head = json.loads(file.readline())
                clips = [self._clip(json.loads(line)) for line in file]
        except (OSError, ValueError, KeyError) as error:
            raise AudioError(f"the pack {self.path} cannot be read: {path.name}: {error}") from error
        if len(clips) != lists[part]:
            raise AudioError(
                f"the pack {self.path} is damaged: {path.name} must have {lists[part]} clips, but has {len(clips)}"
            )
        return tuple(head["label_names"]), clips

    def _part(self, there: tuple[str, ...]) -> str:
        if self.part is None and len(there) == 1:
            return there[0]
        if self.part in there:
            return self.part
        given = "is not given" if self.part is None else f"is {self.part!r}"
        raise AudioError(
            f"`part` must be one of the lists of {self.path} ({', '.join(map(repr, there))}), but {given}"
        )

    def _clip(self, line: dict[str, Any]) -> Clip:
        return Clip(
            path=self.path / line["path"],
            start=line.get("start", 0.0),
            duration=line.get("duration"),
            labels=tuple(line.get("labels", ())),
            split=line.get("split"),
            group=line.get("group"),
            weight=line.get("weight", 1.0),
        )


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
