"""A real Ray: joined by its address, refused without its token, and started as a refusal's next step says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import ray

PROGRAM = """
import json, os, sys
from dbf_ray.cli.options import run_command
from dbf_ray.cluster.ray_runtime import connected_ray

def command(_):
    with connected_ray() as resources:
        print(resources.place)

for environment in json.loads(sys.argv[1]):
    os.environ.update(environment)
    print(run_command(command, []))
"""


def started(*environments: dict[str, str], **environment: str) -> subprocess.Popen[str]:
    """A process that asks for Ray once in each of the environments."""
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, json.dumps(environments)],
        env={**os.environ, "RAY_ADDRESS": "", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.ray
@pytest.mark.usefixtures("two_cpus")
def test_processes_that_join_or_start_ray(tmp_path: Path) -> None:
    address, long = ray.get_runtime_context().gcs_address, str(tmp_path / ("long" * 30))
    joining = started({"RAY_ADDRESS": address}, RAY_AUTH_MODE="token")
    refused = started(
        {"RAY_ADDRESS": address},
        {"RAY_ADDRESS": "127.0.0.1:1"},
        {"RAY_ADDRESS": "", "RAY_TMPDIR": long},
        {"RAY_TMPDIR": "/tmp"},  # the next step
        RAY_AUTH_MODE="disabled",
    )
    assert joining.communicate(timeout=120)[0] == "the Ray cluster\n0\n"
    out, err = refused.communicate(timeout=120)
    assert out.splitlines() == ["2", "2", "2", "the Ray cluster", "0"]
    without_a_token, nobody_there, too_long = err.splitlines()[:3]
    assert f"error: cannot reach the Ray cluster at {address}: it wants a token; set RAY_" in without_a_token
    assert nobody_there.startswith("error: cannot reach the Ray cluster at 127.0.0.1:1: ")
    assert too_long.endswith("choose a shorter one: RAY_TMPDIR=/tmp")
    assert not Path(long).exists()
