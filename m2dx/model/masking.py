"""Which patches are visible and which are masked: the mask of a batch, and the draw of a clip's."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from m2dx.components import Masking
from m2dx.errors import PluginError


def num_visible_patches(num_patches: int, mask_ratio: float) -> int:
    """V, patches left visible: the floor of P (1 - mask_ratio), safe against binary rounding (10 x 0.1 is 1)."""
    return int(num_patches * (1.0 - mask_ratio) + 1e-6)


def random_mask(num_patches: int, generator: torch.Generator) -> Tensor:
    """A permutation (P,) of the patches; the first V of it are visible, the rest masked (M2D-X, III-A1)."""
    return torch.randperm(num_patches, generator=generator)


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
        with PluginError.blaming(f"{label}: draw(generator)"):
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


@dataclass(frozen=True)
class Mask:
    """The patches of each clip of a batch, visible ones first. Patch f of frequency and t of time has index f*T + t."""

    ids_shuffle: Tensor  # (B, P), a permutation per clip
    num_visible: int  # V

    @property
    def visible(self) -> Tensor:
        """(B, V) indices of the visible patches."""
        return self.ids_shuffle[:, : self.num_visible]

    @property
    def masked(self) -> Tensor:
        """(B, P - V) indices of the masked patches."""
        return self.ids_shuffle[:, self.num_visible :]

    @property
    def restore(self) -> Tensor:
        """(B, P) indices that bring `cat(visible, masked)` back to the order of the patches."""
        return self.ids_shuffle.argsort(dim=1)

    @property
    def is_masked(self) -> Tensor:
        """(B, P) bool in the order of the patches, true where masked."""
        flags = torch.ones_like(self.ids_shuffle, dtype=torch.bool)
        return flags.scatter(1, self.visible, torch.zeros_like(self.visible, dtype=torch.bool))


def gather_tokens(tokens: Tensor, ids: Tensor) -> Tensor:
    """Tokens (B, K, D) at the indices (B, K), from (B, P, D)."""
    return tokens.gather(1, ids.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def restore_order(visible: Tensor, masked: Tensor, mask: Mask) -> Tensor:
    """Tokens (B, P, D) back in place, from visible (B, V, D) and masked ones (B, P - V, D)."""
    return gather_tokens(torch.cat([visible, masked], dim=1), mask.restore)
