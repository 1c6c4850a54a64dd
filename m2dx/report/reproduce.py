"""How to repeat a run: what is recorded of its software and machine, and what the page makes of it."""

from __future__ import annotations

import base64
import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import torch

from m2dx.contract.host import PluginHost
from m2dx.contract.version import package_version
from m2dx.report.summary_facts import Fact, find, section
from m2dx.results.run_folder import RunFolder
from m2dx.results.run_summary import Launch, RunSummary, Software

_LIBRARIES = ("torch", "torchaudio", "timm", "numpy")
_CPU_INFO = Path("/proc/cpuinfo")


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
    software = Software({}, {}) if run.summary is None else run.summary.software
    versions, commits = software.versions, software.commits
    data = base64.b64encode(run.recipe.encode("utf-8", errors="replace")).decode()
    return Reproduction(
        commands=_commands(run, software),
        own=versions["m2dx"] if versions.get("m2dx", "unknown") != "unknown" else commits.get("m2dx", ""),
        recipe_uri=f"data:text/yaml;charset=utf-8;base64,{data}",
        versions=tuple((name, version, commits.get(name, "")) for name, version in versions.items()),
        seeds=_seeds(recipe),
        start=() if run.summary is None else _start(run.summary),
    )


def _commands(run: RunFolder, software: Software) -> str:
    known = {name: version for name, version in software.versions.items() if version != "unknown"}
    pins, lines = [f"{name}=={known[name]}" for name in _LIBRARIES if name in known], []
    if "m2dx" in software.commits:
        commit = software.commits["m2dx"].split()[0]
        lines += ["# in a checkout of m2dx", f"git checkout {shlex.quote(commit)}", "pip install -e ."]
    elif "m2dx" in known:
        pins.insert(0, f"m2dx=={known['m2dx']}")
    if pins:
        lines += ["# the libraries, at the versions of the run", f"pip install {shlex.join(pins)}"]
    processes = 1 if run.summary is None else run.summary.processes
    launcher = "m2dx" if processes == 1 else f"torchrun --nproc-per-node {processes} -m m2dx"
    again = shlex.quote(f"name={run.name}-again")
    lines += ["# the training, its evaluation and its page", f"{launcher} train recipe.yaml {again}"]
    return "\n".join(lines)


def _seeds(recipe: Mapping[str, Any]) -> tuple[Fact, ...]:
    seeds = []
    if "seed" in recipe:
        seeds.append(("Weights, order of the clips, crops, noise, masks", str(recipe["seed"])))
    of_evaluation = find(recipe, "evaluation.seeds")
    if section(recipe, "evaluation.tasks") and isinstance(of_evaluation, list):
        seeds.append(("Evaluation", ", ".join(map(str, of_evaluation))))
    return tuple(seeds)


def _start(summary: RunSummary) -> tuple[Fact, ...]:
    launch = summary.launch
    facts = (
        ("Command", launch.command),
        ("Started in", launch.folder),
        ("Machine", launch.machine),
        ("GPUs", launch.gpus),
        ("Trained on", f"{summary.device} x {summary.processes}"),
    )
    return tuple((title, value) for title, value in facts if value)


def describe_software(host: PluginHost) -> Software:
    """Versions of m2dx, the plugins' packages and the libraries, and commits of those that have one."""
    of_plugins = {record.distribution: None for record in host.records}  # in their order, each once
    packages = [name for name in of_plugins if name not in (None, "m2dx")]
    versions = {"m2dx": package_version(), "python": platform.python_version()}
    versions |= {name: package_version(name) for name in (*_LIBRARIES, *packages)}
    own = commit_of("m2dx") or commit_of_folder(Path(__file__).parents[1])
    commits = {"m2dx": own, **{name: commit_of(name) for name in packages}}
    return Software(versions, {name: commit for name, commit in commits.items() if commit is not None})


def describe_launch() -> Launch:
    """The command that m2dx was started with (not where it is used as a library), the folder, and the machine."""
    program, gpus = Path(sys.argv[0]), None
    is_m2dx = program.stem == "m2dx" or program.parent.name == "m2dx"  # the script, or `python -m m2dx`
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        gpus = ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))
    return Launch(
        folder=os.getcwd(),
        machine=f"{platform.system()} {platform.machine()}, {cpu_name()}, {os.cpu_count()} cores",
        command=shlex.join(["m2dx", *sys.argv[1:]]) if is_m2dx else None,
        gpus=gpus,
    )


def commit_of(package: str) -> str | None:
    """The commit that a package was installed from, by a URL or as an editable checkout; None: not known."""
    try:
        text = importlib.metadata.distribution(package).read_text("direct_url.json")
        origin = json.loads(text) if text else {}
        if "vcs_info" in origin:
            return str(origin["vcs_info"]["commit_id"])[:12]
        url = urlparse(origin.get("url", ""))
    except (importlib.metadata.PackageNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None
    editable = url.scheme == "file" and origin.get("dir_info", {}).get("editable")
    return commit_of_folder(Path(unquote(url.path))) if editable else None


def commit_of_folder(folder: Path) -> str | None:
    """The git commit of a folder under version control, and whether it has changes; None: it is not, or no git."""
    if not _git(folder, "ls-files", "."):  # may be inside a checkout of something else
        return None
    commit = _git(folder, "rev-parse", "--short=12", "HEAD")
    if commit is None:
        return None
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no", ".")
    return f"{commit} with changes" if changed else commit


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, timeout=10, check=True, text=True
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout.strip()


def cpu_name() -> str:
    """The processor's name, as far as the system tells it."""
    try:
        lines = _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or "processor not known")
