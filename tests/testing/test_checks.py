"""m2dx.testing: the core's own components pass, and each check fails for a component that it is meant to find."""

import pathlib

import numpy as np
import pytest
import sklearn.datasets
import soundfile
import torch
from m2dx_pack.job import source_of_path
from m2dx_pack.packing import PackOptions, pack
from torch import nn

import m2dx
from m2dx.contract.components import KINDS, DataInfo
from m2dx.contract.host import PluginHost
from m2dx.testing import (
    ComponentCheckError,
    check_component,
    check_dataset,
    check_evaluator,
    check_loss,
    check_noise_source,
    check_offline_encoder,
    check_online_mapper,
)

SOUNDS = pathlib.Path(__file__).parents[2] / "examples" / "sounds"
OPTIONS = {
    ("dataset", "csv"): {"path": SOUNDS / "instrument.csv"},
    ("dataset", "folder"): {"path": SOUNDS / "sounds" / "instrument", "label_from_folder": True},
    ("dataset", "image_folder"): {"path": pathlib.Path(sklearn.datasets.__file__).parent / "images"},
}


def core_components():
    from m2dx.jobs import core

    host = PluginHost({"m2dx": core})
    return [(kind, host.component(kind, name)) for kind in KINDS for name in host.names(kind)]


@pytest.fixture
def packed(tmp_path):
    """Options of the data set of a pack."""
    pack(source_of_path(SOUNDS / "instrument.csv").sets, tmp_path / "pack", PackOptions(workers=0))
    return {"path": tmp_path / "pack"}


@pytest.mark.parametrize(
    ("kind", "component"), core_components(), ids=lambda value: getattr(value, "name", value)
)
def test_the_cores_components_pass(kind, component, request):
    made_here = request.getfixturevalue("packed") if component.name == "packed" else {}
    check_component(component, **made_here, **OPTIONS.get((kind, component.name), {}))


def fails(check, component, *args, match, **options):
    with pytest.raises(ComponentCheckError, match=match):
        check(component, *args, **options)


# Small components that pass; the broken ones below change one thing each.


class Energy(m2dx.OfflineEncoder):
    """Mean square of frames.

    Options:
        bands: columns, all the same
    """

    name = "energy"
    sample_rate = 16_000
    frame_rate = 50.0

    def __init__(self, *, bands: int = 3) -> None:
        super().__init__()
        self.embed_dim = bands
        self.register_buffer("scale", torch.ones(bands))

    def forward(self, views):
        frames = views.clean_wav[:, : views.clean_wav.shape[1] // 320 * 320].unflatten(1, (-1, 320))
        return frames.square().mean(2, keepdim=True) * self.scale


class Mean(m2dx.OnlineMapper):
    """Mean over all tokens, then a linear layer; clips only."""

    name = "mean"

    def __init__(self, shapes) -> None:
        super().__init__(shapes)
        if shapes.target_frames is not None:
            raise m2dx.RecipeError("one vector per clip only")
        self.linear = nn.Linear(shapes.embed_dim, shapes.target_dim)

    def forward(self, tokens):
        return self.linear(tokens.mean(1))


class L1(m2dx.Loss):
    """Mean absolute difference."""

    name = "l1"

    def forward(self, prediction, target):
        return (prediction - target).abs().mean()


class White(m2dx.NoiseSource):
    """White noise."""

    name = "white"

    def draw(self, num_samples, generator):
        return torch.randn(num_samples, generator=generator)


class Files(m2dx.Dataset):
    """Two files.

    Options:
        path: folder
    """

    name = "two_files"

    def __init__(self, *, path: pathlib.Path) -> None:
        self.path = path

    def clips(self, split=None):
        clips = [
            m2dx.Clip(self.path / f"{name}.wav", labels=(name,), split=name) for name in ("train", "test")
        ]
        return [clip for clip in clips if split in (None, clip.split)]


class Chance(m2dx.Evaluator):
    """The same score for all."""

    name = "chance"

    def evaluate(self, encoder, task, *, seeds):
        return [m2dx.Score(task.name, task.metric, 0.25, None, (0.25,), self.name)]


@pytest.fixture
def files(tmp_path):
    for name in ("train", "test"):
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(16_000), 16_000)
    return tmp_path


def test_the_components_that_are_broken_below_pass(files):
    for component in (Energy, Mean, L1, White, Chance):
        check_component(component)
    check_component(Files, path=files)
    check_offline_encoder(Energy, DataInfo(8_000, 8_000, {}), bands=2)


def test_a_class_of_no_kind_is_refused():
    fails(check_component, nn.Linear, match="must be a subclass of one of m2dx.MaskedModel, m2dx.Backbone")
    fails(check_loss, Energy, match="Energy must be a subclass of m2dx.Loss")


# Rules of the host, and documentation


class TestRules:
    def test_signature(self):
        class Bad(L1):
            """Scaled."""

            def __init__(self, scale: float = 1.0) -> None:
                super().__init__()

        fails(check_loss, Bad, match="the engine cannot give the positional argument 'scale'")

    def test_no_name(self):
        class Bad(m2dx.Loss):
            """No name."""

            def forward(self, prediction, target):
                return prediction.mean()

        fails(check_loss, Bad, match="must have a class attribute `name`")

    def test_option_without_documentation(self):
        class Bad(L1):
            """Scaled."""

            def __init__(self, *, scale: float = 1.0) -> None:
                super().__init__()

        fails(check_loss, Bad, match="must explain each option in its docstring, but not scale")

    def test_documentation_without_option(self):
        class Bad(L1):
            """Scaled.

            Options:
                scale: factor
            """

        fails(check_loss, Bad, match="not scale")

    def test_no_docstring(self):
        class Bad(L1):
            pass

        fails(check_loss, Bad, match="must have a docstring")

    def test_options_of_the_check_itself(self):
        fails(check_loss, L1, match="not valid: scal: Extra inputs", scal=1)
        fails(check_offline_encoder, Energy, match="bands: Input should be a valid integer", bands="many")

    def test_options_that_a_resolved_recipe_changes(self):
        class Bad(L1):
            """Scaled.

            Options:
                scale: factor
            """

            def __init__(self, *, scale: complex | str = 1j) -> None:
                super().__init__()

        fails(check_loss, Bad, match="must stay the same in a recipe's resolved copy")

    def test_an_init_that_fails(self):
        class Bad(Energy):
            """Cannot be built."""

            def __init__(self) -> None:
                super().__init__()
                raise ValueError("no weights")

        fails(check_offline_encoder, Bad, match="could not be built: no weights")


# Offline encoders


def encoder(**changes):
    """Energy with other attributes."""
    return type("Bad", (Energy,), {"__doc__": "Broken.", **changes})


class TestOfflineEncoder:
    def check(self, component, match):
        fails(check_offline_encoder, component, match=match)

    def test_width(self):
        def init(self, *, bands: int = 3) -> None:
            m2dx.OfflineEncoder.__init__(self)

        self.check(
            encoder(__init__=init), "embed_dim must be the width C of its output after __init__.*but is None"
        )
        self.check(
            encoder(forward=lambda self, v: Energy.forward(self, v)[..., :2]), r"must give \(1, 48, 3\)"
        )

    def test_frames(self):
        self.check(encoder(frame_rate=100.0), r"must give \(1, 96, 3\).*but gave \(1, 48, 3\)")
        self.check(encoder(frame_rate=None), r"must give \(1, 3\)")
        self.check(encoder(frame_rate=-1.0), "frame_rate must be a number of Hz")
        self.check(
            encoder(sample_rate=16_000.0),
            "sample_rate must be a number of Hz, or None, .*of type .*int.*but is 16000.0",
        )

    def test_a_rate_without_its_own(self):
        self.check(encoder(sample_rate=None), r"num_frames\(15360\) must work.*needs a sample_rate")

    def test_only_one_length(self):
        class Bad(Energy):
            """Sure of 0.96 s."""

            def forward(self, views):
                return super().forward(views)[:, :48]

        self.check(Bad, r"must give \(1, 104, 3\)")

    def test_no_tensor(self):
        self.check(
            encoder(forward=lambda self, views: [views.clean_wav]), r"must give \(1, 48, 3\), but gave list"
        )

    def test_type(self):
        self.check(
            encoder(forward=lambda self, v: Energy.forward(self, v).long()), "must give floating point"
        )
        self.check(
            encoder(forward=lambda self, v: Energy.forward(self, v).double()),
            "floating point, at most float32",
        )

    def test_silence(self):
        class Bad(Energy):
            """Log without a floor."""

            def forward(self, views):
                return super().forward(views).log()

        self.check(Bad, "2 x 15360 samples of silence at 16000 Hz must give finite values, but gave -inf")

    def test_forward_raises(self):
        self.check(encoder(forward=lambda self, views: 1 / 0), "must work, but raised ZeroDivisionError")

    def test_gradients(self):
        def forward(self, views):
            with torch.enable_grad():
                return Energy.forward(self, views) * torch.ones(1, requires_grad=True)

        self.check(encoder(forward=forward), "no gradient may reach it")

    def test_train_mode(self):
        def forward(self, views):
            self.train()
            return Energy.forward(self, views)

        self.check(encoder(forward=forward), "must stay in eval mode")

    def test_views_changed(self):
        def forward(self, views):
            views.clean_wav.mul_(0.5)
            return Energy.forward(self, views)

        self.check(encoder(forward=forward), "must not change the views")

    def test_random_output(self):
        def forward(self, views):
            return Energy.forward(self, views) + torch.rand(1)

        self.check(encoder(forward=forward), "must give the same output each time")

    def test_a_plain_tensor(self):
        class Bad(Energy):
            """Its window stays behind."""

            def __init__(self) -> None:
                super().__init__()
                self.window = torch.hann_window(320)

        self.check(Bad, r"`self.window` \(a plain Tensor\)")

    def test_modules_in_a_list(self):
        class Bad(Energy):
            """Its layers stay behind."""

            def __init__(self) -> None:
                super().__init__()
                self.layers = {"all": [nn.Linear(2, 2)]}

        self.check(Bad, r"`self.layers` \(a plain dict\)")

    def test_tensors_made_in_forward(self):
        def forward(self, views):
            return Energy.forward(self, views) * torch.linspace(0, 1, 3)

        self.check(encoder(forward=forward), "after .to.'meta'. all must happen on that device")

    def test_output_left_on_the_cpu(self):
        def forward(self, views):
            return torch.zeros(views.clean_wav.shape[0], views.clean_wav.shape[1] // 320, 3)

        self.check(encoder(forward=forward), "output must be there, but is on cpu")

    def test_state_that_is_not_saved(self):
        class Bad(Energy):
            """Random, not saved."""

            def __init__(self) -> None:
                super().__init__()
                self.register_buffer("random", torch.rand(3), persistent=False)

            def forward(self, views):
                return super().forward(views) * self.random

        self.check(Bad, "same output after load_state_dict")

    def test_state_that_does_not_load(self):
        class Bad(Energy):
            """Of another size each time."""

            def __init__(self) -> None:
                super().__init__()
                self.register_buffer("sized", torch.zeros(int(torch.randint(1, 10**6, ()))))

        self.check(Bad, "loading its state_dict into a fresh one.*must work.*size mismatch")

    def test_weights_that_a_resumed_run_would_not_have(self):
        random = np.random.default_rng(0)

        class Bad(Energy):
            """Random, not from torch."""

            def __init__(self) -> None:
                super().__init__()
                self.register_buffer("random", torch.from_numpy(random.random(3)).float())

            def forward(self, views):
                return super().forward(views) * self.random

        self.check(Bad, "two of them built under one torch seed")

    def test_half_precision(self):
        class Bad(Energy):
            """Overflows in bf16 code."""

            def forward(self, views):
                scale = torch.inf if torch.is_autocast_enabled("cpu") else 1.0
                return super().forward(views) * scale

        self.check(Bad, "under bf16 autocast must have the same shape and be finite")


# Online mappers


class TestOnlineMapper:
    def check(self, component, match):
        fails(check_online_mapper, component, match=match)

    def test_shape(self):
        class Bad(Mean):
            """Gives (B, 1, C)."""

            def forward(self, tokens):
                return super().forward(tokens)[:, None]

        self.check(Bad, r"must give \(1, 7\).*but gave \(1, 1, 7\)")

    def test_shapes_that_are_not_refused(self):
        class Bad(m2dx.OnlineMapper):
            """Takes any shapes, and gives clips."""

            name = "bad"

            def __init__(self, shapes) -> None:
                super().__init__(shapes)
                self.linear = nn.Linear(shapes.embed_dim, shapes.target_dim)

            def forward(self, tokens):
                return self.linear(tokens.mean(1))

        self.check(Bad, "must be refused in __init__ with m2dx.RecipeError")

    def test_all_refused(self):
        class Bad(Mean):
            """Never fits."""

            def __init__(self, shapes) -> None:
                raise m2dx.RecipeError("never")

        self.check(Bad, "refuses all that were tried; the last time: never")

    def test_another_error_than_recipe_error(self):
        class Bad(Mean):
            """Refuses in its own words."""

            def __init__(self, shapes) -> None:
                raise m2dx.AudioError("frames")

        self.check(Bad, "must refuse shapes with m2dx.RecipeError")

    def test_not_finite(self):
        class Bad(Mean):
            """Divides by zero."""

            def forward(self, tokens):
                return super().forward(tokens) / 0

        self.check(Bad, "must give finite values")

    def test_a_parameter_that_is_not_used(self):
        class Bad(Mean):
            """Has one too many."""

            def __init__(self, shapes) -> None:
                super().__init__(shapes)
                self.spare = nn.Linear(2, 2)

        self.check(Bad, "none reaches spare.weight")

    def test_a_frozen_parameter(self):
        class Bad(Mean):
            """Has a frozen layer."""

            def __init__(self, shapes) -> None:
                super().__init__(shapes)
                self.linear.requires_grad_(False)

        self.check(Bad, "none reaches linear.weight")

    def test_tokens_detached(self):
        class Bad(Mean):
            """Trains itself only."""

            def forward(self, tokens):
                return super().forward(tokens.detach())

        self.check(Bad, "a finite gradient must reach the tokens, but it is missing")

    def test_nothing_to_train(self):
        class Bad(Mean):
            """Switches gradients off."""

            def forward(self, tokens):
                with torch.no_grad():
                    return super().forward(tokens)

        self.check(Bad, "the backward pass must work")

    def test_dropout_in_eval_mode(self):
        class Bad(Mean):
            """Always drops."""

            def forward(self, tokens):
                return super().forward(nn.functional.dropout(tokens, 0.5))

        self.check(Bad, "must give the same output each time")


# Losses


def loss(forward):
    return type("Bad", (L1,), {"__doc__": "Broken.", "forward": lambda self, p, t: forward(p, t)})


class TestLoss:
    @pytest.mark.parametrize(
        ("forward", "match"),
        [
            (lambda p, t: (p - t).abs().mean(-1), r"must give a scalar, but gave \(4,\)"),
            (lambda p, t: (p - t).mean().item(), "must give a scalar, but gave float"),
            (lambda p, t: (p - t).abs().mean() / 0, "must give finite values, but gave inf"),
            (lambda p, t: (p - p.detach() - t).mean().detach(), "the backward pass must work"),
            (lambda p, t: ((p - t) * 0).mean(), "must reach the prediction, but it is zero"),
            (lambda p, t: (p - t.clamp_(0.1)).abs().mean(), "must not change the target"),
            (lambda p, t: (p - t).abs().mean() + torch.rand(()), "the same output each time"),
            (
                lambda p, t: torch.cdist(p, t).mean() if p.ndim == 2 else t[9],
                "must work, but raised IndexError",
            ),
            (lambda p, t: (p - t + torch.zeros(7)).abs().mean(), "all must happen on that device"),
        ],
    )
    def test_value_and_gradient(self, forward, match):
        fails(check_loss, loss(forward), match=match)

    def test_a_target_of_ones_own(self):
        needs_rows_of_sum_one = loss(lambda p, t: (p - t).abs().mean() / float((t.sum(-1) == 1).all()))
        fails(check_loss, needs_rows_of_sum_one, match="must give finite values, but gave inf")
        check_loss(needs_rows_of_sum_one, torch.full((4, 2), 0.5))


# Noise sources


class TestNoiseSource:
    @pytest.mark.parametrize(
        ("draw", "match"),
        [
            (lambda n, g: torch.randn(n + 1, generator=g), r"must give \(400,\), but gave \(401,\)"),
            (lambda n, g: torch.randn(1, n, generator=g), r"but gave \(1, 400\)"),
            (lambda n, g: torch.randn(n, generator=g).double(), "must give a float32 tensor on the CPU"),
            (lambda n, g: torch.randn(n, generator=g).numpy(), "must give a float32 tensor on the CPU"),
            (lambda n, g: torch.randn(n, generator=g) / 0, "must give finite values"),
            (lambda n, g: torch.randn(n, generator=g).requires_grad_(), "must have no gradient"),
            (lambda n, g: torch.randn(n), "the same generator must give the same noise again"),
            (lambda n, g: torch.ones(n), "another generator must give other noise"),
            (lambda n, g: torch.randn(n, generator=g) + 0 * torch.rand(1), "leave the global generators"),
            (lambda n, g: torch.randn(n, generator=g) + 0 * float(np.random.rand()), "leave the global"),  # noqa: NPY002
            (lambda n, g: g.nothing, "must work, but raised AttributeError"),
        ],
    )
    def test_draw(self, draw, match):
        bad = type("Bad", (White,), {"__doc__": "Broken.", "draw": lambda self, n, g: draw(n, g)})
        fails(check_noise_source, bad, match=match)

    def test_state_between_draws(self):
        class Bad(White):
            """Counts."""

            drawn = 0

            def draw(self, num_samples, generator):
                self.drawn += 1
                return super().draw(num_samples, generator) * self.drawn

        fails(check_noise_source, Bad, match="must give the same noise again, also from the same object")

    def test_not_picklable(self):
        class Bad(White):  # local classes cannot be pickled
            """Local."""

        fails(check_noise_source, Bad, match="pickling it.*must work")

    def test_drain_bad(self, monkeypatch):
        monkeypatch.setattr(White, "drain_bad", lambda self: None)
        fails(check_noise_source, White, match="drain_bad must give a list")


# Data sets


class TestDataset:
    @pytest.fixture
    def check(self, files):
        def check(match, **methods):
            bad = type("Bad", (Files,), {"__doc__": "Broken.", **methods})
            fails(check_dataset, bad, match=match, path=files)

        return check

    def test_no_clips(self, check):
        check(r"clips\(\) must give some clips", clips=lambda self, split=None: [])

    def test_order(self, check):
        calls = []

        def clips(self, split=None):
            calls.append(split)
            return Files.clips(self, split)[:: 1 if len(calls) % 2 else -1]

        check("same clips in the same order", clips=clips)

    def test_splits(self, check):
        check(
            r"clips\('test'\) must give the clips of that split",
            clips=lambda self, split=None: Files.clips(self),
        )

        def clips(self, split=None):
            return Files.clips(self, split) or Files.clips(self)

        check("a split that is not there must be empty", clips=clips)

    def test_label_names(self, check):
        check("these are not: test", label_names=lambda self: ("train",))
        check("tuple without repeats", label_names=lambda self: ("train", "test", "test"))

    @pytest.mark.parametrize(
        ("clip", "match"),
        [
            ("a.wav", "must give m2dx.Clip objects"),
            (m2dx.Clip("a.wav"), "must be a pathlib.Path"),
            (m2dx.Clip(pathlib.Path("a.wav"), start=-1.0), "seconds, 0 or more"),
            (m2dx.Clip(pathlib.Path("a.wav"), duration=0.0), "duration must be more than 0"),
            (m2dx.Clip(pathlib.Path("a.wav"), labels="dog"), "labels must be a tuple"),
            (m2dx.Clip(pathlib.Path("a.wav"), weight=-1.0), "weight of a clip must be a number above 0"),
            (m2dx.Clip(pathlib.Path("a.wav"), group=3), "split and group must be texts, or None"),
        ],
    )
    def test_clips(self, check, clip, match):
        check(match, clips=lambda self, split=None: [clip])

    def test_missing_files(self, check, files):
        (files / "test.wav").unlink()
        check("must say what is not on this machine, but says nothing of 1 clips")
        check(r"missing\(\) must give a list of texts", missing=lambda self: "test.wav")
        check(r"notes\(\) failed: ZeroDivisionError", missing=lambda self: ["one"], notes=lambda self: 1 / 0)

    def test_unreadable_files(self, check, files):
        (files / "train.wav").write_text("not audio")
        check("reading .*train.wav .with soundfile.*must work, but raised AudioError")


# Schedules and weight maps


@pytest.mark.parametrize(
    ("share", "match"),
    [(torch.tensor(0.5), "must be a number, but is tensor"), (None, "must be a number, but is None")],
)
def test_a_schedule_gives_numbers(share, match):
    class Flat(m2dx.Schedule):
        """The same share always."""

        name = "flat"

        def share(self, progress):
            return share

    fails(check_component, Flat, match=match)


def test_a_weight_map_gives_a_dict():
    class Nothing(m2dx.WeightMap):
        """Gives nothing."""

        name = "nothing"

        def __init__(self, grid, size):
            pass

        def tensors(self, state):
            return None

    fails(check_component, Nothing, match="tensors must give a dict, but gave None")


# Evaluators


def score(task, /, **changes):
    fields = {
        "task": task.name,
        "metric": "accuracy",
        "mean": 0.5,
        "ci95": None,
        "values": (0.5,),
        "protocol": "chance",
    }
    return m2dx.Score(**{**fields, **changes})


class TestEvaluator:
    @pytest.mark.parametrize(
        ("changes", "match"),
        [
            ({"task": "other"}, "task must be 'tones', but is 'other'"),
            ({"protocol": "knn"}, "protocol must be 'chance'"),
            ({"mean": float("nan")}, "must be finite"),
            ({"values": ()}, "must be finite, with one value or more"),
            ({"mean": 0.7}, "must lie among the values"),
            ({"mean": 50.0, "values": (50.0,)}, r"must be in \[0, 1\], but is 50.0; not in %"),
            ({"ci95": -0.1}, "ci95 must be None or 0 or more"),
            ({"details": {"weights": torch.ones(1)}}, "its details must be plain data"),
        ],
    )
    def test_scores(self, changes, match):
        class Bad(Chance):
            """Broken."""

            def evaluate(self, encoder, task, *, seeds):
                return [score(task, **changes)]

        fails(check_evaluator, Bad, match=match)

    @pytest.mark.parametrize(
        ("evaluate", "match"),
        [
            (lambda encoder, task: [], "must give a list of one score or more"),
            (lambda encoder, task: [0.5], "must give a list of m2dx.Score objects"),
            (lambda encoder, task: encoder.nothing, "evaluate on AudioEncoder.*must work.*AttributeError"),
            (lambda encoder, task: [score(task), encoder.encoder][:1], "evaluate on MeanLogMel.*must work"),
            (lambda encoder, task: encoder.train() and [score(task)], "left as it was"),
            (
                lambda encoder, task: (
                    encoder.encoder.load_state_dict(
                        {k: v + 1 for k, v in encoder.encoder.state_dict().items()}
                    )
                    and [score(task)]
                ),
                "left as it was",
            ),
            (
                lambda encoder, task: [score(task, mean=(x := torch.rand(()).item()), values=(x,))],
                "the same seeds must give the same scores",
            ),
        ],
    )
    def test_evaluate(self, evaluate, match):
        class Bad(Chance):
            """Broken."""

            def evaluate(self, encoder, task, *, seeds):
                return evaluate(encoder, task)

        fails(check_evaluator, Bad, match=match)

    def test_the_baseline_may_be_refused(self):
        class NeedsFrames(Chance):
            """Looks at frames."""

            def evaluate(self, encoder, task, *, seeds):
                if not isinstance(encoder, m2dx.AudioEncoder):
                    raise m2dx.RecipeError("needs frames; leave mean_logmel out of evaluation.baselines")
                return super().evaluate(encoder, task, seeds=seeds)

        check_evaluator(NeedsFrames)


@pytest.mark.gpu
def test_a_tensor_that_stays_behind_is_found_on_a_gpu():
    """nn.functional.linear takes a meta and a CPU tensor together, so that only a real device tells."""

    class Bad(Mean):
        """Makes its matrix in forward."""

        def forward(self, tokens):
            return super().forward(nn.functional.linear(tokens, torch.eye(tokens.shape[-1])))

    fails(check_online_mapper, Bad, match="after .to.'cuda'. all must happen on that device")


class Shift(m2dx.Augmentation):
    """Each clip times a number of its own."""

    name, changes = "shift", "waveform"

    def forward(self, x, seeds):
        return x * (1.0 + m2dx.seeded_uniform(seeds, 1))


class Norm(m2dx.Regulariser):
    """Mean square of h-hat."""

    name = "norm"

    def forward(self, output, target):
        return output.tokens.square().mean()


CHANGES = {
    "none": ({"forward": lambda self, x, seeds: x.clone()}, "other seeds must give other changes"),
    "kind": ({"changes": "wav"}, "`changes` must be 'waveform' or 'logmel', but is 'wav'"),
    "global": (
        {"forward": lambda self, x, seeds: x + torch.rand(1)},
        "the same whatever the others|the same seeds",
    ),
    "in place": (
        {"forward": lambda self, x, seeds: x.add_(seeds[:, None])},
        "forward must leave its input as it is",
    ),
    "mixing": (
        {"forward": lambda self, x, seeds: Shift.forward(self, x.roll(1, 0), seeds)},
        "or say mixes_clips",
    ),
    "infinite": (
        {"forward": lambda self, x, seeds: x / x.norm(dim=1, keepdim=True)},
        "forward must give finite",
    ),
    "double": (
        {"forward": lambda self, x, seeds: Shift.forward(self, x, seeds).double()},
        "float32, but gave",
    ),
}


@pytest.mark.parametrize(("change", "match"), CHANGES.values(), ids=CHANGES)
def test_a_broken_augmentation_is_found(change, match):
    check_component(Shift)
    fails(check_component, type("Broken", (Shift,), {"__doc__": "Broken.", **change}), match=match)
    if match.startswith("or say"):
        check_component(type("Honest", (Shift,), {"__doc__": "Mixes.", "mixes_clips": True, **change}))


TERMS = {
    "vector": (
        lambda self, output, target: output.tokens.mean((1, 2)),
        r"must give a scalar, but gave \(6,\)",
    ),
    "constant": (lambda self, output, target: output.loss.detach(), "the backward pass must work"),
    "double": (lambda self, output, target: output.tokens.double().mean(), "floating point, at most float32"),
    "target": (
        lambda self, output, target: target.mean(),
        r"forward for .* must work, but raised AttributeError",
    ),
}


@pytest.mark.parametrize(("forward", "match"), TERMS.values(), ids=TERMS)
def test_a_broken_regulariser_is_found(forward, match):
    check_component(Norm)
    fails(check_component, type("Broken", (Norm,), {"__doc__": "Broken.", "forward": forward}), match=match)
