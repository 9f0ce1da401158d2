"""``ray job submit`` of train, search and predict to a local cluster that wants a token: stopped by ``ray job
stop``, submitted again, and every epoch is there once.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.faults.cluster import RayCluster
from tests.faults.place import ROOT, Place, Started, epochs_of, trained, until
from tests.faults.proofs import in_mlflow, whole_and_same
from tests.faults.searches import runs_of, search_options, whole_search
from tests.faults.surroundings import drawn
from tests.tiny import as_options

RAY = "ray.scripts.scripts"


class Jobs:
    """A cluster of one node with two CPUs, and a copy of the project to be submitted to it."""

    def __init__(self, cluster: RayCluster) -> None:
        self.cluster, self.place = cluster, cluster.place
        self.tree, self.count = cluster.place.folder / "tree", 0
        for name in ("dbf_ray", "jobs", "search_spaces"):
            shutil.copytree(ROOT / name, self.tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        cluster.add(2, head=True)

    @property
    def environment(self) -> dict[str, str]:
        return self.cluster.environment | {"RAY_ADDRESS": f"http://127.0.0.1:{self.cluster.dashboard}"}

    def submit(self, module: str, *arguments: str) -> Started:
        """``ray job submit``, which waits for the job's end."""
        self.count += 1
        options = ["--submission-id", f"job-{self.count}", "--working-dir", str(self.tree)]
        options += ["--runtime-env", str(ROOT / "jobs" / "cluster" / "runtime_env.yaml")]
        command = ["python", "-m", module, *arguments]
        return self.place.start(RAY, "job", "submit", *options, "--", *command, environment=self.environment)

    def call(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", RAY, "job", *words, f"job-{self.count}"],
            env=os.environ | self.environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def stopped(self, started: Started) -> None:
        """``ray job stop``: nothing of it is left in the cluster."""
        assert "was stopped" in self.call("stop")
        started.process.wait(60)
        assert "was stopped" in self.call("status")
        self.cluster.has_nothing_running()

    def done(self, started: Started) -> None:
        """It succeeds; nothing of it is left in the cluster."""
        until(lambda: started.process.poll() is not None)
        assert "succeeded" in self.call("status"), started.said()
        self.cluster.has_nothing_running()


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[Jobs]:
    folder = tmp_path_factory.mktemp("submitted")
    shutil.copy(empty_database, folder / "mlflow.db")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with Place(folder, f"sqlite:///{folder}/mlflow.db").cleared() as place:
        more = {"PYTHONPATH": "", "PATH": path, "RAY_JOB_STOP_WAIT_TIME_S": "60"}
        cluster = RayCluster(place, more=more)
        try:
            yield Jobs(cluster)
        finally:
            cluster.end()


@pytest.mark.slow
@pytest.mark.ray
def test_a_training_is_stopped_and_submitted_again(jobs: Jobs) -> None:
    longer = {"training__epochs": 40, "data__train_images": 32}  # `ray job stop` takes seconds to start
    keys = jobs.place.training("submitted", cluster__workers=2, **longer)
    folder = jobs.place.run_folder("submitted")
    started = jobs.submit("jobs.train", *as_options(keys))
    trained(folder, 2, started)
    jobs.stopped(started)
    assert epochs_of(folder) < keys["training.epochs"]
    assert "SIGTERM" in json.loads((folder / "failure.json").read_text())["reason"]
    in_mlflow(jobs.place, folder, "KILLED")
    jobs.done(jobs.submit("jobs.train", *as_options(keys)))
    whole_and_same(jobs.place, keys)

    drawn(jobs.place.folder / "data")
    images, out = jobs.place.folder / "data" / "val" / "images", jobs.place.folder / "out"
    checkpoint = json.loads((folder / "summary.json").read_text())["checkpoint"]
    options = ["--checkpoint", checkpoint, "--images", str(images), "--out", str(out)]
    jobs.done(jobs.submit("jobs.predict", *options))
    assert json.loads((out / "predict.json").read_text())["checkpoint"] == checkpoint


@pytest.mark.slow
@pytest.mark.ray
def test_a_search_is_stopped_and_submitted_again(jobs: Jobs) -> None:
    study = jobs.place.folder / "studies" / "sent"
    options = search_options(jobs.place, "sent")
    started = jobs.submit("jobs.search", *options)
    until(lambda: any((study / "trials").glob("[12]/checkpoints/epoch-*")), started)
    jobs.stopped(started)
    found = {one.info.status for one in runs_of(MlflowClient(jobs.place.uri), "sent")}
    assert found <= {"FINISHED", "KILLED"}, found
    jobs.done(jobs.submit("jobs.search", *options))
    whole_search(jobs.place, study)


@pytest.mark.slow
@pytest.mark.ray
def test_without_the_token_nothing_is_taken(jobs: Jobs) -> None:
    command = [sys.executable, "-m", RAY, "job", "submit", "--", "true"]
    off = {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN_PATH": "/nowhere"}
    done = subprocess.run(
        command, env=os.environ | jobs.environment | off, capture_output=True, text=True, timeout=120
    )
    assert done.returncode != 0
    assert "Authentication" in done.stdout + done.stderr or "token" in done.stdout + done.stderr
