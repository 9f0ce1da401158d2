"""A stop on its way from the driver to the workers, with a relay that is no actor."""

from __future__ import annotations

import io
import json
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import ray
import ray.exceptions
import ray.train.v2._internal.execution.context as reports
from ray._private import worker

from dbf_ray import stopping
from dbf_ray.cluster import relay as relays
from dbf_ray.cluster import stop
from dbf_ray.cluster.logs import quiet_logging, quiet_raylet
from dbf_ray.cluster.relay import WorkerRelay, listening, pin, pinned
from dbf_ray.cluster.stop import heeding, passing_on


class Call:
    """A method as an actor's: ``ray.get`` below calls it."""

    def __init__(self, method: Callable[..., Any]) -> None:
        self.method = method

    def remote(self, *arguments: Any) -> Callable[[], Any]:
        return lambda: self.method(*arguments)


class Handle:
    """A relay's handle; ``lost``: its process is gone."""

    def __init__(self) -> None:
        self.relay, self.lost = WorkerRelay(), False

    def __getattr__(self, name: str) -> Call:
        return Call(getattr(self.relay, name))


@pytest.fixture
def handle(monkeypatch: pytest.MonkeyPatch) -> Iterator[Handle]:
    made = Handle()

    def get(call: Callable[[], Any], timeout: float | None = None) -> Any:
        if made.lost:
            raise ray.exceptions.ActorDiedError
        return call()

    monkeypatch.setattr(ray, "get", get)
    monkeypatch.setattr(stop, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(relays, "POLL_SECONDS", 0.01)
    with stopping.fresh():
        yield made


def until(sign: Callable[[], Any]) -> None:
    limit = time.monotonic() + 10
    while not sign():
        assert time.monotonic() < limit
        time.sleep(0.005)


def test_a_worker_hears_what_the_driver_was_asked(handle: Handle) -> None:
    with heeding(handle):
        assert stopping.asked() is None
        assert handle.relay.stop(signal.SIGTERM)
        until(lambda: stopping.asked() == signal.SIGTERM)
        with pytest.raises(stopping.Stopped, match="SIGTERM"):
            stopping.check()
    assert stopping.asked() is None


def test_a_worker_that_comes_after_the_stop_hears_it_at_once(handle: Handle) -> None:
    assert not handle.relay.stop(signal.SIGINT)
    with heeding(handle):
        assert stopping.asked() == signal.SIGINT


def test_the_driver_goes_on_waiting_while_workers_end(handle: Handle) -> None:
    given_up = threading.Event()
    handle.relay.begin()
    with passing_on(handle, given_up.set):
        stopping.ask(signal.SIGTERM)
        until(lambda: handle.relay.asked() == signal.SIGTERM)
    assert not given_up.is_set()


@pytest.mark.parametrize("why", ["none has begun", "they do not end"])
def test_the_driver_gives_up(handle: Handle, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    given_up = threading.Event()
    if why == "they do not end":
        handle.relay.begin()
        monkeypatch.setattr(stop, "PATIENCE", 0.05)
    with passing_on(handle, given_up.set):
        stopping.ask(signal.SIGTERM)
        assert given_up.wait(10)


def test_a_stop_survives_a_relay_that_is_started_anew(handle: Handle) -> None:
    given_up = threading.Event()
    with passing_on(handle, given_up.set):
        handle.lost = True
        stopping.ask(signal.SIGTERM)
        time.sleep(0.05)
        handle.relay = WorkerRelay()
        handle.relay.begin()
        handle.lost = False
        until(lambda: handle.relay.asked() == signal.SIGTERM)
    assert not given_up.is_set()


def test_a_lost_relay_costs_lines_and_nothing_else(
    handle: Handle, capsys: pytest.CaptureFixture[str]
) -> None:
    with listening(handle):
        for line in ("one", "two"):
            handle.relay.say(line)
        until(lambda: "two" in capsys.readouterr().err)
        handle.lost = True
        pin(handle, {"kind": "TrainingError", "message": "no"})
        assert pinned(handle) is None
        handle.relay, handle.lost = WorkerRelay(), False
        handle.relay.say("three")
        until(lambda: "three" in capsys.readouterr().err)
    pin(handle, {"kind": "TrainingError", "message": "no"})
    assert pinned(handle) == {"kind": "TrainingError", "message": "no"}


def test_reports_of_ray_train_are_not_shown() -> None:
    quiet_logging()
    assert not logging.getLogger(reports.logger.name).isEnabledFor(logging.WARNING)


def test_what_a_node_tells_is_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stdout", shown)
    told = {"lines": ["A worker died or was killed"], "pid": "raylet", "is_err": False}
    real = worker.print_to_stdstream
    with quiet_raylet():
        worker.print_to_stdstream(told, ignore_prefix=False)
    assert shown.getvalue() == ""
    assert worker.print_to_stdstream is real


def test_a_search_that_was_asked_to_stop_begins_nothing_and_leaves_what_it_ended_open() -> None:
    from ray.tune.search import Searcher

    from dbf_ray.search.in_turn import InTurn

    ended: list[str] = []

    class Two(Searcher):
        def suggest(self, trial_id: str) -> dict[str, Any]:
            return {"number": 0}

        def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
            ended.append(trial_id)

    searcher = InTurn(iter([Two()]))
    with stopping.fresh():
        for name in ("stopped", "died", "done"):
            assert searcher.suggest(name) == {"number": 0}
        stopping.ask(signal.SIGTERM)
        assert searcher.suggest("next") == Searcher.FINISHED
        searcher.on_trial_complete("stopped", {"outcome": json.dumps({"stopped": 15})})
        searcher.on_trial_complete("died", None, error=True)
        searcher.on_trial_complete("done", {"outcome": json.dumps({"summary": {}})})
    assert ended == ["done"]
