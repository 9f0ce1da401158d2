"""A study's files out of MLflow, for whoever shows it where its folder is not."""

from __future__ import annotations

import contextlib
import difflib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run

from dbf_ray.errors import DataError
from dbf_ray.tracking.jsonl import EPOCHS
from dbf_ray.tracking.spool import public
from dbf_ray.tracking.store import Store, in_a_line, quiet
from dbf_ray.tracking.studies import RESULT
from dbf_ray.tracking.urls import sqlite_file

AT_ONCE = 8  # downloads
PAGE = 500  # runs in a call


def fetch_study(uri: str, name: str, into: Path) -> Path:
    """Download a study's pareto.json, and the epochs.jsonl of its trials, as far as the store has them.

    Args:
        uri: of the store, by :func:`.resolve_uri`.
        name: of the study: its experiment.
        into: an empty folder, which becomes the study's, as :func:`.read_study` reads it.

    Returns:
        ``into``.

    Raises:
        DataError: the store cannot be reached, has no such study, or not its pareto.json.
    """
    with _calls(uri) as client:
        experiment = client.get_experiment_by_name(name)
        where = "tags.`dbf_ray.kind` = 'search'"
        found = [] if experiment is None else _runs(client, [experiment.experiment_id], where)
        if not found:
            raise DataError(f"MLflow at {public(uri)} must have the study {name}, {_instead(client, name)}")
        parent = max(found, key=lambda run: run.info.start_time)
        if RESULT not in {file.path for file in client.list_artifacts(parent.info.run_id)}:
            raise DataError(
                f"the study {name} in MLflow at {public(uri)} must have a {RESULT}, and has none: it comes "
                f"when the first trial ends (its search is {parent.info.status})"
            )
        client.download_artifacts(parent.info.run_id, RESULT, str(into))
        below = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
        places = _places(json.loads((into / RESULT).read_text(encoding="utf-8")))
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for run in _runs(client, [parent.info.experiment_id], below):
                place = places.get((run.data.tags.get("dbf_ray.trial"), run.data.tags.get("dbf_ray.seed")))
                if place is not None:
                    pool.submit(_fetch_epochs, client, run.info.run_id, into / "trials" / place)
    return into


def study_names(uri: str) -> list[str]:
    """The studies that a store has.

    Raises:
        DataError: it cannot be reached.
    """
    with _calls(uri) as client:
        return _names(client)


@contextlib.contextmanager
def _calls(uri: str) -> Iterator[MlflowClient]:
    """A client, in silence: of what fails one line is said.

    Raises:
        DataError: there is no such store, or it does not answer.
    """
    file = sqlite_file(uri)
    if file is not None and not file.is_file():  # MLflow would make it
        raise DataError(f"MLflow's store {public(uri)} must be there, and there is no such file")
    try:
        with quiet():
            yield Store(uri).client
    except DataError:
        raise
    except Exception as error:  # of whatever library it uses
        raise DataError(
            f"MLflow at {public(uri)} cannot be reached ({in_a_line(error, uri)}); start it, give another "
            "one, or a study's folder"
        ) from None


def _runs(client: MlflowClient, experiments: list[str], where: str) -> list[Run]:
    found: list[Run] = []
    token = None
    while True:
        page = client.search_runs(experiments, where, max_results=PAGE, page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def _names(client: MlflowClient) -> list[str]:
    known = {one.experiment_id: one.name for one in client.search_experiments()}
    found = _runs(client, list(known), "tags.`dbf_ray.kind` = 'search'") if known else []
    return sorted({known[run.info.experiment_id] for run in found})


def _instead(client: MlflowClient, name: str) -> str:
    names = _names(client)
    if not names:
        return "and has no study at all"
    close = difflib.get_close_matches(name, names, 1)
    return f"and has {', '.join(names)}" + (f"; did you mean {close[0]}?" if close else "")


def _places(result: dict[str, Any]) -> dict[tuple[str, str], str]:
    """The folder of each run, by number and seed as tags have them."""
    return {
        (str(trial["number"]), str(run.get("seed"))): Path(run["run"]).name
        for trial in result["trials"]
        for run in (trial, *(trial.get("seeds") or ()))
        if run.get("run")
    }


def _fetch_epochs(client: MlflowClient, run_id: str, folder: Path) -> None:
    """A run that has no epochs yet is left out."""
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(Exception), quiet():
        client.download_artifacts(run_id, EPOCHS, str(folder))
