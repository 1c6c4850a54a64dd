"""Recipes, and generated data for them in the official layouts; pre-trained weights are random."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from m2dx_audioset.sample import write_audioset, write_fsd50k
from m2dx_hubert.architectures import MODELS
from m2dx_hubert.sample import write_sample as write_librispeech
from m2dx_hubert.sample import write_weights as write_hubert
from m2dx_respiratory.sample import write_icbhi, write_sprsound
from recipe_files import RECIPES
from recipe_inputs import write_base, write_images

from m2dx.contract.host import PluginHost
from m2dx.recipe.loading import load_recipe
from m2dx.recipe.schema import Recipe


@pytest.fixture(scope="session")
def plugin_host() -> PluginHost:
    """The core and the plugins of this repository, installed or not."""
    import m2dx_audioset
    import m2dx_hubert
    import m2dx_respiratory
    import m2dx_tasks
    import m2dx_teacher

    host = PluginHost.discover()
    installed = {record.name for record in host.records}
    for plugin in (m2dx_audioset, m2dx_hubert, m2dx_respiratory, m2dx_tasks, m2dx_teacher):
        name = plugin.__name__.removeprefix("m2dx_")
        if name not in installed:
            host.register(name, plugin)
    return host


NARROW = replace(MODELS["hubert_base"], conv_channels=64)
"""HuBERT Base with an eighth of its channels, which take most of a step's time."""


@pytest.fixture(scope="session")
def generated(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Data for every environment variable; enough clips for the published batches, most of them links."""
    folder = tmp_path_factory.mktemp("data")
    subsets = ("train-clean-100", "train-clean-360", "train-other-500")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "hubert_base", NARROW)
        hubert = write_hubert(folder / "hubert.pt", layer=1)
    return {
        "AUDIOSET": write_audioset(folder / "audioset", clips=2064),
        "FSD50K": write_fsd50k(folder / "fsd50k", clips=24),
        "LIBRISPEECH": write_librispeech(folder, clips=688, subsets=subsets),
        "ICBHI": write_icbhi(folder / "icbhi", clips=6),
        "SPRSOUND": write_sprsound(folder / "sprsound", clips=8),
        "IMAGENET": write_images(folder / "imagenet", images=2064),
        "HUBERT": hubert,
        "M2D_16X4": write_base(folder / "shallow" / "checkpoint.pth", "base", depth=1),
    }


@pytest.fixture
def narrow_hubert(monkeypatch: pytest.MonkeyPatch) -> None:
    """HuBERT as `generated` has it: of one block, and narrow."""
    monkeypatch.setitem(MODELS, "hubert_base", NARROW)


@pytest.fixture
def environment(generated: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets the environment variables of recipes, some of them to other paths."""

    def set_all(**others: Path) -> None:
        for name, path in {**generated, **others}.items():
            monkeypatch.setenv(name, str(path))

    set_all()
    return set_all


@pytest.fixture
def load(environment: None, plugin_host: PluginHost, tmp_path: Path) -> Callable[..., Recipe]:
    """Loads a recipe by its name below recipes/, with overrides."""

    def loaded(name: str, *overrides: str) -> Recipe:
        return load_recipe(
            RECIPES / f"{name}.yaml",
            [
                f"output={tmp_path / 'runs'}",
                "train.precision=auto",
                *overrides,
            ],  # bf16 is slow where it is imitated
            host=plugin_host,
        )

    return loaded
