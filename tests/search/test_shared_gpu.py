"""Trials of one worker that share a GPU are placed beside each other on it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def visits(share: str, folder: Path) -> tuple[int, list[dict[str, object]], int]:
    """How many were to run at once, what ran, and how many did run at once."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.search.shared_gpu", share, str(folder)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "0", "RAY_worker_niceness": "0"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    spans = [one["ran"] for one in found["visits"]]
    most = max(sum(begin <= at < end for begin, end in spans) for at, _ in spans)
    return found["at_once"], found["visits"], most


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize(("share", "wanted"), [("true", 1), ("0.5", 2)])
def test_two_trials_share_a_gpu(share: str, wanted: int, tmp_path: Path) -> None:
    at_once, found, most = visits(share, tmp_path / "study")
    assert at_once == wanted
    assert most == wanted
    assert sorted(one["number"] for one in found) == [0, 1, 2, 3]
    assert {(tuple(one["gpus"]), one["failure"]) for one in found} == {(("0",), None)}
