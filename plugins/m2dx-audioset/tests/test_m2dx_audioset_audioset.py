"""AudioSet: what its lists and files give, and what is said where they are not as they must be."""

import re
from pathlib import Path
from typing import Any

import pytest
from m2dx_audioset import AudioSet

import m2dx
from m2dx.testing import check_dataset

SPEECH, MALE, GUSH = "Speech", "Male speech, man speaking", "Gush"
ROW = '--PJHxphWEs, 30.000, 40.000, "/m/09x0r,/t/dd00088"'
NAMES = "--PJHxphWEs 2bbbbbbbbbb 3cccccccccc 4dddddddddd 5eeeeeeeeee 6ffffffffff 7gggggggggg".split()


def row(ytid: str, *mids: str, start: float = 30.0) -> str:
    return f'{ytid}, {start:.3f}, {start + 10:.3f}, "{",".join(mids or ["/m/09x0r"])}"'


@pytest.fixture
def small(audioset: Any) -> Any:
    """Two balanced segments, two unbalanced ones and one for evaluation; an unbalanced one has no audio."""
    audioset.write_list("balanced_train", [ROW, row(NAMES[1], "/m/05zppz", "/m/09x0r")])
    audioset.write_list("unbalanced_train", [row(NAMES[2]), row(NAMES[3], "/t/dd00088")])
    audioset.write_list("eval", [row(NAMES[4], "/t/dd00088")])
    audioset.write_audio(
        "b/--PJHxphWEs.wav", "b/Y2bbbbbbbbbb.flac", "u/x/4dddddddddd_30_40.ogg", "5eeeeeeeeee.wav"
    )
    return audioset


def test_clips_have_the_lists_labels_splits_and_files(small: Any) -> None:
    check_dataset(AudioSet, path=small.path)
    dataset = AudioSet(path=small.path)
    found = [(str(c.path.relative_to(small.path)), c.labels, c.split, c.group) for c in dataset.clips()]
    assert found == [
        ("b/--PJHxphWEs.wav", (SPEECH, GUSH), "train", "--PJHxphWEs"),
        ("b/Y2bbbbbbbbbb.flac", (MALE, SPEECH), "train", "2bbbbbbbbbb"),
        ("u/x/4dddddddddd_30_40.ogg", (GUSH,), "train", "4dddddddddd"),
        ("5eeeeeeeeee.wav", (GUSH,), "test", "5eeeeeeeeee"),
    ]
    assert all(clip.start == 0 and clip.duration is None for clip in dataset.clips())


def test_label_names_are_all_classes_in_the_official_order(small: Any) -> None:
    names = AudioSet(path=small.path, train="balanced", labels=False).label_names()
    assert len(names) == 527
    assert (names[0], names[1], names[2], names[451], names[526]) == (
        SPEECH,
        MALE,
        "Class 2",
        GUSH,
        "Class 526",
    )


def test_targets_are_multi_hot_in_the_official_order(small: Any) -> None:
    task = m2dx.ClipTask.from_dataset("audioset", AudioSet(path=small.path), max_bad_fraction=0.0)
    ones = [[int(i) for i in target.nonzero()[0]] for target in task.targets()]
    assert task.targets().shape == (4, 527)
    assert ones == [[0, 451], [0, 1], [451], [451]]


@pytest.mark.parametrize(
    ("train", "files"),
    [
        ("balanced", ["--PJHxphWEs.wav", "Y2bbbbbbbbbb.flac"]),
        ("unbalanced", ["4dddddddddd_30_40.ogg"]),
        ("all", ["--PJHxphWEs.wav", "Y2bbbbbbbbbb.flac", "4dddddddddd_30_40.ogg"]),
    ],
)
def test_train_says_which_lists_are_the_training_split(small: Any, train: Any, files: list[str]) -> None:
    for name in {"balanced", "unbalanced"} - {train} if train != "all" else ():
        (small.path / f"{name}_train_segments.csv").unlink()  # a list that is not used need not be there
    dataset = AudioSet(path=small.path, train=train)
    assert [clip.path.name for clip in dataset.clips("train")] == files
    assert [clip.path.name for clip in dataset.clips("test")] == ["5eeeeeeeeee.wav"]
    assert dataset.clips("valid") == []


def test_weights_are_those_of_as2m_over_the_clips_of_a_split_with_audio(small: Any) -> None:
    dataset = AudioSet(path=small.path)
    # Training clips with audio: speech + gush, male speech + speech, gush.
    speech, male, gush = 1000 / 2.01, 1000 / 1.01, 1000 / 2.01
    weights = [clip.weight for clip in dataset.clips("train")]
    assert weights == pytest.approx([total ** (2 / 3) for total in (speech + gush, male + speech, gush)])
    assert [clip.weight for clip in dataset.clips("test")] == pytest.approx([(1000 / 1.01) ** (2 / 3)])


def test_without_labels_the_weights_stay(small: Any) -> None:
    unlabelled, labelled = AudioSet(path=small.path, labels=False), AudioSet(path=small.path)
    check_dataset(AudioSet, path=small.path, labels=False)
    assert {clip.labels for clip in unlabelled.clips()} == {()}
    assert [clip.weight for clip in unlabelled.clips()] == [clip.weight for clip in labelled.clips()]


def test_audio_may_be_in_another_folder(small: Any, tmp_path: Path) -> None:
    elsewhere = tmp_path / "Gérê 音"
    elsewhere.mkdir()
    (small.path / "b").rename(elsewhere / "b")
    clips = AudioSet(path=small.path, audio=elsewhere).clips()
    assert [clip.path.parent for clip in clips] == [elsewhere / "b"] * 2


def test_a_file_shorter_than_its_segment_is_used(audioset: Any) -> None:
    audioset.write_list("eval", [ROW])
    audioset.write_audio("--PJHxphWEs.wav", seconds=0.3)
    (clip,) = AudioSet(path=audioset.path).clips("test")
    assert m2dx.read_wav(clip.path, start=clip.start, duration=clip.duration, sample_rate=8000).shape == (
        2400,
    )


def test_missing_audio_is_counted_by_list_with_examples(audioset: Any) -> None:
    audioset.write_list("balanced_train", [row(name, start=n) for n, name in enumerate(NAMES)])
    audioset.write_list("eval", [row("8hhhhhhhhhh")])
    audioset.write_audio("--PJHxphWEs.wav", "8hhhhhhhhhh.wav")
    assert AudioSet(path=audioset.path).missing() == [
        f"6 of 7 segments of balanced_train_segments.csv have no audio in {audioset.path}, e.g. 2bbbbbbbbbb (1 s), "
        "3cccccccccc (2 s), 4dddddddddd (3 s), 5eeeeeeeeee (4 s), 6ffffffffff (5 s)"
    ]
    (audioset.path / "8hhhhhhhhhh.wav").unlink()
    lines = AudioSet(path=audioset.path).missing()
    assert (
        lines[1]
        == f"1 of 1 segments of eval_segments.csv have no audio in {audioset.path}, e.g. 8hhhhhhhhhh (30 s)"
    )


def test_formats_that_cannot_be_read_are_counted_where_there_is_no_other_file(audioset: Any) -> None:
    audioset.write_list("eval", [row(name) for name in NAMES])
    audioset.write_audio(*(f"a/{name}_30.000_40.000.m4a" for name in NAMES[:4]), f"{NAMES[4]}.webm")
    audioset.write_audio(f"{NAMES[0]}.flac", "unlisted_id.m4a")
    assert AudioSet(path=audioset.path).missing()[1:] == [
        "3 of these have a .m4a file, which soundfile cannot read; convert them to FLAC",
        "1 of these have a .webm file, which soundfile cannot read; convert them to FLAC",
    ]


def test_no_audio_at_all_is_an_error_that_says_what_names_are_expected(audioset: Any) -> None:
    audioset.write_list("eval", [ROW])
    audioset.write_audio("speech.wav", "--PJHxphWEs.m4a")
    with pytest.raises(m2dx.AudioError, match=r"none has; the files must be named YTID\.wav") as error:
        AudioSet(path=audioset.path).clips()
    assert "1 of 1 segments of eval_segments.csv" in str(error.value)
    assert "1 of these have a .m4a file" in str(error.value)
    with pytest.raises(
        m2dx.AudioError, match=r"`audio` must be the folder with the audio files, but .*none is not"
    ):
        AudioSet(path=audioset.path, audio=audioset.path / "none").clips()


def test_lists_that_are_not_there_are_named(audioset: Any) -> None:
    for name in ("class_labels_indices.csv", "eval_segments.csv"):
        (audioset.path / name).unlink()
    with pytest.raises(m2dx.AudioError, match=r"lacks class_labels_indices\.csv, eval_segments\.csv$"):
        AudioSet(path=audioset.path).clips()
    with pytest.raises(m2dx.AudioError, match="official files of AudioSet"):
        AudioSet(path=audioset.path / "nowhere").label_names()


def test_pre_training_needs_no_evaluation_list(small: Any) -> None:
    with_list = AudioSet(path=small.path)
    expected, missing = with_list.clips("train"), with_list.missing()
    (small.path / "eval_segments.csv").unlink()
    dataset = AudioSet(path=small.path)
    assert len(dataset.label_names()) == 527
    assert dataset.missing() == missing
    assert dataset.clips("train") == expected and dataset.clips("valid") == []
    for split in ("test", None):
        with pytest.raises(
            m2dx.AudioError, match=r"official files of AudioSet, .* lacks eval_segments\.csv$"
        ):
            dataset.clips(split)


def test_a_training_list_is_needed_always(small: Any) -> None:
    (small.path / "unbalanced_train_segments.csv").unlink()
    for split in ("train", "test"):
        with pytest.raises(m2dx.AudioError, match=r"lacks unbalanced_train_segments\.csv$"):
            AudioSet(path=small.path).clips(split)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (
            '--PJHxphWEs, 30.000, 40.000, "/m/09x0r,/m/nope"',
            ".* mids of class_labels_indices.csv, but .*: /m/nope",
        ),
        ('--PJHxphWEs, 30.000, 40.000, ""', "`positive_labels` must have a label or more"),
        ("--PJHxphWEs, 30.000, 40.000", "`positive_labels` must have a label or more"),
        (
            '--PJHxphWE, 30.000, 40.000, "/m/09x0r"',
            "`YTID` must be 11 letters, digits, - or _, but is '--PJHxphWE'",
        ),
        (
            'é-PJHxphWEs, 30.000, 40.000, "/m/09x0r"',
            "`YTID` must be 11 letters, digits, - or _, but is 'é-PJHxphWEs'",
        ),
        ('--PJHxphWEs, half, 40.000, "/m/09x0r"', "`start_seconds` must be a number of seconds, .* 'half'"),
        ('--PJHxphWEs, 30.000, nan, "/m/09x0r"', "`end_seconds` must be a number of seconds, .* 'nan'"),
        ('--PJHxphWEs, -1.000, 9.000, "/m/09x0r"', "`start_seconds` must be a number of seconds, 0 or more"),
        (
            '--PJHxphWEs, 40.000, 30.000, "/m/09x0r"',
            r"`end_seconds` must be after `start_seconds` \(40\), but is 30",
        ),
        ('--PJHxphWEs, 30.000, 40.000, "/m/09x0r", 1', "more fields than columns"),
        ("--PJHxphWEs, 30.000, 40.000, /m/09x0r,/t/dd00088", ".*a field with a comma needs quotes"),
    ],
)
def test_a_wrong_row_is_told_with_file_and_line(audioset: Any, wrong: str, text: str) -> None:
    path = audioset.write_list("unbalanced_train", [row("3cccccccccc"), wrong])
    audioset.write_audio("3cccccccccc.wav")
    with pytest.raises(m2dx.AudioError, match=rf"^{re.escape(str(path))}:5: {text}"):
        AudioSet(path=audioset.path).clips()


def test_a_segment_that_is_listed_twice_is_told_also_in_two_lists(audioset: Any) -> None:
    rows = [ROW, row("--PJHxphWEs", start=50), row("--PJHxphWEs", start=50)]
    path = audioset.write_list("balanced_train", rows)
    with pytest.raises(
        m2dx.AudioError, match=rf"^{re.escape(str(path))}:6: .*--PJHxphWEs at 50 s comes twice"
    ):
        AudioSet(path=audioset.path).clips()
    audioset.write_list("balanced_train", rows[:2])
    path = audioset.write_list("eval", [row("2bbbbbbbbbb"), ROW])
    with pytest.raises(
        m2dx.AudioError, match=rf"^{re.escape(str(path))}:5: .*--PJHxphWEs at 30 s comes twice"
    ):
        AudioSet(path=audioset.path).clips()


@pytest.mark.parametrize(
    "columns",
    [
        "# YTID, start_seconds, positive_labels",
        "YTID,start_seconds,end_seconds,labels",
        "# YTID, segment_id, label",
    ],
)
def test_other_columns_are_told_with_file_and_line(audioset: Any, columns: str) -> None:
    path = audioset.write_list("eval", [ROW], columns=columns)
    audioset.write_audio("--PJHxphWEs.wav")
    with pytest.raises(
        m2dx.AudioError, match=rf"{re.escape(str(path))}:3: the columns must be YTID, start_seconds, "
    ):
        AudioSet(path=audioset.path).clips()


def test_lists_that_were_written_anew_are_read(audioset: Any) -> None:
    """As tools write them: a header that is no comment, no space after commas, another encoding mark."""
    lines = (
        'YTID,start_seconds,end_seconds,positive_labels\r\n--PJHxphWEs,30.0,40.0,"/m/09x0r,/t/dd00088"\r\n'
    )
    (audioset.path / "eval_segments.csv").write_text(lines, encoding="utf-8-sig", newline="")
    audioset.write_audio("--PJHxphWEs_30_40.wav")
    (clip,) = AudioSet(path=audioset.path).clips()
    assert clip.labels == (SPEECH, GUSH)


def test_lists_must_be_utf_8(audioset: Any) -> None:
    path = audioset.path / "eval_segments.csv"
    path.write_bytes(b"# Segments csv\n\xff\xfe\n")
    with pytest.raises(m2dx.AudioError, match=rf"{re.escape(str(path))} must be UTF-8"):
        AudioSet(path=audioset.path).clips()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            lambda lines: [*lines[:1], *lines[2:]],
            r":2: `index` must be 0, as classes are in order, but is '1'",
        ),
        (lambda lines: lines[:-1], r": there must be 527 classes, but there are 526"),
        (lambda lines: ["index,mid,name", *lines[1:]], r":1: there must be a column `display_name`"),
        (
            lambda lines: [*lines[:2], '1,/m/x,"Speech"', *lines[3:]],
            r":3: `display_name` .* 'Speech' comes twice",
        ),
        (lambda lines: [*lines[:2], '1,/m/09x0r,"x"', *lines[3:]], r":3: `mid` .* '/m/09x0r' comes twice"),
        (lambda lines: [*lines[:2], '1,,"x"', *lines[3:]], r":3: `mid` must be given"),
    ],
)
def test_a_wrong_list_of_classes_is_told_with_file_and_line(audioset: Any, change: Any, text: str) -> None:
    path = audioset.path / "class_labels_indices.csv"
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")
    with pytest.raises(m2dx.AudioError, match=f"^{re.escape(str(path))}{text}"):
        AudioSet(path=audioset.path).label_names()


def test_display_names_may_have_any_characters(audioset: Any) -> None:
    path = audioset.path / "class_labels_indices.csv"
    text = path.read_text().replace('"Speech"', '"Sprache; ""é"", 音"')
    path.write_text(text, encoding="utf-8")
    audioset.write_list("eval", [ROW])
    audioset.write_audio("--PJHxphWEs.wav")
    assert AudioSet(path=audioset.path).clips()[0].labels == ('Sprache; "é", 音', GUSH)
