"""The recordings that a user has: a folder or a list becomes clips with labels, groups and splits."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

import m2dx
from m2dx.contract.wording import counted
from m2dx.data.containers import dataset_of
from m2dx.data.csv_list import SYNONYMS, CsvDataset
from m2dx.data.files import extension_of
from m2dx.data.reading import probe
from m2dx.data.tables import Table
from m2dx_specialise import names
from m2dx_specialise.names import NONE, Choice

READING_THREADS = 4


class Clip(m2dx.Clip):
    """A clip of m2dx; `duration` is always known."""

    __slots__ = ()

    @property
    def label(self) -> str | None:
        """Its labels, separated by `;`; None: not labelled."""
        return ";".join(self.labels) or None

    @property
    def seconds(self) -> float:
        """Its duration."""
        assert self.duration is not None
        return self.duration


@dataclass(frozen=True)
class Proposal:
    """Where labels and groups were found."""

    label: Choice | None
    group: Choice | None
    sentence: str


@dataclass(frozen=True)
class Listing:
    """All recordings, with what else their labels and groups could be."""

    data: Path
    clips: tuple[Clip, ...]
    proposal: Proposal
    labels: tuple[Choice, ...]
    """Every way to tell the labels that was found, the proposed one among them."""
    groups: tuple[Choice, ...]
    bad: tuple[tuple[Path, str], ...] = ()
    """Files that cannot be opened, with the reason; they are not among the clips."""
    notes: tuple[str, ...] = ()
    """What was taken for something else, or left out, a line each."""

    @property
    def alternatives(self) -> dict[str, tuple[Choice, ...]]:
        """For "label" and "group": the ways that were not proposed."""
        return {
            "label": tuple(choice for choice in self.labels if choice is not self.proposal.label),
            "group": tuple(choice for choice in self.groups if choice is not self.proposal.group),
        }

    @property
    def classes(self) -> Counter[str]:
        """Label -> its number of clips."""
        return Counter(label for clip in self.clips for label in clip.labels)

    @property
    def seconds(self) -> float:
        """Of all clips together."""
        return sum(clip.seconds for clip in self.clips)


def read(
    data: Path, labels: Path | None = None, *, label_from: str | None = None, group_from: str | None = None
) -> Listing:
    """The recordings of a folder or of a list, with labels and groups from columns, folders or file names.

    `labels` is a list of the files of a folder. `label_from` and `group_from` are keys of choices ("column:species",
    "folder:1", "name:2", or "none") instead of the proposed ones.
    Raises AudioError where there is no audio, a list cannot be used, or no file can be read; RecipeError for a key that
    is none.
    """
    notes: list[str] = []
    if labels is None and data.is_dir() and dataset_of(data) is None:
        labels = _only_list(data, notes)
    if labels is not None or not data.is_dir():
        found = _of_list(labels or data, data if data.is_dir() else None, notes)
    else:
        found = _of_folder(data, notes)
    label = _chosen("label", label_from, found.label, found.labels)
    group = _chosen("group", group_from, found.group, found.groups)
    if group_from is None and (group is None or group.key != "column:group"):
        group = names.best_group(found.groups, label)
    clips, bad, rows = _probed(found.clips)
    if not clips:
        first = f"{bad[0][0]}: {bad[0][1]}"
        raise m2dx.AudioError(f"{data}: none of {counted(len(bad), 'file')} can be read; the first: {first}")
    listed = []
    for row, clip in zip(rows, clips, strict=True):
        name = label.values[row] if label is not None else None
        listed.append(
            replace(
                clip,
                labels=tuple(filter(None, (part.strip() for part in (name or "").split(";")))),
                group=group.values[row] if group is not None else None,
            )
        )
    proposal = Proposal(label, group, _sentence(listed, label, group))
    return Listing(data, tuple(listed), proposal, found.labels, found.groups, tuple(bad), tuple(notes))


@dataclass(frozen=True)
class _Found:
    clips: list[m2dx.Clip]
    labels: tuple[Choice, ...]
    groups: tuple[Choice, ...]
    label: Choice | None
    group: Choice | None


def _of_folder(data: Path, notes: list[str]) -> _Found:
    packed = dataset_of(data)
    if packed is not None:
        clips = packed.clips()
        notes += packed.missing()
    else:
        files = m2dx.list_audio(data)
        clips = [m2dx.Clip(path) for path in files.readable]
        notes += files.missing()
    if not clips:
        there = f" (only {notes[0]})" if notes else ""
        raise m2dx.AudioError(f"there must be audio files in {data}, but there are none{there}")
    if packed is not None:
        return _with_columns(clips, [], notes)
    paths = [clip.path.relative_to(data) for clip in clips]
    split = names.split_of(paths)
    by_folder = names.folders(paths)
    if split is not None:
        level, splits = split
        notes.append(f"the folders of level {level} are taken as splits")
        clips = [replace(clip, split=one) for clip, one in zip(clips, splits, strict=True)]
        by_folder = [choice for choice in by_folder if choice.key != f"folder:{level}"]
    choices = (*by_folder, *names.parts(paths))
    label = names.best_label(choices)
    return _Found(clips, choices, choices, label, names.best_group(choices, label))


def _of_list(path: Path, root: Path | None, notes: list[str]) -> _Found:
    dataset = CsvDataset(path=path, root=root)
    if root is not None and dataset.missing() and not CsvDataset(path=path).missing():
        dataset = CsvDataset(path=path)
    clips = dataset.clips()
    notes += dataset.notes()
    cells = _cells_of(path, clips, dataset.root)
    found = _with_columns(clips, cells, notes)
    if root is None or found.label is None:
        return found
    known = {os.path.realpath(clip.path) for clip in clips}
    others = [file for file in m2dx.list_audio(root).readable if os.path.realpath(file) not in known]
    if not others:
        return found
    notes.append(f"{counted(len(others), 'file')} in {root} are not in {path.name}: without labels")
    more = (None,) * len(others)
    wider = {id(c): replace(c, values=c.values + more) for c in {*found.labels, *found.groups}}

    def widened(choice: Choice | None) -> Choice | None:
        return None if choice is None else wider[id(choice)]

    return _Found(
        [*clips, *map(m2dx.Clip, others)],
        tuple(wider[id(choice)] for choice in found.labels),
        tuple(wider[id(choice)] for choice in found.groups),
        widened(found.label),
        widened(found.group),
    )


def _with_columns(clips: list[m2dx.Clip], cells: Sequence[dict[str, str]], notes: list[str]) -> _Found:
    """The clips of a list: its own labels and groups, then what other columns and names say."""
    paths = [PurePath(clip.path.name) for clip in clips]
    taken = {name for column in SYNONYMS for name in (column, *SYNONYMS[column].split())} | {"offset"}
    lowered = [name for row in cells[:1] for name in row if name.strip().lower() in taken]
    others = (*names.columns(cells, lowered), *names.parts(paths))
    own_label = own_group = None
    if any(clip.labels for clip in clips):
        values = tuple(";".join(clip.labels) or None for clip in clips)
        own_label = Choice("column:label", "the column of labels", values)
    if any(clip.group is not None for clip in clips):
        own_group = Choice("column:group", "the column `group`", tuple(clip.group for clip in clips))
    label = own_label or names.best_label(others)
    labels = (own_label, *others) if own_label is not None else others
    groups = (own_group, *others) if own_group is not None else others
    return _Found(clips, labels, groups, label, own_group or names.best_group(others, label))


def _cells_of(path: Path, clips: Sequence[m2dx.Clip], root: Path) -> list[dict[str, str]]:
    """The cells of the clips' lines; none where lines were joined to fewer clips."""
    rows = Table.read(path, delimiter="\t" if extension_of(path) == "tsv" else None).rows(dict)
    return rows if len(rows) == len(clips) else []


def _only_list(data: Path, notes: list[str]) -> Path | None:
    """The list in a folder, where it has one at its top that names audio files of it."""
    found = []
    for path in sorted((*data.glob("*.csv"), *data.glob("*.tsv"))):
        try:
            dataset = CsvDataset(path=path)
            if not dataset.missing():
                found.append((path, any(clip.labels for clip in dataset.clips())))
        except m2dx.M2dxError:
            continue
    labelled = [path for path, has_labels in found if has_labels]
    if len(labelled) == 1:
        notes.append(f"labels are read from {labelled[0]}")
        return labelled[0]
    if len(labelled) > 1:
        shown = ", ".join(path.name for path in labelled)
        notes.append(
            f"{data} has several lists ({shown}), none of which is used; give one as DATA or by --labels"
        )
    return None


def _chosen(what: str, key: str | None, proposed: Choice | None, choices: Sequence[Choice]) -> Choice | None:
    if key is None:
        return proposed
    if key == NONE:
        return None
    found = next((choice for choice in choices if choice.key == key), None)
    if found is None:
        known = ", ".join([*(choice.key for choice in choices), NONE])
        raise m2dx.RecipeError(f"where the {what} is from must be one of {known}, but is {key!r}")
    return found


def _probed(clips: Sequence[m2dx.Clip]) -> tuple[list[Clip], list[tuple[Path, str]], list[int]]:
    """The clips with their durations, the bad files, and the rows of the clips that are left."""
    files = list(dict.fromkeys(clip.path for clip in clips))

    def seconds(path: Path) -> float | str:
        try:
            return probe(path).seconds
        except m2dx.AudioError as error:
            return str(error)

    with ThreadPoolExecutor(READING_THREADS) as pool:
        known: Mapping[Path, float | str] = dict(zip(files, pool.map(seconds, files), strict=True))
    good, rows = [], []
    bad = [(path, reason) for path, reason in known.items() if isinstance(reason, str)]
    for row, clip in enumerate(clips):
        length = known[clip.path]
        if isinstance(length, str):
            continue
        if clip.start >= length:
            bad.append((clip.path, f"start ({clip.start:g} s) is past its end ({length:.3f} s)"))
            continue
        duration = min(clip.duration or length, length - clip.start)
        good.append(Clip(clip.path, clip.start, duration, clip.labels, clip.split, clip.group, clip.weight))
        rows.append(row)
    return good, bad, rows


def _sentence(clips: Sequence[Clip], label: Choice | None, group: Choice | None) -> str:
    total = counted(len(clips), "clip")
    classes = Counter(name for clip in clips for name in clip.labels)
    groups = {clip.group for clip in clips if clip.group is not None}
    text = f"{total}; labels: none were found"
    if label is not None:
        rare, most = min(classes.values(), default=0), max(classes.values(), default=0)
        each = f"{rare} to {most} clips each" if rare != most else f"{most} clips each"
        text = f"{total}; labels from {label.where}: {counted(len(classes), 'class')}, {each}"
    if group is None:
        return f"{text}; no groups are known, so that each file counts as one"
    return f"{text}; groups from {group.where}: {counted(len(groups), 'group')}"
