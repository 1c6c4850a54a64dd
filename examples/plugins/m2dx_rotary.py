"""A ViT with rotary positions and SwiGLU as a plugin of m2dx: `model: {backbone: {name: rotary, base: 100}}`."""

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat
from torch import Tensor, nn

import m2dx
from m2dx.model.masking import gather_tokens
from m2dx.model.vit import Attention, Encoder, init_linear


class RotaryBlock(nn.Module):
    """Attention whose queries and keys turn with their place, then SwiGLU (Shazeer, arXiv:2002.05202)."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = Attention(dim, num_heads)
        self.gate, self.down = nn.Linear(dim, 2 * (8 * dim // 3)), nn.Linear(8 * dim // 3, dim)

    def forward(self, x: Tensor, turn: Tensor) -> Tensor:
        query, key, value = self.attn.heads(self.norm1(x))  # (B, H, K, D / H)
        mixed = F.scaled_dot_product_attention(turned(query, turn), turned(key, turn), value)
        x = x + self.attn.proj(mixed.transpose(1, 2).flatten(2))
        gate, up = self.gate(self.norm2(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)


def turned(x: Tensor, turn: Tensor) -> Tensor:
    """Pairs of values of each head, one from each half, turned by the angles `turn` (B, 1, K, D / 2H)."""
    (left, right), cos, sin = x.chunk(2, dim=-1), turn.cos().to(x.dtype), turn.sin().to(x.dtype)
    return torch.cat([left * cos - right * sin, left * sin + right * cos], dim=-1)


class RotaryViT(Encoder):
    """A ViT that knows patches by how far they lie apart in frequency and in time (Su et al., arXiv:2104.09864).

    Options:
        base: of the angles; the slowest pair turns by about 1/base from patch to patch
    """

    name = "rotary"

    def __init__(self, grid: m2dx.PatchGrid, size: m2dx.ViTSize, *, base: PositiveFloat = 100.0) -> None:
        if (head := size.embed_dim // size.num_heads) % 4:
            raise m2dx.RecipeError(f"model.backbone: heads must be a multiple of 4 wide, but are {head}")
        super().__init__(grid, size)
        self.register_buffer("rates", base ** -torch.linspace(0, 1, head // 4), persistent=False)

    def make_trunk(self) -> nn.Module:
        size, trunk = self.size, nn.Module()
        trunk.blocks = nn.ModuleList(RotaryBlock(size.embed_dim, size.num_heads) for _ in range(size.depth))
        trunk.norm = nn.LayerNorm(size.embed_dim)
        return trunk.apply(init_linear)

    def embed(self, logmel: Tensor) -> Tensor:
        return self.patch_embed(logmel)  # (B, 1, M, L) -> (B, F*T, D), without positions

    def layers(
        self, tokens: Tensor, ids: Tensor | None = None, *, trunk: nn.Module | None = None
    ) -> list[Tensor]:
        if ids is None:
            ids = torch.arange(tokens.shape[1], device=tokens.device).expand(len(tokens), -1)
        time = tokens.shape[1] // self.grid.shape[0]
        turn = torch.cat([place[..., None] * self.rates for place in (ids // time, ids % time)], dim=-1)
        turn = F.pad(turn, (0, 0, 1, 0))[
            :, None
        ]  # (B, V, D / 2H) -> (B, 1, 1 + V, D / 2H); the class token's are 0
        x, trunk = self.with_class_token(gather_tokens(tokens, ids)), trunk or self.trunk
        outputs = [x := block(x, turn) for block in trunk.blocks]
        return [*outputs[:-1], trunk.norm(x)]

    encode = m2dx.Backbone.encode  # the last of `layers`


@m2dx.hookimpl
def backbones() -> list[type]:
    return [RotaryViT]
