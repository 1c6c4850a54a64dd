"""Folders in the layouts of AudioSet and FSD50K, written line by line."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import soundfile

import m2dx

MIDS = {"Speech": "/m/09x0r", "Male speech, man speaking": "/m/05zppz", "Gush": "/t/dd00088"}
"""Three of AudioSet's classes; here their indices are 0, 1 and 451."""
_COLUMNS = "# YTID, start_seconds, end_seconds, positive_labels"


def write_wav(path: Path, *, seconds: float = 0.2) -> Path:
    """A file of noise at 8 kHz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    wav = np.random.default_rng(0).normal(scale=0.1, size=round(8000 * seconds))
    soundfile.write(path, wav, 8000)
    return path


class AudioSetFolder:
    """A folder with all lists, which have no segments until some are written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True)
        known = {0: "Speech", 1: "Male speech, man speaking", 451: "Gush"}
        names = [known.get(number, f"Class {number}") for number in range(527)]
        rows = [f'{n},{MIDS.get(name, f"/m/0{n}")},"{name}"\n' for n, name in enumerate(names)]
        (path / "class_labels_indices.csv").write_text("index,mid,display_name\n" + "".join(rows))
        for name in ("balanced_train", "unbalanced_train", "eval"):
            self.write_list(name, [])

    def write_list(self, name: str, rows: Iterable[str], *, columns: str = _COLUMNS) -> Path:
        """Writes `<name>_segments.csv`; its first row is line 4."""
        path = self.path / f"{name}_segments.csv"
        path.write_text(
            "\n".join(["# Segments csv", "# num_ytids=0", columns, *rows]) + "\n", encoding="utf-8"
        )
        return path

    def write_audio(self, *names: str, seconds: float = 0.2) -> list[Path]:
        """Writes audio files; those that soundfile cannot write have no audio in them."""
        paths = [self.path / name for name in names]
        for path in paths:
            if path.suffix in (".m4a", ".webm"):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"not decoded")
            else:
                write_wav(path, seconds=seconds)
        return paths


class FSD50KFolder:
    """A folder with the ground truth of FSD50K: four development clips and a clip for evaluation."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.labels = ["Accordion", "Bark", *(f"Class_{number:03d}" for number in range(2, 200))]
        self.write("vocabulary", "", [f"{n},{label},/m/0{n}" for n, label in enumerate(self.labels)])
        self.write(
            "dev",
            "fname,labels,mids,split",
            ['64,"Bark,Accordion","/m/01,/m/00",train', "7,Bark,/m/01,val", "8,Bark,/m/01,train"],
        )
        self.write("eval", "fname,labels,mids", ["9,Accordion,/m/00"])

    def write(self, name: str, header: str, rows: Iterable[str]) -> Path:
        """Writes a list of FSD50K.ground_truth; with a header, its first row is line 2."""
        path = self.path / "FSD50K.ground_truth" / f"{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join([*([header] if header else []), *rows]) + "\n", encoding="utf-8")
        return path

    def write_audio(self, *names: str) -> list[Path]:
        """Writes audio files, such as dev_audio/64.wav."""
        return [write_wav(self.path / f"FSD50K.{name}") for name in names]


@pytest.fixture
def audioset(tmp_path: Path) -> AudioSetFolder:
    return AudioSetFolder(tmp_path / "audioset")


@pytest.fixture
def fsd50k(tmp_path: Path) -> FSD50KFolder:
    return FSD50KFolder(tmp_path / "fsd50k")


@pytest.fixture(scope="session")
def host(make_host: Callable[[str], m2dx.PluginHost]) -> m2dx.PluginHost:
    return make_host("audioset")
