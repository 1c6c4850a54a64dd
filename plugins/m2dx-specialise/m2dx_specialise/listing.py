"""The recordings that a user has: a folder or a list becomes clips with labels, groups and splits."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

import m2dx
from m2dx.contract.wording import counted, some_of
from m2dx.data.containers import dataset_of, is_there
from m2dx.data.csv_list import SPLITS, SYNONYMS, CsvDataset
from m2dx.data.files import extension_of
from m2dx.data.reading import probe
from m2dx.data.tables import Table
from m2dx_specialise import names
from m2dx_specialise.names import NONE, Choice

READING_THREADS, MOST_NAMED = 4, 3


class Clip(m2dx.Clip):
    """A clip of m2dx; `duration` is always known."""

    __slots__ = ()

    @property
    def seconds(self) -> float:
        """Its duration."""
        assert self.duration is not None
        return self.duration


@dataclass(frozen=True)
class Listing:
    """All recordings, with where labels and groups were found, and what else they could be."""

    data: Path
    clips: tuple[Clip, ...]
    label: Choice | None
    group: Choice | None
    labels: tuple[Choice, ...]  # every way to tell the labels that was found, the proposed one among them
    groups: tuple[Choice, ...]
    bad: tuple[tuple[Path, str], ...]  # files that cannot be opened, with the reason; not among the clips
    notes: tuple[str, ...]  # what was taken for something else, or left out, a line each
    groups_given: bool = False  # in a column of groups, or by a key

    @property
    def classes(self) -> Counter[str]:
        """Label -> its number of clips."""
        return Counter(label for clip in self.clips for label in clip.labels)

    @property
    def sentence(self) -> str:
        """Clips, labels and groups, in words."""
        text = f"{counted(len(self.clips), 'clip')}; labels: "
        if self.label is None:
            text += "none were found"
        else:
            counts = self.classes.values()
            rare, most = min(counts, default=0), max(counts, default=0)
            each = (
                f"{rare} to {counted(most, 'clip')} each" if rare != most else f"{counted(most, 'clip')} each"
            )
            few = replace(self.label, values=tuple(self.classes)).few
            text += f"from {self.label.where}, {counted(len(counts), 'class')} ({few}), {each}"
            without = sum(not clip.labels for clip in self.clips)
            text += f", {without:,} without" if without else ""
        if self.group is None:
            return f"{text}; groups: none are known, so that each file counts as one"
        count = len({clip.group for clip in self.clips if clip.group is not None})
        return f"{text}; groups: from {self.group.where}, {count:,} of them ({self.group.few})"


@dataclass(frozen=True)
class _Found:
    clips: list[Clip]  # whose files can be read
    labels: tuple[Choice, ...]
    groups: tuple[Choice, ...]
    label: Choice | None
    group: Choice | None  # that of a column of groups; else the best one beside the label is taken


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
    bad: list[tuple[Path, str]] = []
    if labels is None and data.is_dir() and dataset_of(data) is None:
        labels = _only_list(data, notes)
    if labels is not None or not data.is_dir():
        found = _of_list(labels or data, data if data.is_dir() else None, notes, bad)
    else:
        found = _of_folder(data, notes, bad)
    label = _chosen("label", label_from, found.label, found)
    group = _chosen("group", group_from, found.group, found)
    is_given = group_from is not None or group is not None
    if not is_given:
        group = names.best_group(found.groups, label)

    def of_all(choice: Choice) -> Choice:
        """Files beside the list have none."""
        return replace(choice, values=(*choice.values, *[None] * (len(found.clips) - len(choice.values))))

    if label is not None and label_from is None and label.key != "column:label":
        for other in names.as_likely(found.labels, label)[:MOST_NAMED]:
            text = f"labels are from {label.where}, but may be from {other.where} ({other.few})"
            notes.append(f"{text}: --label-from {other.key}")
    for few in names.too_few(found.groups, label) if group_from is None else ():
        text = f"{few.where} ({few.few}) may be groups, but so few that training and test cannot be kept apart by them"
        notes.append(f"{text}: {names.FEWEST_GROUPS} are the least")
    label, group = (choice and of_all(choice) for choice in (label, group))
    labels_found, groups_found = (tuple(map(of_all, choices)) for choices in (found.labels, found.groups))
    values = [value or "" for value in label.values] if label else [""] * len(found.clips)
    if label is not None and not label.key.startswith("column:") and any(";" in value for value in values):
        notes.append("names of labels have `,` for each `;`, which parts several labels of a clip in lists")
        values = [value.replace(";", ",") for value in values]
    clips = list(found.clips)
    for row, clip in enumerate(clips):
        own = tuple(filter(None, (part.strip() for part in values[row].split(";"))))
        clips[row] = replace(clip, labels=own, group=None if group is None else group.values[row])
    return Listing(
        data, tuple(clips), label, group, labels_found, groups_found, tuple(bad), tuple(notes), is_given
    )


def _of_folder(data: Path, notes: list[str], bad: list[tuple[Path, str]]) -> _Found:
    packed = dataset_of(data)
    if packed is not None:
        listed, missing = packed.clips(), packed.missing()
    else:
        files = m2dx.list_audio(data)
        listed, missing = [m2dx.Clip(path) for path in files.readable], files.missing()
    notes += missing
    if not listed:
        there = f" (only {notes[0]})" if notes else ""
        raise m2dx.AudioError(f"there must be audio files in {data}, but there are none{there}")
    _, clips = _readable(data, listed, bad)
    if packed is not None:
        return _with_columns(clips, [], named=False)  # names of shards and members
    paths = [clip.path.relative_to(data) for clip in clips]
    by_folder = names.folders(paths)
    if split := names.split_of(paths):
        level, splits = split
        notes.append(f"the folders of level {level} are taken as splits")
        clips = [replace(clip, split=one) for clip, one in zip(clips, splits, strict=True)]
        by_folder = [choice for choice in by_folder if choice.key != f"folder:{level}"]
    tops = {path.parts[0] for path in paths if len(path.parts) > 1}
    unknown = sorted(top for top in tops if top.lower() not in SPLITS)
    if unknown and {"train", "test"} <= {SPLITS.get(top.lower()) for top in tops}:
        notes.append(
            f"beside train and test there are {some_of(map(repr, unknown))}: no folders are taken as splits"
        )
    choices = (*by_folder, *names.parts(paths))
    label = names.best_label(choices)
    return _Found(clips, choices, choices, label, None)


def _of_list(path: Path, root: Path | None, notes: list[str], bad: list[tuple[Path, str]]) -> _Found:
    dataset = CsvDataset(path=path, root=root)
    if root is not None and dataset.missing() and not CsvDataset(path=path).missing():
        dataset = CsvDataset(path=path)
    files = [] if root is None else m2dx.list_audio(root).readable
    counts = Counter(file.name for file in files)
    once = {file.name: file for file in files if counts[file.name] == 1}  # a list may lack the folders
    listed = [
        clip if is_there(clip.path) else replace(clip, path=once.get(clip.path.name, clip.path))
        for clip in dataset.clips()
    ]
    known = {os.path.realpath(clip.path) for clip in listed}
    others = [file for file in files if os.path.realpath(file) not in known]
    if files and len(others) == len(files):
        raise m2dx.AudioError(f"{path} must name audio files in {root}, but names none of {len(files)}")
    cells = _cells(path, len(listed))
    rows, clips = _readable(path, listed, bad)
    found = _with_columns(clips, [cells[row] for row in rows] if cells else [])
    if root is None or not others or found.label is None:
        return found
    notes.append(f"{counted(len(others), 'file')} in {root} are not in {path.name}: without labels")
    return replace(found, clips=[*clips, *_opened([m2dx.Clip(file) for file in others], bad)[1]])


def _cells(path: Path, clips: int) -> list[dict[str, str]]:
    """The rows of a list of so many clips; none where lines were joined to one clip."""
    cells = Table.read(path, delimiter="\t" if extension_of(path) == "tsv" else None).rows(dict)
    return cells if len(cells) == clips else []


def _columns(cells: Sequence[dict[str, str]]) -> list[Choice]:
    """The columns that mean nothing else."""
    taken = {name for column in SYNONYMS for name in (column, *SYNONYMS[column].split())} | {"offset"}
    return names.columns(cells, [name for row in cells[:1] for name in row if name.strip().lower() in taken])


def _by_names(clips: Sequence[m2dx.Clip]) -> tuple[Choice, ...]:
    """What the folders and file names of a list say, without folders that are splits."""
    paths = [PurePath(os.path.abspath(clip.path)) for clip in clips]
    top = os.path.commonpath([path.parent for path in paths])
    below = [path.relative_to(top) for path in paths]
    split, _ = names.split_of(below) or (0, ())
    levels = [choice for choice in names.folders(below) if choice.key != f"folder:{split}"]
    return (*levels, *names.parts(paths))


def _with_columns(clips: list[Clip], cells: Sequence[dict[str, str]], *, named: bool = True) -> _Found:
    """The clips of a list: its own labels and groups, then what other columns say, and names where they are
    the recordings' own (`named`)."""
    columns = _columns(cells)
    by_names = _by_names(clips) if named else ()
    others = (*columns, *by_names)
    own_label = own_group = None
    if any(clip.labels for clip in clips):
        values = tuple(";".join(clip.labels) or None for clip in clips)
        own_label = Choice("column:label", "the column of labels", values)
    if any(clip.group is not None for clip in clips):
        own_group = Choice("column:group", "the column of groups", tuple(clip.group for clip in clips))
    label = own_label or names.best_label(columns) or names.best_label(by_names)
    labels, groups = ((*((own,) if own else ()), *others) for own in (own_label, own_group))
    return _Found(clips, labels, groups, label, own_group)


def _is_labelled(data: Path, path: Path, clips: Sequence[m2dx.Clip]) -> bool:
    """Whether another column of a list looks more like labels than the files' names do, and is of most files."""
    columns = _columns(_cells(path, len(clips)))
    best = names.best_label((*columns, *_by_names(clips)))
    is_most = 2 * len({clip.path for clip in clips}) > len(m2dx.list_audio(data).readable)
    return best in columns and is_most


def _only_list(data: Path, notes: list[str]) -> Path | None:
    """The list in a folder, where it has one at its top that names audio files of it, with labels."""
    labelled = []
    for path in sorted((*data.glob("*.csv"), *data.glob("*.tsv"))):
        try:
            dataset = CsvDataset(path=path)
            if dataset.missing():
                continue
            clips = dataset.clips()
            known = any(clip.labels for clip in clips) or _is_labelled(data, path, clips)
        except m2dx.M2dxError:
            continue
        if known:
            labelled.append(path)
        else:
            notes.append(
                f"{path} is not used, as it has no labels that were found: --labels {path} --label-from KEY"
            )
    if len(labelled) == 1:
        notes.append(f"labels are read from {labelled[0]}")
        return labelled[0]
    if labelled:
        shown = ", ".join(path.name for path in labelled)
        notes.append(f"{data} has several lists ({shown}): none is used; give one as DATA or by --labels")
    return None


def _chosen(what: str, key: str | None, proposed: Choice | None, found: _Found) -> Choice | None:
    """The choice of a key: of a column by the name that it has, too, and of any part of the file names."""
    if key is None or key == NONE:
        return proposed if key is None else None
    choices = {choice.key: choice for choice in (found.labels if what == "label" else found.groups)}
    kind, _, name = key.partition(":")
    if kind == "column" and name.strip().lower() in SYNONYMS[what].split():
        key = key if key in choices else f"column:{what}"
    spelled = {of.casefold(): choice for of, choice in choices.items()}
    chosen = choices.get(key) or spelled.get(key.casefold())
    chosen = chosen or names.part(key, [clip.path for clip in found.clips])
    if chosen is None:
        known = ", ".join([*choices, NONE])
        raise m2dx.RecipeError(f"where the {what} is from must be one of {known}, but is {key!r}")
    return chosen


def _readable(
    data: Path, clips: Sequence[m2dx.Clip], bad: list[tuple[Path, str]]
) -> tuple[list[int], list[Clip]]:
    """As `_opened`; AudioError where no file can be."""
    rows, good = _opened(clips, bad)
    if not good:
        first = f"{bad[0][0]}: {bad[0][1]}"
        raise m2dx.AudioError(f"{data}: none of {counted(len(bad), 'file')} can be read; the first: {first}")
    return rows, good


def _opened(clips: Sequence[m2dx.Clip], bad: list[tuple[Path, str]]) -> tuple[list[int], list[Clip]]:
    """The rows of clips whose files can be opened, and these with their durations; the others' files become `bad`."""
    files = list(dict.fromkeys(clip.path for clip in clips))

    def seconds(path: Path) -> float | str:
        try:
            if {"\n", "\r"} & set(os.fspath(path)):
                return "its name has a line break, which no list can hold; rename it"
            os.fspath(path).encode()
            return probe(path).seconds
        except UnicodeEncodeError:
            return "its name is not in UTF-8, as those of other files are; rename it"
        except m2dx.AudioError as error:
            return str(error)

    with ThreadPoolExecutor(READING_THREADS) as pool:
        known = dict(zip(files, pool.map(seconds, files), strict=True))
    kept, good = [], []
    found = [(path, reason) for path, reason in known.items() if isinstance(reason, str)]
    for row, clip in enumerate(clips):
        length = known[clip.path]
        if isinstance(length, str):
            continue
        if clip.start >= length:
            found.append((clip.path, f"start ({clip.start:g} s) is past its end ({length:.3f} s)"))
            continue
        duration = min(clip.duration or length, length - clip.start)
        kept.append(row)
        good.append(Clip(clip.path, clip.start, duration, clip.labels, clip.split, clip.group, clip.weight))
    bad += found
    return kept, good
