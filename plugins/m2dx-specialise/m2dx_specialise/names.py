"""What the names of files and folders say: parts that may be labels, groups or splits of the recordings."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from m2dx.contract.wording import counted
from m2dx.data.csv_list import SPLITS

MOST_CLASSES = 200
_GROUP_WORDS = tuple(
    "group speaker patient subject person session recording device source site mic animal machine id".split()
)
_LABEL_WORDS = tuple(
    "label class category target species diagnosis condition emotion genre state event kind type sound".split()
)
_SHARE_NAMED = 0.98  # of the file names, those that must have a part at the same place
_LOST = 0.1  # of the clips, at most, that are of a label whose clips are all of one proposed group
_TOKEN = re.compile(r"[^\W\d_]+|\d+")
_FIELD = re.compile(r"[\s_\-.+,@#=]+")


@dataclass(frozen=True)
class Choice:
    """A way to tell the labels or the groups of all clips."""

    key: str  # "column:NAME", "folder:LEVEL", "name:PLACE", or "none"
    where: str  # the same in words, such as "the second part of the file names"
    values: tuple[str | None, ...]  # one a clip
    running: bool = False  # whether they may number the files of each folder, and are no groups then

    @property
    def sentence(self) -> str:
        """How many values there are and which come first."""
        counts = Counter(value for value in self.values if value is not None)
        first = ", ".join(value for value, _ in sorted(counts.items())[:4])
        more = ", ..." if len(counts) > 4 else ""
        missing = sum(value is None for value in self.values)
        without = f"; {counted(missing, 'clip')} without" if missing else ""
        return (
            f"{self.where}: {counted(len(counts), 'value')} ({first}{more}), {counted(sum(counts.values()), 'clip')}"
            f"{without}"
        )


NONE = "none"


def columns(cells: Sequence[dict[str, str]], taken: Sequence[str]) -> list[Choice]:
    """The columns of a list that repeat few values; `taken` are those that mean something else."""
    found = []
    for name in cells[0] if cells else ():
        values = tuple(row[name] or None for row in cells)
        if name and name not in taken and _repeats(values):
            found.append(Choice(f"column:{name}", f"the column `{name}`", values))
    return found


def folders(paths: Sequence[PurePath]) -> list[Choice]:
    """The levels of folders below the data's, the innermost first."""
    depth = min(len(path.parts) for path in paths) - 1
    found = []
    for level in range(depth, 0, -1):
        values = tuple(path.parts[level - 1] for path in paths)
        if len(set(values)) > 1:
            where = "the folders" if depth == 1 else f"the folders of level {level}"
            found.append(Choice(f"folder:{level}", where, values))
    return found


def parts(paths: Sequence[PurePath]) -> list[Choice]:
    """The parts of the file names, from the left, that are no running number and repeat few values.

    Numbers that begin anew in each folder are among them, since they may be labels.
    """
    stems = [path.stem for path in paths]
    table = _fields(stems)
    heads = tuple(re.split(r"[\s_\-.]*\d", stem, maxsplit=1)[0] or None for stem in stems)
    if _is_word(heads) and heads not in table.values():
        table["letters"] = heads  # dog_bark of dog_bark_12, dog of dog12
    for place, values in list(table.items()):
        if place != "letters" and not _repeats(values):  # a0001: a class letter before a number
            letters = tuple(match[0] if (match := _TOKEN.match(value or "")) else None for value in values)
            if letters not in table.values() and _is_word(letters):
                table[f"{place}:letters"] = letters
    found = []
    fields = [values for place, values in table.items() if place.isdecimal()]
    folder = tuple(str(path.parent) for path in paths)
    for place, values in table.items():
        if _repeats(values) and not (place.isdecimal() and _is_running(values, fields, paths)):
            what, _, inside = place.partition(":")
            where = "the letters that the file names begin with"
            if what != "letters":
                where = f"{'the letters of ' if inside else ''}part {what} of the file names"
            anew = place.isdecimal() and _is_running(values, [folder, *fields], paths)
            found.append(Choice(f"name:{place}", where, values, anew))
    return found


def _fields(stems: Sequence[str]) -> dict[str, tuple[str | None, ...]]:
    """The parts of file names by their place, from 1, where nearly all have as many."""
    rows = [_FIELD.split(stem) for stem in stems]
    number, share = Counter(map(len, rows)).most_common(1)[0]
    if share < _SHARE_NAMED * len(stems):
        return {}
    return {
        f"{index + 1}": tuple(row[index] if len(row) == number else None for row in rows)
        for index in range(number)
    }


def part(key: str, paths: Sequence[PurePath]) -> Choice | None:
    """The part of the file names that a key such as name:2 asks for, though nothing proposes it."""
    place = key.removeprefix("name:")
    values = _fields([path.stem for path in paths]).get(place)
    return None if values is None or place == key else Choice(key, f"part {place} of the file names", values)


def split_of(paths: Sequence[PurePath]) -> tuple[int, tuple[str, ...]] | None:
    """The level of folders (from 1) whose names are splits, and the split of each path."""
    for level in range(1, min(len(path.parts) for path in paths)):
        names = {path.parts[level - 1].lower() for path in paths}
        meant = {name: SPLITS.get(name) for name in names}
        if "test" in meant.values() and None not in meant.values():
            return level, tuple(SPLITS[path.parts[level - 1].lower()] for path in paths)
    return None


def best_label(choices: Sequence[Choice]) -> Choice | None:
    """The choice that looks most like labels; None where none does."""
    scored = [(_label_score(choice, choices), -place) for place, choice in enumerate(choices)]
    best = max(scored, default=(0.0, 0))
    return choices[-best[1]] if best[0] >= 0.5 else None


def best_group(choices: Sequence[Choice], label: Choice | None) -> Choice | None:
    """The choice that looks most like what recordings have in common beside the label; None where none does."""
    scored = []
    for place, choice in enumerate(choices):
        values = {value for value in choice.values if value is not None}
        if label is not None and (choice is label or not values or same(choice.values, label.values)):
            continue
        if choice.running or (choice.key.startswith("name:") and choice.key.endswith("letters")):
            continue
        classes = 1 if label is None else len(set(label.values))
        named = any(word in choice.where.lower() for word in _GROUP_WORDS)
        column = choice.key.startswith("column:")
        if choice.key.startswith("name:") and not named and not _divides(choice, label):
            continue
        if named if column else len(values) >= max(classes, 3) or len(values) >= 5:
            scored.append((named, len(values), -place))
    return choices[-max(scored)[2]] if scored else None


def _divides(choice: Choice, label: Choice | None) -> bool:
    """Whether training and test could be kept apart by a choice: it has no value of half of all clips, and nearly all
    are of labels with several values."""
    counts = Counter(value for value in choice.values if value is not None)
    if max(counts.values()) > len(choice.values) / 2:
        return False
    if label is None:
        return True
    groups: dict[str | None, set[str | None]] = defaultdict(set)
    for of, value in zip(label.values, choice.values, strict=False):
        groups[of].add(value)
    return sum(len(groups[of]) < 2 for of in label.values) <= _LOST * len(label.values)


def _label_score(choice: Choice, choices: Sequence[Choice]) -> float:
    counts = Counter(value for value in choice.values if value is not None)
    total = sum(counts.values())
    classes = len(counts)
    if classes < 2 or total < 0.5 * len(choice.values) or classes > min(MOST_CLASSES, total / 2):
        return 0.0
    kind, _, name = choice.key.partition(":")
    words = sum(not value.isdecimal() for value in counts) / classes
    ids = sum(map(_is_id, counts)) / classes
    codes = not words and {str(number) for number in range(classes)} == set(counts)
    score = 1.0 if codes else 0.4 + 0.5 * words - 0.5 * ids
    score -= 0.3 * (classes > 20) + 0.3 * (total / classes < 5) + 0.2 * (min(counts.values()) == 1)
    score -= 0.4 * (max(counts.values()) > 0.6 * total and classes > 2)  # takes and versions
    if kind == "column":
        named = name.lower()
        score += 0.8 * any(word in named for word in _LABEL_WORDS)
        score -= 0.8 * any(word in re.split(r"\W|_", named) for word in _GROUP_WORDS)
    if kind == "folder":
        score += 0.5
    if name.endswith("letters"):
        score -= 0.1
    return score


def _is_id(value: str) -> bool:
    """Whether a value names one of many of a kind: p07, S12b, patient_3, speaker-a1."""
    short = re.fullmatch(r"[A-Za-z]{1,3}[-_ ]?\d+[A-Za-z]?", value)
    numbered = any(char.isdecimal() for char in value)
    return bool(short) or (numbered and value.lower().startswith(_GROUP_WORDS))


def _repeats(values: Sequence[str | None]) -> bool:
    """Whether a good part of the clips shares its value with others."""
    counts = Counter(value for value in values if value is not None)
    shared = sum(count for count in counts.values() if count > 1)
    return len(counts) > 1 and shared >= 0.3 * len(values)


def _is_word(values: Sequence[str | None]) -> bool:
    """Whether letters are the beginning of a name that means something: each is there several times."""
    counts = Counter(values)
    return len(counts) > 1 and None not in counts and len(values) >= 5 * len(counts)


def same(values: Sequence[str | None], others: Sequence[str | None]) -> bool:
    """Whether each tells the other, so that the second says nothing new."""
    pairs = set(zip(values, others, strict=True))
    return len(pairs) == len(set(values)) == len(set(others))


def _is_running(
    values: tuple[str | None, ...], fields: Sequence[tuple[str | None, ...]], paths: Sequence[PurePath]
) -> bool:
    """Whether the values number the files that are alike in all other parts."""
    if not all(value is None or value.isdecimal() for value in values):
        return False
    numbers = [other for other in fields if all(value is None or value.isdecimal() for value in other)]
    if values != numbers[-1]:  # of several numbers, the last runs fastest
        return False
    members: dict[tuple[str | None, ...], set[tuple[int, PurePath]]] = defaultdict(set)
    for row, value in enumerate(values):
        if value is not None:
            alike = tuple(field[row] for field in fields if field is not values)
            members[alike].add((int(value), paths[row]))
    several = [found for found in members.values() if len(found) > 1]
    return bool(several) and all(len(dict(found)) == len(found) for found in several)
