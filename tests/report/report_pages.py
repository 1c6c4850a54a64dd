"""What the tests of the page share: a parser, a run's folder, and what is put on it."""

import json
import re
from functools import partial
from html.parser import HTMLParser

import numpy as np

from m2dx.contract.components import Clip, Prediction, Score
from m2dx.evaluation.bootstrap import with_metrics
from m2dx.report.page import write_report
from m2dx.report.pictures import ClipPictures, RunPictures, SeenClip, example_pictures
from m2dx.report.style import Picture, Span, draw_logmel
from m2dx.results.scores import write_scores

VOID = {"meta", "br", "link", "img", "wbr"}
_REFERENCE = re.compile(r"url\(#([^)]+)\)")


class Page(HTMLParser):
    """Text, elements and attributes of a page; fails on tags that do not match."""

    def __init__(self, html):
        super().__init__()
        self.open, self.elements, self.text, self.bold, self.sections = [], [], "", [], []
        self.html = html
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "section":
            self.sections.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data
        if "strong" in self.open:
            self.bold.append(data)
        if "section" in self.open and "h2" not in self.open:
            self.sections[-1] += data.strip()

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]

    @property
    def addresses(self):
        """What elements point to: URLs of all kinds, and #ids."""
        keys = ("href", "src", "xlink:href", "srcset", "action", "poster", "data")
        return [value for _, attrs in self.elements for key, value in attrs.items() if key in keys]

    @property
    def referenced_ids(self):
        """Ids that links, labels and drawings point to."""
        found = [address[1:] for address in self.addresses if address.startswith("#")]
        for _, attrs in self.elements:
            for key, value in attrs.items():
                if key in ("aria-labelledby", "aria-describedby", "for", "headers"):
                    found += value.split()
                found += _REFERENCE.findall(value or "")
        return found


HERTZ = (50.0, 8000.0)
RNG = np.random.default_rng(0)
CLEAN, NOISE = RNG.normal(size=(8, 12)), RNG.normal(size=(8, 12))
IS_MASKED = np.array([[True, False, True], [True, True, False]])


def masked_example(name="a clip", *, noise=1.0):
    noisy = CLEAN + noise * NOISE
    return example_pictures(SeenClip(name, CLEAN, noisy, IS_MASKED, Span(0.12, HERTZ)))


def some_pictures(name="a clip", *, states=("Input", "Start", "Step 1,000")):
    """A row of a picture for each state, as those of checkpoints, of two clips."""
    values, span = np.random.default_rng(1).normal(size=(80, 208)), Span(2.08, HERTZ)
    row = [
        Picture(state, partial(draw_logmel, logmel=values, span=span), f"{state}: {name}.")
        for state in states
    ]
    clip = ClipPictures(name, row, span)
    return RunPictures([masked_example(name)], (), (clip, clip))


def wavs(sounds):
    """Three recordings of `examples/sounds`."""
    return sorted((sounds / "sounds" / "instrument").rglob("*.ogg"))[:3]


def predictions(sounds, *, names=("bass", "<drum>", "vocal"), of_each=4):
    """What the encoder (nine of ten right) and a baseline (all wrong) say of clips of each class."""
    made = []
    for encoder in ("pretrained", "mean_logmel"):
        for number in range(of_each * len(names)):
            truth, wrong = names[number % len(names)], names[(number + 1) % len(names)]
            right = encoder == "pretrained" and number % 10 != 3
            clip = Clip(sounds[number % len(sounds)], 0.0, 0.5, (truth,), group=str(number // 2))
            made.append((encoder, Prediction(clip, truth if right else wrong, 0.5 + number / 100)))
    return {
        encoder: tuple(item for of, item in made if of == encoder)
        for encoder in ("pretrained", "mean_logmel")
    }


def entry(encoder, mean, *, ci95=0.01, task="instrument", protocol="linear", predictions=()):
    found = Score(
        task, "accuracy", mean, ci95, (mean,), protocol, encoder=encoder, predictions=tuple(predictions)
    )
    return with_metrics(
        found, sorted({name for item in predictions for name in (*item.clip.labels, item.label)})
    )


RECIPE = """name: small-run
# a < b & c
seed: 7
audio: {n_mels: 80, crop_seconds: 2.08, sample_rate: 16000}
data:
  sets: {pool: {dataset: {name: csv, path: /data/pool.csv}, split: train, repeat: 2}}
  mean: -7.25
  std: 4.5
noise: {ratio: 0.2, mean: -6.5, dataset: {name: folder, path: /data/noise}, split: null}
model: {method: m2d, size: tiny, patch_size: [16, 16], mask_ratio: 0.6}
tasks:
  labels: {offline_encoder: {name: labels}, online_mapper: {name: pool_linear}, loss: {name: cross_entropy}}
train: {epochs: 4, warmup_epochs: 1, batch_size: 64, base_lr: 0.004}
evaluation: {seeds: [0, 1], tasks: {instrument: {}}}
"""

SUMMARY = {
    "steps": 60,
    "total_steps": 80,
    "seconds": 75.0,
    "clips": 3840,
    "bad_files": 1,
    "collapse_warnings": 2,
    "last_metrics": {"step": 60, "loss": 0.05},
    "stopped_by": "SIGTERM",
    "failed_evaluations": None,
    "missing": ["<drums> is not there"],
    "device": "cuda:0",
    "processes": 2,
    "launch": {
        "command": "m2dx train small.yaml train.epochs=4",
        "folder": "/home/me",
        "machine": "Linux x86_64, a processor, 8 cores",
        "gpus": None,
    },
    "software": {
        "versions": {"m2dx": "0.1.0", "python": "3.11.7", "torch": "2.11.0", "m2dx-tasks": "0.3.0"},
        "commits": {"m2dx": "0123456789ab with changes"},
    },
    "data": {
        "sets": {
            "pool": {
                "name": "pool", "dataset": "csv", "split": "train", "clips": 480, "files": 240, "hours": 1.25,
                "hours_from": None,
                "repeat": 2, "labelled": 100, "classes": 11, "missing": [], "fingerprint": "aaaabbbbcccc",
            }
        },
        "noise": {
            "name": "noise", "dataset": "folder", "split": None, "clips": 20, "files": 20, "hours": 123.4,
            "hours_from": 10, "labelled": 0, "classes": 0, "missing": [], "fingerprint": "ddddeeeeffff",
        },
    },
}  # fmt: skip


def write_run(folder):
    """A folder with all that a run leaves."""
    folder.mkdir()
    (folder / "recipe.yaml").write_text(RECIPE)
    lines = [
        {"step": s, "loss": 3 / s, "loss_m2d": 2 / s, "loss_labels": 1 / s, "lr": 1e-3, "time": 1.7e9 + s}
        for s in range(1, 61)
    ]
    lines[-1]["rankme"] = 41.5
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "summary.json").write_text(json.dumps(SUMMARY))
    (folder / "bad_files.tsv").write_text("path\treason\nsounds/<b>.wav\tempty & short\n")
    scores = [entry("pretrained", 0.8), entry("random_weights", 0.7), entry("mean_logmel", 0.75)]
    write_scores(scores, folder / "scores.json")
    steps = [
        {
            "step": step,
            "task": "instrument",
            "protocol": "knn",
            "metric": "accuracy",
            "mean": mean,
            "ci95": 0.02,
        }
        for step, mean in ((20, 0.4), (40, 0.625), (60, 0.6))
    ]
    (folder / "scores_by_step.jsonl").write_text("".join(json.dumps(line) + "\n" for line in steps))
    return folder


def page_of(folder, pictures=None, **options):
    path = write_report(folder, pictures, **options)
    assert path == folder / "report.html"
    return Page(path.read_text(encoding="utf-8"))
