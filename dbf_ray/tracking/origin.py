"""Where a run comes from: the command, the person, and the version of the code."""

from __future__ import annotations

import functools
import getpass
import os
import subprocess
import sys
from pathlib import Path

SECONDS = 5.0  # that git may take


@functools.cache
def code_version() -> dict[str, str]:
    """``commit`` and ``clean`` ("true", "false") of the git checkout that this code is in, or else of the
    working directory's; empty where there is none, or no git.
    """
    for place in (Path(__file__).resolve().parent, Path.cwd()):
        commit = _git(place, "rev-parse", "HEAD")
        if commit:
            changed = _git(place, "status", "--porcelain", "--untracked-files=no")
            return {"commit": commit} | ({} if changed is None else {"clean": str(not changed).lower()})
    return {}


def origin_tags() -> dict[str, str]:
    """Tags, by the names that MLflow's pages show: user, command, commit; and whether that was clean."""
    tags = {"mlflow.source.name": Path(sys.argv[0]).name or "python", "mlflow.source.type": "LOCAL"}
    try:
        tags["mlflow.user"] = getpass.getuser()
    except (OSError, KeyError):  # a user without a name
        tags["mlflow.user"] = str(os.getuid())
    version = code_version()
    if "commit" in version:
        tags["mlflow.source.git.commit"] = version["commit"]
    if "clean" in version:
        tags["dbf_ray.git_clean"] = version["clean"]
    return tags


def _git(place: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(place), *arguments], capture_output=True, text=True, timeout=SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
