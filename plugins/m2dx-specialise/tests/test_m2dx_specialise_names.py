"""What names of files, folders and columns are taken for."""

from pathlib import PurePath

import pytest
from m2dx_specialise import names


@pytest.mark.parametrize(
    ("name", "label", "group"),
    [
        ("{a}/{n:03}.wav", "folder:1", None),  # numbers that begin anew in each folder
        ("{a}/take_{n:03}.wav", "folder:1", None),
        ("{a}/{g}_{n:03}.wav", "folder:1", "name:1"),
        ("{a}/{n}_{g}.wav", "folder:1", "name:2"),
        ("0{n}/{k}.wav", "name:1", "folder:1"),  # each of several people says the digits
        ("{a}/{g}/{n:03}.wav", "folder:1", "folder:2"),
        ("{a}/{g}{k}b/{n:03}.wav", "folder:1", "folder:2"),  # each of one class
        ("{a}/patient_{g}/{n:03}.wav", "folder:1", "folder:2"),
        ("2024-05-01_site{s}_{a}_{n:02}.wav", "name:5", "name:4"),
        ("patient{p}_{a}_x.wav", "name:2", "name:1"),
        ("speaker{p}/word_{a}_{k}{p}{s}.wav", "name:2", "folder:1"),
        ("one/speaker{s}/{a}_{n}.wav", "name:1", "folder:2"),  # fewer speakers than classes
        ("speaker{p}/{a}_{n}.wav", "name:1", "folder:1"),
        ("F{k}/{n:03}.wav", "folder:1", None),  # where nothing else may be the label
        ("100{n}_{a}_XX.wav", "name:2", "name:1"),  # numbers of people begin above 1
        ("actor_{p}/03-{a}-0{k}.wav", "name:2", "folder:1"),
        ("speaker{p}/word_{a}_{n}.wav", "name:2", "folder:1"),  # takes are no labels beside words
        ("patient{p}/2024-01-{n:02}/{a}/{n}.wav", "folder:3", "folder:1"),
        ("w{p}/2024-01-{n:02}/{a}/{n}.wav", "folder:3", "folder:1"),  # the upper folder keeps more together
        ("fold{p}/{a}_{n}.wav", "name:1", "folder:1"),  # parts of a collection are no labels
        ("set_{s}/{a}_{n}.wav", "name:1", "folder:1"),
    ],
)
@pytest.mark.parametrize("clips_of_a_file", [1, 2])
@pytest.mark.parametrize("stray", [False, True])
def test_labels_and_groups_are_told_by_folders_and_file_names(
    name: str, label: str, group: str | None, clips_of_a_file: int, stray: bool
) -> None:
    paths = [
        PurePath(
            name.format(
                a=animal,
                k=kind,
                n=number,
                g=f"p{number % 5}",
                p=number % 5,
                m=number % 6 + 1,
                s="ABCD"[number % 4],
            )
        )
        for kind, animal in enumerate(("cat", "cow", "dog"))
        for number in range(10)
        for _ in range(clips_of_a_file)
    ]
    paths += [PurePath(paths[0].name if len(paths[0].parts) > 1 else "stray.wav")] if stray else []
    choices = [*names.folders(paths), *names.parts(paths)]
    found = names.best_label(choices)
    grouped = names.best_group(choices, found)
    assert found is not None and (found.key, grouped and grouped.key) == (label, group)


COLUMNS = {
    "patient": lambda n: f"{n // 8}", "PatientID": lambda n: f"{n // 8}", "recording_id": lambda n: f"r{n // 2}",
    "visit": lambda n: f"{n // 4}", "confidence": lambda n: f"{n % 24 / 24:.2f}", "humidity": lambda n: f"{n % 7}",
    "side": lambda n: "LR"[n // 3 % 2], "bird": lambda n: ("robin", "wren")[n % 2], "Bird": lambda n: "rw"[n % 2],
    "file_type": lambda n: ("mp3", "wav")[n // 5 % 2], "robin": lambda n: f"{n % 2}", "wren": lambda n: f"{1 - n % 2}",
    "night": lambda n: f"{n // 3 % 2}", "classID": lambda n: f"{n % 4}", "result": lambda n: f"{n % 2 * 2 - 1}",
    "type": lambda n: "ab"[n // 4 % 2], "primary_label": lambda n: f"bird{'abcdefghijklmnop'[n % 16]}",
    "dry": lambda n: f"{n % 2:.1f}", "wet": lambda n: str(not n % 2),
}  # fmt: skip


@pytest.mark.parametrize(
    ("columns", "label", "group"),
    [
        ("bird recording_id patient", "column:bird", "column:patient"),
        ("bird visit PatientID", "column:bird", "column:PatientID"),
        ("bird patient confidence", "column:bird", "column:patient"),
        ("bird humidity", "column:bird", None),
        ("bird side file_type", "column:bird", None),
        ("robin wren", names.MARKS, None),
        ("robin wren patient", names.MARKS, "column:patient"),
        ("robin night", "column:robin", None),  # each of its own
        ("dry wet", names.MARKS, None),
        ("classID patient", "column:classID", "column:patient"),
        ("result humidity", "column:result", None),
        ("type primary_label", "column:primary_label", None),
    ],
)
def test_columns_are_told_by_their_words(columns: str, label: str, group: str | None) -> None:
    cells = [{name: COLUMNS[name](n) for name in columns.split()} for n in range(96)]
    choices = names.columns(cells, ())
    found = names.best_label(choices)
    grouped = names.best_group(choices, found)
    assert (found and found.key, grouped and grouped.key) == (label, group)
