"""A run on a pack of m2dx-pack: the same clips, crops, losses as on the files; commands take it as any data set."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from m2dx_pack.command import commands
from typer.testing import CliRunner

from m2dx.cli import app
from m2dx.contract.errors import RecipeError
from m2dx.training.trainer import Trainer

RATE = 16_000
STEPS = "train.epochs=1.6"


def write_sounds(folder: Path, *, subtype: str, suffix: str) -> None:
    """24 chords of three classes, a noise file, and a list."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    lines = ["path,start,duration,label,split"]
    for i in range(24):
        time = np.arange(round(RATE * (0.3 + 0.1 * (i % 4)))) / RATE
        wav = 0.4 * np.sin(2 * np.pi * (200 + 300 * (i % 3)) * time) + 0.01 * generator.standard_normal(
            len(time)
        )
        soundfile.write(folder / f"{i}.{suffix}", wav, RATE, subtype=subtype)
        lines.append(f"{i}.{suffix},0.05,,{'abc'[i % 3]},{'train' if i % 4 else 'valid'}")
    (folder / "list.csv").write_text("\n".join(lines) + "\n")
    hiss = 0.1 * generator.standard_normal(2 * RATE)
    soundfile.write(folder / f"hiss.{suffix}", hiss, RATE, subtype=subtype)
    (folder / "noise.csv").write_text(f"path\nhiss.{suffix}\n0.{suffix}\n")


def plain(folder: Path) -> list[str]:
    return [
        f"data.sets.notes.dataset={{name: csv, path: {folder / 'list.csv'}}}",
        f"noise.dataset={{name: csv, path: {folder / 'noise.csv'}}}",
        STEPS,
    ]


def packed(recipe: Path, overrides: list[str], out: Path, *options: str) -> list[str]:
    """What `m2dx pack` says to add to the recipe."""
    done = CliRunner().invoke(commands, [str(recipe), str(out), *overrides, *options, "--workers", "0"])
    assert done.exit_code == 0, done.output
    lines = [line.strip().strip("'") for line in done.output.splitlines()]
    return [*(line for line in lines if "{name: packed" in line), STEPS]


def losses(trainer: Trainer) -> list[dict[str, float]]:
    trainer.fit()
    lines = (trainer.run.folder / "metrics.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    return [{k: v for k, v in line.items() if k.startswith(("loss", "grad"))} for line in found]


@pytest.mark.parametrize("form", ["flac", "wav", pytest.param("keep", marks=pytest.mark.slow)])
def test_losses_on_a_pack_of_16_bit_files_are_the_same_to_the_last_bit(
    form: str, tmp_path: Path, tiny_recipe: Any, make_trainer: Any
) -> None:
    write_sounds(tmp_path / "sounds", subtype="PCM_16", suffix="wav")
    overrides = plain(tmp_path / "sounds")
    recipe = tiny_recipe(*overrides, "name=plain", labels=True, noise=True)
    expected = losses(make_trainer(recipe))
    folder = tmp_path / "sounds"
    use = packed(tmp_path / "tiny.yaml", [*overrides, "noise.ratio=0.2"], tmp_path / "out", "--format", form)
    assert "list.csv" not in str(use)
    for path in [*folder.glob("*.wav"), *folder.glob("*.csv")]:
        path.unlink()
    got = losses(make_trainer(tiny_recipe(*use, "name=packed", labels=True, noise=True)))
    assert len(expected) == 8
    assert got == expected


def test_losses_on_a_pack_of_rounded_files_are_close(
    tmp_path: Path, tiny_recipe: Any, make_trainer: Any
) -> None:
    write_sounds(tmp_path / "sounds", subtype="FLOAT", suffix="wav")
    overrides = plain(tmp_path / "sounds")
    expected = losses(make_trainer(tiny_recipe(*overrides, "name=plain", labels=True, noise=True)))
    use = packed(tmp_path / "tiny.yaml", [*overrides, "noise.ratio=0.2"], tmp_path / "out")
    got = losses(make_trainer(tiny_recipe(*use, "name=packed", labels=True, noise=True)))
    for a, b in zip(got, expected, strict=True):
        assert a == pytest.approx(b, rel=1e-3)
    assert got != expected


@pytest.mark.slow
def test_m2dx_check_takes_a_pack(tmp_path: Path, tiny_recipe: Any) -> None:
    write_sounds(tmp_path / "sounds", subtype="PCM_16", suffix="wav")
    tiny_recipe()
    use = packed(tmp_path / "tiny.yaml", plain(tmp_path / "sounds")[:1], tmp_path / "out")
    done = CliRunner().invoke(app, ["check", str(tmp_path / "tiny.yaml"), *use])
    assert done.exit_code == 0, done.output
    assert "m2d " in done.output


def test_a_run_takes_a_few_shards_at_a_time_and_goes_on_exactly(
    tmp_path: Path, tiny_recipe: Any, make_trainer: Any
) -> None:
    write_sounds(tmp_path / "sounds", subtype="PCM_16", suffix="wav")
    tiny_recipe()
    packing = ["--shard-size", "1", "--format", "wav"]
    use = packed(tmp_path / "tiny.yaml", plain(tmp_path / "sounds")[:1], tmp_path / "out", *packing)
    use = [*use, "data.shards_at_once=1", "train.checkpoint_every=3"]
    expected = losses(make_trainer(tiny_recipe(*use, "name=whole")))
    first = make_trainer(tiny_recipe(*use, "name=parts"))
    first.total_steps = 3
    first.fit()
    again = make_trainer(tiny_recipe(*use, "name=parts"), resume=True)
    assert again.step == 3
    assert losses(again) == expected


def test_shards_at_once_needs_shards(tiny_recipe: Any, make_trainer: Any) -> None:
    with pytest.raises(RecipeError, match=r"data\.shards_at_once needs packed data"):
        make_trainer(tiny_recipe("data.shards_at_once=4"))
    with pytest.raises(RecipeError, match="shards_at_once must be left out with sampling: weighted"):
        tiny_recipe("data.shards_at_once=4", "data.sampling=weighted")
