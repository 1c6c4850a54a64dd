"""Scores an encoder and its baselines as a recipe's evaluation section says, and records the scores."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import count, product
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from m2dx.contract.atomic import replace_text
from m2dx.contract.components import Backbone, ClipEncoder, Dataset, Evaluator, Score
from m2dx.contract.errors import CheckpointError, M2dxError, PluginError, RecipeError
from m2dx.contract.host import CORE, PluginHost
from m2dx.contract.progress import ProgressLine
from m2dx.contract.wording import counted
from m2dx.data.clips import list_clips
from m2dx.encoder.audio import AudioEncoder, load_any_encoder, random_like
from m2dx.encoder.checkpoint import CheckpointFolder
from m2dx.encoder.images import ImageEncoder
from m2dx.encoder.initial_weights import weights_of_start
from m2dx.encoder.weights import read_weights
from m2dx.evaluation.features import CACHE_FOLDER, FeatureCache, MeanLogMel
from m2dx.evaluation.runner import check_request, evaluate
from m2dx.evaluation.splits import shared_clips
from m2dx.evaluation.tasks import ClipTask, listed_task
from m2dx.model.shapes import build_logmel, model_shapes
from m2dx.recipe.loading import load_recipe, recipe_to_mapping
from m2dx.recipe.schema import EvaluationSection, Recipe
from m2dx.results import records
from m2dx.results.formats import terminal
from m2dx.results.predictions import write_predictions
from m2dx.results.records import Division, Protocol, ResultRecord, ScoredEncoder
from m2dx.results.scores import PRETRAINED, START, without_classes, write_scores, write_step_scores
from m2dx.results.table import score_table
from m2dx.results.verdict import advice, verdict, with_differences
from m2dx.training.distributed import pick_device
from m2dx.training.prepare import check_media

logger = logging.getLogger(__name__)

AnyEncoder = AudioEncoder | ImageEncoder
DEFAULT_EVALUATORS = ("knn", "logistic")
_QUIET = Console(quiet=True)


@dataclass(frozen=True)
class Scoring:
    """A recipe's evaluation whose lists and settings are known to be usable; no file has been read yet."""

    recipe: Recipe
    datasets: Mapping[str, Dataset]
    evaluators: Mapping[str, Evaluator]
    versions: Mapping[str, str]  # of m2dx, the libraries, Python, and the plugins' packages that take part
    host: PluginHost
    taught: Mapping[str, str]  # by task, that labels of its test clips were learned

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        host: PluginHost,
        encoder: AnyEncoder | None = None,
        *,
        training: Recipe | None = None,
    ) -> Scoring:
        """Builds data sets and evaluators; RecipeError, with the problems of every task, where one cannot be scored.

        `encoder`: the one to score; default one of the recipe's sizes, which is still to be trained. `training`: the
        recipe that trains it, whose labels are looked at; default the same recipe where it is still to be trained.
        """
        section = recipe.evaluation
        if section.tasks and not section.evaluators:
            default = {name: host.option_model("evaluator", name)(name=name) for name in DEFAULT_EVALUATORS}
            section = section.model_copy(update={"evaluators": default})
            recipe = recipe.model_copy(update={"evaluation": section})
        scoring_device(recipe)
        datasets = {name: host.build("dataset", task.dataset) for name, task in section.tasks.items()}
        evaluators = {name: host.build("evaluator", spec) for name, spec in section.evaluators.items()}
        check_request(datasets, evaluators, section.seeds)
        check_media(recipe, datasets, "evaluation.tasks")
        problems = [
            f"evaluation.evaluators.{name}: {spec.name} needs audio, but the recipe's input is images; take knn or "
            "logistic"
            for name, spec in section.evaluators.items()
            if recipe.image is not None and evaluators[name].needs_wav
        ]
        compared: dict[str, Any] = {PRETRAINED: encoder or _untrained(recipe, host)}
        if recipe.image is None and "mean_logmel" in section.baselines:
            compared["mean_logmel"] = MeanLogMel(recipe.audio)
        try:
            compared |= other_encoders(recipe)
        except CheckpointError as error:
            known = "start, random_weights, mean_logmel"
            problems.append(f"evaluation.baselines: must be {known} or paths of encoders, but {error}")
        problems += _refusals(section, host, datasets, evaluators, compared)
        if problems:
            raise RecipeError("\n".join(dict.fromkeys(problems)))
        versions = records.package_versions() | _plugin_versions(section, host)
        training = recipe if encoder is None else training
        taught = {} if training is None else taught_tasks(training, host, datasets)
        for name, warning in taught.items():
            logger.warning("evaluation task %r: %s", name, warning)
        return cls(recipe, datasets, evaluators, versions, host, taught)

    def protocols(self) -> dict[str, tuple[str, ...]]:
        """By task, the names of the evaluators that score it."""
        tasks, every = self.recipe.evaluation.tasks, tuple(self.evaluators)
        return {name: task.evaluators or every for name, task in tasks.items()}

    def tasks(self, console: Console | None = None) -> list[ClipTask]:
        """The tasks, their clips found and checked."""
        section = self.recipe.evaluation.tasks
        cache = FeatureCache(self.recipe.output / CACHE_FOLDER) if self.recipe.evaluation.cache else None
        tasks = []
        for name, dataset in self.datasets.items():
            with ProgressLine(console or _QUIET, f"reading evaluation.tasks.{name}") as line:
                task = ClipTask.from_dataset(
                    name,
                    dataset,
                    max_bad_fraction=self.recipe.data.max_bad_fraction,
                    cache=cache,
                    images=self.recipe.image is not None,
                    progress=line.update,
                    **section[name].model_dump(exclude={"dataset", "evaluators"}),
                )
            tasks.append(task)
        return tasks

    def run(
        self, encoder: AnyEncoder, console: Console, folder: Path, *, step: int | None = None
    ) -> list[Score]:
        """Scores an encoder and its baselines, prints the table, and writes scores.json and predictions.jsonl.

        A record of each score goes into results.jsonl in the folder of runs. The encoder is known there by the name of
        `folder`, which is its run's folder or the one that `folder_of_encoder` gave. With the run's last `step`, the
        encoder's scores end scores_by_step.jsonl, if the recipe wants such scores. Raises the errors of evaluators that
        failed after all that.
        """
        scores, failed = self._score(encoder, folder.name, encoder_path(folder), console=console)
        folder.mkdir(parents=True, exist_ok=True)
        write_scores(scores, folder / "scores.json")
        write_predictions(scores, folder)
        if step is not None and self.recipe.evaluation.every is not None:
            own = [score for score in scores if score.encoder == PRETRAINED]
            write_step_scores(folder, step, own)
        if scores:
            console.print(*terminal(score_table(scores), console.width))
        for line in filter(None, (verdict(scores), advice(scores))):
            console.print(line)
        _raise_all(failed)
        return scores

    def run_step(self, encoder: AnyEncoder, step: int, folder: Path) -> list[Score]:
        """Scores the encoder that a run had after a step, without baselines, which are scored once, at its end.

        Writes scores_by_step.jsonl in the run's folder, and a record of each score as `run` does.
        """
        section = self.recipe.evaluation.model_copy(update={"baselines": (), "cache": False})
        alone = replace(self, recipe=self.recipe.model_copy(update={"evaluation": section}))
        checkpoint = CheckpointFolder(folder / "checkpoints").file(step)
        scores, failed = alone._score(encoder, f"{folder.name} step {step}", checkpoint, step=step)
        write_step_scores(folder, step, scores)
        _raise_all(failed)
        return scores

    def _score(
        self,
        encoder: AnyEncoder,
        name: str,
        path: Path | None,
        *,
        step: int | None = None,
        console: Console | None = None,
    ) -> tuple[list[Score], list[M2dxError]]:
        """Scores, each with a record, and what failed; `step`: of an encoder whose training went on after it."""
        recipe = self.recipe
        if isinstance(encoder, ImageEncoder) != (recipe.image is not None):
            raise RecipeError("encoder and recipe must both be of images, or both of audio, but differ")
        tasks = {task.name: task for task in self.tasks(console)}
        makers, failed = encoders_to_compare(recipe, encoder, self.host), list[M2dxError]()
        with ProgressLine(console or _QUIET, "evaluating") as line:
            scores = evaluate(
                makers,
                list(tasks.values()),
                self.evaluators,
                seeds=recipe.evaluation.seeds,
                protocols=self.protocols(),
                progress=line.update,
                host=self.host,
                failed=failed,
            )
        scores = [
            replace(score, details={**score.details, "taught": self.taught[score.task]})
            if score.encoder == PRETRAINED and score.task in self.taught
            else score
            for score in scores
        ]
        scores = with_differences(scores) if step is None else scores
        own, shapes = scored_encoder(name, encoder, path), records.fingerprint(encoder, values=False)
        audio = recipe.audio.model_dump(mode="json", exclude={"crop_seconds"})
        encoders = {
            PRETRAINED: own,
            "random_weights": replace(own, name="random_weights", sha256=shapes, path=None),
            "mean_logmel": ScoredEncoder("mean_logmel", records.digest_of_settings(audio).hexdigest()),
        }
        others = {**baseline_paths(recipe), START: recipe.init_from}
        for name, place in others.items():
            if name in makers:
                other: Any = makers[name](0)
                encoders[name] = scored_encoder(name, other, place)
        now, device = datetime.now(UTC).replace(microsecond=0), next(encoder.parameters()).device
        lines = (
            self._record(item, tasks[item.task], encoders[item.encoder], step=step, date=now, device=device)
            for item in scores
        )
        records.append_records(recipe.output / records.RESULTS_FILE, lines)
        return scores, failed

    def _record(
        self,
        score: Score,
        task: ClipTask,
        encoder: ScoredEncoder,
        *,
        step: int | None,
        date: datetime,
        device: torch.device,
    ) -> ResultRecord:
        """A score with all that is needed to compare it later."""
        section, first, folds = self.recipe.evaluation, task.folds[0], len(task.folds)
        options = section.evaluators[score.protocol].model_dump(mode="json")
        parts = len(first.train), len(first.valid), len(first.test)
        return ResultRecord(
            task=task.name,
            metric=score.metric,
            mean=score.mean,
            ci95=score.ci95,
            values=score.values,
            date=date,
            encoder=encoder,
            protocol=Protocol(score.protocol, options.pop("name"), options),
            seeds=section.seeds,
            step=step,
            recipe=self.recipe.name,
            dataset=section.tasks[task.name].dataset.name,
            division=Division(folds, parts if folds == 1 else None),
            clips=len(task.clips),
            bad_clips=len(task.bad),
            classes=len(task.label_names) or None,
            unit_seconds=task.unit_seconds,
            short_clips=task.short_clips,
            warnings=(*task.warnings, *([self.taught[task.name]] if "taught" in score.details else [])),
            details=without_classes(score.details),
            device=f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else device.type,
            versions=self.versions,
        )


def _refusals(
    section: EvaluationSection,
    host: PluginHost,
    datasets: Mapping[str, Dataset],
    evaluators: Mapping[str, Evaluator],
    compared: Mapping[str, Any],
) -> list[str]:
    """Why evaluators refuse tasks, or the encoders that are compared on them; PluginError where one fails."""
    problems = list[str]()
    labels = {
        name: f"evaluation.evaluators.{name} ({host.origin('evaluator', spec.name)})"
        for name, spec in section.evaluators.items()
    }
    for name, dataset in datasets.items():
        task = section.tasks[name]
        chosen = {protocol: evaluators[protocol] for protocol in task.evaluators or evaluators}
        try:
            listed = listed_task(name, dataset, task)
            for protocol, evaluator in chosen.items():
                if evaluator.predicts != task.target:
                    raise RecipeError(
                        f"evaluation.tasks.{name}: `target` must be what evaluators predict, but is {task.target}, "
                        f"and {protocol} predicts a {evaluator.predicts}; change it, or `evaluators`"
                    )
                with PluginError.blaming(f"{labels[protocol]}: check failed on {name}"):
                    evaluator.check(listed)
        except RecipeError as error:
            problems.append(str(error))
            continue
        for (protocol, evaluator), (other, network) in product(chosen.items(), compared.items()):
            try:
                with PluginError.blaming(f"{labels[protocol]}: check_encoder failed for {other} on {name}"):
                    evaluator.check_encoder(network, listed)
            except RecipeError as error:
                problems.append(f"evaluation.evaluators.{protocol}, for {other}: {error}")
    return problems


def _raise_all(errors: Sequence[M2dxError]) -> None:
    """Raises errors as one of the first one's type, a line each."""
    if errors:
        raise type(errors[0])("\n".join(dict.fromkeys(map(str, errors)))) from errors[0]


def training_of(encoder: Path, host: PluginHost) -> Recipe | None:
    """The recipe of the run whose encoder this is; None where it is not there, or cannot be read here."""
    folder = encoder.resolve()
    with suppress(M2dxError):  # such as a variable that is not set here
        config = read_weights(encoder).config
        for path in (place / "recipe.yaml" for place in (folder, folder.parent, folder.parent.parent)):
            if path.is_file() and config.is_of(recipe_to_mapping(recipe := load_recipe(path, host=host))):
                return recipe
    return None


def taught_tasks(recipe: Recipe, host: PluginHost, tasks: Mapping[str, Dataset]) -> dict[str, str]:
    """A warning for each task of whose test clips the recipe learns labels, other than which recording they are."""
    learned = {
        getattr(task.offline_encoder, "dataset", None)
        for task in recipe.tasks.values()
        if task.offline_encoder is not None and task.offline_encoder.name == "labels"
    }
    found: dict[str, str] = {}
    for name, section in recipe.data.sets.items() if tasks else ():
        if not learned & {name, None}:
            continue
        try:
            clips = list_clips(name, host.build("dataset", section.dataset), section.split)
        except M2dxError:  # a list of another machine; a training tells of it
            continue
        if len({label for clip in clips for label in clip.labels}) >= len({clip.path for clip in clips}):
            continue
        for task, other in tasks.items():
            tested = [clip for clip in list_clips(task, other) if clip.split not in ("train", "valid")]
            if shared := shared_clips(tested, clips):
                found[task] = (
                    f"{len(shared)} of {counted(len(tested), 'test clip')} are trained on with labels (data.sets.{name}"
                    "), so that these scores say nothing of new clips; the set's `split: train` leaves them out"
                )
    return found


def _untrained(recipe: Recipe, host: PluginHost) -> AnyEncoder:
    """An encoder of the recipe's backbone and sizes, whose weights mean nothing."""
    shapes, spec = model_shapes(recipe.input, recipe.model), recipe.model.backbone
    # Weights take seconds to draw, and are not looked at; but a plugin's `__init__` may look at values.
    place = torch.device("meta" if host.plugin_of("backbone", spec.name) == CORE else "cpu")
    with place, torch.random.fork_rng(devices=[]):
        network: Backbone = host.build("backbone", spec, grid=shapes.grid, size=shapes.size)
    if recipe.image is not None:
        return ImageEncoder(network, recipe.image)
    return AudioEncoder(network, build_logmel(recipe.audio), mean=0.0, std=1.0)


def scored_encoder(name: str, encoder: AnyEncoder, path: Path | None) -> ScoredEncoder:
    parameters = sum(parameter.numel() for parameter in encoder.encoder.parameters())
    return ScoredEncoder(name, records.fingerprint(encoder), None if path is None else str(path), parameters)


def _plugin_versions(section: EvaluationSection, host: PluginHost) -> dict[str, str]:
    """Versions of the packages, other than m2dx, whose data sets and evaluators an evaluation uses, by name."""
    used = {host.plugin_of("dataset", task.dataset.name) for task in section.tasks.values()}
    used |= {host.plugin_of("evaluator", spec.name) for spec in section.evaluators.values()}
    return {
        record.distribution: record.version or "unknown"
        for record in host.records
        if record.name in used and record.distribution is not None
    }


def encoders_to_compare(
    recipe: Recipe, encoder: AnyEncoder, host: PluginHost
) -> dict[str, Callable[[int], ClipEncoder]]:
    """The encoder and the recipe's baselines, each as a function of the seed, on the recipe's device.

    The random weights are those of the encoder's own architecture, whatever the recipe's model is; the start is the
    encoder of `init_from` as it was, unless that is the encoder itself. Images have no mean log-mel, and a start that
    cannot be read is warned of.
    Raises CheckpointError for another encoder that cannot be read.
    """
    device = scoring_device(recipe)
    encoder = encoder.to(device)
    makers: dict[str, Callable[[int], Any]] = {
        PRETRAINED: _always(encoder),
        "random_weights": lambda seed: random_like(encoder, seed=seed).to(device),
    }
    if isinstance(encoder, AudioEncoder):
        makers["mean_logmel"] = _always(MeanLogMel(recipe.audio).to(device))
    wanted = (PRETRAINED, *recipe.evaluation.baselines)
    if recipe.init_from is not None and START in wanted:
        try:
            if recipe.weight_map is None:
                start = load_any_encoder(recipe.init_from, host).to(device)
            else:
                start, plugins = random_like(encoder, seed=0), host or PluginHost.discover()
                named = weights_of_start(recipe, start.encoder, plugins)
                start.encoder.load_state_dict(named.part("online"))
                start.to(device)
        except M2dxError as error:
            logger.warning("the start (init_from) is not among the baselines: %s", error)
        else:
            if records.fingerprint(start) != records.fingerprint(encoder):
                makers[START] = _always(start)
    for name, other in other_encoders(recipe).items():
        makers[name] = _always(other.to(device))
    names = {path: name for name, path in baseline_paths(recipe).items()}
    labels = [names[item] if isinstance(item, Path) else item for item in wanted]
    return {name: makers[name] for name in labels if name in makers}


def _always(encoder: Any) -> Callable[[int], Any]:
    return lambda seed: encoder


def baseline_paths(recipe: Recipe) -> dict[str, Path]:
    """The encoders among the baselines, by the names of their runs, exports or files; the paths of equal names."""
    paths = [item for item in recipe.evaluation.baselines if isinstance(item, Path)]
    names = [name_of_encoder(path) for path in paths]
    taken = {PRETRAINED, START, *(item for item in recipe.evaluation.baselines if isinstance(item, str))}
    alone = [names.count(name) == 1 and name not in taken for name in names]
    return {name if own else str(path): path for name, path, own in zip(names, paths, alone, strict=True)}


def other_encoders(recipe: Recipe) -> dict[str, AnyEncoder]:
    """The encoders that `baseline_paths` names; CheckpointError where one cannot be read, or has another input."""
    found = {name: load_any_encoder(path) for name, path in baseline_paths(recipe).items()}
    for name, encoder in found.items():
        if isinstance(encoder, ImageEncoder) != (recipe.image is not None):
            what = "images" if isinstance(encoder, ImageEncoder) else "audio"
            raise CheckpointError(f"{name} is an encoder of {what}, and the recipe's input is not")
    return found


def scoring_device(recipe: Recipe) -> torch.device:
    """The device that encoders are scored on; RecipeError where it is not there."""
    if recipe.evaluation.device == "auto":
        return pick_device(recipe.train.device)
    return pick_device(recipe.evaluation.device, field="evaluation.device")


def encoder_path(folder: Path) -> Path | None:
    """Which encoder's scores a folder has: the one that encoder.txt names, or the run's own export, if there is one."""
    note, export = folder / "encoder.txt", folder / "encoder"
    if note.exists():
        return Path(note.read_text(encoding="utf-8", errors="surrogateescape").strip())
    return export.resolve() if export.exists() else None


def name_of_encoder(encoder: Path) -> str:
    """The name of its run, or of the folder or file that it is."""
    path = encoder.resolve()
    if path.name == "encoder":
        path = path.parent
    return path.stem if path.is_file() else path.name


def folder_of_encoder(base: Path, encoder: Path) -> Path:
    """Where the scores of an encoder go: `base/<its name>`, numbered where that is another's; encoder.txt says whose.

    An export inside a run's folder (`encoder/`) has the run's name.
    """
    name = name_of_encoder(encoder)
    for number in count(1):
        folder = base / name
        folder = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
        note = folder / "encoder.txt"
        if not note.exists() or encoder_path(folder) == encoder.resolve():
            break
    replace_text(note, f"{encoder.resolve()}\n", errors="surrogateescape")
    return folder
