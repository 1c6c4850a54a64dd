"""A repository of the Hub as a folder on this machine, and a folder as a commit to one; nothing of it is executed."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock
from huggingface_hub import HfApi, constants, get_token, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

import m2dx

logger = logging.getLogger(__name__)

NEEDED = ("config.json", "model.safetensors")
FETCHED = (
    *NEEDED,
    "golden.safetensors",
    "mappers.safetensors",
    "README.md",
    "LICENSE",
    "LICENSE.*",
    "licences/*",
)
PUSHED = (*FETCHED, "model.onnx", "model.int8.onnx", "onnx.json", "runner.py")
PATIENCE_SECONDS = 8.0

_ADDRESS = re.compile(r"hf://(?P<repo>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>[\w./-]+))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def parse(text: str) -> tuple[str, str | None]:
    """`user/name` and the commit, branch or tag (None: the newest) of hf://user/name[@REVISION], or CheckpointError."""
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise m2dx.CheckpointError(f"{text}: an encoder on the Hub must be hf://user/name[@REVISION]")
    return match["repo"], match["revision"]


def fetch(text: str) -> Path:
    """The folder of an encoder on the Hub, which is fetched once: weights, config.json, card and licences alone.

    What is no commit is resolved to one, and a warning says to which. A commit that was fetched before needs no
    network. Raises CheckpointError where there is no such export, or no network.
    """
    repo, revision = parse(text)
    place, name = Path(constants.HF_ASSETS_CACHE, "m2dx"), repo.replace("/", "--")
    if revision is not None and _COMMIT.fullmatch(revision):
        folder = place / f"{name}@{revision[:12]}"
        if (folder / NEEDED[0]).is_file():
            return folder
    with _explained(text):
        found = HfApi().model_info(repo, revision=revision, timeout=PATIENCE_SECONDS)
        commit = str(found.sha)
        folder = place / f"{name}@{commit[:12]}"
        if commit != revision:
            logger.warning("%s is hf://%s@%s; give that to have the same again", text, repo, commit)
        place.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):  # the ranks of a training ask for it at once
            if not (folder / NEEDED[0]).is_file():
                _download(text, repo, commit, folder)
    return folder


def _download(text: str, repo: str, commit: str, folder: Path) -> None:
    """Into a folder aside, where a fetch that was cut goes on; the last step gives it its name."""
    partial = folder.with_name(f".{folder.name}")
    snapshot_download(
        repo,
        revision=commit,
        local_dir=partial,
        allow_patterns=list(FETCHED),
        etag_timeout=PATIENCE_SECONDS,
    )
    lacking = [name for name in NEEDED if not (partial / name).is_file()]
    shutil.rmtree(partial if lacking else partial / ".cache", ignore_errors=True)
    if lacking:
        raise m2dx.CheckpointError(
            f"{text}: not an export of m2dx: it has no {' and no '.join(lacking)}; `m2dx push` makes one"
        )
    os.replace(partial, folder)


def push(folder: Path, text: str, *, private: bool) -> str:
    """Commits an export to a repository, which is made where it is missing; the address with the commit.

    Files of an earlier export that this one has not are removed there. Raises CheckpointError.
    """
    repo, revision = parse(text)
    if revision is not None:
        raise m2dx.CheckpointError(f"{text}: a push makes a new commit; give hf://{repo}")
    if get_token() is None:
        raise m2dx.CheckpointError(
            f"{text}: a push needs a token that may write; log in (hf auth login) or set HF_TOKEN"
        )
    with _explained(text):
        api = HfApi()
        api.create_repo(repo, private=private, exist_ok=True)
        done = api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            allow_patterns=list(PUSHED),
            delete_patterns=list(PUSHED),
            commit_message="Push an encoder with m2dx",
        )
    return f"hf://{repo}@{done.oid}"


@contextlib.contextmanager
def _explained(text: str) -> Iterator[None]:
    """CheckpointError, in one line, of whatever the Hub or the way to it refuses."""
    try:
        yield
    except m2dx.M2dxError:
        raise
    except Exception as error:  # of the Hub, the network (of other packages by version) or the disk
        raise m2dx.CheckpointError(f"{text}: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    said = (str(error) or type(error).__name__).strip().splitlines()[0]
    if isinstance(error, GatedRepoError):
        return "its page asks who fetches it to accept its terms first; do so, and log in (hf auth login)"
    if isinstance(error, RepositoryNotFoundError):
        return "no such repository, or it is private: check the name, or log in (hf auth login)"
    if isinstance(error, RevisionNotFoundError):
        return "the repository has no such revision; see the commits on its page"
    if isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403):
        return "the token must be allowed to do this; make one that may, and log in (hf auth login)"
    if isinstance(error, HfHubHTTPError):
        return f"the Hub answers {error.response.status_code}: {error.server_message or said}"
    if isinstance(error, OSError) and error.filename is not None:
        return f"cannot be kept: {error.filename}: {error.strerror}"
    return (
        f"{constants.ENDPOINT} must be reached, but is not ({type(error).__name__}: {said:.200}); a commit "
        "(hf://user/name@COMMIT) that was fetched before needs no network"
    )
