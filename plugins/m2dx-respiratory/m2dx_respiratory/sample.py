"""Writes small data sets in the official layouts, with synthetic breath sounds, for trials and tests.

`python -m m2dx_respiratory.sample FOLDER [--clips N]` writes FOLDER/icbhi and FOLDER/sprsound.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from m2dx.testing.samples import SoundFiles, sample_parser, write_lines
from m2dx_respiratory.icbhi_files import SPLIT_FILE
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
    """A part of a recording, in seconds, and what is heard in it."""

    start: float
    end: float
    crackle: bool
    wheeze: bool


def _wav(random: np.random.Generator, seconds: float, breaths: Iterable[_Breath]) -> NDArray[np.float64]:
    """Faint noise, and in each breath a noise that swells, clicks for crackles, a tone for wheezes."""
    wav = 0.002 * random.standard_normal(round(seconds * SAMPLE_RATE))
    for breath in breaths:
        part = wav[round(breath.start * SAMPLE_RATE) : round(breath.end * SAMPLE_RATE)]
        time = np.arange(len(part)) / SAMPLE_RATE
        swell = np.sin(np.pi * time / time[-1]) ** 2
        part += 0.05 * random.standard_normal(len(time)) * swell
        if breath.wheeze:
            part += 0.1 * np.sin(2 * np.pi * random.uniform(350, 450) * time) * swell
        if breath.crackle:
            clicks = np.zeros(len(time))
            clicks[random.integers(0, len(time), size=12)] = 0.5
            part += np.convolve(clicks, np.exp(-np.arange(80) / 12))[: len(time)]
    return np.clip(wav, -1.0, 1.0)


def write_sample(folder: Path, *, clips: int = 24) -> Path:
    """Writes `icbhi` and `sprsound` into the folder, with this number of recordings each; gives the folder."""
    write_icbhi(folder / "icbhi", clips=clips)
    write_sprsound(folder / "sprsound", clips=clips)
    return folder


def write_icbhi(folder: Path, *, clips: int = 24) -> Path:
    """Writes recordings in ICBHI 2017's layout, with four cycles each, one of every class; gives the folder.

    Two of three recordings are for training. As in the official files, one patient (156) is in both splits, and one
    recording, the last, has another device in its name than in the split file.
    """
    files, random, listed = (
        SoundFiles(folder / "ICBHI_final_database", SAMPLE_RATE),
        np.random.default_rng(0),
        [],
    )
    for number in range(clips):
        split = "test" if number % 3 == 2 else "train"
        patient = 156 if number in (1, 2) else 201 + number // 6 * 2 + (split == "test")
        place = f"{patient}_{number + 1}b1_{_SITES[number % 7]}"
        device, other = _DEVICES[number % 4], _DEVICES[(number + 1) % 4]
        mode, sound = "sc" if device == "Meditron" else "mc", number % DISTINCT
        start, breaths = 0.036, []
        for kind in ((sound + step) % 4 for step in range(4)):
            end = round(start + _CYCLE_SECONDS[kind], 3)
            breaths.append(_Breath(start, end, *_FLAGS[kind]))
            start = end
        name = f"{place}_{mode}_{device}"
        files.add(f"{name}.wav", sound, partial(_wav, random, start, breaths))
        rows = [f"{b.start:g}\t{b.end:g}\t{b.crackle:d}\t{b.wheeze:d}" for b in breaths]
        write_lines(files.folder / f"{name}.txt", rows)
        listed.append(f"{place}_{mode}_{other if number == clips - 1 else device}\t{split}\r")
    write_lines(folder / SPLIT_FILE, sorted(listed))
    return folder


def write_sprsound(folder: Path, *, clips: int = 24, layout: Literal["current", "first"] = "current") -> Path:
    """Writes recordings in SPRSound's layout, with two or three events each; gives the folder.

    Half of the recordings are for training, a quarter each is in the inter and the intra half of the test part; one of
    16 is of poor quality and has no events. `layout`: the folders of the current release (BioCAS2022/train2022_wav,
    ...), or of the first one (train_wav, ...).
    """
    top = folder / "BioCAS2022" if layout == "current" else folder
    folders = {part: names[layout == "first"] for part, names in PARTS.items()}
    files, random = SoundFiles(top, SAMPLE_RATE), np.random.default_rng(0)
    for number in range(clips):
        part, take, sound = ("train", "inter", "train", "intra")[number % 4], number // 4, number % DISTINCT
        patient = 41000000 + take + (5000 if part == "inter" else 0)
        name = f"{patient}_{2 + take % 12}.{take % 10}_{take % 2}_p{1 + number % 4}_{100 + number}"
        steps = range(2 + number % 2) if sound < DISTINCT - 1 else ()
        kinds = [TYPES[(sound + 2 * step) % 7] for step in steps]
        breaths = [
            _Breath(0.2 + 1.25 * step, 1.3 + 1.25 * step, kind in _CRACKLING, kind in _WHEEZING)
            for step, kind in enumerate(kinds)
        ]
        audio = folders["train audio" if part == "train" else "test audio"]
        files.add(f"{audio}/{name}.wav", sound, partial(_wav, random, 4.0, breaths))
        heard = {"CAS": any(b.wheeze for b in breaths), "DAS": any(b.crackle for b in breaths)}
        quality = " & ".join(name for name, there in heard.items() if there) or "Normal"
        content = {
            "record_annotation": quality if breaths else "Poor Quality",
            "event_annotation": [
                {"start": f"{1000 * b.start:.0f}", "end": f"{1000 * b.end:.0f}", "type": kind}
                for b, kind in zip(breaths, kinds, strict=True)
            ],
        }
        annotation = top / folders[f"{part} annotations"] / f"{name}.json"
        write_lines(annotation, [json.dumps(content)])
    return folder


if __name__ == "__main__":
    print(write_sample(**vars(sample_parser(write_sample, clips=24).parse_args())))
