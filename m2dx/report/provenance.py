"""What a run was made with: versions, commits, machine and command, recorded with the run."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import torch

import m2dx
from m2dx.plugins import PluginHost

_LIBRARIES = ("torch", "torchaudio", "timm", "numpy")
_CPU_INFO = Path("/proc/cpuinfo")


def describe_software(host: PluginHost) -> dict[str, Any]:
    """`versions` of m2dx, the plugins' packages and the libraries, and `commits` of those that have one."""
    packages = [record.distribution for record in host.records if record.distribution is not None]
    versions = {"m2dx": m2dx.__version__, "python": platform.python_version()}
    versions |= {name: _version(name) for name in (*_LIBRARIES, *dict.fromkeys(packages))}
    commits = {name: commit for name in packages if (commit := commit_of(name)) is not None}
    own = commit_of("m2dx") or commit_of_folder(Path(m2dx.__file__).parent)
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


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # run from a source tree
        return "unknown"


def cpu_name() -> str:
    """The processor's name, as far as the system tells it."""
    try:
        lines = _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or "processor not known")
