"""What each layout makes of its files, and what is said where they are not as they must be."""

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from m2dx_tasks.environment import ESC50, UrbanSound8K
from m2dx_tasks.music import GTZAN, NSynth, NSynthPitch, Surge
from m2dx_tasks.speech import CREMAD, SpeechCommands, VoxCeleb1, VoxForge
from task_clips import as_rows, told

import m2dx

ESC50_HEADER = "filename,fold,target,category,esc10,src_file,take"
US8K_HEADER = "slice_file_name,fsID,start,end,salience,fold,classID,class"


@pytest.fixture
def write(tmp_path: Path) -> Any:
    """Writes a text file (lines) or, without lines, a short audio file."""

    def write(name: str, *lines: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if lines:
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        elif path.suffix in (".m4a", ".webm"):
            path.write_bytes(b"not decoded")
        else:
            soundfile.write(path, np.zeros(800), 8000)
        return path

    return write


def test_esc50_reads_its_table(write: Any, tmp_path: Path) -> None:
    write(
        "meta/esc50.csv",
        ESC50_HEADER,
        "1-100032-A-0.wav,1,0,dog,True,100032,A",
        "5-9032-A-36.wav,5,36,vacuum_cleaner,False,9032,A",
    )
    write("audio/1-100032-A-0.wav")
    dataset = ESC50(path=tmp_path)
    assert as_rows(dataset, tmp_path) == [
        ("audio/1-100032-A-0.wav", ("dog",), "1", "100032"),
        ("audio/5-9032-A-36.wav", ("vacuum_cleaner",), "5", "9032"),
    ]
    assert told(dataset) == [f"1 of 2 files do not exist, e.g. {tmp_path}/audio/5-9032-A-36.wav"]


def test_esc10_is_a_task_of_its_own(write: Any, tmp_path: Path) -> None:
    write(
        "meta/esc50.csv",
        ESC50_HEADER,
        "1-100032-A-0.wav,1,0,dog,True,100032,A",
        "5-9032-A-36.wav,5,36,vacuum_cleaner,False,9032,A",
    )
    dataset = ESC50(path=tmp_path, esc10=True)
    assert [clip.labels for clip in dataset.clips()] == [("dog",)]
    assert (dataset.task.title, dataset.task.num_classes) == ("ESC-10", 10)
    assert dataset.missing()[-1].startswith(
        "the numbers of clips are not those of Piczak, 2015: fold 1 has 1 instead of 80, fold 2 has 0 instead of 80"
    )
    whole = ESC50(path=tmp_path)
    assert (whole.task.title, len(whole.clips())) == ("ESC-50", 2)


def test_us8k_reads_its_table(write: Any, tmp_path: Path) -> None:
    write(
        "metadata/UrbanSound8K.csv",
        US8K_HEADER,
        "100032-3-0-0.wav,100032,0.0,0.317551,1,5,3,dog_bark",
        "100263-2-0-117.wav,100263,58.5,62.5,1,10,2,children_playing",
    )
    assert as_rows(UrbanSound8K(path=tmp_path), tmp_path) == [
        ("audio/fold5/100032-3-0-0.wav", ("dog_bark",), "5", "100032"),
        ("audio/fold10/100263-2-0-117.wav", ("children_playing",), "10", "100263"),
    ]


def test_voxceleb1_reads_the_identification_split(write: Any, tmp_path: Path) -> None:
    write(
        "iden_split.txt",
        "1 id10001/1zcIwhmdeo4/00001.wav",
        "2 id10001/7w0IBEWc9Qw/00001.wav",
        "3 id10001/Y8hIVOBuels/00001.wav",
    )
    write("wav/id10001/1zcIwhmdeo4/00001.wav")
    dataset = VoxCeleb1(path=tmp_path)
    assert as_rows(dataset, tmp_path) == [
        ("wav/id10001/1zcIwhmdeo4/00001.wav", ("id10001",), "train", "id10001/1zcIwhmdeo4"),
        ("wav/id10001/7w0IBEWc9Qw/00001.wav", ("id10001",), "valid", "id10001/7w0IBEWc9Qw"),
        ("wav/id10001/Y8hIVOBuels/00001.wav", ("id10001",), "test", "id10001/Y8hIVOBuels"),
    ]
    assert [line[:28] for line in told(dataset)] == ["2 of 3 files do not exist, e"]


@pytest.mark.parametrize(
    ("cls", "file", "header", "wrong", "text"),
    [
        (
            ESC50,
            "meta/esc50.csv",
            ESC50_HEADER,
            "a.wav,6,0,dog,True,1,A",
            "`fold` must be one of 1, 2, 3, 4, 5",
        ),
        (
            ESC50,
            "meta/esc50.csv",
            ESC50_HEADER,
            "a.wav,1,0,,True,1,A",
            "`category` must be given, but is empty",
        ),
        (
            UrbanSound8K,
            "metadata/UrbanSound8K.csv",
            US8K_HEADER,
            "a.wav,1,0,4,1,0,3,dog",
            "`fold` must be one of 1",
        ),
        (VoxCeleb1, "iden_split.txt", None, "4 id1/v/1.wav", "`part` must be one of 1, 2, 3, but is '4'"),
        (
            VoxCeleb1,
            "iden_split.txt",
            None,
            "1 id1/1.wav",
            "the file must be SPEAKER/VIDEO/FILE.wav, but is 'id1/1",
        ),
        (VoxCeleb1, "iden_split.txt", None, "1 id1/v/1.wav x", "more fields than columns"),
        (VoxCeleb1, "iden_split.txt", None, "1", "`path` must be given, but is empty"),
    ],
)
def test_a_wrong_row_is_told_with_file_and_line(
    write: Any, tmp_path: Path, cls: Any, file: str, header: str | None, wrong: str, text: str
) -> None:
    path = write(file, *([header] if header else []), wrong)
    line = 2 if header else 1
    with pytest.raises(m2dx.AudioError, match=f"^{re.escape(f'{path}:{line}: {text}')}"):
        cls(path=tmp_path).clips()


def test_a_file_that_is_listed_twice_is_told(write: Any, tmp_path: Path) -> None:
    path = write("iden_split.txt", "1 id1/v/1.wav", "3 id1/v/1.wav")
    with pytest.raises(m2dx.AudioError, match=f"^{re.escape(str(path))}:2: each file must be listed once"):
        VoxCeleb1(path=tmp_path).clips()


def test_a_list_without_rows_is_told(write: Any, tmp_path: Path) -> None:
    write("meta/esc50.csv", ESC50_HEADER)
    with pytest.raises(m2dx.AudioError, match=r"esc50\.csv must have a row for each clip, but has none"):
        ESC50(path=tmp_path).clips()


@pytest.mark.parametrize(
    ("cls", "file", "header", "column"),
    [
        (ESC50, "meta/esc50.csv", "filename,fold,target,category,esc10,take", "src_file"),
        (UrbanSound8K, "metadata/UrbanSound8K.csv", "slice_file_name,start,fold,class", "fsID"),
        (CREMAD, "cremad.csv", "file,split", "file_name"),
        (Surge, "dataset_surge_tone_splits.csv", "tone,part", "split"),
    ],
)
def test_a_column_that_is_not_there_is_told(
    write: Any, tmp_path: Path, cls: Any, file: str, header: str, column: str
) -> None:
    write("AudioWAV/1001_DFA_ANG_XX.wav")
    write("preset/21.ogg")
    path = write(file, header, "a,1")
    with pytest.raises(
        m2dx.AudioError, match=f"^{re.escape(str(path))}:1: there must be a column `{column}`"
    ):
        cls(path=tmp_path).clips()


@pytest.mark.parametrize(
    ("cls", "names"),
    [
        (ESC50, "meta/esc50.csv"),
        (UrbanSound8K, "metadata/UrbanSound8K.csv"),
        (SpeechCommands, "validation_list.txt, testing_list.txt"),
        (VoxCeleb1, "iden_split.txt"),
        (CREMAD, "AudioWAV"),
        (NSynth, "nsynth-train/examples.json, nsynth-valid/examples.json, nsynth-test/examples.json"),
        (NSynthPitch, "nsynth-train/examples.json, nsynth-valid/examples.json, nsynth-test/examples.json"),
    ],
)
def test_files_that_are_not_there_are_named(cls: Any, names: str, tmp_path: Path) -> None:
    with pytest.raises(m2dx.AudioError, match=f"{names} in it, but {tmp_path} lacks {names}$"):
        cls(path=tmp_path).clips()


def test_a_path_that_is_no_folder_is_told(write: Any, tmp_path: Path) -> None:
    with pytest.raises(
        m2dx.AudioError, match=r"^`path` must be the task's folder, but \S*nowhere is missing$"
    ):
        GTZAN(path=tmp_path / "nowhere").clips()
    file = write("a.wav")
    with pytest.raises(m2dx.AudioError, match=r"with meta/esc50\.csv in it, but \S*a\.wav is a file$"):
        ESC50(path=file).clips()


def test_spcv2_trains_on_what_no_list_names(write: Any, tmp_path: Path) -> None:
    write("validation_list.txt", "yes/aa_nohash_0.wav")
    write("testing_list.txt", "no/bb_nohash_0.wav", "no/gone_nohash_0.wav")
    for name in ("yes/aa_nohash_0", "yes/cc_nohash_1", "no/bb_nohash_0", "_background_noise_/pink"):
        write(f"{name}.wav")
    write("no/dd_nohash_0.webm")
    dataset = SpeechCommands(path=tmp_path)
    assert as_rows(dataset, tmp_path) == [
        ("no/bb_nohash_0.wav", ("no",), "test", "bb"),
        ("yes/aa_nohash_0.wav", ("yes",), "valid", "aa"),
        ("yes/cc_nohash_1.wav", ("yes",), "train", "cc"),
        ("no/gone_nohash_0.wav", ("no",), "test", "gone"),
    ]
    unreadable, absent = told(dataset)
    assert unreadable.startswith("1 .webm files in")
    assert absent == f"1 of 4 files do not exist, e.g. {tmp_path}/no/gone_nohash_0.wav"


def test_wrong_lines_of_lists_of_files_are_told(write: Any, tmp_path: Path) -> None:
    write("yes/aa_nohash_0.wav")
    write("validation_list.txt", "yes/aa_nohash_0.wav")
    path = write("testing_list.txt", "yes/bb_nohash_0.wav", "cc_nohash_0.wav", "yes/aa_nohash_0.wav")
    with pytest.raises(m2dx.AudioError) as error:
        SpeechCommands(path=tmp_path).clips()
    assert str(error.value).splitlines() == [
        f"{path}:2: a line must be LABEL/FILE, but is 'cc_nohash_0.wav'",
        f"{path}:3: each file must be listed once, but yes/aa_nohash_0.wav is in valid already",
    ]


def test_spcv2_without_audio_is_told(write: Any, tmp_path: Path) -> None:
    write("validation_list.txt", "yes/aa_nohash_0.wav")
    write("testing_list.txt", "yes/bb_nohash_0.wav")
    with pytest.raises(
        m2dx.AudioError, match=f"folders of labels with audio files in {tmp_path}, but there are none"
    ):
        SpeechCommands(path=tmp_path).clips()


def test_gtzan_without_lists_and_torchaudio(
    write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("genres/blues/blues.00029.wav")
    for name in ("torchaudio", "torchaudio.datasets"):  # which another test may have imported
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        m2dx.AudioError, match=r"must have train_filtered\.txt, .* or torchaudio must be installed"
    ):
        GTZAN(path=tmp_path).clips()


def test_gtzan_without_lists_has_the_fault_filtered_split(write: Any, tmp_path: Path) -> None:
    pytest.importorskip("torchaudio")
    for name in ("blues/blues.00029", "disco/disco.00038", "rock/rock.00010"):
        write(f"genres/{name}.wav")
    dataset = GTZAN(path=tmp_path)
    assert dataset.missing() == [dataset.missing()[0]]  # the absent files; the numbers are the published ones
    assert dataset.missing()[0].startswith("928 of 930 files do not exist")
    assert as_rows(dataset, tmp_path)[:2] == [
        ("genres/blues/blues.00029.wav", ("blues",), "train", None),
        ("genres/rock/rock.00010.wav", ("rock",), "test", None),
    ]
    assert len(dataset.label_names()) == 10


def test_gtzan_with_lists_has_theirs(write: Any, tmp_path: Path) -> None:
    for name in ("blues/blues.00000.wav", "blues/blues.00001.au", "rock/rock.00010.wav"):
        write(f"genres_original/{name}")
    write("train_filtered.txt", "blues/blues.00000.wav")
    write("valid_filtered.txt", "blues/blues.00001.wav")
    with pytest.raises(m2dx.AudioError, match=r"lacks test_filtered\.txt$"):
        GTZAN(path=tmp_path).clips()
    write("test_filtered.txt", "rock/rock.00010.wav")
    dataset = GTZAN(path=tmp_path)
    assert [(clip.path.name, clip.split) for clip in dataset.clips()] == [
        ("blues.00000.wav", "train"),
        ("blues.00001.au", "valid"),
        ("rock.00010.wav", "test"),
    ]
    assert told(dataset) == []


def test_gtzan_needs_the_folders_of_genres(tmp_path: Path) -> None:
    with pytest.raises(
        m2dx.AudioError, match=f"with genres or genres_original in it, but {tmp_path} has none"
    ):
        GTZAN(path=tmp_path).clips()


def test_voxforge_is_read_by_language_and_from_a_copy_of_the_server(write: Any, tmp_path: Path) -> None:
    write("de/guenter-20140127-bqg/wav/de5-001.wav")
    write("www.repository.voxforge1.org/downloads/ru/Trunk/Audio/Main/16kHz_16bit/anna-2010-x/wav/ru_1.wav")
    write("de/guenter-20140127-bqg/wav-loose.wav")
    write("xx/someone-2010-x/wav/1.wav")
    dataset = VoxForge(path=tmp_path)
    assert [(clip.path.name, *clip.labels, clip.group) for clip in dataset.clips()] == [
        ("de5-001.wav", "de", "guenter"),
        ("ru_1.wav", "ru", "anna"),
    ]
    others, division = told(dataset)
    assert others.startswith("2 files are not LANGUAGE/USER-DATE-ID/wav/*.wav and left out, e.g. ")
    assert division.endswith("voxforge.csv the users are divided 70/10/20 by m2dx, not as in the paper")


def test_surge_reads_the_keys_of_each_preset(write: Any, tmp_path: Path) -> None:
    for name in ("bass-velocity64/21", "bass-velocity64/note108", "lead-velocity64/60", "lead-velocity64/20"):
        write(f"{name}.ogg")
    write("._hidden.ogg")
    dataset = Surge(path=tmp_path)
    assert [(*clip.labels, clip.group) for clip in dataset.clips()] == [
        ("21", "bass-velocity64"),
        ("108", "bass-velocity64"),
        ("60", "lead-velocity64"),
    ]
    assert dataset.label_names() == ("21", "60", "108")
    assert told(dataset)[0].startswith(
        "1 files are not PRESET/NOTE.ogg with NOTE from 21 to 108 and left out"
    )


@pytest.mark.parametrize("cls", [CREMAD, VoxForge, Surge])
def test_no_file_of_the_task_is_an_error(write: Any, tmp_path: Path, cls: Any) -> None:
    write("AudioWAV/1001_DFA_BOO_XX.wav")
    with pytest.raises(m2dx.AudioError, match=r"^there must be files \S+ .*in \S+, but there are none$"):
        cls(path=tmp_path).clips()
