"""The relay between workers and driver: what it carries, and that losing it costs lines and nothing else."""

from __future__ import annotations

import sys
import time
from typing import Any

import pytest
import ray

from dbf_ray.cluster import relay as relays
from dbf_ray.cluster.relay import WorkerRelay, listening, make_relay, notice_of, pin, pinned, speaking
from dbf_ray.errors import DataError


class Handle:
    """An actor's handle, whose calls are answered here; ``lost``: every one raises."""

    def __init__(self) -> None:
        self.actor, self.lost = WorkerRelay(), False

    def __getattr__(self, name: str) -> Any:
        class Method:
            @staticmethod
            def remote(*values: Any) -> Any:
                return lambda: getattr(self.actor, name)(*values)

        return Method


@pytest.fixture
def handle(monkeypatch: pytest.MonkeyPatch) -> Handle:
    made = Handle()

    def get(asked: Any, timeout: float) -> Any:
        assert timeout > 0, "nobody waits for a relay without end"
        if made.lost:
            raise ray.exceptions.ActorDiedError
        return asked()

    monkeypatch.setattr(relays.ray, "get", get)
    monkeypatch.setattr(relays, "POLL_SECONDS", 0.01)
    return made


def until(condition: Any) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_lines_of_a_relay_that_was_started_again_are_all_shown(
    handle: Handle, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = ""

    def shown(word: str) -> bool:
        nonlocal seen
        seen += capsys.readouterr().err
        return word in seen

    with listening(handle):
        for line in ("one", "two", "three"):
            handle.actor.say(line)
        until(lambda: shown("three"))
        handle.lost = True
        time.sleep(0.05)
        handle.actor, handle.lost = WorkerRelay(), False
        handle.actor.say("four")
        until(lambda: shown("four"))
    assert seen.split() == ["one", "two", "three", "four"]


def test_a_lost_relay_pins_nothing_and_raises_nothing(handle: Handle) -> None:
    notice = notice_of(DataError("image 7 cannot be decoded"))
    handle.lost = True
    pin(handle, notice)
    assert pinned(handle) is None
    handle.lost = False
    assert pinned(handle) is None
    pin(handle, notice)
    assert pinned(handle) == notice


def test_a_worker_whose_relay_cannot_be_called_goes_on() -> None:
    class Gone:
        class say:  # noqa: N801
            @staticmethod
            def remote(line: str) -> None:
                raise ray.exceptions.RaySystemError("cannot be submitted")

    with speaking(Gone):
        print("a line", file=sys.stdout)


@pytest.mark.ray
def test_a_relay_lives_on_its_makers_node_and_is_started_again(two_cpus: None) -> None:
    relay = make_relay()
    pin(relay, {"kind": "DataError", "message": "x"})
    assert pinned(relay) is not None
    ray.kill(relay, no_restart=False)
    until(lambda: pinned(relay) is None)  # it begins anew
    until(lambda: _answers(relay))
    assert pinned(relay) is None


def _answers(relay: Any) -> bool:
    try:
        ray.get(relay.say.remote("there"), timeout=10)
    except ray.exceptions.RayError:
        return False
    return True
