"""`--plan-only`: what a search would train and how long, and the published setting for as many recordings."""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from rich.console import Console

import m2dx
from m2dx.contract.package import find_encoder
from m2dx.contract.wording import counted, duration, gigabytes
from m2dx.training.distributed import pick_device
from m2dx_specialise.audit import Audit
from m2dx_specialise.candidates import propose, random_networks
from m2dx_specialise.division import divide
from m2dx_specialise.judge import PLAIN
from m2dx_specialise.parts import Parts, unit_seconds
from m2dx_specialise.search import Search, recordings
from m2dx_specialise.state import Request, State

TIMED_CLIPS = 40
PUBLISHED = {
    10_000: ("ICBHI 2017: batch 128, 600 epochs of 10,000, 7 h on an RTX 3090 Ti", "icbhi_m2d_x"),
    281_241: ("LibriSpeech: batch 2048, 1,000 epochs, half the crops of AudioSet's", "m2d_s_6s"),
    2_005_132: ("AudioSet: batch 2048, 300 epochs, 55 h on four A100 of 80 GB", "m2d_audioset"),
}
"""Clips of an epoch -> data and schedule (M2D-X, IV and table XV), and the recipe."""


def published_for(clips: int) -> str:
    """The published setting for about as many clips, in a line."""
    near = min(PUBLISHED, key=lambda known: abs(math.log(max(clips, 1) / known)))
    text, recipe = PUBLISHED[near]
    many = "for about as many" if near < 4 * clips else f"for {near:,} clips, the fewest"
    return f"published {many}: {text} (recipes/{recipe}.yaml)"


def print_plan(request: Request, console: Console) -> None:
    """Prints the plan; encoding and a step of each candidate are measured, and no file is left."""
    with tempfile.TemporaryDirectory() as folder:
        state = State(Path(folder), request)
        search = Search(state, m2dx.PluginHost.discover(), console)
        listing = recordings(state)
        console.print(f"  {listing.sentence}")
        for note in (*listing.notes, *(f"{path} cannot be read: {reason}" for path, reason in listing.bad)):
            console.print(f"  note: {note}")
        division = divide(listing, Audit((), (), (), frozenset()), request.seed)
        parts = Parts.of([*division.rows, *division.pool])
        setting = search.setting(parts)
        about = f"{os.cpu_count()} processors, no GPU"
        if setting.on_gpu:
            memory = gigabytes(torch.cuda.get_device_properties(pick_device("auto")).total_memory)
            about = f"{torch.cuda.get_device_name()}, {memory}"
        console.print(f"machine: {about}; {request.minutes:g} minutes")
        networks = random_networks(setting)
        scratch = next(iter(networks.values()))  # which patches are the best ones is not known yet
        candidates = propose(request.starts, setting, scratch, labelled=parts.problem is None)
        if parts.problem is not None:
            console.print(f"no verdict: {parts.problem}")
            candidates = candidates[:1]
        encoding = {"seconds": _encoding_seconds(request.starts[0], listing.clips)}
        untrained = (PLAIN, *(networks if parts.problem is None else ()), *request.starts)
        state.save(**{f"baseline:{name}": encoding for name in untrained})
        rungs = search.rungs(setting, again=parts.crossed is not None)
        for candidate in candidates:
            state.once(f"trial:{candidate.name}", partial(rungs.tried, candidate))
        costs = {name: found["seconds"] for name, found in state.under("trial").items()}
        budget = rungs.divided(costs)
    baselines = counted(len(untrained), "baseline")
    console.print(f"{baselines}, about {duration(encoding['seconds'])} each")
    titles = {candidate.name: candidate.title for candidate in candidates}
    for number, rung in enumerate(budget["rungs"], 1):
        which = "all" if number == 1 else f"the best {rung['count']} of"
        console.print(f"rung {number} of {len(budget['rungs'])}: {which}")
        for name, steps in rung["steps"].items():
            console.print(f"  {titles[name]:<34} {steps:>7,} steps, {duration(steps * costs[name])}")
    if budget["again"]:
        console.print("the best once more, with training and test part in each other's place")
    for name in budget["dropped"]:
        console.print(f"no time for: {titles[name]} ({costs[name]:.2g} s a step)")
    console.print(
        "which come first, the validation part tells: after the baselines, the order may be another"
    )
    for text in dict.fromkeys(candidate.network.text for candidate in candidates):
        console.print(f"network: {text}")
    console.print(published_for(len(listing.clips)))


def _encoding_seconds(start: str, clips: Sequence[m2dx.Clip]) -> float:
    """What encoding all clips takes, from a few of them."""
    some = [replace(clip, labels=()) for clip in clips[:: max(len(clips) // TIMED_CLIPS, 1)]]
    task = m2dx.ClipTask("some", tuple(some), ("any",), (), unit_seconds(some), "pad")
    encoder = m2dx.load_encoder(find_encoder(start)).to(pick_device("auto"))
    before = time.monotonic()
    task.features(encoder)
    return (time.monotonic() - before) / len(some) * len(clips)
