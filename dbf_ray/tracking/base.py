"""What every tracker can do, and the plain values that say where records go.

A run tells its trackers four things: that it starts, each finished epoch, how it ended, or why it failed.
Trackers are idempotent by epoch: telling the same epoch twice leaves one, so a run that was killed and came
back may repeat itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
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

    def finish(self, summary: dict[str, Any], artifacts: list[Path]) -> None:
        """The run is done; ``artifacts`` are files worth showing beside the record (plots)."""

    def fail(self, reason: str) -> None:
        """The run stopped for ``reason``; what was reported before stays."""


@dataclass(frozen=True)
class MlflowTarget:
    """Where in MLflow a run belongs. Plain values, so that it can be sent to another process.

    ``uri`` must not depend on the working directory (see :func:`dbf_ray.tracking.resolve_uri`).
    """

    uri: str
    experiment: str
    run_name: str | None = None
    parent_run_id: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
