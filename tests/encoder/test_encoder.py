"""The encoder: audio of any length to features, from exports, checkpoints and published files."""

import argparse
import copy
import json
import logging
import pickle
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

import m2dx.encoder.audio
from m2dx.contract.components import PatchGrid, ViTSize
from m2dx.contract.errors import AudioError, CheckpointError
from m2dx.data.csv_list import CsvDataset
from m2dx.data.reading import read_wav
from m2dx.encoder.audio import AudioEncoder, load_encoder, random_encoder, random_like
from m2dx.encoder.checkpoint import CheckpointFolder
from m2dx.encoder.config import ClassifierConfig
from m2dx.encoder.finetuned import AudioClassifier, FinetunedNetwork
from m2dx.encoder.images import ImageEncoder
from m2dx.model.vit import Encoder
from m2dx.recipe.schema import AudioSection, ImageSection, ModelSection

EXAMPLES = Path(__file__).parents[2] / "examples/sounds"
HOP = 160
AUDIO = AudioSection(crop_seconds=0.64)  # 64 frames
MODEL = ModelSection(size="tiny", depth=2, patch_size=(16, 16))  # 5 x 4 patches


@pytest.fixture(scope="module")
def encoder() -> AudioEncoder:
    return random_encoder(AUDIO, MODEL, mean=-7.0, std=4.0, seed=0)


def wav(samples: int, *, batch: int = 1) -> Tensor:
    return torch.randn(batch, samples, generator=torch.Generator().manual_seed(samples)) * 0.1


def close(actual: Tensor, expected: Tensor, *, atol: float = 1e-5) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


# Published numbers


@torch.no_grad()
def test_published_features(parity: Any) -> None:
    encoder = load_encoder(parity.folder / "m2d_weights.safetensors", num_heads=4)
    layers = encoder.encode_logmel(parity.tensors["x"], layers=range(1, encoder.encoder.size.depth + 1))
    close(torch.stack(layers), parity.tensors["encoder_layers_timeframed"])
    close(encoder.encode_logmel(parity.tensors["x"])[0], parity.tensors["encoder_layers_timeframed"][-1])
    close(encoder.encode_logmel(parity.tensors["long_x"])[0], parity.tensors["long_features"])


def test_published_sizes_come_from_the_tensors(parity: Any) -> None:
    encoder = load_encoder(parity.folder / "m2d_weights.safetensors", num_heads=4)
    assert encoder.encoder.grid == parity.grid and encoder.encoder.size == parity.size
    assert (encoder.mean, encoder.std) == (pytest.approx(-7.1), pytest.approx(4.2))
    assert encoder.sample_rate == 16_000 and encoder.embed_dim == parity.grid.shape[0] * 32
    assert encoder.frame_rate == 100 / parity.grid.patch_size[1]
    assert encoder.head is None and not encoder.training


def test_a_published_checkpoint_file(parity: Any, tmp_path: Path) -> None:
    """Under `model`, with the arguments of its training beside it, in a folder whose name has the rate."""
    folder = tmp_path / "m2d_vit_base-80x608p16x16p32k-240413_AS-FT_enconly"
    folder.mkdir()
    path = folder / "checkpoint-300.pth"
    torch.save({"model": parity.weights(), "args": argparse.Namespace(lr=1e-3), "epoch": 3}, path)
    encoder = load_encoder(path, num_heads=4)
    assert (
        encoder.sample_rate == 32_000
        and encoder.logmel.hop_length == 320
        and encoder.frame_rate * (parity.grid.patch_size[1]) == 100
    )
    assert load_encoder(path, num_heads=4, sample_rate=16_000).sample_rate == 16_000
    with torch.no_grad():
        close(encoder.encode_logmel(parity.tensors["long_x"])[0], parity.tensors["long_features"])


def test_a_file_without_statistics_has_audioset_s(parity: Any, tmp_path: Path) -> None:
    weights = {k: v for k, v in parity.weights().items() if k != "norm_stats"}
    torch.save(weights, tmp_path / "old.pth")
    encoder = load_encoder(tmp_path / "old.pth", num_heads=4)
    assert (encoder.mean, encoder.std) == (-7.1, 4.2)
    torch.save({**weights, "norm_stats": torch.tensor([-8.0, 3.0])}, tmp_path / "own.pth")
    encoder = load_encoder(tmp_path / "own.pth", num_heads=4)
    assert (encoder.mean, encoder.std) == (-8.0, 3.0)


def test_a_fine_tuned_file_has_its_head(parity: Any, tmp_path: Path) -> None:
    width, generator = parity.grid.shape[0] * 32, torch.Generator().manual_seed(0)
    head = {
        "module.head.norm.running_mean": torch.randn(width, generator=generator),
        "module.head.norm.running_var": torch.rand(width, generator=generator) + 0.5,
        "module.head.mlp.mlp.0.weight": torch.randn(7, width, generator=generator),
        "module.head.mlp.mlp.0.bias": torch.randn(7, generator=generator),
    }
    backbone = {"module.ar.runtime.backbone." + key: value for key, value in parity.weights().items()}
    torch.save({**backbone, **head}, tmp_path / "weights.pth")
    encoder = load_encoder(tmp_path / "weights.pth", num_heads=4)
    assert encoder.head is not None
    with torch.no_grad():
        features = encoder.encode_logmel(parity.tensors["x"])[0]
        close(features, parity.tensors["encoder_layers_timeframed"][-1])
        mean, var, weight, bias = head.values()
        expected = (features.mean(1) - mean) / (var + 1e-5).sqrt() @ weight.T + bias
        close(encoder.head(features.mean(1)), expected, atol=1e-4)
    del head["module.head.mlp.mlp.0.bias"]
    torch.save({**backbone, **head}, tmp_path / "half.pth")
    with pytest.raises(CheckpointError, match="head does not fit"):
        load_encoder(tmp_path / "half.pth", num_heads=4)


def test_what_is_not_used_is_told(parity: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        load_encoder(parity.folder / "m2d_weights.safetensors", num_heads=4)
        assert caplog.text == ""
        torch.save({**parity.weights(), "audio_proj.weight": torch.zeros(2, 2)}, tmp_path / "clap.pth")
        load_encoder(tmp_path / "clap.pth", num_heads=4)
    assert "not used by the encoder: audio_proj" in caplog.text


# Lengths


@pytest.mark.parametrize(
    ("samples", "frames"),
    [
        (HOP, 1),
        (HOP * 15, 1),  # shorter than a patch
        (HOP * 16, 1),
        (HOP * 17, 2),
        (HOP * 64, 4),  # the model's input
        (HOP * 64 + HOP - 1, 4),
        (HOP * 65, 5),
        (HOP * 64 * 3 + HOP * 20, 14),
    ],
)
@pytest.mark.parametrize("long_clips", ["split", "interpolate"])
@torch.no_grad()
def test_any_length(encoder: AudioEncoder, samples: int, frames: int, long_clips: Any) -> None:
    encoder = AudioEncoder(encoder.encoder, encoder.logmel, mean=-7.0, std=4.0, long_clips=long_clips).eval()
    features = encoder(wav(samples, batch=2))
    assert features.shape == (2, frames, encoder.embed_dim) and features.isfinite().all()
    assert encoder.embed_dim == 5 * 192 and encoder.frame_rate == 6.25
    close(encoder.clip(wav(samples, batch=2)), features.mean(dim=1))
    layers = encoder.layers(wav(samples, batch=2))
    assert len(layers) == 2 and torch.equal(layers[-1], features) and layers[0].shape == features.shape


@torch.no_grad()
def test_one_clip_may_come_without_a_batch(encoder: AudioEncoder) -> None:
    assert torch.equal(encoder(wav(5000)[0]), encoder(wav(5000)))


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (torch.zeros(0), r"audio must be \(N,\) or \(B, N\) samples"),
        (torch.zeros(2, 0), r"audio must be \(N,\) or \(B, N\) samples"),
        (torch.zeros(1, 2, 3), r"audio must be \(N,\) or \(B, N\) samples"),
        (torch.zeros(()), r"audio must be \(N,\) or \(B, N\) samples"),
        (torch.zeros(HOP - 1), r"N >= 160, but is \(159,\)$"),
        (torch.zeros(16_000, 2), r"but is \(16000, 2\); of \(samples, channels\), give wav\.mean\(dim=1\)"),
        (torch.zeros(0, 500), r"audio must be \(N,\) or \(B, N\) samples .* but is \(0, 500\)"),
        ([], "audio must be a clip or more, but is an empty list"),
        (torch.full((500,), torch.nan), "audio must be finite .* reaches nan"),
        (
            2e4 * torch.ones(500),
            r"audio must be finite samples in \[-1, 1\], but reaches 20000; divide those of 16",
        ),
        ([torch.zeros(500), torch.full((500,), torch.inf)], r"audio\[1\] must be finite"),
        ([torch.zeros(500), torch.zeros(1, 500)], r"audio\[1\] must be \(N,\) samples"),
        ([torch.zeros(500), torch.zeros(5)], r"audio\[1\] .* N >= 160"),
    ],
)
def test_what_is_not_audio(encoder: AudioEncoder, audio: Any, message: str) -> None:
    for call in (encoder, encoder.clip, encoder.layers):
        with pytest.raises(ValueError, match=message):
            call(audio)


@pytest.mark.parametrize(
    "lengths",
    [
        *(
            [500],
            [500, 500, 500],
            [500, 1001],
            [500, 159],
            [0, 500],
            [500, -5],
            [500, 500.5],
            [500, torch.nan],
        ),
        torch.tensor([1.0, 0.5]),  # shares of the batch's length
        torch.ones(2, 1000, dtype=torch.bool),  # a mask
    ],
)
def test_lengths_that_are_none(encoder: AudioEncoder, lengths: Any) -> None:
    with pytest.raises(ValueError, match=r"lengths must be the samples of each of the 2 clips, 160") as told:
        encoder(torch.zeros(2, 1000), lengths=lengths)
    assert len(str(told.value)) < 200
    whole = encoder(wav(1000, batch=2), lengths=torch.tensor([500.0, 1000.0]))
    assert torch.equal(whole, encoder(wav(1000, batch=2), lengths=np.array([500, 1000])))


@pytest.mark.parametrize("layer", [3, -1, 1.5, "last"])
def test_layers_that_are_none(encoder: AudioEncoder, layer: Any) -> None:
    for call in (encoder, encoder.clip):
        with pytest.raises(ValueError, match="layers must be 0 to 2, but are"):
            call(wav(1000), layer=layer)
    assert torch.equal(encoder(wav(1000), layer=np.int64(2)), encoder(wav(1000)))


def test_what_is_not_audio_for_a_classifier(encoder: AudioEncoder) -> None:
    about = {"label_names": ("a", "b"), "multi_label": False, "unit_seconds": 0.1, "patchout": 0.0}
    config = ClassifierConfig(**about, short_clips="pad", long_clips="split")
    classifier = AudioClassifier(FinetunedNetwork(encoder, 2), config).eval()
    assert classifier.probabilities(wav(1000, batch=3)).shape == (3, 2)
    with pytest.raises(TypeError, match="audio must be a torch tensor"):
        classifier.probabilities([wav(1000)[0]])  # type: ignore[arg-type]
    for audio, message in (
        (torch.full((500,), torch.nan), "must be finite"),
        (torch.zeros(1000, 2), r"give wav\.mean\(dim=1\)"),
        (torch.zeros(0, 1000), r"but is \(0, 1000\)"),
        (torch.zeros(5), "N >= 160"),
    ):
        with pytest.raises(ValueError, match=message):
            classifier.probabilities(audio)


def test_what_is_not_an_image() -> None:
    """NaN, values of 0 to 255 as floats, and those that were standardised before are no images in [0, 1]."""
    section = ImageSection(size=(32, 48), mean=(0.5,) * 3, std=(0.2,) * 3)
    network = Encoder(PatchGrid((32, 48), (16, 16), 3), ViTSize(64, 1, 1))
    images = ImageEncoder(network, section).eval()
    good = torch.rand(2, 3, 32, 48)
    expected = images.clip(good)
    for wrong, kind, message in (
        ([good[0]], TypeError, "must be a tensor, uint8 or .* but are list"),
        (good.numpy(), TypeError, "must be a tensor, uint8 or .* but are float32"),
        (good.long(), TypeError, r"but are torch\.int64"),
        (good * torch.nan, ValueError, r"must be in \[0, 1\], but are nan"),
        (255 * good, ValueError, r"must be in \[0, 1\], but are .* to 25"),
        ((good - 0.5) / 0.2, ValueError, r"must be in \[0, 1\], but are -2"),
        (good.permute(0, 2, 3, 1), ValueError, r"must be \(B, C, H, W\)"),
        (good[:0], ValueError, r"must be \(B, C, H, W\)"),
    ):
        with pytest.raises(kind, match=message):
            images.clip(wrong)  # type: ignore[arg-type]
    for dtype in (torch.float16, torch.bfloat16):
        close(images.to(dtype).clip(good).float(), expected, atol=0.1)


LENGTHS = (160, 200, 399, HOP * 16, HOP * 17, HOP * 17 + 5, HOP * 64, HOP * 65, HOP * 150, HOP * 150 + 3)


@pytest.mark.parametrize("long_clips", ["split", "interpolate"])
@pytest.mark.parametrize("pooling", ["mean", "mean_deviation", "max"])
def test_clips_of_any_lengths_have_the_features_they_have_alone(
    encoder: AudioEncoder, long_clips: Any, pooling: Any
) -> None:
    network = AudioEncoder(encoder.encoder, encoder.logmel, mean=-7.0, std=4.0, long_clips=long_clips).eval()
    clips = [wav(length)[0] for length in LENGTHS]
    batch = torch.full((len(clips), max(LENGTHS) + 999), 0.7)  # what follows a clip is of no account
    for row, clip in zip(batch, clips, strict=True):
        row[: len(clip)] = clip
    with torch.inference_mode():
        for frames in (
            network(clips),
            network(batch, lengths=LENGTHS),
            network(batch, lengths=torch.tensor(LENGTHS)),
        ):
            for clip, found in zip(clips, frames, strict=True):
                alone = network(clip)[0]
                assert len(alone) == network.num_frames(len(clip))
                close(found[: len(alone)], alone)
                assert not found[len(alone) :].any()
        alone = torch.cat([network.clip(clip, pooling=pooling) for clip in clips])
        close(network.clip(clips, pooling=pooling), alone)
        close(network.clip(batch, lengths=LENGTHS, pooling=pooling), alone)
        for layer in (0, 1):
            close(network(clips, layer=layer), network.layers(clips, (layer,))[0], atol=0)
            alone = torch.cat([network.clip(clip, layer=layer) for clip in clips])
            close(network.clip(clips, layer=layer), alone)


@torch.no_grad()
def test_pooling(encoder: AudioEncoder) -> None:
    audio = wav(HOP * 150, batch=2)
    frames = encoder(audio)
    expected = torch.cat([frames.mean(1), frames.std(1, correction=0)], dim=1)
    close(encoder.clip(audio, pooling="mean_deviation"), expected)
    close(encoder.clip(audio, pooling="max"), frames.amax(1))
    with pytest.raises(ValueError, match="pooling must be one of"):
        encoder.clip(audio, pooling="sum")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"layers must be 0 to 2, but are \[3\]"):
        encoder.clip(audio, layer=3)


@torch.inference_mode()
def test_the_time_of_a_click_is_that_of_its_frame() -> None:
    """With patches of one frame of the log-mel: the click is in the middle of the frame that hears it best."""
    model = ModelSection(size="tiny", depth=1, patch_size=(80, 1))
    network = random_encoder(AUDIO, model, mean=-7.0, std=4.0, seed=0)
    for frame in (3, 40, 200):
        audio = torch.zeros(16_000 * 3)
        audio[round(network.times(frame + 1)[frame].item() * 16_000)] = 1.0
        assert network.standard_logmel(audio)[0, 0].mean(0).argmax() == frame
    sixteen = random_encoder(AUDIO, MODEL, mean=-7.0, std=4.0, seed=0)
    assert sixteen.times(3).tolist() == pytest.approx([0.075, 0.235, 0.395])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@torch.inference_mode()
def test_other_precisions(encoder: AudioEncoder, dtype: torch.dtype) -> None:
    audio = wav(HOP * 70)
    other = copy.deepcopy(encoder).to(dtype)
    assert other.logmel.filters.dtype == torch.float32 and other(audio).dtype == dtype
    assert torch.equal(other.logmel(audio), encoder.logmel(audio))
    assert torch.cosine_similarity(other.clip(audio).float(), encoder.clip(audio)) > 0.98


@torch.no_grad()
def test_copies_give_the_same(encoder: AudioEncoder) -> None:
    for other in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):
        assert torch.equal(other(wav(9000)), encoder(wav(9000)))


def test_a_loaded_encoder_is_frozen() -> None:
    network = load_encoder("starter")
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not network(wav(16_000)).requires_grad


def test_threads_share_an_encoder(encoder: AudioEncoder) -> None:
    clips = [wav(HOP * length) for length in (16, 40, 64, 70, 130)] * 4
    with torch.no_grad():
        alone = [encoder(clip) for clip in clips]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(torch.no_grad()(encoder), clips))
    for one, other in zip(alone, found, strict=True):
        close(one, other)


@pytest.mark.parametrize(
    ("rate", "channels", "suffix"), [(16_000, 1, "wav"), (44_100, 2, "flac"), (8000, 1, "ogg")]
)
def test_features_of_a_file(
    encoder: AudioEncoder, tmp_path: Path, rate: int, channels: int, suffix: str
) -> None:
    path = tmp_path / f"sound.{suffix}"
    soundfile.write(path, wav(rate * 2, batch=channels).T.numpy(), rate)
    whole = torch.from_numpy(read_wav(path, sample_rate=16_000))
    close(encoder.encode_file(path), encoder(whole)[0])
    close(encoder.encode_file(path, pooling="max", layer=1), encoder.clip(whole, pooling="max", layer=1)[0])
    part = torch.from_numpy(read_wav(path, start=0.5, duration=1.0, sample_rate=16_000))
    close(encoder.encode_file(path, start=0.5, duration=1.0), encoder(part)[0])
    with pytest.raises(AudioError, match=rf"none\.{suffix}: missing"):
        encoder.encode_file(tmp_path / f"none.{suffix}")


def test_drum_hits_in_a_padded_batch_find_themselves() -> None:
    """60 hits of 0.1 to 3 s: the nearest of those encoded alone is each hit itself."""
    clips = CsvDataset(path=EXAMPLES / "drums.csv").clips()[:60]
    network = load_encoder("starter")
    hits = [torch.from_numpy(read_wav(clip.path, sample_rate=16_000)) for clip in clips]
    batch, lengths = pad_sequence(hits, batch_first=True), [len(hit) for hit in hits]
    with torch.inference_mode():
        alone = torch.cat([network.clip(hit) for hit in hits])
        found = network.clip(batch, lengths=lengths)
    assert torch.cdist(found, alone).argmin(1).tolist() == list(range(60))


@torch.no_grad()
def test_splitting_is_encoding_each_chunk(encoder: AudioEncoder) -> None:
    logmel = encoder.standard_logmel(wav(HOP * 150))
    assert logmel.shape == (1, 1, 80, 150)
    chunks = [encoder.encode_logmel(logmel[..., start : start + 64])[0] for start in (0, 64, 128)]
    close(encoder.encode_logmel(logmel)[0], torch.cat(chunks, dim=1), atol=1e-6)
    changed = logmel.clone()
    changed[..., :64] += 1.0
    difference = (encoder.encode_logmel(changed)[0] - encoder.encode_logmel(logmel)[0]).abs().amax(dim=(0, 2))
    assert (difference > 0).tolist() == [True] * 4 + [False] * 6


@torch.no_grad()
def test_interpolation_sees_the_whole_at_once(encoder: AudioEncoder) -> None:
    whole = AudioEncoder(encoder.encoder, encoder.logmel, mean=-7.0, std=4.0, long_clips="interpolate").eval()
    short = wav(HOP * 64)
    assert torch.equal(whole(short), encoder(short))  # up to the model's input there is no difference
    logmel = encoder.standard_logmel(wav(HOP * 128))
    changed = logmel.clone()
    changed[..., :16] += 1.0
    difference = (whole.encode_logmel(changed)[0] - whole.encode_logmel(logmel)[0]).abs().amax(dim=(0, 2))
    assert difference.shape == (8,) and (difference > 0).all()


@pytest.mark.parametrize("seconds", [0.001, 0.7, 3.0, 3.2, 3.21, 9.61, 12.345])
@pytest.mark.parametrize("piece", [0.01, 0.5, 0.64, 1.0, 3.1])
@pytest.mark.parametrize("long_clips", ["split", "interpolate"])
@torch.no_grad()
def test_audio_in_pieces_is_the_whole(
    encoder: AudioEncoder, seconds: float, piece: float, long_clips: Any
) -> None:
    encoder = AudioEncoder(encoder.encoder, encoder.logmel, mean=-7.0, std=4.0, long_clips=long_clips).eval()
    audio = wav(round(seconds * 16_000), batch=2)
    chunks = list(encoder.stream(audio.split(round(piece * 16_000), dim=-1)))
    whole = encoder.chunks(encoder.standard_logmel(audio))
    assert [chunk.shape for chunk in chunks] == [chunk.shape for chunk in whole]
    close(torch.cat(chunks, dim=-1), torch.cat(whole, dim=-1))


@torch.no_grad()
def test_long_audio_is_encoded_in_pieces(encoder: AudioEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    audio = wav(16_000 * 5)
    whole = encoder(audio)
    monkeypatch.setattr(m2dx.encoder.audio, "PIECE_SECONDS", 1)
    lengths: list[int] = []
    monkeypatch.setattr(encoder.logmel, "forward", spied(encoder.logmel.forward, lengths))
    close(encoder(audio), whole)
    assert len(lengths) == 5 and max(lengths) < 16_000 * 2.2


def spied(forward: Any, lengths: list[int]) -> Any:
    return lambda audio: (lengths.append(audio.shape[-1]), forward(audio))[1]


def test_positions_are_not_interpolated_without_a_bound(encoder: AudioEncoder) -> None:
    whole = AudioEncoder(encoder.encoder, encoder.logmel, mean=-7.0, std=4.0, long_clips="interpolate").eval()
    with pytest.raises(AudioError, match=r"interpolated for 524 s at most \(16,384 patches\).*split longer"):
        whole(torch.zeros(16_000 * 600))


@torch.no_grad()
def test_the_last_patch_is_filled_with_the_mean(encoder: AudioEncoder) -> None:
    logmel = encoder.standard_logmel(wav(HOP * 20))
    filled = torch.cat([logmel, torch.zeros(1, 1, 80, 12)], dim=-1)
    close(encoder.encode_logmel(logmel)[0], encoder.encode_logmel(filled)[0], atol=0)


def test_log_mels_are_standardised(encoder: AudioEncoder) -> None:
    audio = wav(HOP * 30)
    close(encoder.standard_logmel(audio), (encoder.logmel.crop(audio) + 7.0) / 4.0)


def test_an_unknown_way_for_long_clips(encoder: AudioEncoder) -> None:
    with pytest.raises(ValueError, match="long_clips must be one of"):
        AudioEncoder(encoder.encoder, encoder.logmel, mean=0, std=1, long_clips="cut")  # type: ignore[arg-type]


def test_random_encoders_follow_from_the_seed() -> None:
    one, same, other = (random_encoder(AUDIO, MODEL, mean=0, std=1, seed=seed) for seed in (0, 0, 1))
    weights = [e.encoder.trunk.blocks[0].attn.qkv.weight for e in (one, same, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_the_random_weights_are_of_the_encoder_s_own_architecture(encoder: AudioEncoder) -> None:
    long = AudioEncoder(encoder.encoder, encoder.logmel, mean=-7.0, std=4.0, long_clips="interpolate")
    one, same, other = (random_like(long, seed=seed) for seed in (0, 0, 1))
    audio = wav(HOP * 150)
    with torch.no_grad():
        assert torch.equal(one(audio), same(audio)) and not torch.equal(one(audio), other(audio))
        assert one(audio).shape == long(audio).shape
        assert torch.equal(one.standard_logmel(audio), long.standard_logmel(audio))
    assert one.long_clips == "interpolate" and one.encoder.size == encoder.encoder.size
    assert one.logmel is not encoder.logmel and not one.training


# Errors


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (np.zeros(100, np.float32), r"must be a torch tensor, but is a ndarray; torch\.from_numpy"),
        ([0.0, 1.0], r"audio\[0\] must be a torch tensor, but is a float"),
        (torch.zeros(100, dtype=torch.int16), r"but is torch\.int16; for int16 give wav\.float\(\) / 32768"),
    ],
)
def test_what_is_not_samples_in_floating_point(encoder: AudioEncoder, audio: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        encoder(audio)


def test_statistics_of_another_size(parity: Any, tmp_path: Path) -> None:
    torch.save({**parity.weights(), "norm_stats": torch.zeros(3)}, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match=r"odd\.pth: norm_stats must be 2 values.*but has 3"):
        load_encoder(tmp_path / "odd.pth", num_heads=4)


OTHERS = {"text_encoder.embeddings.weight": 0, "audio_proj.weight": 0}
WRAPPED: dict[
    str, tuple[str, str, str, dict[str, int]]
] = {  # key, prefix, what follows `blocks.N.`, other tensors
    "DataParallel": ("model", "module.", "", {}),
    "compile": ("model", "_orig_mod.", "", {}),
    "compiled blocks": ("model", "", "_orig_mod.", {}),
    "compile and DistributedDataParallel": ("model", "module._orig_mod.", "", {}),
    "Lightning": ("state_dict", "model.", "", {}),
    "Lightning and compile": ("state_dict", "model._orig_mod.", "", {"loss.weight": 0}),
    "M2D-CLAP 2025": ("model", "backbone.", "", OTHERS),
    "M2D-CLAP under DataParallel": ("model", "module.backbone.", "", {f"module.{k}": 0 for k in OTHERS}),
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_names_that_others_put_before_it_are_known(
    parity: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    key, prefix, inner, others = WRAPPED[kind]
    named = {re.sub(r"(blocks\.\d+\.)", rf"\1{inner}", name): v for name, v in parity.weights().items()}
    tensors = {prefix + name: value for name, value in named.items()}
    torch.save({key: {**tensors, **dict.fromkeys(others, torch.zeros(2))}, "epoch": 3}, tmp_path / "w.pth")
    with torch.no_grad(), caplog.at_level(logging.WARNING):
        features = load_encoder(tmp_path / "w.pth", num_heads=4).encode_logmel(parity.tensors["x"])[0]
    close(features, parity.tensors["encoder_layers_timeframed"][-1])
    left = sorted({name.removeprefix("module.").split(".")[0] for name in others})
    assert caplog.messages == ([f"not used by the encoder: {', '.join(left)}"] if left else [])


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file or folder"):
        load_encoder(tmp_path / "none.pt")
    with pytest.raises(CheckpointError, match=r"neither an export .* nor a run with checkpoints"):
        load_encoder(tmp_path)


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors", "a.wav"])
@pytest.mark.parametrize("content", [b"", b"some text that is no checkpoint", b"PK\x03\x04 half a zip"])
def test_files_that_are_something_else(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    message = "an audio file" if name == "a.wav" else r"not a readable checkpoint|not a whole checkpoint"
    with pytest.raises(CheckpointError, match=message):
        load_encoder(tmp_path / name)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ([1, 2], "must hold a dict, but holds a list"),
        ({"step": 3}, "neither an m2dx checkpoint nor a published one"),
        ({"weight": torch.zeros(2)}, "must have patch_embed.proj.weight"),
        ({"model": {}}, "must have patch_embed.proj.weight"),
    ],
)
def test_checkpoints_of_something_else(tmp_path: Path, state: Any, message: str) -> None:
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=message):
        load_encoder(tmp_path / "other.pt")


def test_an_original_msm_mae_file_has_biases_of_queries_and_values(parity: Any, tmp_path: Path) -> None:
    with_zero, original = dict(parity.weights()), {}
    for name, tensor in with_zero.items():
        if not name.endswith("qkv.bias"):
            original[name] = tensor
            continue
        query, key, value = tensor.chunk(3)
        with_zero[name] = torch.cat([query, torch.zeros_like(key), value])
        start = name.removesuffix("qkv.bias")
        original |= {f"{start}q_bias": query, f"{start}v_bias": value}
    assert len(original) > len(with_zero)
    features = []
    for number, state in enumerate((with_zero, original)):
        torch.save({"model": state}, tmp_path / f"{number}.pth")
        with torch.no_grad():
            features.append(load_encoder(tmp_path / f"{number}.pth", num_heads=4)(wav(16_000)))
    close(features[1], features[0], atol=0.0)
    del original["blocks.0.attn.v_bias"]
    torch.save(original, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match=r"blocks.0.attn.q_bias must have blocks.0.attn.v_bias"):
        load_encoder(tmp_path / "odd.pth", num_heads=4)


def test_published_weights_that_do_not_fit(parity: Any, tmp_path: Path) -> None:
    weights = parity.weights()

    def load(state: dict[str, Tensor], num_heads: int | None = 4) -> AudioEncoder:
        torch.save(state, tmp_path / "odd.pth")
        return load_encoder(tmp_path / "odd.pth", num_heads=num_heads)

    assert load(weights, None).encoder.size.num_heads == 1  # 64 per head, but at least one
    with pytest.raises(CheckpointError, match="must be a multiple of num_heads, which is 5"):
        load(weights, 5)
    with pytest.raises(CheckpointError, match="do not fit"):
        load({k: v for k, v in weights.items() if k != "blocks.1.norm1.bias"})
    with pytest.raises(CheckpointError, match="transformer blocks"):
        load({k: v for k, v in weights.items() if not k.startswith("blocks.")})
    with pytest.raises(CheckpointError, match="1 input channel, but this one has 2"):
        load({**weights, "patch_embed.proj.weight": weights["patch_embed.proj.weight"].repeat(1, 2, 1, 1)})
    with pytest.raises(CheckpointError, match="do not fit an input of 80 mels"):
        load({**weights, "patch_embed.proj.weight": torch.zeros(32, 1, 24, 4)})


def test_damaged_checkpoints(tmp_path: Path, parity: Any) -> None:
    path = tmp_path / "a.pth"
    torch.save(parity.weights(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=r"a\.pth"):
        load_encoder(path, num_heads=4)
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 4
    path.write_bytes(damaged)
    with pytest.raises(CheckpointError, match="does not match its checksum"):
        load_encoder(path, num_heads=4)


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return Path.mkdir, (str(tmp_path / "ran"),)

    torch.save({"model": {}, "args": Evil()}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="not loaded for safety") as error:
        load_encoder(tmp_path / "a.pth")
    assert "weights_only" not in str(error.value)
    assert not (tmp_path / "ran").exists()


def test_exports_that_are_not_whole(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    for content in ("", "{", '{"a": 1}', "[]", json.dumps({"format": "m2dx-encoder"})):
        config.write_text(content)
        with pytest.raises(CheckpointError, match=r"config\.json"):
            load_encoder(tmp_path)
    save_file({"cls_token": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_encoder(tmp_path / "model.safetensors")


def test_a_run_s_folder_gives_its_newest_checkpoint(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path / "checkpoints")
    for step in (1, 2):
        folder.save(step, {"step": step}, keep_last=2)
    for path in (tmp_path, folder.path):
        with pytest.raises(CheckpointError, match=r"step-00000002\.pt"):
            load_encoder(path)
