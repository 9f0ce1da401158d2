"""Delivery: the store gets what it lacks of a folder. It may be killed between any two calls and begun again
by anybody: every step is asked for before it is sent, files have stamps, and a run is found again by its key.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import Timeout
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

from dbf_ray.tracking.spool import RUNNING, Card, Spool, folders, public, stamp_of, sweep
from dbf_ray.tracking.store import MOST_METRICS, Store, in_a_line, quiet, texts
from dbf_ray.tracking.wanted import FAILURE, wanted_of

KEY = "dbf_ray.key"
PARENT = "mlflow.parentRunId"
FILES_EVERY = 30.0  # seconds between two versions of a file of a run that goes on
PATIENCE = 20.0  # seconds to wait for another process that opens the parent's run


@dataclass
class _Stored:
    """What a store has of a run, as this process knows."""

    steps: set[int]
    tags: dict[str, str]
    params: set[str]
    latest: dict[str, float]
    datasets: set[tuple[str, str]]
    status: str
    ended: int | None
    uploaded: dict[str, float] = field(default_factory=dict)


class Delivery:
    """Delivers one folder to a store, as often as it is called; ``on_call`` hears of each call that went
    well.
    """

    def __init__(self, folder: Path, store: Store, on_call: Callable[[], None] = lambda: None) -> None:
        self.spool, self.store, self._on_call = Spool(folder), store, on_call
        self._stored: _Stored | None = None

    def __call__(self, patience: float = PATIENCE) -> None:
        """Bring the store up to date.

        Raises:
            Timeout: another process delivers this folder.
            Exception: whatever the store raises.
        """
        with quiet(), self.spool.delivering(patience):
            card = self.spool.read()
            if card is None:
                return
            try:
                card = self._open(card)
                if self._stored is None:
                    self._stored = self._look(card)
                self._send(card, self._stored)
            except BaseException:
                self._stored = None  # how far it came is not known: it is asked
                raise

    def open(self) -> str | None:
        """The id of the folder's run, which is made if there is none; None where the folder has nothing for
        MLflow. Whoever waits for another process that makes it gives up after a while.
        """
        card = self.spool.read()
        if card is None:
            return None
        if card.get("run_id") and public(self.store.uri) == card["uri"]:
            return str(card["run_id"])
        with quiet(), self.spool.delivering(PATIENCE):
            return str(self._open(self.spool.read() or card)["run_id"])

    def _open(self, card: Card) -> Card:
        """With a run that the store has."""
        if (run_id := card.get("run_id")) and (self._stored is not None or self.store.run(run_id)):
            return card
        experiment = self.store.experiment(card["experiment"])
        found = self.store.find(experiment, KEY, card["key"]) if card.get("attempted") else None
        if found is None:
            self.spool.change(attempted=True)
            tags = {KEY: card["key"], **card["tags"]}
            found = self.store.create(experiment, card["run_name"], tags, card["started"])
        self._stored = None
        self._on_call()
        return self.spool.change(run_id=found, delivered={}, uri=public(self.store.uri))

    def _look(self, card: Card) -> _Stored:
        run = self.store.run(card["run_id"])
        marker = wanted_of(self.spool.folder, card).marker
        return _Stored(
            self.store.steps(card["run_id"], marker),
            dict(run.data.tags),
            set(run.data.params),
            dict(run.data.metrics),
            {(one.dataset.name, one.dataset.digest) for one in run.inputs.dataset_inputs},
            run.info.status,
            run.info.end_time,
        )

    def _send(self, card: Card, stored: _Stored) -> None:
        run_id, wanted = card["run_id"], wanted_of(self.spool.folder, card)
        if card["status"] == RUNNING and stored.status != RUNNING:
            self.store.client.update_run(run_id, status=RUNNING)
            stored.status = RUNNING
        if FAILURE in stored.tags and FAILURE not in wanted.tags:
            self.store.client.delete_tag(run_id, FAILURE)
            del stored.tags[FAILURE]
        self._send_texts(card, stored, {**card["tags"], **self._parent(card), **wanted.tags})
        self._send_steps(run_id, stored, wanted.steps)
        if changed := {k: v for k, v in wanted.latest.items() if stored.latest.get(k) != v}:
            self._send_steps(run_id, stored, [(wanted.steps[-1][0], wanted.steps[-1][1], changed)], anew=True)
        self._note(epochs=len(wanted.steps))
        self._send_files(card, stored)
        if card["status"] != RUNNING and (stored.status, stored.ended) != (card["status"], card["ended"]):
            self.store.client.set_terminated(run_id, card["status"], card["ended"])
            stored.status, stored.ended = card["status"], card["ended"]
            self._on_call()
        self._note(status=card["status"], ended=card.get("ended"))

    def _note(self, **values: Any) -> None:
        """What was delivered, for those who come later."""
        card = self.spool.read() or {}
        delivered = card.get("delivered") or {}
        if any(delivered.get(name) != value for name, value in values.items()):
            self.spool.change(delivered={**delivered, **values})

    def _parent(self, card: Card) -> dict[str, str]:
        """The tag that names the parent, which is made first if it is not there; by its experiment, where its
        folder is on another machine.
        """
        if not card.get("parent"):
            return {}
        found = Delivery(Path(card["parent"]), self.store).open()
        if found is None:
            found = self.store.find(self.store.experiment(card["experiment"]), "dbf_ray.kind", "search")
        return {} if found is None else {PARENT: found}

    def _send_texts(self, card: Card, stored: _Stored, tags: Mapping[str, str]) -> None:
        new = {name: text for name, text in texts(tags).items() if stored.tags.get(name) != text}
        params = {name: text for name, text in texts(card["params"]).items() if name not in stored.params}
        named: list[Param | RunTag] = [Param(name, text) for name, text in params.items()]
        named += [RunTag(name, text) for name, text in new.items()]
        if named:
            self.store.log(card["run_id"], named)
            self._on_call()
        stored.tags |= new
        stored.params |= set(params)
        inputs = [one for one in card["datasets"] if (one["name"], one["digest"]) not in stored.datasets]
        if inputs:
            self.store.client.log_inputs(card["run_id"], [_dataset(one) for one in inputs])
            stored.datasets |= {(one["name"], one["digest"]) for one in inputs}
            self._on_call()

    def _send_steps(
        self, run_id: str, stored: _Stored, steps: list[tuple[int, int, dict[str, float]]], anew: bool = False
    ) -> None:
        """Those that are not there, so many in a call that it takes them as a whole."""
        batch: list[Metric] = []
        new = [one for one in steps if anew or one[0] not in stored.steps]
        for place, (step, at, metrics) in enumerate(new):
            batch += [Metric(name, value, at, step) for name, value in metrics.items()]
            following = len(new[place + 1][2]) if place + 1 < len(new) else MOST_METRICS
            if len(batch) + following > MOST_METRICS:
                self.store.log(run_id, batch)
                stored.steps |= {metric.step for metric in batch}
                batch = []
                self._on_call()
            stored.latest |= metrics

    def _send_files(self, card: Card, stored: _Stored) -> None:
        sent = dict(((self.spool.read() or {}).get("delivered") or {}).get("files") or {})
        for place, file in self.spool.files(card).items():
            stamp = stamp_of(file)
            if sent.get(place) == stamp or not stamp:
                continue
            fresh = time.monotonic() - stored.uploaded.get(place, -FILES_EVERY) < FILES_EVERY
            if card["status"] == RUNNING and fresh:
                continue
            folder = Path(place).parent.as_posix()
            self.store.client.log_artifact(card["run_id"], str(file), None if folder == "." else folder)
            stored.uploaded[place] = time.monotonic()
            sent[place] = stamp
            self._note(files=sent)
            self._on_call()


def _dataset(one: Mapping[str, Any]) -> DatasetInput:
    dataset = Dataset(
        one["name"],
        one["digest"],
        "local",
        json.dumps({"uri": one["source"]}),
        profile=json.dumps(one["counts"]),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", one["split"])])


@dataclass(frozen=True)
class Delivered:
    """What came of :func:`deliver`.

    Attributes:
        runs: that were delivered, whole.
        pending: that still wait: the store failed, or their process goes on and delivers them itself.
        failure: what the store said, in a line; None: nothing went wrong.
    """

    runs: int
    pending: int
    failure: str | None = None


def deliver_all(root: Path, store: Store, only: str | None = None) -> Delivered:
    """Deliver what waits in ``root``: a run, a study, or a folder of such.

    Args:
        root: see :func:`.folders`.
        store: where to.
        only: of folders that belong to this store (without user and password) alone; None: of all.
    """
    runs, pending, failure = 0, 0, None
    # those that are parents first
    for folder in sorted(folders(root), key=lambda folder: len(folder.parts)):
        spool = Spool(folder)
        card = spool.read()
        if card is None or (only is not None and card["uri"] != only):
            continue
        sweep(folder)
        card = spool.read() or card
        if not spool.waiting(card):
            continue
        if spool.is_alive() or failure is not None:
            pending += 1
            continue
        try:
            Delivery(folder, store)(patience=0.0)
            runs += 1
        except Timeout:
            pending += 1
        except Exception as error:  # whatever a store raises
            pending, failure = pending + 1, in_a_line(error, store.uri)
    if failure is None and store.refused:
        failure = f"it refused {store.refused[0]}, which it will lack"
    return Delivered(runs, pending, failure)


def quietly(what: Callable[[], Any]) -> None:
    """Do what may fail without anybody's harm."""
    with contextlib.suppress(Exception):
        what()
