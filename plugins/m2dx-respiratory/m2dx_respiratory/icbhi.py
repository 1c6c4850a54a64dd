"""ICBHI 2017 (the Respiratory Sound Database) as data set, from its official files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import m2dx
from m2dx_respiratory.findings import Findings
from m2dx_respiratory.icbhi_files import (
    LABELS,
    SPLIT_FILE,
    match_names,
    name_parts,
    normal_form,
    read_annotation,
    read_split,
)
from m2dx_respiratory.listing import (
    Recording,
    RespiratoryDataset,
    compare_with_official,
    refuse_nothing,
    stretch_clips,
)

FOLDER = "ICBHI_final_database"
OFFICIAL_COUNTS = {
    "recordings": {"train": 539, "test": 381},
    "cycles": {"train": 4142, "test": 2756},
}
"""Clips of the official split (M2D-X, IV-E)."""


class IcbhiDataset(RespiratoryDataset):
    """ICBHI 2017: respiratory sounds of 126 patients, whole recordings or the annotated respiratory cycles.

    Splits are the official train and test, the group is the patient. Two patients (156, 218) are in both official
    splits, so that an evaluation on cycles needs `shared_groups: warn`. Whole recordings have no labels; cycles are
    normal, crackle, wheeze, or both.

    Files that do not fit are counted, with their names (and lines), by `missing()` and in warnings: recordings without
    annotation or not in the split file, annotation files with wrong lines, cycles past the end of their recording, and
    clips fewer or more than the official 539 + 381 recordings and 4142 + 2756 cycles. Raises `AudioError` where nothing
    can be used, or the split file is missing or wrong.

    Options:
        path: the official folder ICBHI_final_database with *.wav and *.txt, or the folder that it is in
        unit: recordings (for pre-training) or cycles (for evaluation)
        split_file: the official ICBHI_challenge_train_test.txt; default: searched in `path` and beside the recordings
    """

    name = "icbhi"

    def __init__(
        self,
        *,
        path: Path,
        unit: Literal["recordings", "cycles"] = "recordings",
        split_file: Path | None = None,
    ) -> None:
        self.path, self.unit, self.split_file = path, unit, split_file

    def label_names(self) -> tuple[str, ...]:
        """The four classes of cycles; none for recordings."""
        return LABELS if self.unit == "cycles" else ()

    def search(self, findings: Findings) -> list[m2dx.Clip]:
        """Clips by recording, those of a recording in the order of its annotation."""
        folder, files = self._recording_files()
        annotations = _annotations(folder)
        recordings = _listed(files, self._split_path(folder), annotations, findings)
        if self.unit == "cycles":
            lacking = "recordings without annotation (.txt beside the .wav), left out"
            clips = stretch_clips(recordings, read_annotation, findings, stretches="cycles", lacking=lacking)
            _report_stray_annotations(annotations, files, findings)
        else:
            clips = [recording.whole() for recording in recordings]
        refuse_nothing(clips, f"{self.unit} of ICBHI 2017", folder, findings)
        compare_with_official(clips, OFFICIAL_COUNTS[self.unit], self.unit, findings)
        return clips

    def _recording_files(self) -> tuple[Path, tuple[Path, ...]]:
        """The folder with the recordings, and these."""
        for folder in (self.path, self.path / FOLDER):
            if folder == self.path or folder.is_dir():
                files = m2dx.list_audio(folder, extensions=("wav",), recursive=False).readable
                if files:
                    return folder, files
        raise m2dx.AudioError(
            f"`path` must be the folder of the official recordings (101_1b1_Al_sc_Meditron.wav, ...), or the one that "
            f"{FOLDER} is in, but there are no .wav files in {self.path}"
        )

    def _split_path(self, folder: Path) -> Path:
        if self.split_file is not None:
            return self.split_file
        places = dict.fromkeys((self.path, folder, self.path.parent, folder.parent))
        for place in places:
            if (place / SPLIT_FILE).is_file():
                return place / SPLIT_FILE
        raise m2dx.AudioError(
            f"the official split file {SPLIT_FILE} must be in one of {', '.join(map(str, places))}, but is in none. "
            "It is a download of its own: put it there, or name it with `split_file`"
        )


def _listed(
    files: tuple[Path, ...], split_path: Path, annotations: Mapping[str, Path], findings: Findings
) -> list[Recording]:
    split = read_split(split_path)
    stems: dict[str, Path] = {}
    for file in files:
        stem = normal_form(file.stem)
        if name_parts(stem) is None:
            findings.add("recordings not named patient_index_location_mode_device, left out", file)
        elif stem in stems:
            findings.add("second files of one recording, left out", file)
        else:
            stems[stem] = file
    matched = match_names(stems, split)
    recordings = []
    for stem, file in stems.items():
        listed = matched.get(stem)
        if listed is None:
            findings.add(f"recordings not in the split file {split_path}, left out", file)
            continue
        if listed != stem:
            findings.add(
                "recordings matched with the split file by the first four parts of their name",
                f"{file.name} (listed as {listed})",
            )
        recordings.append(Recording(file, annotations.get(stem), stem.split("_")[0], split[listed]))
    for name in sorted(split.keys() - set(matched.values())):
        findings.add(f"recordings in the split file {split_path} without a .wav file", name)
    return recordings


def _annotations(folder: Path) -> dict[str, Path]:
    """The texts that are named as recordings, by name; the folder's others (its description) are not."""
    texts = ((normal_form(path.stem), path) for path in sorted(folder.glob("*.txt"), reverse=True))
    return {stem: path for stem, path in texts if name_parts(stem) is not None}  # the first of one name stays


def _report_stray_annotations(
    annotations: Mapping[str, Path], files: tuple[Path, ...], findings: Findings
) -> None:
    stems = {normal_form(file.stem) for file in files}
    for stem in sorted(annotations.keys() - stems):
        findings.add("annotations without a recording (.wav beside the .txt)", annotations[stem])
