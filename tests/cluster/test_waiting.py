"""What waits for resources is told and bounded; what a cluster may grow to is not refused."""

from __future__ import annotations

import pickle
import re
from collections import Counter
from pathlib import Path

import pytest
from ray._private.state import state
from ray.core.generated.autoscaler_pb2 import ClusterConfig
from ray.core.generated.gcs_pb2 import PlacementGroupTableData as Group
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError
from ray.train.v2._internal.execution.controller.state import (
    InitializingState,
    ReschedulingState,
    RunningState,
)
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

from dbf_ray.cluster import largest as largest_nodes
from dbf_ray.cluster import waiting
from dbf_ray.cluster.largest import largest
from dbf_ray.cluster.ray_runtime import Resources, require
from dbf_ray.cluster.waiting import GiveUp, NoRoomError, Patience, Waiting, gave_up, waiting_now
from dbf_ray.config import Config, with_overrides
from dbf_ray.errors import ConfigError, ResourceError
from dbf_ray.search.searching import concurrency

NOTHING = Waiting(Counter(), running=True)
STUCK = Waiting(Counter({"1 CPU": 1}), running=False)
BESIDE = Waiting(Counter({"1 CPU": 1}), running=True)


class Hours:
    """A clock and what is seen at each of its seconds."""

    def __init__(self, minutes: float) -> None:
        self.now, self.seen, self.lines = 0.0, NOTHING, list[str]()
        self.patience = Patience(minutes, self.lines.append, lambda: self.seen, lambda: self.now)

    def passes(self, seconds: int, seen: Waiting) -> None:
        self.seen = seen
        for _ in range(seconds):
            self.now += 1
            self.patience.look()


def test_a_line_comes_every_15_seconds_and_says_what_and_since_when() -> None:
    hours = Hours(10)
    hours.passes(20, NOTHING)
    hours.passes(50, STUCK)
    assert len(hours.lines) == 3
    assert all(re.fullmatch(r"waiting for 1 x 1 CPU since \d\d:\d\d:\d\d", line) for line in hours.lines)
    assert len(set(hours.lines)) == 1
    hours.passes(20, NOTHING)
    hours.passes(14, STUCK)
    assert len(hours.lines) == 3, "a new wait"


def test_it_is_given_up_after_some_minutes_in_which_nothing_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting.ray, "nodes", lambda: [{"Alive": True}, {"Alive": False}])
    monkeypatch.setattr(waiting.ray, "cluster_resources", lambda: {"CPU": 2.0})
    monkeypatch.setattr(waiting.ray, "available_resources", lambda: {"CPU": 1.0})
    hours = Hours(2)
    hours.passes(100, STUCK)
    hours.passes(300, BESIDE)
    hours.passes(100, STUCK)
    with pytest.raises(
        ResourceError,
        match=r"1 x 1 CPU did not become free in 2 minutes, since [\d:]{8}; the Ray cluster has 2 CPUs "
        r"\(1 free\) and 0 GPUs \(0 free\) on 1 node; .*same command goes on",
    ):
        hours.passes(30, STUCK)


def test_beside_what_runs_it_is_said_once_and_never_given_up() -> None:
    hours = Hours(1)
    hours.passes(3000, BESIDE)
    assert len(hours.lines) == 1
    assert hours.lines[0].endswith("beside what runs")


def test_a_head_that_is_away_is_no_news() -> None:
    def away() -> Waiting:
        raise ConnectionError

    Patience(1, pytest.fail, away, lambda: 99.0).look()


def test_placement_groups_of_this_job_alone_count(monkeypatch: pytest.MonkeyPatch) -> None:
    def group(job: bytes, status: int, count: int = 1, **resources: float) -> bytes:
        made = Group(creator_job_id=job, state=status)
        for _ in range(count):
            made.bundles.add().unit_resources.update(resources)
        return made.SerializeToString()

    mine, other = b"\1\0\0\0", b"\2\0\0\0"
    table = [
        group(mine, Group.PENDING, 2, CPU=4.0, GPU=0.5),
        group(mine, Group.RESCHEDULING, CPU=1.0),
        group(mine, Group.CREATED, memory=1e6),  # a trial whose workers have the CPUs
        group(mine, Group.REMOVED, CPU=7.0),
        group(other, Group.PENDING, CPU=8.0),
        group(other, Group.CREATED, CPU=9.0),
    ]

    class Accessor:
        @staticmethod
        def get_placement_group_table() -> list[bytes]:
            return table

    class Context:
        @staticmethod
        def get_job_id() -> str:
            return mine.hex()

    monkeypatch.setattr(state, "_connect_and_get_accessor", lambda: Accessor)
    monkeypatch.setattr(waiting.ray, "get_runtime_context", lambda: Context)
    assert waiting_now() == (Counter({"4 CPU and 0.5 GPU": 2, "1 CPU": 1}), False)
    table.append(group(mine, Group.CREATED, CPU=1.0))
    assert waiting_now().running


def test_a_training_that_was_not_placed_ends_and_one_whose_workers_die_while_they_start_tries_again() -> None:
    late = ControllerError(WorkerGroupStartupTimeoutError(2))
    with pytest.raises(NoRoomError) as raised:
        GiveUp().after_controller_state_update(InitializingState(), ReschedulingState(late))
    ended = pickle.loads(pickle.dumps(ControllerError(raised.value)))
    assert gave_up(ended)
    assert not gave_up(late)
    died, give_up = ControllerError(RuntimeError("died")), GiveUp()
    for _ in range(2):
        for _ in range(2):
            give_up.after_controller_state_update(InitializingState(), ReschedulingState(died))
        give_up.after_controller_state_update(InitializingState(), RunningState())
    give_up.after_controller_state_update(InitializingState(), ReschedulingState(died))
    give_up.after_controller_state_update(InitializingState(), ReschedulingState(died))
    with pytest.raises(ControllerError, match="died"):
        give_up.after_controller_state_update(InitializingState(), ReschedulingState(died))
    assert not gave_up(WorkerGroupError("x", {}))


def test_a_cluster_that_may_scale_up_is_not_refused_for_what_it_has_now() -> None:
    now = Resources(2, 0, "the Ray cluster", ((2, 0),))
    grows = Resources(2, 0, "the Ray cluster", ((2, 0),), ((2, 0), (8, 1), (8, 1)))
    require(2, 8, True, grows)
    with pytest.raises(ResourceError, match="the Ray cluster has 2"):
        require(2, 8, True, now)
    with pytest.raises(
        ResourceError,
        match="3 workers with 8 CPUs each need 24 CPUs, but the Ray cluster at its largest has 18",
    ):
        require(3, 8, True, grows)
    config = with_overrides(Config(), {"cluster.cpus_per_worker": 2})
    assert concurrency(config, None, now) == 1
    assert concurrency(config, None, grows) == 9


def test_what_the_head_knows_of_the_autoscaler_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    config = ClusterConfig()
    for count, cpus in ((1, 4), (2, 8), (0, 64)):
        kind = config.node_group_configs.add(max_count=count)
        kind.resources["CPU"] = cpus
    monkeypatch.setattr(state, "get_cluster_config", lambda: config)
    assert largest() == ((4, 0), (8, 0), (8, 0))
    config.node_group_configs[0].max_count = -1
    assert len(largest()) == largest_nodes.MANY + 2


def test_the_launchers_file_on_the_head_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "get_cluster_config", lambda: None)
    monkeypatch.setattr(largest_nodes, "FILE", tmp_path / "ray_bootstrap_config.yaml")
    assert largest() == ()
    (tmp_path / "ray_bootstrap_config.yaml").write_text(
        "max_workers: 3\nhead_node_type: head\navailable_node_types:\n"
        "  head: {resources: {CPU: 2}, max_workers: 0}\n"
        "  worker: {resources: {CPU: 8, GPU: 1}, max_workers: 9}\n"
    )
    assert largest() == ((2, 0), (8, 1), (8, 1), (8, 1))
    (tmp_path / "ray_bootstrap_config.yaml").write_text("available_node_types: [")
    assert largest() == ()


@pytest.mark.parametrize(("share", "wanted"), [(True, 2), (0.5, 4), (0.34, 4), (0.3, 6)])
def test_trials_at_once_follow_the_share_of_a_gpu(share: float, wanted: int) -> None:
    config = with_overrides(Config(), {"cluster.gpu": share})
    assert concurrency(config, None, Resources(16, 2, "here")) == wanted


def test_a_share_of_a_gpu_is_for_one_worker() -> None:
    for value, wanted in ((1, True), (0, False), ("0.5", 0.5), (True, True)):
        assert with_overrides(Config(), {"cluster.gpu": value}).cluster.gpu is wanted or value == "0.5"
    with pytest.raises(ConfigError, match="share of a GPU is for one worker"):
        with_overrides(Config(), {"cluster.gpu": 0.5, "cluster.workers": 2})
    for bad in (1.5, -0.5, float("nan")):
        with pytest.raises(ConfigError, match=r"cluster\.gpu"):
            with_overrides(Config(), {"cluster.gpu": bad})
