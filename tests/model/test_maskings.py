"""The maskings of a recipe, the core's and those of plugins."""

from types import SimpleNamespace

import pytest
import torch

import m2dx
from m2dx.jobs import core
from m2dx.model.build import build_masking
from m2dx.model.masking import RandomMasking
from m2dx.recipe.loading import recipe_from_mapping, recipe_to_mapping


def recipe_with(masking, host=None, **model):
    data = {"sets": {"field": {"dataset": {"name": "folder", "path": "recordings"}}}}
    mapping = {"data": data, "model": {"masking": masking, **model}}
    return recipe_from_mapping(mapping, host=host or m2dx.PluginHost({"m2dx": core}), source="test")


def test_random_is_torchs_permutation_as_ever():
    ids = RandomMasking((5, 38), 57).draw(torch.Generator().manual_seed(3))
    assert torch.equal(ids, torch.randperm(190, generator=torch.Generator().manual_seed(3)))
    host = m2dx.PluginHost({"m2dx": core})
    for masking in (None, {"name": "random"}):
        draw = build_masking(recipe_with(masking, host), host)
        assert torch.equal(draw(torch.Generator().manual_seed(3)), ids)


class Halves(m2dx.Masking):
    """The first half of the crop.

    Options:
        give: what draw gives instead
    """

    name = "halves"

    def __init__(self, grid, num_visible, *, give: str = "") -> None:
        super().__init__(grid, num_visible)
        self.give = give

    def draw(self, generator):
        ids = torch.arange(self.grid[0] * self.grid[1])
        if self.give == "error":
            raise KeyError("halves")
        return {"": ids, "twice": ids * 0, "few": ids[1:], "float": ids.float(), "none": None}[self.give]


@pytest.fixture
def host():
    plugin = SimpleNamespace(maskings=m2dx.hookimpl(lambda: [Halves]))
    return m2dx.PluginHost({"m2dx": core, "acme": plugin})


@pytest.mark.parametrize(
    ("give", "found"),
    [
        ("twice", "each of the 190 patches once, but 1 different ones between 0 and 0 came"),
        ("few", r"a permutation \(190,\) torch.int64 of the patches, but gave \(189,\) torch.int64"),
        ("float", r"but gave \(190,\) torch.float32"),
        ("none", "but gave NoneType"),
        ("error", "draw failed: KeyError: 'halves'"),
    ],
)
def test_a_plugin_whose_masking_gives_no_permutation_is_named(host, give, found):
    recipe = recipe_with({"name": "halves", "give": give}, host)
    with pytest.raises(m2dx.PluginError, match=rf"model\.masking \('halves' of plugin 'acme'\): .*{found}"):
        build_masking(recipe, host)


class Looks(Halves):
    """The first half, then what is told.

    Options:
        give: what look gives instead
    """

    name = "looks"

    def draw(self, generator):
        return torch.randperm(self.grid[0] * self.grid[1], generator=generator)

    def look(self, ids, logmel, *, progress, seeds):
        assert logmel.shape == (len(ids), 1, 80, 608) and seeds.shape == (len(ids),)
        if self.give == "error":
            raise KeyError("looks")
        return {"": ids, "twice": ids * 0, "few": ids[:1], "float": ids.float(), "none": None}[self.give]


@pytest.mark.parametrize(
    ("give", "found"),
    [
        ("twice", "look must give each of the 190 patches once, but 1 different ones between 0 and 0 came"),
        (
            "few",
            r"look must give a permutation for each clip, \(6, 190\) torch.int64 .*gave \(1, 190\) torch.int64",
        ),
        ("float", r"but gave \(6, 190\) torch.float32"),
        ("none", "but gave NoneType"),
        ("error", "look failed: KeyError: 'looks'"),
    ],
)
def test_a_masking_that_looks_is_tried(give, found):
    host = m2dx.PluginHost({"m2dx": core, "acme": SimpleNamespace(maskings=m2dx.hookimpl(lambda: [Looks]))})
    assert build_masking(recipe_with({"name": "looks"}, host), host).looks
    recipe = recipe_with({"name": "looks", "give": give}, host, masks_per_clip=3)
    with pytest.raises(m2dx.PluginError, match=rf"model\.masking \('looks' of plugin 'acme'\): .*{found}"):
        build_masking(recipe, host)


def test_the_first_of_several_masks_is_the_only_one_of_before():
    host = m2dx.PluginHost({"m2dx": core})
    one, three = (build_masking(recipe_with(None, host, masks_per_clip=n), host) for n in (1, 3))
    drawn = three(torch.Generator().manual_seed(3))
    assert drawn.shape == (3, 190) and torch.equal(drawn[0], one(torch.Generator().manual_seed(3)))
    assert len({tuple(ids.tolist()) for ids in drawn}) == 3


def test_a_recipe_names_a_plugins_masking(host):
    recipe = recipe_with({"name": "halves"}, host, mask_ratio=0.5)
    draw = build_masking(recipe, host)
    assert torch.equal(draw(torch.Generator()), torch.arange(190))
    mapping = recipe_to_mapping(recipe)
    assert mapping["model"]["masking"] == {"name": "halves", "give": ""}
    assert recipe_to_mapping(recipe_from_mapping(mapping, host=host, source="again")) == mapping
    with pytest.raises(m2dx.RecipeError, match="there is no masking 'halfs'; did you mean 'halves'"):
        recipe_with({"name": "halfs"}, host)
