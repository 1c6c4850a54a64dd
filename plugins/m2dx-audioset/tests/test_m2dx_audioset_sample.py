"""The generated data sets."""

import os
from collections import Counter
from pathlib import Path

import pytest
import soundfile
from m2dx_audioset import FSD50K, AudioSet
from m2dx_audioset.sample import main, write_audioset, write_fsd50k

from m2dx.testing import check_dataset


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command line writes."""
    folder = tmp_path_factory.mktemp("sample")
    main([str(folder), "--clips", "40"])
    return folder


def test_the_data_sets_keep_the_contract(sample: Path) -> None:
    check_dataset(AudioSet, path=sample / "audioset")
    check_dataset(AudioSet, path=sample / "audioset", train="balanced", labels=False)
    check_dataset(FSD50K, path=sample / "fsd50k")


def test_there_are_as_many_clips_as_asked_for_and_some_without_audio(sample: Path) -> None:
    audioset, fsd50k = AudioSet(path=sample / "audioset"), FSD50K(path=sample / "fsd50k")
    assert Counter(clip.split for clip in audioset.clips()) == {"train": 40, "test": 13}
    assert Counter(clip.split for clip in fsd50k.clips()) == {"train": 32, "valid": 8, "test": 20}
    assert [line.split(" have")[0] for line in audioset.missing()] == [
        "1 of 14 segments of balanced_train_segments.csv",
        "2 of 29 segments of unbalanced_train_segments.csv",
        "1 of 14 segments of eval_segments.csv",
    ]
    assert [line.split(" are")[0] for line in fsd50k.missing()] == [
        "4 of 44 files of dev.csv",
        "2 of 22 files of eval.csv",
    ]


def test_the_lists_have_the_official_form(sample: Path) -> None:
    lines = (sample / "audioset" / "eval_segments.csv").read_text().splitlines()
    assert lines[0].startswith("# Segments csv created ") and lines[1].startswith(
        "# num_ytids=14, num_segs=14, "
    )
    assert lines[2] == "# YTID, start_seconds, end_seconds, positive_labels"
    ytid, rest = lines[3][:11], lines[3][11:]
    assert len(ytid) == 11 and rest.startswith(
        (', 0.000, 10.000, "/m/', ', 30.000, 40.000, "/m/', ", 30.000, 38.000")
    )
    classes = (sample / "audioset" / "class_labels_indices.csv").read_text().splitlines()
    assert classes[:3] == [
        "index,mid,display_name",
        '0,/m/09x0r,"Speech"',
        '1,/m/05zppz,"Male speech, man speaking"',
    ]
    ground_truth = sample / "fsd50k" / "FSD50K.ground_truth"
    assert (ground_truth / "dev.csv").read_text().startswith("fname,labels,mids,split\n1000,Acc")
    assert (ground_truth / "eval.csv").read_text().startswith("fname,labels,mids\n")
    assert (
        (ground_truth / "vocabulary.csv")
        .read_text()
        .startswith("0,Accelerating_and_revving_and_vroom,/m/07q2z82\n")
    )


def test_labels_with_commas_occur_in_each_split(sample: Path) -> None:
    clips = AudioSet(path=sample / "audioset").clips()
    assert {c.split for c in clips if "Male speech, man speaking" in c.labels} == {"train", "test"}
    assert any(len(clip.labels) == 2 for clip in clips) and any(len(clip.labels) == 1 for clip in clips)


def test_further_clips_are_links_to_the_first_sounds(tmp_path: Path) -> None:
    write_audioset(tmp_path / "many", clips=1000)
    files = [path for path in (tmp_path / "many").rglob("*") if path.suffix in (".wav", ".flac")]
    assert len(files) == 1333
    assert len({path.stat().st_ino for path in files}) == 16  # 8 sounds in two formats


def test_where_links_cannot_be_made_the_files_are_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*paths: object) -> None:
        raise OSError("no links")

    monkeypatch.setattr(os, "link", refuse)
    folder = write_fsd50k(tmp_path / "fsd50k", clips=16)
    files = sorted((folder / "FSD50K.dev_audio").iterdir())
    assert len({path.stat().st_ino for path in files}) == 16
    assert files[0].read_bytes() == files[8].read_bytes()


def test_it_is_the_same_each_time_also_in_the_same_folder(tmp_path: Path) -> None:
    contents = []
    for name in ("one", "other", "other"):
        folder = write_audioset(tmp_path / name, clips=8)
        contents.append(
            {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        )
    assert contents[0] == contents[1] == contents[2]


def test_audio_is_16_bit_and_as_long_as_its_segment(sample: Path) -> None:
    for clip in AudioSet(path=sample / "audioset").clips("train"):
        info = soundfile.info(str(clip.path))
        assert info.subtype == "PCM_16" and info.duration in (8.0, 10.0)


def test_too_few_clips_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--clips", "3"])
    assert "--clips: must be 8 or more, but is 3" in capsys.readouterr().err
