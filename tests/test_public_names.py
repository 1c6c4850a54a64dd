import subprocess
import sys
from pathlib import Path

import pytest

import m2dx
from m2dx import results


def test_each_public_name_is_there():
    assert set(dir(m2dx)) == set(m2dx.__all__)
    for name in m2dx.__all__:
        assert getattr(m2dx, name) is not None
    with pytest.raises(AttributeError, match="load_recipes"):
        _ = m2dx.load_recipes


def test_each_public_name_of_results_is_there():
    assert {"ResultRecord", "read_records", "ResultTable"} <= vars(results).keys()
    with pytest.raises(AttributeError, match="read_record'"):
        _ = results.read_record


def test_names_and_schema_need_no_torch():
    code = (
        "import sys, m2dx; m2dx.hookimpl, m2dx.RecipeError, m2dx.__version__, m2dx.load_recipe\n"
        "import m2dx.recipe.schema, m2dx.recipe.model, m2dx.results\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


NEEDS = """
import os, sys

def found(): return sorted(name for name in sys.modules if name.split(".")[0] == "m2dx")

from m2dx import load_encoder
assert len(found()) <= 25, found()
process = os.fork()
if process == 0:
    import m2dx.jobs.train
    assert len(found()) <= 75, (len(found()), found())
    os._exit(0)
encoder = load_encoder("data/parity/patch16x16/m2d_weights.safetensors", num_heads=4)
import torch
encoder(torch.zeros(1, 16_000))
slow = {"timm", "torchvision", "torch._dynamo", "sympy", "pandas", "sklearn", "scipy", "matplotlib", "rich"}
assert not slow & sys.modules.keys(), slow & sys.modules.keys()
import m2dx.jobs.core
assert not slow & sys.modules.keys(), slow & sys.modules.keys()
assert os.waitpid(process, 0)[1] == 0
"""


def test_an_encoder_the_components_and_the_training_need_few_modules():
    """What reads a trained encoder can be understood alone, and so can `m2dx train` up to its first step.

    Evaluation and report come after it. Encoder and components need no library that takes long to import.
    """
    subprocess.run([sys.executable, "-c", NEEDS], check=True, cwd=Path(__file__).parent)
