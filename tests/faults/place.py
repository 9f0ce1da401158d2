"""Where a fault happens: a folder with runs and an MLflow store, and commands that run there as processes of
their own.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psutil

from dbf_ray.tracking import read_epochs
from tests.tiny import as_options

ROOT = Path(__file__).parents[2]
PATIENCE = 300.0  # seconds: for whatever has to happen
MARK = "DBF_RAY_FAULT"  # in the environment of a command and of all that it starts
TRAINING: dict[str, Any] = {
    "data.name": "synthetic",
    "data.train_images": 16,
    "data.val_images": 2,
    "data.image_size": 64,
    "detector.backbone": "mobilenet_v2",
    "detector.fpn_channels": 8,
    "detector.head_convs": 0,
    "freezing.policy": "step",
    "freezing.rho": 2,
    "training.epochs": 8,
    "training.batch_size": 4,
    "training.warmup_steps": 2,
    "training.threads": 1,
    "evaluation.pictures_every": 0,
}
Found = TypeVar("Found")


def until(sign: Callable[[], Found], started: Started | None = None, seconds: float = PATIENCE) -> Found:
    """Wait for something true; the process that shall bring it must not end before."""
    limit = time.monotonic() + seconds
    while True:
        ended = started is not None and started.process.poll() is not None
        if found := sign():
            return found
        assert not ended, (
            f"it ended with {started and started.process.returncode}: {started and started.said()}"
        )
        assert time.monotonic() < limit, f"{seconds:.0f} s have passed: {started and started.said()}"
        time.sleep(0.005)


@dataclass(eq=False)
class Started:
    """A command's process, in a session of its own."""

    process: subprocess.Popen[bytes]
    log: Path
    mark: str

    def said(self) -> str:
        """What it has printed, stdout and stderr."""
        return self.log.read_text(errors="replace")

    def ends(self, status: int = 0) -> None:
        """Wait for its end, which has to be this one, with nothing left running."""
        try:
            found = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not end: {self.said()}") from None
        assert found == status, f"it ended with {found}: {self.said()}"
        self.leaves_nothing()

    def killed(self) -> None:
        """kill -9 of this process, and of no other."""
        self.process.kill()
        self.process.wait()

    def family(self) -> list[psutil.Process]:
        """All processes that it started, and that these started, wherever they belong now."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def named(self, *words: str) -> list[psutil.Process]:
        """Those of its processes whose command line has one of these words, oldest first."""
        found = []
        for process in self.family():
            with contextlib.suppress(psutil.Error):
                if any(word in " ".join(process.cmdline()) for word in words):
                    found.append(process)
        return sorted(found, key=lambda process: process.create_time())

    def leaves_nothing(self, seconds: float = 30.0) -> None:
        """Nothing of it runs, soon."""
        limit = time.monotonic() + seconds
        while left := self.family():
            names = [" ".join(process.cmdline())[:80] for process in left if process.is_running()]
            assert time.monotonic() < limit, f"left running: {names}"
            time.sleep(0.1)

    def cleared(self) -> None:
        """End whatever is left, by its number."""
        for process in self.family():
            with contextlib.suppress(psutil.Error):
                process.kill()
        self.process.wait()


@dataclass
class Place:
    """``folder`` has the runs; ``uri`` is an empty MLflow store."""

    folder: Path
    uri: str
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    begun: list[Started] = field(default_factory=list)

    def training(self, name: str, **changes: Any) -> dict[str, Any]:
        """Keys of a run; those of ``changes`` have ``__`` for ``.``."""
        keys = {"runs_dir": str(self.folder / "runs"), "name": name, "tracking.uri": self.uri}
        return TRAINING | keys | {key.replace("__", "."): value for key, value in changes.items()}

    def run_folder(self, name: str) -> Path:
        return self.folder / "runs" / name

    def train(self, keys: Mapping[str, Any], *more: str) -> Started:
        """Start ``python -m jobs.train``."""
        return self.start("jobs.train", *as_options(dict(keys)), *more)

    def start(self, module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> Started:
        """Start ``python -m module``."""
        number = len(self.begun)
        log, mark = self.folder / f"log-{number}.txt", f"{self.mark}-{number}"
        own = {
            "PYTHONPATH": str(ROOT),
            MARK: mark,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "RAY_worker_niceness": "0",
        }
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                cwd=self.folder,
                env=os.environ | own | dict(environment or {}),
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
        self.begun.append(Started(process, log, mark))
        return self.begun[-1]

    @contextlib.contextmanager
    def cleared(self) -> Iterator[Place]:
        """Whatever happens within, nothing runs afterwards."""
        try:
            yield self
        finally:
            for started in self.begun:
                started.cleared()


def epochs_of(folder: Path) -> int:
    """How many epochs a run's record has."""
    return len(read_epochs(folder))


def trained(folder: Path, epochs: int, started: Started) -> int:
    """Wait until a run's record has so many epochs; how many it has."""
    return until(lambda: (found := epochs_of(folder)) >= epochs and found, started)


def kill(process: psutil.Process) -> None:
    """kill -9, and see that it is gone."""
    process.send_signal(signal.SIGKILL)
    with contextlib.suppress(psutil.TimeoutExpired):
        process.wait(10)
