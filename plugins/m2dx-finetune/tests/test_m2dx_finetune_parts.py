"""The parts of fine-tuning: augmentation, network, optimizers, learning rate, loss."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from m2dx_finetune.augmentation import (
    StepRandom,
    mask_stripes,
    mix,
    mixup,
    random_resize_crop,
    resize,
    structured_patchout,
)
from m2dx_finetune.evaluator import (
    WEIGHT_DECAY,
    Finetune,
    classification_loss,
    learning_rate,
    make_optimizer,
)
from torch.nn import functional as F

from m2dx.encoder.audio import Head, random_encoder
from m2dx.encoder.finetuned import FinetunedNetwork
from m2dx.recipe.schema import AudioSection, ModelSection


def generator(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def encoder():
    """Input 80 x 64, patches 16 x 16, so a grid of 5 x 4; 192 wide."""
    model = ModelSection(size="tiny", depth=1)
    return random_encoder(AudioSection(crop_seconds=0.64), model, mean=-7.0, std=4.0, seed=0)


def patchout(seed):
    return partial(structured_patchout, ratio=0.5, random=generator(seed))


# Augmentation


def test_mix_is_the_weighted_sum_of_partners():
    values = torch.tensor([[1.0, 2.0], [3.0, 6.0], [0.0, 10.0]])
    mixed = mix(values, torch.tensor([1, 2, 0]), torch.tensor([[0.5], [1.0], [0.25]]))
    assert mixed.tolist() == [[2.0, 4.0], [3.0, 6.0], [0.75, 4.0]]


def test_mixup_mixes_clips_and_targets_alike():
    clips = torch.eye(50)
    wav, targets = mixup(clips, clips.clone(), alpha=0.5, random=generator())
    assert torch.equal(wav, targets)
    assert torch.allclose(targets.sum(1), torch.ones(50))
    shares = targets.diagonal()
    assert ((shares > 0.05) & (shares < 0.95)).sum() > 10
    assert 0.3 < float(shares.mean()) < 0.7  # Beta(a, a) has mean 0.5
    again, _ = mixup(clips, clips, alpha=0.5, random=generator())
    assert torch.equal(again, wav)


def test_masks_are_one_stripe_of_each_kind_per_clip_narrower_than_asked():
    masked = mask_stripes(torch.ones(200, 1, 80, 100), mels=15, frames=48, random=generator())
    rows, columns = masked[:, 0].amax(2) == 0, masked[:, 0].amax(1) == 0  # (B, M), (B, L)
    for hidden, longest in ((rows, 15), (columns, 48)):
        widths = hidden.sum(1)
        assert int(widths.min()) == 0 and int(widths.max()) == longest - 1
        edges = (hidden.int().diff(dim=1) == 1).sum(1) + hidden[:, 0]
        assert torch.equal(edges, (widths > 0).int())  # one stripe
        assert hidden.any(0).all()  # anywhere
    inside = rows[:, :, None] | columns[:, None]
    assert torch.equal(masked[:, 0] == 0, inside)
    assert len({tuple(row.tolist()) for row in rows}) > 100  # each clip's own


def test_a_mask_of_zero_is_off():
    logmel = torch.ones(4, 1, 8, 10)
    only_time = mask_stripes(logmel, mels=0, frames=8, random=generator())
    assert (only_time[:, 0, :1] == only_time[:, 0]).all()


def test_resize_keeps_corners_and_interpolates():
    ramp = torch.arange(5.0).expand(1, 3, 5)
    larger = resize(ramp, (6, 9))
    assert larger.shape == (1, 6, 9)
    assert larger[0, :, 0] == pytest.approx(0.0, abs=1e-6) and larger[0, :, -1] == pytest.approx(4.0)
    assert larger[0, 2, 4] == pytest.approx(2.0)


class Given:
    """Draws that a test sets: `uniform` gives scales, `integers` the upper left corner, each in order."""

    def __init__(self, scales, corner):
        self.scales, self.corner, self.bounds = iter(scales), iter(corner), []

    def uniform(self, low, high):
        assert (low, high) == (0.6, 1.5)
        return next(self.scales)

    def integers(self, bound):
        self.bounds.append(bound)
        return next(self.corner)


def test_a_crop_of_the_whole_size_from_the_middle_changes_nothing():
    logmel = torch.randn(1, 1, 8, 20)
    draws = Given((1.0, 1.0), (0, 5))
    assert torch.allclose(random_resize_crop(logmel, random=draws), logmel, atol=1e-6)
    assert draws.bounds == [1, 11]  # a canvas of 8 x 30


def test_a_crop_from_the_edge_of_the_canvas_has_its_zeros():
    logmel = torch.ones(1, 1, 8, 20)
    left = random_resize_crop(logmel, random=Given((1.0, 1.0), (0, 0)))
    assert left[0, 0, 0].tolist() == pytest.approx([0.0] * 5 + [1.0] * 15, abs=1e-5)
    whole = random_resize_crop(logmel, random=Given((1.5, 1.5), (0, 0)))  # as long as the canvas, not higher
    assert whole.shape == logmel.shape and whole[0, 0, :, 10].tolist() == pytest.approx([1.0] * 8, abs=1e-5)
    assert whole[0, 0, 0, [0, -1]].tolist() == pytest.approx([0.0, 0.0], abs=1e-5)
    part = random_resize_crop(logmel, random=Given((0.6, 0.6), (3, 9)))  # inside of the log-mel
    assert torch.allclose(part, logmel, atol=1e-5)


def test_patchout_drops_whole_rows_and_columns_to_the_ratio():
    freq, time, rows_dropped = 5, 38, set()
    for seed in range(60):
        kept = structured_patchout((freq, time), 3, ratio=0.5, random=generator(seed))
        for ids in kept:
            grid = torch.zeros(freq * time, dtype=torch.bool)
            grid[ids] = True
            grid = grid.view(freq, time)
            assert torch.equal(grid, grid.any(1)[:, None] & grid.any(0)[None])
            assert int(grid.sum()) == len(ids)
            rows_dropped.add(freq - int(grid.any(1).sum()))
        assert kept.shape[1] / (freq * time) == pytest.approx(0.5, abs=0.02)
    assert rows_dropped == {0, 1, 2}


@pytest.mark.parametrize("grid", [(1, 20), (1, 1), (5, 1), (5, 2)])
@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.9])
def test_patchout_leaves_something_of_any_grid(grid, ratio):
    for seed in range(10):
        kept = structured_patchout(grid, 2, ratio=ratio, random=generator(seed))
        assert kept.shape[1] >= 1 and int(kept.max()) < grid[0] * grid[1]


def test_steps_differ_and_each_kind_of_draw_has_its_own_numbers():
    one, again, later = (StepRandom.of(3, epoch=0, step=step) for step in (0, 0, 1))
    values = [draw.random() for draw in vars(one).values()]
    assert len(set(values)) == 5
    assert [draw.random() for draw in vars(again).values()] == values
    assert set(values).isdisjoint(draw.random() for draw in vars(later).values())


# Network


def test_features_are_those_of_the_encoder_without_patchout(encoder):
    logmel = torch.randn(3, 1, 80, 64)
    network = FinetunedNetwork(encoder, 4).eval()
    expected = network.head(encoder.encode_logmel(logmel)[-1].mean(1))
    assert network.head.linear.in_features == 5 * 192
    assert torch.equal(network(logmel), expected) and expected.shape == (3, 4)


def test_features_with_patchout_are_the_mean_of_all_patches_and_as_wide_as_a_token(encoder):
    logmel = torch.randn(3, 1, 80, 64)
    network = FinetunedNetwork(encoder, 4, patchout=0.5).eval()
    assert network.head.linear.in_features == 192
    patches = encoder.encoder(logmel)[:, 1:]
    assert torch.allclose(network.patch_mean(logmel), patches.mean(1), atol=1e-6)
    one, again, other = (network(logmel, kept=patchout(seed)) for seed in (0, 0, 1))
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert torch.equal(network(logmel), network(logmel))  # none is dropped in a test


def test_patchout_encodes_the_kept_patches_with_their_own_positions(encoder):
    logmel = torch.randn(2, 1, 80, 64)
    network = FinetunedNetwork(encoder, 4, patchout=0.5).eval()
    kept = structured_patchout((5, 4), 2, ratio=0.5, random=generator(3))
    expected = encoder.encoder.encode(encoder.encoder.embed(logmel), kept)[:, 1:].mean(1)
    assert torch.allclose(network.patch_mean(logmel, kept=patchout(3)), expected, atol=1e-6)


@pytest.mark.parametrize("patchout", [0.0, 0.5])
def test_longer_audio_is_split_or_has_interpolated_positions(encoder, patchout):
    logmel = torch.randn(2, 1, 80, 96)  # 1.5 times the input
    networks = {
        adjust: FinetunedNetwork(encoder, 3, patchout=patchout, adjust_positions=adjust).eval()
        for adjust in (False, True)
    }
    networks[True].head.load_state_dict(networks[False].head.state_dict())
    split, whole = networks[False](logmel), networks[True](logmel)
    assert not torch.allclose(split, whole, atol=1e-4)
    tokens = encoder.encoder(logmel)[:, 1:]  # positions interpolated to 6 in time
    assert tokens.shape[1] == 5 * 6
    if patchout:
        features = tokens.mean(1)
    else:
        features = tokens.unflatten(1, (5, 6)).mean(2).flatten(1)  # (B, F, T, D) -> (B, F*D)
    assert torch.allclose(whole, networks[True].head(features), atol=1e-6)
    shorter = logmel[..., :32]
    assert torch.equal(networks[False](shorter), networks[True](shorter))


def test_a_frozen_patch_embedding_stays_while_the_rest_is_trained(encoder):
    network = Finetune(freeze_patch_embed=True).network(encoder, 3).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimizer = make_optimizer("adamw", network.parameters(), weight_decay=0.0)
    for group in optimizer.param_groups:
        group["lr"] = 1e-2
    for seed in range(2):  # the second step has gradients before the head, whose weights begin near 0
        logmel = torch.randn(4, 1, 80, 64, generator=torch.Generator().manual_seed(seed))
        optimizer.zero_grad()
        classification_loss(network(logmel), torch.eye(4, 3), multi_label=False).backward()
        optimizer.step()
    moved = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    trained = {name for name, parameter in network.named_parameters() if "patch_embed" not in name}
    assert trained <= moved and not any("patch_embed" in name or "pos_embed" in name for name in moved)


def test_the_copy_has_no_old_head_and_leaves_the_encoder_alone(encoder):
    encoder.head = torch.nn.Linear(2, 2)
    try:
        network = FinetunedNetwork(encoder, 3, adjust_positions=True)
    finally:
        head, encoder.head = encoder.head, None
    assert network.encoder.head is None and head is not None
    assert encoder.long_clips == "split" and network.encoder.encoder is not encoder.encoder


def test_the_head_is_a_batch_norm_without_parameters_and_a_linear_layer():
    head = Head(3, 2).train()
    assert {name for name, _ in head.named_parameters()} == {"linear.weight", "linear.bias"}
    assert float(head.linear.weight.detach().std()) < 0.03 and not head.linear.bias.any()
    x = torch.tensor([[1.0, 2.0, 4.0], [3.0, 2.5, 0.0]])
    expected = torch.tensor([[-1.0, -1.0, 1.0], [1.0, 1.0, -1.0]]) @ head.linear.weight.T
    assert torch.allclose(head(x), expected, atol=1e-4)


# Optimisation


def first_steps(name, weight_decay, *, lr=0.5, steps=2):
    """A parameter (3, 4) after steps with the gradient (1, 2)."""
    weight = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    optimizer = make_optimizer(name, [weight], weight_decay=weight_decay)
    optimizer.param_groups[0]["lr"] = lr
    values = []
    for _ in range(steps):
        weight.grad = torch.tensor([1.0, 2.0])
        optimizer.step()
        values.append(weight.tolist())
    return values


@pytest.mark.parametrize("name", ["sgd", "lars"])
def test_sgd_and_lars_as_published_take_the_gradient_with_momentum(name):
    assert first_steps(name, WEIGHT_DECAY[name]) == [
        pytest.approx([2.5, 3.0]),  # - 0.5 g
        pytest.approx([1.55, 1.1]),  # - 0.5 (0.9 g + g)
    ]


def test_lars_with_weight_decay_scales_the_step_by_the_ratio_of_norms():
    (after,) = first_steps("lars", 0.1, steps=1)
    norm, gradient = 5.0, math.sqrt(5.0)
    trust = 0.001 * norm / (gradient + 0.1 * norm)
    assert after == pytest.approx(
        [3.0 - 0.5 * trust * (1.0 + 0.3), 4.0 - 0.5 * trust * (2.0 + 0.4)], rel=1e-6
    )


def test_adamw_takes_a_step_of_the_learning_rate_and_decays_weights_apart():
    (after,) = first_steps("adamw", 0.1, lr=0.01, steps=1)
    assert after == pytest.approx([3.0 * 0.999 - 0.01, 4.0 * 0.999 - 0.01], rel=1e-6)
    (published,) = first_steps("adamw", WEIGHT_DECAY["adamw"], lr=0.01, steps=1)
    assert published == pytest.approx([3.0 * (1 - 1e-6) - 0.01, 4.0 * (1 - 1e-6) - 0.01], rel=1e-7)


@pytest.mark.parametrize(
    ("epoch", "peak", "warmup", "total", "published"),
    [
        (0, 2.0, 15, 70, 0.0),
        (3, 2.0, 15, 70, 0.4),
        (15, 2.0, 15, 70, 1.782),
        (35, 2.0, 15, 70, 1.0),
        (70, 2.0, 15, 70, 0.0),
        (25, 5e-4, 5, 50, 2.5e-4),
        (0, 2.0, 0, 5, 2.0),
    ],
)
def test_the_learning_rate_warms_up_and_goes_on_as_a_cosine_from_the_first_epoch(
    epoch, peak, warmup, total, published
):
    rate = learning_rate(epoch, peak=peak, warmup_steps=warmup, total_steps=total)
    assert rate == pytest.approx(published, rel=1e-3, abs=1e-12)


def test_the_loss_is_a_mean_over_clips_and_classes():
    logits = torch.randn(6, 4)
    y = torch.tensor([0, 1, 2, 3, 0, 1])
    targets = F.one_hot(y, 4).float()
    single = classification_loss(logits, targets, multi_label=False)
    assert float(single) == pytest.approx(float(F.cross_entropy(logits, y)) / 4, rel=1e-6)
    flat = torch.zeros(1, 2)
    assert float(classification_loss(flat, torch.tensor([[0.3, 0.7]]), multi_label=False)) == pytest.approx(
        math.log(2) / 2
    )
    assert float(classification_loss(flat, torch.tensor([[1.0, 1.0]]), multi_label=True)) == pytest.approx(
        math.log(2)
    )
