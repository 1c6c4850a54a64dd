"""The audit on sixty real notes: what is planted is found, and nothing else."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from m2dx_specialise import audit as audits
from m2dx_specialise import listing
from m2dx_specialise.audit import Audit, audit
from m2dx_specialise.listing import Clip
from numpy.typing import NDArray
from planted import KINDS, coded, plant_duplicates

import m2dx
from m2dx.testing.samples import write_csv

RATE = 16_000
Wav = NDArray[np.float32]


def listed(folder: Path, rows: list[tuple[Path, str, str]]) -> tuple[tuple[Clip, ...], Audit]:
    """The clips of a list of path, label and group, and their audit."""
    write_csv(folder / "list.csv", "path,label,group", rows)
    found = listing.read(folder / "list.csv")
    return found.clips, audit(found)


def originals(notes: Path) -> list[tuple[Path, str, str]]:
    return [(clip.path, ";".join(clip.labels), clip.group or "") for clip in listing.read(notes).clips]


def test_copies_are_found_whatever_was_done_to_them(notes: Path, tmp_path: Path) -> None:
    own = originals(notes)
    whole = [m2dx.Clip(path) for path, _, _ in own]
    planted = plant_duplicates(whole, tmp_path / "copies", count=len(KINDS), seed=0)
    label = {path: name for path, name, _ in own}
    clips, found = listed(tmp_path, [*own, *((copy, label[path], copy.stem) for path, copy, _ in planted)])
    pairs = {frozenset((clips[one.first].path, clips[one.second].path)) for one in found.duplicates}
    missed = [kind for path, copy, kind in planted if frozenset((path, copy)) not in pairs]
    assert len(missed) <= 1, missed  # an excerpt of a third of a second has little to tell it by
    others = pairs - {frozenset((path, copy)) for path, copy, _ in planted}
    assert len(others) <= 0.01 * len(clips)


@pytest.fixture
def without_duplicates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking for duplicates takes most of an audit's time."""
    monkeypatch.setattr(audits, "find_duplicates", lambda *_: [])


def hum(wav: Wav) -> Wav:
    times = np.arange(len(wav)) / RATE
    return wav + np.float32(0.05) * sum(np.sin(2 * np.pi * 50 * k * times) for k in (1, 2, 3)).astype(
        np.float32
    )  # type: ignore[union-attr]


@pytest.mark.usefixtures("without_duplicates")
@pytest.mark.parametrize(
    ("change", "rate", "suffix", "word"),
    [
        (lambda wav: wav[::2], RATE // 2, "wav", "sampling rate"),
        (lambda wav: wav, RATE, "flac", "file format"),
        (lambda wav: np.stack([wav, wav], 1), RATE, "wav", "number of channels"),
        (hum, RATE, "wav", "hum"),
        (lambda wav: wav + np.float32(0.03), RATE, "wav", "DC offset"),
    ],
)
def test_a_label_that_goes_with_the_device_is_told(
    change: object, rate: int, suffix: str, word: str, notes: Path, tmp_path: Path
) -> None:
    assert callable(change)
    rows = []
    for number, (path, label, group) in enumerate(originals(notes)):
        wav = m2dx.read_wav(path)
        own = label == "brass"
        copy = tmp_path / f"{number:03}.{suffix if own else 'wav'}"
        soundfile.write(copy, change(wav) if own else wav, rate if own else RATE)
        rows.append((copy, label, group))
    _, found = listed(tmp_path, rows)
    told = [finding.text for finding in found.findings if finding.kind == "confound"]
    assert any(word in text and "'brass'" in text for text in told), told


@pytest.mark.usefixtures("without_duplicates")
def test_an_honest_list_has_no_confound(notes: Path, tmp_path: Path) -> None:
    _, found = listed(tmp_path, originals(notes))
    assert [finding.text for finding in found.findings if finding.kind == "confound"] == []


def test_a_codec_changes_the_samples(notes: Path) -> None:
    wav = m2dx.read_wav(originals(notes)[0][0])
    assert not np.array_equal(coded(wav, RATE, "opus")[: len(wav)], wav)
