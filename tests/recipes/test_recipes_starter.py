"""Collecting, training and packing of the starter, on small packages that are made here."""

import csv
import gzip
import hashlib
import importlib.util
import io
import json
import lzma
import shutil
import struct
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from recipe_files import RECIPES
from result_records import ESC50, LUNGS
from rich.console import Console

from m2dx.contract.host import PluginHost
from m2dx.data.csv_list import CsvDataset
from m2dx.data.reading import audio_seconds, read_wav
from m2dx.encoder.audio import load_encoder
from m2dx.jobs.train import run_recipe
from m2dx.recipe.schema import Recipe
from m2dx.results import RESULTS_FILE, append_records, fingerprint

DOC = "usr/share/doc/{}/copyright"


def script(name: str) -> ModuleType:
    """A script of recipes/starter as a module."""
    path = RECIPES / "starter" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"starter_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look it up
    spec.loader.exec_module(module)
    return module


collect, pack = script("collect"), script("pack")


def sound(seconds: float, rate: int = 22_050, kind: str = "OGG") -> bytes:
    """A tone as the content of a file."""
    wav = 0.5 * np.sin(np.arange(round(seconds * rate)) * 0.1)
    content = io.BytesIO()
    raw = {"subtype": "GSM610"} if kind == "RAW" else {}
    soundfile.write(content, wav, rate, format=kind, **raw)
    return content.getvalue()


def deb(path: Path, files: dict[str, bytes], *, compression: str = "xz", uncut: float = 1.0) -> Path:
    """A package with these files, of which the share `uncut` is there."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=f"w:{compression}") as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    members = {
        "debian-binary": b"2.0\n",
        "control.tar.xz": b"odd",
        f"data.tar.{compression}": data.getvalue(),
    }
    whole = b"!<arch>\n"
    for name, content in members.items():
        whole += f"{name:16}{0:<12}{0:<6}{0:<6}{644:<8}{len(content):<10}`\n".encode() + content
        whole += b"\n" * (len(content) % 2)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(whole[: round(len(whole) * uncut)])
    return path


def zipped(files: dict[str, bytes], *, damage: bool = False) -> bytes:
    """A zip archive; `damage` flips a byte in the middle of the first file."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    blob = bytearray(content.getvalue())
    if damage:
        blob[200] ^= 0xFF
    return bytes(blob)


def rcc(files: dict[str, bytes], *, version: int = 2, flag: int = 1) -> bytes:
    """A Qt resource with a folder `sounds` that has these files; flag 1 compresses them."""
    names, data, nodes = b"", b"", []
    entries = [("", None), ("sounds", None), *files.items()]
    for number, (name, content) in enumerate(entries):
        at, time = len(names), b"" if version == 1 else bytes(8)
        names += struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
        if content is None:
            children = (1, 1) if number == 0 else (len(files), 2)
            nodes.append(struct.pack(">IHII", at, 2, *children) + time)
        else:
            stored = struct.pack(">I", len(content)) + zlib.compress(content) if flag & 1 else content
            nodes.append(struct.pack(">IHII", at, flag, 0, len(data)) + time)
            data += struct.pack(">I", len(stored)) + stored
    tree = b"".join(nodes)
    return (
        b"qres"
        + struct.pack(">4I", version, 20, 20 + len(tree), 20 + len(tree) + len(data))
        + tree
        + data
        + names
    )


PLAIN, GAME = "plain-sounds", "a-game"
MEMBERS = {
    PLAIN: [
        ("usr/share/plain/a.ogg", "speech", "v/1", "en", 1.0),
        ("usr/share/plain/b.wav", "speech", "v/2", "fr", 25.0),
        ("usr/share/plain/c.gsm", "speech", "v/2", "", 0.5),
    ],
    GAME: [
        ("_unpacked/pak0/sound/x.wav", "sfx", GAME, "", 0.4),
        ("_unpacked/core/sounds/y.ogg", "sfx", GAME, "", 0.7),
        ("usr/share/game/z.flac", "music", GAME, "", 11.0),
    ],
}
FILES = {
    PLAIN: {
        "usr/share/plain/a.ogg": sound(1.0),
        "usr/share/plain/b.wav": sound(25.0, 8000, "WAV"),
        "usr/share/plain/c.gsm": sound(0.5, 8000, "RAW"),
        "usr/share/plain/unlisted.ogg": sound(1.0),
        DOC.format(PLAIN): b"License: CC0-1.0\n",
    },
    GAME: {
        "usr/share/game/pak0.pk3": zipped(
            {"sound/x.wav": sound(0.4, 44_100, "WAV"), "sound/other.wav": b"odd"}
        ),
        "usr/share/game/core.rcc": rcc({"y.ogg": sound(0.7), "other.qml": b"odd"}),
        "usr/share/game/z.flac": sound(11.0, 16_000, "FLAC"),
        DOC.format(GAME): "License: GPL-2+\n© someone\nLicense: CC-BY-3.0\n".encode(),
    },
}


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """The list of the two packages."""
    path = tmp_path / "list.csv.gz"
    with gzip.open(path, "wt", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow("package member kind group language sound seconds".split())
        for package, members in MEMBERS.items():
            table.writerows(
                [package, member, kind, group, language, "", seconds]
                for member, kind, group, language, seconds in members
            )
    return path


@pytest.fixture
def call(tmp_path: Path, listed: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Collects into tmp_path / "out" from the packages in tmp_path / "debs"; exit status and what is said."""

    def collected(*arguments: str) -> tuple[int, str]:
        fixed = [str(tmp_path / "out"), "--list", str(listed), "--debs", str(tmp_path / "debs")]
        try:
            status = collect.main([*fixed, *arguments])
        except SystemExit as error:
            status = error.code
        said = capsys.readouterr()
        return status, said.out + said.err

    return collected


def rows(out: Path) -> list[dict[str, str]]:
    """The lines of clips.csv."""
    with (out / "clips.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write_debs(folder: Path, changed: dict[str, bytes | None] | None = None, **options: Any) -> None:
    """Both packages, with other content of some files, or without them."""
    for package, files in FILES.items():
        own = {name: (changed or {}).get(name, content) for name, content in files.items()}
        deb(
            folder / f"{package}_1.0_all.deb",
            {name: c for name, c in own.items() if c is not None},
            **options,
        )


def test_the_list_of_the_repository_is_whole() -> None:
    recordings = collect.read_list(collect.LIST)
    assert (len(recordings), len({r.package for r in recordings})) == (16_708, 36)
    assert sum(r.seconds for r in recordings) / 3600 == pytest.approx(24.8, abs=0.05)
    assert len({r.path for r in recordings}) == len(recordings)
    assert collect.LIST.stat().st_size < 200_000


@pytest.mark.parametrize("compression", ["xz", "gz"])
def test_packages_become_recordings_a_list_and_licences(
    compression: str, call: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    write_debs(tmp_path / "debs", compression=compression)
    status, said = call()
    assert status == 0 and "6 of 6 recordings" in said and "problems: 0" in said
    out = tmp_path / "out"
    found = rows(out)
    names = "a.ogg b.wav b.wav b.wav c.gsm x.wav y.ogg z.flac z.flac".split()
    assert [row["path"].rsplit("~")[-1] for row in found] == [f"{name}.wav" for name in names]
    assert [(row["start"], row["duration"]) for row in found[1:4]] == [
        ("0.000", "8.333"),
        ("8.333", "8.333"),
        ("16.667", "8.333"),
    ]
    seconds = {member: length for members in MEMBERS.values() for member, *_, length in members}
    for recording in collect.read_list(tmp_path / "list.csv.gz"):
        path = out / recording.path
        assert audio_seconds(path) == pytest.approx(seconds[recording.member], abs=0.05)
        info, wav = soundfile.info(path), read_wav(path)
        assert (info.samplerate, info.channels, info.subtype) == (16_000, 1, "PCM_16")
        assert np.sqrt(np.mean(wav**2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.1)
    assert (out / "licences" / GAME).read_text(encoding="utf-8") == FILES[GAME][DOC.format(GAME)].decode()
    assert sorted(path.name for path in out.iterdir()) == ["clips.csv", "licences", "problems.txt", "wav"]
    for column, labels in (
        ("kind", ["music", "sfx", "speech"]),
        ("language", ["en", "fr"]),
        ("group", [GAME, "v/1", "v/2"]),
    ):
        assert CsvDataset(path=out / "clips.csv", labels=column).label_names() == tuple(labels)


DAMAGED = zipped({"sound/x.wav": sound(0.4)}, damage=True)
DAMAGES: list[tuple[str, dict[str, bytes | None], dict[str, str]]] = [
    ("absent", {"usr/share/plain/a.ogg": None}, {"a.ogg": "is not in the package"}),
    ("no audio", {"usr/share/plain/a.ogg": b"odd"}, {"a.ogg": "cannot be read"}),
    ("empty", {"usr/share/plain/b.wav": b""}, {"b.wav": "cannot be read: empty"}),
    ("no licence", {DOC.format(PLAIN): None}, {"copyright": "is not in the package"}),
    ("archive absent", {"usr/share/game/pak0.pk3": None}, {"x.wav": "is not in the package"}),
    ("no archive", {"usr/share/game/pak0.pk3": b"odd"}, {"x.wav": "pak0.pk3 is damaged"}),
    ("damaged in archive", {"usr/share/game/pak0.pk3": DAMAGED}, {"x.wav": "is damaged in pak0.pk3"}),
    ("absent in archive", {"usr/share/game/pak0.pk3": zipped({"other": b"x"})}, {"x.wav": "is not in the package"}),
    ("no resource", {"usr/share/game/core.rcc": b"odd"}, {"y.ogg": "core.rcc is damaged"}),
    ("cut resource", {"usr/share/game/core.rcc": rcc({"y.ogg": b"x"})[:30]}, {"y.ogg": "core.rcc is damaged"}),
    ("zstd", {"usr/share/game/core.rcc": rcc({"y.ogg": sound(0.7)}, flag=4)}, {"y.ogg": "compressed with zstd"}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "expected"), [case[1:] for case in DAMAGES], ids=[case[0] for case in DAMAGES]
)
def test_what_cannot_be_read_is_named_and_the_rest_is_there(
    changed: dict[str, bytes | None],
    expected: dict[str, str],
    call: Callable[..., tuple[int, str]],
    tmp_path: Path,
) -> None:
    write_debs(tmp_path / "debs", changed)
    status, said = call()
    problems = (tmp_path / "out" / "problems.txt").read_text(encoding="utf-8").splitlines()
    assert status == 1 and len(problems) == len(expected) and f"problems: {len(expected)}" in said
    for problem, (name, reason) in zip(problems, expected.items(), strict=True):
        assert name in problem and reason in problem and problem in said
    lost = 0 if "copyright" in expected else len(expected)
    assert len({row["path"] for row in rows(tmp_path / "out")}) == 6 - lost


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("flag", [0, 1])
def test_resources_of_both_versions_are_read(version: int, flag: int, tmp_path: Path) -> None:
    (tmp_path / "x.rcc").write_bytes(rcc({"a": b"first", "b": b"second"}, version=version, flag=flag))
    found = {name: content() for name, content in collect.rcc_files(tmp_path / "x.rcc")}
    assert found == {"sounds/a": b"first", "sounds/b": b"second"}


@pytest.mark.parametrize("uncut", [0.0, 0.005, 0.5, 0.98])
def test_a_cut_package_is_named_and_the_other_collected(
    uncut: float, call: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    write_debs(tmp_path / "debs")
    deb(tmp_path / "debs" / f"{GAME}_1.0_all.deb", FILES[GAME], uncut=uncut)
    status, said = call()
    assert (
        status == 1 and f"{GAME}_1.0_all.deb" in said and "delete it" in said and "3 of 6 recordings" in said
    )
    write_debs(tmp_path / "debs")
    assert call()[0] == 0 and len({row["path"] for row in rows(tmp_path / "out")}) == 6


def test_it_goes_on_after_a_stop(
    call: Callable[..., tuple[int, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_debs(tmp_path / "debs")
    read, seen = collect.read_recording, list[str]()

    def interrupted(path: Path) -> Any:
        seen.append(path.name)
        if len(seen) > 1:
            raise KeyboardInterrupt
        return read(path)

    monkeypatch.setattr(collect, "read_recording", interrupted)
    status, said = call("--threads", "1")
    assert status == 130 and "the same command goes on" in said
    assert len({row["path"] for row in rows(tmp_path / "out")}) == 1
    monkeypatch.setattr(collect, "read_recording", lambda path: seen.append(path.name) or read(path))
    done = seen[0]
    seen.clear()
    assert call("--threads", "1")[0] == 0 and len(seen) == 5 and done not in seen
    shutil.rmtree(tmp_path / "debs")
    assert call()[0] == 0 and len(seen) == 5  # nothing is unpacked again


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--packages", "other"], "must be among a-game, plain-sounds, but has other"),
        (["--mirror", "file:///none"], "binary-all/Packages.xz cannot be read"),
    ],
)
def test_wrong_arguments_are_told(
    arguments: Sequence[str], expected: str, call: Callable[..., tuple[int, str]]
) -> None:
    status, said = call(*arguments)
    assert status == 2 and expected in " ".join(said.split())


def test_without_av_the_packages_that_need_it_are_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collect, "find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        collect.main([str(tmp_path / "out")])
    said = " ".join(capsys.readouterr().err.split())
    assert "2785 recordings are G.722, which needs av: pip install av" in said
    assert "asterisk-moh-opsound-g722" in said and not (tmp_path / "out").exists()


def test_without_apt_a_mirror_is_named(
    call: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collect.shutil, "which", lambda name: None)
    status, said = call("--packages", PLAIN)
    assert status == 1 and "there is no apt-get here; give --mirror https://deb.debian.org/debian" in said


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ("", ""),
        ("digest", "must have the SHA-256"),
        ("package", "cannot be read"),
        ("name", "has no such package"),
    ],
)
def test_packages_of_a_mirror_must_have_the_checksum_of_its_index(
    wrong: str, expected: str, call: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    mirror, stanzas = tmp_path / "mirror", []
    for package, files in FILES.items():
        path = deb(mirror / "pool" / f"{package}_1.0_all.deb", files)
        digest = (
            "0" * 64
            if wrong == "digest" and package == GAME
            else hashlib.sha256(path.read_bytes()).hexdigest()
        )
        name = "other" if wrong == "name" and package == GAME else package
        stanzas.append(
            f"Package: {name}\nDescription: odd\n more: of it\nFilename: pool/{path.name}\nSHA256: {digest}\n"
        )
    if wrong == "package":
        (mirror / "pool" / f"{GAME}_1.0_all.deb").unlink()
    index = mirror / "dists" / "bookworm" / "main" / "binary-all" / "Packages.xz"
    index.parent.mkdir(parents=True)
    index.write_bytes(lzma.compress("\n".join(stanzas).encode()))
    status, said = call("--mirror", mirror.as_uri())
    assert status == (1 if wrong else 0) and expected in said
    assert len({row["path"] for row in rows(tmp_path / "out")}) == (3 if wrong else 6)
    kept = sorted(path.name for path in (tmp_path / "debs").glob("*.deb"))
    assert kept == [f"{package}_1.0_all.deb" for package in ([PLAIN] if wrong else [GAME, PLAIN])]


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as collect.py writes it, with three labelled clips of noise."""
    out = tmp_path_factory.mktemp("sounds")
    table = [["path", "start", "duration", "kind", "language", "group", "sound", "package"]]
    for number, (kind, language, group) in enumerate(
        [("speech", "en", "v/1"), ("speech", "fr", "v/2"), ("sfx", "", GAME)] * 3
    ):
        wav = np.random.default_rng(number).normal(scale=0.1, size=24_000)
        soundfile.write(out / f"{number}.wav", wav, 16_000)
        table.append([f"{number}.wav", "", "", kind, language, group, "", GAME])
    with (out / "clips.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(table)
    (out / "licences").mkdir()
    (out / "licences" / GAME).write_text("License: GPL-2+\n", encoding="utf-8")
    return out


SMALL = (
    "data.workers=0",
    "train.batch_size=3",
    "train.warmup_epochs=0",
    "train.log_every=1",
    "evaluation.tasks={instrument: null, drums: null}",
    "model.depth=1",
)


@pytest.mark.usefixtures("no_page")
def test_the_recipe_trains_goes_on_and_is_packed(
    collected: Path,
    load: Callable[..., Recipe],
    plugin_host: PluginHost,
    console: Console,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("STARTER_SOUNDS", str(collected))
    first = load("starter/starter", *SMALL, "train.epochs=1")
    assert run_recipe(first, plugin_host, console, resume=False, overwrite=False).steps == 3
    recipe = load("starter/starter", *SMALL, "train.epochs=2")
    summary = run_recipe(recipe, plugin_host, console, resume=True, overwrite=False)
    assert summary.steps == 6 and summary.bad_files == 0
    assert all(f"loss_{task}" in summary.last_metrics for task in recipe.tasks)

    run, output = recipe.output / "starter", tmp_path / "packed"
    arguments = [
        str(run),
        "--sounds",
        str(collected),
        "--clips",
        str(collected / "clips.csv"),
        "--output",
        str(output),
    ]
    assert pack.main(arguments) == 0
    assert "over 9 clips the least cosine is 1.00000" in capsys.readouterr().out
    wav = torch.from_numpy(read_wav(collected / "0.wav"))
    with torch.inference_mode():
        ours, theirs = load_encoder(output).clip(wav), load_encoder(run).clip(wav)
    assert torch.allclose(ours, theirs, rtol=0.01, atol=0.01) and not torch.equal(ours, theirs)
    card = (output / "README.md").read_text(encoding="utf-8")
    assert (
        f"| {GAME} | 9 | 0.2 | sfx, speech | GPL-2+ |" in card
        and "Not scored yet." in card
        and "6 steps" in card
    )
    assert "model.depth=1" in card and "{" not in card.replace("{embed_dim: ", "")
    assert (output / "licences" / GAME).exists() and not list(tmp_path.glob("*.partial"))

    before = json.loads((output / "config.json").read_text(encoding="utf-8"))
    monkeypatch.setattr(pack, "LEAST_COSINE", 1.1)
    assert pack.main(arguments) == 1
    assert "is as it was" in capsys.readouterr().err
    assert json.loads((output / "config.json").read_text(encoding="utf-8")) == before


def test_the_card_shows_the_newest_scores_beside_the_others_of_their_recipe(tmp_path: Path) -> None:
    starter = load_encoder("starter")
    own = replace(LUNGS, sha256=fingerprint(starter))
    log_mel = replace(LUNGS, name="mean_logmel", sha256="cd" * 32)
    records = [
        replace(ESC50, encoder=own, mean=0.1),
        replace(ESC50, encoder=own, mean=0.5),
        replace(ESC50, encoder=log_mel, mean=0.25, ci95=None),
        replace(ESC50, encoder=own, task="drums", mean=0.7),
        replace(ESC50, encoder=log_mel, recipe="another"),
    ]
    append_records(tmp_path / RESULTS_FILE, records)
    assert pack.score_table([tmp_path / RESULTS_FILE, tmp_path / "none"], [starter]).splitlines() == [
        "| protocol | task | starter | mean_logmel |",
        "|---|---|---:|---:|",
        "| linear | esc50 | 50.0 ± 1.2 | 25.0 |",
        "| linear | drums | 70.0 ± 1.2 |  |",
        "| linear | mean of 2 | 60.0 |  |",
    ]
    assert pack.score_table([], [starter]) == "Not scored yet."
