"""Recipes that a seed has mutated: extreme numbers, wrong types, YAML's oddities, aliases, tags, names, broken text."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

SOUNDS = Path(__file__).parents[2] / "examples" / "sounds"

BASE: dict[str, Any] = {
    "seed": 1,
    "name": "tiny",
    "output": "runs",
    "audio": {"sample_rate": 16000, "crop_seconds": 0.32, "n_fft": 400, "hop_length": 160, "n_mels": 80},
    "data": {
        "sets": {
            "notes": {
                "dataset": {"name": "csv", "path": str(SOUNDS / "instrument.csv")},
                "split": "train",
                "repeat": 1,
            },
            "drums": {"dataset": {"name": "folder", "path": "few", "extensions": ["ogg"]}},
        },
        "epoch_size": 20,
        "stats_clips": 4,
        "workers": 0,
        "short_clips": "pad",
        "max_bad_fraction": 0.05,
    },
    "noise": {"ratio": 0.2, "dataset": {"name": "csv", "path": str(SOUNDS / "noise.csv")}},
    "model": {
        "method": "m2d",
        "size": "tiny",
        "depth": 1,
        "patch_size": [16, 16],
        "mask_ratio": 0.6,
        "predictor": {"embed_dim": 24, "depth": 1, "num_heads": 2},
        "ema_decay": {"start": 0.99, "end": 0.999},
    },
    "tasks": {
        "labels": {
            "offline_encoder": {"name": "labels", "dataset": "notes"},
            "online_mapper": {"name": "pool_linear"},
            "loss": {"name": "cross_entropy"},
            "weight": 0.5,
        }
    },
    "train": {
        "epochs": 2,
        "warmup_epochs": 0.5,
        "batch_size": 4,
        "base_lr": 1e-3,
        "device": "cpu",
        "threads": 1,
        "precision": "fp32",
        "checkpoint_every": 5,
        "log_every": 1,
    },
    "evaluation": {
        "tasks": {"drums": {"dataset": {"name": "csv", "path": str(SOUNDS / "drums.csv")}}},
        "evaluators": {"knn": {"name": "knn", "k": 3}},
        "seeds": [0],
        "device": "cpu",
    },
}

VALUES = [
    *"0 -0 -1 1 2 3 7 1.5 -1.5 0.5 1e-308 1e308 1e999 -1e308 .inf -.inf .nan .NaN .INF 4294967296".split(),
    *"18446744073709551616 9223372036854775807 -9223372036854775809 0777 0o17 0x1F 0b1 1_000 +1 1:30 1.5.2".split(),
    *"1e3 1E3 1.e3 .5 5. yes No on off true True TRUE null Null ~ NULL = << 2024-01-01 2024-01-01T00:00:00Z".split(),
    "9" * 400, "-" + "9" * 5000, "0." + "0" * 400 + "1", "''", '""', "' '", "'1'", "'1e3'", "'.inf'", '"\\0"',
    '"\\x1b[31m"', '"a\\nb"', '"\\uD800"', '"\\U0010FFFF"', '"\\q"', "é", "名前", "'\u200b'", "'\u202egnp'",
    "a" * 300, "a/" * 3000, "'" + "x" * 70_000 + "'", "%00", "-", "?", "? a", "- a", "[]", "{}", "[1]",
    "[1, 2]", "[1, 2, 3]", "[a, b]", "[.inf]", "[null]", "[[[1]]]", "{a: 1}", "{name: nope}", "{name: [1]}",
    "{name: null}", "{1: 2}", "{null: 1}", "{[1]: 2}", "{? {a: 1} : 2}", "[" * 100 + "]" * 100, "[" * 1500,
    "{a: " * 60 + "1" + "}" * 60, "!!int ''", "!!int x", "!!float ''", "!!bool maybe", "!!timestamp abc",
    "!!binary x", "!!binary aGk=", "!!set {a, b}", "!!omap [a: 1]", "!!pairs [a: 1]", "!!null x", "!!str 1",
    "!!seq {}", "!!map []", "!custom 1", "!<tag:yaml.org,2002:int> 3",
    "!!python/object/apply:os.system ['true']", "!!python/name:os.system", "&a 1", "&a [*a]", "&a {b: *a}",
    "*nope", "&x &y 1", "{<<: 3}", "{<<: [1]}", "{<<: *nope}", "|\n  text", ">-\n  text", "|9\n  text",
    "'unclosed", '"unclosed', "[unclosed", "{unclosed", "/dev/null", "/dev/zero", "/proc/self/mem", "pipe",
    "few", "recipe.yaml", "~nobody/x", "~nosuchuser/x", "${HOME}/x", "${NOPE}/x", "$(id)", "`id`", "nope",
    "m2d", "cpu", "cuda", "cuda:7", "cuda:99999999999999999999", "mps", "auto", "train", "all", "tiny",
    "huge",
]  # fmt: skip
"""As they stand in YAML."""

KEYS = [
    "nope", "Seed", "'1'", "1", "null", "true", "1.5", "''", "' '", "[a]", "{a: 1}", "&k key", "*k", "<<",
    "!!str x", "? x", "é", "名前", "'\\x00'", '"\\0"', "a" * 300, "extends", "name", "data", "path",
    "__class__", "model_config", "self",
]  # fmt: skip
TEXTS = [
    "\0", "\t", "\ufeff", "\x1b[2J", "\x7f", "\u2028", "---\n", "...\n", "%YAML 1.1\n---\n",
    "%TAG ! tag:x,2002:\n", "\r", "#", ": ", "- ", "{", "]", "&a ", "*a ", "!!int ", "'", '"', "|", "\n\n  x",
    "@", "`", "%",
]  # fmt: skip


class Yaml(str):
    """Text that is put into the recipe as it is."""


def mutated(seed: int) -> bytes:
    """A recipe with one to three mutations; the same under a seed."""
    draw = random.Random(seed)
    recipe = json.loads(json.dumps(BASE))
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        kind = draw.random()
        holder, key = _place(recipe, draw)
        if kind < 0.7:
            holder[key] = Yaml(draw.choice(VALUES))
        elif kind < 0.8 and isinstance(holder, dict):
            holder[Yaml(draw.choice(KEYS))] = (
                holder[key] if draw.random() < 0.5 else Yaml(draw.choice(VALUES))
            )
        elif kind < 0.85 and isinstance(holder, dict):
            del holder[key]
        elif kind < 0.9 and isinstance(holder, dict):
            holder[Yaml(str(key) + " ")] = Yaml(draw.choice(VALUES))  # twice the same key
        elif kind < 0.95:
            recipe["extends"] = Yaml(
                draw.choice(
                    ["recipe.yaml", "nope.yaml", "[a.yaml, b.yaml]", "few", "pipe", "{}", "1", "/dev/zero"]
                )
            )
        else:
            holder[key] = Yaml("&big [" + ", ".join(["x"] * 1000) + "]")
    text = "\n".join(lines_of(recipe)) + "\n"
    if draw.random() < 0.15:
        place = draw.randrange(len(text))
        text = text[:place] + draw.choice(TEXTS) + text[place:]
    content = text.encode("utf-8", "surrogatepass")
    if draw.random() < 0.05:
        content = draw.choice(
            (
                content[: draw.randrange(len(content))],
                text.encode("utf-16"),
                b"\xff" + content,
                b"",
                content * 300,
            )
        )
    return content


def _place(recipe: dict[str, Any], draw: random.Random) -> tuple[Any, Any]:
    """A random mapping or list of the recipe, and a key of it."""
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], dict | list):
                walk(node[key])

    walk(recipe)
    return draw.choice(places)


def lines_of(node: dict[str, Any], indent: str = "") -> list[str]:
    """The lines of a mapping in YAML."""
    found = []
    for key, value in node.items():
        if isinstance(value, dict) and value:
            found += [f"{indent}{key}:", *lines_of(value, indent + "  ")]
        else:
            found.append(f"{indent}{key}: {_flow(value)}")
    return found


def _flow(value: Any) -> str:
    if isinstance(value, Yaml):
        return str(value)
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return "{}" if value == {} else json.dumps(value)
