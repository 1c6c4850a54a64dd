"""Lists that s3prl would fetch over the network: taken from the data's folder, and put where s3prl looks for them."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

from m2dx import AudioError
from m2dx_superb.jobs import Job

LEXICONS = ("librispeech-lexicon-200k-g2p.txt", "librispeech-lexicon-allothers-g2p.txt")
DIVISION = "iden_split.txt"
TRIALS = ("voxceleb1_test_v2.txt", "veri_test2.txt")
"""The trials of verification as s3prl and as VoxCeleb's own site call them."""

Fetch = Callable[[str, Path], None]


def find_list(job: Job, *names: str, url: str, fetch: Fetch) -> Path:
    """The list by one of its names in the data's folder or the cache; fetched into the cache with `job.download`.

    Raises AudioError that says where the list is from, where it is in none of them.
    """
    for folder in (Path(job.data), Path(job.cache)):
        for name in names:
            if (folder / name).is_file() and (folder / name).stat().st_size > 0:
                return folder / name
    path = Path(job.cache) / names[0]
    if not job.download:
        raise AudioError(
            f"the task {job.task} needs the list {' or '.join(names)} in {job.data}, but it is not there; fetch it "
            f"from {url}, or let m2dx do so with --download"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        fetch(url, path)
    except Exception as error:  # whatever the network raises
        path.unlink(missing_ok=True)
        raise AudioError(f"{url} could not be fetched to {path}: {type(error).__name__}: {error}") from error
    return path


def place(source: Path, target: Path) -> None:
    """Copies a list to where s3prl looks for it, over one that is there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.resolve() != target.resolve():
        shutil.copyfile(source, target)


def place_lexicons(job: Job, urls: list[str], folder: Path, fetch: Fetch) -> None:
    """Puts the lexicons of phoneme recognition into s3prl's download folder, under the names that it gives them."""
    for name, url in zip(LEXICONS, urls, strict=True):
        lexicon = find_list(job, name, f"lexicon/{name}", url=url, fetch=fetch)
        place(lexicon, folder / f"{hashlib.sha256(url.encode()).hexdigest()}.{Path(url).name}")
