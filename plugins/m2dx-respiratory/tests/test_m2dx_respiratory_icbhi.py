"""ICBHI 2017: what the official layout gives, and what files that do not fit lead to."""

import logging
import math
import os
import re
import shutil
import unicodedata
from collections import Counter, defaultdict
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import soundfile
from findings_lines import line_with
from m2dx_respiratory import IcbhiDataset
from m2dx_respiratory.icbhi_files import SPLIT_FILE, match_names, read_annotation
from m2dx_respiratory.sample import write_icbhi

import m2dx
from m2dx.testing import check_dataset

FIRST = "201_1b1_Al_mc_AKGC417L"
"""The first recording of the sample; its cycles end at 1.636, 2.836, 4.836 and 6.236 s."""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_icbhi(tmp_path_factory.mktemp("icbhi"), clips=9)


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """A copy of the sample that a test may change."""
    return Path(shutil.copytree(written, tmp_path / "icbhi"))


def recordings(folder: Path) -> Path:
    return folder / "ICBHI_final_database"


def cycles(folder: Path) -> IcbhiDataset:
    return IcbhiDataset(path=folder, unit="cycles")


def of_first(dataset: m2dx.Dataset) -> list[m2dx.Clip]:
    return [clip for clip in dataset.clips() if clip.path.stem == FIRST]


def test_it_keeps_the_contract(written: Path) -> None:
    check_dataset(IcbhiDataset, path=written)
    check_dataset(IcbhiDataset, path=written, unit="cycles")


def test_cycles_are_those_of_the_annotation(written: Path) -> None:
    dataset = cycles(written)
    assert dataset.label_names() == ("normal", "crackle", "wheeze", "both")
    first = of_first(dataset)
    assert [clip.labels for clip in first] == [("normal",), ("crackle",), ("wheeze",), ("both",)]
    assert [clip.start for clip in first] == [0.036, 1.636, 2.836, 4.836]
    assert [clip.duration for clip in first] == pytest.approx([1.6, 1.2, 2.0, 1.4])
    assert {(clip.split, clip.group) for clip in first} == {("train", "201")}
    assert Counter(clip.split for clip in dataset.clips()) == {"train": 24, "test": 12}
    assert len(dataset.clips("test")) == 12


def test_recordings_are_whole_and_without_labels(written: Path) -> None:
    dataset = IcbhiDataset(path=written)
    assert Counter(clip.split for clip in dataset.clips()) == {"train": 6, "test": 3}
    assert dataset.label_names() == ()
    for clip in dataset.clips():
        assert (clip.start, clip.duration, clip.labels) == (0.0, None, ())
        assert clip.group == clip.path.name.split("_")[0]


def test_the_path_may_be_the_folder_itself_and_the_split_file_anywhere(folder: Path, tmp_path: Path) -> None:
    assert len(cycles(recordings(folder)).clips()) == 36  # the split file is one level up
    elsewhere = tmp_path / "split.txt"
    (folder / SPLIT_FILE).rename(elsewhere)
    with pytest.raises(m2dx.AudioError, match=rf"split file {SPLIT_FILE} must be in one of .*`split_file`"):
        cycles(folder).clips()
    assert len(IcbhiDataset(path=folder, unit="cycles", split_file=elsewhere).clips()) == 36
    elsewhere.rename(recordings(folder) / SPLIT_FILE)
    assert len(cycles(folder).clips()) == 36


def test_a_recording_with_another_device_in_the_split_file_is_found_and_told(written: Path) -> None:
    line = line_with("first four parts", cycles(written))
    assert "name: 1, namely 204_9b1_Ar_mc_AKGC417L.wav (listed as 204_9b1_Ar_mc_LittC2SE)" in line


def test_names_are_matched_by_their_parts_in_one_way_only() -> None:
    ours, theirs = "226_1b1_Pl_sc_LittC2SE", "226_1b1_Pl_sc_Meditron"
    assert match_names([ours], [theirs]) == {ours: theirs}
    assert match_names([ours], [theirs, "226_1b1_Pl_sc_Litt3200"]) == {}
    assert match_names([ours, "226_1b1_Pl_sc_Litt3200"], [theirs]) == {}
    assert match_names([ours, theirs], [theirs]) == {theirs: theirs}
    assert match_names(["226_1b1_Pr_sc_LittC2SE"], [theirs]) == {}


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("0.1 0.5 0 0", "there must be 4 columns separated by tabs .*, but there are 1"),
        ("0.1\t0.5\t0", "there must be 4 columns .*, but there are 3"),
        ("0.1\t0.5\t0\t0\t0", "there must be 4 columns .*, but there are 5"),
        ("0.1\t0.5\t2\t0", "`crackle` must be 0 or 1, but is '2'"),
        ("0.1\t0.5\t0\tyes", "`wheeze` must be 0 or 1, but is 'yes'"),
        ("0.5\t0.5\t0\t0", r"`end` must be after `begin` \(0.5 s\), but is 0.5 s"),
        ("0,1\t0.5\t0\t0", "`begin` must be a number of seconds, 0 or more, but is '0,1'"),
        ("-1\t0.5\t0\t0", "`begin` must be a number of seconds"),
        ("0.1\tnan\t0\t0", "`end` must be a number of seconds"),
    ],
)
def test_a_wrong_line_of_an_annotation_is_told_with_file_and_line(folder: Path, line: str, text: str) -> None:
    path = recordings(folder) / f"{FIRST}.txt"
    path.write_text(f"0.0\t0.1\t0\t0\n\n{line}\n")
    dataset = cycles(folder)
    assert len(dataset.clips()) == 32
    told = line_with("problems in annotation files, all cycles of which are left out: 1", dataset)
    assert re.search(rf"{FIRST}\.txt:3: {text}", told)


def test_all_wrong_lines_are_counted(folder: Path) -> None:
    path = recordings(folder) / f"{FIRST}.txt"
    path.write_text("0\t1\t0\n" * 7)
    told = line_with("problems in annotation files", cycles(folder))
    assert "left out: 7, e.g." in told and told.count(f"{FIRST}.txt:") == 5


def test_annotations_that_are_no_text_or_empty_are_told(folder: Path) -> None:
    first, second = sorted(recordings(folder).glob("*.txt"))[:2]
    first.write_bytes(b"\xff\xfe\x00")
    second.write_text("\n")
    told = line_with("problems in annotation files", cycles(folder))
    assert f"{first}: must be UTF-8 text" in told
    assert f"{second}: there must be a line for each cycle" in told


def test_cycles_past_the_end_are_cut_or_left_out_with_file_and_line(folder: Path) -> None:
    path = recordings(folder) / f"{FIRST}.wav"
    wav, rate = soundfile.read(path)
    path.unlink()  # it may be linked
    soundfile.write(path, wav[: round(2.5 * rate)], rate)
    dataset = cycles(folder)
    assert [clip.start for clip in of_first(dataset)] == [0.036, 1.636]
    assert of_first(dataset)[1].duration == pytest.approx(2.5 - 1.636)
    cut = line_with("annotations that end past the end of their recording, cut to it: 1", dataset)
    assert f"{FIRST}.txt:2 (from 1.636 s to 2.836 s; the recording ends at 2.500 s)" in cut
    left_out = line_with("annotations that begin past the end of their recording, left out: 2", dataset)
    assert f"{FIRST}.txt:3" in left_out and f"{FIRST}.txt:4" in left_out


def test_a_rounded_end_is_cut_without_a_warning(folder: Path) -> None:
    text = recordings(folder) / f"{FIRST}.txt"
    text.write_text(text.read_text().replace("6.236", "6.28"))
    dataset = cycles(folder)
    last = of_first(dataset)[-1]
    assert last.duration is not None and last.start + last.duration == pytest.approx(6.236)
    assert not any("past the end" in line for line in dataset.missing())


def test_files_without_their_other_half_are_counted(folder: Path) -> None:
    inner = recordings(folder)
    one, other, *_ = sorted(inner.glob("*.wav"))
    one.with_suffix(".txt").unlink()
    other.unlink()
    (inner / "filename_format.txt").write_text("Each file name is divided into 5 elements")
    dataset = cycles(folder)
    assert len(dataset.clips()) == 28
    assert str(one) in line_with("recordings without annotation (.txt beside the .wav), left out: 1", dataset)
    stray = line_with("annotations without a recording", dataset)
    assert str(other.with_suffix(".txt")) in stray and "filename_format" not in stray
    assert other.stem in line_with(
        f"recordings in the split file {folder / SPLIT_FILE} without a .wav file", dataset
    )


def test_recordings_that_are_not_listed_or_not_named_so_are_counted(folder: Path) -> None:
    inner = recordings(folder)
    (inner / "notes.wav").write_bytes((inner / f"{FIRST}.wav").read_bytes())
    shutil.copyfile(inner / f"{FIRST}.wav", inner / "300_1b1_Al_sc_Meditron.wav")
    for dataset in (cycles(folder), IcbhiDataset(path=folder)):
        assert "300_1b1_Al_sc_Meditron.wav" in line_with("recordings not in the split file", dataset)
        assert "notes.wav" in line_with("recordings not named patient_index_location_mode_device", dataset)
        assert not any(clip.path.stem in ("notes", "300_1b1_Al_sc_Meditron") for clip in dataset.clips())


def test_a_recording_that_cannot_be_read_stays_as_bad_clips(folder: Path) -> None:
    path = recordings(folder) / f"{FIRST}.wav"
    path.unlink()
    path.write_text("this is no audio")
    dataset = cycles(folder)
    assert len(of_first(dataset)) == 4
    assert str(path) in line_with("recordings that cannot be read", dataset)


def test_names_beyond_ascii_are_found_in_either_unicode_form(folder: Path) -> None:
    inner, name = recordings(folder), "201_1b1_Al_mc_Médîtron"
    for suffix in (".wav", ".txt"):
        decomposed = unicodedata.normalize("NFD", name) + suffix
        (inner / f"{FIRST}{suffix}").rename(inner / decomposed)
    split = folder / SPLIT_FILE
    split.write_text(split.read_text(encoding="utf-8").replace(FIRST, name), encoding="utf-8")
    dataset = cycles(folder)
    assert len(dataset.clips()) == 36
    assert not any("without a .wav" in line or "not in the split" in line for line in dataset.missing())


@pytest.mark.parametrize(("of_wav", "of_txt"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_recording_and_annotation_may_have_different_unicode_forms(
    folder: Path, of_wav: Literal["NFC", "NFD"], of_txt: Literal["NFC", "NFD"]
) -> None:
    inner, name = recordings(folder), "201_1b1_Al_mc_Médîtron"
    for suffix, form in ((".wav", of_wav), (".txt", of_txt)):
        (inner / f"{FIRST}{suffix}").rename(inner / (unicodedata.normalize(form, name) + suffix))
    split = folder / SPLIT_FILE
    split.write_text(split.read_text(encoding="utf-8").replace(FIRST, name), encoding="utf-8")
    dataset = cycles(folder)
    assert len(dataset.clips()) == 36
    assert not any("without" in line for line in dataset.missing())


def test_a_name_that_is_not_text_can_be_printed(folder: Path) -> None:
    wav = recordings(folder) / f"{FIRST}.wav"
    try:
        wav.rename(os.fsdecode(os.fsencode(recordings(folder)) + b"/201_1b1_Al_mc_\xff\xfe.wav"))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    for line in cycles(folder).missing():
        line.encode("utf-8")


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("201_1b1_Al_mc_AKGC417L\tvalid", "the split of '201_1b1_Al_mc_AKGC417L' must be train or test"),
        ("201_1b1_Al_mc_AKGC417L train", "must be train or test, after a tab, but is ''"),
        (
            "204_9b1_Ar_mc_LittC2SE\ttrain",
            "'204_9b1_Ar_mc_LittC2SE' must be in one split, but was listed in test",
        ),
    ],
)
def test_a_wrong_split_file_is_refused_with_file_and_line(folder: Path, line: str, text: str) -> None:
    split = folder / SPLIT_FILE
    split.write_text(split.read_text() + line + "\n")
    with pytest.raises(m2dx.AudioError, match=f"{SPLIT_FILE}:10: .*{text}"):
        cycles(folder).clips()


def test_an_empty_or_missing_split_file_is_refused(folder: Path) -> None:
    (folder / SPLIT_FILE).write_text("\n")
    with pytest.raises(m2dx.AudioError, match="must have a line for each recording, but is empty"):
        cycles(folder).clips()
    with pytest.raises(m2dx.AudioError, match=r"no_such_file\.txt"):
        IcbhiDataset(path=folder, split_file=folder / "no_such_file.txt").clips()


def test_a_folder_without_recordings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(m2dx.AudioError, match=r"there are no \.wav files in"):
        IcbhiDataset(path=tmp_path).clips()
    with pytest.raises(m2dx.AudioError, match=r"`path` must be a folder, but .* is missing"):
        IcbhiDataset(path=tmp_path / "nowhere").clips()


def test_nothing_usable_is_an_error_with_all_findings(folder: Path) -> None:
    for text in recordings(folder).glob("*.txt"):
        text.unlink()
    with pytest.raises(
        m2dx.AudioError, match=r"no cycles of ICBHI 2017 can be used(.*\n)+.*without annotation"
    ):
        cycles(folder).clips()


def test_other_counts_than_the_official_ones_are_told_with_both(written: Path) -> None:
    told = line_with("official split", cycles(written))
    assert "4142 cycles for training and 2756 for testing, but 24 and 12 were found" in told
    told = line_with("official split", IcbhiDataset(path=written))
    assert "539 recordings for training and 381 for testing, but 6 and 3 were found" in told


def test_findings_are_warned_of_once(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (recordings(folder) / f"{FIRST}.txt").unlink()
    dataset = cycles(folder)
    with caplog.at_level(logging.WARNING):
        dataset.clips(), dataset.missing(), dataset.clips("test")
    assert len(caplog.messages) == len(dataset.missing()) == 3
    assert sum(FIRST in message for message in caplog.messages) == 1


def test_two_patients_are_in_both_splits_so_that_the_recipe_must_allow_it(written: Path) -> None:
    with pytest.raises(m2dx.RecipeError, match="group '156'"):
        m2dx.ClipTask.from_dataset("lungs", cycles(written), unit_seconds=1.0)
    task = m2dx.ClipTask.from_dataset("lungs", cycles(written), unit_seconds=1.0, shared_groups="warn")
    assert len(task.clips) == 36 and not task.bad and "group '156'" in task.warnings[0]


def test_a_sample_of_many_recordings_is_made_of_links(tmp_path: Path) -> None:
    write_icbhi(tmp_path, clips=40)
    files = list(recordings(tmp_path).glob("*.wav"))
    assert len(files) == 40 and len({file.stat().st_ino for file in files}) == 16
    dataset = cycles(tmp_path)
    assert len(dataset.clips()) == 160
    assert len(dataset.missing()) == 2  # the other device, and the counts


def write_official(annotations: Path, folder: Path, *, sample_rate: int) -> Path:
    """Writes the official annotations (annotations.zip, or *.txt) with noise of their durations, and the split file."""
    inner = folder / "ICBHI_final_database"
    inner.mkdir()
    if (annotations / "annotations.zip").is_file():
        shutil.unpack_archive(annotations / "annotations.zip", folder / "texts")
    else:
        shutil.copytree(annotations, folder / "texts")
    for found in (folder / "texts").rglob("*_*_*_*_*.txt"):
        path = Path(shutil.copy(found, inner))
        last = max(cycle.end for cycle in read_annotation(path).stretches)
        noise = 0.1 * np.random.default_rng(0).standard_normal(math.ceil(last * sample_rate))
        soundfile.write(path.with_suffix(".wav"), noise, sample_rate)
    shutil.copyfile(annotations / SPLIT_FILE, folder / SPLIT_FILE)
    return folder


@pytest.mark.skipif("ICBHI_ANNOTATIONS" not in os.environ, reason="needs the official annotations")
def test_the_official_annotations_give_the_official_counts(tmp_path: Path) -> None:
    folder = write_official(Path(os.environ["ICBHI_ANNOTATIONS"]), tmp_path, sample_rate=1000)
    dataset = cycles(folder)
    assert Counter(clip.split for clip in dataset.clips()) == {"train": 4142, "test": 2756}
    classes = Counter(clip.labels[0] for clip in dataset.clips("train"))
    assert classes == {"normal": 2063, "crackle": 1215, "wheeze": 501, "both": 363}
    (told,) = dataset.missing()
    assert "226_1b1_Pl_sc_LittC2SE.wav (listed as 226_1b1_Pl_sc_Meditron)" in told
    whole = IcbhiDataset(path=folder).clips()
    assert Counter(clip.split for clip in whole) == {"train": 539, "test": 381}
    splits = defaultdict(set)
    for clip in whole:
        splits[clip.group].add(clip.split)
    assert len(splits) == 126
    assert {patient for patient, found in splits.items() if len(found) > 1} == {"156", "218"}
