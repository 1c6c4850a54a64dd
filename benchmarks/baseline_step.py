"""The training step that a plain reading of the M2D-X paper gives (III-A, IV-A), to compare m2dx's with.

In plain torch, without anything of m2dx: eager attention written out, AdamW that is not fused, a moving average
parameter by parameter, the loss read at every step. The names of the weights are those of `m2dx.model.m2d.M2D`, so
that either takes the other's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLIP_NORM = 3.0
BETAS, WEIGHT_DECAY = (0.9, 0.95), 0.05  # MAE's


@dataclass(frozen=True)
class Widths:
    """Width, blocks and heads of a transformer."""

    dim: int
    depth: int
    heads: int


class Attention(nn.Module):
    """Self-attention with the matrix of weights written out: (B, K, D) -> (B, K, D)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        b, k, dim = x.shape
        parts = self.qkv(x).reshape(b, k, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        query, key, value = parts  # (B, heads, K, D / heads) each
        weights = (query @ key.transpose(-2, -1)) * (dim // self.heads) ** -0.5
        mixed = weights.softmax(dim=-1) @ value  # (B, heads, K, D / heads)
        return self.proj(mixed.transpose(1, 2).reshape(b, k, dim))  # type: ignore[no-any-return]


class Block(nn.Module):
    """A pre-norm transformer block, whose MLP is four times as wide."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, heads)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, 4 * dim), "fc2": nn.Linear(4 * dim, dim)})

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))  # type: ignore[no-any-return]


class Trunk(nn.Module):
    """Blocks and a final norm."""

    def __init__(self, widths: Widths) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(widths.dim, widths.heads) for _ in range(widths.depth))
        self.norm = nn.LayerNorm(widths.dim, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.norm(x)  # type: ignore[no-any-return]


class OnlineEncoder(nn.Module):
    """Patch embedding, positions, class token, transformer."""

    pos_embed: Tensor

    def __init__(self, widths: Widths, *, patch: tuple[int, int], patches: int) -> None:
        super().__init__()
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(1, widths.dim, patch, stride=patch)})
        self.cls_token = nn.Parameter(torch.zeros(1, 1, widths.dim))
        self.register_buffer("pos_embed", torch.zeros(1, 1 + patches, widths.dim))
        self.trunk = Trunk(widths)

    def embed(self, logmel: Tensor) -> Tensor:
        """All patches, embedded, with positions: (B, 1, M, L) -> (B, P, D)."""
        return self.patch_embed["proj"](logmel).flatten(2).transpose(1, 2) + self.pos_embed[:, 1:]

    def with_class_token(self, x: Tensor) -> Tensor:
        """(B, K, D) -> (B, 1 + K, D)."""
        return torch.cat([(self.cls_token + self.pos_embed[:, :1]).expand(len(x), -1, -1), x], dim=1)


class Predictor(nn.Module):
    """Representations of all patches from visible ones and mask tokens (eq. 1)."""

    pos_embed: Tensor

    def __init__(self, widths: Widths, *, patches: int, dim: int) -> None:
        super().__init__()
        self.embed = nn.Linear(dim, widths.dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, widths.dim))
        self.register_buffer("pos_embed", torch.zeros(1, 1 + patches, widths.dim))
        self.trunk = Trunk(widths)
        self.pred = nn.Linear(widths.dim, dim)

    def forward(self, latent: Tensor, restore: Tensor) -> Tensor:
        """(B, 1 + V, D) -> (B, P, D)."""
        x = self.embed(latent)
        masks = self.mask_token.repeat(len(x), restore.shape[1] + 1 - x.shape[1], 1).to(x.dtype)
        placed = pick(torch.cat([x[:, 1:], masks], dim=1), restore)
        x = torch.cat([x[:, :1], placed], dim=1) + self.pos_embed
        return self.pred(self.trunk(x))[:, 1:]  # type: ignore[no-any-return]


class PlainM2D(nn.Module):
    """Masked Modeling Duo: online encoder, target, predictor and loss."""

    def __init__(
        self,
        encoder: Widths,
        predictor: Widths,
        *,
        patch: tuple[int, int],
        grid: tuple[int, int],
        visible: int,
    ) -> None:
        super().__init__()
        patches, self.visible = grid[0] * grid[1], visible
        self.online = OnlineEncoder(encoder, patch=patch, patches=patches)
        self.target = Trunk(encoder).requires_grad_(False)
        self.predictor = Predictor(predictor, patches=patches, dim=encoder.dim)

    def forward(self, logmel: Tensor, ids_shuffle: Tensor) -> Tensor:
        """The loss (eq. 2) of log-mels (B, 1, M, L); the first V patches of ids_shuffle (B, P) are visible."""
        tokens = self.online.embed(logmel)
        visible, masked = ids_shuffle[:, : self.visible], ids_shuffle[:, self.visible :]
        latent = self.online.trunk(self.online.with_class_token(pick(tokens, visible)))
        with torch.no_grad():
            target = self.target(self.online.with_class_token(pick(tokens, masked)))[:, 1:].float()
            mean, var = target.mean(dim=-1, keepdim=True), target.var(dim=-1, keepdim=True)
            target = F.normalize((target - mean) / (var + 1e-6).sqrt(), dim=-1)
        prediction = pick(self.predictor(latent, ids_shuffle.argsort(dim=1)), masked)
        difference = F.normalize(prediction.float(), dim=-1) - target
        return difference.square().sum(dim=-1).mean()


def pick(tokens: Tensor, ids: Tensor) -> Tensor:
    """Tokens (B, K, D) at indices (B, K) of (B, P, D)."""
    return tokens.gather(1, ids.unsqueeze(-1).repeat(1, 1, tokens.shape[-1]))


class PlainStep:
    """A model with its optimizer; each call is one training step."""

    def __init__(
        self, model: PlainM2D, *, learning_rate: float, ema_decay: float, fp16: bool = False
    ) -> None:
        self.model, self.ema_decay = model, ema_decay
        trained = [p for p in model.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": WEIGHT_DECAY},
            {"params": [p for p in trained if p.ndim == 1], "weight_decay": 0.0},
        ]
        self.trained = trained
        self.optimizer = torch.optim.AdamW(groups, lr=learning_rate, betas=BETAS, fused=False)
        self.device = trained[0].device.type
        self.fp16 = fp16
        self.scaler = torch.amp.GradScaler(self.device, enabled=fp16)

    def __call__(self, logmel: Tensor, ids_shuffle: Tensor) -> float:
        """Trains on one batch; its loss."""
        self.optimizer.zero_grad()
        with torch.autocast(self.device, dtype=torch.float16, enabled=self.fp16):
            loss = self.model(logmel, ids_shuffle)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.trained, CLIP_NORM)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self._update_target()
        return loss.item()  # type: ignore[no-any-return]

    @torch.no_grad()
    def _update_target(self) -> None:
        """Eq. 3, a parameter at a time."""
        online = self.model.online.trunk.parameters()
        for target, source in zip(self.model.target.parameters(), online, strict=True):
            target.mul_(self.ema_decay).add_(source, alpha=1.0 - self.ema_decay)
