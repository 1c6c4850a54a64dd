"""The vision transformer (Dosovitskiy et al., 2021) of the online encoder, the target and the predictor.

Names of parameters, first values, outputs and gradients of a block and of the patch embedding are those of timm's
modules, from which published weights come.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from m2dx.contract.components import Backbone, MaskedModel, PatchGrid, ViTSize
from m2dx.contract.errors import PluginError
from m2dx.model.masking import gather_tokens
from m2dx.model.patches import resample_positions, sincos_positions

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


class PatchEmbed(nn.Module):
    """A linear projection of each patch: (B, C, M, L) -> (B, F*T, D)."""

    def __init__(self, patch_size: tuple[int, int], *, in_chans: int, embed_dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, embed_dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        width = self.proj.kernel_size[1]
        patches: Tensor
        if x.shape[-1] == width and x.device.type == "cpu":
            # oneDNN reads beyond a single column of patches in bfloat16 (torch 2.11), and may give NaN.
            patches = self.proj(F.pad(x, (0, width)))[..., :1]
        else:
            patches = self.proj(x)  # (B, C, M, L) -> (B, D, F, T)
        return patches.flatten(2).transpose(1, 2)  # -> (B, F*T, D)


class Attention(nn.Module):
    """Multi-head self-attention: (B, K, D) -> (B, K, D). ValueError where the heads do not divide the width."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"the width must be a multiple of the heads, {num_heads}, but is {dim}")
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def heads(self, x: Tensor) -> tuple[Tensor, ...]:
        """Query, key and value of each head: (B, K, D) -> three of (B, H, K, D / H)."""
        qkv: Tensor = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))  # (B, K, D) -> (B, K, 3, H, D / H)
        return qkv.permute(2, 0, 3, 1, 4).unbind(0)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.heads(x)
        mixed = F.scaled_dot_product_attention(query, key, value)  # (B, H, K, D / H)
        return self.proj(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class MLP(nn.Module):
    """Two linear layers around a GELU, four times as wide between them: (B, K, D) -> (B, K, D)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Self-attention, then an MLP, each of the normed input and added to it: (B, K, D) -> (B, K, D)."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = MLP(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]


class Trunk(nn.Module):
    """Transformer blocks and the final norm: (B, K, D) -> (B, K, D)."""

    def __init__(self, size: ViTSize) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(size.embed_dim, size.num_heads) for _ in range(size.depth))
        self.norm = nn.LayerNorm(size.embed_dim, eps=1e-6)
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


class Encoder(Backbone):
    """A vision transformer: patch embedding, positions, class token and trunk (M2D-X, III-A1)."""

    name = "vit"
    patch_embed: PatchEmbed
    pos_embed: Tensor

    def __init__(self, grid: PatchGrid, size: ViTSize) -> None:
        super().__init__(grid, size)
        self.patch_embed = PatchEmbed(grid.patch_size, in_chans=grid.in_chans, embed_dim=size.embed_dim)
        self.cls_token = nn.Parameter(torch.empty(1, 1, size.embed_dim))
        self.register_buffer("pos_embed", sincos_positions(grid.shape, size.embed_dim))
        self.trunk = self.make_trunk()
        nn.init.xavier_uniform_(self.patch_embed.proj.weight.flatten(1))
        nn.init.normal_(self.cls_token, std=0.02)

    def make_trunk(self) -> nn.Module:
        """Blocks and the final norm, which take the tokens alone."""
        return Trunk(self.size)

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
            return resample_positions(self.pos_embed, self.grid.shape, (freq, time), antialias=False)[:, 1:]
        in_place: Tensor = self.pos_embed[:, 1:].unflatten(1, (freq, grid_time))
        return in_place[:, :, :time].flatten(1, 2)

    def with_class_token(self, tokens: Tensor) -> Tensor:
        """Tokens with the class token before them: (B, K, D) -> (B, 1 + K, D)."""
        cls = (self.cls_token + self.pos_embed[:, :1]).expand(len(tokens), -1, -1)
        return torch.cat([cls, tokens], dim=1)

    def layers(
        self, tokens: Tensor, ids: Tensor | None = None, *, trunk: nn.Module | None = None
    ) -> list[Tensor]:
        """The output of every block for the patches at the indices (B, V), class token first, of (B, P, D)."""
        tokens = self.with_class_token(tokens if ids is None else gather_tokens(tokens, ids))
        return (self.trunk if trunk is None else trunk).layers(tokens)  # type: ignore[no-any-return, operator]

    def encode(self, tokens: Tensor, ids: Tensor | None = None, *, trunk: nn.Module | None = None) -> Tensor:
        """The last of `layers`, without holding the others, by what `train.compile` compiles."""
        tokens = self.with_class_token(tokens if ids is None else gather_tokens(tokens, ids))
        return (self.trunk if trunk is None else trunk)(tokens)  # type: ignore[no-any-return]


def encoder_of(model: MaskedModel) -> Backbone:
    """The online encoder of a method; PluginError where it has none."""
    online = getattr(model, "online", None)
    if not isinstance(online, Backbone):
        raise PluginError(
            f"the method {model.name!r} must have an m2dx.Backbone as `online`, but has {type(online).__name__}"
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
