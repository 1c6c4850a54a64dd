"""The vision transformer of the online encoder, the target and the predictor, on timm's blocks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from timm.layers.patch_embed import PatchEmbed
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from m2dx.contract.components import MaskedModel
from m2dx.contract.errors import PluginError
from m2dx.model.masking import gather_tokens
from m2dx.model.patches import PatchGrid, sincos_positions


@dataclass(frozen=True)
class ViTSize:
    """Width, blocks and heads of a transformer."""

    embed_dim: int
    depth: int
    num_heads: int


VIT_SIZES = {
    "tiny": ViTSize(192, 12, 3),
    "small": ViTSize(384, 12, 6),
    "base": ViTSize(768, 12, 12),
    "large": ViTSize(1024, 24, 16),
}


def init_linear(module: nn.Module) -> None:
    """Xavier-uniform matrices and zero biases, as MAE starts its linear layers."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class Trunk(nn.Module):
    """Transformer blocks and the final norm: (B, K, D) -> (B, K, D)."""

    def __init__(self, size: ViTSize) -> None:
        super().__init__()
        norm = partial(nn.LayerNorm, eps=1e-6)
        self.blocks = nn.ModuleList(
            Block(size.embed_dim, size.num_heads, qkv_bias=True, norm_layer=norm)  # type: ignore[arg-type]
            for _ in range(size.depth)
        )
        self.norm = norm(size.embed_dim)
        self.apply(init_linear)

    def forward(self, tokens: Tensor) -> Tensor:
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)  # type: ignore[no-any-return]

    def layers(self, tokens: Tensor) -> list[Tensor]:
        """The output of every block, the last one after the final norm; depth tensors of (B, K, D)."""
        outputs = []
        for block in self.blocks:
            tokens = block(tokens)
            outputs.append(tokens)
        outputs[-1] = self.norm(tokens)
        return outputs


class Encoder(nn.Module):
    """Patch embedding, positions, class token and trunk: the online encoder (M2D-X, III-A1)."""

    pos_embed: Tensor

    def __init__(self, grid: PatchGrid, size: ViTSize) -> None:
        super().__init__()
        self.grid, self.size = grid, size
        self.patch_embed = PatchEmbed(
            img_size=None,
            patch_size=grid.patch_size,  # type: ignore[arg-type]  # timm takes pairs as well
            in_chans=grid.in_chans,
            embed_dim=size.embed_dim,
        )
        self.cls_token = nn.Parameter(torch.empty(1, 1, size.embed_dim))
        self.register_buffer("pos_embed", sincos_positions(grid.shape, size.embed_dim))
        self.trunk = Trunk(size)
        nn.init.xavier_uniform_(self.patch_embed.proj.weight.flatten(1))
        nn.init.normal_(self.cls_token, std=0.02)

    def embed(self, logmel: Tensor) -> Tensor:
        """Embedded patches with their positions: (B, 1, M, L) -> (B, F*T, D); of images (B, C, H, W).

        An input shorter than the grid takes the first positions in time, a longer one interpolated positions
        (M2D-X, III-A2).
        """
        tokens: Tensor = self.patch_embed(logmel)  # (B, 1, M, L) -> (B, F*T, D)
        time = logmel.shape[-1] // self.grid.patch_size[1]
        return tokens + self.positions(time)

    def positions(self, time: int) -> Tensor:
        """(1, F*time, D) positions of the patches for an input of `time` patches."""
        freq, grid_time = self.grid.shape
        if time > grid_time:
            table: Tensor = resample_abs_pos_embed(
                self.pos_embed,
                new_size=[freq, time],
                old_size=[freq, grid_time],
                num_prefix_tokens=1,
                antialias=False,
            )
            return table[:, 1:]
        in_place: Tensor = self.pos_embed[:, 1:].unflatten(1, (freq, grid_time))
        return in_place[:, :, :time].flatten(1, 2)

    def with_class_token(self, tokens: Tensor) -> Tensor:
        """Tokens with the class token before them: (B, K, D) -> (B, 1 + K, D)."""
        cls = (self.cls_token + self.pos_embed[:, :1]).expand(len(tokens), -1, -1)
        return torch.cat([cls, tokens], dim=1)

    def encode(self, tokens: Tensor, ids: Tensor) -> Tensor:
        """The patches at the indices (B, V) encoded, class token first: (B, P, D) -> (B, 1 + V, D)."""
        return self.trunk(self.with_class_token(gather_tokens(tokens, ids)))  # type: ignore[no-any-return]

    def forward(self, logmel: Tensor) -> Tensor:
        """All patches encoded, class token first: (B, 1, M, L) -> (B, 1 + F*T, D)."""
        return self.trunk(self.with_class_token(self.embed(logmel)))  # type: ignore[no-any-return]


def encoder_of(model: MaskedModel) -> Encoder:
    """The online encoder of a method; PluginError where it has none."""
    online = getattr(model, "online", None)
    if not isinstance(online, Encoder):
        raise PluginError(
            f"the method {model.name!r} must have an m2dx.model.vit.Encoder as `online`, but has "
            f"{type(online).__name__}"
        )
    return online


class Predictor(nn.Module):
    """Predicts all patches from the visible ones and shared mask tokens (M2D-X, eq. 1); the decoder of MSM-MAE."""

    pos_embed: Tensor

    def __init__(self, grid: PatchGrid, size: ViTSize, *, input_dim: int, output_dim: int) -> None:
        super().__init__()
        self.grid, self.size = grid, size
        self.embed = nn.Linear(input_dim, size.embed_dim)
        self.mask_token = nn.Parameter(torch.empty(1, 1, size.embed_dim))
        self.register_buffer("pos_embed", sincos_positions(grid.shape, size.embed_dim))
        self.trunk = Trunk(size)
        self.pred = nn.Linear(size.embed_dim, output_dim)
        nn.init.normal_(self.mask_token, std=0.02)
        self.apply(init_linear)

    def features(self, latent: Tensor, ids_restore: Tensor) -> Tensor:
        """Features of all patches: visible (B, 1 + V, D), class token first, -> (B, P, width of the predictor)."""
        x = self.embed(latent)  # (B, 1 + V, D) -> (B, 1 + V, Dp)
        cls, visible = x[:, :1], x[:, 1:]
        masks = self.mask_token.to(x.dtype).expand(len(x), ids_restore.shape[1] - visible.shape[1], -1)
        tokens = gather_tokens(torch.cat([visible, masks], dim=1), ids_restore)  # (B, P, Dp)
        tokens = torch.cat([cls, tokens], dim=1) + self.pos_embed
        return self.trunk(tokens)[:, 1:]  # type: ignore[no-any-return]

    def forward(self, latent: Tensor, ids_restore: Tensor) -> Tensor:
        """Predictions of all patches: visible (B, 1 + V, D), class token first, -> (B, P, output_dim)."""
        return self.pred(self.features(latent, ids_restore))  # type: ignore[no-any-return]
