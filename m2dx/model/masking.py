"""Which patches are visible: random ones, the checked draw of a clip, and tokens by a mask's order."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from m2dx.contract.components import Mask, Masking
from m2dx.contract.errors import PluginError


def num_visible_patches(num_patches: int, mask_ratio: float) -> int:
    """V, patches left visible: the floor of P (1 - mask_ratio), safe against binary rounding (10 x 0.1 is 1)."""
    return int(num_patches * (1.0 - mask_ratio) + 1e-6)


@dataclass(frozen=True)
class MaskDraw:
    """Draws the mask of one clip, a permutation (P,) of the patches whose first V are visible, from its generator.

    PluginError, naming the masking, where that fails or gives something else.
    """

    masking: Masking
    num_patches: int  # P
    plugin: str | None = None  # that it is from; None: the core, or not known

    def __call__(self, generator: torch.Generator) -> Tensor:
        origin = "" if self.plugin is None else f" of plugin {self.plugin!r}"
        label, patches = f"masking {self.masking.name!r}{origin}", self.num_patches
        with PluginError.blaming(f"{label}: draw(generator) failed"):
            ids = self.masking.draw(generator)
        found = f"{tuple(ids.shape)} {ids.dtype}" if isinstance(ids, Tensor) else type(ids).__name__
        if found != f"({patches},) {torch.int64}":
            raise PluginError(
                f"{label}: draw must give a permutation ({patches},) {torch.int64} of the patches, but gave {found}"
            )
        if not torch.equal(ids.sort().values, torch.arange(patches)):
            raise PluginError(
                f"{label}: draw must give each of the {patches} patches once, but {len(ids.unique())} different ones "
                f"between {int(ids.min())} and {int(ids.max())} came"
            )
        return ids


def gather_tokens(tokens: Tensor, ids: Tensor) -> Tensor:
    """Tokens (B, K, D) at the indices (B, K), from (B, P, D)."""
    return tokens.gather(1, ids.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def restore_order(visible: Tensor, masked: Tensor, mask: Mask) -> Tensor:
    """Tokens (B, P, D) back in place, from visible (B, V, D) and masked ones (B, P - V, D)."""
    return gather_tokens(torch.cat([visible, masked], dim=1), mask.restore)


class RandomMasking(Masking):
    """Any patches, each as likely as any other (M2D-X, III-A1; MSM-MAE, 3)."""

    name = "random"

    def draw(self, generator: torch.Generator) -> Tensor:
        return torch.randperm(self.grid[0] * self.grid[1], generator=generator)
