"""M2D: the flow of eq. (1), the moving average of eq. (3), where gradients go, and the options."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from m2dx.contract.components import Mask, PatchGrid, ViTSize
from m2dx.model.m2d import M2D, M2DAllPatches
from m2dx.model.mae import MSMMAE
from m2dx.model.masking import gather_tokens
from m2dx.model.vit import Predictor

GRID = PatchGrid((32, 48), (16, 16))
SIZE, PREDICTOR = ViTSize(16, 1, 2), ViTSize(8, 1, 2)
MASK = Mask(torch.tensor([[4, 1, 0, 2, 3, 5], [0, 5, 1, 2, 3, 4]]), 2)


@pytest.fixture
def logmel(generator: torch.Generator) -> torch.Tensor:
    return torch.randn(2, 1, 32, 48, generator=generator)


def test_equation_1() -> None:
    """The predictor gets visible tokens and shared mask tokens in the order of the patches, with positions."""
    predictor = Predictor(GRID, PREDICTOR, input_dim=16, output_dim=16)
    nn.init.zeros_(predictor.embed.weight)
    nn.init.ones_(predictor.embed.bias)  # every visible token, and the class token, becomes ones
    nn.init.constant_(predictor.mask_token, -3.0)
    given: list[torch.Tensor] = []
    predictor.trunk.register_forward_pre_hook(lambda module, args: given.append(args[0]))
    predictor(torch.randn(2, 3, 16), MASK.restore)
    plain = given[0] - predictor.pos_embed
    kinds = plain.mean(dim=-1).round()  # 1 class and visible, -3 masked
    assert kinds.tolist() == [[1, -3, 1, -3, -3, 1, -3], [1, 1, -3, -3, -3, -3, 1]]
    torch.testing.assert_close(plain, kinds[..., None].expand(-1, -1, 8), rtol=0, atol=1e-6)


def test_the_online_encoder_sees_visible_patches_only(logmel: torch.Tensor) -> None:
    model = M2D(GRID, SIZE, PREDICTOR).eval()
    before = model(logmel, MASK)
    hidden = logmel.clone()
    hidden[0, :, :16, :16] += 5.0  # patch 0 of clip 0: masked
    after = model(hidden, MASK)
    assert torch.equal(before.latent, after.latent) and torch.equal(before.prediction, after.prediction)
    assert not torch.equal(before.target[0], after.target[0])


@pytest.mark.parametrize(("method", "changes"), [(M2D, False), (M2DAllPatches, True)])
def test_the_target_network_sees_masked_patches_only_or_all(
    logmel: torch.Tensor, method: type[M2D], changes: bool
) -> None:
    model = method(GRID, SIZE, PREDICTOR).eval()
    before = model(logmel, MASK).target
    seen = logmel.clone()
    seen[0, :, 16:, 16:32] += 5.0  # patch 4 of clip 0: visible
    after = model(seen, MASK).target
    assert before.shape == after.shape == (2, 4, 16)
    assert torch.equal(before, after) is not changes


def test_h_hat_has_visible_and_predicted_features_in_place(logmel: torch.Tensor) -> None:
    output = M2D(GRID, SIZE, PREDICTOR)(logmel, MASK)
    assert output.tokens.shape == (2, 6, 16)
    assert torch.equal(
        output.tokens[0, 4], output.latent[0, 1]
    )  # the first visible one, after the class token
    assert torch.equal(output.tokens[0, 3], output.prediction[0, 2])
    assert torch.equal(gather_tokens(output.tokens, MASK.masked), output.prediction)
    assert M2D(GRID, SIZE, PREDICTOR)(logmel, MASK, with_tokens=False).tokens is None


def pairs(model: M2D) -> list[tuple[nn.Parameter, nn.Parameter]]:
    """Parameters of the target, each with the online one that it follows."""
    return list(zip(model.target.parameters(), model.online.trunk.parameters(), strict=True))


def test_equation_3() -> None:
    model = M2D(GRID, SIZE, PREDICTOR)
    for target, online in pairs(model):
        nn.init.constant_(target, 2.0)
        nn.init.constant_(online, 6.0)
    model.update_target(0.75)
    assert {value for target, _ in pairs(model) for value in target.unique().tolist()} == {3.0}
    assert {value for _, online in pairs(model) for value in online.unique().tolist()} == {6.0}
    model.update_target(1.0)
    assert all((target == 3.0).all() for target, _ in pairs(model))
    model.update_target(0.0)
    assert all((target == 6.0).all() for target, _ in pairs(model))


def test_the_target_has_nothing_that_the_moving_average_leaves_out() -> None:
    target = M2D(GRID, SIZE, PREDICTOR).target
    assert target.state_dict().keys() == dict(target.named_parameters()).keys()


def test_no_gradient_reaches_the_target(logmel: torch.Tensor) -> None:
    model = M2D(GRID, SIZE, PREDICTOR)
    output = model(logmel, MASK)
    assert not output.target.requires_grad
    output.loss.backward()
    assert all(p.grad is None and not p.requires_grad for p in model.target.parameters())
    trained = [*model.online.named_parameters(), *model.predictor.named_parameters()]
    assert [name for name, p in trained if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_gradient_of_masked_patches_does_not_flow_through_the_target(logmel: torch.Tensor) -> None:
    """The target takes the online patch embedding, but its loss does not train it through there."""
    x = logmel.requires_grad_()
    M2D(GRID, SIZE, PREDICTOR)(x, MASK).loss.backward()
    assert x.grad is not None
    assert x.grad[0, :, :16, :16].abs().sum() == 0  # patch 0, masked
    assert x.grad[0, :, 16:, 16:32].abs().sum() > 0  # patch 4, visible


def test_target_init() -> None:
    online = M2D(GRID, SIZE, PREDICTOR, target_init="online")
    assert all(torch.equal(target, own) for target, own in pairs(online))
    random = M2D(GRID, SIZE, PREDICTOR)
    named = zip(random.target.named_parameters(), random.online.trunk.parameters(), strict=True)
    assert any(not torch.equal(target, own) for (name, target), own in named if "qkv.weight" in name)


@pytest.mark.parametrize("method", [M2D, M2DAllPatches])
@pytest.mark.parametrize("layers", ["last", "mean"])
@pytest.mark.parametrize("standardised", [True, "channel", False])
def test_layers_and_standardisation_of_the_target(
    logmel: torch.Tensor, method: type[M2D], layers: Any, standardised: Any
) -> None:
    """Against numpy: a mean of standardised layers, and what is standardised by patch, channel, or not."""
    size = ViTSize(16, 3, 2)
    options = {"target_layers": layers, "standardise_target": standardised, "loss": "mse"}
    model = method(GRID, size, PREDICTOR, **options).eval()
    output = model(logmel, MASK)
    rows = torch.arange(6).expand(2, -1) if model.target_sees_all else MASK.masked
    tokens = model.online.with_class_token(gather_tokens(model.online.embed(logmel), rows))
    given = [layer[:, 1:].detach().double().numpy() for layer in model.target.layers(tokens)]

    def by_channel(x: Any) -> Any:
        return (x - x.mean((0, 1))) / np.sqrt(x.var((0, 1), ddof=1) + 1e-6)

    expected = given[-1] if layers == "last" else np.mean([by_channel(x) for x in given], axis=0)
    if model.target_sees_all:
        expected = np.take_along_axis(expected, MASK.masked.numpy()[..., None], 1)
    if standardised == "channel":
        expected = by_channel(expected)
    elif standardised:
        expected = (expected - expected.mean(-1, keepdims=True)) / np.sqrt(
            expected.var(-1, ddof=1, keepdims=True) + 1e-6
        )
    np.testing.assert_allclose(output.target.numpy(), expected, atol=1e-5)
    error = (output.prediction.detach().double().numpy() - expected) ** 2
    assert output.loss.item() == pytest.approx(error.mean(), rel=1e-5)


def test_msm_mae_compares_masked_patches_with_the_spectrogram(logmel: torch.Tensor) -> None:
    model = MSMMAE(GRID, SIZE, PREDICTOR)
    nn.init.zeros_(model.predictor.pred.weight)
    nn.init.constant_(model.predictor.pred.bias, 0.5)
    masked = MASK.is_masked.unflatten(1, (2, 3)).repeat_interleave(16, 1).repeat_interleave(16, 2)
    expected = (0.5 - logmel[:, 0][masked]).square().mean()
    torch.testing.assert_close(model(logmel, MASK).loss, expected)


def test_msm_mae_gives_h_hat_where_tasks_want_it(logmel: torch.Tensor) -> None:
    model = MSMMAE(GRID, SIZE, PREDICTOR, with_tokens=True)
    output = model(logmel, MASK)
    assert output.tokens.shape == (2, 6, 16)
    assert torch.equal(gather_tokens(output.tokens, MASK.visible), output.latent[:, 1:])
    output.tokens.sum().backward()
    assert model.to_latent is not None and model.to_latent.weight.grad is not None


@pytest.mark.parametrize(
    ("method", "options"),
    [
        (M2D, {}),
        (M2DAllPatches, {}),
        (MSMMAE, {"with_tokens": True}),
    ],
)
def test_masks_of_a_clip_equal_the_mean_over_passes(
    logmel: torch.Tensor, generator: torch.Generator, method: Any, options: dict[str, Any]
) -> None:
    """Embedding, and a target that sees all, are computed once per clip; loss, features and gradients are the same."""
    model = method(GRID, SIZE, PREDICTOR, **options).eval()
    ids = torch.rand(2, 3, 6, generator=generator).argsort(-1)
    embedded: list[int] = []
    model.online.patch_embed.register_forward_hook(lambda *call: embedded.append(len(call[-1])))
    whole = model(logmel, Mask(ids.flatten(0, 1), 2))
    assert embedded == [2]
    whole.loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    passes = [model(logmel, Mask(ids[:, k], 2)) for k in range(3)]
    loss = torch.stack([of.loss for of in passes]).mean()
    loss.backward()
    torch.testing.assert_close(whole.loss, loss)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, model.get_parameter(name).grad)
    for name in ("latent", "prediction", "tokens"):
        rows = torch.stack([getattr(of, name) for of in passes], dim=1).flatten(0, 1)
        torch.testing.assert_close(getattr(whole, name), rows)
