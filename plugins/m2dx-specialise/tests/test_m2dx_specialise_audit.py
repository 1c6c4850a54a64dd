"""The audit on sixty real notes: what is planted is found, and nothing else."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from m2dx_specialise import audit as audits
from m2dx_specialise import listing
from m2dx_specialise.audit import Audit, audit
from m2dx_specialise.confounds import confounds
from m2dx_specialise.defects import defects
from m2dx_specialise.duplicates import SIMILAR, similarity
from m2dx_specialise.listing import Clip
from m2dx_specialise.measures import measure
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


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        # what of two notes each clip has: the note, from a share of it to another, and seconds of silence before it
        ((0, 0.0, 1.0, 0), (0, 0.4, 1.0, 0), True),
        ((0, 0.0, 0.7, 0), (0, 0.3, 1.0, 0), True),  # two cuts that overlap
        ((0, 0.0, 1.0, 0), (0, 0.0, 0.6, 1), True),
        ((0, 0.0, 1.0, 20), (0, 0.2, 1.0, 0), True),  # in long recordings, the moment says where to look
        ((0, 0.0, 1.0, 20), (0, 0.0, 1.0, 14), True),
        ((0, 0.0, 1.0, 0), (1, 0.0, 1.0, 0), False),
        ((0, 0.0, 1.0, 20), (1, 0.2, 1.0, 0), False),
    ],
)
def test_clips_with_a_part_in_common_are_alike(
    one: tuple[int, float, float, int],
    other: tuple[int, float, float, int],
    alike: bool,
    notes: Path,
    tmp_path: Path,
) -> None:
    clips, moments = [], []
    for name, (note, first, end, silence) in (("one", one), ("other", other)):
        wav = m2dx.read_wav(originals(notes)[7 * note][0])[: int(0.7 * RATE)]
        cut = wav[int(first * len(wav)) : int(end * len(wav))]
        padded = np.pad(cut, (silence * RATE, 0))
        soundfile.write(tmp_path / f"{name}.wav", padded, RATE, subtype="FLOAT")
        clips.append(Clip(tmp_path / f"{name}.wav", 0.0, len(padded) / RATE))
        moments.append(silence + (0.5 - first) * len(wav) / RATE)
    found = similarity(clips[0], clips[1], [(moments[0], moments[1] + 0.04)])
    assert found > 0.9 if alike else found < SIMILAR


def stroke(noise_seed: int) -> Wav:
    """A kick's falling tone, and a noise of which two strokes share nothing."""
    times = np.arange(RATE) / RATE
    tone = np.sin(2 * np.pi * np.cumsum(60 + 1500 * np.exp(-25 * times)) / RATE)
    noise = np.random.default_rng(noise_seed).standard_normal(RATE)
    return ((0.3 * tone + 0.006 * noise) * np.exp(-8 * times)).astype(np.float32)


@pytest.mark.parametrize(("noise_seed", "alike"), [(0, True), (1, False)])
def test_two_strokes_of_one_drum_are_no_copies(noise_seed: int, alike: bool, tmp_path: Path) -> None:
    clips = [Clip(tmp_path / name, 0.0, 1.0) for name in ("one.wav", "other.wav")]
    soundfile.write(clips[0].path, stroke(0), RATE)
    soundfile.write(clips[1].path, 0.5 * stroke(noise_seed), RATE)
    found = similarity(clips[0], clips[1], [(0.1, 0.1)])
    assert found > 0.9 if alike else found < SIMILAR


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


@pytest.mark.parametrize(
    ("own", "others", "told"),
    [
        # where the band of each group ends
        ([5500.0] * 8, [3400.0, 8000.0] * 4, True),  # a range between those of others
        ([3400.0] * 4, [8000.0] * 4, True),  # four groups that are all so
        ([3400.0] * 2, [8000.0] * 2, False),  # two say little
        ([3400.0] * 2, [8000.0] * 4, False),
        ([8000.0] * 8, [8000.0] * 8, False),
        ([3400.0] * 3 + [8000.0] * 5, [8000.0] * 8, False),
    ],
)
def test_a_range_of_a_measure_tells_a_class(
    own: list[float], others: list[float], told: bool, notes: Path
) -> None:
    found = listing.read(notes)
    typical = measure(found.clips[0], 60.0)[0]
    clips, measures = [], []
    for label, edges in (("own", own), ("other", others)):
        for group, edge in enumerate(edges):
            for _ in range(4):
                clips.append(replace(found.clips[0], labels=(label,), group=f"{label} {group}"))
                measures.append(replace(typical, edge_hz=edge))
    listed = replace(found, clips=tuple(clips), groups=())
    texts = [finding.text for finding in confounds(clips, measures, listed)]
    assert [("upper end of the band" in text) for text in texts] == [True] * told


def test_all_values_that_tell_a_class_are_named(notes: Path) -> None:
    found = listing.read(notes)
    typical = measure(found.clips[0], 60.0)[0]
    rates = {"own": (8_000, 11_025, 22_050), "other": (16_000,)}
    clips, measures = [], []
    for label in rates:
        for number in range(30):
            clips.append(replace(found.clips[0], labels=(label,), group=f"{label} {number}"))
            measures.append(replace(typical, sample_rate=rates[label][number % len(rates[label])]))
    texts = [of.text for of in confounds(clips, measures, replace(found, clips=tuple(clips), groups=()))]
    assert any("8,000 Hz or 11,025 Hz or 22,050 Hz in 100 % of its clips" in text for text in texts), texts


@pytest.mark.filterwarnings("error")
def test_a_label_of_all_clips_is_no_confound(notes: Path) -> None:
    found = listing.read(notes)
    clips = tuple(replace(clip, labels=("all", *clip.labels)) for clip in found.clips)
    measures = [measure(clips[0], 60.0)[0]] * len(clips)
    assert list(confounds(clips, measures, replace(found, clips=clips))) == []


def test_the_hum_of_two_mains_is_told_by_one_of_them(notes: Path) -> None:
    clips = listing.read(notes).clips[:2]
    one = measure(clips[0], 60.0)[0]
    found = defects(clips, [replace(one, hum_db=20.0, hum_hz=hertz) for hertz in (50.0, 60.0)])
    assert "at 50 Hz" in next(finding.text for finding in found if finding.kind == "hum")


def test_a_codec_changes_the_samples(notes: Path) -> None:
    wav = m2dx.read_wav(originals(notes)[0][0])
    assert not np.array_equal(coded(wav, RATE, "opus")[: len(wav)], wav)
