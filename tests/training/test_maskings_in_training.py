"""A recipe's masking reaches the batches; the run goes on with the masks that it would have had, and is exported."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import m2dx
from m2dx.contract.host import PluginHost
from m2dx.data.loader import batch_loader
from m2dx.encoder.audio import load_encoder
from m2dx.encoder.weights import export_encoder
from m2dx.jobs import core
from m2dx.training.trainer import Trainer

MASKING = ["audio.crop_seconds=0.64", "model.masking=columns", "train.rankme_every=2"]


class Columns(m2dx.Masking):
    """Whole columns, the last one in part."""

    name = "columns"

    def draw(self, generator: torch.Generator) -> torch.Tensor:
        freq, time = self.grid
        order = torch.randperm(time, generator=generator)
        return (order + time * torch.arange(freq)[:, None]).T.flatten()


class Loud(Columns):
    """The loudest patches first; ever more of them by chance."""

    name = "loud"

    def look(
        self, ids: torch.Tensor, logmel: torch.Tensor, *, progress: float, seeds: torch.Tensor
    ) -> torch.Tensor:
        level = logmel.unflatten(2, (-1, 16)).unflatten(4, (-1, 16)).mean((1, 3, 5)).flatten(1)
        return (level + 9 * progress * m2dx.seeded_uniform(seeds, ids.shape[1])).argsort(dim=1)


@pytest.fixture(scope="module")
def host() -> PluginHost:
    plugin = SimpleNamespace(maskings=m2dx.hookimpl(lambda: [Columns, Loud]))
    return PluginHost({"m2dx": core, "acme": plugin})


def test_masks_of_training_are_those_of_the_recipe(tiny_recipe: Any, make_trainer: Any) -> None:
    trainer = make_trainer(tiny_recipe(*MASKING))
    keys = next(iter(trainer.run.batches()))
    for key in keys:
        ids = trainer.run.crops[key].ids_shuffle
        flags = torch.ones(20, dtype=torch.bool)
        flags[ids[: trainer.model.num_visible]] = False
        columns = flags.view(5, 4).sum(
            dim=0
        )  # 12 of 20 patches are masked: two whole columns, and part of one
        assert sorted(columns.tolist()) == [0, 2, 5, 5]
    drawn = {tuple(trainer.run.crops[key].ids_shuffle.tolist()) for key in keys}
    assert len(drawn) == len(keys)


def test_a_run_with_a_masking_goes_on_exactly_and_is_exported(
    tiny_recipe: Any, make_trainer: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def train(name: str, epochs: float, *, resume: bool = False) -> Trainer:
        trainer: Trainer = make_trainer(tiny_recipe(*MASKING, f"name={name}"), resume=resume)
        trainer.total_steps = round(epochs * 5)
        trainer.fit()
        return trainer

    whole = train("whole", 0.8)
    train("parts", 0.4)
    parts = train("parts", 0.8, resume=True)
    assert parts.step == whole.step == 4
    weights = parts.model.state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in whole.model.state_dict().items())
    encoder = load_encoder(export_encoder(parts.run.folder, tmp_path / "encoder"))
    assert encoder.clip(torch.zeros(1, 10_240)).shape == (1, 5 * 192)


def test_masks_that_look_depend_on_step_and_clip_and_on_nothing_else(
    tiny_recipe: Any, make_trainer: Any
) -> None:
    def masks(*overrides: str, name: str, resume: bool = False, steps: int = 4) -> list[torch.Tensor]:
        """The masks of all clips, a tensor per step."""
        given = [*MASKING, "model.masking=loud", "model.masks_per_clip=2", f"name={name}", *overrides]
        trainer = make_trainer(tiny_recipe(*given, noise=True), resume=resume)
        seen: list[torch.Tensor] = []
        trainer.model.masked_model.register_forward_pre_hook(lambda module, args: seen.append(args[1]))
        first, accumulate = trainer.step, trainer.recipe.train.accumulate
        batches = iter(batch_loader(trainer.run.crops, trainer.run.batches(start_step=first), workers=0))
        for _ in range(steps - first):
            trainer.train_step(batches)
        trainer.save()
        rows = [of.ids_shuffle for of in seen]
        return [torch.cat(rows[i : i + accumulate]) for i in range(0, len(rows), accumulate)]

    whole = masks(name="whole")
    assert whole[0].shape == (8, 20) and not torch.equal(whole[1][::2], whole[1][1::2])
    parts = masks("train.accumulate=4", name="parts", steps=2)
    parts += masks("train.accumulate=2", name="parts", resume=True)
    assert all(map(torch.equal, whole, parts))
