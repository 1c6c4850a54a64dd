"""Weights of a ViT of Hugging Face's transformers as a start: `init_from: FOLDER`, `weight_map: transformers_vit`."""

import math
import re

import torch
from pydantic import PositiveInt
from torch import Tensor

import m2dx
from m2dx.model.patches import resample_positions

LAYER, BLOCK = r"(?:\w+\.)?encoder\.layer\.(\d+)\.", r"trunk.blocks.\1."
NAMES = {
    r"(?:\w+\.)?embeddings\.cls_token": "cls_token",
    r"(?:\w+\.)?embeddings\.position_embeddings": "pos_embed",
    r"(?:\w+\.)?embeddings\.patch_embeddings\.projection\.(\w+)": r"patch_embed.proj.\1",
    LAYER + r"layernorm_before\.(\w+)": BLOCK + r"norm1.\2",
    LAYER + r"attention\.attention\.query\.(\w+)": BLOCK + r"attn.qkv.\2",
    LAYER + r"attention\.attention\.key\.(\w+)": BLOCK + r"attn.qkv.\2",
    LAYER + r"attention\.attention\.value\.(\w+)": BLOCK + r"attn.qkv.\2",
    LAYER + r"attention\.output\.dense\.(\w+)": BLOCK + r"attn.proj.\2",
    LAYER + r"layernorm_after\.(\w+)": BLOCK + r"norm2.\2",
    LAYER + r"intermediate\.dense\.(\w+)": BLOCK + r"mlp.fc1.\2",
    LAYER + r"output\.dense\.(\w+)": BLOCK + r"mlp.fc2.\2",
    r"(?:\w+\.)?layernorm\.(\w+)": r"trunk.norm.\1",
}
"""Pattern of names in the file -> name of m2dx; of several for one name, the tensors are joined in this order."""


class TransformersViT(m2dx.WeightMap):
    """Google's ViTs and others with the names of `ViTModel`, also those that were trained on images in colour.

    Kernels over three channels become their sum over the channels, and positions are resampled to the recipe's grid.

    Options:
        positions: patches of the file's positions, rows and columns; default a square
        transposed: matrices are (in, out), as those of JAX are
    """

    name = "transformers_vit"

    def __init__(
        self,
        grid: m2dx.PatchGrid,
        *,
        positions: tuple[PositiveInt, PositiveInt] | None = None,
        transposed: bool = False,
    ) -> None:
        self.grid, self.positions, self.transposed = grid, positions, transposed

    def tensors(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        parts: dict[str, list[Tensor]] = {}
        for pattern, name in NAMES.items():
            for key in [key for key in state if re.fullmatch(pattern, key)]:
                value = state.pop(key)
                value = value.mT if self.transposed and value.ndim == 2 else value
                parts.setdefault(re.sub(pattern, name, key), []).append(value)
        found = {name: torch.cat(values) for name, values in parts.items()}
        kernel, table = found.get("patch_embed.proj.weight"), found.get("pos_embed")
        if kernel is not None and self.grid.in_chans == 1:
            found["patch_embed.proj.weight"] = kernel.sum(dim=1, keepdim=True)
        if table is not None:
            side = math.isqrt(table.shape[1] - 1)
            shape = self.positions or (side, side)
            if math.prod(shape) != table.shape[1] - 1:
                raise m2dx.RecipeError(
                    f"weight_map.positions must have {table.shape[1] - 1} patches, but is {list(shape)}"
                )
            found["pos_embed"] = resample_positions(table, shape, self.grid.shape)
        return found


@m2dx.hookimpl
def weight_maps() -> list[type]:
    return [TransformersViT]
