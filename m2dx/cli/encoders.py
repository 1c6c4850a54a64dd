"""Commands for a pre-trained encoder: evaluate, results, export, encode, classify."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from m2dx.cli.shared import (
    AudioFiles,
    EncoderPath,
    Overrides,
    RecipeFile,
    load_with_plugins,
    terminal,
)
from m2dx.cli.table_output import FormOption, OutputOption, check_table_options, print_table
from m2dx.cli.terminal import print_error

commands = typer.Typer()


BadFiles = list[tuple[Path, str]]


def _tell_bad(files: BadFiles) -> None:
    """Prints what could not be read, and ends with exit code 1 if there is any."""
    for path, reason in files:
        print_error(f"{path}: {reason}")
    if files:
        raise typer.Exit(1)


@commands.command()
def evaluate(encoder: EncoderPath, recipe: RecipeFile, overrides: Overrides = None) -> None:
    """Score an encoder and the baselines, as the recipe's evaluation section says."""
    host, loaded = load_with_plugins(recipe, overrides)
    from m2dx.encoder.audio import load_any_encoder
    from m2dx.results.scoring import Scoring, folder_of_encoder

    scoring = Scoring.of(loaded, host)
    network = load_any_encoder(encoder)
    folder = folder_of_encoder(loaded.output / loaded.name / "evaluation", encoder)
    scoring.run(network, terminal(), folder)
    terminal().print(f"scores: {folder / 'scores.json'}", soft_wrap=True)


commands.command("eval", help="The same as evaluate.")(evaluate)


@commands.command()
def results(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FILES", help="Files of results, or folders that have one; default runs/results.jsonl."
        ),
    ] = None,
    table: Annotated[str | None, typer.Option(help="Published table; list shows their names.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Include older records of a score.")] = False,
    form: FormOption = None,
    output: OutputOption = None,
) -> None:
    """Print all recorded scores, also beside a published table; marks say what is not comparable."""
    from m2dx.jobs.results import results_table, table_lines

    if table == "list":
        typer.echo("\n".join(table_lines()))
        return
    check_table_options(form, output)
    shown, warnings = results_table(files or [], key=table, every=every)
    for warning in warnings:
        typer.echo(f"warning: {warning}", err=True)
    print_table(shown, form, output)


@commands.command()
def export(
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="Checkpoint, or a run's folder.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write.")],
) -> None:
    """Write a checkpoint's encoder as model.safetensors and a self-describing config.json."""
    from m2dx.encoder.weights import export_encoder

    terminal().print(f"encoder: {export_encoder(checkpoint, folder)}")


@commands.command()
def encode(
    encoder: EncoderPath,
    files: AudioFiles,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for .npy files, or a .parquet file.")
    ] = Path("features"),
    frames: Annotated[
        bool, typer.Option("--frames", help="Features per time frame instead of per clip.")
    ] = False,
    long_clips: Annotated[
        Literal["split", "interpolate"],
        typer.Option(help="Long audio: split it, or interpolate positions."),
    ] = "split",
) -> None:
    """Write the features of audio files as .npy files or a Parquet table."""
    from m2dx.encoder.audio import load_encoder
    from m2dx.encoder.files import encode_files, write_npy, write_parquet

    bad: BadFiles = []
    network = load_encoder(encoder, long_clips=long_clips)
    encoded = encode_files(network, files, frames=frames, bad=bad)
    count = write_parquet(encoded, output) if output.suffix == ".parquet" else write_npy(encoded, output)
    terminal().print(f"{count} files encoded to {output}")
    _tell_bad(bad)


@commands.command()
def classify(
    network: Annotated[Path, typer.Argument(metavar="NETWORK", help="Folder of a fine-tuned network.")],
    files: AudioFiles,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="CSV file to write; default the terminal.")
    ] = None,
    whole: Annotated[
        bool, typer.Option("--whole", help="All of each file, a row per segment, not only its start.")
    ] = False,
) -> None:
    """Write the probability of each label in audio files as a CSV table."""
    import sys

    from m2dx.encoder.files import classify_files
    from m2dx.encoder.finetuned import load_classifier

    bad: BadFiles = []
    classifier = load_classifier(network)
    if output is None:
        classify_files(classifier, files, sys.stdout, whole=whole, bad=bad)
    else:
        with output.open("w", encoding="utf-8", newline="") as file:
            count = classify_files(classifier, files, file, whole=whole, bad=bad)
        terminal().print(f"{count} files classified in {output}", soft_wrap=True)
    _tell_bad(bad)
