"""SPRSound: what the official layout gives, and what files that do not fit lead to."""

import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import soundfile
from findings_lines import line_with
from m2dx_respiratory import SprSoundDataset, sprsound
from m2dx_respiratory.sample import write_sprsound

import m2dx
from m2dx.testing import check_dataset

FIRST = "41000000_2.0_0_p1_100"
"""The first recording of the training part: Normal from 0.2 to 1.3 s, Wheeze from 1.45 to 2.55 s."""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sprsound(tmp_path_factory.mktemp("sprsound"), clips=16)


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """A copy of the sample that a test may change."""
    return Path(shutil.copytree(written, tmp_path / "sprsound"))


def events(folder: Path, **options: str) -> SprSoundDataset:
    return SprSoundDataset(path=folder, unit="events", **options)  # type: ignore[arg-type]


def annotation(folder: Path) -> Path:
    return folder / "BioCAS2022" / "train2022_json" / f"{FIRST}.json"


def audio(folder: Path) -> Path:
    return folder / "BioCAS2022" / "train2022_wav" / f"{FIRST}.wav"


def of_first(dataset: m2dx.Dataset) -> list[m2dx.Clip]:
    return [clip for clip in dataset.clips() if clip.path.stem == FIRST]


def test_it_keeps_the_contract(written: Path) -> None:
    check_dataset(SprSoundDataset, path=written)
    check_dataset(SprSoundDataset, path=written, unit="events")
    check_dataset(SprSoundDataset, path=written, unit="events", test="both", labels="binary")


def test_events_are_those_of_the_annotation(written: Path) -> None:
    dataset = events(written)
    assert all("official split" in line for line in dataset.missing())
    assert dataset.label_names() == (
        *("Normal", "Rhonchi", "Wheeze", "Stridor", "Coarse Crackle", "Fine Crackle", "Wheeze+Crackle"),
    )
    first = of_first(dataset)
    assert [clip.labels for clip in first] == [("Normal",), ("Wheeze",)]
    assert [clip.start for clip in first] == [0.2, 1.45]
    assert [clip.duration for clip in first] == pytest.approx([1.1, 1.1])
    assert {(clip.split, clip.group) for clip in first} == {("train", "41000000")}


def test_binary_labels_join_what_is_not_normal(written: Path) -> None:
    dataset = events(written, labels="binary")
    assert dataset.label_names() == ("Normal", "Adventitious")
    assert [clip.labels for clip in of_first(dataset)] == [("Normal",), ("Adventitious",)]
    typed = Counter(clip.labels == ("Normal",) for clip in events(written).clips())
    assert Counter(clip.labels == ("Normal",) for clip in dataset.clips()) == typed


@pytest.mark.parametrize("unit", ["recordings", "events"])
def test_the_halves_of_the_test_part_are_kept_apart(written: Path, unit: str) -> None:
    def tested(half: str) -> list[m2dx.Clip]:
        return SprSoundDataset(path=written, unit=unit, test=half).clips("test")  # type: ignore[arg-type]

    training = {clip.group for clip in SprSoundDataset(path=written).clips("train")}
    assert not training & {clip.group for clip in tested("inter")}
    assert {clip.group for clip in tested("intra")} <= training
    assert tested("both") == tested("inter") + tested("intra")


def test_patients_on_both_sides_need_the_recipes_consent(written: Path) -> None:
    with pytest.raises(m2dx.RecipeError, match="group '41000000'"):
        m2dx.ClipTask.from_dataset("lungs", events(written, test="intra"))
    task = m2dx.ClipTask.from_dataset("lungs", events(written), unit_seconds=1.0)
    assert not task.warnings[1:] and not task.bad


def test_recordings_are_whole_and_without_labels(written: Path) -> None:
    dataset = SprSoundDataset(path=written, test="both")
    assert Counter(clip.split for clip in dataset.clips()) == {"train": 8, "test": 8}
    assert dataset.label_names() == ()
    assert {(clip.start, clip.duration, clip.labels) for clip in dataset.clips()} == {(0.0, None, ())}


def test_the_first_releases_folders_are_found_too(written: Path, tmp_path: Path) -> None:
    first = write_sprsound(tmp_path, clips=16, layout="first")
    assert (first / "train_wav").is_dir()
    assert [clip.path.name for clip in events(first).clips()] == [
        clip.path.name for clip in events(written).clips()
    ]
    assert len(events(written / "BioCAS2022").clips()) == len(events(written).clips())


@pytest.mark.parametrize(
    ("event", "text"),
    [
        ({"start": "x", "end": "9", "type": "Normal"}, "`start` must be a number of milliseconds.*'x'"),
        ({"start": -5, "end": "9", "type": "Normal"}, "`start` must be a number of milliseconds.*-5"),
        ({"start": "1", "type": "Normal"}, "`end` must be a number of milliseconds.*None"),
        ({"start": "1", "end": True, "type": "Normal"}, "`end` must be a number of milliseconds.*True"),
        ({"start": 0, "end": "1e999", "type": "Normal"}, "`end` must be a number of milliseconds"),
        (
            {"start": "9", "end": "9", "type": "Normal"},
            r"`end` must be after `start` \(9 ms\), but is 9 ms",
        ),
        ({"start": "1", "end": "9", "type": "normal"}, "`type` must be one of Normal, .* but is 'normal'"),
        ({"start": "1", "end": "9"}, "`type` must be one of .* but is None"),
        ("Normal", "must be an object with start, end and type, but is 'Normal'"),
    ],
)
def test_a_wrong_event_is_told_with_file_and_place(folder: Path, event: object, text: str) -> None:
    content = json.loads(annotation(folder).read_text())
    content["event_annotation"].append(event)
    annotation(folder).write_text(json.dumps(content))
    dataset = events(folder)
    assert not of_first(dataset) and dataset.clips()
    told = line_with("problems in annotation files, all events of which are left out: 1", dataset)
    assert re.search(rf"{FIRST}\.json: event_annotation\[2\]: {text}", told)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b'{"record_annotation": "CAS",\n "event_annotation": [}', r"\.json:2: not valid JSON"),
        (b"\xff\xfe", r"\.json: must be UTF-8 text"),
        (b'{"record_annotation": "CAS"}', r"\.json: there must be a list `event_annotation`"),
        (b'["CAS"]', r"\.json: there must be a list `event_annotation`"),
    ],
)
def test_a_file_that_is_no_annotation_is_told(folder: Path, content: bytes, text: str) -> None:
    annotation(folder).write_bytes(content)
    assert re.search(FIRST + text, line_with("problems in annotation files", events(folder)))


def test_times_may_be_numbers_as_in_the_description(folder: Path) -> None:
    before = events(folder).clips()
    content = json.loads(annotation(folder).read_text())
    for event in content["event_annotation"]:
        event["start"], event["end"] = int(event["start"]), float(event["end"])
    annotation(folder).write_text(json.dumps(content))
    assert events(folder).clips() == before


def test_events_past_the_end_are_cut_or_left_out_with_their_place(folder: Path) -> None:
    path = audio(folder)
    wav, rate = soundfile.read(path)
    path.unlink()
    soundfile.write(path, wav[: round(0.9 * rate)], rate)
    dataset = events(folder)
    (first,) = of_first(dataset)
    assert first.start == 0.2 and first.duration == pytest.approx(0.7)
    assert f"{FIRST}.json: event_annotation[0] (from 0.2 s to 1.3 s" in line_with("cut to it: 1", dataset)
    assert f"{FIRST}.json: event_annotation[1]" in line_with("begin past the end", dataset)


def test_files_without_their_other_half_are_counted(folder: Path) -> None:
    top = folder / "BioCAS2022"
    annotation(folder).unlink()
    other = sorted((top / "train2022_wav").glob("*.wav"))[-1]
    other.unlink()
    tested, untested = sorted((top / "test2022_wav").glob("41005*.wav"))[:2]
    tested.unlink()
    (top / "test2022_json" / "inter_test_json" / f"{untested.stem}.json").unlink()
    dataset = events(folder)
    without = line_with("recordings without annotation (", dataset)
    assert ": 1, namely" in without and str(audio(folder)) in without
    assert other.stem in line_with(f"annotations without a recording (.wav in {top}/train2022_wav)", dataset)
    assert tested.stem in line_with(f"annotations without a recording (.wav in {top}/test2022_wav)", dataset)
    assert str(untested) in line_with("test recordings without annotation in either half", dataset)


def test_names_that_do_not_parse_and_unreadable_recordings_are_counted(folder: Path) -> None:
    odd = audio(folder).with_name("übung.wav")
    shutil.copyfile(audio(folder), odd)
    audio(folder).unlink()
    audio(folder).write_text("this is no audio")
    dataset = events(folder)
    assert str(odd) in line_with("not named patient_age_gender_location_number, left out: 1", dataset)
    assert str(audio(folder)) in line_with("recordings that cannot be read", dataset)
    assert len(of_first(dataset)) == 2  # they count as bad clips when they are read


def test_hidden_files_are_left_alone(folder: Path) -> None:
    before = events(folder, test="both").clips()
    for path in [*folder.rglob("*.json"), *folder.rglob("*.wav")]:
        path.with_name(f"._{path.name}").write_bytes(b"\0")
    dataset = events(folder, test="both")
    assert dataset.clips() == before and all("official split" in line for line in dataset.missing())


@pytest.mark.parametrize(
    ("test", "official", "found"), [("inter", 355, 4), ("intra", 379, 4), ("both", 734, 8)]
)
def test_other_counts_than_the_official_ones_are_told_with_both(
    test: Any, official: int, found: int, written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = line_with("official split", SprSoundDataset(path=written, test=test))
    assert f"1949 recordings for training and {official} for testing, but 8 and {found} were found" in told
    monkeypatch.setattr(sprsound, "OFFICIAL_COUNTS", {"train": 8, test: found})
    assert not events(written, test=test).missing()


def test_a_missing_training_part_is_refused(folder: Path) -> None:
    shutil.rmtree(folder / "BioCAS2022" / "train2022_json")
    assert SprSoundDataset(path=folder).clips("train")
    with pytest.raises(m2dx.AudioError, match=r"a folder with train2022_json or train_json.* has none"):
        events(folder).clips()
    with pytest.raises(m2dx.AudioError, match="nowhere is missing"):
        SprSoundDataset(path=folder / "nowhere").clips()


def test_a_missing_test_part_is_told(folder: Path) -> None:
    shutil.rmtree(folder / "BioCAS2022" / "test2022_json" / "intra_test_json")
    dataset = events(folder, test="both")
    assert dataset.clips("test")
    assert "no intra half of the test part: there is no folder" in line_with("intra", dataset)
    shutil.rmtree(folder / "BioCAS2022" / "test2022_wav")
    dataset = events(folder)
    assert dataset.clips("train") and not dataset.clips("test")
    assert "test2022_wav or test_wav" in line_with("no inter half", dataset)


def test_an_empty_folder_is_refused(folder: Path) -> None:
    shutil.rmtree(folder / "BioCAS2022")
    (folder / "train_wav").mkdir()
    with pytest.raises(
        m2dx.AudioError, match=r"no recordings of SPRSound.*\n.*no \.wav files in .*train_wav"
    ):
        SprSoundDataset(path=folder).clips()
