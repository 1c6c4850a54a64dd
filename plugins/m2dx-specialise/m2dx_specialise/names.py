"""What the names of files and folders say: parts that may be labels, groups or splits of the recordings."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from m2dx.contract.wording import counted
from m2dx.data.csv_list import SPLITS
from m2dx.data.datasets import plain_name

MOST_CLASSES, FEWEST_GROUPS = 200, 4
LEAST, NEAR = 0.5, 0.1
"""Score of what looks like labels at all, and how far apart two are of which either may be meant."""
_GROUP_WORDS = tuple(
    set(words.split())
    for words in (
        "patient subject speaker person individual participant proband actor talker singer user client",
        "group",
        "source site station device mic",
        "session visit",
        "recording id",
    )
)
"""Of what may have several clips, those first that a clip is least like the others by."""
_ALL_GROUP_WORDS = set[str]().union(*_GROUP_WORDS)
_SURE_WORDS = set("label class category target species diagnosis".split())  # also of ids, and of many classes
_LABEL_WORDS = _SURE_WORDS | set("condition emotion genre state event kind type sound".split())
_SET_WORDS = set("fold set part batch disc training test animal machine".split())  # with a number, no classes
_FILE_WORDS = set("file path url mime codec format date time".split())  # "file type" is no label
_MOST = 0.95
"""Of the files, those that must be alike: in a folder of a level, with a part at a place, numbers."""
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
    def few(self) -> str:
        """The first of its values."""
        names = sorted({value for value in self.values if value is not None})
        return ", ".join([*names[:4], *(["..."] if len(names) > 4 else [])])

    @property
    def sentence(self) -> str:
        """How many values there are and which come first."""
        known = [value for value in self.values if value is not None]
        missing = len(self.values) - len(known)
        without = f"; {counted(missing, 'clip')} without" if missing else ""
        return f"{self.where}: {counted(len(set(known)), 'value')} ({self.few}), {counted(len(known), 'clip')}{without}"


NONE, MARKS = "none", "columns of 0 and 1"


def columns(cells: Sequence[dict[str, str]], taken: Sequence[str]) -> list[Choice]:
    """The columns of a list that repeat few values; `taken` are those that mean something else.

    Columns of 0 and 1 of which at most one is 1 in each row are labels together.
    """
    found = []
    names = [name for name in (cells[0] if cells else ()) if name and name not in taken]
    marked = [name for name in names if {_plain_number(row[name]) for row in cells} == {"0", "1"}]
    ones = [[name for name in marked if _plain_number(row[name]) == "1"] for row in cells]
    if len(marked) > 1 and max(map(len, ones)) == 1:
        found.append(Choice(MARKS, "the columns of 0 and 1", tuple(one[0] if one else None for one in ones)))
        names = [name for name in names if name not in marked]
    for name in names:
        values = tuple(row[name] or None for row in cells)
        if _repeats(values):
            found.append(Choice(f"column:{name}", f"the column `{name}`", values))
    return found


def folders(paths: Sequence[PurePath]) -> list[Choice]:
    """The levels of folders below the data's, the innermost first; a few files may lie above, and have none."""
    depths = sorted(len(path.parts) - 1 for path in paths)
    depth = depths[int((1 - _MOST) * len(depths))]
    found = []
    for level in range(depth, 0, -1):
        values = tuple(
            plain_name(path.parts[level - 1]) if len(path.parts) > level else None for path in paths
        )
        if len({value for value in values if value is not None}) > 1:
            where = "the folders" if depth == 1 else f"the folders of level {level}"
            found.append(Choice(f"folder:{level}", where, values))
    return found


def parts(paths: Sequence[PurePath]) -> list[Choice]:
    """The parts of the file names, from the left, that are no running number and repeat few values.

    Numbers that begin anew in each folder are among them, since they may be labels.
    """
    stems = [plain_name(path.stem) for path in paths]
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
        of_a_person = place == "1" and len(fields) > 1 and _least(values) > 1  # 1001_DFA_ANG_XX
        may_run = place.isdecimal() and not of_a_person
        if _repeats(values) and not (may_run and _is_running(values, fields, paths)):
            what, _, inside = place.partition(":")
            where = "the letters that the file names begin with"
            if what != "letters":
                where = f"{'the letters of ' if inside else ''}part {what} of the file names"
            anew = may_run and _is_running(values, [folder, *fields], paths)
            found.append(Choice(f"name:{place}", where, values, anew))
    return found


def _fields(stems: Sequence[str]) -> dict[str, tuple[str | None, ...]]:
    """The parts of file names by their place, from 1, where nearly all have as many."""
    rows = [_FIELD.split(stem) for stem in stems]
    number, share = Counter(map(len, rows)).most_common(1)[0]
    if share < _MOST * len(stems):
        return {}
    return {
        f"{index + 1}": tuple(row[index] if len(row) == number else None for row in rows)
        for index in range(number)
    }


def part(key: str, paths: Sequence[PurePath]) -> Choice | None:
    """The part of the file names that a key such as name:2 asks for, though nothing proposes it."""
    place = key.removeprefix("name:")
    values = _fields([plain_name(path.stem) for path in paths]).get(place)
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
    """The choice that looks most like labels; None where none does. What may number files is none beside words."""
    fixed = [choice for choice in choices if not choice.running]
    said = any(_in_words(choice.values) > 0.5 and _label_score(choice) >= LEAST for choice in fixed)
    best = max(fixed if said else choices, key=_label_score, default=None)  # of equal ones, the first
    if best is None or _label_score(best) < LEAST:  # folders such as F1 to F4, where nothing else is
        others = [of for of in choices if of.key.startswith("folder") and not _group_rank(of)]
        best = max(others, key=_label_score, default=None)
        return best if best is not None and _label_score(best, ids=0.0) >= LEAST else None
    return best


def as_likely(choices: Sequence[Choice], label: Choice) -> list[Choice]:
    """Other choices that look about as much like labels, and divide the clips in another way."""
    least = max(_label_score(label) - NEAR, LEAST)
    others = [of for of in choices if not of.running and not same(of.values, label.values)]
    return [of for of in others if of is not label and _label_score(of) >= least]


def too_few(choices: Sequence[Choice], label: Choice | None) -> list[Choice]:
    """Choices that are named as groups, and are fewer than training, validation and test need."""
    found = [of for of in choices if of is not label and _group_rank(of)]
    return [of for of in found if 1 < len(set(of.values) - {None}) < FEWEST_GROUPS]


def best_group(choices: Sequence[Choice], label: Choice | None) -> Choice | None:
    """The choice that looks most like what recordings have in common beside the label; None where none does.

    What is named as a person goes before devices and places, and these before sessions; of the same kind, the one with
    the fewest values keeps the most together.
    """
    scored = []
    classes = 1 if label is None else len(set(label.values))
    for place, choice in enumerate(choices):
        count = len({value for value in choice.values if value is not None})
        if label is not None and (choice is label or same(choice.values, label.values)):
            continue
        kind, rank = choice.key.partition(":")[0], _group_rank(choice)
        letters = kind == "name" and choice.key.endswith("letters")
        if count < FEWEST_GROUPS or choice.running or kind == MARKS or letters:
            continue
        if rank or (kind != "column" and count >= min(classes, 5) and _divides(choice, label)):
            coarse = rank > 0 or kind == "folder"
            scored.append((rank, coarse, -count if coarse else count, -place))
    return choices[-max(scored)[3]] if scored else None


def _group_rank(choice: Choice) -> int:
    """The higher, the more its name, or those of its values, are of what has several clips; 0: they are not."""
    kind, _, name = choice.key.partition(":")
    values = {value for value in choice.values if value is not None}

    def is_of(words: set[str]) -> bool:
        if kind == "column":
            return bool(words & _words(name))
        return bool(values) and all(_is_numbered(value, words) for value in values)

    ranks = (len(_GROUP_WORDS) - place for place, words in enumerate(_GROUP_WORDS) if is_of(words))
    return max(ranks, default=0)


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


def _label_score(choice: Choice, *, ids: float | None = None) -> float:
    """`ids`: share of the values that name one of many of a kind, where it is not to be counted."""
    counts = Counter(value for value in choice.values if value is not None)
    total = sum(counts.values())
    classes = len(counts)
    if classes < 2 or total < 0.5 * len(choice.values) or classes > min(MOST_CLASSES, total / 2):
        return 0.0
    kind, _, name = choice.key.partition(":")
    words = _in_words(choice.values)
    ids = sum(map(_is_id, counts)) / classes if ids is None else ids
    plain = set(map(_plain_number, counts))
    score = 0.4 + 0.5 * words - 0.5 * ids
    if not words and plain in ({str(number) for number in range(classes)}, {"-1", "1"}):
        score = 0.8 if kind == "column" else 1.0
    elif not words and plain == {str(number + 1) for number in range(classes)}:
        score = 0.8  # or takes
    named = _words(name) if kind == "column" else set[str]()
    score -= 0.3 * (classes > 20 and not named & _SURE_WORDS) + 0.3 * (total / classes < 5)
    score -= 0.2 * (min(counts.values()) == 1)
    score -= 0.4 * (max(counts.values()) > 0.6 * total and classes > 2)  # takes and versions
    if kind == "column":
        score += 0.2 * bool(named & _SURE_WORDS)
        score += 0.8 * (bool(named & _LABEL_WORDS) and not named & _FILE_WORDS)
        score -= 0.8 * bool(named & _ALL_GROUP_WORDS)
    if kind == "folder":
        score += 0.5 * (1 - ids)
    if name.endswith("letters"):
        score -= 0.1
    return score


def _in_words(values: Sequence[str | None]) -> float:
    """The share of the values that have letters, as no number or date has."""
    names = {value for value in values if value is not None}
    return sum(any(map(str.isalpha, name)) for name in names) / max(len(names), 1)


def _is_id(value: str) -> bool:
    """Whether a value names one of many of a kind: p07, S12b, patient_3, siteA."""
    return bool(re.fullmatch(r"[A-Za-z]{1,3}[-_ ]?\d+[A-Za-z]?", value)) or _is_numbered(
        value, _ALL_GROUP_WORDS | _SET_WORDS
    )


def _plain_number(value: str) -> str:
    """0 and 1 of 0.0, 1.0, False and True."""
    return {"false": "0", "true": "1"}.get(value.lower(), value.removesuffix(".0"))


def _is_numbered(value: str, words: set[str]) -> bool:
    """Whether a value is one of the words with a number or a letter: patient12, siteA, speaker-b."""
    found = re.fullmatch(r"([^\W\d_]+?)s?(?:\d+\w*|[-_ ]\w*\d\w*|[-_ ]?[A-Z]{1,2}|[-_ ][a-z])", value)
    return found is not None and found[1].lower() in words


def _words(name: str) -> set[str]:
    """The words of a column's name in lower case, also of PatientID and speakerid, and without the s of several."""
    split = re.findall(r"[^\W\d_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name))
    found = {word.lower() for word in split}
    found |= {word.removesuffix("id") for word in found if word.removesuffix("id") in _ALL_GROUP_WORDS}
    found |= {word.removesuffix("s") for word in found}
    return found - {"id"} if found & _SURE_WORDS else found  # class_id is no recording's


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


def _least(values: Sequence[str | None]) -> int:
    """The least number, or 0."""
    return min((int(value) for value in values if value is not None and value.isdecimal()), default=0)


def _numbers(values: Sequence[str | None]) -> bool:
    """Whether nearly all that there are are numbers."""
    known = [value for value in values if value is not None]
    return sum(value.isdecimal() for value in known) >= _MOST * len(known)


def _is_running(
    values: tuple[str | None, ...], fields: Sequence[tuple[str | None, ...]], paths: Sequence[PurePath]
) -> bool:
    """Whether the values number the files that are alike in all other parts."""
    numbers = [other for other in fields if _numbers(other)]
    if not numbers or values != numbers[-1]:  # of several numbers, the last runs fastest
        return False
    members: dict[tuple[str | None, ...], set[tuple[int, PurePath]]] = defaultdict(set)
    for row, value in enumerate(values):
        if value is not None and value.isdecimal():
            alike = tuple(field[row] for field in fields if field is not values)
            members[alike].add((int(value), paths[row]))
    several = [found for found in members.values() if len(found) > 1]
    return bool(several) and all(len(dict(found)) == len(found) for found in several)
