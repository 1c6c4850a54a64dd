"""How to repeat a run: commands, versions, seeds, machine."""

from __future__ import annotations

import base64
import importlib.metadata
import json
import os
import platform
import re
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
from m2dx.report.summary_facts import Fact, section
from m2dx.results.run_folder import RunFolder

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


_LIBRARIES = ("torch", "torchaudio", "timm", "numpy")
_CPU_INFO = Path("/proc/cpuinfo")


def describe_software(host: PluginHost) -> dict[str, Any]:
    """`versions` of m2dx, the plugins' packages and the libraries, and `commits` of those that have one."""
    packages = [record.distribution for record in host.records if record.distribution is not None]
    versions = {"m2dx": package_version(), "python": platform.python_version()}
    versions |= {name: package_version(name) for name in (*_LIBRARIES, *dict.fromkeys(packages))}
    commits = {name: commit for name in packages if (commit := commit_of(name)) is not None}
    own = commit_of("m2dx") or commit_of_folder(Path(__file__).parents[1])
    return {"versions": versions, "commits": commits if own is None else {"m2dx": own, **commits}}


def describe_start() -> dict[str, Any]:
    """`command` that m2dx was started with (not where it is used as a library), `folder`, and the machine."""
    facts: dict[str, Any] = {
        "folder": os.getcwd(),
        "machine": f"{platform.system()} {platform.machine()}, {cpu_name()}, {os.cpu_count()} cores",
    }
    program = Path(sys.argv[0])
    if program.stem == "m2dx" or program.parent.name == "m2dx":  # the script, or `python -m m2dx`
        facts["command"] = shlex.join(["m2dx", *sys.argv[1:]])
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        facts["gpus"] = ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))
    return facts


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
