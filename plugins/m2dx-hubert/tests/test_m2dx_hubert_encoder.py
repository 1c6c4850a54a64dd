"""The offline encoder without a cache: its contract, its frames, its waveforms."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import m2dx_hubert
import pytest
import torch
from m2dx_hubert import HuBERT, encoder
from m2dx_hubert.architectures import ModelName

import m2dx
from m2dx.testing import check_offline_encoder

MakeViews = Callable[..., m2dx.Views]


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("model", ["hubert_base", "hubert_large", "wav2vec2_large_lv60k", "wavlm_base"])
def test_it_keeps_the_contract(model: ModelName, tmp_path: Path) -> None:
    check_offline_encoder(HuBERT, model=model, layer=2, weights="random")
    check_offline_encoder(HuBERT, model=model, layer=1, weights="random", cache=str(tmp_path))


@pytest.mark.slow
def test_the_real_size_keeps_the_contract() -> None:
    check_offline_encoder(HuBERT, m2dx.DataInfo(16_000, 15_360, {}), layer=1, weights="random")


def test_a_recipe_says_bundle_random_or_a_path_relative_to_itself(tmp_path: Path) -> None:
    host = m2dx.PluginHost.discover()
    if "hubert" not in [record.name for record in host.records]:
        host.register("hubert", m2dx_hubert)

    def options(text: str) -> dict[str, Any]:
        path = tmp_path / "recipe.yaml"
        path.write_text(f"""
data: {{sets: {{speech: {{dataset: {{name: librispeech, path: LibriSpeech}}}}}}}}
tasks:
  hubert:
    offline_encoder: {{name: hubert{text}}}
    online_mapper: {{name: linear}}
    loss: {{name: norm_mse}}
    target_frames: tokens
""")
        given: dict[str, Any] = m2dx.load_recipe(path, host=host).tasks["hubert"].offline_encoder.options()
        return given

    default = {"model": "hubert_base", "layer": 9, "weights": "bundle", "cache": None}
    assert options("") == default
    assert options(", weights: bundle")["weights"] == "bundle"
    assert options(", weights: random, layer: 1") == default | {"weights": "random", "layer": 1}
    here = {"weights": tmp_path / "hubert.pt", "cache": tmp_path / "features"}
    assert options(", weights: hubert.pt, cache: features") == default | here
    with pytest.raises(m2dx.RecipeError, match=r"recipe\.yaml:5.*model"):
        options(", model: hubert_basis")


def test_the_recipe_of_the_readme_is_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text(text.partition("```yaml\n")[2].partition("```")[0])
    monkeypatch.setenv("LIBRISPEECH", str(tmp_path))
    host = m2dx.PluginHost.discover()
    if "hubert" not in [record.name for record in host.records]:
        host.register("hubert", m2dx_hubert)
    recipe = m2dx.load_recipe(tmp_path / "recipe.yaml", host=host)
    assert recipe.tasks["hubert"].weight == 0.5 and recipe.tasks["hubert"].target_frames == "tokens"


@pytest.mark.usefixtures("tiny")
def test_layers_that_a_model_has_not_are_refused() -> None:
    with pytest.raises(m2dx.RecipeError, match="layer must be at most 3 for hubert_base, but is 4"):
        HuBERT(layer=4, weights="random")


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    ("num_samples", "frames"),
    [
        (1, 1),
        (399, 1),
        (400, 1),
        (719, 1),
        (720, 2),
        (16_000, 49),
        (33_280, 103),
        (64_000, 199),
        (97_280, 303),
    ],
)
def test_frames_follow_the_convolutions(num_samples: int, frames: int, views: MakeViews) -> None:
    hubert = HuBERT(layer=1, weights="random")
    assert hubert.num_frames(num_samples) == frames
    assert hubert(views(torch.randn(2, num_samples))).shape == (2, frames, 32)
    if num_samples >= 400:
        assert hubert.network.extract_features(torch.zeros(1, num_samples))[0][0].shape[1] == frames


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("model", ["hubert_base", "hubert_large", "wavlm_large"])
def test_silence_and_single_clicks_are_finite(model: ModelName, views: MakeViews) -> None:
    hubert = HuBERT(model=model, layer=2, weights="random")
    click = torch.zeros(1, 8_000)
    click[0, 4_000] = 1.0
    for wav in (torch.zeros(2, 8_000), torch.zeros(1, 10), torch.full((1, 8_000), 1e-20), click):
        assert hubert(views(wav)).isfinite().all()


@pytest.mark.usefixtures("tiny")
def test_models_with_layer_norm_hear_each_waveform_at_one_loudness(views: MakeViews) -> None:
    """Also as part of a batch: torchaudio's own wrapper would take the whole batch's mean and variance."""
    wav = torch.randn(3, 8_000, generator=torch.Generator().manual_seed(0))
    louder = wav * torch.tensor([[1.0], [0.1], [7.0]]) + torch.tensor([[0.0], [0.5], [-1.0]])
    hubert = HuBERT(model="hubert_large", layer=2, weights="random")
    torch.testing.assert_close(hubert(views(louder)), hubert(views(wav)), atol=1e-2, rtol=0)
    alone = torch.cat([hubert(views(row[None])) for row in louder])
    torch.testing.assert_close(hubert(views(louder)), alone, atol=1e-4, rtol=0)
    given: list[torch.Tensor] = []
    hubert.network.register_forward_pre_hook(lambda module, inputs: given.append(inputs[0]))
    extract = hubert.network.extract_features
    hubert.network.extract_features = lambda wav, num_layers: (
        given.append(wav),
        extract(wav, None, num_layers),
    )[1]
    hubert(views(louder))
    torch.testing.assert_close(given[0].mean(1), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(given[0].var(1, unbiased=False), torch.ones(3), atol=1e-3, rtol=0)


@pytest.mark.usefixtures("tiny")
def test_base_models_get_the_waveform_as_it_is(views: MakeViews) -> None:
    wav = 0.3 + 0.2 * torch.randn(2, 8_000)
    hubert = HuBERT(layer=2, weights="random")
    assert torch.equal(hubert(views(wav)), hubert.network.extract_features(wav, num_layers=2)[0][1])


@pytest.mark.usefixtures("tiny")
def test_a_large_batch_is_encoded_in_passes(views: MakeViews, monkeypatch: pytest.MonkeyPatch) -> None:
    wav = torch.randn(7, 16_000)
    hubert = HuBERT(layer=1, weights="random")
    whole = hubert(views(wav))
    sizes: list[int] = []
    extract = hubert.network.extract_features

    def counted(given: torch.Tensor, num_layers: int) -> Any:
        sizes.append(len(given))
        return extract(given, num_layers=num_layers)

    hubert.network.extract_features = counted
    monkeypatch.setattr(encoder, "PASS_SECONDS", 3)
    torch.testing.assert_close(hubert(views(wav)), whole, atol=1e-5, rtol=0)
    assert sizes == [3, 3, 1]


@pytest.mark.usefixtures("tiny")
def test_nothing_is_dropped_even_in_train_mode(views: MakeViews) -> None:
    hubert = HuBERT(layer=3, weights="random").train()
    wav = torch.randn(2, 8_000)
    assert torch.equal(hubert(views(wav)), hubert(views(wav)))


@pytest.mark.gpu
def test_the_real_size_on_a_gpu(views: MakeViews) -> None:
    torch.manual_seed(0)
    hubert = HuBERT(model="wavlm_base", layer=2, weights="random").eval()
    wav = 0.1 * torch.randn(4, 32_000)
    expected = hubert(views(wav))
    hubert.cuda()
    given = hubert(views(wav.cuda()))
    torch.testing.assert_close(given.cpu(), expected, atol=2e-2, rtol=1e-2)
    with torch.autocast("cuda", torch.bfloat16):
        assert hubert(views(wav.cuda())).dtype == torch.float32
