"""The published checkpoints: their parameter names, and sizes inferred from the tensors alone.

Facts only; the files are their authors', with a licence of their own. Names: M2D's, MSM-MAE's, and the EVAR package's
for fine-tuned models.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from m2dx.contract.components import ViTSize
from m2dx.encoder.config import EncoderConfig
from m2dx.recipe.schema import AudioSection

N_MELS = 80
AUDIOSET_MEAN_STD = (-7.1, 4.2)  # statistics of files that hold none (M2D-X, IV-A)

ENCODER_NAMES = {
    "patch_embed.": "patch_embed.",
    "cls_token": "cls_token",
    "pos_embed": "pos_embed",
    "blocks.": "trunk.blocks.",
    "norm.": "trunk.norm.",
}
"""Start of a published name -> start of the name in `Encoder`."""

MODEL_NAMES = {
    **{published: f"online.{own}" for published, own in ENCODER_NAMES.items()},
    "target_blocks.": "target.blocks.",
    "target_norm.": "target.norm.",
    "decoder_embed.": "predictor.embed.",
    "mask_token": "predictor.mask_token",
    "decoder_pos_embed": "predictor.pos_embed",
    "decoder_blocks.": "predictor.trunk.blocks.",
    "decoder_norm.": "predictor.trunk.norm.",
    "decoder_pred.": "predictor.pred.",
}
"""Start of a published name -> start of the name in `M2D` or `MSMMAE`."""

HEAD_NAMES = {"module.head.norm.": "norm.", "module.head.mlp.mlp.0.": "linear."}
"""Start of a fine-tuned file's name -> start of the name in `Head`."""


def rename(state: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """The tensors whose names start with a key of `names`, under their new names; others are left out."""
    renamed = {}
    for key, tensor in state.items():
        start = next((start for start in names if key.startswith(start)), None)
        if start is not None:
            renamed[names[start] + key.removeprefix(start)] = tensor
    return renamed


def backbone_prefix(state: Mapping[str, Tensor]) -> str:
    """What the names of the backbone start with, such as `backbone.` of M2D-CLAP, or `module.ar.runtime.backbone.`."""
    first = "patch_embed.proj.weight"
    return min((key.removesuffix(first) for key in state if key.endswith(first)), key=len, default="")


def backbone_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The backbone's tensors by their plain names, whatever DataParallel, Lightning or another model put before them.

    The original MSM-MAE files have biases of queries and values, none of keys: here that is one bias, 0 for keys.
    """
    plain = rename(state, {backbone_prefix(state): ""})
    for start in [key.removesuffix("q_bias") for key in plain if key.endswith("attn.q_bias")]:
        query, value = plain.pop(f"{start}q_bias"), plain.pop(f"{start}v_bias", None)
        if value is None:
            raise ValueError(f"a published checkpoint with {start}q_bias must have {start}v_bias, too")
        plain[f"{start}qkv.bias"] = torch.cat([query, torch.zeros_like(query), value])
    return plain


def infer_config(
    state: Mapping[str, Tensor], path: Path, *, sample_rate: int | None, num_heads: int | None
) -> EncoderConfig:
    """What a published backbone is, from its tensors: users rename the folders that carry sizes in their names.

    Heads leave no trace in the tensors; the published models have 64 channels per head. Nor does the sampling rate,
    which the folder's name may tell, such as `m2d_vit_base-80x608p16x16p32k-...`; else it is 16 kHz. Raises ValueError,
    among others, for something else.
    """
    for key in ("patch_embed.proj.weight", "pos_embed", "cls_token", "norm.weight", "blocks."):
        if not any(name.startswith(key) for name in state):
            what = "transformer blocks" if key == "blocks." else key
            raise ValueError(f"a published M2D checkpoint must have {what}, which this file lacks")
    depth = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("blocks."))
    embed_dim, in_chans, *patch = state["patch_embed.proj.weight"].shape
    positions, freq = state["pos_embed"].shape[1] - 1, N_MELS // patch[0]
    heads = num_heads or max(embed_dim // 64, 1)
    stats = state["norm_stats"].flatten().tolist() if "norm_stats" in state else AUDIOSET_MEAN_STD
    problems = {
        f"{positions} positions and a patch of {patch[0]} mels do not fit an input of {N_MELS} mels": (
            N_MELS % patch[0] or positions % freq
        ),
        f"the width {embed_dim} must be a multiple of num_heads, which is {heads}": embed_dim % heads,
        f"norm_stats must be 2 values, mean and std, but has {len(stats)}": len(stats) != 2,
        f"an audio encoder must have 1 input channel, but this one has {in_chans}": in_chans != 1,
    }
    if found := [problem for problem, holds in problems.items() if holds]:
        raise ValueError("; ".join(found))
    frames = positions // freq * patch[1]
    match = re.search(r"\d+x\d+p\d+x\d+p(\d+)k", path.resolve().as_posix())
    rate = sample_rate or (int(match[1]) * 1000 if match else 16_000)
    return EncoderConfig(
        input_size=(N_MELS, frames),
        patch_size=(patch[0], patch[1]),
        vit=ViTSize(embed_dim, depth, heads),
        audio=AudioSection(sample_rate=rate, crop_seconds=frames / 100),  # published hops are 10 ms
        mean=stats[0],
        std=stats[1],
    )
