"""The parts of m2dx-superb that need no s3prl: upstream, statistics, SoX, lists."""

import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from m2dx_superb import sox
from m2dx_superb.classic import _training_arguments
from m2dx_superb.lists import TRIALS, find_list, place_lexicons
from m2dx_superb.statistics import measure, measured
from m2dx_superb.tasks import TASKS
from m2dx_superb.upstream import Upstream, Zeros, build_upstream, join_source, split_source
from superb_jobs import make_job

import m2dx

LENGTHS = [1, 319, 320, 321, 5_000, 16_000, 16_001]
TRIM = [["channels", "1"], ["rate", "16000"], ["silence", "1", "0.1", "0.1%", "-1", "0.1", "0.1%"]]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("length", LENGTHS)
def test_there_are_as_many_frames_as_s3prl_expects(sample: Path, length: int) -> None:
    for upstream in (build_upstream(str(sample / "encoder")), Zeros()):
        states = upstream([noise(length), noise(max(length // 2, 1))])["hidden_states"]
        stride = upstream.get_downsample_rates("hidden_states")  # type: ignore[operator]
        assert {state.shape[:2] for state in states} == {(2, math.ceil(length / stride))}


def test_the_hidden_states_are_the_frame_features_of_every_block(sample: Path) -> None:
    encoder = m2dx.load_encoder(sample / "encoder")
    upstream = build_upstream(join_source(str(sample / "encoder"), -5.0, 3.0))
    wav = noise(6_400)
    output = upstream([wav])
    encoder.mean, encoder.std = -5.0, 3.0
    with torch.no_grad():
        expected = encoder.layers(wav)
    assert len(output["hidden_states"]) == len(expected) == 2
    for state, layer in zip(output["hidden_states"], expected, strict=True):
        torch.testing.assert_close(state, layer)
    assert not output["last_hidden_state"].requires_grad


def test_checkpoints_of_a_task_hold_no_encoder_and_training_leaves_it_alone(sample: Path) -> None:
    upstream = build_upstream(str(sample / "encoder"))
    assert isinstance(upstream, Upstream)
    assert not upstream.state_dict() and not list(upstream.parameters())
    assert not upstream.train().encoder.training
    upstream.to(torch.float64)
    assert next(upstream.encoder.parameters()).dtype == torch.float64


def test_an_encoder_for_another_rate_is_refused(sample: Path) -> None:
    encoder = m2dx.load_encoder(sample / "encoder")
    encoder.sample_rate = 32_000
    with pytest.raises(
        m2dx.CheckpointError, match="at 16000 Hz, so the encoder must be, too, but it is for 32000"
    ):
        Upstream(encoder)


@pytest.mark.parametrize("path", ["/a/b", "/a,b/c", "runs/x,1"])
def test_a_source_keeps_path_and_statistics(path: str) -> None:
    assert split_source(join_source(path, -7.1, 4.2)) == (path, (-7.1, 4.2))
    assert split_source(path) == (path, None)


def test_statistics_are_those_of_all_bins(sample: Path) -> None:
    encoder = m2dx.load_encoder(sample / "encoder")
    wavs = [noise(3_200), 3 * noise(8_000, seed=1)]
    bins = torch.cat([encoder.logmel(wav)[..., : wav.shape[0] // 160].flatten() for wav in wavs]).double()
    found = measure(wavs, encoder)
    assert found.mean == pytest.approx(bins.mean().item(), abs=1e-6)
    assert found.std == pytest.approx(bins.std(correction=0).item(), abs=1e-6)
    assert (found.clips, found.seconds) == (2, 0.7)


def test_statistics_are_measured_once_per_data_and_settings(sample: Path, tmp_path: Path) -> None:
    encoder = m2dx.load_encoder(sample / "encoder")
    first = measured([noise(3_200)], encoder, tmp_path, clips=1, what="ks")
    assert measured([], encoder, tmp_path, clips=1, what="ks") == first
    with pytest.raises(m2dx.AudioError, match="the training list must have clips, but there are none"):
        measured([], encoder, tmp_path, clips=2, what="ks")
    encoder.logmel.f_max = 4000.0
    with pytest.raises(m2dx.AudioError, match="must have clips"):  # other filters
        measured([], encoder, tmp_path, clips=1, what="ks")
    with pytest.raises(m2dx.AudioError, match="must have sound, but its 1 clips have variance"):
        measured([torch.zeros(3_200)], encoder, tmp_path, clips=1, what="sid")


def test_gain_is_in_db_and_channels_are_averaged() -> None:
    wav, rate = sox.apply_effects_tensor(
        torch.tensor([[0.5, 0.5], [0.1, -0.5]]),
        16_000,
        [["channels", "1"], ["rate", "16000"], ["gain", "-3.0"]],
    )
    torch.testing.assert_close(wav, torch.tensor([[0.3, 0.0]]) * 0.7079, atol=1e-4, rtol=0)
    assert rate == 16_000


def test_a_file_of_another_rate_is_resampled(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros((8_000, 2)), 8_000)
    wav, rate = sox.apply_effects_file(tmp_path / "a.wav", [["channels", "1"], ["rate", "16000"]])
    assert (wav.shape, rate) == ((1, 16_000), 16_000)


def test_without_sox_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(
        m2dx.AudioError, match="the program `sox` must be on the PATH, but is not; install it"
    ):
        sox.apply_effects_tensor(noise(1, 100), 16_000, TRIM)


@pytest.mark.usefixtures("stand_in_for_sox")
def test_samples_go_through_the_program_and_back() -> None:
    wav = noise(1, 1_000)
    found, rate = sox.apply_effects_tensor(wav, 16_000, TRIM)
    torch.testing.assert_close(found, wav, atol=0, rtol=0)
    assert rate == 16_000


@pytest.mark.skipif(shutil.which("sox") is None, reason="SoX is not installed")
def test_sox_trims_silence() -> None:
    wav = torch.cat([torch.zeros(1, 16_000), noise(1, 16_000), torch.zeros(1, 16_000)], dim=1)
    found, _ = sox.apply_effects_tensor(wav, 16_000, TRIM)
    assert found.shape[0] == 1 and 15_000 < found.shape[1] < 18_000
    with pytest.raises(m2dx.AudioError, match=r"sox must apply .* but failed"):
        sox.apply_effects_tensor(wav, 16_000, [["whale", "3"]])


def test_lists_are_found_by_any_of_their_names(sample: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    job = make_job(sample, tmp_path, "asv", data=str(data))

    def fail(url: str, path: Path) -> None:
        path.write_text("half")
        raise OSError("no network")

    with pytest.raises(m2dx.AudioError, match=r"needs the list voxceleb1_test_v2\.txt or veri_test2\.txt"):
        find_list(job, *TRIALS, url="list://trials", fetch=fail)
    asked = make_job(sample, tmp_path, "asv", data=str(data), download=True)
    with pytest.raises(m2dx.AudioError, match=r"list://trials could not be fetched to .*OSError: no network"):
        find_list(asked, *TRIALS, url="list://trials", fetch=fail)
    assert not (Path(job.cache) / TRIALS[0]).exists()
    (data / TRIALS[1]).write_text("1 a b\n")
    assert find_list(job, *TRIALS, url="list://trials", fetch=fail) == data / TRIALS[1]


def test_a_list_is_fetched_once(sample: Path, tmp_path: Path) -> None:
    job = make_job(sample, tmp_path, "pr", data=str(tmp_path), download=True)
    fetched = []

    def fetch(url: str, path: Path) -> None:
        fetched.append(url)
        path.write_text("ONE W AH1 N\n")

    for _ in range(2):
        place_lexicons(job, ["list://one", "list://two"], tmp_path / "s3prl", fetch)
    assert fetched == ["list://one", "list://two"]
    assert {path.suffix for path in (tmp_path / "s3prl").iterdir()} == {".one", ".two"}


def test_importing_the_plugin_changes_nothing() -> None:
    code = """
        import sys
        import m2dx_superb.command
        assert not {"torch", "s3prl", "pandas"} & sys.modules.keys()
        import torchaudio
        before = torchaudio.load
        import m2dx_superb.scoring, m2dx_superb.worker, m2dx_superb.repairs
        assert torchaudio.load is before and not hasattr(torchaudio, "sox_effects")
        assert not {"s3prl", "catalyst"} & sys.modules.keys()
    """
    subprocess.run([sys.executable, "-c", "\n".join(line[8:] for line in code.splitlines())], check=True)


@pytest.mark.parametrize("name", ["k=v", "x',,config.a=__import__('os').system('touch PWNED'),,config.b='"])
def test_a_folder_that_s3prl_would_run_is_refused(name: str, tmp_path: Path) -> None:
    job = make_job(tmp_path, tmp_path, "pr", data=str(tmp_path / name))
    config = tmp_path / "downstream" / TASKS["pr"].downstream / TASKS["pr"].config
    config.parent.mkdir(parents=True)
    config.touch()
    with pytest.raises(m2dx.M2dxError, match="must have neither `,,` nor `=`"):
        _training_arguments(job, TASKS["pr"], tmp_path)
