"""Lines that lead a person from a finished study to MLflow's comparison of it."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from dbf_ray.tracking.urls import sqlite_file
from dbf_ray.uris import public

HERE = "http://127.0.0.1:5000"  # where `mlflow ui` answers
WHAT = {"trials": "trials, the most accurate first", "charts": "the same as charts", "answer": "the answer"}


def in_mlflow(study: str, uri: str) -> list[str]:
    """How to look at a study in the store at ``uri``: the command that starts MLflow's UI, if it is not a
    server's, and addresses; without them where the store does not answer, or is of another kind.
    """
    served = uri.startswith(("http://", "https://"))
    server = public(uri) if served else HERE
    command = f"{sys.executable} -m mlflow ui --backend-store-uri {_short(uri)}"
    lines = [f"compare in MLflow: {server if served else command}"]
    for name, address in _links(study, uri, server).items():
        lines += [f"  {WHAT[name]}: {address}"]
    return lines


def _links(study: str, uri: str, server: str) -> dict[str, str]:
    try:
        from dbf_ray.tracking.links import study_links
        from dbf_ray.tracking.store import Store, quiet

        with quiet():
            return study_links(Store(uri).client, server, study)
    except Exception:  # the study is whole without it, and what MLflow misses was said
        return {}


def _short(uri: str) -> str:
    """The URI as a word for a shell, without user and password; a file in this folder by its name alone."""
    file = sqlite_file(uri)
    here = file is not None and file.parent == Path.cwd()
    return shlex.quote(f"sqlite:///{file.name}" if here and file is not None else public(uri))
