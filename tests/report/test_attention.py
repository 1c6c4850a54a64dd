"""Attention maps: the weights are those that the block itself uses."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from m2dx_draw.attention import attention_figure, attention_maps
from m2dx_draw.sounds import Sound
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from timm.layers.attention import Attention

from m2dx.contract.errors import M2dxError
from m2dx.encoder.audio import load_encoder
from m2dx.report.attention import AttentionMap, attention_weights, last_attention, loud_points
from m2dx.report.style import Span


@pytest.fixture
def encoder(runs):
    return load_encoder(runs / "m2d" / "encoder")


@torch.no_grad()
def test_the_blocks_output_follows_from_the_weights(encoder):
    attention = encoder.encoder.trunk.blocks[-1].attn
    tokens = torch.randn(2, 21, 192, generator=torch.Generator().manual_seed(0))
    weights = attention_weights(attention, tokens)
    assert weights.shape == (2, 3, 21, 21)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 21))
    values = attention.qkv(tokens).unflatten(-1, (3, 3, -1)).permute(2, 0, 3, 1, 4)[2]
    output = attention.proj((weights @ values).transpose(1, 2).flatten(2))
    torch.testing.assert_close(output, attention(tokens), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_they_are_the_weights_that_the_last_block_computes_without_the_fused_kernel(encoder, sound):
    logmel, seen = encoder.standard_logmel(sound.wav)[..., :64], []
    block = encoder.encoder.trunk.blocks[-1]
    fused = block.attn
    written_out = Attention(192, 3, qkv_bias=True)  # timm's, whose weights a hook can read
    written_out.load_state_dict(fused.state_dict())
    written_out.fused_attn = False
    written_out.attn_drop.register_forward_hook(lambda module, inputs, output: seen.append(output))
    block.attn = written_out
    encoder.encoder(logmel)
    block.attn = fused
    torch.testing.assert_close(last_attention(encoder.encoder, logmel), seen[0])


def test_a_map_is_the_row_of_its_patch_averaged_over_heads(encoder, sound):
    (found,) = attention_maps(encoder, sound, [(3, 1)])
    logmel = encoder.standard_logmel(sound.wav)[..., :64]
    row = last_attention(encoder.encoder, logmel)[0, :, 1 + 3 * 4 + 1].mean(0).numpy()
    np.testing.assert_allclose(found.weights.ravel(), row[1:], rtol=1e-5)
    assert found.weights.shape == (5, 4)
    assert found.weights.sum() + row[0] == pytest.approx(1.0, abs=1e-5)
    assert (found.name, found.span.seconds) == ("rising", 0.64)


def test_short_sounds_have_fewer_columns_and_long_ones_are_cut_unless_positions_are_interpolated(runs, sound):
    encoder = load_encoder(runs / "m2d" / "encoder")
    short = attention_maps(encoder, Sound("short", sound.wav[:5000]), [(0, 1)])[0]
    assert short.weights.shape == (5, 2) and short.span.seconds == pytest.approx(
        0.32
    )  # 31 frames, filled up to 32
    long = Sound("long", sound.wav.repeat(3))
    assert attention_maps(encoder, long, [(0, 1)])[0].weights.shape == (5, 4)
    whole = load_encoder(runs / "m2d" / "encoder", long_clips="interpolate")
    assert attention_maps(whole, long, [(0, 11)])[0].weights.shape == (5, 12)


def test_without_points_the_loudest_patch_of_each_half_attends():
    logmel = np.zeros((10, 12), dtype=np.float32)
    logmel[4:6, 2:4] = 1.0  # patch (2, 1) of (5, 6)
    logmel[8:10, 10:12] = 0.5  # patch (4, 5)
    assert loud_points(logmel, (5, 6)) == [(2, 1), (4, 5)]
    assert loud_points(logmel[:, 2:4], (5, 1)) == [(2, 0)]


def test_points_outside_are_refused(encoder, sound):
    for point in ((5, 0), (0, 4), (-1, 0)):
        with pytest.raises(M2dxError, match=r"5 x 4 patches .* of rising, from \(0, 0\) to \(4, 3\)"):
            attention_maps(encoder, sound, [point])


def test_the_figure_shows_spectrogram_and_maps_with_the_point_in_red(encoder, sound):
    figure = attention_figure(encoder, [sound], [(2, 3), (0, 1)])
    logmel, first, second = figure.axes
    maps = attention_maps(encoder, sound, [(2, 3), (0, 1)])
    np.testing.assert_array_equal(np.asarray(logmel.images[0].get_array()), maps[0].logmel)
    for axes, item in zip((first, second), maps, strict=True):
        assert axes.get_title(loc="left") == f"patch {item.point}: up to {item.strongest:.1%}"
        shown = np.asarray(axes.images[0].get_array())
        assert shown.shape == (80, 64, 3)
    (square,) = [c for c in first.collections if isinstance(c, LineCollection)]
    corner, red = square.get_paths()[0].vertices[0], square.get_colors()[0]
    np.testing.assert_allclose(corner, (3 * 0.16, 2 / 5))  # seconds, share of the height
    assert red[0] > 0.9 and max(red[1:3]) < 0.3


def test_attention_is_laid_over_the_spectrogram_on_one_scale():
    logmel = np.random.default_rng(0).normal(size=(80, 96)).astype(np.float32)
    weights = np.zeros((5, 6), dtype=np.float32)
    weights[4, 1], weights[0, 5] = 0.4, 0.1
    span = Span(0.96, (50.0, 8000.0))
    strong = AttentionMap("a", logmel, (2, 2), weights, span)
    weak = replace(strong, weights=weights / 4)

    def shown(item):
        axes = Figure().add_subplot()
        item.picture("x", strong.strongest).draw(axes)
        return np.asarray(axes.images[0].get_array())

    image, faint = shown(strong), shown(weak)
    grey = image[40:48, 32:48]  # nothing is attended to here
    np.testing.assert_array_equal(grey[..., 0], grey[..., 2])
    assert np.corrcoef(grey[..., 0].ravel(), logmel[40:48, 32:48].ravel())[0, 1] > 0.95
    colour = [
        (of[..., 0] - of[..., 2])[68:76, 20:28].mean() for of in (image, faint)
    ]  # within the patch (4, 1)
    assert colour[0] > 1.5 * colour[1] > 0.05
    inside = image[66:78, 18:30]
    assert len(np.unique(inside.reshape(-1, 3), axis=0)) > 50  # the spectrogram is seen through it
    assert "the patch (4, 1)" in strong.picture("x", 1.0).label


def test_an_encoder_in_training_is_left_in_its_mode(encoder, sound):
    encoder.train()
    attention_maps(encoder, sound)
    assert encoder.training
