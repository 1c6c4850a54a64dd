"""A backbone as a plugin of m2dx: ConvNeXt's blocks of timm on the grid of patches.

model: {backbone: {name: convnext, kernel_size: 7}}
"""

from __future__ import annotations

import torch
from pydantic import PositiveInt
from timm.models.convnext import ConvNeXtBlock
from torch import Tensor, nn

import m2dx
from m2dx.model.masking import gather_tokens
from m2dx.model.vit import PatchEmbed


class ConvNeXt(m2dx.Backbone):
    """ConvNeXt of one resolution (Liu et al., arXiv:2201.03545, section 3.3): convolutions where a ViT has attention.

    It computes all patches, so that masking saves no time: those that are not visible are a learned token, as in
    SimMIM. The mean of the visible ones stands for the class token. Heads and positions have no meaning.

    Options:
        kernel_size: of the convolutions, patches; odd
    """

    name = "convnext"

    def __init__(self, grid: m2dx.PatchGrid, size: m2dx.ViTSize, *, kernel_size: PositiveInt = 7) -> None:
        super().__init__(grid, size)
        if kernel_size % 2 == 0:
            raise m2dx.RecipeError(f"model.backbone.kernel_size must be odd, but is {kernel_size}")
        self.kernel_size = kernel_size
        self.patch_embed = PatchEmbed(grid.patch_size, in_chans=grid.in_chans, embed_dim=size.embed_dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, size.embed_dim))
        self.trunk = self.make_trunk()

    def make_trunk(self) -> nn.Module:
        dim, trunk = self.size.embed_dim, nn.Module()
        blocks = [
            ConvNeXtBlock(dim, kernel_size=self.kernel_size, ls_init_value=None)
            for _ in range(self.size.depth)
        ]
        trunk.blocks, trunk.norm = nn.ModuleList(blocks), nn.LayerNorm(dim)
        return trunk

    def embed(self, logmel: Tensor) -> Tensor:
        return self.patch_embed(logmel)  # (B, 1, M, L) -> (B, F*T, D)

    def layers(
        self, tokens: Tensor, ids: Tensor | None = None, *, trunk: nn.Module | None = None
    ) -> list[Tensor]:
        if ids is None:
            ids = torch.arange(tokens.shape[1], device=tokens.device).expand(len(tokens), -1)
        trunk, count = trunk or self.trunk, tokens.shape[1]
        visible = gather_tokens(tokens, ids)  # (B, P, D) -> (B, V, D)
        x = self.mask_token.to(tokens.dtype).expand(len(ids), count, -1)
        x = x.scatter(1, ids[..., None].expand_as(visible), visible)
        x = x.mT.unflatten(2, (self.grid.shape[0], -1))  # (B, P, D) -> (B, D, F, T)
        maps = [x := block(x) for block in trunk.blocks]
        outputs = [gather_tokens(of.flatten(2).mT, ids) for of in maps]  # (B, D, F, T) -> (B, V, D)
        outputs[-1] = trunk.norm(outputs[-1])
        return [torch.cat([output.mean(1, keepdim=True), output], dim=1) for output in outputs]


@m2dx.hookimpl
def backbones() -> list[type]:
    return [ConvNeXt]
