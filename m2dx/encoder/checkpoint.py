"""Checkpoints that survive a crash: written aside, synced, renamed; checked when read."""

from __future__ import annotations

import argparse
import logging
import pickle
import re
import zipfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from m2dx.contract.atomic import Writer, replace_file
from m2dx.contract.errors import CheckpointError, M2dxError

logger = logging.getLogger(__name__)

_STATE, _ENCODER = ".pt", ".encoder.safetensors"
"""What follows `step-00001000` in the names of a checkpoint and of the weights beside it."""


def encoder_file(checkpoint: Path) -> Path:
    """Where the weights lie beside a checkpoint."""
    return checkpoint.with_suffix(_ENCODER)


def write_atomically(path: Path, state: Mapping[str, Any]) -> None:
    """Saves with torch.save so that `path` holds either the old or the whole new content, also after a power cut.

    CheckpointError where the disk refuses it (full, read-only); the old content stays.
    """
    _write(path, lambda file: torch.save(dict(state), file))


def _write(path: Path, write: Writer) -> None:
    try:
        replace_file(path, write)
    except OSError as error:
        raise CheckpointError(
            f"{path} could not be written: {error.strerror or error}; what was there before is whole. Mend the disk "
            "(its space, quota or rights), then go on with --resume"
        ) from error


def load_plain(path: Path) -> dict[str, Any]:
    """A dict that torch.save wrote, if it holds tensors and plain data only, on the CPU; else CheckpointError.

    Every record's CRC-32 is checked, which torch.load does not. torch's own advice, to load other objects without the
    check for plain data, would run whatever code is in the file.
    """
    whole = zipfile.is_zipfile(path)  # not so the files of PyTorch before 1.6
    try:
        if whole:
            with zipfile.ZipFile(path) as archive:
                if any(record.compress_type != zipfile.ZIP_STORED for record in archive.infolist()):
                    raise CheckpointError(f"{path}: damaged: records must be stored, but are compressed")
                damaged = archive.testzip()
            if damaged is not None:
                raise CheckpointError(f"{path}: damaged: the record {damaged} does not match its checksum")
        with torch.serialization.safe_globals([argparse.Namespace]):  # published files keep their arguments
            state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            kind = type(state).__name__
            raise CheckpointError(f"{path}: a checkpoint must hold a dict, but holds a {kind}")
        return state
    except CheckpointError:
        raise
    except Exception as error:  # any, when the bytes of another kind of file are unpickled
        from m2dx.data.files import is_audio  # only this error needs it

        if is_audio(path):
            raise CheckpointError(
                f"{path}: an audio file, where an encoder must be; commands take the encoder first, then the files"
            ) from None
        refused = isinstance(error, pickle.UnpicklingError) or "weights_only" in str(error)
        named = re.search(r"(?:GLOBAL|class|function) ([A-Za-z_][\w.]*\.\w+)", str(error))
        if refused and (whole or named is not None):
            such_as = f" (such as {named[1]})" if named is not None else ""
            raise CheckpointError(
                f"{path}: holds objects other than tensors and plain data{such_as}; not loaded for safety"
            ) from None
        what = "not a whole" if whole else "not a readable"
        raise CheckpointError(f"{path}: {what} checkpoint{'' if refused else f': {error}'}") from None


def read_checked(path: Path) -> dict[str, Any]:
    """What `write_atomically` wrote, every record's CRC-32 checked; CheckpointError where it is damaged."""
    if not zipfile.is_zipfile(path):
        raise CheckpointError(f"{path}: not a whole checkpoint")
    return load_plain(path)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read."""

    path: Path
    state: dict[str, Any]


@dataclass(frozen=True)
class CheckpointFolder:
    """The checkpoints of a run: `step-00001000.pt` holds the state after 1000 optimizer steps.

    Beside it, `step-00001000.encoder.safetensors` has what others than a resumed run need (`encoder_writer`).
    """

    path: Path

    def steps(self) -> list[int]:
        """Steps with a checkpoint, in order."""
        return self._steps(_STATE)

    def encoder_steps(self) -> list[int]:
        """Steps with the weights of an encoder, in order."""
        return self._steps(_ENCODER)

    def _steps(self, suffix: str) -> list[int]:
        name = re.compile(rf"step-(\d{{8,}}){re.escape(suffix)}")
        if not self.path.is_dir():
            return []
        return sorted(int(m.group(1)) for entry in self.path.iterdir() if (m := name.fullmatch(entry.name)))

    def file(self, step: int) -> Path:
        """The checkpoint of a step."""
        return self.path / f"step-{step:08d}{_STATE}"

    def encoder(self, step: int) -> Path:
        """The weights of the encoder of a step."""
        return encoder_file(self.file(step))

    def newest(self) -> Path | None:
        """The checkpoint of the last step; None: there is none."""
        steps = self.steps()
        return self.file(steps[-1]) if steps else None

    def save(
        self,
        step: int,
        state: Mapping[str, Any],
        *,
        encoder: Writer | None = None,
        keep_last: int,
        keep_every: int | None = None,
        keep_encoders: Collection[int] = (),
    ) -> Path:
        """Writes a checkpoint, then prunes: the last `keep_last` and each `keep_every`-th step stay.

        What `encoder` writes is there before the checkpoint, and goes after it, but for `keep_encoders`. Checkpoints of
        later steps, which could not be read when the run went on from an earlier one, are set aside as `*.damaged`, so
        that they neither count as the newest nor push out whole ones.
        """
        path = self.file(step)
        if encoder is not None:
            _write(self.encoder(step), encoder)
        write_atomically(path, state)
        for leftover in self.path.glob(".step-*.partial"):
            leftover.unlink()
        for later in (other for other in self.steps() if other > step):
            self.file(later).replace(self.file(later).with_suffix(".pt.damaged"))
        for old in self.steps()[:-keep_last]:
            if keep_every is None or old % keep_every:
                self.file(old).unlink()
        self.drop_encoders(keep=keep_encoders)
        return path

    def drop_encoders(self, *, keep: Collection[int]) -> None:
        """Removes the encoders beside which there is no checkpoint any more, but for those of the steps in `keep`."""
        for alone in set(self.encoder_steps()).difference(self.steps(), keep):
            self.encoder(alone).unlink()

    def load_newest_whole(self, check: Callable[[Checkpoint], object] | None = None) -> Checkpoint | None:
        """The newest checkpoint that can be read, and that `check` takes; each before it is named in a warning.

        None: there is no checkpoint. CheckpointError: there are some, and none can be used.
        """
        problems = []
        for step in reversed(self.steps()):
            try:
                found = Checkpoint(self.file(step), read_checked(self.file(step)))
                if check is not None:
                    check(found)
                return found
            except M2dxError as error:
                logger.warning("%s; trying the one before it", error)
                problems.append(str(error))
        if problems:
            raise CheckpointError("no checkpoint can be read:\n" + "\n".join(problems))
        return None
