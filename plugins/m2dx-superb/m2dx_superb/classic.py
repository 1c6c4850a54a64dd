"""The interface `run_downstream`, with which the published scores were measured; it needs s3prl's repository.

Settings, vocabularies and lists are those of the checkout, and so is the code. What this module changes stays in its
process: caches are kept by data set, and outside the checkout.
"""

from __future__ import annotations

import builtins
import copy
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from m2dx import M2dxError
from m2dx_superb.jobs import Job, Outcome
from m2dx_superb.lists import DIVISION, TRIALS
from m2dx_superb.problems import report
from m2dx_superb.statistics import Statistics, measured
from m2dx_superb.tasks import TASKS, SuperbTask
from m2dx_superb.upstream import NAME, ZEROS, join_source

logger = logging.getLogger(__name__)

OVERRIDE = ("-o", "--override")
SCORES = {"pr": "per", "asv": "EER"}
"""How the scores are logged, where it is not "acc"."""


def run_classic(job: Job) -> Outcome:
    """Trains and evaluates as SUPERB's commands do. s3prl must be repaired, the checkout's, and have the upstream."""
    import s3prl

    task, checkout = TASKS[job.task], Path(str(job.checkout))
    code = Path(s3prl.__file__).parent
    if checkout / "s3prl" != code:
        raise M2dxError(
            f"--s3prl must be a checkout of s3prl's repository with a folder s3prl, but is {checkout}"
        )
    if job.encoder == ZEROS:
        logger.info("the control: its upstream gives zeros")
    _redirect_caches(job)
    run = _Run(job)
    with _working_directory(code), run.watching():
        _main("-m", "train", "-a", *_training_arguments(job, task, code))
        values = [_evaluate(job, run, path) for path in _checkpoints(job)]
    return Outcome(min(values) if task.name == "asv" else values[0], run.settings, run.statistics)


def _training_arguments(job: Job, task: SuperbTask, code: Path) -> list[str]:
    config = code / "downstream" / task.downstream / task.config
    if task.name == "asv" and not config.is_file():
        config = config.parent / "configs" / "amsoftmax.yaml"
    if not config.is_file():
        raise M2dxError(f"the checkout of s3prl must have {config}, but has not")
    arguments, overrides = (
        list(job.arguments),
        [f"config.optimizer.lr={task.lr}", *_data_overrides(job, task)],
    )
    for path in (job.data, job.cache):
        if ",," in path or "=" in path:
            raise M2dxError(
                f"{path} must have neither `,,` nor `=` in it, which s3prl takes for settings of its own and runs; "
                "give it another name, or a link without them"
            )
    for position, argument in enumerate(arguments[:-1]):
        if argument in OVERRIDE:
            overrides.append(arguments[position + 1])
            del arguments[position : position + 2]
            break
    return [
        *("-u", NAME, "-k", job.encoder, "-d", task.downstream, "-c", str(config), "-p", job.folder),
        *("--device", job.device, "-o", ",,".join(overrides), *arguments),
    ]


def _data_overrides(job: Job, task: SuperbTask) -> list[str]:
    """Where the task's settings have the corpus; values are Python, as run_downstream evaluates them."""
    data, datarc = Path(job.data), "config.downstream_expert.datarc"
    if task.name == "pr":
        return [f"config.downstream_expert.corpus.path={str(data)!r}"]
    if task.name == "ks":
        train, test = data / task.required[0].partition("/")[0], data / task.required[1]
        return [
            f"{datarc}.speech_commands_root={str(train)!r}",
            f"{datarc}.speech_commands_test_root={str(test)!r}",
        ]
    if task.name == "er":
        lists = _sessions(job)
        return [
            f"{datarc}.root={str(data)!r}",
            f"{datarc}.meta_data={str(lists)!r}",
            f"{datarc}.test_fold='fold{job.fold}'",
        ]
    found = [f"{datarc}.file_path={str(data)!r}"]
    if task.name == "sid" and (data / DIVISION).is_file():
        found.append(f"{datarc}.meta_data={str(data / DIVISION)!r}")
    for name in TRIALS if task.name == "asv" else ():
        if (data / name).is_file():
            found.append(f"{datarc}.test_meta_data={str(data / name)!r}")
            break
    return found


def _sessions(job: Job) -> Path:
    """The folder of the lists of IEMOCAP's folds, made by s3prl's own script."""
    from s3prl.downstream.emotion.IEMOCAP_preprocess import preprocess

    lists, data = Path(job.cache) / "sessions", Path(job.data)
    sessions = sorted(path.name for path in data.glob("Session?"))
    for session in sessions:
        (lists / session).mkdir(parents=True, exist_ok=True)
        others = [other for other in sessions if other != session]
        preprocess(str(data), others, str(lists / session / "train_meta_data.json"))
        preprocess(str(data), [session], str(lists / session / "test_meta_data.json"))
    return lists


def _redirect_caches(job: Job) -> None:
    """Two tasks keep lists of files and lengths beside their code, whatever the data set: here, with the data set."""
    cache = Path(job.cache)
    cache.mkdir(parents=True, exist_ok=True)
    if job.task == "sid":
        from s3prl.downstream.voxceleb1 import dataset as identification

        identification.CACHE_PATH = str(cache / "files")
    if job.task == "asv":
        from s3prl.downstream.sv_voxceleb1 import dataset as verification

        verification.__file__ = str(cache / "dataset.py")  # its folder is where the lengths go
        if not torch.cuda.is_available():
            # called whatever the device
            torch.Tensor.cuda = lambda self, *arguments, **options: self  # type: ignore[method-assign]


def _checkpoints(job: Job) -> list[Path]:
    """Of verification every checkpoint, of others the best on the validation part; the last, where none was above 0."""
    folder = Path(job.folder)
    best = folder / "dev-best.ckpt"
    if best.is_file():
        return [best]
    found = sorted(folder.glob("states-*.ckpt"), key=lambda path: int(path.stem.partition("-")[2]))
    if not found:
        raise M2dxError(
            f"the training must leave a checkpoint in {folder}, but left none: the steps between checkpoints must not "
            "be more than all steps"
        )
    return found if job.task == "asv" else found[-1:]


def _evaluate(job: Job, run: _Run, checkpoint: Path) -> float:
    run.scalars.clear()
    _main("-m", "evaluate", "-e", str(checkpoint), "--device", job.device)
    wanted = f"test-{SCORES.get(job.task, 'acc')}"
    scores = [value for name, value in run.scalars.items() if name.endswith(wanted)]
    if len(scores) != 1:
        raise M2dxError(
            f"s3prl must log one score {wanted!r}, but logged {', '.join(run.scalars) or 'nothing'}"
        )
    return scores[0]


def _main(*arguments: str) -> None:
    from s3prl import run_downstream

    given, sys.argv = sys.argv, ["run_downstream.py", *arguments]
    check = builtins.isinstance  # each call of main wraps it once more
    try:
        run_downstream.main()
    finally:
        sys.argv, builtins.isinstance = given, check


@contextmanager
def _working_directory(folder: Path) -> Iterator[None]:
    """The settings of s3prl have paths relative to its code."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


class _Run:
    """Looks on while s3prl works: measures the statistics before a training, keeps settings and logged scores."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.scalars: dict[str, float] = {}
        self.settings: dict[str, object] = {}
        self.statistics: Statistics | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """While this is active, s3prl's runner tells what it does."""
        from s3prl.downstream import runner

        train, writer = runner.Runner.train, runner.SummaryWriter

        class Writer(writer):  # type: ignore[misc, valid-type]
            def add_scalar(inner, name: str, value: Any, *arguments: Any, **options: Any) -> None:
                self.scalars[name] = float(value)
                super().add_scalar(name, value, *arguments, **options)

        def training(active: Any) -> None:
            self._before(active)
            train(active)

        runner.Runner.train, runner.SummaryWriter = training, Writer
        try:
            yield
        finally:
            runner.Runner.train, runner.SummaryWriter = train, writer

    def _before(self, runner: Any) -> None:
        config = runner.config
        self.settings = {
            "lr": config["optimizer"]["lr"],
            "optimizer": config["optimizer"].get("torch_optim_name", config["optimizer"]["name"]),
            "total_steps": config["runner"]["total_steps"],
            "gradient_accumulate": config["runner"]["gradient_accumulate_steps"],
            "seed": runner.args.seed,
        }
        if self.job.encoder == ZEROS:
            return
        clips, wavs = _training_list(runner.downstream.model)
        upstream = runner.upstream.model
        what = f"run_downstream {self.job.task} {self.job.fold}"
        self.statistics = measured(wavs, upstream.encoder, Path(self.job.cache), clips=clips, what=what)
        report(self.job, self.statistics)
        upstream.set_statistics(self.statistics.mean, self.statistics.std)
        # checkpoints hold the arguments, from which the evaluation builds its upstream
        runner.args.upstream_ckpt = join_source(self.job.encoder, self.statistics.mean, self.statistics.std)


def _training_list(expert: Any) -> tuple[int, Iterator[Tensor]]:
    """Number and waveforms (N,) of a task's training list, each clip once."""
    dataset = getattr(expert, "train_dataset", None)
    if dataset is not None:
        return len(dataset), (torch.as_tensor(dataset[index][0]).view(-1) for index in range(len(dataset)))
    from s3prl.downstream.ctc.data import load_dataset

    # its batches are those of training, which halves long ones: read one by one instead
    corpus = {**copy.deepcopy(expert.corpus), "bucketing": False, "batch_size": 1}
    loader = load_dataset("train", expert.tokenizer, corpus)
    return len(loader), (torch.as_tensor(wav).view(-1) for wavs, *_ in loader for wav in wavs)
