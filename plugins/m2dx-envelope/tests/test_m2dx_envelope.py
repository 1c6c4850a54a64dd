"""The contract of m2dx, then what the component promises beyond it."""

from pathlib import Path

import m2dx
import pytest
import soundfile
import torch
from m2dx.testing import check_offline_encoder
from torch import Tensor

import m2dx_envelope
from m2dx_envelope import BandEnvelope
from m2dx_envelope.sample import write_sample

TIME = torch.arange(32_000) / 16_000  # 2 s
TONE = 0.1 * torch.sin(2 * torch.pi * 1500 * TIME)  # in the octave from 1 to 2 kHz


def envelope(wav: Tensor, *, num_bands: int = 7) -> Tensor:
    """(S, C), of samples (N,) at 16 kHz."""
    encoder = BandEnvelope(num_bands=num_bands)
    signal: Tensor = encoder(m2dx.Views(m2dx.Waveforms(wav[None], 16_000), torch.zeros(1, 1, 80, 200)))
    return signal[0]


def test_the_component_keeps_the_contract() -> None:
    check_offline_encoder(BandEnvelope)
    check_offline_encoder(BandEnvelope, num_bands=3)


def test_the_plugin_offers_the_component() -> None:
    host = m2dx.PluginHost({"new": m2dx_envelope})
    assert [record.error for record in host.records] == [None]
    assert host.names("offline_encoder") == ("envelope_bands",)


def test_a_beat_is_seen_in_its_octave_and_at_its_time() -> None:
    """The tone sounds in the second half only, 70 dB over silence: half of that above and below the mean."""
    signal = envelope(TONE * (TIME >= 1))
    assert signal.shape == (100, 7)
    torch.testing.assert_close(signal[55:95, 4], torch.full((40,), 2.85), atol=0.15, rtol=0)
    torch.testing.assert_close(signal[5:45, 4], torch.full((40,), -2.85), atol=0.15, rtol=0)
    assert (signal[55:95].argmax(dim=1) == 4).all()


def test_a_louder_recording_has_the_same_envelope() -> None:
    noise = 0.1 * torch.randn(32_000, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(envelope(3 * noise), envelope(noise), atol=1e-3, rtol=0)


def test_silence_has_a_flat_envelope() -> None:
    assert (envelope(torch.zeros(32_000)).abs() < 1e-5).all()


def test_fewer_bands_are_the_highest_ones() -> None:
    noise = 0.1 * torch.randn(32_000, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(envelope(noise, num_bands=3), envelope(noise)[:, 4:])


def test_more_octaves_than_there_are_are_refused() -> None:
    with pytest.raises(m2dx.RecipeError, match="num_bands must be at most 8, but is 9"):
        BandEnvelope(num_bands=9)


def test_the_sample_is_audio(tmp_path: Path) -> None:
    files = sorted(write_sample(tmp_path / "sounds", clips=3).iterdir())
    assert [soundfile.info(file).duration for file in files] == [3.0, 3.0, 3.0]
