"""SPRSound (the SJTU paediatric respiratory sound database) as data set, from its official files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import m2dx
from m2dx_respiratory.annotations import Annotation
from m2dx_respiratory.findings import Findings
from m2dx_respiratory.listing import (
    Recording,
    RespiratoryDataset,
    compare_with_official,
    refuse_nothing,
    stretch_clips,
)
from m2dx_respiratory.sprsound_files import (
    BINARY,
    FOLDER,
    PARTS,
    TYPES,
    list_annotations,
    part_folder,
    patient_of,
    read_annotation,
)

OFFICIAL_COUNTS = {"train": 1949, "inter": 355, "intra": 379, "both": 734}
"""Recordings of the training part and of the halves of the test part."""


class SprSoundDataset(RespiratoryDataset):
    """SPRSound, BioCAS 2022 part: respiratory sounds of 292 children, whole recordings or the annotated events.

    Splits are the official train and test; the group is the patient. The test part has two official halves: patients
    who are not in the training part (inter; M2D-X, IV-E), and patients who are (intra, which needs
    `shared_groups: warn`). Whole recordings have no labels. Recordings of poor quality have no events.

    Files that do not fit are counted, with their names (and places in the JSON), by `missing()` and in warnings:
    recordings without annotation, annotations without recording, files with wrong entries, events past the end of
    their recording, and other numbers of recordings than the official 1949 + 355 (inter) + 379 (intra). Raises
    `AudioError` where the training part is missing or nothing can be used.

    Options:
        path: the folder with train2022_wav, train2022_json, test2022_wav, test2022_json (first release: train_wav, ...)
            or the one that BioCAS2022 is in
        unit: recordings (for pre-training) or events (for evaluation)
        test: half of the test part: inter, intra, or both
        labels: types (Normal and six adventitious sounds) or binary (Normal, Adventitious)
    """

    name = "sprsound"

    def __init__(
        self,
        *,
        path: Path,
        unit: Literal["recordings", "events"] = "recordings",
        test: Literal["inter", "intra", "both"] = "inter",
        labels: Literal["types", "binary"] = "types",
    ) -> None:
        self.path, self.unit, self.test, self.labels = path, unit, test, labels

    def label_names(self) -> tuple[str, ...]:
        """The classes of events; none for recordings."""
        if self.unit == "recordings":
            return ()
        return TYPES if self.labels == "types" else BINARY

    def search(self, findings: Findings) -> list[m2dx.Clip]:
        """Clips by recording, the training part first; those of a recording in the order of its annotation."""
        recordings = [*self._training_part(findings), *self._test_part(findings)]
        if self.unit == "events":
            folder = self._required("train annotations")  # test recordings are found by their annotations
            lacking = f"recordings without annotation ({folder}/*.json), left out"
            clips = stretch_clips(recordings, self._read, findings, stretches="events", lacking=lacking)
        else:
            clips = [recording.whole() for recording in recordings]
        refuse_nothing(clips, f"{self.unit} of SPRSound", self.path, findings)
        official = {"train": OFFICIAL_COUNTS["train"], "test": OFFICIAL_COUNTS[self.test]}
        compare_with_official(recordings, official, "recordings", findings)
        return clips

    def _training_part(self, findings: Findings) -> Iterator[Recording]:
        audio = self._required("train audio")
        annotations = self._required("train annotations") if self.unit == "events" else audio
        files = m2dx.list_audio(audio, extensions=("wav",), recursive=False).readable
        if not files:
            findings.remark(f"there are no .wav files in {audio}")
        for file in files:
            patient = _patient(file, findings)
            if patient is not None:
                annotation = annotations / f"{file.stem}.json"
                yield Recording(file, annotation if annotation.is_file() else None, patient, "train")
        stems = {file.stem for file in files}
        for annotation in list_annotations(annotations):
            if annotation.stem not in stems:
                _no_recording(annotation, audio, findings)

    def _test_part(self, findings: Findings) -> Iterator[Recording]:
        """The recordings that the halves' annotations name: the audio of both is in one folder."""
        audio = part_folder(self.path, "test audio")
        folders = {half: part_folder(self.path, f"{half} annotations") for half in ("inter", "intra")}
        for half in folders if self.test == "both" else (self.test,):
            folder = folders[half]
            if folder is None or audio is None:
                names = PARTS["test audio" if audio is None else f"{half} annotations"]
                findings.remark(
                    f"no {half} half of the test part: there is no folder {' or '.join(names)} in {self.path} "
                    f"(or its {FOLDER})"
                )
                continue
            for annotation in list_annotations(folder):
                file = audio / f"{annotation.stem}.wav"
                patient = _patient(file, findings) if file.is_file() else None
                if patient is not None:
                    yield Recording(file, annotation, patient, "test")
                elif not file.is_file():
                    _no_recording(annotation, audio, findings)
        if audio is not None:
            named = {file.stem for folder in folders.values() if folder for file in list_annotations(folder)}
            for file in m2dx.list_audio(audio, extensions=("wav",), recursive=False).readable:
                if file.stem not in named:
                    findings.add("test recordings without annotation in either half, left out", file)

    def _required(self, part: str) -> Path:
        folder = part_folder(self.path, part)
        if folder is None:
            what = "is a file" if self.path.is_file() else "has none" if self.path.exists() else "is missing"
            raise m2dx.AudioError(
                f"`path` must be a folder with {' or '.join(PARTS[part])}, or the one that {FOLDER} is in, "
                f"but {self.path} {what}"
            )
        return folder

    def _read(self, annotation: Path) -> Annotation:
        """The events of a recording, with the labels of this data set."""
        found = read_annotation(annotation)
        if self.labels == "types":
            return found
        joined = (replace(event, label=BINARY[event.label != "Normal"]) for event in found.stretches)
        return replace(found, stretches=tuple(joined))


def _patient(file: Path, findings: Findings) -> str | None:
    patient = patient_of(file.stem)
    if patient is None:
        findings.add("recordings not named patient_age_gender_location_number, left out", file)
    return patient


def _no_recording(annotation: Path, audio: Path, findings: Findings) -> None:
    findings.add(f"annotations without a recording (.wav in {audio})", annotation)
