"""What is tested or chosen by is in no list that is trained on, in no setting, and in no part of the learning curve."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from m2dx_classify.sources import of_folders
from m2dx_probes.subsets import subset_fold
from m2dx_specialise import listing
from m2dx_specialise.audit import Audit, audit
from m2dx_specialise.candidates import SMALL, propose
from m2dx_specialise.division import divide, write_list
from m2dx_specialise.duplicates import Duplicate
from m2dx_specialise.listing import Clip
from m2dx_specialise.origins import cuts, without_copies
from m2dx_specialise.parts import Parts, unit_seconds
from m2dx_specialise.search import DIVISION, POOL, Search
from m2dx_specialise.state import Request, State
from rich.console import Console

import m2dx
from m2dx.data.csv_list import CsvDataset
from m2dx.testing.samples import write_csv

SPLITS = ("train", "train", "train", "valid", "test")


@pytest.fixture(params=["folds", "kept", "small valid"])
def divided(request: Any, notes: Path, start: Path, tmp_path: Path) -> tuple[Search, Parts, dict[Path, Path]]:
    """A search whose recordings are divided; each labelled clip has a copy without a label, and another elsewhere."""
    found = listing.read(notes)
    own = list(found.clips)
    if request.param != "folds":
        given = SPLITS if request.param == "kept" else ("train", "train", "train", "train", "test")
        of_group = {group: given[i % 5] for i, group in enumerate(sorted({str(clip.group) for clip in own}))}
        own = [replace(clip, split=of_group[str(clip.group)]) for clip in own]
    copies = {}
    for folder in ("copies", "general"):
        (tmp_path / folder).mkdir()
        for number, clip in enumerate(own):
            shutil.copy(clip.path, tmp_path / folder / f"{number:03}.ogg")
            copies[tmp_path / folder / f"{number:03}.ogg"] = clip.path
    more = [Clip(tmp_path / "copies" / f"{i:03}.ogg", 0.0, clip.seconds) for i, clip in enumerate(own)]
    listed = replace(found, clips=(*own, *more))
    pairs = tuple(Duplicate(row, len(own) + row, False) for row in range(len(own)))
    division = divide(listed, Audit((), pairs, (), frozenset()))
    asked = Request(
        data=notes, starts=(str(start),), general=tmp_path / "general", noise=tmp_path / "general"
    )
    search = Search(State(tmp_path, asked), m2dx.PluginHost({}), Console(quiet=True))
    write_list(tmp_path / DIVISION, division.rows)
    write_list(tmp_path / POOL, division.pool)
    return search, Parts.read(tmp_path / DIVISION, tmp_path / POOL), copies


@pytest.mark.parametrize("is_crossed", [False, True])
def test_nothing_that_is_tested_or_chosen_by_is_trained_on(
    is_crossed: bool, divided: tuple[Search, Parts, dict[Path, Path]], start: Path
) -> None:
    search, parts, copies = divided
    if is_crossed:
        parts = replace(parts, train=parts.test, test=parts.train)
    held = {clip.path for clip in (*parts.valid, *parts.test)}
    assert parts.problem is None and held and len(parts.labelled) == 60
    names = [f"{'again_' if is_crossed else ''}{name}" for name in ("pretraining", "general", "noise")]
    setting = search.setting(parts, again=is_crossed)
    label = {clip.path: clip.labels for clip in parts.train}
    for name in names:
        clips = CsvDataset(path=search.state.folder / f"{name}.csv").clips()
        assert clips and not held & {copies.get(clip.path, clip.path) for clip in clips}
        for clip in clips:
            assert clip.labels == (label.get(clip.path, ()) if name == names[0] else ())
    lists = {str(search.state.folder / f"{name}.csv") for name in names}
    for candidate in propose((str(start),), setting, SMALL, labelled=True):
        recipe = candidate.recipe(setting, 100)
        sets = [*recipe["data"]["sets"].values(), *([recipe["noise"]] if "noise" in recipe else [])]
        assert {one["dataset"]["path"] for one in sets} <= lists


@pytest.mark.parametrize("general", [".", "list.csv"])
def test_what_data_hold_back_does_not_return_among_general_recordings(general: str, tmp_path: Path) -> None:
    """Clips without labels of speakers that are tested, what leaks, and what is silent."""
    noise, rows = np.random.default_rng(0), []
    for n in range(80):
        soundfile.write(tmp_path / f"{n:02}.wav", 0.1 * noise.standard_normal(800), 16_000)
        speaker = 4 if n == 21 else n % 20  # who is in the test part
        rows.append(
            (f"{n:02}.wav", "ab"[n // 20 % 2] if n >= 20 else "", SPLITS[n % 5], f"speaker {speaker}")
        )
    write_csv(tmp_path / "list.csv", "path,label,split,group", rows)
    division = divide(listing.read(tmp_path / "list.csv"), Audit((), (), (), frozenset({20})))
    parts = Parts.of([*division.rows, *division.pool])
    asked = Request(data=tmp_path / "list.csv", general=tmp_path / general)
    Search(State(tmp_path, asked), m2dx.PluginHost({}), Console(quiet=True)).setting(parts)
    lists = [CsvDataset(path=tmp_path / f"{name}.csv").clips() for name in ("pretraining", "general")]
    assert parts.problem is None and len(lists[0]) == 46
    assert {clip.path for clip in lists[0]} == {clip.path for clip in lists[1]}


def test_what_is_held_in_a_pack_is_no_general_recording() -> None:
    own, other = (m2dx.Clip(Path(f"pack/shard-00000.tar/{number}.flac")) for number in range(2))
    assert without_copies([own, other], [replace(own, path=own.path.absolute())]) == [other]


def test_recordings_whose_paths_a_list_would_read_as_two_labels_are_not_told_apart(
    divided: tuple[Search, Parts, dict[Path, Path]],
) -> None:
    search, parts, _ = divided
    odd = replace(parts, train=tuple(replace(c, path=c.path.with_name("a;b.wav")) for c in parts.train))
    search.state.request = replace(search.request, general=None, noise=None)
    assert search.setting(parts).num_recordings > 1
    assert search.setting(odd).num_recordings == 0


def test_no_setting_follows_from_the_test_part(divided: tuple[Search, Parts, dict[Path, Path]]) -> None:
    search, parts, _ = divided
    names = ("guitar", "bass")
    longer = replace(
        parts,
        test=tuple(replace(c, duration=9.0, labels=(names[i % 2],)) for i, c in enumerate(parts.test)),
    )
    assert search.setting(parts) == search.setting(longer)
    of = [unit_seconds(part.train + part.valid) for part in (parts, longer)]
    tasks = [part.task("choice", search.state.folder / "features") for part in (parts, longer)]
    assert of[0] == of[1] == tasks[0].unit_seconds == tasks[1].unit_seconds
    assert [task.clips for task in tasks] == [tasks[0].clips] * 2
    assert tasks[0].label_names == tasks[1].label_names


def test_the_learning_curve_fits_to_no_test_clip(divided: tuple[Search, Parts, dict[Path, Path]]) -> None:
    search, parts, _ = divided
    task = parts.task("test", search.state.folder / "features")
    tested = {clip.path for clip in parts.test}
    fold = task.folds[0]
    assert {task.clips[row].path for row in fold.test} == tested
    for size in (10, 25):
        part = subset_fold(fold, size, task.clips, task.targets(), 0)
        fitted = np.concatenate([part.train, part.valid])
        assert len(fitted) == size and not tested & {task.clips[row].path for row in fitted}


@pytest.mark.parametrize(
    ("names", "recordings"),
    [
        (("dog_1_2", "dog_2_1", "dog_2_3"), [1, 1, 1]),  # a class, a speaker and a take
        (("dog_0_5", "dog_5_10", "cat_0_5"), [2, 1]),
        (("03-01-01-01", "03-01-01-12", "03-01-02-01"), [1, 1, 1]),
        (("a_part1", "a_part2", "b"), [2, 1]),
    ],
)
def test_names_of_cuts_have_a_start_before_an_end_in_all_files(
    names: tuple[str, ...], recordings: list[int]
) -> None:
    found = cuts([Clip(Path(f"{name}.wav"), 0.0, 1.0) for name in names])
    alone = len(names) - sum(map(len, found))
    assert [*map(len, found), *[1] * alone] == recordings


@pytest.mark.parametrize(
    ("form", "group_from", "units", "told"),
    [
        ("{label}/{label} clip {n}.wav", None, 40, True),
        ("{label}/{label}_1_{later:02}.wav", None, 40, True),
        ("{label}/sample.clip{n}.wav", None, 20, True),  # the numbers may be groups, too
        ("{label}/{label}_{n:02}_{later:02}.wav", None, 20, True),
        ("{label}/{label} clip {n}.wav", "none", 40, False),
        ("{label}/{take}_part{all}.wav", None, 8, False),  # four recordings of each class
        ("{label}/{take}_part{all}.wav", "none", 40, False),
        ("{label}/{take}_part{all}.wav", "name:2", 40, False),
    ],
)
def test_names_tell_recordings_where_no_groups_are_given_and_classes_can_be_divided(
    form: str, group_from: str | None, units: int, told: bool, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0)
    for n in range(40):
        label, take = ("cat", "dog")[n % 2], "stuvwxyz"[n % 8]
        path = tmp_path / form.format(label=label, all=n, n=n // 2, later=n // 2 + 2, take=take)
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, 0.1 * noise.standard_normal(1600), 16_000)
    found = listing.read(tmp_path, group_from=group_from)
    audited = audit(found)
    texts = [finding.text for finding in audited.findings if finding.kind == "cuts"]
    assert ["would be all of 'cat'" in text for text in texts] == [True] * told
    assert len({clip.group for clip in divide(found, audited).rows}) == units


def test_a_class_that_one_of_many_recordings_has_does_not_part_its_cuts() -> None:
    labels = {"a_part1": "owl", "a_part2": "owl", "a_part3": "robin", "b_part1": "robin", "b_part2": "robin"}
    clips = [Clip(Path(f"{name}.wav"), 0.0, 1.0, (label,)) for name, label in labels.items()]
    assert [*map(len, cuts(clips))] == [3, 2]
    apart = [*clips[:2], *clips[3:]]
    assert cuts(apart) == ()  # one has all owls, the other all robins
    assert cuts([*apart, Clip(Path("a_part4.wav"), 0.0, 1.0)]) == ()  # one file without a label
    others = [
        Clip(Path(f"{label}{take}_part{n}.wav"), 0.0, 1.0, (label,))
        for label in ("crow", "jay")
        for take in "xy"
        for n in range(2)
    ]
    assert [*map(len, cuts([*apart, *others]))] == [2, 2, 2, 2, 2, 2]  # two classes can be divided as it is


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (("good", "line\nbreak"), "its name has a line break"),
        (("good", "latin\udce9"), "its name is not in UTF-8"),
        (("good", "\u00b2_1", "\u00b2_2"), None),
    ],
)
def test_files_with_odd_names_are_told_or_read(
    names: tuple[str, ...], text: str | None, tmp_path: Path
) -> None:
    for name in names:
        soundfile.write(tmp_path / "new.wav", np.ones(1600), 16_000)
        (tmp_path / "new.wav").rename(tmp_path / f"{name}.wav")
    found = listing.read(tmp_path)
    assert len(found.clips) + len(found.bad) == len(names)
    assert [text in reason for _, reason in found.bad] == [True] * (text is not None)


@pytest.mark.parametrize(
    ("form", "listed", "classes"),
    [
        ("{label}/{n}.wav", False, {"rain,wind": 20, "sun": 20}),
        ("{label}_{n}.wav", False, {"rain,wind": 20, "sun": 20}),
        ("{n}.wav", True, {"rain": 20, "wind": 20, "sun": 20}),
    ],
)
def test_only_lists_have_several_labels_a_clip(
    form: str, listed: bool, classes: dict[str, int], tmp_path: Path
) -> None:
    data = [(form.format(label=label, n=n), label) for n, label in enumerate(("rain;wind", "sun") * 20)]
    for name, _ in data:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        soundfile.write(tmp_path / name, np.ones(160), 16_000)
    if listed:
        write_csv(tmp_path / "list.csv", "path,label", data)
    found = listing.read(tmp_path)
    assert (found.classes, "`,` for each `;`" in "".join(found.notes)) == (classes, not listed)
    division = divide(found, Audit((), (), (), frozenset()))
    write_list(tmp_path / DIVISION, division.rows)  # which the search reads
    read = CsvDataset(path=tmp_path / DIVISION).clips()
    assert sorted(clip.labels for clip in read) == sorted(clip.labels for clip in found.clips)


def test_columns_keep_to_their_clips_where_files_are_bad(tmp_path: Path) -> None:
    rows = [(f"{number}.wav", "ab"[number % 2], f"room {number // 3}") for number in range(12)]
    for name, *_ in rows:
        soundfile.write(tmp_path / name, np.ones(1600), 16_000)
    soundfile.write(tmp_path / "beside.wav", np.ones(1600), 16_000)
    (tmp_path / "1.wav").write_text("junk")
    write_csv(tmp_path / "list.csv", "path,label,room", rows)
    found = listing.read(tmp_path)
    (room,) = (choice for choice in found.groups if choice.key == "column:room")
    of = {clip.path.name: value for clip, value in zip(found.clips, room.values, strict=True)}
    assert of == {name: room for name, _, room in rows if name != "1.wav"} | {"beside.wav": None}


@pytest.mark.parametrize(
    ("form", "bad", "key", "proposed"),
    [
        ("{label}/{label}_{n}", (), None, None),
        ("{label}/{label}_{n}", ("cat/note.wav", "dog/not_audio.wav"), None, None),  # which say nothing
        ("{label}-{take}-{n}", (), None, None),  # the first takes are more than half of all
        ("{label}-{take}-{n}", (), "name:2", "name:2"),  # which may be asked for
        ("{label}-{n}-{own}", (), None, None),  # each class has one
        ("{label}-{n}-{of}", (), None, "name:3"),
    ],
)
def test_groups_are_proposed_of_files_that_can_be_read_and_where_they_divide(
    form: str, bad: tuple[str, ...], key: str | None, proposed: str | None, tmp_path: Path
) -> None:
    for n in range(80):
        label = ("cat", "dog")[n % 2]
        take, own, of = "A" if n < 50 else "BCDEF"[n % 5], label[::-1], f"x{n % 7}"
        path = tmp_path / f"{form.format(label=label, n=n // 2, take=take, own=own, of=of)}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.ones(160), 16_000)
    for name in bad:
        (tmp_path / name).write_text("junk")
    found = listing.read(tmp_path, group_from=key)
    assert (found.group and found.group.key, len(found.bad)) == (proposed, len(bad))


def test_a_list_beside_a_folder_names_its_files_and_columns_have_their_own_names(tmp_path: Path) -> None:
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()
        for n in range(6):
            soundfile.write(tmp_path / folder / f"{n}.wav", np.ones(160), 16_000)
    rows = [(f"{n}.wav", "ab"[n % 2]) for n in range(6)]
    write_csv(tmp_path / "one" / "list.csv", "file,category", rows)
    list_of_one = tmp_path / "one" / "list.csv"
    (tmp_path / "one" / "stray.wav").write_text("junk")  # the only file that is not listed
    found = listing.read(tmp_path / "one", list_of_one, label_from="column:category")
    assert (len(found.classes), len(found.clips), len(found.bad)) == (2, 6, 1)
    write_csv(tmp_path / "far.csv", "file,category", [(f"one/{name}", label) for name, label in rows])
    with pytest.raises(m2dx.AudioError, match=r"must name audio files in .*other, but names none of 6"):
        listing.read(tmp_path / "other", tmp_path / "far.csv")


@pytest.mark.parametrize(
    ("name", "header", "label", "note"),
    [
        ("{n}.wav", "file,species", "column:species", "labels are read from"),
        ("{n}.wav", "file,label", "column:label", "labels are read from"),
        ("{n}.wav", "file,number", None, "is not used, as it has no labels that were found"),
        ("deep/{n}.wav", "file,species", None, None),  # which names no file beside it
        ("{a}/{n}.wav", "file,bird", "folder:1", "is not used, as it has no labels that were found"),
        (
            "{s}/{n}.wav",
            "file,bird",
            "column:bird",
            "labels are read from",
        ),  # folders of splits are no labels
    ],
)
def test_the_only_list_in_a_folder_is_read_or_told(
    name: str, header: str, label: str | None, note: str | None, tmp_path: Path
) -> None:
    files = [name.format(n=n, a="xy"[n // 6], s=("train", "test")[n // 6]) for n in range(12)]
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        soundfile.write(tmp_path / file, np.ones(160), 16_000)
    listed = [file.removeprefix("deep/") for file in files]
    rows = [(file, n if "number" in header else "ab"[n % 2]) for n, file in enumerate(listed)]
    write_csv(tmp_path / "list.csv", header, rows)
    found = listing.read(tmp_path)
    assert (found.label and found.label.key) == label and len(found.clips) == 12
    assert [note in line for line in found.notes] == ([True] if note else [])
    told = listing.read(tmp_path, tmp_path / "list.csv")  # files are found in the folders, too
    assert len(told.clips) == 12 and (label is None or told.sentence.count("2 classes (a, b), 6 clips each"))


@pytest.mark.parametrize(
    ("several", "left", "problem"),
    [
        (0, 60, None),
        (5, 55, None),
        (12, 60, "some clips have several labels, and a verdict is for one label a clip"),
    ],
)
def test_few_clips_with_several_labels_are_left_out(
    several: int, left: int, problem: str | None, tmp_path: Path
) -> None:
    clips = tuple(
        Clip(tmp_path / f"{n}.wav", 0.0, 1.0, ("a", "b") if n < several else ("ab"[n % 2],))
        for n in range(60)
    )
    division = divide(
        listing.Listing(tmp_path, clips, None, None, (), (), (), ()), Audit((), (), (), frozenset())
    )
    parts = Parts.of([*division.rows, *division.pool])
    assert (len(parts.labelled), parts.problem) == (left, problem)
    assert ("for several labels: 5 clips, e.g. " in division.sentence) == (several == 5)


@pytest.mark.parametrize(
    ("given", "shared", "test", "text"),
    [
        ({}, "c", None, "cannot be kept (without leaking clips, train has none of 'c'). Folds"),
        ({}, False, "abc", "is kept, in which no known group or sound is on two sides: train 120, test 30."),
        (
            {"c": "train"},
            False,
            "ab",
            "is kept, in which no known group or sound is on two sides: train 130, test 20.",
        ),
        ({"c": "train"}, True, "ab", "is kept without 1 clip that share"),
        (
            {"c": "test"},
            False,
            "ab",
            "Left out, as no training clip has them: 'c'. The division of the data is kept",
        ),
        (
            {"c": "train", "b": "train"},
            False,
            None,
            "cannot be kept (test has 1 class, and two are the least). Folds",
        ),
        ({"c": "train", "b": "train"}, True, None, "cannot be kept (without leaking clips, test has 1 class"),
    ],
)
def test_a_division_is_kept_where_two_classes_can_be_tested(
    given: dict[str, str], shared: bool | str, test: str | None, text: str
) -> None:
    """What only one part has does no harm to the others; `shared`: a training clip leaks, or all of a class."""
    clips = [
        Clip(
            Path(f"{label}{n}.wav"),
            0.0,
            1.0,
            (label,),
            given.get(label, SPLITS[n % 5].replace("valid", "train")),
        )
        for label in "abc"
        for n in range(50)
    ]
    pairs: tuple[Duplicate, ...] = (Duplicate(3, 4, False),) if shared else ()
    if shared == "c":
        pairs = tuple(Duplicate(100 + n, 104 + n // 5 * 5, False) for n in range(50) if n % 5 < 4)
    division = divide(
        listing.Listing(Path("x"), tuple(clips), None, None, (), (), (), ()),
        Audit((), pairs, (), frozenset()),
    )
    assert text in division.sentence
    if test is None:
        assert {clip.split for clip in division.rows} == set("12345")
        return
    of = {clip.path: clip.split for clip in clips}
    assert all(clip.split == of[clip.path] for clip in division.rows)
    assert {*test} == {label for clip in division.rows if clip.split == "test" for label in clip.labels}
    parts = Parts.of([*division.rows, *division.pool])
    assert parts.problem is None and {clip.labels for clip in parts.test} <= {
        clip.labels for clip in parts.train
    }


@pytest.mark.parametrize(("count", "several"), [(200, 4), (30, 1)])
def test_a_division_is_kept_where_none_could_have_a_verdict(count: int, several: int) -> None:
    """So that what is a test for its owner is not trained on."""
    splits = ("train", "train", "train", "valid", "test")
    clips = tuple(
        Clip(
            Path(f"{n}.wav"),
            0.0,
            1.0,
            ("ab"[n % 2], "c")[: 2 if n % 4 < several - 1 else 1],
            splits[n // 2 % 5],
        )
        for n in range(count)
    )
    division = divide(
        listing.Listing(Path("x"), clips, None, None, (), (), (), ()), Audit((), (), (), frozenset())
    )
    parts = Parts.of([*division.rows, *division.pool])
    assert parts.problem is not None and "is kept" in division.sentence
    assert {clip.path for clip in parts.test} == {clip.path for clip in clips if clip.split == "test"}


@pytest.mark.parametrize(("groups", "parts"), [(4, 4), (6, 5), (14, 5), (15, 3)])
def test_few_groups_are_divided_into_folds(groups: int, parts: int, tmp_path: Path) -> None:
    """A test part of one speaker says nothing of others."""
    clips = tuple(
        Clip(tmp_path / f"{n}.wav", 0.0, 1.0, (f"{n % 2}",), None, f"speaker {n // 2 % groups}", 1.0)
        for n in range(420)
    )
    found = listing.Listing(tmp_path, clips, None, None, (), (), (), ())
    division = divide(found, Audit((), (), (), frozenset()))
    assert len({clip.split for clip in division.rows}) == parts
    assert ("are tested" in division.sentence) == (parts == 3)
    assert Parts.of([*division.rows, *division.pool]).problem is None  # four are enough


@pytest.mark.parametrize(
    ("common", "rare", "of_group", "parts"),
    [
        ("abcd", (19,), 1, 3),
        ("abcd", (2, 2, 2), 1, 3),
        ("abcd", (40,), 20, 3),  # two groups
        ("abcd", (19,) * 5, 1, 3),
        ("abcd", (19,) * 6, 1, 5),  # a fifth of all
        ("abcd", (120,), 60, 5),
        ("a", (15,), 6, 5),  # a part without it would have one class
    ],
)
def test_rare_classes_decide_for_folds_where_they_have_many_of_the_clips(
    common: str, rare: tuple[int, ...], of_group: int, parts: int
) -> None:
    of_common = [(label, n) for label in common for n in range(400 // len(common))]
    of_rare = [(f"rare {i}", n // of_group) for i, count in enumerate(rare) for n in range(count)]
    clips = tuple(
        Clip(Path(f"{row}.wav"), 0.0, 1.0, (label,), None, f"{label} {n}")
        for row, (label, n) in enumerate([*of_common, *of_rare])
    )
    found = listing.Listing(Path("x"), clips, None, None, (), (), (), ())
    division = divide(found, Audit((), (), (), frozenset()))
    assert len({clip.split for clip in division.rows}) == parts
    of = Parts.of([*division.rows, *division.pool])
    assert of.problem is None and len({clip.labels for clip in of.train}) == len(common) + len(rare)


@pytest.mark.parametrize(
    ("group", "crossed", "jingles", "lost", "text"),
    [
        ("{label}{three}", False, 0, 0, "Folds of whole groups (6)"),  # three of each class
        ("{large}", False, 0, 0, "Folds of whole groups (7)"),  # one has more than half of all
        ("{label}{six}", False, 11, 11, "as other groups have their sound, too: 11 clips, e.g. "),
        ("{label}{six}", False, -11, 11, "as other groups have their sound, too: 11 clips, e.g. "),
        ("{label}{six}", False, 2, 0, "Folds of whole groups (10, clips that share sound in one)"),
        ("{label}{six}", True, 0, 0, "kept (without leaking clips, 48 of 240 clips are left)"),
    ],
)
def test_two_classes_of_three_groups_each_have_a_verdict(
    group: str, crossed: bool, jingles: int, lost: int, text: str
) -> None:
    """`crossed`: folds do not know of the groups; `jingles`: clips of so many groups share sound with the first, or if
    less than 0, with the last."""
    rows = [
        {"label": "ab"[n % 2], "three": n // 2 % 3, "six": n // 2 % 6, "large": max(0, n % 20 - 13)}
        for n in range(240)
    ]
    clips = tuple(
        Clip(
            Path(f"{n}.wav"),
            0.0,
            1.0,
            (row["label"],),
            "12345"[n % 5] if crossed else None,
            group.format(**row),
        )
        for n, row in enumerate(rows)
    )
    pairs = tuple(Duplicate(0, n, False) for n in range(1, jingles + 1))
    pairs += tuple(Duplicate(n, -jingles, False) for n in range(-jingles))
    found = listing.Listing(Path("x"), clips, None, None, (), (), (), ())
    division = divide(found, Audit((), pairs, (), frozenset()))
    parts = Parts.of([*division.rows, *division.pool])
    assert text in division.sentence and parts.problem is None
    assert len(clips) - len(parts.labelled) == lost
    units = [{clip.group for clip in part} for part in (parts.train, parts.valid, parts.test)]
    assert sum(map(len, units)) == len(set[str | None]().union(*units))
    left = {clip.path for clip in (*division.rows, *division.pool)}
    sharing = {row for pair in pairs for row in (pair.first, pair.second) if clips[row].path in left}
    assert not lost or len(sharing) == 1  # of one group alone


@pytest.mark.parametrize("seed", range(40))
def test_divisions_of_random_lists_do_not_leak_and_have_a_verdict(seed: int) -> None:
    """Groups, splits or folds that may cross them, and copies, all at random."""
    random = np.random.default_rng(seed)
    count, classes, groups = 60 + 10 * seed, 2 + seed % 4, 8 + seed % 13
    parts = (None, SPLITS, ("train", "test"), "12345")[seed % 4]
    of = random.integers(groups, size=count).tolist()
    by = of if seed % 3 else random.integers(1000, size=count).tolist()  # what the data are divided by
    clips = tuple(
        Clip(
            Path(f"{n}.wav"), 0.0, 1.0, (f"label {int(random.integers(classes))}",),
            None if parts is None else parts[hash((by[n], seed)) % len(parts)], f"group {of[n]}",
        )
        for n in range(count)
    )  # fmt: skip
    drawn = random.integers(count, size=(seed % 5 * 3, 2)).tolist()
    pairs = tuple(Duplicate(min(pair), max(pair), False) for pair in drawn if pair[0] != pair[1])
    found = listing.Listing(Path("x"), clips, None, None, (), (), (), ())
    division = divide(found, Audit((), pairs, (), frozenset()))
    sides = Parts.of([*division.rows, *division.pool])
    side = {
        clip.path: (name, clip.group) for name in ("train", "valid", "test") for clip in getattr(sides, name)
    }
    assert sides.problem is None
    assert len(set(side.values())) == len({group for _, group in side.values()})
    for pair in pairs:
        both = {side[clips[row].path][0] for row in (pair.first, pair.second) if clips[row].path in side}
        assert len(both) < 2


def test_a_division_of_real_drums_leaves_out_no_more_than_a_class_of_one_group() -> None:
    """Of their splits, clips of ten kits that share sound would take a third of the clips, and a class."""
    found = listing.read(Path(__file__).parents[3] / "examples" / "sounds" / "drums.csv")
    division = divide(found, audit(found))
    parts = Parts.of([*division.rows, *division.pool])
    assert parts.problem is None and len(found.clips) - len(parts.labelled) == 3
    units = [{clip.group for clip in part} for part in (parts.train, parts.valid, parts.test)]
    assert not units[0] & units[1] and not (units[0] | units[1]) & units[2]
    classes = [{clip.labels for clip in part} for part in (parts.train + parts.valid, parts.labelled)]
    assert classes[0] == classes[1] and len(classes[1]) == 10


def test_recordings_that_are_all_silent_are_refused(notes: Path) -> None:
    found = listing.read(notes)
    with pytest.raises(m2dx.RecipeError, match="60 clips all are silent"):
        divide(found, Audit((), (), (), frozenset(range(60))))


@pytest.mark.parametrize(
    "form",
    [
        "{label}/{n}.wav",
        "{label}/p{of}/{n}.wav",  # patients of both classes
        "{label}/p{of}{label[0]}/{n}.wav",  # of one
        "{label}/speaker_{of}/{n}.wav",
        "{part}/{label}/{n}.wav",
        "{part}/{label}/p{of}/{n}.wav",
    ],
)
def test_a_folder_is_read_as_m2dx_classify_reads_it(form: str, tmp_path: Path) -> None:
    for n in range(60):
        part = "test" if n % 5 == 4 else "train"
        path = tmp_path / form.format(label=("cat", "dog")[n % 2], of=n // 2 % 5, n=n, part=part)
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.ones(160), 16_000)
    clips = listing.read(tmp_path).clips
    classified = of_folders(tmp_path, [m2dx.Clip(clip.path) for clip in clips])
    assert [(of.labels, of.group, of.split) for of in clips] == [
        (of.labels, of.group, of.split) for of in classified
    ]
