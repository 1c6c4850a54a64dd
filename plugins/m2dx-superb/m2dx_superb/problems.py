"""The interface `s3prl.problem`, which needs nothing but s3prl's package."""

from __future__ import annotations

import functools
import inspect
import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

import m2dx
from m2dx import M2dxError
from m2dx_superb.jobs import Job, Outcome
from m2dx_superb.lists import DIVISION, TRIALS, find_list, place, place_lexicons
from m2dx_superb.statistics import Statistics, measured
from m2dx_superb.tasks import FOLDS, TASKS, corpus_arguments
from m2dx_superb.upstream import NAME, ZEROS, join_source

logger = logging.getLogger(__name__)


def run_problem(job: Job) -> Outcome | None:
    """Trains and evaluates; None where the arguments end it before. s3prl must be repaired and have the upstream."""
    import s3prl.problem

    task = TASKS[job.task]
    problem = getattr(s3prl.problem, task.problem)()
    _place_lists(job)
    config = _config(problem, job)
    taken: list[Statistics] = []
    if job.encoder != ZEROS:
        problem.train = functools.partial(_train, job, problem.train, taken)
    shutil.rmtree(Path(job.folder) / "evaluate", ignore_errors=True)  # scores of an earlier run
    try:
        problem.run(**config)
    except SystemExit:  # --stop
        return None
    value = _score(Path(job.folder) / "evaluate", task.result)
    return Outcome(value, _settings(config), taken[0] if taken else None)


def _config(problem: Any, job: Job) -> dict[str, Any]:
    """The problem's own defaults, then the paper's settings and the paths, then the arguments of the user."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from s3prl.util.override import parse_overrides

    task = TASKS[job.task]
    ours = {
        "target_dir": job.folder,
        "cache_dir": job.cache,
        "device": job.device,
        "prepare_data": corpus_arguments(task, Path(job.data), fold=job.fold),
        "build_upstream": {"name": NAME, "path_or_url": job.encoder},
        "build_optimizer": {"conf": {"lr": task.lr}},
    }
    _check_pairs(job.arguments)
    try:
        merged = OmegaConf.merge(problem.default_config(), ours, parse_overrides(list(job.arguments)))
        config: Any = OmegaConf.to_container(merged, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise M2dxError(f"the arguments for s3prl do not fit {task.problem}: {error}") from error
    known = inspect.signature(problem.run).parameters
    for name in config:
        if name not in known:
            raise M2dxError(
                f"the arguments for s3prl must be of {task.problem}, but --{name} is none; there are "
                f"{', '.join(known)}"
            )
    if config["build_model"].get("upstream_trainable"):
        raise M2dxError(
            "the encoder is frozen, as in the paper: --build_model.upstream_trainable must be False"
        )
    return dict(config)


def _check_pairs(arguments: tuple[str, ...]) -> None:
    names, values = arguments[::2], arguments[1::2]
    bad = next((name for name in names if not name.startswith("--")), None)
    if bad is not None or len(names) > len(values):
        raise M2dxError(
            "the arguments for s3prl must be pairs such as --train.total_steps 1000, but they are "
            f"{' '.join(arguments)}"
        )


def _place_lists(job: Job) -> None:
    import s3prl.problem.common.superb_sid as sid
    from s3prl.dataio.corpus import voxceleb1sid, voxceleb1sv
    from s3prl.dataio.encoder import g2p
    from s3prl.util import download

    def fetch(url: str, path: Path) -> None:
        download._download(path, url, refresh=False)

    cache = Path(job.cache)
    cache.mkdir(parents=True, exist_ok=True)
    if job.task in ("sid", "asv"):
        division = find_list(job, DIVISION, url=voxceleb1sid.SPLIT_FILE_URL, fetch=fetch)
        place(division, cache / DIVISION)
        sid.VoxCeleb1SID = functools.partial(voxceleb1sid.VoxCeleb1SID, cache_root=cache)
    if job.task == "asv":
        place(find_list(job, *TRIALS, url=voxceleb1sv.TRIAL_FILE_URL, fetch=fetch), cache / TRIALS[0])
    if job.task == "pr":
        download.set_dir(cache)
        place_lexicons(job, g2p.DEFAULT_LEXICON_URL, cache, fetch)
    if job.task == "er":
        _write_sessions(Path(job.data), cache)


def _write_sessions(data: Path, cache: Path) -> None:
    """The lists of IEMOCAP's folds, made from the corpus by s3prl's own script."""
    from s3prl.downstream.emotion.IEMOCAP_preprocess import preprocess

    sessions = [f"Session{number}" for number in range(1, FOLDS + 1)]
    for number, session in enumerate(sessions, 1):
        others = [other for other in sessions if other != session]
        for split, chosen in (("train", others), ("test", [session])):
            path = cache / f"test_session{number}_{split}_metadata.json"
            preprocess(str(data), chosen, str(path))
            if not json.loads(path.read_text(encoding="utf-8"))["meta_data"]:
                raise M2dxError(f"IEMOCAP must have labelled utterances in {', '.join(chosen)}, but has none")


def _train(job: Job, train: Any, taken: list[Statistics], *arguments: Any, **options: Any) -> Any:
    """s3prl's training, with the statistics of its training list measured before it."""
    bound = inspect.signature(train).bind(*arguments, **options)
    dataset = bound.arguments["train_dataset"]
    encoder = m2dx.load_encoder(job.encoder).to(bound.arguments["device"])
    loader = torch.utils.data.DataLoader(
        _Waveforms(dataset), batch_size=None, num_workers=bound.arguments["num_workers"]
    )
    statistics = measured(
        iter(loader),
        encoder,
        Path(job.cache),
        clips=len(dataset),
        what=_data_of(job),
    )
    report(job, statistics)
    taken.append(statistics)
    source = join_source(job.encoder, statistics.mean, statistics.std)
    bound.arguments["build_model_all_args"]["build_upstream"]["path_or_url"] = source
    return train(*bound.args, **bound.kwargs)


def _data_of(job: Job) -> str:
    """What the statistics depend on, beside the folder of the data."""
    names = job.arguments[::2]
    pairs = zip(names, job.arguments[1::2], strict=True)
    own = [pair for pair in pairs if pair[0].startswith(("--prepare_data.", "--build_dataset."))]
    return f"problem {job.task} {job.fold} {own}"


def report(job: Job, statistics: Statistics) -> None:
    """Prints the statistics that a task is standardised with."""
    print(
        f"statistics of {job.task}: mean {statistics.mean:.4f}, standard deviation {statistics.std:.4f} "
        f"({statistics.clips} clips, {statistics.seconds / 3600:.2f} h)",
        flush=True,
    )


class _Waveforms(torch.utils.data.Dataset[Tensor]):
    """The waveforms (N,) of a data set of s3prl."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Tensor:
        return torch.as_tensor(self.dataset[index]["x"]).view(-1)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[index] for index in range(len(self)))


def _score(folder: Path, name: str) -> float:
    """A score from what s3prl has written: of verification, which has one per checkpoint, the best."""
    best = sorted(folder.glob("**/best_result.yaml"))
    files = best or sorted(folder.glob("**/result.yaml"))
    if len(files) != 1:
        raise M2dxError(f"s3prl must leave one result in {folder}, but left {len(files)}")
    return float(yaml.safe_load(files[0].read_text(encoding="utf-8"))[name])


def _settings(config: dict[str, Any]) -> dict[str, object]:
    """The settings of a training that a record keeps."""
    conf = config["build_optimizer"]["conf"]
    train = config["train"]
    return {
        "lr": conf["lr"],
        "optimizer": config["build_optimizer"]["name"],
        "total_steps": train["total_steps"],
        "batch_size": config["build_batch_sampler"]["train"]["batch_size"],
        "gradient_accumulate": train["gradient_accumulate"],
        "seed": train.get("seed", 0),
    }
