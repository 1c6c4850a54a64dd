"""What summary.json records beside the numbers of a run: its lists of clips, its software, and where it was started."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

import torch

from m2dx.contract.components import Clip
from m2dx.contract.errors import M2dxError
from m2dx.contract.host import PluginHost
from m2dx.contract.options import ComponentSpec
from m2dx.contract.package import package_version
from m2dx.data.clips import call_dataset, list_clips
from m2dx.data.reading import seconds_of_some
from m2dx.model.cpu_kernels import processor_text
from m2dx.recipe.schema import Recipe
from m2dx.results.records import package_versions
from m2dx.results.run_folder import DataFacts, Launch, SetFacts, Software

HEADERS = 500  # files whose header is asked for their length, at most, where a list does not say it


def describe_data(recipe: Recipe, host: PluginHost) -> DataFacts:
    """Facts of each data set of the recipe and of its noise; the lists are read again."""
    sections, noise = recipe.data.sets, recipe.noise
    listed = {name: describe_set(name, s.dataset, s.split, host) for name, s in sections.items()}
    sets = {name: replace(facts, repeat=sections[name].repeat) for name, facts in listed.items()}
    if noise is None or noise.ratio == 0.0:
        return DataFacts(sets)
    if noise.dataset is None:
        assert noise.source is not None
        return DataFacts(sets, SetFacts("noise", noise.source.name))
    return DataFacts(sets, describe_set("noise", noise.dataset, noise.split, host))


def describe_set(name: str, spec: ComponentSpec, split: str | None, host: PluginHost) -> SetFacts:
    """The facts of one set, or its `error`."""
    facts = SetFacts(name, spec.name, split)
    try:
        dataset = host.build("dataset", spec)
        clips = list_clips(name, dataset, split)
        labelled = sum(bool(clip.labels) for clip in clips)
        hours, counted = hours_of(clips) if dataset.media != "image" else (None, len(clips))
        return replace(
            facts,
            clips=len(clips),
            files=len({clip.path for clip in clips}),
            hours=hours,
            hours_from=None if counted == len(clips) else counted,
            labelled=labelled,
            classes=len(call_dataset(name, dataset, "label_names")) if labelled else 0,
            missing=tuple(call_dataset(name, dataset, "missing")),
            fingerprint=list_fingerprint(clips),
        )
    except M2dxError as error:
        return replace(facts, error=str(error))


def hours_of(clips: Sequence[Clip]) -> tuple[float | None, int]:
    """Hours of all clips, and the number of clips that this was counted over.

    Where a list does not give a clip's duration, headers are asked, `HEADERS` of them at most, evenly spread; their
    mean stands for the rest. None: no length is known.
    """
    listed = [clip.duration for clip in clips if clip.duration is not None]
    rest = [clip for clip in clips if clip.duration is None]
    found = seconds_of_some(rest, HEADERS)
    if not listed and not found:
        return None, 0
    of_rest = sum(found) / len(found) * len(rest) if found else 0.0
    return (sum(listed) + of_rest) / 3600, len(listed) + len(found)


def list_fingerprint(clips: Sequence[Clip]) -> str:
    """12 hexadecimal digits of a SHA-256 over a list of clips: paths, starts, durations, labels; not their order.

    Paths count from the folder that all files share, so that data may move; what is in the files does not count.
    """
    paths = [os.path.abspath(clip.path) for clip in clips]
    try:
        shared = os.path.commonpath({os.path.dirname(path) for path in paths})
    except ValueError:  # there are no clips, or they are on several drives of Windows
        shared = ""
    lines = []
    for path, clip in zip(paths, clips, strict=True):
        duration = "" if clip.duration is None else f"{clip.duration:.3f}"
        place = [Path(path[len(shared) :].lstrip(os.sep)).as_posix(), f"{clip.start:.3f}", duration]
        lines.append("\t".join([*place, *sorted(clip.labels)]))
    text = "\n".join(sorted(lines)).encode("utf-8", errors="surrogateescape")
    return hashlib.sha256(text).hexdigest()[:12]


def describe_software(host: PluginHost) -> Software:
    """Versions of m2dx, the plugins' packages and the libraries, and commits of those that have one."""
    of_plugins = {record.distribution: None for record in host.records}  # in their order, each once
    packages = tuple(name for name in of_plugins if name not in (None, "m2dx"))
    versions = package_versions() | {name: package_version(name) for name in packages}
    return Software(versions, _commits(packages))


@cache  # a process runs what it has imported, whatever changes on the disk; git takes half a second for 20 packages
def _commits(packages: tuple[str, ...]) -> dict[str, str]:
    own = commit_of("m2dx") or commit_of_folder(Path(__file__).parents[1])
    commits = {"m2dx": own, **{name: commit_of(name) for name in packages}}
    return {name: commit for name, commit in commits.items() if commit is not None}


def describe_launch() -> Launch:
    """The command that m2dx was started with (not where it is used as a library), the folder, and the machine."""
    program, gpus = Path(sys.argv[0]), None
    # The script, or `python -m m2dx`.
    is_m2dx = program.stem == "m2dx" or program.parts[-2:] == ("m2dx", "__main__.py")
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
    return commit_of_folder(Path(url2pathname(url.path))) if editable else None


def commit_of_folder(folder: Path) -> str | None:
    """The git commit of a folder under version control, and whether its checkout has changes; None: it has none."""
    if not _git(folder, "ls-files", "."):  # may be inside a checkout of something else
        return None
    return _git(folder, "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty= with changes")


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.check_output(command, stderr=subprocess.PIPE, timeout=10, text=True).strip()
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None


def cpu_name() -> str:
    """The processor's name, as far as the system tells it."""
    named = re.search(r"^model name\s*: *(.+)", processor_text(), re.MULTILINE)
    return named[1] if named else platform.processor() or "processor not known"
