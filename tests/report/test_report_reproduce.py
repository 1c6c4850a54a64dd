"""How to reproduce a run: versions, commits, command, machine, and what the page makes of them."""

import base64
import json
import subprocess
import sys
from dataclasses import asdict

import pytest
from report_pages import RECIPE, SUMMARY, page_of

import m2dx
from m2dx.report.facts import read_recipe_text, recipe_facts
from m2dx.results.provenance import commit_of, commit_of_folder, cpu_name, describe_launch, describe_software


@pytest.fixture
def checkout(tmp_path):
    """A folder with one commit, and a function that runs git in it."""
    folder = tmp_path / "checkout"
    folder.mkdir()

    def git(*arguments):
        who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        done = subprocess.run(
            ["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    git("init", "-q")
    (folder / "package.py").write_text("a = 1\n")
    git("add", "package.py")
    git("commit", "-q", "-m", "first")
    return folder, git


def test_a_checkout_has_a_commit_and_may_have_changes(checkout):
    folder, git = checkout
    commit = git("rev-parse", "HEAD")[:12]
    assert commit_of_folder(folder) == commit
    (folder / "notes.txt").write_text("not under version control")
    assert commit_of_folder(folder) == commit
    (folder / "package.py").write_text("a = 2\n")
    assert commit_of_folder(folder) == f"{commit} with changes"


def test_an_environment_inside_a_checkout_has_no_commit(checkout, tmp_path):
    folder, _ = checkout
    (folder / ".venv").mkdir()
    assert commit_of_folder(folder / ".venv") is None
    assert commit_of_folder(tmp_path) is None
    assert commit_of_folder(tmp_path / "gone") is None


def test_an_installed_package_tells_its_commit(monkeypatch, checkout):
    folder, git = checkout
    origin = {}

    class Distribution:
        def read_text(self, name):
            assert name == "direct_url.json"
            return origin["text"]

    monkeypatch.setattr("importlib.metadata.distribution", lambda package: Distribution())
    commit = git("rev-parse", "HEAD")[:12]
    for content, expected in (
        ({"url": "https://example.org/x.git", "vcs_info": {"vcs": "git", "commit_id": "a" * 40}}, "a" * 12),
        ({"url": folder.as_uri(), "dir_info": {"editable": True}}, commit),
        ({"url": folder.as_uri(), "dir_info": {}}, None),
        ({"url": "https://example.org/x.whl", "archive_info": {}}, None),
        ([], None),
    ):
        origin["text"] = json.dumps(content)
        assert commit_of("x") == expected
    origin["text"] = None  # installed from an index
    assert commit_of("x") is None
    assert commit_of("x") is None


def test_versions_of_m2dx_its_plugins_and_libraries_are_recorded(host):
    facts = describe_software(host)
    plugins = {record.distribution for record in host.records if record.distribution}
    assert {"m2dx", "python", "torch", "numpy", *plugins} == facts.versions.keys()
    assert facts.versions["m2dx"] == m2dx.__version__
    assert json.loads(json.dumps(asdict(facts))) == asdict(facts)


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (["/usr/bin/m2dx", "train", "a b.yaml"], "m2dx train 'a b.yaml'"),
        (["/lib/m2dx/__main__.py", "train", "x.yaml"], "m2dx train x.yaml"),
        (["/usr/bin/pytest", "tests"], None),
        (["/home/me/m2dx/train_all.py", "x.yaml"], None),
    ],
)
def test_the_command_is_recorded_where_m2dx_is_the_program(monkeypatch, argv, command):
    monkeypatch.setattr(sys, "argv", argv)
    launch = describe_launch()
    assert launch.command == command
    assert "cores" in launch.machine and cpu_name() in launch.machine


def test_the_page_says_how_to_repeat_the_run(run):
    page = page_of(run)
    for text in (
        "git checkout 0123456789ab\n",
        "pip install torch==2.11.0\n",
        "torchrun --nproc-per-node 2 -m m2dx train recipe.yaml name=small-run-again",
        "m2dx train small.yaml train.epochs=4",
        "0123456789ab with changes",
        "m2dx-tasks",
        "8 cores",
    ):
        assert text in page.text, text
    (link,) = [a for a in page.all("a") if "download" in a]
    told = base64.b64decode(link["href"].partition(";base64,")[2]).decode()
    assert told == RECIPE.replace("/data/", "…/")


def test_a_released_version_is_installed_by_its_number(run):
    (run / "summary.json").write_text(
        json.dumps({**SUMMARY, "software": {**SUMMARY["software"], "commits": {}}, "processes": 1})
    )
    page = page_of(run)
    assert "pip install m2dx==0.1.0 torch==2.11.0\n" in page.text
    assert "git checkout" not in page.text
    assert "\nm2dx train recipe.yaml name=small-run-again" in page.text


def test_the_recipe_is_told_in_short():
    facts = dict(recipe_facts(read_recipe_text(RECIPE)))
    assert facts["Method"] == "M2D"
    assert facts["Patches"] == "16 x 16, 0.6 of them masked"
    assert (
        facts["Input"] == "16,000 Hz, 2.08 s" and facts["Log-mel"] == "mean -7.25, std 4.5; of the noise -6.5"
    )
    assert facts["Seeds"] == "7, of the evaluation 0, 1"
    assert facts["Learning rate"] == "0.001 at its peak (base 0.004)"
    assert facts["Noise"] == "mixed in at ratio 0.2"
    assert facts["Task labels"] == "labels, pool_linear, cross_entropy; weight 1"
    assert facts["Starts from"] == "random weights"


def test_images_are_told_in_pixels(run):
    image = "image: {size: [224, 224], mean: [0.5, 0.25, 0.125], std: [1, 1, 1]}\n"
    (run / "recipe.yaml").write_text(RECIPE + image)
    facts = dict(recipe_facts(read_recipe_text(RECIPE + image)))
    assert facts["Input"] == "224, 224 pixels, mean 0.5, 0.25, 0.125, std 1, 1, 1"
    assert facts["Input"] in page_of(run).text


@pytest.mark.parametrize("text", ["", "3", "[1, 2]", "a: [", "model: 3\ntrain: []\ntasks: 1"])
def test_a_recipe_of_another_form_is_told_as_far_as_it_goes(text):
    assert recipe_facts(read_recipe_text(text)) == []
