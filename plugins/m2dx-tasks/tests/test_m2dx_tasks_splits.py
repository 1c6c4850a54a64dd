"""Tasks without an official split: the published list, and the division of whole groups without it."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from m2dx_tasks.groups import divide_groups
from m2dx_tasks.music import Surge
from m2dx_tasks.sample import write_cremad, write_surge, write_voxforge
from m2dx_tasks.speech import CREMAD, VoxForge

import m2dx


def test_the_actors_of_crema_d_are_divided_as_published() -> None:
    """TensorFlow Datasets has 5144, 738 and 1556 clips of 63, 9 and 19 actors; one with all sentences has 82."""
    actors = [str(number) for number in range(1001, 1092)]
    found = divide_groups(actors, (0.7, 0.1, 0.2))
    assert list(found) != sorted(found)
    assert Counter(found.values()) == {"train": 63, "valid": 9, "test": 19}
    assert found == divide_groups(reversed(actors + actors), (0.7, 0.1, 0.2))
    valid = [actor for actor, split in found.items() if split == "valid"]
    assert valid == "1015 1079 1020 1030 1050 1089 1090 1070 1021".split()


def test_without_a_list_no_speaker_is_in_two_splits(tmp_path: Path) -> None:
    for dataset in (CREMAD(path=write_cremad(tmp_path / "c")), VoxForge(path=write_voxforge(tmp_path / "v"))):
        splits = {clip.group: clip.split for clip in dataset.clips()}
        assert all(splits[clip.group] == clip.split for clip in dataset.clips())
        assert set(splits.values()) == {"train", "valid", "test"}


def test_the_published_list_of_crema_d_decides(tmp_path: Path) -> None:
    folder = write_cremad(tmp_path)
    rows = [
        f"{path.name},{path.stem[9:12]},{path.name[:4]},{'train' if path.name < '1015' else 'test'}\n"
        for path in sorted((folder / "AudioWAV").iterdir())[:-2]
    ]
    (folder / "cremad.csv").write_text("file_name,label,speaker_id,split\n" + "".join(rows))
    dataset = CREMAD(path=folder)
    assert Counter(clip.split for clip in dataset.clips()) == {"train": 84, "test": 34}
    assert {clip.split for clip in dataset.clips() if clip.group == "1001"} == {"train"}
    first, _ = dataset.missing()
    assert first == "2 of 120 files are not in the list of the split and left out"


def test_a_list_elsewhere_may_be_chosen(tmp_path: Path) -> None:
    folder = write_cremad(tmp_path / "data")
    path = tmp_path / "mine.csv"
    path.write_text("file_name,split\nAudioWAV/1001_DFA_ANG_XX.wav,test\n")
    assert [clip.split for clip in CREMAD(path=folder, split_list=path).clips()] == ["test"]
    path.unlink()
    with pytest.raises(m2dx.AudioError, match=r"cannot read the list \S*mine\.csv"):
        CREMAD(path=folder, split_list=path).clips()
    path.write_text("file_name,split\n1001_DFA_BOO_XX.wav,test\n")
    with pytest.raises(m2dx.AudioError, match="there must be files of the list's in"):
        CREMAD(path=folder, split_list=path).clips()


def test_the_published_list_of_voxforge_divides_archives(tmp_path: Path) -> None:
    """Two archives of a user in two splits, as in the paper: that is refused unless the recipe allows it."""
    folder = write_voxforge(tmp_path)
    files = sorted(folder.rglob("*.wav"))
    rows = [
        f"{'/'.join(path.parts[-3:])},{path.parts[-4]},{'train' if '20140120' in path.parts[-3] else 'test'}\n"
        for path in files
    ]
    (folder / "voxforge.csv").write_text("file_name,label,split\n" + "".join(rows))
    dataset = VoxForge(path=folder)
    assert Counter(clip.split for clip in dataset.clips()) == {"train": 120, "test": 120}
    with pytest.raises(m2dx.RecipeError, match="must be in one split only"):
        m2dx.ClipTask.from_dataset("voxforge", dataset)
    task = m2dx.ClipTask.from_dataset("voxforge", dataset, shared_groups="warn")
    assert "group 'user00de' (in test, train)" in task.warnings[0]


def test_the_published_list_of_surge_divides_presets(tmp_path: Path) -> None:
    folder = write_surge(tmp_path)
    presets = sorted(path.name for path in folder.iterdir())
    splits = dict(zip(presets, ["train"] * 8 + ["valid", "test"], strict=False))
    text = "tone,split\n" + "".join(f"{tone},{split}\n" for tone, split in splits.items())
    (folder / "dataset_surge_tone_splits.csv").write_text(text)
    clips = Surge(path=folder).clips()
    assert {clip.group: clip.split for clip in clips} == splits
    assert len(clips) == 10 * 88


@pytest.mark.parametrize(
    ("rows", "line", "text"),
    [
        (["1001_DFA_ANG_XX.wav,dev"], 2, "`split` must be train, valid or test, but is 'dev'"),
        ([",test"], 2, "`file_name` must be given, but is empty"),
        (
            ["1001_DFA_ANG_XX.wav,test", "1001_DFA_ANG_XX.wav,train"],
            3,
            "1001_DFA_ANG_XX.wav must be in one split, but is in test already",
        ),
    ],
)
def test_a_wrong_row_of_the_list_is_told_with_file_and_line(
    tmp_path: Path, rows: list[str], line: int, text: str
) -> None:
    folder: Any = write_cremad(tmp_path)
    path = folder / "cremad.csv"
    path.write_text("\n".join(["file_name,split", *rows]) + "\n")
    with pytest.raises(m2dx.AudioError, match=f"^{re.escape(f'{path}:{line}: {text}')}$"):
        CREMAD(path=folder).clips()
