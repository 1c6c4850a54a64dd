"""Weights of torchaudio, transformers and fairseq: the same features from each, clear errors for what does not fit."""

import json
import urllib.error
from pathlib import Path

import pytest
import torch
import torchaudio
from hubert_files import LAYERS, convert, whole_network, write
from m2dx_hubert import HuBERT
from m2dx_hubert.architectures import MODELS, ModelName, build_network
from m2dx_hubert.sample import write_weights
from torch import Tensor, nn
from torchaudio.models.wav2vec2.utils.import_fairseq import _convert_state_dict

import m2dx


def features(encoder: HuBERT, wav: Tensor) -> Tensor:
    with torch.no_grad():
        return encoder(m2dx.Views(m2dx.Waveforms(wav, 16_000), torch.zeros(len(wav), 1, 80, 100)))


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("style", ["torchaudio", "transformers", "fairseq"])
@pytest.mark.parametrize(
    "model",
    ["hubert_base", "hubert_large", "wav2vec2_base", "wav2vec2_large_lv60k", "wavlm_base", "wavlm_large"],
)
def test_every_kind_of_file_gives_the_features_of_torchaudio_s_whole_network(
    model: ModelName, style: str, tmp_path: Path
) -> None:
    network = whole_network(model)
    path = write(network, model, style, tmp_path)
    wav = 0.1 * torch.randn(3, 8_000, generator=torch.Generator().manual_seed(1))
    given = nn.functional.layer_norm(wav, (8_000,)) if MODELS[model].layer_norm else wav
    with torch.no_grad():
        expected = network.extract_features(given)[0]
    assert not torch.allclose(expected[0], expected[1], atol=0.1)
    for layer in (1, 2, LAYERS):
        encoder = HuBERT(model=model, layer=layer, weights=path)
        assert len(encoder.network.encoder.transformer.layers) == layer
        torch.testing.assert_close(features(encoder, wav), expected[layer - 1], atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("model", ["hubert_base", "hubert_large", "wav2vec2_large_lv60k"])
def test_the_names_of_fairseq_in_these_tests_are_those_that_torchaudio_imports(model: ModelName) -> None:
    network = whole_network(model)
    back = _convert_state_dict(convert(network, model, "fairseq"))
    norms = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
    for old, new in norms.items():
        back = {name.replace(old, new): tensor for name, tensor in back.items()}
    state = network.state_dict()
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("model", list(MODELS))
def test_sizes_and_normalisation_are_those_of_torchaudio_s_bundles(model: ModelName) -> None:
    architecture = MODELS[model]
    bundle = getattr(torchaudio.pipelines, architecture.bundle)
    given = bundle._params
    assert given["encoder_embed_dim"] == architecture.embed_dim
    assert given["encoder_num_layers"] == architecture.num_layers
    assert given["encoder_num_heads"] == architecture.num_heads
    assert given["encoder_ff_interm_features"] == architecture.hidden_dim
    assert given["extractor_conv_bias"] == architecture.conv_bias
    assert (given["extractor_mode"] == "layer_norm") == architecture.layer_norm
    assert given["encoder_layer_norm_first"] == architecture.layer_norm
    assert bundle._normalize_waveform == architecture.layer_norm
    assert (bundle._model_type == "WavLM") == (architecture.family == "wavlm")
    channels, strides = 512, [(10, 5), *[(3, 2)] * 4, *[(2, 2)] * 2]
    assert given["extractor_conv_layer_config"] == [(channels, *stride) for stride in strides]
    assert architecture.conv_channels == channels
    assert (given["encoder_pos_conv_kernel"], given["encoder_pos_conv_groups"]) == (128, 16)


def test_the_real_hubert_base_has_torchaudio_s_names_and_shapes() -> None:
    with torch.device("meta"):
        expected = torchaudio.models.hubert_base().state_dict()
    state = build_network(MODELS["hubert_base"], 1, conv_bias=False).state_dict()
    assert len(state) == 34
    assert all(tensor.shape == expected[name].shape for name, tensor in state.items())


@pytest.mark.usefixtures("tiny")
def test_newer_weight_norms_prefixes_half_precision_and_nested_states_load(tmp_path: Path) -> None:
    network = whole_network("hubert_base")
    wav = 0.1 * torch.randn(1, 4_000)
    expected = features(HuBERT(layer=2, weights=write(network, "hubert_base", "fairseq", tmp_path)), wav)
    fairseq = convert(network, "hubert_base", "fairseq")
    newer = {
        name.replace("weight_g", "parametrizations.weight.original0").replace(
            "weight_v", "parametrizations.weight.original1"
        ): tensor
        for name, tensor in fairseq.items()
    }
    fine_tuned = {f"w2v_encoder.w2v_model.{name}": tensor for name, tensor in newer.items()}
    torch.save({"state_dict": fine_tuned | {"w2v_encoder.proj.weight": torch.zeros(3)}}, tmp_path / "n.pt")
    torch.testing.assert_close(features(HuBERT(layer=2, weights=tmp_path / "n.pt"), wav), expected)
    own = {f"model.wav2vec2.{name}": tensor.half() for name, tensor in network.state_dict().items()}
    torch.save(own, tmp_path / "h.pt")
    encoder = HuBERT(layer=2, weights=tmp_path / "h.pt")
    assert all(parameter.dtype == torch.float32 for parameter in encoder.parameters())
    torch.testing.assert_close(features(encoder, wav), expected, atol=0.05, rtol=0)


@pytest.mark.usefixtures("tiny")
def test_biases_of_the_convolutions_are_used_where_a_file_has_them(tmp_path: Path) -> None:
    """transformers' HuBERT Large has them, fairseq's has not."""
    network = whole_network("wav2vec2_large_lv60k")
    torch.save(network.state_dict(), tmp_path / "a.pt")
    wav = 0.1 * torch.randn(1, 4_000)
    expected = features(HuBERT(model="wav2vec2_large_lv60k", layer=1, weights=tmp_path / "a.pt"), wav)
    assert torch.equal(
        features(HuBERT(model="hubert_large", layer=1, weights=tmp_path / "a.pt"), wav), expected
    )
    del network.feature_extractor.conv_layers[3].conv.bias
    torch.save(network.state_dict(), tmp_path / "b.pt")
    with pytest.raises(m2dx.CheckpointError, match=r"missing \(1\): .*conv_layers\.3\.conv\.bias"):
        HuBERT(model="hubert_large", layer=1, weights=tmp_path / "b.pt")


@pytest.mark.usefixtures("tiny")
def test_the_norm_after_the_last_block_is_not_asked_for(tmp_path: Path) -> None:
    state = whole_network("hubert_large").state_dict()
    del state["encoder.transformer.layer_norm.weight"], state["encoder.transformer.layer_norm.bias"]
    torch.save(state, tmp_path / "a.pt")
    HuBERT(model="hubert_large", layer=LAYERS, weights=tmp_path / "a.pt")


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    ("of", "style", "loaded_as", "texts"),
    [
        (
            "hubert_base",
            "torchaudio",
            "hubert_large",
            ["missing (12): ", "`model` to hubert_base or wav2vec2_"],
        ),
        (
            "hubert_large",
            "fairseq",
            "hubert_base",
            ["not in the model (12): ", "`model` to hubert_large"],
        ),
        (
            "wavlm_base",
            "fairseq",
            "hubert_base",
            ["self_attn.grep_a", "`model` to wavlm_base or wavlm_base_plus"],
        ),
        (
            "hubert_base",
            "transformers",
            "wavlm_base",
            ["it is of hubert", "encoder.layers.0.attention.gru_rel_pos"],
        ),
        ("hubert_base", "fairseq", "wav2vec2_base", ["it is of hubert", "`model` to hubert_base, or"]),
    ],
)
def test_files_of_another_model_are_refused(
    of: ModelName, style: str, loaded_as: ModelName, texts: list[str], tmp_path: Path
) -> None:
    path = write(whole_network(of), of, style, tmp_path)
    with pytest.raises(m2dx.CheckpointError) as raised:
        HuBERT(model=loaded_as, layer=2, weights=path)
    for text in [str(path), f"must hold {loaded_as} up to layer 2", *texts]:
        assert text in str(raised.value)


@pytest.mark.usefixtures("tiny")
def test_a_folder_of_transformers_says_of_which_model_it_is(tmp_path: Path) -> None:
    write(whole_network("hubert_large"), "hubert_large", "transformers", tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "hubert"}))
    HuBERT(model="hubert_large", layer=1, weights=tmp_path)
    with pytest.raises(m2dx.CheckpointError, match="it is of hubert"):
        HuBERT(model="wav2vec2_large_lv60k", layer=1, weights=tmp_path)
    (tmp_path / "config.json").write_text("not json")
    HuBERT(model="wav2vec2_large_lv60k", layer=1, weights=tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(m2dx.CheckpointError, match=r"must have model\.safetensors or pytorch_model\.bin"):
        HuBERT(layer=1, weights=tmp_path)


@pytest.mark.usefixtures("tiny")
def test_missing_misshapen_and_broken_tensors_are_named(tmp_path: Path) -> None:
    state = convert(whole_network("hubert_base"), "hubert_base", "fairseq")
    del state["encoder.layers.1.fc1.bias"]
    state["post_extract_proj.bias"] = torch.zeros(31)
    state["layer_norm.weight"] = torch.full((8,), torch.nan)
    torch.save(state, tmp_path / "f.pt")
    with pytest.raises(m2dx.CheckpointError) as raised:
        HuBERT(layer=2, weights=tmp_path / "f.pt")
    for line in (
        "missing (1): encoder.layers.1.fc1.bias",
        "of another shape (1): post_extract_proj.bias, (31,) instead of (32,)",
        "NaN or infinite (1): layer_norm.weight",
    ):
        assert line in str(raised.value)


@pytest.mark.usefixtures("tiny")
def test_a_file_of_fewer_layers_is_refused(tmp_path: Path) -> None:
    path = write_weights(tmp_path / "a" / "h.pt", layer=2)
    assert torch.load(path)["encoder.transformer.layers.0.layer_norm.weight"].dtype == torch.float16
    HuBERT(layer=2, weights=path)
    with pytest.raises(m2dx.CheckpointError, match=r"missing \(16\): encoder\.transformer\.layers\.2\."):
        HuBERT(layer=3, weights=path)


class Dictionary:
    """As fairseq keeps in its files."""


@pytest.mark.usefixtures("tiny")
def test_unsafe_corrupt_and_other_files_are_refused(tmp_path: Path) -> None:
    def refused(name: str) -> str:
        with pytest.raises(m2dx.CheckpointError) as raised:
            HuBERT(layer=1, weights=tmp_path / name)
        assert str(tmp_path / name) in str(raised.value)
        return str(raised.value)

    state = convert(whole_network("hubert_base"), "hubert_base", "fairseq")
    torch.save({"model": state, "task_state": Dictionary()}, tmp_path / "unsafe.pt")
    error = refused("unsafe.pt")
    assert "Dictionary objects beside its tensors" in error and "weights_only=False" in error
    torch.save({"model": state}, tmp_path / "cut.pt")
    content = (tmp_path / "cut.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(content[: len(content) // 2])
    (tmp_path / "cut.safetensors").write_bytes(content[:100])
    (tmp_path / "text.pt").write_text("hello")
    (tmp_path / "empty.pt").write_bytes(b"")
    for name in ("cut.pt", "cut.safetensors", "text.pt", "empty.pt"):
        assert "not a readable file of weights" in refused(name)
    torch.save([1, 2], tmp_path / "list.pt")
    assert "must be in a dict, but are in a list" in refused("list.pt")
    torch.save({"a": torch.zeros(1), "epoch": 3}, tmp_path / "other.pt")
    assert "no feature_extractor.conv_layers; it holds ['a', 'epoch']" in refused("other.pt")
    assert "no such file" in refused("gone.pt")


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("model", ["hubert_base", "hubert_large"])
def test_the_bundle_s_weights_are_used(model: ModelName, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large bundles are wrapped for their normalisation, which leaves a prefix."""
    network = whole_network(model)

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = network

    class Bundle:
        def get_model(self) -> nn.Module:
            given: nn.Module = network if model == "hubert_base" else Wrapped()
            return given

    monkeypatch.setattr(torchaudio.pipelines, MODELS[model].bundle, Bundle())
    weights = HuBERT(model=model, layer=2).network.state_dict()
    state = network.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in weights.items())


def test_a_failed_download_says_how_to_bring_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    class Bundle:
        def get_model(self) -> nn.Module:
            raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(torchaudio.pipelines, "HUBERT_BASE", Bundle())
    with pytest.raises(m2dx.CheckpointError) as raised:
        HuBERT()
    for text in (
        "Name or service not known",
        "pipelines.HUBERT_BASE.get_model()",
        "checkpoints here",
        "`weights`",
    ):
        assert text in str(raised.value)


@pytest.mark.usefixtures("tiny")
def test_random_weights_follow_torch_s_seed() -> None:
    states = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        states.append(HuBERT(layer=1, weights="random").state_dict())
    first, again, other = states
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)
