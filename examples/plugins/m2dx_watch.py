"""Sends metrics and scores to Weights & Biases, to MLflow, or to a file of JSON lines, as a plugin of m2dx.

train: {callbacks: {board: {name: watch, to: mlflow, project: lungs}}}
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import m2dx


class Watch(m2dx.Callback):
    """Logs the recipe, each line of metrics, and the scores of checkpoints; a failure costs no training.

    Options:
        to: wandb, mlflow (both as their own variables say, such as WANDB_MODE or MLFLOW_TRACKING_URI), or json
        project: project of wandb, or experiment of mlflow
        file: of json, in the run's folder
    """

    name = "watch"

    def __init__(
        self,
        *,
        to: Literal["wandb", "mlflow", "json"] = "json",
        project: str = "m2dx",
        file: str = "watched.jsonl",
    ) -> None:
        self.to, self.project, self.file = to, project, file
        self.package: Any = None
        if to != "json":
            try:
                self.package = importlib.import_module(to)
            except ImportError:
                raise m2dx.RecipeError(
                    f"the callback watch needs the package {to} for `to: {to}`, but it is not installed; "
                    f"pip install {to}, or set to=json"
                ) from None

    def start(self, recipe: Mapping[str, Any], folder: Path, step: int) -> None:
        self.path = folder / self.file
        if self.to == "wandb":
            run = folder.resolve().as_posix().replace("/", "-").strip("-")
            options = {"project": self.project, "name": folder.name, "id": run, "resume": "allow"}
            self.run = self.package.init(**options, config=dict(recipe), dir=str(folder))
            self.run.define_metric("*", step_metric="step")  # scores come when the training is steps ahead
        elif self.to == "mlflow":
            self.package.set_experiment(self.project)
            self.package.start_run(run_name=folder.name)
            self.package.log_dict(dict(recipe), "recipe.json")
        elif self.path.exists():  # without what follows the checkpoint of a resumed run
            lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if json.loads(line)["step"] <= step]
            self.path.write_text("".join(kept), encoding="utf-8")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        if self.to == "wandb":
            self.run.log({**values, "step": step})
        elif self.to == "mlflow":
            self.package.log_metrics(dict(values), step=step)
        else:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **values}) + "\n")

    def metrics(self, line: Mapping[str, float]) -> None:
        self.log(int(line["step"]), {name: value for name, value in line.items() if name != "step"})

    def scores(self, step: int, scores: Sequence[m2dx.Score]) -> None:
        self.log(step, {f"{s.task}/{s.protocol}": s.mean for s in scores if s.encoder in ("", "pretrained")})


@m2dx.hookimpl
def callbacks() -> list[type]:
    return [Watch]
