"""M2D with offline tasks: who sees what, where gradients go, eq. (6), and what a checkpoint keeps."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from m2dx.contract.components import OfflineEncoder, PatchGrid, TaskShapes, Views, ViTSize
from m2dx.contract.errors import RecipeError
from m2dx.data.crops import Batch
from m2dx.data.logmel import LogMel
from m2dx.model.losses import MSE
from m2dx.model.m2d import M2D
from m2dx.model.mappers import LinearMapper, PoolLinearMapper
from m2dx.model.masking import MaskDraw, RandomMasking
from m2dx.model.multitask import LEAST_WEIGHT, MultiTask, Task, match_frames, target_shares
from m2dx.model.views import DataStatistics, ViewMaker

GRID = PatchGrid((80, 32), (16, 16))
SHAPES = TaskShapes(GRID.shape, 16, None, 3)
SAMPLES = 32 * 160


class Spy(OfflineEncoder):
    """Notes what it is given; its signal goes through a weight of its own, with dropout after it."""

    name = "spy"
    embed_dim = 3

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(1, 3), nn.Dropout(0.5))
        self.seen: list[Views] = []

    def forward(self, views: Views) -> Tensor:
        self.seen.append(views)
        signal: Tensor = self.layer(views.clean_wav.square().mean(dim=1, keepdim=True))
        return signal


def make_model(
    *, noise_ratio: float = 0.0, weight: float = 1.0, tasks: dict[str, float] | None = None
) -> MultiTask:
    torch.manual_seed(0)
    logmel = LogMel(
        sample_rate=16_000, n_fft=400, win_length=400, hop_length=160, n_mels=80, f_min=50.0, f_max=8000.0
    )
    views = ViewMaker(logmel, DataStatistics(-6.0, 2.0), noise_ratio=noise_ratio)
    made = {
        name: Task(Spy(), PoolLinearMapper(SHAPES), MSE(), weight=value)
        for name, value in ({"spy": 1.0} if tasks is None else tasks).items()
    }
    m2d = M2D(GRID, ViTSize(16, 1, 2), ViTSize(8, 1, 2))
    masking = MaskDraw(RandomMasking(GRID.shape, 4), 10)
    return MultiTask(views, m2d, made, method="m2d", masking=masking, num_visible=4, weight=weight)


def make_batch(*, noise: bool = False) -> Batch:
    generator = torch.Generator().manual_seed(1)
    wav = torch.randn(2, SAMPLES, generator=generator) * 0.1
    return Batch(
        inputs=wav,
        noise_wav=torch.randn(2, SAMPLES, generator=generator) if noise else None,
        labels={},
        ids_shuffle=torch.stack([torch.randperm(10, generator=generator) for _ in range(2)]),
        clip_ids=torch.arange(2),
        seeds=torch.arange(2),
        bad=(),
    )


def test_offline_encoders_see_clean_audio_and_m2d_the_noisy_one() -> None:
    model, batch = make_model(noise_ratio=0.5), make_batch(noise=True)
    inputs: list[Tensor] = []
    model.masked_model.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    model(batch)
    spy = model.tasks["spy"].offline_encoder
    assert isinstance(spy, Spy)
    clean_model = make_model(noise_ratio=0.0)
    clean_inputs: list[Tensor] = []
    clean_model.masked_model.register_forward_pre_hook(lambda module, args: clean_inputs.append(args[0]))
    clean_model(make_batch())
    assert torch.equal(spy.seen[0].clean_wav, batch.inputs)
    assert torch.equal(spy.seen[0].clean_logmel, clean_inputs[0])
    assert (inputs[0] - clean_inputs[0]).abs().mean() > 0.1


def test_no_gradient_reaches_offline_encoders() -> None:
    model = make_model()
    model.train()
    assert not model.tasks["spy"].offline_encoder.training and model.tasks["spy"].online_mapper.training
    model(make_batch()).total.backward()
    assert all(p.grad is None for p in model.tasks["spy"].offline_encoder.parameters())
    assert all(p.grad is not None for p in model.tasks["spy"].online_mapper.parameters())


def test_the_task_trains_the_encoder_and_the_predictor_through_h_hat() -> None:
    model = make_model(weight=0.0)
    model(make_batch()).total.backward()
    m2d = model.masked_model
    assert isinstance(m2d, M2D)
    for parameter in (
        m2d.online.patch_embed.proj.weight,
        m2d.predictor.pred.weight,
        m2d.predictor.mask_token,
    ):
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0
    assert all(p.grad is None for p in m2d.target.parameters())


def test_equation_6() -> None:
    losses = make_model(weight=0.7, tasks={"a": 2.0, "b": 0.25})(make_batch())
    assert list(losses.parts) == ["m2d", "a", "b"]
    expected = 0.7 * losses.parts["m2d"] + 2.0 * losses.parts["a"] + 0.25 * losses.parts["b"]
    torch.testing.assert_close(losses.total, expected)
    assert losses.parts["a"].item() != losses.parts["b"].item()
    assert losses.latent.shape == (2, 4, 16) and not losses.latent.requires_grad


def test_without_tasks_it_is_m2d_alone() -> None:
    losses = make_model(tasks={})(make_batch())
    assert list(losses.parts) == ["m2d"]
    assert torch.equal(losses.total, losses.parts["m2d"])


def test_training_state_leaves_out_offline_encoders() -> None:
    model, other = make_model(), make_model()
    state = {key: value + 1.0 for key, value in model.training_state().items()}
    assert not [key for key in state if "offline_encoder" in key]
    assert [key for key in state if "online_mapper" in key]
    assert [key for key in state if key.startswith("masked_model.target.")]
    other.load_training_state(state)
    assert all(torch.equal(value, state[key]) for key, value in other.training_state().items())
    with pytest.raises(RuntimeError, match=r"(?s)Missing.*cls_token"):
        other.load_training_state({k: v for k, v in state.items() if not k.endswith("cls_token")})
    with pytest.raises(RuntimeError, match=r"(?s)Unexpected.*extra"):
        other.load_training_state({**state, "extra": torch.zeros(1)})


def test_match_frames() -> None:
    frames = torch.arange(6.0).reshape(1, 6, 1)
    assert match_frames(frames, 6).flatten().tolist() == [0, 1, 2, 3, 4, 5]
    assert match_frames(frames, 3).flatten().tolist() == [0.5, 2.5, 4.5]  # means of pairs
    assert match_frames(frames[:, :5], 3).flatten().tolist() == [0.5, 2.5, 4.0]  # the last frame repeated
    assert match_frames(torch.arange(7.0).reshape(1, 7, 1), 3).flatten().tolist() == [
        0.5,
        2.5,
        4.5,
    ]  # one left out
    # One frame short, as HuBERT is of tokens of 20 ms: the others stay where they are.
    assert match_frames(frames[:, :5], 6).flatten().tolist() == [0, 1, 2, 3, 4, 4]
    assert match_frames(frames, 5).flatten().tolist() == [0, 1, 2, 3, 4]
    upsampled = match_frames(torch.tensor([[[0.0], [4.0]]]), 4).flatten().tolist()
    assert upsampled == [0.0, 1.0, 3.0, 4.0]  # linear, at the centres of the frames
    assert match_frames(torch.arange(100.0).reshape(1, 100, 1), 40).flatten().tolist()[:2] == [1.0, 3.0]
    assert match_frames(torch.randn(2, 299, 5), 38).shape == (2, 38, 5)
    for frames_there, tokens in (
        (299, 24),
        (157, 9),
        (296, 32),
        (706, 38),
    ):  # no whole multiple: frames stay in time
        means = match_frames(torch.arange(float(frames_there)).reshape(1, -1, 1), tokens).flatten()
        centres = (torch.arange(tokens) + 0.5) * frames_there / tokens - 0.5
        assert (means - centres).abs().max() <= 1.0
    assert match_frames(torch.randn(2, 50, 5), 38).shape == (2, 38, 5)


def test_linear_mapper_by_hand() -> None:
    """Each frame's tokens of all frequencies, side by side, through one layer."""
    mapper = LinearMapper(TaskShapes((2, 3), 1, 3, 1))
    nn.init.constant_(mapper.linear.bias, 0.5)
    mapper.linear.weight.data = torch.tensor([[1.0, 100.0]])
    tokens = torch.tensor([[[1.0], [2.0], [3.0], [4.0], [5.0], [6.0]]])  # f=0: 1, 2, 3; f=1: 4, 5, 6
    assert mapper(tokens).flatten().tolist() == [401.5, 502.5, 603.5]


def test_pool_linear_mapper_by_hand() -> None:
    mapper = PoolLinearMapper(TaskShapes((2, 3), 1, None, 1))
    nn.init.zeros_(mapper.linear.bias)
    mapper.linear.weight.data = torch.tensor([[1.0, 100.0]])
    tokens = torch.tensor([[[1.0], [2.0], [3.0], [4.0], [5.0], [6.0]]])
    assert mapper(tokens).flatten().tolist() == [502.0]


def test_pool_linear_with_deviation_and_bottleneck_by_hand() -> None:
    mapper = PoolLinearMapper(TaskShapes((2, 3), 1, None, 1), pooling="mean_deviation", bottleneck=4)
    tokens = torch.tensor(
        [[[1.0], [2.0], [3.0], [4.0], [4.0], [4.0]]]
    )  # means 2 and 4, deviations sqrt(2/3) and 0
    assert mapper.narrow is not None
    nn.init.zeros_(mapper.narrow.bias)
    nn.init.zeros_(mapper.linear.bias)
    mapper.narrow.weight.data = torch.eye(4)
    mapper.linear.weight.data = torch.tensor([[1.0, 10.0, 100.0, 1000.0]])
    # Each pair of values is normalised to -1 and 1, the smaller one first: (-1, 1) and (1, -1).
    assert mapper(tokens).item() == pytest.approx(-1 + 10 + 100 - 1000, rel=1e-3)


def test_mappers_refuse_shapes_that_cannot_fit() -> None:
    with pytest.raises(RecipeError, match=r"\(B, 3, 7\).*\(B, 7\); use pool_linear"):
        LinearMapper(TaskShapes((2, 3), 1, None, 7))
    with pytest.raises(RecipeError, match=r"\(B, 3, 7\).*\(B, 12, 7\); set target_frames: tokens"):
        LinearMapper(TaskShapes((2, 3), 1, 12, 7))
    hint = r"use linear, with target_frames: tokens where its frames differ from the patch grid's"
    with pytest.raises(RecipeError, match=r"\(B, 7\).*\(B, 12, 7\); " + hint):
        PoolLinearMapper(TaskShapes((2, 3), 1, 12, 7))


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (lambda clip, patch: 3.0, (1.0, 0.0, 0.0)),
        (lambda clip, patch: (-1.0) ** patch, (0.0, 1.0, 0.0)),
        (lambda clip, patch: (-1.0) ** clip, (0.0, 0.0, 1.0)),
        (lambda clip, patch: (-1.0) ** (clip + patch), (0.0, 0.0, 0.0)),  # of single patches
        (lambda clip, patch: 1.0 + (-1.0) ** patch, (0.5, 0.5, 0.0)),
        (lambda clip, patch: 3.0 + (-1.0) ** patch + 2 * (-1.0) ** clip, (9 / 14, 1 / 14, 4 / 14)),
    ],
)  # fmt: skip
def test_the_shares_of_a_target(part: Callable[[int, int], float], expected: tuple[float, ...]) -> None:
    masked = torch.tensor([[1, 2, 3, 6], [6, 3, 2, 1]])  # the same patches in each clip, in another order
    target = torch.tensor([[[part(b, p)] * 8 for p in row] for b, row in enumerate(masked.tolist())])
    found = target_shares(target, masked)
    assert list(found) == ["target_constant", "target_position", "target_clip"]
    assert torch.stack(list(found.values())).tolist() == pytest.approx(expected, abs=1e-6)


def test_measuring_changes_no_loss_and_no_gradient() -> None:
    gradients, losses = [], []
    for measure in ("nothing", "target", "gradients"):
        model = make_model(weight=0.5, tasks={"spy": 3.0})
        found = model(make_batch(), measure)
        found.total.backward()
        losses.append(found)
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    for other in (1, 2):
        assert torch.equal(losses[0].total, losses[other].total)
        assert all(map(torch.equal, gradients[0], gradients[other]))
    assert losses[0].measured == {} and not any(name.startswith("gradient") for name in losses[1].measured)
    method, task = (float(losses[2].measured[f"gradient_{name}"]) for name in ("m2d", "spy"))
    twice = make_model(weight=1.0, tasks={"spy": 3.0})(make_batch(), "gradients").measured
    assert method > 0 < task and float(twice["gradient_m2d"]) == pytest.approx(2 * method)
    assert float(twice["gradient_spy"]) == pytest.approx(task)


@pytest.mark.parametrize(
    ("norms", "weights"),
    [
        ([(2.0, 4.0)], [0.25]),
        ([(2.0, 0.0), (2.0, 4.0)], [LEAST_WEIGHT, 0.25]),  # no clip of the first batch has a label
        ([(2.0, 4.0), (4.0, 4.0)], [0.25, 0.3]),  # 0.5 (0.8 x 2 + 0.2 x 4) / 4
        ([(2.0, 4.0), (2.0, 0.0)], [0.25, 0.3125]),
        ([(0.0, 4.0)], [LEAST_WEIGHT]),
    ],
)
def test_a_weight_that_is_auto_follows_the_gradients(
    norms: list[tuple[float, float]], weights: list[float]
) -> None:
    """`norms`: of the method and of the task, as if its weight were 1."""
    task = Task(Spy(), PoolLinearMapper(SHAPES), MSE(), gradient_ratio=0.5)
    found = [float(task.weight)]
    for method, own in torch.tensor(norms):
        task.balance(method, own * task.weight)
        found.append(float(task.weight))
    assert found == pytest.approx([LEAST_WEIGHT, *weights])


@pytest.mark.parametrize(("ratio", "weight"), [(0.5, 1.0), (2.0, 1.0), (0.5, 0.1)])
def test_the_gradient_of_a_task_has_the_stated_ratio(ratio: float, weight: float) -> None:
    """On the batch that it was measured on; before it, the task is as good as not there."""
    model = make_model(weight=weight)
    model.tasks["spy"] = Task(Spy(), PoolLinearMapper(SHAPES), MSE(), gradient_ratio=ratio)
    first = model(make_batch(), "gradients")
    assert first.total.item() == pytest.approx(weight * first.parts["m2d"].item(), rel=1e-4)
    model.balance(first.measured)
    measured = model(make_batch(), "gradients").measured
    assert float(measured["gradient_spy"] / measured["gradient_m2d"]) == pytest.approx(ratio, rel=1e-4)
    assert {"tasks.spy.weight", "tasks.spy.gradient_norms"} <= model.training_state().keys()
    assert float(measured["weight_spy"]) == float(model.training_state()["tasks.spy.weight"]) > 1e-3


class Elsewhere(MSE):
    """A loss of a layer before the output."""

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        return self.early.square().mean()


def test_an_automatic_weight_needs_a_gradient_to_compare() -> None:
    model = make_model(weight=1.0)
    loss = Elsewhere()
    loss.early = next(model.masked_model.online.parameters())
    model.tasks["spy"] = Task(Spy(), PoolLinearMapper(SHAPES), loss, gradient_ratio=0.5)
    with pytest.raises(RecipeError, match="compares gradients at the encoder's output, but spy has none"):
        model(make_batch(), "gradients")


def test_a_task_s_loss_with_several_masks_is_the_mean_over_them_and_its_target_computed_once() -> None:
    model, batch = make_model(), make_batch()
    ids = torch.stack([batch.ids_shuffle, batch.ids_shuffle.flip(1)], dim=1)  # (B, 2, P)
    spy: Any = model.tasks["spy"].offline_encoder
    several = model(replace(batch, ids_shuffle=ids.flatten(0, 1)))
    assert len(spy.seen) == 1
    alone = [model(replace(batch, ids_shuffle=ids[:, k])) for k in (0, 1)]
    for name in ("m2d", "spy"):
        torch.testing.assert_close(several.parts[name], sum(of.parts[name] for of in alone) / 2)
