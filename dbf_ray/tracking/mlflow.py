"""Trackers that let MLflow have what a run or a study leaves in its folder: they note on disk what it shall
have (:mod:`.spool`), and a thread delivers it (:mod:`.delivery`). Nothing waits for the store but, a bounded
time, the end.
"""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from dbf_ray.tracking.background import Background
from dbf_ray.tracking.base import MlflowTarget
from dbf_ray.tracking.commands import LATER, again
from dbf_ray.tracking.delivery import Delivered, Delivery, deliver_all, quietly
from dbf_ray.tracking.naming import parameters_of
from dbf_ray.tracking.origin import origin_tags
from dbf_ray.tracking.spool import FAILED, FINISHED, KILLED, RUNNING, Spool, now, public
from dbf_ray.tracking.store import Store, in_a_line
from dbf_ray.tracking.words import run_note


class _Tracked:
    """What a folder's run in MLflow needs while its process lives."""

    def __init__(self, directory: Path, target: MlflowTarget) -> None:
        self.directory, self.target = Path(directory), target
        self.spool = Spool(self.directory)
        self.run_name = target.run_name or self.directory.name
        self._store = Store(target.uri)
        self._thread = Background(
            self._deliver, lambda error: in_a_line(error, target.uri), self._deliver_beside
        )
        self._delivery = Delivery(self.directory, self._store, self._thread.moved)
        self._alive: FileLock | None = None
        self._warned = False

    @property
    def run_id(self) -> str | None:
        """Of MLflow's run, once it is known."""
        return (self.spool.read() or {}).get("run_id")

    def begin(
        self,
        params: Mapping[str, str],
        datasets: list[Mapping[str, Any]],
        tags: Mapping[str, str] | None = None,
        **values: Any,
    ) -> None:
        """The run begins, or goes on; what is known of it is noted and its delivery begins."""
        self._alive = self._alive or self.spool.alive()
        known = self.spool.read() or {}
        if known.get("uri") != public(self.target.uri):
            known = {}  # another store: what was delivered was not to this one
        # a worker's own command says nothing: who made the target may have known a person's
        origin = {} if "mlflow.source.name" in self.target.tags else origin_tags()
        card = {
            "uri": public(self.target.uri),
            "experiment": self.target.experiment,
            "kind": self.target.kind,
            "run_name": self.run_name,
            "tags": {**origin, **(tags or {}), **self.target.tags, "dbf_ray.kind": self.target.kind},
            "params": {**params, **(known.get("params") or {})},
            "datasets": datasets,
            "metrics": {},
            "parent": self.target.parent,
            "full_share": self.target.full_share,
            "files": [],
            "note": None,
            "started": known.get("started") or now(),
            "key": known.get("key") or uuid.uuid4().hex,
            "run_id": known.get("run_id"),
            "attempted": bool(known.get("attempted")),
            "delivered": known.get("delivered") or {},
        }
        self.spool.change(**card | values, status=RUNNING, reason=None, ended=None)
        self._thread.wake()

    def go_on(self) -> None:
        """There is something new in the folder."""
        self._thread.wake()
        if self._thread.failure and not self._warned:
            self._warned = True
            warnings.warn(
                f"MLflow at {public(self.target.uri)} cannot be used ({self._thread.failure}); what it "
                f"misses waits in {self.directory}",
                stacklevel=3,
            )

    def end(self, status: str, reason: str | None = None, **values: Any) -> None:
        """The run is over: note that, and wait a bounded time for the store."""
        self.spool.end(status, reason, **values)
        self._thread.wake()
        whole = self._thread.wait()
        self._thread.stop()
        if self._alive is not None:
            self._alive.release()
            self._alive = None
        card = self.spool.read()
        if not whole and card is not None and (count := self.spool.waiting(card)):
            why = self._thread.failure or "no answer in time"
            warnings.warn(
                f"MLflow at {public(self.target.uri)} misses {count} things that wait in {self.directory} "
                f"({why}); {LATER}",
                stacklevel=3,
            )
        elif self._store.refused:
            warnings.warn(
                f"MLflow at {public(self.target.uri)} refused {self._store.refused[0]}, which it will lack; "
                f"the record in {self.directory} stays complete",
                stacklevel=3,
            )

    def _deliver(self) -> None:
        self._delivery()

    def _deliver_beside(self) -> None:
        """What the runs beside it have left."""
        root = Path(self.target.parent) if self.target.parent else self.directory.parent
        uri = self.target.uri
        quietly(lambda: deliver_all(root, Store(uri), public(uri)))


class MlflowTracker(_Tracked):
    """One MLflow run for one training run; the same, without a step twice, when the training is resumed.

    The records that it delivers are those of :class:`.JsonlTracker`, which must be told first.
    """

    def start(self, config: dict[str, Any], facts: dict[str, Any], resume_epoch: int) -> None:
        """Note the run (the one this folder had, if any) with parameters, tags and data sets."""
        self._own = bool(facts.get("function"))  # no command trains it
        tags = {"dbf_ray.seed": str(config.get("seed"))}
        if versions := facts.get("versions"):
            tags["dbf_ray.versions"] = ", ".join(f"{name} {version}" for name, version in versions.items())
        if facts.get("machine"):
            tags["dbf_ray.machine"] = str(facts["machine"])
        if origin := facts.get("forked_from"):
            tags |= {"dbf_ray.forked_from": str(origin["run"]), "dbf_ray.fork_epoch": str(origin["epoch"])}
        datasets = list(facts.get("datasets") or ())
        self._tags = {**tags, **self.target.tags}
        self.begin(parameters_of(config, facts), datasets, tags, note=self._note(None))

    def epoch(self, record: dict[str, Any]) -> None:
        """The epoch's numbers are to be logged at ``step=epoch``."""
        self.go_on()

    def finish(self, summary: dict[str, Any]) -> None:
        """The run is FINISHED."""
        tags = (self.spool.read() or {}).get("tags") or {}
        if summary.get("checkpoint"):
            tags = {**tags, "dbf_ray.checkpoint": str(summary["checkpoint"])}
        self.end(FINISHED, tags=tags, note=self._note(summary))

    def fail(self, reason: str, killed: bool = False) -> None:
        """The run is FAILED, with the reason as tag ``failure``; or KILLED, where somebody ended it."""
        self.end(KILLED if killed else FAILED, reason)

    def _note(self, summary: Mapping[str, Any] | None) -> str:
        command = None if self._own else again(str(self.directory / "config.yaml"), self.directory.name)
        return run_note(self.run_name, summary, self._tags, command)


class MlflowStudy(_Tracked):
    """The parent run of a study, in an experiment of the study's own; its trials' runs are its children.

    What it delivers is in the study's ``pareto.json`` and the files beside it.
    """

    def __init__(self, directory: Path, target: MlflowTarget) -> None:
        super().__init__(directory, target)
        self._lost: list[Path] = []

    def start(self, parameters: Mapping[str, Any], files: list[Path]) -> None:
        """The search begins, or goes on; ``files``: further ones to keep with it."""
        params = {name: str(value) for name, value in parameters.items() if value is not None}
        self.begin(params, [], files=[str(file.absolute()) for file in files])

    def progress(self) -> None:
        """The study's files are new."""
        self.go_on()

    def lost(self, directory: Path, reason: str, killed: bool) -> None:
        """The trial in ``directory`` counts as failed; its run is FAILED, or KILLED where its process died,
        unless it has said so itself.
        """
        spool = Spool(directory)
        if (spool.read() or {}).get("status") in (RUNNING, FINISHED):
            spool.end(KILLED if killed else FAILED, reason)
            self._lost.append(directory)
            self.go_on()

    def _deliver(self) -> None:
        super()._deliver()
        while self._lost:
            Delivery(self._lost[0], self._store)()
            self._lost.pop(0)

    def finish(self, failure: str | None = None, killed: bool = False) -> None:
        """The search is over; FAILED for ``failure``, or KILLED."""
        if failure is None:
            self.end(FINISHED)
        else:
            self.end(KILLED if killed else FAILED, failure)


class MlflowResult(_Tracked):
    """A run that is done in one go and has no epochs: an evaluation, a prediction."""

    def start(self, params: Mapping[str, Any]) -> None:
        """It begins."""
        self.begin({name: str(value) for name, value in params.items() if value is not None}, [])

    def finish(self, metrics: Mapping[str, float], note: str, datasets: list[dict[str, Any]]) -> None:
        """It is done."""
        self.end(FINISHED, metrics=dict(metrics), note=note, datasets=datasets)

    def fail(self, reason: str, killed: bool = False) -> None:
        """It has failed, or was killed."""
        self.end(KILLED if killed else FAILED, reason)


def deliver_rest(directory: Path, uri: str) -> str | None:
    """Deliver what waits in a study's folder, a bounded time; a line for the person, if something is left."""
    found: list[Delivered] = []
    thread = Background(
        lambda: found.append(deliver_all(directory, Store(uri), public(uri))),
        lambda error: in_a_line(error, uri),
    )
    thread.wake()
    thread.wait()
    thread.stop()
    if found and not found[-1].pending:
        return None
    count = f"{found[-1].pending} runs" if found else "runs"
    why = (found[-1].failure if found else thread.failure) or "no answer in time"
    return f"MLflow at {public(uri)} misses {count} that wait in {directory} ({why}); {LATER}"
