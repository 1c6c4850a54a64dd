import pytest
import torch

from m2dx.data.logmel import LogMel
from m2dx.evaluation.features import MeanLogMel
from m2dx.recipe.schema import AudioSection


@pytest.mark.parametrize(("sample_rate", "n_mels"), [(16_000, 80), (32_000, 64)])
def test_mean_and_deviation_of_the_recipe_s_logmel(sample_rate, n_mels):
    encoder = MeanLogMel(AudioSection(sample_rate=sample_rate, n_mels=n_mels))
    wav = torch.randn(2, sample_rate, generator=torch.Generator().manual_seed(0))
    logmel = LogMel(
        sample_rate=sample_rate,
        n_fft=sample_rate // 40,
        win_length=sample_rate // 40,
        hop_length=sample_rate // 100,
        n_mels=n_mels,
        f_min=50.0,
        f_max=sample_rate / 2,
    )(wav)[:, 0]
    features = encoder.clip(wav)
    assert features.shape == (2, encoder.embed_dim) == (2, 2 * n_mels)
    assert (encoder.sample_rate, encoder.frame_rate) == (sample_rate, 100.0)
    torch.testing.assert_close(features[:, :n_mels], logmel.mean(2))
    torch.testing.assert_close(
        features[:, n_mels:], (logmel - logmel.mean(2, keepdim=True)).square().mean(2).sqrt()
    )
