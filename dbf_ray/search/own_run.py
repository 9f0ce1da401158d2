"""A trial of one's own training function: the run folder, checkpoints and summary that a detector's run
leaves, out of what the function reports.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dbf_ray import stopping
from dbf_ray.config import Config, to_dict
from dbf_ray.errors import TrainingError, WeightsError
from dbf_ray.freezing import Policy, budget, make_policy
from dbf_ray.run import OnEpoch, run_name
from dbf_ray.run.summary import lineage, machine, piece_of, versions
from dbf_ray.run.telling import Telling, tracking_of
from dbf_ray.search.own import OwnTraining
from dbf_ray.tracking import Tracker
from dbf_ray.tracking.origin import code_version
from dbf_ray.training.checkpoint import load_checkpoint, save_checkpoint
from dbf_ray.values import finite

OWN = (
    "epoch",
    "inherited",
    "wall_seconds",
    "device_seconds",
    "time",
    "tracking_seconds",
    "so_far",
)  # keys of a record that are set here


@dataclass(frozen=True)
class OwnRun:
    """Takes the place of :func:`dbf_ray.run.run` in a search."""

    own: OwnTraining

    def __call__(
        self,
        config: Config,
        *,
        directory: Path,
        trackers: Sequence[Tracker],
        on_epoch: OnEpoch,
        resume: Path | None = None,
        begin: Path | None = None,
        coverage: bool = True,
    ) -> dict[str, Any]:
        """Call the function once and give the content of summary.json.

        Raises:
            TrainingError: it did not report an accuracy for each epoch, in order, or not what its policy
                freezes.
        """
        trial = _OwnTrial(self.own, config, directory, trackers, on_epoch)
        trial.start(resume or begin, fork=resume is None)
        try:
            trial.train()
        except BaseException as error:
            trial.telling.fail(error, directory)
            raise
        return trial.finish()


class _OwnTrial:
    """One trial: takes the function's reports."""

    def __init__(
        self,
        own: OwnTraining,
        config: Config,
        directory: Path,
        trackers: Sequence[Tracker],
        on_epoch: OnEpoch,
    ) -> None:
        self.own, self.config, self.directory = own, config, directory
        self.telling, self.on_epoch = Telling(trackers), on_epoch
        self.epochs = config.training.epochs
        self.policy: Policy = make_policy(config.freezing.policy, **config.freezing.parameters)
        horizon = own.horizon(config)
        known = not self.policy.needs_signals
        self.timeline = [one.num_frozen for one in self.policy.timeline(horizon)] if known else None
        self.records: list[dict[str, Any]] = []
        self.folder, self.begun = directory / "work", False
        self.checkpoint: Path | None = None
        self._since = time.perf_counter()
        parameters = self.policy.parameters()
        self.facts: dict[str, Any] = {
            "name": run_name(config),
            "policy": self.policy.name,
            "parameters": parameters,
            "rho": parameters.get("rho"),
            "seed": config.seed,
            "num_stages": own.num_stages,
            "function": own.version,
            "world_size": 1,
            "machine": machine(),
            "versions": versions(),
            "code": code_version(),
        }
        self.facts |= {"forked_from": None, "pieces": [piece_of(self.facts, 0)]}

    def start(self, checkpoint: Path | None, fork: bool) -> None:
        """Stand where the checkpoint is; with ``fork`` it is another trial's."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        if checkpoint is not None:
            state, record = load_checkpoint(checkpoint)
            unpack(state["files"], self.folder)
            known = record["facts"]
            inherited = {"inherited": known["name"]} if fork else {}
            self.records = [inherited | epoch for epoch in record["epochs"]]
            self.facts |= lineage(known, self.facts, len(self.records), checkpoint.name if fork else None)
            self.begun, self.checkpoint = True, None if fork else checkpoint
            print(f"begins after {len(self.records)} of {self.epochs} epochs, at {checkpoint}", flush=True)
        self.telling.start(to_dict(self.config), self.facts, self.records)

    def train(self) -> None:
        """Call the function for what is left."""
        self._since = time.perf_counter()
        if len(self.records) < self.epochs:
            schedule = {
                "policy": self.policy,
                "epochs": self.epochs,
                "seed": self.config.seed,
                "costs": self.own.costs,
                "signals": self.own.signals,
            }
            given = {
                "schedule": schedule,
                "folder": self.folder,
                "begin": self.folder if self.begun else None,
                "report": self.report,
                "config": self.config,
            }
            self.own.train(**{name: given[name] for name in self.own.takes})
        if len(self.records) < self.epochs:
            raise TrainingError(
                f"the training function must report each of {self.epochs} epochs, and ended after "
                f"{len(self.records)} of them; call report(epoch, accuracy=...) at the end of each"
            )

    def report(
        self, epoch: int, *, accuracy: float, frozen_stages: int | None = None, **metrics: float
    ) -> None:
        """What the function calls at the end of each epoch, with its checkpoint in ``folder``.

        Args:
            epoch: 0-based; the one after that reported last, or after the checkpoint that it began at.
            accuracy: what the search makes large, that of the last epoch; finite.
            frozen_stages: how many stages were frozen; compared with the policy's decision. Needed of
                policies that decide by signals.
            metrics: further numbers to record.
        """
        self._check(epoch, accuracy, frozen_stages, metrics)
        frozen = frozen_stages if self.timeline is None else self.timeline[epoch]
        now = time.perf_counter()
        seconds, self._since = now - self._since, now
        record = {
            "epoch": epoch,
            "accuracy": float(accuracy),
            "frozen_stages": frozen,
            "wall_seconds": seconds,
            "device_seconds": seconds,
            **{name: _plain(value) for name, value in metrics.items()},
        }
        self.records.append(finite(record))
        self.telling.stamp(self.records[-1])
        self.records[-1]["so_far"] = self._so_far()
        if self.own.begins:
            self.checkpoint = self._save()
        self.telling.epoch(self.records[-1])
        self.on_epoch(self.records[-1], self.checkpoint)
        if len(self.records) < self.epochs:
            stopping.check()
        self._since = time.perf_counter()

    def finish(self) -> dict[str, Any]:
        """The content of summary.json, which is written."""
        shutil.rmtree(self.folder, ignore_errors=True)
        prefixes = [epoch["frozen_stages"] for epoch in self.records]
        full = self.own.epochs * self.own.costs[0]
        own = [epoch for epoch in self.records if "inherited" not in epoch]
        seconds = {name: _total(self.records, name) for name in ("device_seconds", "wall_seconds")}
        last = self.records[-1]
        summary = {
            **self.facts,
            "epochs": self.epochs,
            "frozen_prefixes": prefixes,
            "steps_per_prefix": {str(frozen): prefixes.count(frozen) for frozen in sorted({*prefixes})},
            "budget": budget(prefixes, self.own.num_stages),
            "accuracy": last["accuracy"],
            "compute_ratio": sum(self.own.costs[frozen] for frozen in prefixes) / full,
            **seconds,
            "epochs_trained": len(own),
            "own": {name: _total(own, name) for name in seconds},
            **tracking_of(self.records),
            "checkpoint": None if self.checkpoint is None else str(self.checkpoint),
            "stopped_early": False,
        }
        self.telling.finish(summary)
        return summary

    def _so_far(self) -> dict[str, float]:
        """What the epochs have cost; ``compute_ratio`` is over a whole full training of as many epochs."""
        frozen = [epoch["frozen_stages"] for epoch in self.records]
        full = self.epochs * self.own.costs[0]
        seconds = {name: _total(self.records, name) for name in ("device_seconds", "wall_seconds")}
        return {
            "compute_ratio": sum(self.own.costs[stages] for stages in frozen) / full,
            "tracking_seconds": tracking_of(self.records)["tracking_seconds"],
            **seconds,
        }

    def _save(self) -> Path:
        files = pack(self.folder)
        if not files:
            raise TrainingError(
                "a training function that takes begin must write a checkpoint to its folder before each "
                f"report, and {self.folder} is empty; write one, or do not take begin"
            )
        state = {"files": files, "epoch": len(self.records)}
        record = {"config": to_dict(self.config), "facts": self.facts, "epochs": self.records}
        keep = self.config.training.keep_checkpoints
        return save_checkpoint(self.directory / "checkpoints", len(self.records), state, finite(record), keep)

    def _check(self, epoch: Any, accuracy: Any, frozen: Any, metrics: dict[str, Any]) -> None:
        if epoch != len(self.records) or isinstance(epoch, bool) or epoch >= self.epochs:
            due = f"{len(self.records)} is due" if len(self.records) < self.epochs else "all were reported"
            raise TrainingError(
                f"epochs 0..{self.epochs - 1} must be reported one after the other, {due}, got {epoch!r}; a "
                "function that begins at a checkpoint goes on with the epoch after it"
            )
        if not _is_number(accuracy):
            raise TrainingError(f"accuracy of epoch {epoch} must be a finite number, got {accuracy!r}")
        taken = [name for name in metrics if name in OWN]
        if taken:
            raise TrainingError(f"{taken[0]} is set by the search; report it under another name")
        decided = None if self.timeline is None else self.timeline[epoch]
        if decided is None and not (isinstance(frozen, int) and 0 <= frozen <= self.own.num_stages):
            raise TrainingError(
                f"policy {self.policy.name} decides while it trains, so report must get frozen_stages, an "
                f"integer in 0..{self.own.num_stages}, got {frozen!r}; give FreezingSchedule's num_frozen"
            )
        if None not in (decided, frozen) and frozen != decided:
            raise TrainingError(
                f"epoch {epoch} must freeze {decided} stages, as policy {self.policy.name} decides, got "
                f"{frozen!r}; call FreezingSchedule's begin_epoch before each epoch"
            )


def pack(folder: Path) -> dict[str, Tensor]:
    """All files below a folder, by their paths within it, as uint8 tensors."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): torch.from_numpy(np.fromfile(path, dtype=np.uint8))
        for path in files
    }


def unpack(files: dict[str, Tensor], folder: Path) -> None:
    """Undo of :func:`pack`.

    Raises:
        WeightsError: a name leads out of ``folder``, as no state of this project has it; nothing is written.
    """
    for name in files:
        if Path(name).is_absolute() or ".." in Path(name).parts or "\0" in name:
            raise WeightsError(
                f"files of a state must stay in its folder, got {name!r}; remove the study's folder states, "
                "trials are then trained from their first epoch"
            )
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        content.numpy().tofile(file)


def _is_number(value: Any) -> bool:
    """Whether a value is a finite number: a tensor or array of one counts."""
    try:
        return not isinstance(value, bool | str) and math.isfinite(float(value))
    except (TypeError, ValueError):
        return False


def _plain(value: Any) -> Any:
    return float(value) if hasattr(value, "item") else value


def _total(records: Sequence[dict[str, Any]], name: str) -> float:
    return sum(epoch[name] for epoch in records)
