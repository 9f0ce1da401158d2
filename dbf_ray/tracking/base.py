"""What every tracker can do, and the plain values that say where records go.

A run tells its trackers four things: that it starts, each finished epoch, how it ended, or why it failed.
Trackers are idempotent by epoch: telling the same epoch twice leaves one, so a run that was killed and came
back may repeat itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Tracker(Protocol):
    """Keeps the record of one training run. Called on rank 0 only."""

    def start(self, config: dict[str, Any], facts: dict[str, Any], resume_epoch: int) -> None:
        """The run begins with epoch ``resume_epoch`` (0 unless resumed): records of that and later epochs no
        longer count.
        """

    def epoch(self, record: dict[str, Any]) -> None:
        """One epoch is done; ``record["epoch"]`` is its 0-based number. A known epoch is not added twice."""

    def finish(self, summary: dict[str, Any]) -> None:
        """The run is done."""

    def fail(self, reason: str, killed: bool = False) -> None:
        """The run stopped for ``reason``, or because somebody ended it; what was reported before stays."""


@dataclass(frozen=True)
class MlflowTarget:
    """Where in MLflow a run belongs. Plain values, so that it can be sent to another process.

    Attributes:
        uri: must not depend on the working directory (see :func:`dbf_ray.tracking.resolve_uri`).
        experiment: name.
        run_name: None: that of the run's folder.
        kind: search, trial, training, evaluation or prediction.
        parent: folder of the study whose run is the parent.
        tags: further ones.
        full_share: what a full training like this run costs, over that which ``cost/compute_ratio`` is a
            share of: in a study the base configuration's.
    """

    uri: str
    experiment: str
    run_name: str | None = None
    kind: str = "training"
    parent: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    full_share: float = 1.0
