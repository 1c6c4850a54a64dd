"""The search: recordings, audit, division, baselines, candidates in rungs, one test, and a verdict with its page."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median_high
from typing import Any

from m2dx_classify import STATISTICS
from m2dx_classify.fitting import fit_classifier
from rich.console import Console

import m2dx
from m2dx.contract.atomic import replace_json
from m2dx.contract.components import ClipEncoder, Fold
from m2dx.contract.package import find_encoder
from m2dx.contract.progress import ProgressLine
from m2dx.contract.wording import counted, duration
from m2dx.data.inputs import clips_of_inputs
from m2dx.encoder.audio import random_encoder, random_like
from m2dx.encoder.config import EncoderConfig
from m2dx.encoder.weights import copy_licences, read_weights, write_export
from m2dx.evaluation.bootstrap import with_metrics
from m2dx.evaluation.knn import Knn
from m2dx.recipe.loading import load_recipe
from m2dx.recipe.schema import AudioSection, ModelSection
from m2dx.results.predictions import write_predictions
from m2dx.results.scores import write_scores
from m2dx.training.distributed import pick_device
from m2dx.training.run_folder import running_alone
from m2dx_specialise import judge, selfcheck
from m2dx_specialise.audit import audit
from m2dx_specialise.candidates import Network, Setting, network_of, propose, random_networks
from m2dx_specialise.division import divide, write_list
from m2dx_specialise.encoders import Scorer, loaded, path_of, scored
from m2dx_specialise.findings import named
from m2dx_specialise.judge import PLAIN, RANDOM, Comparison, Verdict, best_of, rank
from m2dx_specialise.listing import Listing, read
from m2dx_specialise.names import NONE
from m2dx_specialise.origins import without_copies
from m2dx_specialise.page import write_page
from m2dx_specialise.parts import FEWEST_CLIPS, Parts
from m2dx_specialise.rungs import Rungs
from m2dx_specialise.state import STARTER, Request, State

DIVISION, POOL = "division.csv", "pool.csv"
EVIDENCE = ("chosen", "winner", "again", "best", "test", "division", "findings", "budget")
"""What verdict.json has of the state, beside baselines and runs."""
MOST_FILES = 50  # names of files that a finding keeps
RANDOM_SEEDS = 3
"""Of a random network that would be the verdict: each must be beyond log-mel statistics."""
WORKERS: int | None = None
"""Loading processes of a training; None: as many as usual."""

Ask = Callable[[Listing], tuple[str | None, str | None] | None]
"""Shows what was found; gives another key of labels or groups to read by, or None where all is as it should be."""


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
    starts: str | Path | Sequence[str | Path] = (STARTER,),
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
        given = [starts] if isinstance(starts, str | Path) else starts
        request = Request(data=Path(request), starts=tuple(map(str, given)), minutes=minutes)
    request.check()
    for start in request.starts:
        network_of(start)
    for extra in (request.general, request.noise):
        if extra is not None:
            clips_of_inputs([extra])  # where it cannot be read, this is told before the audit
    state = State.open(Path(output or request.folder), request, resume=resume)
    with running_alone(state.folder, other="give another folder (-o)"):
        listing = None
        if state.get("findings") is None:
            listing = recordings(state, None if resume else ask)
            if ask is None and console is not None:
                console.print(f"  {listing.sentence}")
            state.save()  # what was agreed to, should the audit be stopped
        search = Search(state, m2dx.PluginHost.discover(), console or Console(quiet=True))
        try:
            return search.run(listing)
        finally:
            state.save()  # the time that it has taken, however it ends


def recordings(state: State, ask: Ask | None = None) -> Listing:
    """The recordings of a search, read as `ask` wants it. RecipeError where they are too few."""
    while True:
        request = state.request
        keys = {"label_from": request.label_from, "group_from": request.group_from}
        listing = read(request.data, request.labels, **keys)
        if len(listing.clips) < FEWEST_CLIPS:
            text = f"{request.data} has {counted(len(listing.clips), 'clip')}, too few to train on or to judge by (at "
            text += f"least {FEWEST_CLIPS})"
            if listing.bad:
                path, reason = listing.bad[0]
                text += f"; {len(listing.bad)} more cannot be used, e.g. {named(path)}: {reason}"
            if len(listing.classes) > 1 and not listing.bad:
                command = ["m2dx", "classify", "--train", str(request.labels or request.data), STARTER]
                text += f"; use {STARTER} as it is: {shlex.join(command)} FILES"
            raise m2dx.RecipeError(" ".join([text, *(f"({note})" for note in listing.notes)]))
        other = None if ask is None else ask(listing)
        if other is None and max(listing.classes.values(), default=2) < 2:
            assert listing.label is not None
            raise m2dx.RecipeError(
                f"{request.data}: labels are from {listing.label.where}, and none is there twice "
                f"({listing.label.few}), but a class needs several clips; take others by --label-from or --labels"
            )
        if other is None:
            return listing
        label_from = other[0] or request.label_from
        group_from = other[1] or (None if label_from == request.group_from != NONE else request.group_from)
        state.request = replace(request, label_from=label_from, group_from=group_from)


@dataclass(frozen=True, eq=False)
class Search:
    """One search in its folder."""

    state: State
    host: m2dx.PluginHost
    console: Console

    @property
    def request(self) -> Request:
        return self.state.request

    def run(self, listing: Listing | None) -> Specialised:
        """Everything from the recordings to the page; what the folder's state has is not done again.

        `listing` may be None where the audit has been made.
        """
        state, folder = self.state, self.state.folder
        if listing is not None:
            self._audit(listing)
        for finding in state.get("findings"):
            self.console.print(f"  {finding['severity']}: {finding['text']} {finding['advice']}")
        self.console.print(f"  {state.get('division')}")
        parts = Parts.read(folder / DIVISION, folder / POOL)
        labelled = parts.problem is None
        if state.get("verdict") is None:
            (self._with_labels if labelled else self._without_labels)(parts, self.setting(parts))
        verdict = Verdict(**state.get("verdict"))
        self._finish(verdict, labelled=labelled)
        classifier = folder / "classifier" if labelled else None
        recipe = folder / "recipe.yaml" if state.get("chosen") in state.under("run") else None
        return Specialised(folder, verdict, folder / "encoder", classifier, recipe)

    def _audit(self, listing: Listing) -> None:
        with ProgressLine(self.console, "audit, minute") as line:
            found = audit(listing, line.update)
        division = divide(listing, found, self.request.seed)
        folder = self.state.folder
        for name, clips in ((DIVISION, division.rows), (POOL, division.pool)):
            (folder / name).unlink(missing_ok=True)
            if clips:
                write_list(folder / name, clips)
        findings = [
            {"severity": of.severity, "text": of.text, "advice": of.advice, "count": len(of.paths)}
            | {"files": [*map(named, of.paths[:MOST_FILES])]}
            for of in found.findings
        ]
        sentence, parts = division.sentence, Parts.of([*division.rows, *division.pool])
        if parts.problem is None:
            sizes = [f"{len(part):,}" for part in (parts.train, parts.valid, parts.test)]
            sentence += " Candidates train on {} clips, are chosen by {} and tested on {}.".format(*sizes)
        self.state.save(findings=findings, division=sentence, listing=listing.sentence)

    def setting(self, parts: Parts, *, again: bool = False) -> Setting:
        """Writes the lists that are trained on: nothing in them is chosen by, tested or left out."""
        request, folder = self.request, self.state.folder.resolve()
        lists = {"pretraining": [*parts.train, *parts.others]}
        if parts.problem is not None:  # nothing is chosen
            clips = (*parts.train, *parts.valid, *parts.others)
            lists["pretraining"] = [replace(clip, labels=()) for clip in clips]
        given = {"general": request.general, "noise": request.noise}
        held = self._held(parts, lists["pretraining"]) if any(given.values()) else []
        for name, path in given.items():
            if path is not None:
                others = without_copies(clips_of_inputs([path]), held)
                lists[name] = [replace(clip, labels=()) for clip in others]
                if not others:
                    raise m2dx.RecipeError(f"--{name} must have recordings that DATA lacks; {path} has none")
        paths = {name: folder / f"{'again_' if again else ''}{name}.csv" for name in lists}
        for name, path in paths.items():
            write_list(path, (replace(clip, split=None, group=None) for clip in lists[name]))
        recordings = {str(clip.path) for clip in lists["pretraining"]}
        return Setting(
            output=folder / "runs",
            clips=paths["pretraining"],
            num_clips=len(lists["pretraining"]),
            num_recordings=0 if any(";" in path for path in recordings) else len(recordings),
            clip_seconds=median_high(clip.duration or 0.0 for clip in lists["pretraining"]),
            general=paths.get("general"),
            num_general=len(lists.get("general", ())),
            noise=paths.get("noise"),
            on_gpu=pick_device("auto").type == "cuda",
            workers=WORKERS,
            seed=request.seed + again,
        )

    def _held(self, parts: Parts, trained: Sequence[m2dx.Clip]) -> list[m2dx.Clip]:
        """The clips of DATA whose files are not trained on."""
        known = {clip.path.resolve() for clip in trained}
        clips = (*parts.labelled, *clips_of_inputs([self.request.data]))
        return [clip for clip in clips if clip.path.resolve() not in known]

    def _with_labels(self, parts: Parts, setting: Setting) -> None:
        folder, state, seed = self.state.folder, self.state, self.request.seed
        task = parts.task("test", folder / "features", seed=seed)
        if state.get("test") is None:
            choice = parts.task("choice", folder / "features", seed=seed)
            fitted = len(choice.clips) - len(choice.folds[0].test)
            more = max(len(parts.in_turn(task).folds) - 1, 0) * len(parts.labelled) / len(parts.train)
            self.console.print(f"baselines, fitted to {fitted} clips, scored on {len(choice.folds[0].test)}:")
            score = partial(self._chosen, choice, more)
            networks = random_networks(setting)
            for name, network in networks.items():
                self._write_random(name, network)
            self._baselines((PLAIN, *networks, *self.request.starts), score)
            random, scores = self._best_random(), state.under("baseline")
            is_ahead = rank(scores[random]) > rank(scores[self._best_start()])
            candidates = propose(
                self.request.starts, setting, networks[random], labelled=True, scratch_first=is_ahead
            )
            rungs = self.rungs(setting, again=parts.crossed is not None)
            winner = rungs.best(candidates, partial(score, trained=True))
            state.save(winner=winner, best=best_of(state.under("baseline")))
            if winner is not None:
                self._again(parts, task, partial(rungs.once_more, winner, candidates))
        found = state.once("test", partial(self._tested, task, parts))
        chosen = found["chosen"]
        self._keep(chosen)
        fitted_to = found["classifier"]["encoder"]
        of = parts.in_turn(task) if self._fits_all(chosen, parts) else task
        self._classify(fitted_to, of, self._settings(fitted_to))
        state.save(verdict=found["verdict"], chosen=chosen)

    def _fits_all(self, chosen: str, parts: Parts) -> bool:
        """Whether the classifier is fitted to all clips: to folds, which its encoder has not heard."""
        return bool(parts.folds) and chosen != self.state.get("winner")

    def _chosen(
        self, choice: m2dx.ClipTask, in_turn: float, encoder: ClipEncoder, *, trained: bool = False
    ) -> dict[str, Any]:
        """What the validation part says of an encoder; `in_turn`: how much longer the classifiers of all folds take."""
        choice.features(encoder)
        before = self.state.seconds
        settings = judge.choose(encoder, choice, trained=trained)
        found = judge.score(encoder, choice, "", settings)
        told = {
            "accuracy": found.mean,
            "loss": judge.loss_of(found, choice.label_names),
            "settings": settings,
        }
        return {**told, "in_turn": round(in_turn * (self.state.seconds - before), 2)}

    def rungs(self, setting: Setting, *, again: bool = False) -> Rungs:
        return Rungs(self.state, self.host, self.console, setting, again)

    def _again(self, parts: Parts, task: m2dx.ClipTask, once_more: Callable[..., Any]) -> None:
        """The winner once more, where one test says little: with the parts in each other's place, and another seed."""
        crossed, back = parts.crossed, parts.back(task)
        if crossed is None or back is None:
            return
        self.console.print("the best once more, with training and test part in each other's place:")
        choice = replace(task, folds=(Fold("choice", back.train, back.train[:0], back.valid),))
        score = partial(self._chosen, choice, 0.0, trained=True)
        try:
            setting = self.setting(crossed, again=True)
        except m2dx.RecipeError as error:
            self.console.print(f"  not possible: {error}")
            return
        found = self.state.once("again", partial(once_more, setting, score))
        if found is None:
            self.console.print("  no time for it")
        else:
            title, steps = found["title"], found["steps"]
            self.console.print(f"  {title:<34} {steps:>6,} steps {100 * found['accuracy']:5.1f} %")

    def _settings(self, name: str) -> Mapping[str, Any] | None:
        """Of the regression on a run, as the validation part has chosen them; None: inner folds choose."""
        run = self.state.under("run").get(name)
        return None if run is None else run["settings"]

    def _classify(self, fitted: str, task: m2dx.ClipTask, settings: Mapping[str, Any] | None) -> None:
        folder = self.state.folder
        model = STATISTICS if fitted == PLAIN else folder / "encoder"
        with self.console.status("fitting the classifier"):
            task = replace(task, name=self.request.folder.name)  # by which its card calls it
            fit_classifier(model, task, settings=settings).save(folder / "classifier")

    def _tested(self, task: m2dx.ClipTask, parts: Parts) -> dict[str, Any]:
        """The one test: of the winner and of all that needs no training, and of the best of that on all folds.

        Where the winner was trained once more, it has two parts, one for each training. The winner's regression has the
        settings that the validation part has chosen; those of what has learnt nothing choose by inner folds of both
        parts, which say more.
        """
        state, start, random = self.state, self._best_start(), self._best_random()
        winner, best, baselines = state.get("winner"), state.get("best"), list(state.under("baseline"))
        gains, curve, rival, in_turn = dict[str, Comparison](), [], None, parts.in_turn(task)
        with self.console.status("the test"):
            encoders = {name: self._encoder(name) for name in baselines}
            scores = {name: judge.score(encoders[name], in_turn, name) for name in (start, random, PLAIN)}
            above = {name: Comparison.of(scores[start], scores[name]) for name in (PLAIN, random)}
            untrained = [Comparison.of(scores[random], scores[PLAIN])]
            tested = scores[best] if parts.folds else judge.on(scores[best], parts.test)
            counts = len(parts.valid), len(tested.predictions)
            easier = judge.easier(best, state.get(f"baseline:{best}")["accuracy"], tested.mean, counts)
            if winner is not None:
                tests = self._tests(winner, task, parts.back(task))
                own = judge.joined([judge.score(of, test, winner, its) for of, test, its in tests])
                both = replace(task, folds=tuple(test.folds[0] for _, test, _ in tests))
                known = {} if parts.folds or len(both.folds) < len(in_turn.folds) else scores
                trained = {
                    name: known.get(name) or judge.score(encoders[name], both, name) for name in baselines
                }
                trained[winner] = own
                gains = {name: Comparison.of(own, trained[name], for_others=True) for name in baselines}
                rival = judge.strongest({name: of.gain for name, of in gains.items()})
                if gains[rival].gain.low > 0:
                    curve = judge.gain_by_labels(tests, encoders[rival])
        training, at_hand = ({name: of.gain for name, of in found.items()} for found in (gains, above))
        labels = judge.from_labels(curve)
        decided = partial(judge.decide, training, start, at_hand, labels=labels)
        verdict = decided(untrained[0].gain)
        if verdict.kind == "random":  # by its shape, or by the luck of this one
            untrained += self._alike(random, in_turn, scores[PLAIN])
            least = min(untrained, key=lambda of: of.gain.low)
            verdict = decided(least.gain)
            if verdict.kind != "random":
                luck = f"{least.own} has {least.gain.text} over {PLAIN}"
                verdict = replace(
                    verdict, sentence=f"{verdict.sentence} The lead of {random} is luck: {luck}."
                )
        chosen = random if verdict.kind == "random" else start
        if verdict.kind == "specialise":
            chosen, scores = winner, trained
        if not self._fits_all(chosen, parts):  # the classifier is told by its own test
            scores = {name: judge.on(score, parts.test) for name, score in scores.items()}
        told = {name: with_metrics(score, in_turn.label_names) for name, score in scores.items()}
        write_scores(list(told.values()), state.folder / "scores.json")
        write_predictions(list(told.values()), state.folder)
        fitted = PLAIN if verdict.kind == "plain" and scores[PLAIN].mean >= scores[chosen].mean else chosen
        own = told[fitted]
        return {
            "chosen": chosen,
            "verdict": asdict(verdict),
            "trained": [asdict(of) for of in gains.values()],
            "at_hand": [asdict(of) for of in (*above.values(), *untrained)],
            "rival": rival,
            "curve": curve,
            "warning": " ".join(filter(None, (easier, judge.guessed(own)))),
            "classifier": {
                "encoder": fitted,
                "accuracy": own.mean,
                "ci95": own.ci95,
                "clips": len(own.predictions),
            },
        }

    def _tests(self, winner: str, task: m2dx.ClipTask, back: Fold | None) -> list[judge.Test]:
        """The trainings of the winner, each with the part that it is tested on and the settings of its regression."""
        tests = [(self._encoder(winner), task, self._settings(winner))]
        again = self.state.get("again")
        if again is not None and back is not None:
            tests.append((self._encoder(again["name"]), replace(task, folds=(back,)), again["settings"]))
        return tests

    def _alike(self, random: str, task: m2dx.ClipTask, plain: m2dx.Score) -> Iterator[Comparison]:
        """Random networks like one, with other seeds, beside log-mel statistics."""
        network = self._encoder(random)
        for seed in range(self.request.seed + 1, self.request.seed + RANDOM_SEEDS):
            name = f"{random} seed {seed}"
            with self.console.status(f"the test: {name}"):
                other = random_like(network, seed=seed).to(pick_device("auto"))
                yield Comparison.of(judge.score(other, task, name), plain)

    def _without_labels(self, parts: Parts, setting: Setting) -> None:
        state = self.state
        self.console.print(f"no verdict: {parts.problem}")
        task = selfcheck.segments((*parts.labelled, *parts.others), seed=self.request.seed)

        def score(encoder: ClipEncoder) -> dict[str, Any]:
            found = [] if task is None else Knn(k=1).evaluate(encoder, task, seeds=(0,))
            return {"accuracy": sum(score.mean for score in found)}

        self.console.print("segments of a recording that find the other one (a check, no verdict):")
        self._baselines((PLAIN, *self.request.starts), score)
        start = self._best_start()
        (candidate, *_) = propose((start,), setting, network_of(start), labelled=False)
        winner = self.rungs(setting).best([candidate], score)
        how = "trained on these recordings" if winner else "as it was: there was no time to train"
        sentence = f"No verdict: {parts.problem}. The encoder is {start}, {how}."
        if winner is not None and task is not None:
            before, after = (state.get(key)["accuracy"] for key in (f"baseline:{start}", f"run:{winner}"))
            sentence += (
                f" A check, which is no verdict: of {len(task.label_names)} recordings, {after:.0%} of the segments "
                f"find the other one of theirs ({before:.0%} before)."
            )
        self._keep(winner or start)
        state.save(verdict=asdict(Verdict("none", sentence)), chosen=winner or start, winner=winner)

    def _baselines(self, names: Sequence[str], score: Scorer) -> None:
        """Scores what needs no training."""
        for name in names:
            with self.console.status(f"encoding: {name}"):
                found = self.state.once(f"baseline:{name}", partial(scored, name, self.state, score))
            self.console.print(f"  {name:<40} {100 * found['accuracy']:5.1f} %")

    def _best_start(self) -> str:
        scores = self.state.under("baseline")
        return best_of({name: scores[name] for name in self.request.starts})

    def _best_random(self) -> str:
        """The random network that the validation part has taken for the best."""
        scores = self.state.under("baseline")
        return best_of({name: of for name, of in scores.items() if name.startswith(RANDOM)})

    def _encoder(self, name: str) -> Any:
        return loaded(name, self.state)

    def _write_random(self, name: str, of: Network) -> None:
        """Writes a random network as if a run had trained it; its log-mel has the starter's mean and deviation."""
        start = read_weights(find_encoder(STARTER)).config
        audio = AudioSection(crop_seconds=of.crop_seconds, **of.audio)
        model = ModelSection.model_validate({"size": of.size, "depth": of.depth, "patch_size": of.patch_size})
        seed = self.request.seed
        network = random_encoder(audio, model, mean=start.mean, std=start.std, seed=seed).encoder
        config = EncoderConfig.of(network, audio, mean=start.mean, std=start.std)
        write_export(path_of(name, self.state.folder), network, config)

    def _keep(self, name: str) -> None:
        """Writes the encoder that is given, and where it was trained its recipe."""
        folder = self.state.folder
        path = path_of(name, folder, self.request.starts)
        weights = read_weights(path)
        config = weights.config.model_copy(update={"classifier": None})  # of a start, which has its own
        write_export(folder / "encoder", weights.encoder(), config)
        copy_licences(weights.path, folder / "encoder")
        if name in self.state.under("run"):
            recipe = folder / "runs" / name / "recipe.yaml"
            shutil.copyfile(recipe, folder / "recipe.yaml")
            if (start := load_recipe(recipe, host=self.host).init_from) is not None:
                copy_licences(start, folder / "encoder")

    def _finish(self, verdict: Verdict, *, labelled: bool) -> None:
        state, folder, test = self.state, self.state.folder, self.state.get("test") or {}
        minutes = state.once("minutes", lambda: round(state.seconds / 60, 1))
        evidence = {key: state.get(key) for key in EVIDENCE}
        evidence |= {f"{key}s": dict(state.under(key)) for key in ("baseline", "run")}
        replace_json(folder / "verdict.json", {**asdict(verdict), "minutes": minutes, **evidence})
        page = write_page(state)
        shutil.rmtree(folder / "features", ignore_errors=True)
        self.console.print(f"\n{verdict.sentence}\n")
        if test.get("warning"):
            self.console.print(f"warning: {test['warning']}\n")
        if labelled:
            self.console.print(f"{judge.of_classifier(test)}\n")
        self.console.print(f"after {duration(60 * minutes)}; page: {page}", soft_wrap=True)
        what = ("classify", "classifier", "labels") if labelled else ("encode", "encoder", "features")
        text = f"next: m2dx {what[0]} {shlex.quote(str(folder / what[1]))} FILES  ({what[2]} of your audio)"
        self.console.print(text, soft_wrap=True)
