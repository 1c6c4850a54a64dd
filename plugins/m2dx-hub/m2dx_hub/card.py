"""The card of an encoder, README.md of its repository, written from its export and the run that made it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from m2dx.contract.components import Score
from m2dx.contract.wording import counted, hours_text
from m2dx.encoder.config import EncoderConfig, read_config
from m2dx.recipe.document import write_yaml
from m2dx.results.run_folder import RunSummary, read_summary
from m2dx.results.scores import PRETRAINED, read_scores
from m2dx.results.verdict import encoder_title, scores_by_encoder, verdict

NOT_STATED = "not stated by who pushed it"


@dataclass(frozen=True)
class Stated:
    """What only who publishes an encoder knows; None: not stated."""

    licence: str | None = None  # of the weights, by the Hub's name
    data_licence: str | None = None
    start_licence: str | None = None
    untested: str | None = None


def card_of(export: Path, run: Path, repo: str, stated: Stated) -> str:
    """The card of an export for the repository `user/name`, with the scores and data of `run`, where it has them.

    Raises CheckpointError where a file of either cannot be read.
    """
    config, summary = read_config(export), read_summary(run)
    scores = read_scores(run / "scores.json") if (run / "scores.json").is_file() else []
    return "\n".join([
        "---", front_matter(config, scores, repo, stated), "---", "", f"# {repo.partition('/')[2]}", "",
        *_usage(config, repo), *_network(config), *_data(config, summary, stated), *_recipe(config, stated),
        *_scores(scores), *_limits(config, scores, stated),
    ])  # fmt: skip


def front_matter(config: EncoderConfig, scores: Sequence[Score], repo: str, stated: Stated) -> str:
    """The YAML that the Hub reads: licence, library, task, tags and scores."""
    kind = "image" if config.image else "audio"
    results = [
        EvalResult(
            task_type=f"{kind}-classification",
            dataset_type=score.task,
            dataset_name=score.task,
            metric_type=score.metric,
            metric_name=f"{score.metric} ({score.protocol})",
            metric_value=round(score.mean, 4),
        )
        for score in scores
        if score.encoder == PRETRAINED
    ]
    data = ModelCardData(
        license=stated.licence,
        library_name="m2dx",
        pipeline_tag="feature-extraction" if config.classifier is None else f"{kind}-classification",
        tags=[kind, "m2dx", "masked-modeling-duo", "self-supervised"],
        model_name=repo if results else None,
        eval_results=results or None,
    )
    return data.to_yaml().strip()


def _usage(config: EncoderConfig, repo: str) -> Iterator[str]:
    rate, width = config.audio.sample_rate, config.to_json()["embed_dim"]
    yield from [
        f"An encoder of {'images' if config.image else 'audio'}, pre-trained with m2dx.",
        "",
        "```python",
    ]
    yield "import m2dx  # with the package m2dx-hub; no code of this repository runs"
    yield ""
    if config.image:
        yield f'encoder = m2dx.load_image_encoder("hf://{repo}")  # @COMMIT behind it pins one'
    elif config.classifier is not None:
        yield f'classifier = m2dx.load_classifier("hf://{repo}")  # @COMMIT behind it pins one'
        yield f"probabilities = classifier.probabilities(wav)  # (N,) float samples at {rate} Hz -> (1, C)"
    else:
        yield f'encoder = m2dx.load_encoder("hf://{repo}")  # @COMMIT behind it pins one'
        yield f"frames = encoder(wav)  # (B, N) float samples at {rate} Hz -> (B, T, {width})"
        yield f"clips = encoder.clip(wav)  # (B, {width}), the mean over time"
    yield from ["```", ""]


def _network(config: EncoderConfig) -> Iterator[str]:
    size, (high, wide) = config.vit, config.patch_size
    input_text = f"{config.input_size[0]} x {config.input_size[1]}"
    if config.image is None:
        input_text = f"{config.input_size[1] * config.audio.hop_length / config.audio.sample_rate:g} s"
    yield from ["| | |", "|---|---|"]
    yield (
        f"| network | {size.depth} blocks of width {size.embed_dim}, patches of {high} x {wide}, input {input_text} |"
    )
    yield f"| training | {'unknown' if config.step is None else f'{config.step:,}'} steps, m2dx {config.m2dx_version} |"
    yield from [f"| weights | SHA-256 {config.sha256} |", ""]


def _data(config: EncoderConfig, summary: RunSummary | None, stated: Stated) -> Iterator[str]:
    yield from ["## Data", ""]
    clips: Any = (config.recipe or {}).get("clips") or {}
    if clips:
        yield from [f"{counted(clips['count'], 'clip')}, list {clips['fingerprint']}.", ""]
    sets = [] if summary is None else list(summary.data.by_name.values())
    if sets:
        yield from ["| set | clips | hours | labelled | classes | list |", "|---|---:|---:|---:|---:|---|"]
    for of in sets:
        hours = "-" if of.hours is None else hours_text(of.hours)
        cells = ["-" if value is None else value for value in (of.labelled, of.classes, of.fingerprint)]
        count = "-" if of.clips is None else f"{of.clips:,}"
        yield f"| {of.name} | {count} | {hours} | {' | '.join(map(str, cells))} |"
    if sets:
        yield ""
    yield from [f"Licence of the data: {stated.data_licence or NOT_STATED}.", ""]


def _recipe(config: EncoderConfig, stated: Stated) -> Iterator[str]:
    recipe = dict(config.recipe or {})
    start = recipe.get("init_from")
    yield from ["## Recipe", ""]
    yield f"Licence of the weights: {stated.licence or NOT_STATED}."
    if start is not None:
        yield f"The training started from {start}; licence of that: {stated.start_licence or NOT_STATED}."
    if recipe:
        shown = {key: recipe[key] for key in ("name", "init_from", "model", "tasks") if key in recipe}
        yield from ["", f"Of the whole recipe, the SHA-256 is {recipe.get('sha256')}.", "", "```yaml"]
        yield from [write_yaml(shown).rstrip(), "```"]
    yield ""


def _scores(scores: Sequence[Score]) -> Iterator[str]:
    yield from ["## Scores", ""]
    if not scores:
        yield from ["None were measured.", ""]
        return
    by_encoder, columns = scores_by_encoder(scores)
    yield "In percent, of frozen features; ± is half of the 95 % confidence interval, where there is one."
    yield from ["", f"| task | protocol | metric | {' | '.join(map(encoder_title, by_encoder))} |"]
    yield f"|---|---|---|{'---:|' * len(by_encoder)}"
    for task, protocol, metric in columns:
        cells = [row.get((task, protocol, metric)) for row in by_encoder.values()]
        yield f"| {task} | {protocol} | {metric} | {' | '.join(map(_cell, cells))} |"
    yield from ["", verdict(scores), ""]


def _cell(score: Score | None) -> str:
    if score is None:
        return "-"
    return f"{100 * score.mean:.1f}" + ("" if score.ci95 is None else f" ± {100 * score.ci95:.1f}")


def _limits(config: EncoderConfig, scores: Sequence[Score], stated: Stated) -> Iterator[str]:
    tasks = ", ".join(dict.fromkeys(score.task for score in scores))
    yield from ["## What it was not tested on", ""]
    yield f"Anything but {tasks}." if tasks else "It was not tested on any task."
    if config.image is None:
        yield f"It hears nothing above {min(config.audio.f_max, config.audio.sample_rate / 2):g} Hz."
    if stated.untested:
        yield stated.untested
    yield from ["Judge it on labelled clips of your own, beside log-mel statistics.", ""]
