"""Cycles brought to one length, and their log-mels."""

import numpy as np
import torch
from m2dx_respiratory.units import circular, logmel_units, unit_batches

import m2dx


def test_a_long_cycle_is_cut_and_fades_at_both_ends() -> None:
    unit = circular(np.ones(12, np.float32), 8, fade_samples=2)
    np.testing.assert_allclose(unit, [0, 0.5, 1, 1, 1, 1, 0.5, 0])


def test_a_short_cycle_is_repeated_with_fades_at_joints_and_end() -> None:
    unit = circular(np.full(4, 2.0, np.float32), 11, fade_samples=2)
    np.testing.assert_allclose(unit, [0, 1, 1, 0, 0, 1, 1, 0, 0, 0.5, 0])


def test_without_fades_copies_are_exact() -> None:
    wav = np.arange(1, 4, dtype=np.float32)
    np.testing.assert_array_equal(circular(wav, 8, fade_samples=0), [1, 2, 3, 1, 2, 3, 1, 2])
    np.testing.assert_array_equal(circular(wav, 3, fade_samples=0), wav)
    np.testing.assert_array_equal(circular(wav, 2, fade_samples=0), [1, 2])


def test_a_cycle_shorter_than_its_fades_keeps_half_for_each() -> None:
    unit = circular(np.ones(4, np.float32), 4, fade_samples=100)
    np.testing.assert_allclose(unit, [0, 0.5, 0.5, 0])
    assert circular(np.ones(1, np.float32), 3, fade_samples=100).tolist() == [1, 1, 0]


def test_units_follow_the_clips_and_their_length(task: m2dx.ClipTask) -> None:
    units = torch.cat(list(unit_batches(task, sample_rate=4000, fade_seconds=0.0)))
    assert units.shape == (48, 2400)  # 0.6 s
    clip = task.clips[5]
    wav = m2dx.read_wav(clip.path, start=clip.start, duration=0.6, sample_rate=4000)
    np.testing.assert_array_equal(units[5].numpy(), wav)


def test_half_precision_logmels_are_near_enough(encoder: m2dx.AudioEncoder, task: m2dx.ClipTask) -> None:
    logmels = logmel_units(encoder, task, fade_seconds=0.05)
    assert logmels.shape == (48, 1, 80, 60) and logmels.dtype == torch.float16
    wav = next(unit_batches(task, sample_rate=16_000, fade_seconds=0.05))
    exact = encoder.standard_logmel(wav)
    assert (logmels[: len(wav)].float() - exact).abs().max() < 2e-3
