"""Music: genres, instrument families and pitches."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath

import m2dx
from m2dx_tasks.dataset import TABLE, TaskDataset
from m2dx_tasks.groups import DividedTask, GroupedFiles, Named, SplitList
from m2dx_tasks.lists import LabelFolders
from m2dx_tasks.nsynth import NSynthNotes

PIANO = range(21, 109)  # MIDI numbers of the 88 keys
_NSYNTH_FILES = """\
nsynth/
  nsynth-train/examples.json   a description of each note: pitch, instrument_str, instrument_family_str, ...
  nsynth-train/audio/bass_synthetic_033-022-050.wav
  nsynth-valid/...
  nsynth-test/..."""
_NSYNTH_FROM = "https://magenta.tensorflow.org/datasets/nsynth (json/wav); CC BY 4.0"


def _filtered_lists() -> Mapping[str, list[str]]:
    """The fault-filtered lists as torchaudio has them, as GENRE/FILE."""
    try:
        from torchaudio.datasets import gtzan
    except (ImportError, OSError) as error:  # OSError: one that was built for another torch
        raise m2dx.AudioError(
            "GTZAN's folder must have train_filtered.txt, valid_filtered.txt and test_filtered.txt, or torchaudio must "
            f"be installed, which has these lists, but it cannot be imported ({error})"
        ) from error
    lists = {"train": gtzan.filtered_train, "valid": gtzan.filtered_valid, "test": gtzan.filtered_test}
    return {
        split: [f"{name.partition('.')[0]}/{name}.wav" for name in names] for split, names in lists.items()
    }


class GTZAN(TaskDataset):
    """GTZAN (Tzanetakis and Cook, 2002): excerpts of 30 s, 10 genres, the fault-filtered split (Kereliuk et al., 2015).

    930 of the 1000 excerpts are in it; the others are repeated or distorted, and left out. The artists are not known
    file by file, so that clips have no group. Raises `AudioError`, with file and line, for lists of another layout.

    Options:
        path: folder with genres, and with train_filtered.txt and so on for lists other than those of torchaudio
    """

    name = "gtzan"
    task = m2dx.TaskInfo(
        title="GTZAN (fault-filtered)",
        unit_seconds=30.0,
        num_classes=10,
        metric="accuracy",
        division="train, valid, test",
        source=TABLE,
        variable="GTZAN",
        layout="""\
GTZAN/
  genres/blues/blues.00000.wav
  train_filtered.txt    and valid_filtered.txt, test_filtered.txt: lines such as blues/blues.00029.wav;
                        without these files, the same lists are those of torchaudio, if it is installed""",
        get="http://marsyas.info/downloads/datasets.html (genres.tar.gz), without a stated licence. The lists are in\n"
        "https://github.com/jongpillee/music_dataset_split",
    )
    counts = {"train": 443, "valid": 197, "test": 290}
    layout = LabelFolders(
        lists={split: f"{split}_filtered.txt" for split in ("train", "valid", "test")},
        others=None,
        group=lambda name: None,
        folders=("genres", "genres_original"),
        built_in=_filtered_lists,
    )


class NSynth(TaskDataset):
    """NSynth (Engel et al., 2017), instrument family: 305,979 notes of 4 s, 11 classes, the official split.

    A clip's group is its instrument; those of the training part are in no other. Raises `AudioError`, with the file
    and the note, for a description of another layout.

    Options:
        path: folder with nsynth-train, nsynth-valid and nsynth-test
    """

    name = "nsynth"
    task = m2dx.TaskInfo(
        title="NSynth (instrument family)",
        unit_seconds=4.0,
        num_classes=11,
        metric="accuracy",
        division="train, valid, test",
        source=TABLE,
        variable="NSYNTH",
        layout=_NSYNTH_FILES,
        get=_NSYNTH_FROM,
    )
    counts = {"train": 289205, "valid": 12678, "test": 4096}
    layout = NSynthNotes("instrument_family_str")


class NSynthPitch(TaskDataset):
    """NSynth (Engel et al., 2017), pitch: the notes of the 88 piano keys (MIDI 21 to 108), the official split.

    HEAR 2021, whose numbers MSM-MAE reports, takes notes of 5 and of 50 hours of it; this is the whole, and not
    comparable with those. Notes outside of the keys are left out, as there. Raises `AudioError`, with the file and the
    note, for a description of another layout.

    Options:
        path: folder with nsynth-train, nsynth-valid and nsynth-test
    """

    name = "nsynth_pitch"
    task = m2dx.TaskInfo(
        title="NSynth (pitch)",
        unit_seconds=4.0,
        num_classes=88,
        metric="accuracy",
        division="train, valid, test",
        source="MSM-MAE, table 4, with a part of the notes (HEAR 2021)",
        variable="NSYNTH",
        layout=_NSYNTH_FILES,
        get=_NSYNTH_FROM,
    )
    layout = NSynthNotes("pitch", PIANO)


def _surge_name(path: PurePath) -> Named | None:
    digits = "".join(character for character in path.stem if character.isdecimal())
    if len(path.parts) != 2 or not digits or int(digits) not in PIANO:
        return None
    return Named(str(int(digits)), path.parts[0], path.parts[0])


class Surge(DividedTask):
    """Pitch Audio Dataset of the Surge synthesizer (Turian et al., 2021): 2084 presets, each with the 88 piano keys.

    A clip's label is its MIDI number, its group the preset. There is no official split. That of M2D-X (1692, 195 and
    197 presets) is used where its list is there; without it the presets are divided 80/10/10. Raises `AudioError` where
    no file is named as in the layout, and, with file and line, for a list of another layout.

    Options:
        path: folder with a folder for each preset
        split_list: list of the split (tone, split); default dataset_surge_tone_splits.csv in `path`; without it presets
            are divided
    """

    name = "surge"
    task = m2dx.TaskInfo(
        title="Surge (pitch)",
        unit_seconds=4.0,
        num_classes=88,
        metric="accuracy",
        division="train, valid, test",
        source=TABLE,
        variable="SURGE",
        layout="""\
surge/
  dataset_surge_tone_splits.csv   the paper's split: tone, split; without it presets are divided 80/10/10
  surge-patches-3rdparty-Bluelight-Basses-Bass-1-velocity64/21.ogg   a folder for each preset, MIDI 21 to 108""",
        get="https://zenodo.org/record/4677097 (surge-velocity64-2K.tar); CC BY 4.0. The paper's split is of\n"
        "https://github.com/nttcslab/eval-audio-repr (evar/predefined)",
    )
    counts = {"train": 148896, "valid": 17160, "test": 17336}
    layout = GroupedFiles(
        folder=".",
        naming="PRESET/NOTE.ogg with NOTE from 21 to 108",
        name=_surge_name,
        groups="presets",
        shares=(0.8, 0.1, 0.1),
        split_list=SplitList("dataset_surge_tone_splits.csv", "tone", lambda tone: tone),
    )
