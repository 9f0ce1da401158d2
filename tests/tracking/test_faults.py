"""Stores that are away, slow, locked, and processes that are killed: a training goes on, and in the end
MLflow has everything once.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from dbf_ray.tracking import MlflowTarget, deliver, make_trackers, read_epochs
from dbf_ray.tracking.delivery import Delivery
from dbf_ray.tracking.spool import FINISHED, Spool
from dbf_ray.tracking.store import Store
from tests.tracking.told import CONFIG, FACTS, SUMMARY, abandon, begun, end, run_id, steps, tell

AT_ONCE = 0.5  # seconds that no call of a tracker may take while a store does not answer
CALLS = (
    *("get_experiment_by_name", "create_experiment", "set_experiment_tag", "search_runs", "create_run"),
    *("get_run", "get_metric_history", "log_batch", "log_inputs", "log_artifact", "set_terminated"),
)


class Killed(BaseException):
    """The process ends here."""


def kill_at(monkeypatch: pytest.MonkeyPatch, number: int, after: bool) -> list[str]:
    """End the process at the ``number``-th call to a store, before or after it is done; the calls so far."""
    seen: list[str] = []

    def killing(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            seen.append(name)
            if len(seen) == number and not after:
                raise Killed
            found = real(*arguments, **options)
            if len(seen) == number:
                raise Killed
            return found

        return call

    for name in CALLS:
        monkeypatch.setattr(MlflowClient, name, killing(name, getattr(MlflowClient, name)))
    return seen


def spooled(folder: Path, uri: str) -> None:
    """A run of three epochs of which no store knows."""
    for tracker in make_trackers(folder, None):
        tracker.start(CONFIG, FACTS, 0)
        tell([tracker], range(3))
        tracker.finish(SUMMARY)
    card = {"uri": uri, "experiment": folder.name, "kind": "training", "run_name": "a", "tags": {"t": "1"}}
    card |= {"params": {"p": "1"}, "datasets": FACTS["datasets"], "key": folder.name, "started": 1}
    Spool(folder).change(**card, status=FINISHED, ended=2, note="n")


def test_a_delivery_killed_at_any_call_leaves_nothing_twice(uri, tmp_path):
    """All calls of a delivery, one after the other; then whoever comes delivers the rest."""
    client = MlflowClient(uri)
    spooled(tmp_path / "whole", uri)
    with pytest.MonkeyPatch.context() as patch:
        total = kill_at(patch, 0, after=False)
        Delivery(tmp_path / "whole", Store(uri))()
    assert set(total) >= {"create_run", "log_batch", "log_inputs", "log_artifact", "set_terminated"}
    for number, after in itertools.product(range(1, len(total) + 1), (False, True)):
        folder = tmp_path / f"e{number}{after}"
        spooled(folder, uri)
        with pytest.MonkeyPatch.context() as patch:
            seen, delivery = kill_at(patch, number, after), Delivery(folder, Store(uri))
            with pytest.raises(Killed):
                delivery()
        assert deliver(folder).pending == 0
        (run,) = client.search_runs([client.get_experiment_by_name(folder.name).experiment_id])
        assert (run.info.status, run.data.params) == ("FINISHED", {"p": "1"}), seen
        assert (run.data.tags["t"], run.data.tags["mlflow.note.content"]) == ("1", "n")
        for name in run.data.metrics:
            assert steps(client, run.info.run_id, name) == [0, 1, 2], (name, seen)
        files = {file.path for file in client.list_artifacts(run.info.run_id)}
        assert files == {"config.yaml", "epochs.jsonl", "summary.json"}, seen
        assert len(run.inputs.dataset_inputs) == 1


def test_a_locked_store_makes_nobody_wait(uri, tmp_path):
    trackers = begun(tmp_path / "a", uri, 1)
    trackers[1]._thread.wait()
    lock = sqlite3.connect(uri.removeprefix("sqlite:///"), isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    begin = time.perf_counter()
    tell(trackers, range(1, 4))
    other = begun(tmp_path / "b", uri, 2)
    assert time.perf_counter() - begin < 5 * AT_ONCE
    lock.execute("ROLLBACK")
    lock.close()
    end(trackers)
    end(other)
    client = MlflowClient(uri)
    for name, count in (("a", 4), ("b", 2)):
        assert steps(client, run_id(tmp_path / name)) == list(range(count))
        assert client.get_run(run_id(tmp_path / name)).info.status == "FINISHED"


def test_what_a_store_misses_waits_and_is_delivered_by_whoever_comes(uri, tmp_path, caplog, capfd):
    runs = tmp_path / "runs"
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        away = f"http://me:secret@127.0.0.1:{closed.getsockname()[1]}"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        begin = time.perf_counter()
        trackers = begun(runs / "a", away, 3)
        assert time.perf_counter() - begin < 5 * AT_ONCE
        end(trackers)
    assert len(read_epochs(runs / "a")) == 3
    *early, last = [line for one in caught if "MLflow at http://127" in (line := str(one.message))]
    assert re.search(r"misses \d+ things that wait in .*dbf compare --sync", last)
    assert len(early) < 2  # an epoch said it already where the call failed that fast
    assert not [one for one in caplog.records if one.name.startswith(("mlflow", "urllib3", "sqlalchemy"))]
    assert capfd.readouterr().err == ""
    found = deliver(runs)
    assert (found.runs, found.pending) == (0, 1)
    assert "secret" not in str(found.failure)
    found = deliver(runs, uri)
    assert (found.runs, found.pending, found.failure) == (1, 0, None)
    assert deliver(runs).runs == 0
    assert steps(MlflowClient(uri), run_id(runs / "a")) == [0, 1, 2]


def test_the_next_run_delivers_what_one_beside_it_has_left_and_sweeps_it(uri, tmp_path):
    first = begun(tmp_path / "a", uri, 1)
    first[1]._thread.wait()
    abandon(first)
    tell(first[:1], range(1, 3))  # on disk alone
    client = MlflowClient(uri)
    assert client.get_run(run_id(tmp_path / "a")).info.status == "RUNNING"
    end(begun(tmp_path / "b", uri, 1))
    for _ in range(100):
        run = client.get_run(run_id(tmp_path / "a"))
        if run.info.status != "RUNNING":
            break
        time.sleep(0.1)
    assert (run.info.status, run.data.tags["failure"]) == ("KILLED", "its process ended without a word")
    assert steps(client, run.info.run_id) == [0, 1, 2]
    # it was only interrupted
    again = make_trackers(tmp_path / "a", MlflowTarget(uri, "exp"))
    for tracker in again:
        tracker.start(CONFIG, FACTS, 2)
    tell(again, range(2, 4))
    end(again)
    run = client.get_run(run.info.run_id)
    assert (run.info.status, "failure" in run.data.tags) == ("FINISHED", False)
    assert steps(client, run.info.run_id) == [0, 1, 2, 3]


def test_a_run_that_goes_on_is_left_to_its_process(uri, tmp_path):
    trackers = begun(tmp_path / "a", uri, 1)
    trackers[1]._thread.wait()
    assert Spool(tmp_path / "a").is_alive()
    deliver(tmp_path)
    assert Spool(tmp_path / "a").read()["status"] == "RUNNING"
    end(trackers)
    assert not Spool(tmp_path / "a").is_alive()


def test_a_parent_that_could_not_be_made_is_made_by_its_child(uri, tmp_path):
    study = tmp_path / "s"
    card = {
        "uri": uri,
        "experiment": "s",
        "kind": "search",
        "run_name": "search · s",
        "tags": {},
        "params": {},
    }
    Spool(study).change(**card, datasets=[], key="k", started=1, status=FINISHED, ended=2)
    end(begun(study / "trials" / "0", uri, 1, experiment="s", parent=str(study)))
    client = MlflowClient(uri)
    child = client.get_run(run_id(study / "trials" / "0"))
    assert child.data.tags["mlflow.parentRunId"] == run_id(study)


def _whole_run(arguments: tuple[str, str]) -> float:
    uri, directory = arguments
    begin = time.perf_counter()
    trackers = begun(Path(directory), uri, 20)
    told = time.perf_counter() - begin
    end(trackers)
    return told


def four_at_once(uri: str, folder: Path) -> None:
    """Four processes write whole runs; nothing may be missing, and none waits."""
    with ProcessPoolExecutor(4, mp_context=get_context("spawn")) as pool:
        list(pool.map(_whole_run, [(uri, str(folder / str(number))) for number in range(4)]))
    assert deliver(folder).pending == 0
    client = MlflowClient(uri)
    for number in range(4):
        run = client.get_run(run_id(folder / str(number)))
        assert run.info.status == "FINISHED"
        for name in ("train/loss", "val/map50", "cost/epochs"):
            assert steps(client, run.info.run_id, name) == list(range(20))
    assert len(client.search_runs([run.info.experiment_id])) == 4


def test_four_processes_at_once_to_a_new_sqlite_file(tmp_path):
    four_at_once(f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "runs")


class Server:
    """A real ``mlflow server`` over a store of its own, which can be ended and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Wait until it answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--workers", "1"]
        command += ["--port", str(self.port), "--backend-store-uri", f"sqlite:///{self.folder}/server.db"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, stdout=log, stderr=log, start_new_session=True
            )
        for _ in range(900):
            assert self.process.poll() is None, (self.folder / "log").read_text()
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=1).read()
                return
            except OSError:
                time.sleep(0.1)

    def stop(self) -> None:
        """End it and all of its processes."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            self.process.wait(20)


@pytest.fixture(scope="module")
def server(empty_database, tmp_path_factory):
    """A server that runs."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(empty_database, folder / "server.db")
    found = Server(folder)
    found.start()
    yield found
    found.stop()


@pytest.mark.slow
def test_four_processes_at_once_to_a_server(server, tmp_path):
    four_at_once(server.uri, tmp_path / "runs")


@pytest.mark.slow
def test_a_server_that_is_restarted_during_training_gets_everything(server, tmp_path):
    trackers = begun(tmp_path / "a", server.uri, 1)
    trackers[1]._thread.wait()
    server.stop()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        begin = time.perf_counter()
        tell(trackers, range(1, 3))
        assert time.perf_counter() - begin < AT_ONCE
        trackers[1]._thread.wait()
        tell(trackers, range(3, 5))
    lines = [line for one in caught if "MLflow at http://127" in (line := str(one.message))]
    assert len(lines) == 1  # at epoch 2 already where the call failed that fast
    assert "cannot be used" in lines[0]
    server.start()
    tell(trackers, range(5, 6))
    end(trackers)
    client = MlflowClient(server.uri)
    assert steps(client, run_id(tmp_path / "a")) == list(range(6))
    run = client.get_run(run_id(tmp_path / "a"))
    assert run.info.status == "FINISHED"
    place = client.download_artifacts(run.info.run_id, "config.yaml", str(tmp_path))
    assert "seed: 0" in Path(place).read_text()
