"""A host with small components, and the core's backbone, optimizer and schedule, which every recipe has."""

from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import pytest

import m2dx
from m2dx.contract.host import PluginHost
from m2dx.model.vit import Encoder
from m2dx.training.optimizers import AdamW, Cosine


class M2D(m2dx.MaskedModel):
    """Predicts features.

    Options:
        loss: what is compared
    """

    name = "m2d"

    def __init__(self, grid, size, predictor, *, loss: Literal["norm_mse", "mse"] = "norm_mse") -> None:
        super().__init__()

    def forward(self, logmel, mask, *, with_tokens=True):
        raise AssertionError


class MSMMAE(M2D):
    """Reconstructs patches."""

    name = "msm_mae"
    predictor_sizes = {"embed_dim": 384, "depth": 4, "num_heads": 6}

    def __init__(self, grid, size, predictor) -> None:
        super().__init__(grid, size, predictor)


class Labels(m2dx.OfflineEncoder):
    """Labels of the clips.

    Options:
        dataset: data set that has the labels
    """

    name = "labels"

    def __init__(self, data, *, dataset: str | None = None) -> None:
        super().__init__()

    def forward(self, views):
        return views.labels["main"]


class LinearMapper(m2dx.OnlineMapper):
    """One linear layer."""

    name = "linear"

    def forward(self, tokens):
        return tokens


class MLPMapper(LinearMapper):
    """Two layers."""

    name = "mlp"

    def __init__(self, shapes, *, hidden_dim: int = 512, dropout: float = 0.0) -> None:
        super().__init__(shapes)


class NormMSE(m2dx.Loss):
    """Eq. (2)."""

    name = "norm_mse"

    def forward(self, prediction, target):
        return prediction


class Huber(NormMSE):
    """Huber loss.

    Options:
        delta: where it turns linear,
            in units of the target
    """

    name = "huber"

    def __init__(self, *, delta: float = 1.0, reduction: Literal["mean", "sum"] = "mean") -> None:
        super().__init__()
        self.delta = delta


class Hum(m2dx.NoiseSource):
    """Mains hum."""

    name = "hum"

    def __init__(self, sample_rate, *, frequency: float = 50.0) -> None:
        super().__init__(sample_rate)

    def draw(self, num_samples, generator):
        raise AssertionError


class Folder(m2dx.Dataset):
    """Files of a folder."""

    name = "folder"

    def __init__(self, *, path: Path, recursive: bool = True) -> None:
        self.path = path

    def clips(self, split=None):
        return []


class Csv(Folder):
    """Clips of a list."""

    name = "csv"

    def __init__(
        self,
        *,
        path: Path,
        root: Path | None = None,
        extra: list[Path] = [],  # noqa: B006
        fold: int | bool = 0,
        note: str = "",
    ) -> None:
        super().__init__(path=path)


class Knn(m2dx.Evaluator):
    """Nearest neighbours."""

    name = "knn"

    def __init__(self, *, k: int = 5) -> None: ...

    def evaluate(self, encoder, task, *, seeds):
        return []


class Spread(m2dx.Regulariser):
    """Keeps features apart."""

    name = "spread"

    def forward(self, output, target): ...


COMPONENTS = {
    "methods": [M2D, MSMMAE],
    "backbones": [Encoder],
    "offline_encoders": [Labels],
    "online_mappers": [LinearMapper, MLPMapper],
    "losses": [NormMSE, Huber],
    "regularisers": [Spread],
    "noise_sources": [Hum],
    "datasets": [Folder, Csv],
    "evaluators": [Knn],
    "optimizers": [AdamW],
    "schedules": [Cosine],
}


def _plugin(hooks):
    functions = {}
    for hook, components in hooks.items():

        def give(components=components):
            return components

        # pluggy takes arguments with a default for none.
        functions[hook] = m2dx.hookimpl(give)
    return SimpleNamespace(**functions)


@pytest.fixture
def make_plugin():
    """Makes a plugin from a mapping of hook names to components."""
    return _plugin


@pytest.fixture(scope="session")
def host():
    return PluginHost({"m2dx": _plugin(COMPONENTS)})


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a file into the current folder, which is `tmp_path`."""
    monkeypatch.chdir(tmp_path)

    def write(text, name="recipe.yaml"):
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write
