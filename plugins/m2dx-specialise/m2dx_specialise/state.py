"""What a search has found so far, in a file: each number is computed once, so that a resumed search decides alike."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import m2dx
from m2dx.contract.atomic import replace_json
from m2dx.contract.package import find_encoder
from m2dx.training.run_folder import LOCK

STATE_FILE, VERSION = "state.json", 7
STARTER = "starter"


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user asks for."""

    data: Path  # a folder or a list
    labels: Path | None = None  # a list with the labels of a folder's files
    label_from: str | None = None  # key of another way to tell the labels than the proposed one
    group_from: str | None = None
    starts: tuple[str, ...] = (STARTER,)  # encoders at hand
    general: Path | None = None  # recordings of everything, for replay
    noise: Path | None = None
    minutes: float = 60.0
    seed: int = 0

    @property
    def folder(self) -> Path:
        """The default folder of the search."""
        data = self.data.resolve()
        return Path("specialised") / ((data.name if data.is_dir() else data.stem) or "recordings")

    def plain(self) -> dict[str, Any]:
        """As JSON has it, with absolute paths."""
        found: dict[str, Any] = json.loads(json.dumps(asdict(self), default=lambda path: str(path.resolve())))
        return found

    def check(self) -> None:
        """RecipeError where paths are not there, or nothing can be done in the time; reads no audio."""
        paths = {"DATA": self.data, "--labels": self.labels, "--general": self.general, "--noise": self.noise}
        problems = [
            f"{what} must be a folder or a list, but there is no {path}"
            for what, path in paths.items()
            if path is not None and not path.exists()
        ]
        if self.labels is not None and self.data.is_file():
            problems.append(
                f"--labels must be of a folder's files, but {self.data} is a list; give one of them"
            )
        problems += [
            f"--start must be an encoder (a run, an export, a published file, or {STARTER}), but there is no {start}"
            for start in self.starts
            if not find_encoder(start).exists()
        ]
        if not self.starts or len(set(self.starts)) < len(self.starts):
            named = ", ".join(self.starts) or "none"
            problems.append(f"--start must name encoders, each once, but has {named}")
        if not 0 < self.minutes <= 100_000:
            problems.append(f"--minutes must be more than 0, but is {self.minutes:g}")
        if problems:
            raise m2dx.RecipeError("\n".join(problems))


class State:
    """The file of a search: what was asked for, and every number that a decision rests on."""

    def __init__(self, folder: Path, request: Request, content: dict[str, Any] | None = None) -> None:
        self.folder, self.request = folder, request
        self.content: dict[str, Any] = content or {"version": VERSION, "seconds": 0.0}
        self._before, self._started = float(self.content["seconds"]), time.monotonic()

    @classmethod
    def open(cls, folder: Path, request: Request, *, resume: bool) -> State:
        """The state of a new search, or with `resume` that of the folder's; RecipeError where it cannot be."""
        path, content = folder / STATE_FILE, dict[str, Any]()
        with m2dx.CheckpointError.blaming(f"{path} must be what a search has saved"):
            if path.exists():
                content = json.loads(path.read_text(encoding="utf-8"))
                then, version = dict[str, Any](content["request"]), content["version"]
        if not resume:
            begun = not content or "findings" in content  # else nothing is lost
            if folder.is_file() or (
                begun and folder.is_dir() and {path.name for path in folder.iterdir()} - {LOCK}
            ):
                what = "a search: go on with --resume, or" if content else "something else:"
                raise m2dx.RecipeError(f"{folder} must be a new folder, but holds {what} give another (-o)")
            return cls(folder, request)
        if not content:
            raise m2dx.RecipeError(f"{folder} has no search to resume ({STATE_FILE}); start without --resume")
        if version != VERSION:
            raise m2dx.RecipeError(f"{folder} has a search of another version of m2dx; start anew (-o)")
        request = replace(  # which the user may have been asked for
            request,
            label_from=request.label_from or then.get("label_from"),
            group_from=request.group_from or then.get("group_from"),
        )
        now = request.plain()
        if was := [f"{name} {then.get(name)}" for name in now if then.get(name) != now[name]]:
            raise m2dx.RecipeError(f"{folder} began with {', '.join(was)}; resume so, or start anew (-o)")
        return cls(folder, request, content)

    @property
    def seconds(self) -> float:
        """Time that the search has taken, with that before a stop."""
        return self._before + time.monotonic() - self._started

    def get(self, key: str) -> Any:
        """What was saved under the key; None: nothing."""
        return self.content.get(key)

    def once(self, key: str, compute: Callable[[], Any]) -> Any:
        """What is saved under the key; computed, and saved at once, where nothing is."""
        if key not in self.content:
            self.save(**{key: compute()})
        return self.content[key]

    def save(self, **values: Any) -> None:
        """Keeps values, as JSON gives them back: a search that is not stopped sees the same as one that is."""
        self.content |= json.loads(json.dumps(values))
        self.content |= {"request": self.request.plain(), "seconds": round(self.seconds, 1)}
        self.folder.mkdir(parents=True, exist_ok=True)
        replace_json(self.folder / STATE_FILE, self.content)

    def under(self, prefix: str) -> Mapping[str, Any]:
        """What was saved under keys that begin so, by the rest of the key, in the order of saving."""
        start = f"{prefix}:"
        return {key.removeprefix(start): of for key, of in self.content.items() if key.startswith(start)}
