"""The files for clusters in jobs/cluster: checked as far as can be without one."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from dbf_ray.cli import search
from dbf_ray.config import Config, load_config

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "jobs" / "cluster"
Parts = tuple[dict[str, Any], dict[str, Any]]
IMAGE = re.compile(r"registry\.example\.com/dbf-ray:\d+\.\d+\.\d+")


def options(words: list[str]) -> tuple[Config, Any]:
    """What a command line of ``dbf search`` means; refuses options that there are not."""
    assert words[:2] == ["dbf", "search"]
    parsed, overrides = search.read_options("dbf search", "", "", words[2:])
    return load_config(parsed.config, overrides), parsed


@pytest.fixture(scope="module")
def kuberay() -> Parts:
    claim, job = yaml.safe_load_all((FOLDER / "kuberay.yaml").read_text())
    return claim, job


def pods(job: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


def test_the_fields_of_a_rayjob_are_those_of_its_schema(
    kuberay: Parts,
) -> None:
    """Names by the reference of ray.io/v1; a field that is misspelled is dropped without a word."""
    claim, job = kuberay
    assert (claim["apiVersion"], claim["kind"]) == ("v1", "PersistentVolumeClaim")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,45}[a-z0-9])?", job["metadata"]["name"])
    known = {"entrypoint", "submissionMode", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished"}
    assert job["spec"].keys() == known | {"backoffLimit", "rayClusterSpec"}
    assert job["spec"]["shutdownAfterJobFinishes"] is True
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster.keys() == {
        *("rayVersion", "authOptions", "enableInTreeAutoscaling", "autoscalerOptions"),
        *("headGroupSpec", "workerGroupSpecs"),
    }
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["rayVersion"] == version("ray")
    assert cluster["headGroupSpec"].keys() == {"rayStartParams", "template"}
    for group in cluster["workerGroupSpecs"]:
        assert group.keys() == {
            *("groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"),
        }
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())


def test_pods_are_not_root_share_a_storage_and_have_what_a_job_asks_for(
    kuberay: Parts,
) -> None:
    claim, job = kuberay
    config, _ = options(shlex.split(job["spec"]["entrypoint"]))
    for pod in pods(job):
        (container,) = pod["containers"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        }
        assert IMAGE.fullmatch(container["image"])
        assert container["resources"]["requests"] == container["resources"]["limits"]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        places = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
        assert places["/shared"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        assert places["/dev/shm"]["emptyDir"]["medium"] == "Memory"
        waits = {item["name"]: item["value"] for item in container["env"]}
        assert int(waits["RAY_JOB_STOP_WAIT_TIME_S"]) < pod["terminationGracePeriodSeconds"]
    for pod in pods(job)[1:]:
        limits = pod["containers"][0]["resources"]["limits"]
        assert int(limits["nvidia.com/gpu"]) >= 1
        assert int(limits["cpu"]) >= config.cluster.cpus_per_worker
        assert pod["automountServiceAccountToken"] is False


def test_the_pod_that_fills_the_volume_has_it(kuberay: Parts) -> None:
    pod = json.loads((FOLDER / "filling.json").read_text())["spec"]
    (volume,) = pod["volumes"]
    assert volume["persistentVolumeClaim"]["claimName"] == kuberay[0]["metadata"]["name"]
    assert pod["securityContext"]["runAsUser"] == pods(kuberay[1])[0]["securityContext"]["runAsUser"]
    assert IMAGE.fullmatch(pod["containers"][0]["image"])
    assert kuberay[0]["metadata"]["labels"] == {"part": "storage"}
    page = (ROOT / "docs" / "cluster.md").read_text()
    assert "--selector part=storage" in page


def test_the_job_of_the_rayjob_is_one_that_this_version_takes(
    kuberay: Parts,
) -> None:
    config, parsed = options(shlex.split(kuberay[1]["spec"]["entrypoint"]))
    assert (parsed.space, parsed.study, parsed.trials) == ("rho", "my-rho", 12)
    assert config.cluster.gpu
    for place in (config.data.root, config.runs_dir, config.search.studies_dir):
        assert str(place).startswith("/shared/")


def test_the_cluster_of_the_launcher_is_one_by_rays_own_schema() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    import ray.autoscaler

    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    cluster = yaml.safe_load((FOLDER / "ray-cluster.yaml").read_text())
    jsonschema.validate(cluster, schema)
    assert IMAGE.fullmatch(cluster["docker"]["image"])
    assert cluster["head_node_type"] in cluster["available_node_types"]
    workers = [node for node in cluster["available_node_types"].values() if "max_workers" in node]
    assert sum(node["max_workers"] for node in workers) <= cluster["max_workers"]
    starts = [*cluster["head_start_ray_commands"], *cluster["worker_start_ray_commands"]]
    starts = [command for command in starts if "ray start" in command]
    assert len(starts) == 2
    assert all(command.startswith("RAY_AUTH_MODE=token ") for command in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert "/home/ray/.ray/auth_token" in cluster["file_mounts"]


def started(command: str) -> list[str]:
    """Options of ``ray start`` in a text."""
    return re.findall(r"(--[a-z-]+)(?==|\s)", command)


def test_the_options_of_ray_start_are_its_own() -> None:
    from ray.scripts.scripts import start

    known = {option for parameter in start.params for option in parameter.opts}
    cluster = yaml.safe_load((FOLDER / "ray-cluster.yaml").read_text())
    commands = " ".join([*cluster["head_start_ray_commands"], *cluster["worker_start_ray_commands"]])
    slurm = (FOLDER / "slurm.sh").read_text()
    used = {*started(commands + " "), *re.findall(r"^each=\((.*)\)$", slurm, re.MULTILINE)[0].split()}
    used = {option.split("=")[0] for option in used}
    assert used <= known, used - known
    assert {"--head", "--port", "--address", "--node-ip-address", "--include-dashboard"} <= known


def test_the_slurm_script_is_bash_and_hands_a_signal_on() -> None:
    file = FOLDER / "slurm.sh"
    done = subprocess.run(["bash", "-n", str(file)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    text = file.read_text()
    head, body = text.split("set -euo pipefail", 1)
    assert all(line.startswith("#") for line in head.splitlines() if line)
    asked = dict(
        line.removeprefix("#SBATCH --").split("=", 1)
        for line in head.splitlines()
        if "#SBATCH --" in line and "=" in line
    )
    assert asked["signal"] == "B:TERM@180"
    assert asked["ntasks-per-node"] == "1"
    assert "trap 'kill -TERM \"$search\"' TERM" in body
    assert "RAY_AUTH_MODE=token" in body
    example = " ".join(line.strip("# \\") for line in head.splitlines()[3:6])
    config, _ = options(["dbf", "search", *shlex.split(example)[2:]])
    assert config.cluster.gpu


def test_the_signal_reaches_the_search_and_its_status_comes_back(tmp_path: Path) -> None:
    """With stand-ins for Slurm, Ray and dbf: what the script itself does."""
    stands = {
        "srun": 'case "$*" in *"ray start"*) exec sleep 60 ;; esac',
        "ray": "exit 0",
        "dbf": 'trap "echo ended >> $DONE; exit 143" TERM\n'
        'echo "$RAY_AUTH_MODE ${#RAY_AUTH_TOKEN} $*" >> $DONE\nsleep 30 & wait',
        "hostname": "echo 10.0.0.1",
    }
    for name, body in stands.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "bin" / "activate").write_text("")
    done = tmp_path / "done"
    environment = {
        "PATH": f"{tmp_path}:/usr/bin:/bin:{Path(sys.executable).parent}",
        "DONE": str(done),
        "DBF_VENV": str(tmp_path / "venv"),
        **{"SLURM_JOB_ID": "77", "SLURM_JOB_NUM_NODES": "2", "SLURMD_NODENAME": "n1"},
        **{"SLURM_CPUS_PER_TASK": "8", "SLURM_GPUS_ON_NODE": "1", "SLURM_SUBMIT_DIR": str(tmp_path)},
    }
    script = subprocess.Popen(["bash", str(FOLDER / "slurm.sh"), "--study", "s"], env=environment)
    try:
        for _ in range(200):
            if done.exists() and done.read_text():
                break
            subprocess.run(["sleep", "0.1"], check=True)
        script.terminate()
        assert script.wait(timeout=20) == 143
    finally:
        if script.poll() is None:
            script.kill()
    began, ended = done.read_text().splitlines()
    assert began == "token 64 search --cluster.address 10.0.0.1:20077 --study s"
    assert ended == "ended"


INSTRUCTIONS = {"FROM", "RUN", "WORKDIR", "COPY", "ENV", "USER"}


def dockerfile() -> list[tuple[str, str]]:
    """Instructions and what follows them, continued lines joined, comments left out."""
    lines = [line for line in (FOLDER / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]  # type: ignore[misc]


def test_the_dockerfile_keeps_the_usual_rules() -> None:
    """What hadolint looks at, of what is in it."""
    instructions = dockerfile()
    assert {name for name, _ in instructions} == INSTRUCTIONS
    assert instructions[0][0] == "FROM"
    assert re.fullmatch(r"python:3\.\d+-slim-\w+", instructions[0][1]), "no version (DL3006, DL3007)"
    for name, text in instructions:
        if name == "RUN" and "apt-get install" in text:
            assert {"--yes", "--no-install-recommends"} <= set(text.split())  # DL3014, DL3015
            assert text.index("apt-get update") < text.index("apt-get install")
            assert text.rstrip().endswith("rm -rf /var/lib/apt/lists/*")  # DL3009
        if name == "RUN" and "pip install" in text:
            assert "--no-cache-dir" in text  # DL3042
            assert "--constraint constraints.txt" in text
        if name == "WORKDIR":
            assert text.startswith("/")  # DL3000
        if name == "ENV":
            assert not re.search(
                r"(?i)(token|password|secret)=(?!token)", text.replace("RAY_AUTH_MODE=token", "")
            )
        if name == "RUN":
            assert "sudo" not in text  # DL3004
    last = [text for name, text in instructions if name == "USER"][-1]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", last), "the last user is not root (DL3002)"


def test_what_the_image_needs_is_copied_and_let_through() -> None:
    copied = [word for name, text in dockerfile() if name == "COPY" for word in text.split()[:-1]]
    ignored = (FOLDER / "Dockerfile.dockerignore").read_text().splitlines()
    for source in copied:
        assert (ROOT / source).exists()
        assert f"!{source}" in ignored
    assert "*" in ignored
    assert {"dbf_ray", "jobs", "search_spaces", "setup.py", "constraints.txt"} <= set(copied)
    text = (FOLDER / "Dockerfile").read_text()
    assert "useradd --uid 1000" in text
