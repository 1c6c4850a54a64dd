"""Writes small data sets in the official layouts, with synthetic breath sounds, for trials and tests.

`python -m m2dx_respiratory.sample FOLDER [--clips N]` writes FOLDER/icbhi and FOLDER/sprsound.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import soundfile
from numpy.typing import NDArray

from m2dx.testing.samples import SoundFiles
from m2dx_respiratory.icbhi_files import SPLIT_FILE, read_annotation
from m2dx_respiratory.sprsound_files import PARTS, TYPES

DISTINCT = 16
"""Recordings with audio of their own; further ones are links to these."""
SAMPLE_RATE = 8000  # Hz
_CYCLE_SECONDS = (1.6, 1.2, 2.0, 1.4)
_FLAGS = ((False, False), (True, False), (False, True), (True, True))  # crackle, wheeze
_DEVICES = ("AKGC417L", "LittC2SE", "Litt3200", "Meditron")
_SITES = ("Al", "Ar", "Pl", "Pr", "Ll", "Lr", "Tc")
_CRACKLING = {"Coarse Crackle", "Fine Crackle", "Wheeze+Crackle"}
_WHEEZING = {"Rhonchi", "Wheeze", "Stridor", "Wheeze+Crackle"}


@dataclass(frozen=True)
class _Breath:
    """A stretch of a recording, in samples, and what is heard in it."""

    first: int
    end: int
    crackle: bool
    wheeze: bool


class _Recorder(SoundFiles):
    """Writes breaths; recordings beyond the first few are links to these."""

    def __init__(self, folder: Path, seed: int) -> None:
        super().__init__(folder, SAMPLE_RATE)
        self.random = np.random.default_rng(seed)

    def write(self, path: Path, number: int, num_samples: int, breaths: Sequence[_Breath]) -> None:
        self.add(path.relative_to(self.folder), number % DISTINCT, lambda: self._wav(num_samples, breaths))

    def _wav(self, num_samples: int, breaths: Sequence[_Breath]) -> NDArray[np.float64]:
        """Faint noise, and in each breath a noise that swells, clicks for crackles, a tone for wheezes."""
        wav = 0.002 * self.random.standard_normal(num_samples)
        for breath in breaths:
            time = np.arange(breath.end - breath.first) / SAMPLE_RATE
            swell = np.sin(np.pi * time / time[-1]) ** 2
            sound = 0.05 * self.random.standard_normal(len(time)) * swell
            if breath.wheeze:
                sound += 0.1 * np.sin(2 * np.pi * self.random.uniform(350, 450) * time) * swell
            if breath.crackle:
                clicks = np.zeros(len(time))
                clicks[self.random.integers(0, len(time), size=12)] = 0.5
                sound += np.convolve(clicks, np.exp(-np.arange(80) / 12))[: len(time)]
            wav[breath.first : breath.end] += sound
        return np.clip(wav, -1.0, 1.0)


def write_sample(folder: Path, *, clips: int = 24, seed: int = 0) -> Path:
    """Writes `icbhi` and `sprsound` into the folder, with this number of recordings each; gives the folder."""
    write_icbhi(folder / "icbhi", clips=clips, seed=seed)
    write_sprsound(folder / "sprsound", clips=clips, seed=seed)
    return folder


def write_icbhi(folder: Path, *, clips: int = 24, seed: int = 0) -> Path:
    """Writes recordings in ICBHI 2017's layout, with four cycles each, one of every class; gives the folder.

    Two of three recordings are for training. As in the official files, one patient (156) is in both splits, and one
    recording, the last, has another device in its name than in the split file.
    """
    inner = folder / "ICBHI_final_database"
    inner.mkdir(parents=True, exist_ok=True)
    recorder = _Recorder(folder, seed)
    listed = []
    for number in range(clips):
        split = "test" if number % 3 == 2 else "train"
        patient = 156 if number in (1, 2) else 201 + number // 6 * 2 + (split == "test")
        place = f"{patient}_{number + 1}b1_{_SITES[number % 7]}"
        device, other = _DEVICES[number % 4], _DEVICES[(number + 1) % 4]
        mode = "sc" if device == "Meditron" else "mc"
        _write_icbhi_recording(inner, f"{place}_{mode}_{device}", number, recorder)
        listed.append(f"{place}_{mode}_{other if number == clips - 1 else device}\t{split}\r\n")
    (folder / SPLIT_FILE).write_text("".join(sorted(listed)), encoding="utf-8", newline="")
    return folder


def _write_icbhi_recording(folder: Path, name: str, number: int, recorder: _Recorder) -> None:
    begin, rows, breaths = 0.036, [], []
    for step in range(4):
        kind = (number % DISTINCT + step) % 4
        end = round(begin + _CYCLE_SECONDS[kind], 3)
        crackle, wheeze = _FLAGS[kind]
        rows.append(f"{begin:g}\t{end:g}\t{crackle:d}\t{wheeze:d}\n")
        breaths.append(_Breath(round(begin * SAMPLE_RATE), round(end * SAMPLE_RATE), crackle, wheeze))
        begin = end
    (folder / f"{name}.txt").write_text("".join(rows), encoding="utf-8", newline="")
    recorder.write(folder / f"{name}.wav", number, breaths[-1].end, breaths)


def write_sprsound(
    folder: Path, *, clips: int = 24, layout: Literal["current", "first"] = "current", seed: int = 0
) -> Path:
    """Writes recordings in SPRSound's layout, with two or three events each; gives the folder.

    Half of the recordings are for training, a quarter each is in the inter and the intra half of the test part; one of
    16 is of poor quality and has no events. `layout`: the folders of the current release (BioCAS2022/train2022_wav,
    ...), or of the first one (train_wav, ...).
    """
    top = folder / "BioCAS2022" if layout == "current" else folder
    folders = {part: top / names[layout == "first"] for part, names in PARTS.items()}
    for path in folders.values():
        path.mkdir(parents=True, exist_ok=True)
    recorder = _Recorder(folder, seed)
    for number in range(clips):
        part = ("train", "inter", "train", "intra")[number % 4]
        patient = 41000000 + number // 4 + (5000 if part == "inter" else 0)
        name = f"{patient}_{2 + number // 4 % 12}.{number // 4 % 10}_{number // 4 % 2}_p{1 + number % 4}_{100 + number}"
        types = [TYPES[(number % DISTINCT + 2 * step) % 7] for step in range(2 + number % 2)]
        audio = folders["train audio" if part == "train" else "test audio"] / f"{name}.wav"
        annotation = (
            folders["train annotations" if part == "train" else f"{part} annotations"] / f"{name}.json"
        )
        _write_sprsound_recording(
            audio, annotation, number, [] if number % DISTINCT == DISTINCT - 1 else types, recorder
        )
    return folder


def _write_sprsound_recording(
    audio: Path, annotation: Path, number: int, types: Sequence[str], recorder: _Recorder
) -> None:
    events, breaths = [], []
    for step, kind in enumerate(types):
        begin, end = 200 + 1250 * step, 1300 + 1250 * step  # milliseconds
        events.append({"start": str(begin), "end": str(end), "type": kind})
        first, last = begin * SAMPLE_RATE // 1000, end * SAMPLE_RATE // 1000
        breaths.append(_Breath(first, last, kind in _CRACKLING, kind in _WHEEZING))
    sounds = [name for name, kinds in (("CAS", _WHEEZING), ("DAS", _CRACKLING)) if kinds.intersection(types)]
    quality = "Poor Quality" if not types else " & ".join(sounds) or "Normal"
    content = {"record_annotation": quality, "event_annotation": events}
    annotation.write_text(json.dumps(content), encoding="utf-8")
    recorder.write(audio, number, 4 * SAMPLE_RATE, breaths)


def write_icbhi_audio(annotations: Path, folder: Path, *, sample_rate: int = 4000) -> Path:
    """Writes the official annotations with noise of their durations, and the split file; gives the folder.

    `annotations` is a folder with annotations.zip (or the *.txt files) and the split file. The 920 recordings take 150
    MB at 4000 Hz.
    """
    inner = folder / "ICBHI_final_database"
    inner.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for name, content in _official_texts(annotations):
        path = inner / name
        path.write_bytes(content)
        last = max(cycle.end for cycle in read_annotation(path).stretches)
        noise = 0.1 * random.standard_normal(math.ceil(last * sample_rate))
        soundfile.write(path.with_suffix(".wav"), noise, sample_rate, subtype="PCM_16")
    shutil.copyfile(annotations / SPLIT_FILE, folder / SPLIT_FILE)
    return folder


def _official_texts(annotations: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of each annotation file."""
    archive = annotations / "annotations.zip"
    if not archive.is_file():
        for path in sorted(annotations.glob("*_*_*_*_*.txt")):
            yield path.name, path.read_bytes()
        return
    with zipfile.ZipFile(archive) as texts:
        for name in texts.namelist():
            if name.endswith(".txt"):
                yield Path(name).name, texts.read(name)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description="Writes a small ICBHI 2017 and SPRSound of synthetic sounds."
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clips", type=int, default=24, help="recordings of each data set")
    arguments = parser.parse_args()
    print(write_sample(arguments.folder, clips=arguments.clips))
