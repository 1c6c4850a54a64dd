"""Makes the encoder in the package of a run: `python recipes/starter/pack.py runs/starter --sounds $STARTER_SOUNDS`.

Writes m2dx/encoder/starter: the export with weights of 16 bits, the card (README.md) and the licences of the packages
that the recordings are from. Nothing is replaced where the features of clips differ too much from those of the run.
"""

import argparse
import csv
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from m2dx.contract.errors import M2dxError
from m2dx.contract.package import STARTER
from m2dx.data.csv_list import CsvDataset
from m2dx.data.reading import audio_seconds, read_wav
from m2dx.encoder.audio import AudioEncoder, load_encoder
from m2dx.encoder.config import EncoderConfig, read_config
from m2dx.encoder.weights import read_weights, write_export
from m2dx.model.vit import VIT_SIZES
from m2dx.results import RESULTS_FILE, ResultRecord, fingerprint
from m2dx.results.records import read_records

ROOT = Path(__file__).parents[2]
COMPARED_CLIPS = 200
LEAST_COSINE, LARGEST_DIFFERENCE = 0.9999, 0.01
MOST_MB = 25
CARD = Path(__file__).with_name("card.md")


class PackError(Exception):
    """An encoder that cannot be packed."""


def to_half(encoder: AudioEncoder) -> None:
    """Rounds weights to 16 bits; positions stay, as `init_from` compares them with the fixed ones."""
    for name, parameter in encoder.encoder.named_parameters():
        if "pos_embed" not in name:
            parameter.data = parameter.data.half()


@torch.inference_mode()
def features(encoder: AudioEncoder, clips: Sequence[Path]) -> Tensor:
    """(clips, F*D), of the first ten seconds of each; AudioError where one cannot be read."""
    wavs = (read_wav(path, sample_rate=encoder.sample_rate)[: 10 * encoder.sample_rate] for path in clips)
    return torch.cat([encoder.clip(torch.from_numpy(wav)) for wav in wavs])


@dataclass(frozen=True)
class Sources:
    """The packages that the recordings are from."""

    table: str  # Markdown
    packages: tuple[str, ...]
    recordings: int
    hours: float

    @classmethod
    def of(cls, sounds: Path) -> "Sources":
        """What collect.py has written."""
        with (sounds / "clips.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        seconds: dict[str, dict[str, float]] = {}
        kinds: dict[str, set[str]] = {}
        for row in rows:
            files = seconds.setdefault(row["package"], {})
            files.setdefault(row["path"], audio_seconds(sounds / row["path"]))
            kinds.setdefault(row["package"], set()).add(row["kind"])
        lines = [
            "| package | recordings | minutes | kinds | licences that it names |",
            "|---|---:|---:|---|---|",
        ]
        for package in sorted(seconds):
            files, text = seconds[package], (sounds / "licences" / package).read_text(encoding="utf-8")
            names = sorted(set(re.findall(r"^License: *(\S.*?) *$", text, re.MULTILINE)))
            licences = ", ".join(names) or "in its text"
            minutes = sum(files.values()) / 60
            lines.append(
                f"| {package} | {len(files):,} | {minutes:.1f} | {', '.join(sorted(kinds[package]))} | {licences} |"
            )
        hours = sum(sum(files.values()) for files in seconds.values()) / 3600
        return cls("\n".join(lines), tuple(sorted(seconds)), sum(map(len, seconds.values())), hours)


def score_table(files: Sequence[Path], encoders: Sequence[AudioEncoder]) -> str:
    """Scores in percent of the encoders, beside all others of the recipes that scored one of them, as Markdown."""
    own = {fingerprint(encoder) for encoder in encoders}
    records = read_records([file for file in files if file.exists()]).records
    recipes = {record.recipe for record in records if record.encoder.sha256 in own}
    found: dict[str, dict[str, dict[str, ResultRecord]]] = {}  # protocol, task, encoder; later records win
    for record in (record for record in records if record.recipe in recipes):
        name = "starter" if record.encoder.sha256 in own else record.encoder.name
        found.setdefault(record.protocol.name, {}).setdefault(record.task, {})[name] = record
    names = list(dict.fromkeys(name for tasks in found.values() for row in tasks.values() for name in row))
    if not found:
        return "Not scored yet."
    lines = [f"| protocol | task | {' | '.join(names)} |", "|---|---|" + "---:|" * len(names)]
    for protocol, tasks in found.items():
        for task, row in tasks.items():
            cells = (percent(row[name].mean, row[name].ci95) if name in row else "" for name in names)
            lines.append(f"| {protocol} | {task} | {' | '.join(cells)} |")
        whole = [name for name in names if all(name in row for row in tasks.values())]
        means = {name: fmean(row[name].mean for row in tasks.values()) for name in whole}
        cells = (percent(means[name]) if name in means else "" for name in names)
        lines.append(f"| {protocol} | mean of {len(tasks)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def percent(mean: float, ci95: float | None = None) -> str:
    """A score, with half of its confidence interval where that is known."""
    return f"{100 * mean:.1f}" + ("" if ci95 is None else f" ± {100 * ci95:.1f}")


def overrides(config: EncoderConfig) -> str:
    """What a recipe that starts from the encoder must have, and the predictor of its run where that is known."""
    vit = config.vit
    size = next(name for name, known in VIT_SIZES.items() if known.embed_dim == vit.embed_dim)
    given = f"model.size={size} model.depth={vit.depth} 'model.patch_size={list(config.patch_size)}'"
    if config.recipe is None:
        return given
    predictor = config.recipe["model"]["predictor"]
    return f"{given} 'model.predictor={{{', '.join(f'{key}: {value}' for key, value in predictor.items())}}}'"


def pack(run: Path, *, sounds: Path, scores: Sequence[Path], compared: Sequence[Path], output: Path) -> str:
    """Writes the folder, and gives what the weights of 16 bits change; PackError where that is too much."""
    config, original = read_weights(run).config, load_encoder(run)
    made = output.with_name(f"{output.name}.partial")
    shutil.rmtree(made, ignore_errors=True)
    rounded = load_encoder(run)
    to_half(rounded)
    write_export(made, rounded.encoder, config)
    packed = load_encoder(made)
    before, after = features(original, compared), features(packed, compared)
    cosine = cosine_similarity(before, after).min().item()
    difference = ((before - after).norm(dim=1) / before.norm(dim=1)).max().item()
    megabytes = sum(file.stat().st_size for file in made.iterdir()) / 1e6
    told = (
        f"{megabytes:.1f} MB; over {len(before)} clips the least cosine is {cosine:.6f}, the largest relative "
        f"difference {difference:.1e}"
    )
    if cosine < LEAST_COSINE or difference > LARGEST_DIFFERENCE or megabytes > MOST_MB:
        raise PackError(
            f"{told}; must be at most {MOST_MB} MB, at least {LEAST_COSINE} and at most {LARGEST_DIFFERENCE}; "
            f"{made} has it, and {output} is as it was"
        )
    sources = Sources.of(sounds)
    card = CARD.read_text(encoding="utf-8").format(
        rate=original.sample_rate,
        nyquist=original.sample_rate / 2000,
        width=original.embed_dim,
        frames=original.frame_rate,
        overrides=overrides(config),
        parameters=sum(parameter.numel() for parameter in original.encoder.parameters()),
        depth=config.vit.depth,
        embed_dim=config.vit.embed_dim,
        patch=" x ".join(map(str, config.patch_size)),
        seconds=config.input_size[1] * config.audio.hop_length / config.audio.sample_rate,
        megabytes=megabytes,
        clips=len(before),
        cosine=cosine,
        difference=difference,
        steps=config.step or 0,
        recordings=sources.recordings,
        hours=sources.hours,
        packages=len(sources.packages),
        sha256=read_config(made).sha256,
        sources=sources.table,
        scores=score_table(scores, (original, packed)),
    )
    (made / "README.md").write_text(card, encoding="utf-8")
    (made / "licences").mkdir()
    for package in sources.packages:
        shutil.copyfile(sounds / "licences" / package, made / "licences" / package)
    shutil.rmtree(output, ignore_errors=True)
    made.rename(output)
    return told


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of the run, or an export")
    parser.add_argument("--sounds", type=Path, required=True, help="folder that collect.py wrote")
    parser.add_argument(
        "--scores", type=Path, nargs="*", help="files of results; default that beside the run"
    )
    parser.add_argument(
        "--clips", type=Path, default=ROOT / "examples/sounds/pool.csv", help="list to compare on"
    )
    parser.add_argument("--output", type=Path, default=STARTER, help="default m2dx/encoder/starter")
    given = parser.parse_args(arguments)
    scores = given.scores or [given.run.resolve().parent / RESULTS_FILE]
    try:
        clips = CsvDataset(path=given.clips).clips()
        compared = [clip.path for clip in clips[:: max(len(clips) // COMPARED_CLIPS, 1)][:COMPARED_CLIPS]]
        told = pack(given.run, sounds=given.sounds, scores=scores, compared=compared, output=given.output)
    except (M2dxError, PackError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{given.output}: {told}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
