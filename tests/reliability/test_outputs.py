"""Places that cannot be written to, in every command that writes: one line that names the place."""

import shutil
from pathlib import Path

import forks
import pytest
from damaged_files import write_good
from test_damaged_files import RECIPE
from test_damaged_files import encoder as encoder  # a fixture

PLACES = {
    "a file": "{folder}/taken",
    "below a file": "{folder}/taken/out",
    "a name of 300 letters": "{folder}/" + "n" * 300,
    "/proc": "/proc/m2dx",
    "below a device": "/dev/null/out",
    "a circle of links": "{folder}/circle/out",
}
COMMANDS = {
    "train": ["train", "{recipe}", "output={place}"],
    "train, its name": ["train", "{recipe}", "output={folder}", "name={name}"],
    "sweep": ["sweep", "{recipe}", "seed=0,1", "output={place}"],
    "encode": ["encode", "{encoder}", "{audio}/good0.wav", "-o", "{place}"],
    "encode, a table": ["encode", "{encoder}", "{audio}/good0.wav", "-o", "{place}/some.parquet"],
    "export": ["export", "{encoder}", "{place}"],
    "pack": ["pack", "{audio}", "{place}", "--workers", "0"],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "audio").mkdir()
    write_good(tmp_path / "audio")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "taken").write_text("mine")
    (tmp_path / "circle").symlink_to("circle")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES.keys())
def test_one_line_names_the_place(place: str, folder: Path, encoder: Path) -> None:
    place = place.format(folder=folder)
    faults = []
    for name, words in COMMANDS.items():
        if "name={name}" in words and Path(place).parent != folder:
            continue
        known = {"recipe": folder / "recipe.yaml", "audio": folder / "audio", "encoder": encoder}
        arguments = [
            word.format(place=place, folder=folder, name=Path(place).name, **known) for word in words
        ]
        ended = forks.run(arguments, folder / "log", cpu_seconds=20)
        error = ended.output.rpartition("error: ")[2]
        if ended.code not in (1, 2) or forks.TRACEBACK in ended.output or not 0 < error.count("\n") <= 2:
            faults.append(f"{name}: {ended.code}: {ended.output[-700:]}")
        assert (folder / "taken").read_text() == "mine"
        shutil.rmtree(folder / "out", ignore_errors=True)
    assert not faults, "\n\n".join(faults)
