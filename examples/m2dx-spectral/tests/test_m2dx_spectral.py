"""The contract of m2dx, then what the components promise beyond it."""

import pytest
import torch
from m2dx_spectral import Cepstrum, FrequencyPool

import m2dx
from m2dx.testing import check_offline_encoder, check_online_mapper


def cepstrum(encoder: Cepstrum, wav: torch.Tensor) -> torch.Tensor:
    return encoder(m2dx.Views(m2dx.Waveforms(wav, 16_000), torch.zeros(len(wav), 1, 80, 100)))


def test_the_components_keep_the_contract() -> None:
    check_offline_encoder(Cepstrum)
    check_offline_encoder(Cepstrum, num_coefficients=13, level=True, n_mels=80)
    check_online_mapper(FrequencyPool)
    check_online_mapper(FrequencyPool, hidden_dim=32)


def test_a_louder_recording_has_the_same_cepstrum_but_for_the_level() -> None:
    wav = 0.1 * torch.randn(1, 16_000, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(cepstrum(Cepstrum(), 2 * wav), cepstrum(Cepstrum(), wav), atol=1e-4, rtol=0)
    with_level = Cepstrum(level=True)
    louder = cepstrum(with_level, 2 * wav) - cepstrum(with_level, wav)
    assert (louder[..., 0] > 1).all()


def test_more_coefficients_than_bands_are_refused() -> None:
    with pytest.raises(m2dx.RecipeError, match="n_mels must be at least 41"):
        Cepstrum(num_coefficients=40, n_mels=40)


def test_one_vector_per_clip_is_refused() -> None:
    with pytest.raises(m2dx.RecipeError, match="use pool_linear"):
        FrequencyPool(m2dx.TaskShapes((5, 6), 24, None, 7))
