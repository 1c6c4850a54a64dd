"""How to repeat a run: commands, versions, seeds, machine."""

from __future__ import annotations

import base64
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from m2dx.report.recipe_facts import Fact, section
from m2dx.report.run_folder import RunFolder

_PINNED = ("torch", "torchaudio", "timm", "numpy")


@dataclass(frozen=True)
class Reproduction:
    """What the page says about repeating a run."""

    commands: str  # shell commands, a comment before each
    own: str  # version of m2dx, else its commit; empty: not known
    recipe_uri: str  # the resolved recipe as a data URI
    versions: tuple[tuple[str, str, str], ...]  # package, version, commit
    seeds: tuple[Fact, ...]
    start: tuple[Fact, ...]  # how the run was started, and on what


def reproduction(run: RunFolder, recipe: Mapping[str, Any]) -> Reproduction:
    """From a run's folder and its recipe as plain data; what was not recorded is left out."""
    versions = {str(name): str(number) for name, number in section(run.summary, "versions").items()}
    commits = {str(name): str(commit) for name, commit in section(run.summary, "commits").items()}
    data = base64.b64encode(run.recipe.encode("utf-8", errors="replace")).decode()
    return Reproduction(
        commands=_commands(run, versions, commits),
        own=versions["m2dx"] if versions.get("m2dx", "unknown") != "unknown" else commits.get("m2dx", ""),
        recipe_uri=f"data:text/yaml;charset=utf-8;base64,{data}",
        versions=tuple((name, number, commits.get(name, "")) for name, number in versions.items()),
        seeds=_seeds(recipe),
        start=_start(run.summary),
    )


def _commands(run: RunFolder, versions: Mapping[str, str], commits: Mapping[str, str]) -> str:
    lines = []
    pins = [f"{name}=={versions[name]}" for name in _PINNED if versions.get(name, "unknown") != "unknown"]
    if "m2dx" in commits:
        commit = commits["m2dx"].split()[0]
        lines += ["# in a checkout of m2dx", f"git checkout {shlex.quote(commit)}", "pip install -e ."]
    elif versions.get("m2dx", "unknown") != "unknown":
        pins.insert(0, f"m2dx=={versions['m2dx']}")
    if pins:
        lines += ["# the libraries, at the versions of the run", f"pip install {shlex.join(pins)}"]
    again = shlex.quote(f"name={run.name}-again")
    lines += [
        "# the training, its evaluation and its page",
        f"{_launcher(run.summary)} train recipe.yaml {again}",
    ]
    return "\n".join(lines)


def _launcher(summary: Mapping[str, Any]) -> str:
    processes = re.search(r" x (\d+)$", str(summary.get("device", "")))
    if processes is None or processes[1] == "1":
        return "m2dx"
    return f"torchrun --nproc-per-node {processes[1]} -m m2dx"


def _seeds(recipe: Mapping[str, Any]) -> tuple[Fact, ...]:
    seeds = []
    if "seed" in recipe:
        seeds.append(("Weights, order of the clips, crops, noise, masks", str(recipe["seed"])))
    of_evaluation = section(recipe, "evaluation").get("seeds")
    if section(section(recipe, "evaluation"), "tasks") and isinstance(of_evaluation, list):
        seeds.append(("Evaluation", ", ".join(map(str, of_evaluation))))
    return tuple(seeds)


def _start(summary: Mapping[str, Any]) -> tuple[Fact, ...]:
    titles = {
        "command": "Command",
        "folder": "Started in",
        "machine": "Machine",
        "gpus": "GPUs",
        "device": "Trained on",
    }
    return tuple((title, str(summary[key])) for key, title in titles.items() if summary.get(key))
