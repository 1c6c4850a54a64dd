"""The numbers of the published implementation, through the project's own modules."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from m2dx.contract.components import OfflineEncoder, TaskShapes, Views
from m2dx.encoder.published import MODEL_NAMES, rename
from m2dx.model.losses import BCE, NormMSE, standardise
from m2dx.model.m2d import M2D, M2DAllPatches
from m2dx.model.mae import MSMMAE
from m2dx.model.mappers import LinearMapper, PoolLinearMapper
from m2dx.model.masking import MaskDraw, RandomMasking, gather_tokens, num_visible_patches
from m2dx.model.multitask import MultiTask, Task
from m2dx.model.patches import sincos_positions


def close(actual: Tensor, expected: Tensor, *, atol: float = 1e-5) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


def same_loss(actual: Tensor, expected: Tensor, *, atol: float = 1e-6) -> None:
    close(actual.detach().reshape(1), expected, atol=atol)


def make_m2d(parity: Any, weights: str = "m2d_weights", *, method: type[M2D] = M2D, **options: Any) -> M2D:
    model = method(parity.grid, parity.size, parity.predictor, **options)
    model.load_state_dict(rename(parity.weights(weights), MODEL_NAMES))  # strict: every tensor has its place
    return model


def test_every_published_name_is_known(parity: Any) -> None:
    weights = parity.weights()
    assert len(rename(weights, MODEL_NAMES)) == len(weights) - 1  # all but norm_stats
    assert set(weights) - set(rename(weights, {name: name for name in MODEL_NAMES})) == {"norm_stats"}


def test_positions(parity: Any) -> None:
    weights, shape = parity.weights(), parity.grid.shape
    close(sincos_positions(shape, parity.size.embed_dim), weights["pos_embed"], atol=1e-6)
    close(sincos_positions(shape, parity.predictor.embed_dim), weights["decoder_pos_embed"], atol=1e-6)


def test_mask(parity: Any) -> None:
    expected = parity.tensors["m2d_mask"]
    close(parity.mask.is_masked.float(), expected, atol=0)
    assert (
        num_visible_patches(parity.grid.num_patches, parity.meta["mask_ratio"]) == parity.meta["num_visible"]
    )


def test_m2d_forward(parity: Any) -> None:
    output = make_m2d(parity)(parity.tensors["x"], parity.mask)
    close(output.latent, parity.tensors["m2d_visible_latent"])
    close(output.prediction, parity.tensors["m2d_prediction"])
    same_loss(output.loss, parity.tensors["m2d_loss"])


def test_m2d_target(parity: Any) -> None:
    """The published tensor is the target network's output before it is standardised."""
    model, x, mask = make_m2d(parity), parity.tensors["x"], parity.mask
    raw = make_m2d(parity, standardise_target=False)(x, mask).target
    close(raw, parity.tensors["m2d_target"])
    close(model(x, mask).target, standardise(parity.tensors["m2d_target"]), atol=2e-5)


def test_m2d_mse(parity: Any) -> None:
    output = make_m2d(parity, loss="mse")(parity.tensors["x"], parity.mask)
    same_loss(output.loss, parity.tensors["m2d_loss_mse"])


def test_m2d_gradient(parity: Any) -> None:
    model = make_m2d(parity)
    model(parity.tensors["x"], parity.mask).loss.backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    same_loss(nn.utils.get_total_norm([p.grad for p in trained]), parity.tensors["m2d_grad_norm"], atol=1e-5)
    gradient = model.online.patch_embed.proj.weight.grad
    assert gradient is not None
    close(gradient, parity.tensors["m2d_grad_patch_embed"])


def test_moving_average(parity: Any) -> None:
    model = make_m2d(parity)
    model.update_target(0.9)
    name = "blocks.0.attn.qkv.weight"
    close(model.target.get_parameter(name).detach(), parity.tensors[f"m2d_ema0.9_target_{name}"], atol=1e-6)


def test_target_of_all_patches(parity: Any) -> None:
    model = make_m2d(parity, "m2d_all_patches_weights", method=M2DAllPatches)
    output = model(parity.tensors["x"], parity.mask)
    same_loss(output.loss, parity.tensors["m2d_all_patches_loss"])


def test_msm_mae(parity: Any) -> None:
    x, mask, losses = parity.tensors["x"], parity.mask, {}
    for standard in (False, True):
        model = MSMMAE(parity.grid, parity.size, parity.predictor, standardise_target=standard)
        model.load_state_dict(rename(parity.weights("msm_mae_weights"), MODEL_NAMES))
        output = model(x, mask)
        close(output.prediction, parity.tensors["mae_prediction"])
        losses[standard] = output.loss
    same_loss(losses[False], parity.tensors["mae_loss"])
    same_loss(losses[True], parity.tensors["mae_loss_norm_pix"])


class Given(OfflineEncoder):
    """A training signal that the test gives."""

    name = "given"

    def __init__(self, signal: Tensor) -> None:
        super().__init__()
        self.signal, self.embed_dim = signal, signal.shape[-1]

    def forward(self, views: Views) -> Tensor:
        return self.signal


class GivenViews(nn.Module):
    """An input that the test gives, for the method and for offline encoders."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.x = x

    def forward(self, batch: Any, count: int) -> tuple[list[Tensor], Views]:
        return [self.x] * count, Views(None, self.x)


class GivenMask:
    def __init__(self, ids_shuffle: Tensor) -> None:
        self.ids_shuffle, self.seeds = ids_shuffle, torch.zeros(len(ids_shuffle), dtype=torch.int64)


def multitask_losses(parity: Any, weights: str, task: Task, *, weight: float) -> Any:
    published = parity.weights(weights)
    task.online_mapper.load_state_dict(rename(published, {"offline_predictor.": "linear."}))
    views: Any = GivenViews(parity.tensors["x"])
    masking = MaskDraw(RandomMasking(parity.grid.shape, 1), parity.grid.num_patches)
    model = MultiTask(
        views,
        make_m2d(parity, weights),
        {"task": task},
        masking=masking,
        method="m2d",
        num_visible=parity.meta["num_visible"],
        weight=weight,
    )
    return model(GivenMask(parity.tensors["ids_shuffle"]))  # type: ignore[arg-type]


def test_m2dx(parity: Any) -> None:
    target = parity.tensors["m2dx_offline_target"]
    shapes = TaskShapes(parity.grid.shape, parity.size.embed_dim, target.shape[1], target.shape[2])
    task = Task(Given(target), LinearMapper(shapes), NormMSE(), weight=0.5)
    losses = multitask_losses(parity, "m2dx_weights", task, weight=1.0)
    same_loss(losses.parts["m2d"], parity.tensors["m2dx_loss_m2d"])
    same_loss(losses.parts["task"], parity.tensors["m2dx_loss_off"])
    same_loss(losses.total, parity.tensors["m2dx_loss"])


def test_m2d_as(parity: Any) -> None:
    labels = parity.tensors["m2das_labels"]
    shapes = TaskShapes(parity.grid.shape, parity.size.embed_dim, None, labels.shape[1])
    task = Task(Given(labels), PoolLinearMapper(shapes), BCE(), weight=1.0)
    losses = multitask_losses(parity, "m2das_weights", task, weight=1.0)
    same_loss(losses.parts["m2d"], parity.tensors["m2das_loss_m2d"])
    same_loss(losses.parts["task"], parity.tensors["m2das_loss_off"])
    same_loss(losses.total, parity.tensors["m2das_loss"])


@pytest.mark.parametrize("kind", ["visible", "masked"])
def test_h_hat_is_in_the_order_of_the_patches(parity: Any, kind: str) -> None:
    output = make_m2d(parity)(parity.tensors["x"], parity.mask)
    ids = getattr(parity.mask, kind)
    expected = output.latent[:, 1:] if kind == "visible" else output.prediction
    close(gather_tokens(output.tokens, ids), expected, atol=0)
