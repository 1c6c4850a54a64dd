"""M2D sees the noisy view, offline encoders the clean one."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from m2dx.contract.components import Augmentation, TaskShapes, Views, Waveforms
from m2dx.data.batches import seeded_uniform
from m2dx.data.crops import Batch
from m2dx.data.logmel import LogMel
from m2dx.model.losses import MSE
from m2dx.model.mappers import LinearMapper
from m2dx.model.multitask import Task
from m2dx.model.offline_encoders import LogSpectrum
from m2dx.model.views import DataStatistics, ViewMaker, at_rate

FRAMES, HOP = 32, 160
STATISTICS = DataStatistics(mean=-6.0, std=2.0, noise_mean=-9.0)


def logmel() -> LogMel:
    return LogMel(
        sample_rate=16_000, n_fft=400, win_length=400, hop_length=HOP, n_mels=80, f_min=50.0, f_max=8000.0
    )


def batch(*, noise: torch.Tensor | None = None) -> Batch:
    generator = torch.Generator().manual_seed(1)
    return Batch(
        inputs=torch.randn(2, FRAMES * HOP, generator=generator) * 0.1,
        noise_wav=noise,
        labels={"notes": torch.eye(2)},
        ids_shuffle=torch.arange(10).expand(2, -1),
        clip_ids=torch.arange(2),
        seeds=torch.arange(2),
        bad=(),
    )


def views(ratio: float, given: Batch) -> tuple[torch.Tensor, Views]:
    (seen,), clean = ViewMaker(logmel(), STATISTICS, noise_ratio=ratio)(given)
    return seen, clean


def test_without_noise_both_are_the_standardised_log_mel() -> None:
    given = batch()
    seen, clean = views(0.0, given)
    expected = (logmel()(given.inputs)[..., :FRAMES] + 6.0) / 2.0
    assert seen.shape == (2, 1, 80, FRAMES)
    torch.testing.assert_close(seen, expected)
    assert torch.equal(clean.clean_logmel, seen)
    assert clean.clean_wav is given.inputs and clean.labels is given.labels and clean.sample_rate == 16_000


def test_equation_5_with_each_mean_subtracted_and_the_data_s_std() -> None:
    noise = torch.randn(2, FRAMES * HOP, generator=torch.Generator().manual_seed(2))
    given = batch(noise=noise)
    seen, clean = views(0.2, given)
    x, b = logmel()(given.inputs)[..., :FRAMES], logmel()(noise)[..., :FRAMES]
    expected = torch.log(0.8 * torch.exp(x + 6.0) + 0.2 * torch.exp(b + 9.0)) / 2.0
    torch.testing.assert_close(seen, expected)
    assert torch.equal(clean.clean_logmel, views(0.0, batch())[1].clean_logmel)
    assert torch.equal(clean.clean_wav, given.inputs)


def test_at_ratio_1_nothing_of_the_clip_is_left() -> None:
    noise = torch.randn(2, FRAMES * HOP, generator=torch.Generator().manual_seed(2))
    given = batch(noise=noise)
    other = Batch(given.inputs * 0.0, noise, given.labels, given.ids_shuffle, given.clip_ids, given.seeds, ())
    seen, clean = views(1.0, given)
    silent, _ = views(1.0, other)
    assert torch.equal(seen, silent)
    assert not torch.allclose(clean.clean_logmel, seen)


def test_other_sampling_rates() -> None:
    given = views(0.0, batch())[1]
    assert at_rate(given, None) is given and at_rate(given, 16_000) is given
    half = at_rate(given, 8_000)
    assert half.sample_rate == 8_000 and half.clean_wav.shape == (2, FRAMES * HOP // 2)
    assert half.clean_logmel is given.clean_logmel
    tone = torch.sin(torch.arange(16_000) * (2 * math.pi * 440 / 16_000))[None]
    resampled = at_rate(Views(Waveforms(tone, 16_000), tone), 8_000).clean_wav
    assert torch.fft.rfft(resampled[0]).abs().argmax() == 440


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_offline_encoders_hear_the_same_at_any_precision(precision: torch.dtype) -> None:
    wav = torch.randn(2, 32_000, generator=torch.Generator().manual_seed(1)) * 0.1
    given = Views(Waveforms(wav, 32_000), wav)
    task = Task(LogSpectrum(), LinearMapper(TaskShapes((5, 50), 8, 50, 257)), MSE(), weight=1.0)
    expected = task.target(given)
    with torch.autocast("cpu", precision):
        resampled = at_rate(given, 16_000).clean_wav
        target = task.target(given)
    assert resampled.dtype == torch.float32
    assert torch.equal(target, expected)
    assert at_rate(Views(Waveforms(wav.to(precision), 32_000), wav), 16_000).clean_wav.dtype == torch.float32


class Louder(Augmentation):
    """Times a number, and a draw of the clip's."""

    name = "louder"

    def __init__(self, changes: Any, factor: float = 1.0) -> None:
        super().__init__()
        self.changes, self.factor = changes, factor

    def forward(self, x: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
        draws = seeded_uniform(seeds, 1).view(-1, *[1] * (x.ndim - 1))
        return x * (self.factor if self.factor != 1.0 else 1.0 + draws)


def augmented(
    given: Batch, *of: Louder, ratio: float = 0.0, count: int = 1
) -> tuple[list[torch.Tensor], Views]:
    return ViewMaker(logmel(), STATISTICS, noise_ratio=ratio, augmentations=of)(given, count)  # type: ignore[no-any-return]


def test_augmentations_change_waveforms_before_the_noise_and_log_mels_after_it() -> None:
    noise = torch.randn(2, FRAMES * HOP, generator=torch.Generator().manual_seed(2))
    given = batch(noise=noise)
    before = given.inputs.clone()
    (seen,), clean = augmented(given, Louder("logmel", 3.0), Louder("waveform", 0.5), ratio=0.2)
    x, b = logmel()(given.inputs * 0.5)[..., :FRAMES], logmel()(noise)[..., :FRAMES]
    expected = torch.log(0.8 * torch.exp(x + 6.0) + 0.2 * torch.exp(b + 9.0)) / 2.0 * 3.0
    torch.testing.assert_close(seen, expected)
    assert torch.equal(clean.clean_logmel, views(0.0, batch())[1].clean_logmel)
    assert clean.clean_wav is given.inputs and torch.equal(given.inputs, before)


@pytest.mark.parametrize("changes", ["waveform", "logmel"])
def test_each_clip_view_and_place_has_draws_of_its_own_that_repeat(changes: str) -> None:
    twice = [Louder(changes), Louder(changes)]
    seen, _ = augmented(batch(), *twice, count=2)
    again, _ = augmented(batch(), *twice, count=2)
    assert all(torch.equal(one, other) for one, other in zip(seen, again, strict=True))
    one = batch()
    alone, _ = augmented(replace(one, inputs=one.inputs[1:], seeds=one.seeds[1:]), *twice, count=2)
    for whole, part in zip(seen, alone, strict=True):
        torch.testing.assert_close(whole[1:], part)
    once, clean = augmented(batch(), twice[0])
    assert len({float(view[0].mean()) for view in (*seen, *once, clean.clean_logmel)}) == 4
    raw = logmel()(batch().inputs)[..., :FRAMES]
    factors = (
        (seen[0] / clean.clean_logmel)[:, 0, 0, 0] if changes == "logmel" else (once[0] - raw)[:, 0, 5, 5]
    )
    assert factors[0] != factors[1]


def test_without_augmentations_further_views_are_clean() -> None:
    noise = torch.randn(2, FRAMES * HOP, generator=torch.Generator().manual_seed(2))
    (noisy, *others), clean = augmented(batch(noise=noise), ratio=0.2, count=3)
    assert not torch.equal(noisy, clean.clean_logmel) and len(others) == 2
    assert all(other is clean.clean_logmel for other in others)
