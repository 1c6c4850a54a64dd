"""The six tasks of SUPERB that M2D-X is scored on (IV-D, table X): their corpora, problems and settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import m2dx

FOLDS = 5
"""Sessions of IEMOCAP: each is the test part once."""


@dataclass(frozen=True)
class SuperbTask:
    """A task as both interfaces of s3prl know it."""

    name: str
    title: str
    corpus: str
    required: tuple[str, ...]  # files and folders that must be in the data's folder
    problem: str  # class in s3prl.problem
    downstream: str  # folder in s3prl/downstream
    config: str  # its settings, in that folder
    metric: str  # of the record
    result: str  # name of the score in s3prl.problem's result.yaml
    lr: float  # of the published scripts; the paper gives none
    total_steps: int  # of SUPERB


_VOXCELEB = ("dev/wav", "test/wav")

TASKS = {
    task.name: task
    for task in (
        SuperbTask(
            "pr",
            "phoneme recognition",
            "LibriSpeech",
            ("SPEAKERS.TXT", "train-clean-100", "dev-clean", "test-clean"),
            "SuperbPR",
            "ctc",
            "libriphone.yaml",
            "per",
            "per",
            1e-3,
            100_000,
        ),
        SuperbTask(
            "ks",
            "keyword spotting",
            "Speech Commands V1",
            ("speech_commands_v0.01/_background_noise_", "speech_commands_test_set_v0.01"),
            "SuperbKS",
            "speech_commands",
            "config.yaml",
            "accuracy",
            "accuracy",
            1e-4,
            200_000,
        ),
        SuperbTask(
            "ic",
            "intent classification",
            "Fluent Speech Commands",
            ("data/train_data.csv", "data/valid_data.csv", "data/test_data.csv", "wavs/speakers"),
            "SuperbIC",
            "fluent_commands",
            "config.yaml",
            "accuracy",
            "accuracy",
            1e-3,
            200_000,
        ),
        SuperbTask(
            "sid",
            "speaker identification",
            "VoxCeleb1",
            _VOXCELEB,
            "SuperbSID",
            "voxceleb1",
            "config.yaml",
            "accuracy",
            "accuracy",
            1e-3,
            200_000,
        ),
        SuperbTask(
            "er",
            "emotion recognition",
            "IEMOCAP",
            tuple(f"Session{number}" for number in range(1, FOLDS + 1)),
            "SuperbER",
            "emotion",
            "config.yaml",
            "accuracy",
            "accuracy",
            1e-5,
            30_000,
        ),
        SuperbTask(
            "asv",
            "automatic speaker verification",
            "VoxCeleb1",
            _VOXCELEB,
            "SuperbASV",
            "sv_voxceleb1",
            "config.yaml",
            "eer",
            "EER",
            5e-5,
            200_000,
        ),
    )
}


def check_data(task: SuperbTask, folder: Path) -> None:
    """Raises AudioError that names what of the corpus is missing from a folder."""
    if not folder.is_dir():
        raise m2dx.AudioError(f"--data must be the folder of {task.corpus}, but {folder} is no folder")
    missing = [name for name in task.required if not (folder / name).exists()]
    if missing:
        raise m2dx.AudioError(
            f"--data must be the folder of {task.corpus} in its official layout, but {folder} lacks "
            f"{', '.join(missing)}; the README of m2dx-superb shows the layout"
        )


def corpus_arguments(task: SuperbTask, folder: Path, *, fold: int | None) -> dict[str, object]:
    """The part `prepare_data` of the settings of s3prl.problem."""
    if task.name == "ks":
        train, test = task.required[0].partition("/")[0], task.required[1]
        return {"gsc1": str(folder / train), "gsc1_test": str(folder / test)}
    if task.name == "er":
        assert fold is not None
        return {"iemocap": str(folder), "test_fold": fold - 1}
    return {"dataset_root": str(folder)}
