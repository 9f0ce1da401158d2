"""What MLflow shall have of a run, on disk: ``mlflow.json`` in the run's folder.

The folder is the spool: whatever the store shall have is in it first, and who delivers it
(:mod:`.delivery`) sends what the store lacks. So a store that is away, slow or locked costs a training
nothing, and whoever comes later can deliver what is left.

Keys of ``mlflow.json``: ``uri`` (without user and password), ``experiment``, ``kind``, ``run_name``,
``tags``, ``params``, ``datasets``, ``metrics`` (of a run without epochs), ``parent`` (a study's folder),
``full_share``, ``files`` (outside of the folder), ``note``, ``status``, ``reason``, ``started`` and ``ended``
(milliseconds since 1970), ``key`` (by which the run is found again), ``run_id`` once it is known,
``attempted`` (a run may be there that this does not know of yet), and ``delivered``.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from dbf_ray.files import write_json
from dbf_ray.tracking.jsonl import EPOCHS, read_epochs

CARD = "mlflow.json"
LOCKS = ".mlflow"  # in the folder: "card" while mlflow.json is changed, "alive", "delivering"
RUNNING, FINISHED, FAILED, KILLED = "RUNNING", "FINISHED", "FAILED", "KILLED"
GONE = "its process ended without a word"
PICTURES = "pictures"
OF_A_RUN = ("config.yaml", EPOCHS, "summary.json", "failure.json", "predict.json")
OF_A_STUDY = ("pareto.json", "trials.csv", "pareto.png", "pareto.html", "config.yaml")

Card = dict[str, Any]


class Spool:
    """``mlflow.json`` of one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def read(self) -> Card | None:
        """Its content; None where there is none, or none that can be read."""
        try:
            card = json.loads((self.folder / CARD).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return card if isinstance(card, dict) and {"uri", "experiment", "key"} <= card.keys() else None

    def change(self, **values: Any) -> Card:
        """Set some of its keys; returns its content."""
        (self.folder / LOCKS).mkdir(parents=True, exist_ok=True)
        with self._lock("card", 10.0):
            card = (self.read() or {}) | values
            write_json(self.folder / CARD, card)
        return card

    def end(self, status: str, reason: str | None = None, **values: Any) -> Card:
        """Note how the run ended."""
        return self.change(status=status, reason=reason, ended=now(), **values)

    def is_alive(self) -> bool:
        """Whether the process of the run is there: the system frees its lock, however it ends."""
        try:
            with self._lock("alive", 0.0):
                return False
        except (Timeout, OSError):
            return (self.folder / LOCKS).is_dir()

    def alive(self) -> FileLock:
        """The lock of the run's process, taken; patient with a process that is being replaced."""
        (self.folder / LOCKS).mkdir(parents=True, exist_ok=True)
        lock = self._lock("alive", 10.0)
        with contextlib.suppress(Timeout):  # whoever holds it, the training is not its business
            lock.acquire()
        return lock

    @contextlib.contextmanager
    def delivering(self, patience: float) -> Iterator[None]:
        """Be the one that delivers.

        Raises:
            Timeout: another one is.
        """
        (self.folder / LOCKS).mkdir(parents=True, exist_ok=True)
        with self._lock("delivering", patience):
            yield

    def _lock(self, name: str, patience: float) -> FileLock:
        return FileLock(self.folder / LOCKS / name, timeout=patience)

    def files(self, card: Card) -> dict[str, Path]:
        """What is there to be stored beside the numbers, by its place among the run's artifacts; while a
        study runs, without its page.
        """
        if card["kind"] == "search":
            names = [n for n in OF_A_STUDY if n != "pareto.html" or card.get("status") != RUNNING]
        else:
            names = list(OF_A_RUN)
        found = {name: self.folder / name for name in names}
        pictures = self.folder / PICTURES
        found |= {file.relative_to(self.folder).as_posix(): file for file in sorted(pictures.rglob("*"))}
        found |= {Path(file).name: Path(file) for file in card.get("files") or ()}
        return {
            place: file for place, file in found.items() if file.is_file() and not file.name.startswith(".")
        }

    def waiting(self, card: Card) -> int:
        """How many things are still to be delivered: epochs, files, and how the run stands."""
        done = card.get("delivered") or {}
        stamps = done.get("files") or {}
        epochs = 0 if card["kind"] == "search" else len(read_epochs(self.folder)) - (done.get("epochs") or 0)
        files = sum(stamp_of(file) != stamps.get(place) for place, file in self.files(card).items())
        stands = [done.get(key) == card.get(key) for key in ("status", "ended")]
        return max(0, epochs) + files + (not all(stands))


def stamp_of(file: Path) -> str:
    """What changes whenever a file does; empty if it is gone."""
    try:
        stat = file.stat()
    except OSError:
        return ""
    return f"{stat.st_size}-{stat.st_mtime_ns}"


def now() -> int:
    """Milliseconds since 1970."""
    return int(time.time() * 1000)


def folders(root: Path) -> list[Path]:
    """The folders with an ``mlflow.json``: ``root`` itself, runs and studies in it, their trials, and their
    evaluations.
    """
    runs = ("", "*/", "trials/*/", "*/trials/*/")
    patterns = [f"{run}{inner}{CARD}" for run in runs for inner in ("", "evaluations/*/")]
    return list(dict.fromkeys(file.parent for pattern in patterns for file in sorted(root.glob(pattern))))


def sweep(folder: Path) -> None:
    """Note that a run was killed, if its process is gone and nobody has said how it ended."""
    spool = Spool(folder)
    if (spool.read() or {}).get("status") == RUNNING:
        with contextlib.suppress(Timeout, OSError), spool._lock("alive", 0.0):
            if (spool.read() or {}).get("status") == RUNNING:  # nobody has begun in between
                spool.end(KILLED, GONE)
