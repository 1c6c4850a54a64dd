"""Memory of a training step, estimated and measured, by ViT size, precision and clips a pass.

Each measurement trains two steps on made-up clips in a process of its own, as `m2dx train --dry-run-memory` does.
See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from memory_tables import has_markers, markdown, write_between
from rich.console import Console
from step import Setting as Sizes
from step import machine_and_versions, recipe_of, words

from m2dx.contract.host import PluginHost
from m2dx.memory.made_up import listed_labels
from m2dx.memory.setting import Setting
from m2dx.training.distributed import pick_device


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--sizes", type=words, default=["tiny", "small", "base"], help="tiny,small,base,large"
    )
    parser.add_argument("--patches", type=words, default=["16x16"], help="mels x frames, with commas")
    parser.add_argument("--precisions", type=words, default=["fp32", "bf16"], help="fp32,bf16,fp16")
    parser.add_argument("--clips", type=words, default=["1", "4", "16"], help="clips a pass, with commas")
    parser.add_argument("--crop-seconds", type=float, default=6.08, help="length of a clip, s")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write everything measured to this file")
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="replace the table between this page's markers"
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="more recipe fields, as of `m2dx train`"
    )
    options = parser.parse_intermixed_args(arguments)
    if options.write and not has_markers(options.write, "memory"):
        parser.error(f"--write: {options.write} must be a page with the markers of the benchmark memory")
    return options


def measure(options: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """Everything estimated and measured, as plain data for JSON; sizes in bytes."""
    host, results = PluginHost.discover(), []
    options.workers, options.threads = 0, None
    options.batch = 4 * max(map(int, options.clips))  # each size has gradients of an earlier pass beside it
    with tempfile.TemporaryDirectory() as folder:
        for sizes in (Sizes(*parts) for parts in product(options.sizes, options.patches, options.precisions)):
            recipe = recipe_of(sizes, options, host, folder)
            device = pick_device(recipe.train.device)
            labels, _ = listed_labels(recipe, host)
            setting = Setting.of(recipe, labels, host, device=device, processes=1, on_this_machine=1)
            with setting.trials() as trials:
                for clips in map(int, options.clips):
                    found = setting.measure(clips, trials)
                    estimated = setting.estimated(clips) - setting.program + found.program
                    results.append(
                        {
                            **vars(sizes),
                            "clips": clips,
                            "estimated": estimated,
                            "measured": None if found.problem else found.used,
                            "problem": found.problem,
                            "program": found.program,
                            "fixed": setting.estimate.fixed,
                            "per_clip": setting.per_clip,
                        }
                    )
                    say(
                        f"{sizes}, {clips} clips: {estimated / 2**30:.2f} GB, measured {found.used / 2**30:.2f} GB"
                    )
    names = ("crop_seconds", "overrides")
    about = {name: getattr(options, name) for name in names}
    return {"benchmark": "memory", "options": about, **machine_and_versions(device), "results": results}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, writes."""
    options, errors = parse(arguments), Console(stderr=True)
    report = measure(options, lambda line: errors.print(line, highlight=False))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(markdown(report))
    if options.write:
        write_between(options.write, "memory", markdown(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
