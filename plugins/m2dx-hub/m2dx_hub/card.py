"""The card of an encoder, README.md of its repository, written from its export and the run that made it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from jinja2 import Environment

from m2dx.contract.components import Score
from m2dx.contract.errors import CheckpointError, RecipeError
from m2dx.encoder.config import read_config
from m2dx.encoder.weights import digest_of_tensors, read_weights
from m2dx.recipe.document import write_yaml
from m2dx.results.run_folder import read_summary
from m2dx.results.scores import PRETRAINED, read_scores
from m2dx.results.scoring import encoder_path
from m2dx.results.verdict import encoder_title, scores_by_encoder, verdict


@dataclass(frozen=True)
class Stated:
    """What only who publishes an encoder knows; None: not stated."""

    licence: str | None = None  # of the weights, by the Hub's name
    data_licence: str | None = None
    start_licence: str | None = None
    untested: str | None = None


def run_of(export: Path, run: Path | None) -> Path | None:
    """The folder with scores of an export's encoder: `run`, or the one that it lies in; None: that is of other weights.

    Of a classifier it is that of the encoder that it was made from. RecipeError where `run` is of other weights.
    """
    folder = run or export.resolve().parent
    scored = encoder_path(folder)
    with suppress(CheckpointError):  # the scored encoder has gone, or is none of m2dx's
        if scored is not None and _digest(scored) == _digest(export):
            return folder
    if run is not None:
        raise RecipeError(
            f"--run must be the folder of a run with the weights of {export}, but {run} has those of "
            f"{scored or 'no encoder'}; leave it out for a card without its scores"
        )
    return None


def _digest(path: Path) -> str:
    """SHA-256 of an encoder's tensors, without a classifier, wherever they are."""
    return digest_of_tensors(read_weights(path).part("online"), {})


def card_of(export: Path, run: Path | None, repo: str, stated: Stated) -> str:
    """The card of an export for the repository `user/name`, with the scores and data of `run`, where it has them.

    Raises CheckpointError where a file of either cannot be read.
    """
    config, summary = read_config(export), None if run is None else read_summary(run)
    scores = read_scores(run / "scores.json") if run and (run / "scores.json").is_file() else []
    by_encoder, columns = scores_by_encoder(scores)
    recipe, audio = config.recipe or {}, config.audio
    classifier, kind = config.classifier, "image" if config.image else "audio"
    labels, about = (
        ([], {}) if classifier is None else (list(classifier.label_names), classifier.model_extra or {})
    )
    tasks = dict.fromkeys(score.task for score in scores) if classifier is None else [str(about.get("task"))]
    method = recipe.get("model", {}).get("method", {}).get("name")
    shown = {key: recipe[key] for key in ("name", "init_from", "model", "tasks") if key in recipe}
    language = Environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    language.filters["known"] = _known
    template = resources.files("m2dx_hub").joinpath("card.md.jinja").read_text("utf-8")
    return language.from_string(template).render(
        config=config,
        encoders=[encoder_title(name) for name in by_encoder],
        highest=min(audio.f_max, audio.sample_rate / 2),
        hop_ms=1000 * audio.hop_length / audio.sample_rate,
        items="images" if config.image else "clips",
        kind=kind,
        labels=labels,
        name=repo.partition("/")[2],
        NOT_STATED="not stated by who pushed it",
        own=[
            score
            for score in scores
            if score.encoder == PRETRAINED and classifier is None and "taught" not in score.details
        ],
        recipe=recipe,
        repo=repo,
        rows=[[*column, *(_cell(row.get(column)) for row in by_encoder.values())] for column in columns],
        sets=[] if summary is None else list(summary.data.by_name.values()),
        shown=write_yaml(shown).rstrip(),
        stated=stated,
        tags=[kind, "m2dx", "self-supervised", *filter(None, [method])],
        tasks=", ".join(tasks),
        trained=write_yaml({"labels": labels, **about}).rstrip(),
        verdict=verdict(scores),
        width=config.to_json()["embed_dim"],
    )


def _known(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if value < 1000 else f"{value:,.0f}"


def _cell(score: Score | None) -> str:
    if score is None:
        return "-"
    told = f"{100 * score.mean:.1f}" + ("" if score.ci95 is None else f" ± {100 * score.ci95:.1f}")
    return f"{told} (learnt)" if "taught" in score.details else told
