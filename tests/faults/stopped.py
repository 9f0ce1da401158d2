"""Trainings and searches that are told to stop: they end after the running step and say how to go on."""

from __future__ import annotations

import json
import signal
from pathlib import Path

from mlflow import MlflowClient

from tests.faults.place import Place, Started, epochs_of, trained, until
from tests.faults.processes import finished
from tests.faults.proofs import in_mlflow
from tests.faults.rows import Cost, fault
from tests.faults.searches import runs_of, search_to_its_end, searching
from tests.faults.workers import two_workers

STATUS = {signal.SIGTERM: 143, signal.SIGINT: 130}


def stopped(place: Place, started: Started, folder: Path, number: signal.Signals) -> None:
    """It ends with the signal's status; its last line says how to go on, failure.json and MLflow that it was
    stopped.
    """
    started.process.send_signal(number)
    started.ends(STATUS[number])
    assert "the same command" in started.said().strip().splitlines()[-1], started.said()
    assert json.loads((folder / "failure.json").read_text())["reason"]
    in_mlflow(place, folder, "KILLED")


def stop_one_worker(place: Place, name: str, number: signal.Signals) -> Cost:
    keys, folder = place.training(name), place.run_folder(name)
    started = place.train(keys)
    trained(folder, 2, started)
    stopped(place, started, folder, number)
    return finished(place, keys, epochs_of(folder))


@fault("sigterm", "a training with one worker: SIGTERM", "after 2 of 8 epochs")
def terminate(place: Place) -> Cost:
    return stop_one_worker(place, "sigterm", signal.SIGTERM)


@fault("sigint", "a training with one worker: SIGINT", "after 2 of 8 epochs")
def interrupt(place: Place) -> Cost:
    return stop_one_worker(place, "sigint", signal.SIGINT)


@fault("sigterm-2", "a training of two workers, with its own Ray: SIGTERM", "after 2 of 8 epochs")
def terminate_two_workers(place: Place) -> Cost:
    keys, folder, started = two_workers(place, "sigterm-2")
    stopped(place, started, folder, signal.SIGTERM)
    return finished(place, keys, epochs_of(folder))


@fault("sigterm-search", "a search, with its own Ray: SIGTERM", "in its second or third trial")
def terminate_a_search(place: Place) -> Cost:
    study, started = place.folder / "studies" / "stopped", searching(place, "stopped")
    until(lambda: any((study / "trials").glob("[12]/checkpoints/epoch-*")), started)
    started.process.send_signal(signal.SIGTERM)
    started.ends(STATUS[signal.SIGTERM])
    assert "the same command" in started.said().strip().splitlines()[-1], started.said()
    found = {one.info.status for one in runs_of(MlflowClient(place.uri), study.name)}
    assert found <= {"FINISHED", "KILLED"}, found
    return search_to_its_end(place, study)
