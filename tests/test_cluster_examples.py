"""The examples for Slurm and Kubernetes are whole, and their commands are ones that torchrun and m2dx take."""

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from torch.distributed.run import get_args_parser

from m2dx.cli import app

EXAMPLES = Path(__file__).parents[1] / "examples"
SLURM, KUBERNETES = EXAMPLES / "slurm" / "train.sbatch", EXAMPLES / "kubernetes" / "train.yaml"


def slurm_command() -> list[str]:
    """The torchrun of the script, with numbers where the shell would put them."""
    text = SLURM.read_text().replace("\\\n", " ")
    line = re.search(r"^srun .*? (torchrun .*) &$", text, re.MULTILINE)
    assert line is not None
    given = line[1].replace("$SLURM_NNODES", "2").replace("${SLURM_GPUS_PER_NODE##*:}", "4")
    return shlex.split(given.replace("${@:2}", "train.epochs=1").replace("$recipe", "recipe.yaml"))


def manifests() -> dict[str, Any]:
    return {part["kind"]: part for part in yaml.safe_load_all(KUBERNETES.read_text())}


def container() -> dict[str, Any]:
    (found,) = manifests()["Job"]["spec"]["template"]["spec"]["containers"]
    return dict(found)


@pytest.mark.parametrize("command", [slurm_command(), container()["command"]], ids=["slurm", "kubernetes"])
def test_commands_are_taken(command: list[str]) -> None:
    assert command[0] == "torchrun"
    options = get_args_parser().parse_args(command[1:])
    assert (options.nnodes, options.nproc_per_node, options.rdzv_backend) == ("2", "4", "c10d")
    assert options.rdzv_endpoint.endswith(":29500") and int(options.max_restarts) > 0
    assert options.module and options.training_script == "m2dx"
    name, *arguments = options.training_script_args
    given = typer.main.get_command(app).commands[name].make_context(name, list(arguments)).params  # type: ignore[attr-defined]
    assert given["resume_or_start"] and not given["resume"] and not given["overwrite"]
    assert str(given["recipe"]).endswith("recipe.yaml")
    assert all("=" in override for override in given["overrides"])


def test_processes_that_are_started_again_get_a_store_of_their_own() -> None:
    assert "export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1" in SLURM.read_text()
    environment = {variable["name"]: variable["value"] for variable in container()["env"]}
    assert environment["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] == "1"


def test_srun_gets_the_cores_of_the_job() -> None:
    before = SLURM.read_text().partition("\nsrun ")[0]
    assert "\nexport SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK " in before  # for Slurm 22.05 and later


def test_the_slurm_script_is_one_that_bash_takes() -> None:
    subprocess.run(["bash", "-n", str(SLURM)], check=True)
    options = re.findall(r"^#SBATCH (--[\w-]+)", SLURM.read_text(), re.MULTILINE)
    assert {"--requeue", "--signal", "--nodes", "--ntasks-per-node", "--gpus-per-node"} <= set(options)


def test_the_parts_of_the_job_find_each_other() -> None:
    service, job = manifests()["Service"], manifests()["Job"]
    pod, name = job["spec"]["template"], service["metadata"]["name"]
    assert job["spec"]["completionMode"] == "Indexed"
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == 2
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    assert pod["spec"]["subdomain"] == name
    assert f"--rdzv-endpoint={job['metadata']['name']}-0.{name}:29500" in container()["command"]
    assert container()["resources"]["limits"]["nvidia.com/gpu"] == 4
    volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
    assert {mount["name"] for mount in container()["volumeMounts"]} == volumes
