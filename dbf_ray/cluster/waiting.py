"""What waits for resources, and since when: a person hears of it, and after some minutes it is given up.

Whatever Ray places for us (a group of workers, a trial) asks for it by a placement group. One that no node
has room for waits without end, and without a word.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

import ray
from ray._private.state import state
from ray.core.generated.gcs_pb2 import PlacementGroupTableData as Group
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError
from ray.train.v2._internal.execution.callback import ControllerCallback
from ray.train.v2._internal.execution.controller.state import ReschedulingState, RunningState
from ray.train.v2.api.exceptions import ControllerError

from dbf_ray.errors import ResourceError

LINE_SECONDS = 15.0
POLL_SECONDS = 1.0
START_SECONDS = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"  # read by the process that places the workers
FAILED_STARTS = 3  # in a row: a node that dies while workers start there
KINDS = ("CPU", "GPU")


class Waiting(NamedTuple):
    """What of this job waits, as ``{"1 CPU": 2}``; and whether anything of it has its place."""

    asked: Counter[str]
    running: bool


def waiting_now() -> Waiting:
    """What of this job waits for resources that no node has free."""
    asked: Counter[str] = Counter()
    running = False
    job = bytes.fromhex(ray.get_runtime_context().get_job_id())
    for raw in state._connect_and_get_accessor().get_placement_group_table():
        group = Group.FromString(raw)
        bundles = [_words(dict(bundle.unit_resources)) for bundle in group.bundles]
        if group.creator_job_id != job or not any(bundles):
            continue
        if group.state == Group.CREATED:
            running = True
        elif group.state in (Group.PENDING, Group.RESCHEDULING):
            asked.update(filter(None, bundles))
    return Waiting(asked, running)


def _words(resources: dict[str, float]) -> str:
    return " and ".join(f"{resources[kind]:g} {kind}" for kind in KINDS if resources.get(kind))


class Patience:
    """Tells what is waited for, and ends it.

    Args:
        minutes: in which nothing of the job runs, until it is given up.
        show: called with each line.
        look, clock: for tests.
    """

    def __init__(
        self,
        minutes: float,
        show: Callable[[str], None],
        look: Callable[[], Waiting] = waiting_now,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.minutes, self.show, self.clock = minutes, show, clock
        self._look = look
        self._since: float | None = None  # something waits
        self._stuck: float | None = None  # and nothing runs
        self._told = self._looked = 0.0
        self._what = ""

    def look(self) -> None:
        """See what waits, at most once a second, and say it: every 15 seconds, or once where others run.

        Raises:
            ResourceError: it took too long.
        """
        now = self.clock()
        if now - self._looked < POLL_SECONDS:
            return
        self._looked = now
        try:
            asked, running = self._look()
        except Exception:  # the cluster's head is away, or cannot be asked from here: others say so
            return
        if not asked:
            self._since = self._stuck = None
            return
        self._what = ", ".join(f"{count} x {words}" for words, count in sorted(asked.items()))
        if self._since is None:
            self._since = self._told = now
        self._stuck = None if running else self._stuck or now
        # others run, so its turn may come
        often = self._stuck is not None or self._told == self._since
        if often and now - self._told >= LINE_SECONDS:
            self._told = now
            self.show(f"waiting for {self._what} since {_hour(self._since)}{' beside what runs' * running}")
        if self._stuck is not None and now - self._stuck >= self.minutes * 60:
            raise self.over()

    def over(self) -> ResourceError:
        """What to raise once it is given up."""
        since = self._stuck or self.clock() - self.minutes * 60
        return ResourceError(
            f"{self._what or 'the workers'} did not become free in {self.minutes:g} minutes, since "
            f"{_hour(since)}; {_has()}; what is done is kept, and the same command goes on once there is "
            "room (--cluster.wait_minutes waits longer)"
        )

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Look from a thread while something else blocks; what ends that must be another."""
        done = threading.Event()

        def watch() -> None:
            while not done.wait(POLL_SECONDS):
                with contextlib.suppress(ResourceError):
                    self.look()

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join(LINE_SECONDS)


class NoRoomError(Exception):
    """In Ray Train's controller: workers were not placed in time."""


class GiveUp(ControllerCallback):
    """Ends a training of Ray Train whose workers were not placed in time, which it would try again."""

    def __init__(self) -> None:
        self.failed_starts = 0

    def after_controller_state_update(self, previous_state: object, current_state: object) -> None:
        """Called by the controller."""
        if isinstance(current_state, RunningState):
            self.failed_starts = 0
        if isinstance(current_state, ReschedulingState):
            error = current_state.training_failed_error
            reason = error.controller_failure if isinstance(error, ControllerError) else error
            if isinstance(reason, WorkerGroupStartupTimeoutError):
                raise NoRoomError(str(reason)) from error
            self.failed_starts += 1
            if self.failed_starts >= FAILED_STARTS:
                raise error


def gave_up(error: BaseException) -> bool:
    """Whether a training ended because workers were not placed in time."""
    return isinstance(error, ControllerError) and isinstance(error.controller_failure, NoRoomError)


def _hour(seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(seconds))


def _has() -> str:
    try:
        alive = [node for node in ray.nodes() if node["Alive"]]
        has, free = ray.cluster_resources(), ray.available_resources()
    except Exception:
        return "what the Ray cluster has cannot be asked"
    words = " and ".join(f"{has.get(kind, 0):g} {kind}s ({free.get(kind, 0):g} free)" for kind in KINDS)
    return f"the Ray cluster has {words} on {len(alive)} node{'s' * (len(alive) != 1)}"
