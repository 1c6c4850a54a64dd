"""The search: recordings, audit, division, baselines, candidates in rungs, one test, and a verdict with its page."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from m2dx_classify.fitting import fit_classifier
from rich.console import Console

import m2dx
from m2dx.contract.atomic import replace_json, replace_text
from m2dx.contract.components import ClipEncoder
from m2dx.contract.package import find_encoder
from m2dx.contract.progress import ProgressLine
from m2dx.contract.wording import counted, duration
from m2dx.data.inputs import clips_of_inputs
from m2dx.encoder.audio import random_like
from m2dx.encoder.weights import read_weights, write_export
from m2dx.evaluation.bootstrap import with_metrics
from m2dx.evaluation.features import MeanLogMel
from m2dx.recipe.schema import AudioSection
from m2dx.results.predictions import write_predictions
from m2dx.results.scores import write_scores
from m2dx.training.distributed import pick_device
from m2dx_specialise import judge, selfcheck
from m2dx_specialise.audit import audit
from m2dx_specialise.budget import divide_time
from m2dx_specialise.candidates import Candidate, Setting, network_of, propose
from m2dx_specialise.division import divide
from m2dx_specialise.judge import FEWEST_CLIPS, PLAIN, RANDOM, Gain, Parts, Verdict
from m2dx_specialise.listing import Listing, read
from m2dx_specialise.page import write_page
from m2dx_specialise.state import STARTER, Request, State
from m2dx_specialise.training import train, trial

DIVISION, POOL, PRETRAINING = "division.csv", "pool.csv", "pretraining.csv"
RUN_SECONDS, END_SECONDS = 6.0, 20.0
"""Beside steps and scoring: of a run, for lists, workers and export; of the end, for classifier and page."""
SAFETY = 0.9
"""Share of the time that is planned with."""
MOST_FILES = 50
"""Names of files that a finding keeps."""
WORKERS: int | None = None
"""Loading processes of a training; None: as many as usual."""

Ask = Callable[[Listing], tuple[str | None, str | None] | None]
"""Shows what was found; gives other keys of labels and groups to read by, or None where all is as it should be."""
Scorer = Callable[[ClipEncoder], dict[str, float]]
"""Accuracy of an encoder, in [0, 1], the loss where there is one, and the seconds that it took."""


@dataclass(frozen=True)
class Specialised:
    """What a search gives."""

    folder: Path  # with index.html and verdict.json
    verdict: Verdict
    encoder: Path
    classifier: Path | None  # None: there are no labels to fit one to
    recipe: Path | None  # makes the encoder again; None: it is one that was at hand


def specialise(
    data: str | Path | Request,
    *,
    starts: Sequence[str | Path] = (STARTER,),
    minutes: float = 60.0,
    output: str | Path | None = None,
    resume: bool = False,
    console: Console | None = None,
    ask: Ask | None = None,
) -> Specialised:
    """Whether a specialised encoder is worth it for recordings, and that encoder, as `m2dx specialise` finds out.

    `data` is a folder or a list of recordings, or a `Request`, which has all options of the command; `output` a new
    folder (default `specialised/NAME`). `console` shows the progress; by default nothing is printed. Raises M2dxError
    where it cannot be done, and `Stopped` where a signal ends it, after which `resume` goes on.
    """
    request = data
    if not isinstance(request, Request):
        request = Request(data=Path(request), starts=tuple(map(str, starts)), minutes=minutes)
    request.check()
    for start in request.starts:
        network_of(start)
    state = State.open(Path(output or folder_of(request)), request, resume=resume)
    listing = None if state.get("findings") is not None else recordings(state, ask)
    return Search(state, m2dx.PluginHost.discover(), console or Console(quiet=True)).run(listing)


def folder_of(request: Request) -> Path:
    """The default folder of a search."""
    return Path("specialised") / (request.data.resolve().stem or "recordings")


def recordings(state: State, ask: Ask | None = None) -> Listing:
    """The recordings of a search, read as `ask` wants it. RecipeError where they are too few."""
    while True:
        request = state.request
        listing = read(
            request.data, request.labels, label_from=request.label_from, group_from=request.group_from
        )
        if len(listing.clips) < FEWEST_CLIPS:
            raise m2dx.RecipeError(
                f"{request.data} has {counted(len(listing.clips), 'clip')}, too few to train on or to judge by (at "
                f"least {FEWEST_CLIPS}); use {STARTER} as it is: m2dx classify --train {request.data} {STARTER} FILES"
            )
        other = None if ask is None else ask(listing)
        if other is None:
            return listing
        state.request = replace(request, label_from=other[0], group_from=other[1])


@dataclass(frozen=True, eq=False)
class Search:
    """One search in its folder."""

    state: State
    host: m2dx.PluginHost
    console: Console

    def run(self, listing: Listing | None) -> Specialised:
        """Everything from the recordings to the page; what the folder's state has is not done again.

        `listing` may be None where the audit has been made.
        """
        state, folder = self.state, self.state.folder
        if listing is not None:
            self._audit(listing)
        for finding in state.get("findings"):
            self.say(f"  {finding['severity']}: {finding['text']} {finding['advice']}")
        self.say(f"  {state.get('division')}")
        parts = Parts.read(folder / DIVISION, folder / POOL)
        search = self._without_labels if parts.problem else self._with_labels
        search(parts, self.setting(parts))
        verdict, chosen = Verdict(**state.get("verdict")), state.get("chosen")
        labelled, trained = parts.problem is None, chosen in state.under("run")
        self._finish(verdict, labelled=labelled)
        return Specialised(
            folder,
            verdict,
            folder / "encoder",
            folder / "classifier" if labelled else None,
            folder / "recipe.yaml" if trained else None,
        )

    def say(self, text: str, *, whole: bool = False) -> None:
        """Prints lines; `whole` ones are not broken, to be copied."""
        self.console.print(text, soft_wrap=whole or None)

    def _audit(self, listing: Listing) -> None:
        with ProgressLine(self.console, "audit, minute") as line:
            found = audit(listing, line.update)
        folder = self.state.folder
        folder.mkdir(parents=True, exist_ok=True)
        if len(listing.classes) > 1:
            division = divide(listing, found, self.request.seed)
            division.write(folder / DIVISION)
            division.write_pool(folder / POOL)
            sentence = division.sentence
        else:
            pool = [clip for row, clip in enumerate(listing.clips) if row not in found.unusable]
            write_list(folder / POOL, [(clip, ()) for clip in pool])
            sentence = f"{counted(len(pool), 'clip')} to train on, and none to test."
        findings = [
            {"severity": of.severity.value, "text": of.text, "advice": of.advice, "count": len(of.paths)}
            | {"files": [path.name for path in of.paths[:MOST_FILES]]}
            for of in found.findings
        ]
        self.state.save(findings=findings, division=sentence, listing=listing.proposal.sentence)

    def setting(self, parts: Parts) -> Setting:
        """Writes the list that is trained on: clips of the training part with labels, and those without."""
        request, path = self.request, self.state.folder / PRETRAINING
        if parts.problem is None:
            rows = [*((clip, clip.labels) for clip in parts.train), *((clip, ()) for clip in parts.others)]
        else:
            rows = [(clip, ()) for clip in (*parts.labelled, *parts.others)]
        write_list(path, rows)
        seconds = sorted(clip.duration or 0.0 for clip, _ in rows)
        general = request.general
        return Setting(
            output=self.state.folder.resolve() / "runs",
            clips=path.resolve(),
            num_clips=len(rows),
            clip_seconds=seconds[len(seconds) // 2],
            general=None if general is None else general.resolve(),
            num_general=0 if general is None else len(clips_of_inputs([general])),
            noise=None if request.noise is None else request.noise.resolve(),
            on_gpu=pick_device("auto").type == "cuda",
            workers=WORKERS,
            seed=request.seed,
        )

    @property
    def request(self) -> Request:
        return self.state.request

    def _with_labels(self, parts: Parts, setting: Setting) -> None:
        folder, state = self.state.folder, self.state
        if state.get("test") is None:
            choice = parts.task("choice", folder / "features", seed=self.request.seed)
            fold = choice.folds[0]
            self.say(
                f"baselines, fitted to {len(fold.train) + len(fold.valid)} clips, scored on {len(fold.test)}:"
            )

            def score(encoder: ClipEncoder) -> dict[str, float]:
                before = state.seconds
                found = judge.score(encoder, choice, "")
                took = round(state.seconds - before, 2)
                return {"accuracy": found.mean, "loss": judge.loss_of(found), "seconds": took}

            best = self._baselines((PLAIN, RANDOM, *self.request.starts), score)
            winner = self._rungs(propose(self.request.starts, setting, labelled=True), setting, score)
            state.save(best=best, winner=winner)
        task = parts.task("test", folder / "features", seed=self.request.seed)
        found = state.once("test", partial(self._tested, task))
        gain, above = (found[name] and Gain(**found[name]) for name in ("gain", "above_plain"))
        labels = judge.from_labels(found["curve"] or ())
        best = state.get("best")
        verdict = judge.decide(best, gain, above, labels=labels)
        warning = judge.easier(state.get(f"baseline:{best}")["accuracy"], found["accuracy"][best])
        chosen = state.get("winner") if verdict.kind == "specialise" else self._best_start()
        self._keep(chosen)
        with self.console.status("fitting the classifier"):
            fitted = fit_classifier(folder / "encoder", task)
            fitted.save(folder / "classifier")
        state.save(verdict=asdict(verdict), chosen=chosen, summary=fitted.summary, warning=warning)

    def _tested(self, task: m2dx.ClipTask) -> dict[str, Any]:
        """The one test: of the winner, of the best that needs no training, and of log-mel statistics."""
        best, winner = self.state.get("best"), self.state.get("winner")
        names = list(dict.fromkeys(name for name in (PLAIN, best, winner) if name is not None))
        with self.console.status("the test"):
            encoders = {name: self._encoder(name) for name in names}
            scores = {name: judge.score(encoder, task, name) for name, encoder in encoders.items()}
            gain = None if winner is None else Gain.of(scores[winner], scores[best])
            curve = None
            if gain is not None and gain.low > 0:
                curve = judge.gain_by_labels(encoders[winner], encoders[best], task)
        told = [with_metrics(score, task.label_names) for score in scores.values()]
        write_scores(told, self.state.folder / "scores.json")
        write_predictions(told, self.state.folder)
        return {
            "accuracy": {name: score.mean for name, score in scores.items()},
            "clips": len(task.folds[0].test),
            "gain": gain and asdict(gain),
            "above_plain": None if best == PLAIN else asdict(Gain.of(scores[best], scores[PLAIN])),
            "curve": curve,
        }

    def _without_labels(self, parts: Parts, setting: Setting) -> None:
        state = self.state
        self.say(f"no verdict: {parts.problem}")
        task = selfcheck.segments((*parts.labelled, *parts.others), seed=self.request.seed)

        def score(encoder: ClipEncoder) -> dict[str, float]:
            before = state.seconds
            found = 0.0 if task is None else selfcheck.retrieval(encoder, task)
            return {"accuracy": found, "seconds": round(state.seconds - before, 2)}

        self.say("segments of a recording that find the other one (a check, no verdict):")
        self._baselines((PLAIN, *self.request.starts), score)
        start = self._best_start()
        winner = self._rungs(propose((start,), setting, labelled=False)[:1], setting, score)
        sentence = f"No verdict: {parts.problem}. The encoder is {start}"
        sentence += (
            ", as it was: there was no time to train." if winner is None else ", trained on these recordings."
        )
        if winner is not None and task is not None:
            before, after = (
                of["accuracy"] for of in (state.get(f"baseline:{start}"), state.get(f"run:{winner}"))
            )
            sentence += (
                f" A check, which is no verdict: of {len(task.label_names)} recordings, {after:.0%} of the segments "
                f"find the other one of theirs ({before:.0%} before)."
            )
        chosen = winner or start
        self._keep(chosen)
        state.save(verdict=asdict(Verdict("none", sentence)), chosen=chosen, winner=winner)

    def _baselines(self, names: Sequence[str], score: Scorer) -> str:
        """Scores what needs no training; the best of it."""
        for name in names:
            with self.console.status(f"encoding: {name}"):
                found = self.state.once(f"baseline:{name}", lambda name=name: score(self._encoder(name)))  # type: ignore[misc]
            self.say(f"  {name:<40} {100 * found['accuracy']:5.1f} %")
        scores = self.state.under("baseline")
        return max(scores, key=lambda name: rank(scores[name]))

    def _best_start(self) -> str:
        scores = self.state.under("baseline")
        return max(self.request.starts, key=lambda name: rank(scores[name]))

    def _encoder(self, name: str) -> Any:
        """A baseline, or the encoder of a run."""
        device = pick_device("auto")
        if name == PLAIN:
            return MeanLogMel(AudioSection()).eval().to(device)
        if name == RANDOM:
            return random_like(m2dx.load_encoder(find_encoder(self.request.starts[0])), seed=0).to(device)
        return m2dx.load_encoder(self._path(name)).to(device)

    def _path(self, name: str) -> Path:
        is_run = name in self.state.under("run")
        return self.state.folder / "runs" / name / "encoder" if is_run else find_encoder(name)

    def _rungs(self, candidates: Sequence[Candidate], setting: Setting, score: Scorer) -> str | None:
        """Trains the candidates in rungs; the best run, or None where there is no time for any."""
        by_name, state = {candidate.name: candidate for candidate in candidates}, self.state
        for candidate in candidates:
            with self.console.status(f"measuring a step: {candidate.title}"):
                state.once(f"trial:{candidate.name}", partial(self.tried, candidate, setting))
        budget = state.once("budget", lambda: self.divided(candidates))
        if budget["dropped"]:
            left_out = "; ".join(by_name[name].title for name in budget["dropped"])
            self.say(f"no time for: {left_out}")
        names = [name for name in by_name if name not in budget["dropped"]]
        for number, rung in enumerate(budget["rungs"], 1):
            names = names[: rung["count"]]
            self.say(f"rung {number} of {len(budget['rungs'])}: {counted(len(names), 'candidate')}")
            for name in names:
                candidate, steps = by_name[name], rung["steps"][name]
                run = partial(self._trained, candidate, steps, setting, score)
                found = state.once(f"run:{name}-{steps}", run)
                self.say(f"  {candidate.title:<34} {steps:>6,} steps {100 * found['accuracy']:5.1f} %")
            results = {name: state.get(f"run:{name}-{rung['steps'][name]}") for name in names}
            names.sort(key=lambda name: rank(results[name]), reverse=True)
            state.once(f"order:{number}", lambda names=names: names)  # type: ignore[misc]
        results = dict(state.under("run"))
        return max(results, key=lambda run: rank(results[run]), default=None)

    def tried(self, candidate: Candidate, setting: Setting) -> dict[str, Any]:
        """What a step of a candidate costs, and the statistics of its input."""
        found = trial(self._recipe(candidate, setting, 1000), self.host)
        return {**found, "input": input_of(candidate)}

    def _recipe(self, candidate: Candidate, setting: Setting, steps: int, **options: float) -> dict[str, Any]:
        """With the statistics that a trial of the same input has measured."""
        recipe = candidate.recipe(setting, steps, **options)
        for measured in self.state.under("trial").values():
            if measured["input"] == input_of(candidate):
                recipe["data"] |= {"mean": measured["mean"], "std": measured["std"]}
        return recipe

    def divided(self, candidates: Sequence[Candidate]) -> dict[str, Any]:
        """The time that is left, divided; as plain data."""
        costs = {
            candidate.name: self.state.get(f"trial:{candidate.name}")["seconds"] for candidate in candidates
        }
        encoding = max(float(found["seconds"]) for found in self.state.under("baseline").values())
        left = SAFETY * (60 * self.request.minutes - self.state.seconds) - 4 * encoding - END_SECONDS
        return {"seconds": round(left), **asdict(divide_time(costs, left, overhead=encoding + RUN_SECONDS))}

    def _trained(self, candidate: Candidate, steps: int, setting: Setting, score: Scorer) -> dict[str, Any]:
        seconds = self.state.get(f"trial:{candidate.name}")["seconds"]
        encoder = train(self._recipe(candidate, setting, steps, seconds=seconds), self.host, self.console)
        found = score(m2dx.load_encoder(encoder).to(pick_device("auto")))
        return {"title": candidate.title, "steps": steps, **found}

    def _keep(self, name: str) -> None:
        """Writes the encoder that is given, and where it was trained its recipe."""
        folder, weights = self.state.folder, read_weights(self._path(name))
        write_export(folder / "encoder", weights.encoder(), weights.config)
        if name in self.state.under("run"):
            shutil.copyfile(folder / "runs" / name / "recipe.yaml", folder / "recipe.yaml")

    def _finish(self, verdict: Verdict, *, labelled: bool) -> None:
        state, folder = self.state, self.state.folder
        told = ("warning", "chosen", "winner", "best", "test", "division", "findings", "budget")
        evidence = {key: state.get(key) for key in told} | {
            "baselines": dict(state.under("baseline")),
            "runs": dict(state.under("run")),
        }
        minutes = state.once("minutes", lambda: round(state.seconds / 60, 1))
        replace_json(folder / "verdict.json", {**asdict(verdict), "minutes": minutes, **evidence})
        page = write_page(state)
        shutil.rmtree(folder / "features", ignore_errors=True)
        self.say(f"\n{verdict.sentence}\n")
        if state.get("warning"):
            self.say(f"warning: {state.get('warning')}\n")
        if labelled:
            self.say(f"The classifier: {state.get('summary')}\n")
        self.say(f"after {duration(60 * minutes)}; page: {page}", whole=True)
        what = ("classify", "classifier", "labels") if labelled else ("encode", "encoder", "features")
        self.say(
            f"next: m2dx {what[0]} {folder / what[1]} FILES  ({what[2]} of your audio)",
            whole=True,
        )


def rank(result: Mapping[str, Any]) -> tuple[float, float]:
    """Orders results: the more accurate is better, of equal ones the one with the lower loss."""
    return float(result["accuracy"]), -float(result.get("loss", 0.0))


def input_of(candidate: Candidate) -> str:
    """What statistics of the data depend on."""
    network = candidate.network
    return json.dumps([network.crop_seconds, dict(network.audio), candidate.extra == "replay"])


def write_list(path: Path, rows: Iterable[tuple[m2dx.Clip, Sequence[str]]]) -> None:
    """Writes a list of clips, each with the labels that may be used."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["path", "start", "duration", "label"])
    table.writerows(
        [clip.path.resolve(), clip.start, clip.duration, ";".join(labels)] for clip, labels in rows
    )
    replace_text(path, text.getvalue(), errors="surrogateescape")
