"""A search whose process is killed while trials run, with real trainings: the same call ends as one that was
never interrupted.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.search.test_real_search import RHO, narrow_run, search, tiny

ROOT = Path(__file__).parents[2]
EPOCHS = 4
SEARCH = """
import sys
import ray
from pathlib import Path
from tests.search.test_real_kill import searched
ray.init(address="local", num_cpus=2, include_dashboard=False, object_store_memory=128 * 1024**2)
searched(Path(sys.argv[1]))
"""


def searched(folder: Path) -> dict:
    """All of rho at four epochs."""
    tiny.add_narrow()
    config = tiny.tiny_config(training__epochs=EPOCHS)
    options = {"study_name": "s", "studies_dir": folder, "progress": print, "run": narrow_run}
    return search(config, RHO, trials=9, **options)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("narrow", "two_cpus")
def test_a_search_whose_process_was_killed_ends_as_one_that_was_not(tmp_path: Path) -> None:
    whole = searched(tmp_path / "whole")
    killed = subprocess.Popen(
        [sys.executable, "-c", SEARCH, str(tmp_path / "killed")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "RAY_CHDIR_TO_TRIAL_DIR": "0"},
        start_new_session=True,
    )
    trials, limit = tmp_path / "killed" / "s" / "trials", time.monotonic() + 300
    # the third trial is under way
    while not list(trials.glob("2/checkpoints/epoch-*")):
        assert killed.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.01)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    again = searched(tmp_path / "killed")
    assert [row["number"] for row in again["trials"]] == [0, 1, 2, 3, 4]
    by_setting = {(row["policy"], row["rho"]): row for row in again["trials"]}
    for row in whole["trials"]:
        same = by_setting[row["policy"], row["rho"]]
        assert {same["state"], row["state"]} == {"COMPLETE"}
        for name in ("map50", "map50_95", "compute_ratio", "epochs"):
            assert same[name] == row[name], name
    assert again["epochs_trained"] == whole["epochs_trained"] == 14
