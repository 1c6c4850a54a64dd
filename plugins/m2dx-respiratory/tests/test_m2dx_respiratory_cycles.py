"""Which audio the cycles of ICBHI 2017 are: at the annotated seconds, with their labels, on their side of the split.

The recordings rise in a straight line, each with a slope of its own, so that any stretch of audio tells which recording
it is from and when.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import soundfile
import torch
from m2dx_respiratory import IcbhiDataset
from m2dx_respiratory.icbhi_files import LABELS, SPLIT_FILE
from m2dx_respiratory.units import unit_batches
from numpy.typing import NDArray
from torch import Tensor

import m2dx

SECONDS = 6.5
RATES = (4000, 44_100, 10_000, 16_000)
"""Hz; those of the official files, and the usual one of a recipe."""
PATIENTS = {"101": "train", "102": "train", "103": "test", "156": "both", "218": "both"}
BOUNDS = (0.037, 1.25, 2.4133, 4.001, 6.4297)
"""Where cycles begin and end; a quarter of the class numbers on, the next recording's first one is of another class."""
EDGE_SECONDS = 0.05
"""At the ends of a stretch of a rising line, resampling rings."""


@dataclass(frozen=True)
class Ramp:
    """One recording, whose samples are its slope times the seconds since its beginning."""

    path: Path
    slope: float
    split: str
    labels: tuple[str, ...]  # of its cycles, in their order

    def times(self, wav: NDArray[np.float32]) -> NDArray[np.float64]:
        return wav.astype(np.float64) / self.slope


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ramps")


@pytest.fixture(scope="module")
def ramps(folder: Path) -> dict[Path, Ramp]:
    """Recordings of every rate for each patient, by path; two patients are on both sides of the split."""
    inner = folder / "ICBHI_final_database"
    inner.mkdir()
    written: dict[Path, Ramp] = {}
    lines = []
    for number, (patient, rate) in enumerate((patient, rate) for patient in PATIENTS for rate in RATES):
        split = PATIENTS[patient] if PATIENTS[patient] != "both" else ("train", "test")[number % 2]
        path = inner / f"{patient}_{number + 1}b1_Al_sc_Meditron.wav"
        slope = 0.08 + 0.002 * number  # 0.77 at most
        wav = slope * np.arange(round(SECONDS * rate)) / rate
        soundfile.write(path, wav, rate, subtype="PCM_24")
        kinds = [(number + step) % 4 for step in range(4)]
        rows = zip(BOUNDS, BOUNDS[1:], kinds, strict=False)
        path.with_suffix(".txt").write_text(
            "".join(f"{begin}\t{end}\t{kind % 2}\t{kind // 2}\n" for begin, end, kind in rows)
        )
        lines.append(f"{path.stem}\t{split}\n")
        written[path] = Ramp(path, slope, split, tuple(LABELS[kind] for kind in kinds))
    (folder / SPLIT_FILE).write_text("".join(lines))
    return written


@pytest.fixture
def broken(ramps: dict[Path, Ramp]) -> Iterator[list[Ramp]]:
    """Two training recordings that cannot be read while a test runs: one is no audio, one ends after its header."""
    first, *_, last = (ramp for ramp in ramps.values() if ramp.split == "train")
    contents = [ramp.path.read_bytes() for ramp in (first, last)]
    first.path.write_text("no audio")
    last.path.write_bytes(contents[1][:100])
    yield [first, last]
    for ramp, content in zip((first, last), contents, strict=True):
        ramp.path.write_bytes(content)


def task_of(folder: Path, *, max_bad_fraction: float = 0.0) -> m2dx.ClipTask:
    dataset = IcbhiDataset(path=folder, unit="cycles")
    return m2dx.ClipTask.from_dataset(
        "lungs", dataset, unit_seconds=1.0, max_bad_fraction=max_bad_fraction, shared_groups="warn"
    )


def assert_is_the_cycle(
    ramp: Ramp, wav: NDArray[np.float32], label: str, *, start: float | None = None
) -> None:
    """The audio is of the recording's cycle with this label, and begins at `start` if that is known."""
    edge = round(EDGE_SECONDS * 16_000)
    times = ramp.times(wav)[edge:-edge]
    np.testing.assert_allclose(np.diff(times).mean(), 1 / 16_000, rtol=1e-3)  # the slope is the recording's
    begins = times - np.arange(edge, edge + len(times)) / 16_000
    assert np.ptp(begins) < 2e-3
    cycle = ramp.labels.index(label)
    assert BOUNDS[cycle] - 2e-3 < begins.mean() < BOUNDS[cycle + 1] - len(wav) / 16_000 + 2e-3
    if start is not None:
        assert begins.mean() == pytest.approx(start, abs=5e-4)


def test_units_are_at_the_annotated_seconds_whatever_the_files_rate(
    folder: Path, ramps: dict[Path, Ramp]
) -> None:
    task = task_of(folder)
    units = torch.cat(list(unit_batches(task, sample_rate=16_000, fade_seconds=0.0))).numpy()
    assert units.shape == (4 * len(ramps), 16_000)
    for clip, unit in zip(task.clips, units, strict=True):
        assert_is_the_cycle(ramps[clip.path], unit, clip.labels[0], start=clip.start)


def test_a_cycle_ends_at_the_annotated_second(folder: Path, ramps: dict[Path, Ramp]) -> None:
    for clip in IcbhiDataset(path=folder, unit="cycles").clips():
        wav = m2dx.read_wav(clip.path, start=clip.start, duration=clip.duration, sample_rate=16_000)
        cycle = ramps[clip.path].labels.index(clip.labels[0])
        assert len(wav) / 16_000 == pytest.approx(BOUNDS[cycle + 1] - BOUNDS[cycle], abs=5e-4)


def test_labels_stay_with_their_units_where_recordings_cannot_be_read(
    folder: Path, ramps: dict[Path, Ramp], broken: list[Ramp]
) -> None:
    task = task_of(folder, max_bad_fraction=0.2)
    assert sorted(bad.path for bad in task.bad) == sorted(4 * [ramp.path for ramp in broken])
    units = torch.cat(list(unit_batches(task, sample_rate=16_000, fade_seconds=0.0))).numpy()
    classes = task.targets().argmax(1)
    assert len(units) == len(classes) == 4 * (len(ramps) - len(broken))
    for clip, unit, number in zip(task.clips, units, classes, strict=True):
        assert_is_the_cycle(ramps[clip.path], unit, task.label_names[number], start=clip.start)


class Witness(m2dx.OfflineEncoder):
    """The labels, as a task's training signal; keeps what audio they came with."""

    name = "witness"
    sample_rate = 16_000
    wants_crops = True
    seen: ClassVar[list[tuple[m2dx.Crop, Tensor, str]]] = []

    def __init__(self, data: m2dx.DataInfo) -> None:
        super().__init__()
        self.label_names = data.label_names["lungs"]
        self.embed_dim = len(self.label_names)

    def forward(self, views: m2dx.Views) -> Tensor:
        labels = views.labels["lungs"]
        if views.crops is not None:  # None in the trial before training
            assert torch.equal(labels.sum(1), torch.ones(len(labels)))
            names = [self.label_names[number] for number in labels.argmax(1)]
            self.seen += zip(views.crops, views.clean_wav.clone(), names, strict=True)
        return labels


RECIPE = """
data:
  sets:
    lungs: {dataset: {name: icbhi, path: "${ICBHI}", unit: cycles}, split: train}
  epoch_size: 48  # each of the training cycles once
  max_bad_fraction: 0.5
  mean: 0.0
  std: 4.0
  workers: 0
audio: {crop_seconds: 0.64}
model: {size: tiny, depth: 1, predictor: {embed_dim: 24, depth: 1, num_heads: 2}}
tasks:
  labels:
    offline_encoder: {name: witness}
    online_mapper: {name: pool_linear}
    loss: {name: cross_entropy}
train: {epochs: 2, warmup_epochs: 0, batch_size: 16, device: cpu, threads: 1}
"""


def test_training_crops_are_of_training_cycles_and_have_their_labels_whatever_cannot_be_read(
    folder: Path,
    ramps: dict[Path, Ramp],
    broken: list[Ramp],
    make_host: Callable[[str], m2dx.PluginHost],
    command: Callable[..., str],
    no_page: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = make_host("respiratory")
    host.register("witness", SimpleNamespace(offline_encoders=m2dx.hookimpl(lambda: [Witness])))
    monkeypatch.setattr(Witness, "seen", [])
    monkeypatch.setenv("ICBHI", str(folder))
    (tmp_path / "lungs.yaml").write_text(RECIPE)
    command("train", str(tmp_path / "lungs.yaml"), f"output={tmp_path / 'runs'}", host=host)
    bad = (tmp_path / "runs" / "lungs" / "bad_files.tsv").read_text()
    assert all(str(ramp.path) in bad for ramp in broken)  # drawn, and replaced
    assert len(Witness.seen) >= 2 * 48
    read = {ramp.path for ramp in ramps.values() if ramp.split == "train"} - {ramp.path for ramp in broken}
    assert {crop.clip.path for crop, _, _ in Witness.seen} == read
    for crop, wav, label in Witness.seen:
        assert_is_the_cycle(ramps[crop.clip.path], wav.numpy(), label, start=crop.start)


def test_no_test_cycle_is_trained_on_though_patients_are_on_both_sides(
    folder: Path, ramps: dict[Path, Ramp]
) -> None:
    dataset = IcbhiDataset(path=folder, unit="cycles")
    both = {group for group, split in PATIENTS.items() if split == "both"}
    for split in ("train", "test"):
        clips = dataset.clips(split)
        assert {clip.path for clip in clips} == {r.path for r in ramps.values() if r.split == split}
        assert both < {clip.group for clip in clips}
    task = task_of(folder)
    (fold,) = task.folds
    parts = [{task.clips[row].path for row in part} for part in (fold.train, fold.valid, fold.test)]
    assert [{ramps[path].split for path in part} for part in parts] == [{"train"}, {"train"}, {"test"}]
    assert len(fold.train) + len(fold.valid) + len(fold.test) == len(task.clips) == 4 * len(ramps)
    patients = [{task.clips[row].group for row in part} for part in (fold.train, fold.valid)]
    assert not patients[0] & patients[1]
