"""The check of backbones, on a small spectrogram and a small image."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from m2dx.contract.components import Backbone, PatchGrid
from m2dx.testing.methods import CLIPS, SIZE, TRIAL_GRIDS, batch
from m2dx.testing.rules import Subject
from m2dx.testing.tensors import check_module, check_reaches


def check_backbone(cls: type[Backbone], grid: PatchGrid | None = None, /, **options: object) -> None:
    """Checks a backbone: shapes, also of other lengths; that masked patches change nothing; trunks; gradients; state.

    `grid` replaces the trial inputs.
    """
    subject = Subject.of("backbone", cls, options)
    for trial in TRIAL_GRIDS if grid is None else (grid,):
        backbone: Backbone = subject.build(grid=trial, size=SIZE)
        (logmel, mask), (freq, time) = batch(trial, masks=2), trial.shape
        subject.must(
            isinstance(getattr(backbone, "patch_embed", None), nn.Module),
            "`patch_embed` must be the module that `model.freeze_patch_embedding` freezes",
        )
        for length in (time - 1, time, time + 1):  # audio may be shorter or longer than a crop
            part = torch.cat([logmel, logmel], dim=-1)[..., : length * trial.patch_size[1]]
            with subject.attempt(f"forward of {length} patches in time, of a grid of {time},"):
                tokens, output = backbone.embed(part), backbone(part)
            subject.check_output(tokens, (CLIPS, freq * length, SIZE.embed_dim), "embed")
            subject.check_output(output, (CLIPS, 1 + freq * length, SIZE.embed_dim), "forward")
        with subject.attempt("layers and encode"):
            tokens = backbone.eval().embed(logmel)
            rows = tokens.detach().repeat_interleave(2, dim=0)  # one for each mask
            hidden = rows.scatter(1, mask.masked[..., None].expand(-1, -1, SIZE.embed_dim), 9.0)
            layers, last = backbone.layers(tokens, mask.visible), backbone.encode(hidden, mask.visible)
        subject.must(len(layers) == SIZE.depth, f"layers must give {SIZE.depth}, but gave {len(layers)}")
        for layer in layers:
            subject.check_output(layer, (2 * CLIPS, 1 + mask.num_visible, SIZE.embed_dim), "layers")
        subject.must(
            torch.allclose(layers[-1], last, atol=1e-5),
            "encode must give the last of `layers`, whatever the patches hold that are not at `ids`",
        )
        with subject.attempt("encode with another trunk of make_trunk"):
            trunk = backbone.make_trunk().eval()
            other = backbone.encode(hidden, mask.visible, trunk=trunk)
            trunk.load_state_dict(backbone.trunk.state_dict())
            same = backbone.encode(hidden, mask.visible, trunk=trunk)
        subject.must(
            torch.allclose(same, last, atol=1e-5) and not torch.allclose(other, last, atol=1e-5),
            "encode must use the `trunk` that it is given, with random weights of its own, in the place of its own",
        )
        check_reaches(subject, backbone, last.square().mean() + layers[-1].square().mean())

    def values(module: nn.Module, device: torch.device) -> Tensor:
        found: Tensor = module(logmel.to(device))
        return found

    check_module(subject, values, grid=trial, size=SIZE)
