"""Sound of log-mels: the spectrogram comes back, and so does the pitch."""

import numpy as np
import pytest
import soundfile
import torch
from m2dx_draw.drawing import write_wav
from m2dx_draw.masks import PatchMask
from m2dx_draw.sounds import Sound, griffin_lim, mel_to_linear

from m2dx.contract.errors import AudioError
from m2dx.data.logmel import LogMel

LOGMEL = LogMel(
    sample_rate=16_000, n_fft=400, win_length=400, hop_length=160, n_mels=80, f_min=50.0, f_max=8000.0
)


def tone(hertz, seconds=1.0):
    return 0.3 * torch.sin(2 * torch.pi * hertz * torch.arange(int(16_000 * seconds)) / 16_000)


def test_a_linear_spectrogram_is_found_whose_mels_are_those_given():
    power = torch.rand(201, 12, generator=torch.Generator().manual_seed(0)).square()
    mel = LOGMEL.filters.mT @ power
    found = mel_to_linear(mel, LOGMEL.filters)
    assert found.shape == (201, 12) and (found >= 0).all()
    error_db = 10 * torch.log10((LOGMEL.filters.mT @ found) / mel)
    assert error_db.abs().median() < 0.2 and error_db.abs().max() < 3.0


@pytest.mark.parametrize("hertz", [440.0, 2000.0])
def test_a_tone_comes_back_with_its_pitch_and_level(hertz):
    mel = LOGMEL.crop(tone(hertz)[None])[0, 0].exp()
    wav = griffin_lim(LOGMEL, mel)
    assert wav.shape == (16_000,)
    spectrum = torch.fft.rfft(wav * torch.hann_window(16_000)).abs()
    assert abs(int(spectrum.argmax()) - hertz) <= 25  # Hz; a mel band is some 30 Hz wide or more
    level_db = 20 * torch.log10(wav[2000:-2000].square().mean().sqrt() / tone(hertz).square().mean().sqrt())
    assert abs(float(level_db)) < 2.0


def test_silence_stays_silent_and_the_same_spectrogram_gives_the_same_sound():
    silent = torch.full((80, 20), torch.finfo(torch.float32).eps)
    assert griffin_lim(LOGMEL, silent).abs().max() < 1e-2
    before = torch.random.get_rng_state()
    mel = LOGMEL.crop(tone(500.0)[None])[0, 0].exp()
    assert torch.equal(griffin_lim(LOGMEL, mel), griffin_lim(LOGMEL, mel))
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_sound_of_a_reconstruction_has_its_spectrogram(model):
    item = model.reconstruct(Sound("tone", tone(700.0, 0.64)), PatchMask("random", ratio=0.5))
    original, result = model.wav(item.logmel), model.wav(item.result)
    assert original.shape == result.shape == (10_240,)
    back = model.standard_logmel(Sound("", original))[0, 0].numpy()
    loud = item.logmel > item.logmel.max() - 2.0  # standard deviations of 4: within 35 dB of the peak
    assert np.median(np.abs(back - item.logmel)[loud]) < 0.15


def test_wav_files_are_turned_down_to_full_scale_and_no_further(tmp_path):
    for peak in (0.5, 4.0):
        path = write_wav(tmp_path / "a.wav", tone(300.0) / 0.3 * peak, 16_000)
        samples, rate = soundfile.read(path)
        assert rate == 16_000 and np.abs(samples).max() == pytest.approx(min(peak, 1.0), abs=1e-3)
    with pytest.raises(AudioError, match="could not be written"):
        write_wav(tmp_path / "none" / "a.wav", tone(300.0), 16_000)
