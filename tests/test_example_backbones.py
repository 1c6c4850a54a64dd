"""The backbones in examples/plugins: exports, starts, scores, and what does not fit them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from m2dx_onnx.graph import encoder_graph
from m2dx_specialise.candidates import network_of
from test_example_plugins import EXAMPLES, Example, fields_of, module_of, same

import m2dx
from m2dx.contract.errors import CheckpointError, M2dxError
from m2dx.encoder.config import EncoderConfig
from m2dx.encoder.weights import export_encoder, write_export
from m2dx.jobs import core
from m2dx.jobs.train import make_trainer, run_recipe
from m2dx.model.m2d import M2D
from m2dx.model.patches import time_frames
from m2dx.model.vit import Encoder
from m2dx.training.distributed import Processes
from m2dx.training.prepare import prepare


class Own(M2D):
    """M2D of a ViT, whatever the recipe says."""

    name = "own"

    def __init__(self, grid: m2dx.PatchGrid, size: m2dx.ViTSize, predictor: m2dx.ViTSize) -> None:
        super().__init__(grid, size, predictor)


class Short(Encoder):
    """A ViT that loses a patch."""

    name = "short"

    def embed(self, logmel: torch.Tensor) -> torch.Tensor:
        return super().embed(logmel)[:, 1:]


class OwnEncoder:
    """A plugin of both."""

    @staticmethod
    @m2dx.hookimpl
    def methods() -> list[type]:
        return [Own]

    @staticmethod
    @m2dx.hookimpl
    def backbones() -> list[type]:
        return [Short]


BACKBONES = [example for example in EXAMPLES if "model.backbone" in example.fields]


@pytest.mark.parametrize("example", BACKBONES, ids=lambda example: example.plugin)
def test_a_backbone_is_exported_and_found_again(
    example: Example, tiny_recipe: Callable[..., Any], console: Any, tmp_path: Path
) -> None:
    host = m2dx.PluginHost({"m2dx": core, "plugin": module_of(example.plugin)})
    one = Processes(0, 1, torch.device("cpu"))
    recipe = tiny_recipe("train.epochs=0.6", *fields_of(example.fields), with_host=host)
    trainer = make_trainer(recipe, host, one, console)
    trainer.fit()
    trained = trainer.model.masked_model.online.eval()
    export = export_encoder(trainer.run.folder, tmp_path / "export", host=host)
    config = json.loads((export / "config.json").read_text())["backbone"]
    assert config == {
        "name": trained.name,
        "options": recipe.model.backbone.options(),
        "package": example.plugin,
    }
    encoder = m2dx.load_encoder(export, host=host)
    assert same(dict(encoder.encoder.state_dict()), dict(trained.state_dict()))
    wav = torch.randn(2, 8000, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        short = wav[:, :5120]  # a crop
        expected = time_frames(trained(encoder.standard_logmel(short))[:, 1:], trained.grid.shape)
        torch.testing.assert_close(encoder(short), expected)
        assert encoder(wav).shape == (2, 4, encoder.embed_dim)
    network = network_of(str(export))  # as a start of a search
    assert network.backbone is not None and dict(network.backbone) == recipe.model.backbone.model_dump()
    again = tiny_recipe("name=again", f"init_from={export}", *fields_of(example.fields), with_host=host)
    started = prepare(again, host, one, console).model.masked_model.online
    assert same(dict(started.state_dict()), dict(trained.state_dict()))


@pytest.mark.slow
@pytest.mark.parametrize("example", BACKBONES, ids=lambda example: example.plugin)
def test_a_run_with_a_backbone_is_scored_and_has_a_page(
    example: Example, tiny_recipe: Callable[..., Any], console: Any, few_notes: Path
) -> None:
    host = m2dx.PluginHost({"m2dx": core, "plugin": module_of(example.plugin)})
    notes = f"evaluation.tasks={{notes: {{dataset: {{name: csv, path: {few_notes}}}}}}}"
    options = ["train.epochs=0.4", "train.warmup_epochs=0", notes, "evaluation.evaluators={knn: {name: knn}}"]
    recipe = tiny_recipe("name=first", *options, *fields_of(example.fields), with_host=host)
    run_recipe(recipe, host, console)
    page = (recipe.output / "first" / "report.html").read_text(encoding="utf-8")
    reconstructs = host.component("method", recipe.model.method.name).reconstructs
    assert reconstructs == ("attention is drawn of the backbone vit" not in page)
    assert "random_weights" in page


@pytest.mark.parametrize("example", BACKBONES, ids=lambda example: example.plugin)
def test_what_does_not_fit_a_backbone_is_told_in_words(
    example: Example, tiny_recipe: Callable[..., Any], console: Any, tmp_path: Path
) -> None:
    module = module_of(example.plugin)
    host = m2dx.PluginHost({"m2dx": core, "plugin": module, "jepa": OwnEncoder})
    grid, size = m2dx.PatchGrid((80, 32), (16, 16)), m2dx.ViTSize(24, 1, 2)
    encoder = getattr(module, next(iter(example.checked)))(grid, size)
    config = EncoderConfig(
        input_size=grid.input_size, patch_size=grid.patch_size, vit=size, audio={"crop_seconds": 0.32}
    )
    write_export(tmp_path / "export", encoder, config)
    with pytest.raises(
        CheckpointError, match=f"{encoder.name}' of the package {example.plugin} must be installed"
    ):
        m2dx.load_encoder(tmp_path / "export")
    with pytest.raises(
        CheckpointError, match=rf"an ONNX file must be of the backbone vit, .* is {encoder.name}"
    ):
        encoder_graph(m2dx.load_encoder(tmp_path / "export", host=host))
    name = encoder.name
    faults = {
        f"model.backbone=vit init_from={tmp_path / 'export'}": f"model.backbone must be {name} .* but is vit",
        f"model.backbone={name} model.method=own": "model.backbone must be vit, which the method own builds",
        "model.backbone=short": r"backbone \('short' of .*: embed must give \(1, 10, 192\), .* gave \(1, 9, 192\)",
    }
    for changes, message in faults.items():
        recipe = tiny_recipe(*fields_of(changes), with_host=host)
        with pytest.raises(M2dxError, match=message):
            prepare(recipe, host, Processes(0, 1, torch.device("cpu")), console)
