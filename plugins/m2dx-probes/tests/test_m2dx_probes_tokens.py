"""The probes over tokens: what they see, what they learn, and what they refuse."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from m2dx_probes.attentive import Attentive, AttentiveHead
from m2dx_probes.prototype import OWN, Prototype, PrototypeHead
from m2dx_probes.tokens import TokenStandardiser, token_maps
from m2dx_probes.training import Mix, Run, TokenProbe

import m2dx
from m2dx.contract.components import Fold
from m2dx.data.csv_list import CsvDataset
from m2dx.encoder.audio import random_encoder
from m2dx.evaluation.features import MeanLogMel
from m2dx.evaluation.tasks import ClipTask
from m2dx.recipe.loading import load_recipe
from m2dx.recipe.schema import AudioSection, ModelSection
from m2dx.results.scoring import Scoring
from m2dx.testing import check_evaluator
from m2dx.testing.evaluators import tone_task

AUDIO = AudioSection(crop_seconds=0.64)
SOUNDS = Path(__file__).parents[3] / "examples" / "sounds"
PROBES = (Attentive, Prototype)


def encoder(depth: int = 2) -> m2dx.AudioEncoder:
    return random_encoder(AUDIO, ModelSection(size="tiny", depth=depth), mean=-7.0, std=4.0, seed=0)


@pytest.fixture(scope="module")
def drums() -> ClipTask:
    """Real drum hits, two splits of kits: 11 classes."""
    return ClipTask.from_dataset("drums", CsvDataset(path=SOUNDS / "drums.csv"), unit_seconds=0.32)


@pytest.mark.parametrize("probe", PROBES)
def test_each_keeps_the_contract(probe: type[TokenProbe]) -> None:
    check_evaluator(probe, epochs=3)
    check_evaluator(probe, epochs=1, layers=(1,))


@pytest.mark.parametrize("probe", PROBES)
def test_on_real_recordings_each_beats_chance_and_repeats_by_its_seed(
    probe: type[TokenProbe], drums: ClipTask
) -> None:
    network = encoder()
    first, again, other = (
        probe(epochs=6).evaluate(network, drums, seeds=seeds)[0] for seeds in ((0,), (0,), (1,))
    )
    counts = np.bincount([drums.label_names.index(drums.clips[row].labels[0]) for row in drums.folds[0].test])
    chance = counts.max() / counts.sum()  # always the most frequent class
    assert first.mean > chance + 0.1
    assert first.values == again.values and first.predictions == again.predictions
    assert [item.probability for item in first.predictions] != [
        item.probability for item in other.predictions
    ]


@pytest.mark.parametrize(
    ("layers", "depth", "expected"), [("last", 2, [2]), ("mix", 3, [1, 2, 3]), ((1, 3), 3, [1, 3])]
)
def test_tokens_are_the_patches_of_the_layers(layers: object, depth: int, expected: list[int]) -> None:
    network = encoder(depth)
    with tone_task() as task, torch.inference_mode():
        maps = token_maps(network, task, tokens="patches", layers=layers)  # type: ignore[arg-type]
        side_by_side = token_maps(network, task, tokens="frames", layers=layers)  # type: ignore[arg-type]
        frames = network.layers(next(task.batches(network, len(task.clips))))
        # 0.5 s: 50 frames of 10 ms, 4 patches of 16; 80 mels, 5 of 16
        assert maps.shape == (len(task.clips), len(expected), 20, 192) and maps.dtype == torch.float16
        for place, number in enumerate(expected):
            of_layer = frames[number - 1]
            assert of_layer.shape == (len(task.clips), 4, 5 * 192)
            mean = maps[:, place].float().unflatten(1, (4, 5)).mean(1).flatten(1)
            torch.testing.assert_close(mean, of_layer.mean(1), atol=2e-3, rtol=2e-3)
            torch.testing.assert_close(side_by_side[:, place].float(), of_layer, atol=2e-3, rtol=2e-3)


def test_the_tokens_of_the_log_mel_baseline_are_its_frames() -> None:
    baseline = MeanLogMel(AUDIO).eval()
    with tone_task() as task:
        maps = token_maps(baseline, task, tokens="patches", layers="mix")
        means = task.features(baseline).x[:, :80]
    assert maps.shape == (len(task.clips), 1, 51, 80)
    torch.testing.assert_close(maps[:, 0].float().mean(1), means, atol=2e-2, rtol=2e-3)


class ClipsOnly(torch.nn.Module):
    """An encoder that has clip features alone."""

    sample_rate, embed_dim = 16_000, 4

    def clip(self, wav: torch.Tensor) -> torch.Tensor:
        return wav[:, :4]


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (encoder, {"layers": (1, 3)}, r"`layers` must be 1 to 2, the blocks of the encoder, but has 3"),
        (encoder, {"max_gb": 1e-4}, r"must take max_gb \(0\.0001 GB\).*24 clips, 1 layers, 4 tokens of 960"),
        (encoder, {"heads": 7}, r"`heads` must divide the width of a token, 960, but is 7"),
        (ClipsOnly, {}, r"ClipsOnly gives clip features alone; leave it out of evaluation\.baselines"),
    ],
)
def test_what_cannot_be_probed_is_refused(
    make: Callable[[], object], options: dict[str, object], message: str
) -> None:
    with tone_task() as task, pytest.raises(m2dx.RecipeError, match=message):
        Attentive(**options).evaluate(make(), task, seeds=(0,))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("{name: logistic, layers: [0, 2]}", r"mine, for pretrained: `layers` must be 0 to 1, .* has 2$"),
        ("{name: attentive, layers: [1, 3]}", r"mine, for pretrained: `layers` must be 1 to 1, .* has 3$"),
        ("{name: prototype, layers: [2]}", r"mine, for pretrained: `layers` must be 1 to 1, .* has 2$"),
        (
            "{name: attentive, heads: 6}",
            r"mine, for mean_logmel: `heads` must divide the width of a token, 80, ",
        ),
        (
            "{name: attentive, heads: 12, tokens: patches}",
            r"mine, for mean_logmel: `heads` must divide the width of a token, 80",
        ),
        (
            "{name: attentive, max_gb: 1e-3}",
            r"mine, for pretrained: the tokens .* 'drums' must take max_gb .* but take .* GB \(335 clips, 1 layers, ",
        ),
        ("{name: logistic, layers: [0, 1], pooling: max}", None),
        ("{name: attentive, layers: mix, heads: 5}", None),
        ("{name: linear, class_weights: balanced}", None),
    ],
)
def test_options_that_do_not_suit_the_encoder_are_refused_before_training(
    fields: str, message: str | None, tmp_path: Path, make_host: Callable[[str], m2dx.PluginHost]
) -> None:
    host, file = make_host("probes"), tmp_path / "recipe.yaml"
    drums = f"{{dataset: {{name: csv, path: {SOUNDS / 'drums.csv'}}}}}"
    file.write_text(f"data: {{sets: {{notes: {drums}}}}}\n", encoding="utf-8")
    overrides = [
        "model.size=tiny",
        "model.depth=1",
        f"evaluation.tasks={{drums: {drums}}}",
        f"evaluation.evaluators={{mine: {fields}}}",
    ]
    recipe = load_recipe(file, overrides, host=host)
    if message is None:
        Scoring.of(recipe, host)
    else:
        with pytest.raises(m2dx.RecipeError, match=message):
            Scoring.of(recipe, host)


def test_values_are_standardised_over_the_tokens_of_the_training_clips() -> None:
    maps = torch.randn(150, 2, 7, 3, generator=torch.Generator().manual_seed(0)) * 5 + 40
    maps[..., 2] = 3.0  # constant
    rows = torch.arange(100)
    x = TokenStandardiser(maps.half(), rows)(maps[rows].half())
    torch.testing.assert_close(x.mean((0, 2)), torch.zeros(2, 3), atol=2e-3, rtol=0)
    torch.testing.assert_close(x.std((0, 2), correction=0)[:, :2], torch.ones(2, 2), atol=2e-3, rtol=0)
    assert (x[..., 2] == 0).all()


def run_of(maps: torch.Tensor, y: torch.Tensor, classes: int) -> Run:
    rows = torch.arange(len(maps))
    return Run(
        maps.half(), y, TokenStandardiser(maps.half(), rows), rows, torch.Generator().manual_seed(0), classes
    )


def test_the_attentive_head_is_the_softmax_of_products_with_its_queries() -> None:
    head = AttentiveHead(1, 8, 3, 2, 2, torch.Generator().manual_seed(0))
    tokens = torch.randn(5, 1, 6, 8, generator=torch.Generator().manual_seed(1))
    found = []
    for query, number in ((query, number) for query in head.query for number in range(2)):
        share = tokens[:, 0, :, 4 * number : 4 * number + 4]
        weights = (share @ query[number] / 2).softmax(1)  # the root of the share's width is 2
        found.append(torch.stack([weights[clip] @ share[clip] for clip in range(5)]))
    torch.testing.assert_close(head(tokens), head.linear(torch.cat(found, dim=1)))


@pytest.mark.parametrize("several", [False, True])
def test_a_class_of_few_among_many_clips_starts_at_its_tokens(several: bool) -> None:
    """Two of 1,502 clips, of which more than half are not compared."""
    y = torch.cat([torch.zeros(1500), torch.ones(2)]).long()
    maps = torch.randn(len(y), 1, 3, 8, generator=torch.Generator().manual_seed(0))
    run = run_of(maps, torch.nn.functional.one_hot(y).float() if several else y, 2)
    head, tokens = PrototypeHead(run, 2), run.tokens(torch.arange(len(y)))[:, 0]
    for number, start in enumerate(head.prototypes):
        owners = (tokens == start).all(-1).any(1).nonzero().flatten()
        assert len(owners) and (y[owners] == number // 2).all()


def test_prototypes_start_at_tokens_of_their_class_and_give_the_most_similar_token() -> None:
    y = torch.arange(12) % 3
    maps = torch.randn(12, 1, 5, 8, generator=torch.Generator().manual_seed(0))
    run = run_of(maps, y, 4)  # no clip has the last class
    head = PrototypeHead(run, 2)
    tokens = run.tokens(torch.arange(12))[:, 0]
    for number, start in enumerate(head.prototypes[:6]):
        owners = (tokens == start).all(-1).any(1).nonzero().flatten()
        assert len(owners) == 1 and y[owners[0]] == number // 2
    similar = torch.stack(
        [torch.cosine_similarity(tokens, start[None, None], dim=2).amax(1) for start in head.prototypes],
        dim=1,
    )
    assert head.linear.weight[1].tolist() == [0, 0, OWN, OWN, 0, 0, 0, 0]
    torch.testing.assert_close(head(tokens[:, None]), (similar - similar.mean(0)) @ head.linear.weight.mT)


def test_layers_are_mixed_by_a_softmax() -> None:
    mix = Mix(2)
    tokens = torch.randn(3, 2, 4, 5)
    torch.testing.assert_close(mix(tokens), tokens.mean(1))
    mix.weight.data = torch.tensor([0.0, np.log(3.0)], dtype=torch.float32)
    torch.testing.assert_close(mix(tokens), tokens[:, 0] / 4 + tokens[:, 1] * 3 / 4)


def made_up_task() -> tuple[torch.Tensor, SimpleNamespace, Fold]:
    """Class numbers of 240 clips, and a task and a fold of them."""
    parts = [torch.arange(first, first + 80).numpy() for first in (0, 80, 160)]
    return torch.arange(240) % 3, SimpleNamespace(label_names=("a", "b", "c")), Fold("test", *parts)


@pytest.mark.parametrize("probe", [Attentive(lr=1e-2, epochs=40, queries=3, heads=1), Prototype(epochs=40)])
def test_an_event_in_a_few_tokens_is_found_where_the_mean_hides_it(probe: TokenProbe) -> None:
    """One of 30 tokens tells the class, in a random place; the others are noise."""
    random, (y, task, fold) = torch.Generator().manual_seed(0), made_up_task()
    maps = torch.randn(240, 1, 30, 16, generator=random)
    maps[torch.arange(240), 0, torch.randint(30, (240,), generator=random)] += 7 * torch.eye(16)[y]
    logits, _, _ = probe._fit(maps.half(), y, task, fold, 0, torch.device("cpu"))  # type: ignore[arg-type]
    by_mean = (maps[160:, 0, :, :3].mean(1).argmax(1) == y[160:]).float().mean()
    assert by_mean < 0.8 < (logits.argmax(1) == y[160:]).float().mean()


def test_the_mix_prefers_the_layer_that_tells_the_class() -> None:
    y, task, fold = made_up_task()
    maps = torch.randn(240, 3, 8, 16, generator=torch.Generator().manual_seed(0))
    maps[:, 1] += 0.7 * torch.eye(16)[y][:, None]
    probe = Attentive(lr=1e-2, layers="mix", epochs=30)
    _, _, mix = probe._fit(maps.half(), y, task, fold, 0, torch.device("cpu"))  # type: ignore[arg-type]
    assert max(mix) == mix[1] > 0.4


@pytest.mark.parametrize("probe", [Attentive(lr=1e-2, epochs=30), Prototype(epochs=30)])
def test_clips_of_several_labels_have_a_logit_for_each(probe: TokenProbe) -> None:
    y, task, fold = made_up_task()
    several = torch.nn.functional.one_hot(y, 3).float()
    several[::2] += several[::2].roll(1, dims=1)  # every other clip has two
    maps = torch.randn(240, 1, 8, 16, generator=torch.Generator().manual_seed(0))
    maps[:, 0, :, :3] += 2 * several[:, None]
    logits, _, _ = probe._fit(maps.half(), several, task, fold, 0, torch.device("cpu"))  # type: ignore[arg-type]
    assert ((logits > 0) == (several[160:] > 0)).float().mean() > 0.8
