"""Scores an encoder on a task: starts the process that runs s3prl, and records what it gave."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

import m2dx
from m2dx.contract.package import find_encoder
from m2dx.results import (
    RESULTS_FILE,
    Division,
    Protocol,
    ResultRecord,
    ScoredEncoder,
    append_records,
    package_versions,
)
from m2dx.results.scoring import name_of_encoder, scored_encoder
from m2dx_superb.jobs import JOB, OUTCOME, Job, Outcome, read_job, read_outcome, write_job
from m2dx_superb.tasks import FOLDS, TASKS
from m2dx_superb.upstream import SAMPLE_RATE, ZEROS

DIFFERENCES = {
    "pr": "phonemes are those of the training text, where run_downstream has a fixed list",
    "ks": "silence is cut into pieces of 1 s, where run_downstream draws them at random",
    "asv": "silence is not trimmed at test, where run_downstream trims it",
}
"""Of s3prl.problem, from run_downstream, with which the published scores were measured."""


@dataclass(frozen=True)
class Request:
    """What the command line asks for."""

    task: str
    encoder: str  # a path, or "zeros"
    data: Path
    output: Path
    checkout: Path | None = None  # of s3prl's repository
    folds: tuple[int, ...] = ()  # of er; empty: all
    device: str = "auto"
    download: bool = False
    overwrite: bool = False
    arguments: tuple[str, ...] = ()


def score(request: Request) -> str:
    """Runs s3prl, appends the score to results.jsonl, and gives the lines to print.

    Raises M2dxError where the encoder does not fit, a folder is another run's, or s3prl fails.
    """
    encoder = _scored_encoder(request.encoder)
    device = _device(request.device)
    jobs = _jobs(request, encoder, device)
    for job in jobs:
        _check_folder(Path(job.folder), job, overwrite=request.overwrite)
        (Path(job.folder) / OUTCOME).unlink(missing_ok=True)
    files = [str(write_job(job)) for job in jobs]
    done = subprocess.run([sys.executable, "-P", "-m", "m2dx_superb.worker", *files], check=False)
    if done.returncode != 0:
        raise m2dx.M2dxError(
            f"s3prl must train and evaluate {request.task}, but its process ended with code {done.returncode}; what "
            "went wrong is told above"
        )
    outcomes = [outcome for job in jobs if (outcome := read_outcome(job)) is not None]
    if len(outcomes) < len(jobs):
        return "no score: the arguments for s3prl ended it before"
    record = _record(request, encoder, jobs, outcomes, device)
    append_records(request.output / RESULTS_FILE, [record])
    lines = [
        f"{request.task} fold {job.fold}: {record.metric} {outcome.value:.4f}"
        for job, outcome in zip(jobs, outcomes, strict=True)
        if len(jobs) > 1
    ]
    lines += [
        f"{request.task} ({TASKS[request.task].title}): {record.metric} {record.mean:.4f}",
        f"recorded in {request.output / RESULTS_FILE}; m2dx results {request.output} --table m2d-x-x shows it",
    ]
    return "\n".join(lines)


def _scored_encoder(path: str) -> ScoredEncoder:
    if path == ZEROS:
        return ScoredEncoder(ZEROS, sha256(ZEROS.encode()).hexdigest())
    encoder = m2dx.load_encoder(path)
    if encoder.sample_rate != SAMPLE_RATE:
        raise m2dx.CheckpointError(
            f"{path}: the audio of SUPERB is at {SAMPLE_RATE} Hz, and the encoder must be, too, but it is for "
            f"{encoder.sample_rate} Hz"
        )
    place = find_encoder(path).resolve()
    return scored_encoder(name_of_encoder(place), encoder, place)


def _device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise m2dx.M2dxError(f"--device must be of this machine, but is {name}, and there is no CUDA device")
    return name


def _jobs(request: Request, encoder: ScoredEncoder, device: str) -> list[Job]:
    folds: tuple[int | None, ...] = (None,)
    if request.task == "er":
        folds = request.folds or tuple(range(1, FOLDS + 1))
    checkout = None if request.checkout is None else str(request.checkout.resolve())
    data = request.data.resolve()
    base = request.output.resolve() / "superb"
    cache = base / "data" / f"{request.task}-{sha256(str(data).encode()).hexdigest()[:8]}"
    jobs = []
    for fold in folds:
        name = request.task if fold is None else f"{request.task}-fold{fold}"
        name += "" if checkout is None else "-run_downstream"
        jobs.append(
            Job(
                task=request.task,
                encoder=encoder.path or ZEROS,
                sha256=encoder.sha256,
                data=str(data),
                folder=str(base / f"{encoder.name}-{encoder.sha256[:8]}" / name),
                cache=str(cache),
                device=device,
                arguments=request.arguments,
                fold=fold,
                checkout=checkout,
                download=request.download,
            )
        )
    return jobs


def _check_folder(folder: Path, job: Job, *, overwrite: bool) -> None:
    """s3prl goes on with what it finds in a folder; so what is there must be the same job's."""
    if not (folder / JOB).is_file():
        return
    if overwrite:
        shutil.rmtree(folder)
    elif not read_job(folder / JOB).same_model(job):
        raise m2dx.M2dxError(
            f"{folder} must be free, or of the same task, data, encoder and arguments, but it is of others; use "
            "another --output, or --overwrite"
        )


def _record(
    request: Request, encoder: ScoredEncoder, jobs: list[Job], outcomes: list[Outcome], device: str
) -> ResultRecord:
    task, values = TASKS[request.task], [outcome.value for outcome in outcomes]
    settings = {"interface": jobs[0].interface, **outcomes[0].settings, "arguments": list(request.arguments)}
    seed = settings.get("seed")
    mean = sum(values) / len(values)
    statistics = [
        None if outcome.statistics is None else [outcome.statistics.mean, outcome.statistics.std]
        for outcome in outcomes
    ]
    if device.startswith("cuda"):
        device = f"cuda ({torch.cuda.get_device_name(device)})"
    return ResultRecord(
        date=datetime.now(UTC).replace(microsecond=0),
        encoder=encoder,
        task=task.name,
        protocol=Protocol("superb", "superb", settings),
        metric=task.metric,
        mean=mean,
        ci95=None,
        values=(mean,),
        seeds=(seed,) if isinstance(seed, int) else (),
        dataset=f"superb_{task.name}",
        division=Division(len(jobs)) if len(jobs) > 1 else None,
        warnings=_warnings(jobs, settings),
        details={"folds": values, "statistics": statistics},
        device=device,
        versions={**package_versions(), "s3prl": _version("s3prl"), "m2dx-superb": _version("m2dx-superb")},
    )


def _warnings(jobs: list[Job], settings: dict[str, object]) -> tuple[str, ...]:
    job, task = jobs[0], TASKS[jobs[0].task]
    found = []
    for name, published in (("total_steps", task.total_steps), ("lr", task.lr)):
        if name in settings and settings[name] != published:
            found.append(f"{name} {settings[name]}, in the published scripts {published}")
    if job.checkout is None and job.task in DIFFERENCES:
        found.append(f"s3prl.problem: {DIFFERENCES[job.task]}")
    if job.task == "asv":
        found.append("of the checkpoint that is best on the trials, as SUPERB has it")
    if job.task == "er" and len(jobs) < FOLDS:
        found.append(f"of {len(jobs)} of {FOLDS} sessions")
    return tuple(found)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # run from a source tree
        return "unknown"
