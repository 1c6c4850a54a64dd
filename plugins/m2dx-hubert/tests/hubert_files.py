"""Networks of torchaudio and the files of weights that each library would leave of them.

The networks are torchaudio's own, whole ones, with parameters drawn so that no two are alike.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from m2dx_hubert.architectures import MODELS, ModelName
from safetensors.torch import save_file
from torch import Tensor, nn
from torchaudio.models import wav2vec2_model, wavlm_model

State = dict[str, Tensor]
LAYERS = 3


def whole_network(model: ModelName) -> Any:
    """torchaudio's network of the model, tiny, with its dropouts and every parameter of its own."""
    architecture = MODELS[model]
    sizes: dict[str, Any] = {
        "extractor_mode": "layer_norm" if architecture.layer_norm else "group_norm",
        "extractor_conv_layer_config": [(8, 10, 5), *[(8, 3, 2)] * 4, *[(8, 2, 2)] * 2],
        "extractor_conv_bias": architecture.conv_bias,
        "encoder_embed_dim": 32,
        "encoder_projection_dropout": 0.1,
        "encoder_pos_conv_kernel": 128,
        "encoder_pos_conv_groups": 16,
        "encoder_num_layers": LAYERS,
        "encoder_num_heads": 4,
        "encoder_attention_dropout": 0.1,
        "encoder_ff_interm_features": 48,
        "encoder_ff_interm_dropout": 0.1,
        "encoder_dropout": 0.1,
        "encoder_layer_norm_first": architecture.layer_norm,
        "encoder_layer_drop": 0.1,
        "aux_num_out": None,
    }
    if architecture.family == "wavlm":
        network = wavlm_model(**sizes, encoder_num_buckets=320, encoder_max_distance=800)
    else:
        network = wav2vec2_model(**sizes)
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        nn.init.normal_(parameter, 0.0 if parameter.ndim > 1 else 0.5, 0.2, generator=generator)
    return network.eval()


def block_names(style: str, n: int, *, wavlm: bool) -> dict[str, str]:
    """torchaudio's names of block n -> those of another library, one by one."""
    ours = f"encoder.transformer.layers.{n}"
    theirs = f"encoder.layers.{n}"
    names = {}
    for end in ("weight", "bias"):
        names[f"{ours}.final_layer_norm.{end}"] = f"{theirs}.final_layer_norm.{end}"
        if style == "fairseq":
            names[f"{ours}.layer_norm.{end}"] = f"{theirs}.self_attn_layer_norm.{end}"
            names[f"{ours}.feed_forward.intermediate_dense.{end}"] = f"{theirs}.fc1.{end}"
            names[f"{ours}.feed_forward.output_dense.{end}"] = f"{theirs}.fc2.{end}"
        else:
            for part in ("layer_norm", "feed_forward.intermediate_dense", "feed_forward.output_dense"):
                names[f"{ours}.{part}.{end}"] = f"{theirs}.{part}.{end}"
        attention = f"{theirs}.self_attn" if style == "fairseq" else f"{theirs}.attention"
        out = "attention.attention.out_proj" if wavlm else "attention.out_proj"
        names[f"{ours}.{out}.{end}"] = f"{attention}.out_proj.{end}"
        for part in ("q_proj", "k_proj", "v_proj"):
            names[f"{ours}.attention.{part}.{end}"] = f"{attention}.{part}.{end}"
        linear = "grep_linear" if style == "fairseq" else "gru_rel_pos_linear"
        names[f"{ours}.attention.gru_rel_pos_linear.{end}"] = f"{attention}.{linear}.{end}"
    constant = "grep_a" if style == "fairseq" else "gru_rel_pos_const"
    names[f"{ours}.attention.gru_rel_pos_const"] = f"{attention}.{constant}"
    embedding = "relative_attention_bias" if style == "fairseq" else "rel_attn_embed"
    names[f"{ours}.attention.rel_attn_embed.weight"] = f"{attention}.{embedding}.weight"
    return names


def other_names(style: str, *, layer_norm: bool, wavlm: bool) -> dict[str, str]:
    """torchaudio's names -> those of another library, one by one."""
    ours, names = "encoder.transformer", {}
    conv = {"transformers": "encoder.pos_conv_embed.conv", "fairseq": "encoder.pos_conv.0"}[style]
    names[f"{ours}.pos_conv_embed.conv.bias"] = f"{conv}.bias"
    names[f"{ours}.pos_conv_embed.conv.parametrizations.weight.original0"] = f"{conv}.weight_g"
    names[f"{ours}.pos_conv_embed.conv.parametrizations.weight.original1"] = f"{conv}.weight_v"
    for end in ("weight", "bias"):
        names[f"{ours}.layer_norm.{end}"] = f"encoder.layer_norm.{end}"
        norm = "layer_norm" if style == "fairseq" else "feature_projection.layer_norm"
        names[f"encoder.feature_projection.layer_norm.{end}"] = f"{norm}.{end}"
        projection = "post_extract_proj" if style == "fairseq" else "feature_projection.projection"
        names[f"encoder.feature_projection.projection.{end}"] = f"{projection}.{end}"
        for n in range(7):
            block = f"feature_extractor.conv_layers.{n}"
            norm = ("2.1" if layer_norm else "2") if style == "fairseq" else "layer_norm"
            names[f"{block}.conv.{end}"] = f"{block}.{'0' if style == 'fairseq' else 'conv'}.{end}"
            names[f"{block}.layer_norm.{end}"] = f"{block}.{norm}.{end}"
    for n in range(LAYERS):
        names |= block_names(style, n, wavlm=wavlm)
    return names


def convert(network: Any, model: ModelName, style: str) -> State:
    """The network's state with the names of another library."""
    architecture = MODELS[model]
    wavlm = architecture.family == "wavlm"
    state: State = {}
    for name, tensor in network.state_dict().items():
        if ".in_proj_" in name:  # of torch's own attention, which WavLM has in torchaudio only
            for part, value in zip("qkv", tensor.chunk(3), strict=True):
                state[name.replace("attention.attention.in_proj_", f"attention.{part}_proj.")] = value.clone()
        else:
            state[name] = tensor
    names = other_names(style, layer_norm=architecture.layer_norm, wavlm=wavlm)
    return {names[name]: tensor for name, tensor in state.items()}


def write(network: Any, model: ModelName, style: str, folder: Path) -> Path:
    """A file as each library leaves it, with what it holds beside the network."""
    if style == "torchaudio":
        torch.save(network.state_dict(), folder / "a.pth")
        return folder / "a.pth"
    state = convert(network, model, style)
    other = torch.zeros(3, 4)
    if style == "fairseq":
        extra = {"mask_emb": other, "final_proj.weight": other}
        if MODELS[model].family == "hubert":
            extra["label_embs_concat"] = other
        state = state | extra
        torch.save({"args": argparse.Namespace(layers=LAYERS), "cfg": None, "model": state}, folder / "f.pt")
        return folder / "f.pt"
    state["masked_spec_embed"] = other
    if MODELS[model].layer_norm:
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "model.safetensors")
        return folder
    state = {f"{MODELS[model].family}.{name}": tensor for name, tensor in state.items()} | {
        "lm_head.bias": other
    }
    torch.save(state, folder / "pytorch_model.bin")
    return folder / "pytorch_model.bin"
