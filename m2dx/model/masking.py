"""Which patches are visible: random ones, the checked draw of a clip, and tokens by a mask's order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from m2dx.contract.components import Mask, Masking
from m2dx.contract.errors import PluginError


def num_visible_patches(num_patches: int, mask_ratio: float) -> int:
    """V, patches left visible: the floor of P (1 - mask_ratio), safe against binary rounding (10 x 0.1 is 1)."""
    return int(num_patches * (1.0 - mask_ratio) + 1e-6)


@dataclass(frozen=True)
class MaskDraw:
    """Draws the masks of a clip, permutations of the patches whose first V are visible.

    PluginError, naming the masking, where that fails or gives something else.
    """

    masking: Masking
    num_patches: int  # P
    label: str = "masking"  # in errors
    per_clip: int = 1  # n, masks of each clip

    def __call__(self, generator: torch.Generator) -> Tensor:
        """(P,) from a clip's generator; (n, P) where a clip has n masks."""
        draw = partial(self.masking.draw, generator)
        drawn = [self._checked("draw", draw, (self.num_patches,)) for _ in range(self.per_clip)]
        return drawn[0] if self.per_clip == 1 else torch.stack(drawn)

    @property
    def looks(self) -> bool:
        """Whether the masking looks at the sound or the step."""
        return type(self.masking).look is not Masking.look

    def look(self, ids: Tensor, logmel: Tensor, *, progress: float, seeds: Tensor) -> Tensor:
        """The masks (n*B, P) of a batch, of a masking that looks; logmel (B, C, M, L) and seeds (B,) of its clips.

        On a GPU, which would have to be waited for, only those of the first step are looked through.
        """
        if not self.looks:
            return ids
        if self.per_clip > 1:
            logmel = logmel.repeat_interleave(self.per_clip, dim=0)
            of_clip = torch.arange(len(ids), device=ids.device) % self.per_clip
            seeds = seeds.repeat_interleave(self.per_clip) + of_clip
        draw = partial(self.masking.look, ids, logmel, progress=progress, seeds=seeds)
        cheap = ids.device.type == "cpu" or progress == 0.0
        return self._checked("look", draw, tuple(ids.shape), values=cheap)

    def _checked(
        self, method: str, draw: Callable[[], Tensor], shape: tuple[int, ...], *, values: bool = True
    ) -> Tensor:
        with PluginError.blaming(f"{self.label}: {method} failed"):
            ids = draw()
        found = f"{tuple(ids.shape)} {ids.dtype}" if isinstance(ids, Tensor) else type(ids).__name__
        if found != f"{shape} {torch.int64}":
            what = f"a permutation{' for each clip,' if len(shape) > 1 else ''} {shape} {torch.int64}"
            raise PluginError(f"{self.label}: {method} must give {what} of the patches, but gave {found}")
        if values:
            rows = ids.reshape(-1, self.num_patches)
            wrong = rows[(rows.sort().values != torch.arange(self.num_patches, device=ids.device)).any(1)]
            for row in wrong[:1]:
                raise PluginError(
                    f"{self.label}: {method} must give each of the {len(row)} patches once, but "
                    f"{len(row.unique())} different ones between {int(row.min())} and {int(row.max())} came"
                )
        return ids


def gather_tokens(tokens: Tensor, ids: Tensor) -> Tensor:
    """Tokens (B, K, D) at the indices (B, K), from (B, P, D); with n*B rows of indices, n for each row of tokens."""
    if len(ids) > len(tokens):
        tokens = tokens.repeat_interleave(len(ids) // len(tokens), dim=0)
    return tokens.gather(1, ids.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def restore_order(visible: Tensor, masked: Tensor, mask: Mask) -> Tensor:
    """Tokens (B, P, D) back in place, from visible (B, V, D) and masked ones (B, P - V, D)."""
    return gather_tokens(torch.cat([visible, masked], dim=1), mask.restore)


class RandomMasking(Masking):
    """Any patches, each as likely as any other (M2D-X, III-A1; MSM-MAE, 3)."""

    name = "random"

    def draw(self, generator: torch.Generator) -> Tensor:
        return torch.randperm(self.grid[0] * self.grid[1], generator=generator)
