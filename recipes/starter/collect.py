"""Collects the recordings that the starter is trained on: `python recipes/starter/collect.py OUT`.

sounds.csv.gz lists recordings within packages of Debian. Each package is downloaded (apt-get download, or --mirror),
its recordings are written to OUT/wav as 16 kHz mono WAV, and its licence is copied to OUT/licences. OUT/clips.csv is
the list for the recipe: long recordings in parts of equal length, and the labels in columns of their own. What is there
already is not made again, so that a second call goes on where the first was stopped.
"""

import argparse
import csv
import gzip
import hashlib
import io
import lzma
import math
import os
import shutil
import struct
import subprocess
import sys
import tarfile
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray
from rich.console import Console

from m2dx.contract.atomic import replace_text
from m2dx.contract.errors import AudioError
from m2dx.contract.progress import ProgressLine
from m2dx.data.reading import AudioFile

LIST = Path(__file__).with_name("sounds.csv.gz")
SAMPLE_RATE = 16_000  # Hz
LONGEST_SECONDS = 10.0
"""Of a line in clips.csv; an epoch takes one crop of each."""
ARCHIVES = (".rcc", ".pk3", ".wz")
DAMAGES = (zipfile.BadZipFile, NotImplementedError, zlib.error, struct.error, EOFError, ValueError)
INNER = "_unpacked"
"""Members of archives in a package are listed as `_unpacked/<name of the archive>/<path in it>`."""
LABELS = ("kind", "language", "group", "sound")
MOST_NAMED = 20


@dataclass(frozen=True)
class Recording:
    """A line of the list."""

    package: str
    member: str  # path within the package
    seconds: float
    labels: tuple[str, ...]  # as LABELS; empty where the package does not say

    @property
    def path(self) -> str:
        """Where it goes, relative to OUT."""
        name = self.member.removeprefix("usr/share/").replace("/", "~")
        return f"wav/{self.package}/{name}.wav"


class CollectError(Exception):
    """A package that cannot be had or opened."""


def read_list(path: Path) -> list[Recording]:
    """The recordings of a list."""
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        return [
            Recording(
                row["package"], row["member"], float(row["seconds"]), tuple(row[name] for name in LABELS)
            )
            for row in csv.DictReader(file)
        ]


# Packages


def apt_download(package: str, folder: Path) -> None:
    """Downloads a package's .deb into the folder."""
    if shutil.which("apt-get") is None:
        raise CollectError("there is no apt-get here; give --mirror https://deb.debian.org/debian")
    done = subprocess.run(
        ["apt-get", "download", package], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise CollectError(
            f"apt-get download fails: {reason}; run `apt-get update`, or give --mirror https://deb.debian.org/debian"
        )


@dataclass(frozen=True)
class Mirror:
    """A mirror of Debian: its packages by name, as path and SHA-256 from the index of the suite."""

    url: str
    packages: dict[str, tuple[str, str]]

    @classmethod
    def of(cls, url: str, suite: str) -> "Mirror":
        """Reads the index."""
        index = f"{url}/dists/{suite}/main/binary-all/Packages.xz"
        try:
            with urllib.request.urlopen(index, timeout=60) as response:
                text = lzma.decompress(response.read()).decode()
        except (OSError, lzma.LZMAError) as error:
            raise CollectError(f"{index} cannot be read: {error}") from error
        packages = {}
        for stanza in text.split("\n\n"):
            fields = dict(line.split(": ", 1) for line in stanza.splitlines() if ": " in line[1:])
            if "Package" in fields:
                packages[fields["Package"]] = (fields["Filename"], fields["SHA256"])
        return cls(url, packages)

    def download(self, package: str, folder: Path) -> None:
        """Downloads a package's .deb into the folder; what has another SHA-256 than the index says is refused."""
        if package not in self.packages:
            raise CollectError(f"the index of {self.url} has no such package; give another --suite")
        path, expected = self.packages[package]
        digest = hashlib.sha256()
        try:
            with (
                urllib.request.urlopen(f"{self.url}/{path}", timeout=60) as response,
                (folder / Path(path).name).open("wb") as file,
            ):
                while block := response.read(2**20):
                    digest.update(block)
                    file.write(block)
        except OSError as error:
            raise CollectError(f"{self.url}/{path} cannot be read: {error}") from error
        if digest.hexdigest() != expected:
            raise CollectError(
                f"{self.url}/{path} must have the SHA-256 {expected} of the index, but has {digest.hexdigest()}"
            )


def find_deb(package: str, debs: Path, mirror: Mirror | None) -> Path:
    """The package's .deb among `debs`, where it is downloaded to if it is not there."""
    if there := sorted(debs.glob(f"{package}_*.deb")):
        return there[-1]
    coming = debs / "coming"
    shutil.rmtree(coming, ignore_errors=True)
    coming.mkdir(parents=True)
    (apt_download if mirror is None else mirror.download)(package, coming)
    (downloaded,) = coming.glob("*.deb")
    deb = downloaded.rename(debs / downloaded.name)
    coming.rmdir()
    return deb


def package_files(deb: Path) -> tarfile.TarFile:
    """The files of a .deb, to be read in their order."""
    file = deb.open("rb")
    if file.read(8) != b"!<arch>\n":
        raise CollectError(f"{deb} is not a Debian package; delete it")
    while len(header := file.read(60)) == 60:  # name, four numbers, size, end
        name, size = header[:16].decode("ascii").strip().rstrip("/"), int(header[48:58])
        if name.startswith("data.tar"):
            return tarfile.open(fileobj=file, mode="r|*")
        file.seek(size + size % 2, os.SEEK_CUR)
    raise CollectError(f"{deb} has no data.tar: it was cut, or is something else; delete it")


def unpack(deb: Path, package: str, members: set[str], folder: Path) -> dict[str, str]:
    """Writes the members of a package, and its licence, to a folder, by their paths.

    Gives the reason for those in damaged archives; what the package lacks is not there afterwards.
    """
    archives = {member.split("/")[1] for member in members if member.startswith(f"{INNER}/")}
    wanted, damaged = {*members, licence_of(package)}, dict[str, str]()
    try:
        with package_files(deb) as files:
            for file in files:
                file.name = file.name.removeprefix("./")
                path = Path(file.name)
                is_archive = path.suffix in ARCHIVES and path.stem in archives
                within = not path.is_absolute() and ".." not in path.parts
                if file.isreg() and within and (is_archive or file.name in wanted):
                    write_member(files, file, folder / path)
                    if is_archive:
                        damaged |= unpack_archive(folder / path, members, folder)
    except (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError, ValueError) as error:
        raise CollectError(f"{deb} cannot be read: {error}; delete it, to download it again") from error
    return damaged


def write_member(files: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    """A regular file of an archive. (`TarFile.extract` has `filter` from Python 3.11.4 on, Debian 12 has 3.11.2.)"""
    path.parent.mkdir(parents=True, exist_ok=True)
    source = files.extractfile(member)
    assert source is not None
    with source, path.open("wb") as file:
        shutil.copyfileobj(source, file)


def licence_of(package: str) -> str:
    """Where a package says its licence."""
    return f"usr/share/doc/{package}/copyright"


def unpack_archive(archive: Path, members: set[str], folder: Path) -> dict[str, str]:
    """Writes those of the members that are in an archive; gives the reason for those that are damaged."""
    start = f"{INNER}/{archive.stem}/"
    damaged: dict[str, str] = {}
    try:
        for name, content in (rcc_files if archive.suffix == ".rcc" else zip_files)(archive):
            if start + name in members:
                target = folder / start / name
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    target.write_bytes(content())
                except DAMAGES as error:
                    damaged[start + name] = f"is damaged in {archive.name}: {error}"
    except DAMAGES as error:
        inside = {member for member in members if member.startswith(start)}
        return dict.fromkeys(inside, f"{archive.name} is damaged: {error}")
    return damaged


def zip_files(path: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Name and content of the files in a zip archive."""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            yield name, partial(archive.read, name)


def rcc_files(path: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Name and content of the files in a binary resource of Qt (`rcc --binary`).

    A tree of nodes refers to names and contents. A node has the offset of its name, flags (1: zlib, 2: folder,
    4: zstd), and for a folder the number of its children and the first of them, for a file two words about its language
    and the offset of its content; from version 2 on, also its time.
    """
    blob = path.read_bytes()
    if blob[:4] != b"qres":
        raise ValueError("it is no Qt resource")
    version, tree, data, names = struct.unpack_from(">4I", blob, 4)
    node_bytes = 14 if version == 1 else 22

    def content(offset: int, flags: int) -> bytes:
        (size,) = struct.unpack_from(">I", blob, data + offset)
        stored = blob[data + offset + 4 : data + offset + 4 + size]
        if flags & 4:
            raise ValueError("compressed with zstd, which is not read")
        return zlib.decompress(stored[4:]) if flags & 1 else stored

    todo = [(0, "")]
    while todo:
        node, parent = todo.pop()
        name_at, flags = struct.unpack_from(">IH", blob, tree + node * node_bytes)
        count, offset = struct.unpack_from(">2I", blob, tree + node * node_bytes + 6)
        own = ""
        if node:
            (length,) = struct.unpack_from(">H", blob, names + name_at)
            name = blob[names + name_at + 6 : names + name_at + 6 + 2 * length].decode("utf-16-be")
            own = f"{parent}/{name}".lstrip("/")
        if flags & 2:
            todo += [(offset + child, own) for child in range(count)]
        else:
            yield own, partial(content, offset, flags)


# Recordings


def read_recording(path: Path) -> NDArray[np.float32]:
    """(N,) mono samples at SAMPLE_RATE; AudioError where it cannot be read."""
    suffix = path.suffix.lower()
    if suffix == ".g722":  # 16 kHz, mono
        import av

        try:
            with av.open(str(path), format="g722") as container:
                frames = [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)]
        except av.error.FFmpegError as error:
            raise AudioError(str(error)) from error
        return np.concatenate(frames).astype(np.float32) / np.float32(2**15)
    if suffix == ".gsm":  # without a header: 8 kHz, mono
        try:
            samples, rate = soundfile.read(
                path, dtype="float32", format="RAW", subtype="GSM610", samplerate=8000, channels=1
            )
        except soundfile.LibsndfileError as error:
            raise AudioError(str(error)) from error
        return np.asarray(soxr.resample(samples, rate, SAMPLE_RATE), np.float32)
    with AudioFile(path) as file:
        return np.concatenate(list(file.pieces(0, file.info.frames, sample_rate=SAMPLE_RATE)))


def convert(source: Path, target: Path) -> str | None:
    """Writes a recording as WAV, all of it or nothing; gives the reason where it cannot be read."""
    if not source.exists():
        return "is not in the package, which must be of another version"
    try:
        samples = read_recording(source)
    except AudioError as error:
        return f"cannot be read: {error}"
    if not len(samples):
        return "has no samples"
    samples /= max(float(np.abs(samples).max()), 1.0)  # resampling may reach beyond full scale
    coming = target.with_suffix(".partial")
    soundfile.write(coming, samples, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    os.replace(coming, target)
    return None


def parts(recording: Recording) -> list[tuple[str, str]]:
    """Start and duration of a recording's lines in clips.csv, seconds; empty texts are all of it."""
    count = math.ceil(recording.seconds / LONGEST_SECONDS)
    if count <= 1:
        return [("", "")]
    length = recording.seconds / count
    return [(f"{number * length:.3f}", f"{length:.3f}") for number in range(count)]


def write_clips(recordings: Sequence[Recording], out: Path) -> int:
    """Writes clips.csv of the recordings that are there, and gives their number."""
    text, count = io.StringIO(), 0
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["path", "start", "duration", *LABELS, "package"])
    for recording in recordings:
        if (out / recording.path).exists():
            count += 1
            for start, duration in parts(recording):
                table.writerow([recording.path, start, duration, *recording.labels, recording.package])
    replace_text(out / "clips.csv", text.getvalue())
    return count


def collect(
    recordings: Sequence[Recording],
    out: Path,
    *,
    debs: Path,
    mirror: Mirror | None,
    threads: int,
    progress: ProgressLine,
) -> list[str]:
    """Writes the recordings and licences that are not there yet; gives a line for each that cannot be had."""
    problems: list[str] = []
    folder, done = out / "unpacking", 0
    for package in sorted({recording.package for recording in recordings}):
        own = [recording for recording in recordings if recording.package == package]
        lacking = [recording for recording in own if not (out / recording.path).exists()]
        licence = out / "licences" / package
        if lacking or not licence.exists():
            shutil.rmtree(folder, ignore_errors=True)
            progress.update(done, len(recordings), f"{package}: downloading")
            try:
                deb = find_deb(package, debs, mirror)
                progress.update(done, len(recordings), f"{package}: converting")
                damaged = unpack(deb, package, {recording.member for recording in lacking}, folder)
            except CollectError as error:
                problems.append(f"{package}: {error}")
                continue
            if (folder / licence_of(package)).exists():
                replace_text(licence, (folder / licence_of(package)).read_text("utf-8", "replace"))
            else:
                problems.append(f"{package}: {licence_of(package)} is not in the package")
            (out / "wav" / package).mkdir(parents=True, exist_ok=True)
            with ThreadPoolExecutor(threads) as pool:
                sources = [folder / recording.member for recording in lacking]
                results = pool.map(convert, sources, [out / recording.path for recording in lacking])
                for number, (recording, reason) in enumerate(zip(lacking, results, strict=True), 1):
                    progress.update(done + number, len(recordings), package)
                    if reason is not None:
                        problems.append(
                            f"{package}: {recording.member} {damaged.get(recording.member, reason)}"
                        )
        done += len(own)
    shutil.rmtree(folder, ignore_errors=True)
    progress.update(done, len(recordings), "done")
    return problems


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write")
    parser.add_argument("--packages", default="", help="only these, with commas between them")
    parser.add_argument(
        "--debs", type=Path, help="folder of .deb files, to take and download; default OUT/debs"
    )
    parser.add_argument("--mirror", help="download from this mirror, e.g. https://deb.debian.org/debian")
    parser.add_argument("--suite", default="bookworm", help="Debian's suite on the mirror; default bookworm")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="default one for each core")
    parser.add_argument("--list", type=Path, default=LIST, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    listed = read_list(given.list)
    there = {recording.package for recording in listed}
    names = set(filter(None, given.packages.split(","))) or there
    if unknown := names - there:
        parser.error(
            f"--packages must be among {', '.join(sorted(there))}, but has {', '.join(sorted(unknown))}"
        )
    recordings = [recording for recording in listed if recording.package in names]
    out = given.out.resolve()
    g722 = [r for r in recordings if r.member.endswith(".g722") and not (out / r.path).exists()]
    if g722 and find_spec("av") is None:
        packages = ", ".join(sorted({recording.package for recording in g722}))
        parser.error(
            f"{len(g722)} recordings are G.722, which needs av: pip install av; they are in {packages}"
        )
    console = Console(stderr=True)
    try:
        mirror = None if given.mirror is None else Mirror.of(given.mirror.rstrip("/"), given.suite)
    except CollectError as error:
        parser.error(str(error))
    debs = (given.debs or out / "debs").resolve()
    try:
        with ProgressLine(console, "recording") as progress:
            problems = collect(
                recordings, out, debs=debs, mirror=mirror, threads=given.threads, progress=progress
            )
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        return 130
    finally:
        count = write_clips(listed, out)
    for problem in problems[:MOST_NAMED]:
        print(problem, file=sys.stderr)
    if len(problems) > MOST_NAMED:
        print(f"{len(problems)} problems; the first {MOST_NAMED} are named above", file=sys.stderr)
    replace_text(out / "problems.txt", "".join(f"{problem}\n" for problem in problems))
    print(f"{count} of {len(listed)} recordings are in {out / 'clips.csv'}; problems: {len(problems)}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
