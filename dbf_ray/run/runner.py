"""One training run, without Ray: configuration in, record out.

The run's folder holds config.yaml, epochs.jsonl, summary.json and checkpoints/; a checkpoint alone restores
weights, optimizer, policy, ledger and the record so far. Inside an initialised process group every rank calls
:func:`run`; rank 0 writes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from dbf_ray import stopping
from dbf_ray.build import RunSpec, build_training, prepare
from dbf_ray.config import Config, at, dotted
from dbf_ray.cost import FlopTable
from dbf_ray.cost.system import SystemMeter, by_node
from dbf_ray.errors import DbfRayError
from dbf_ray.locks import only_writer
from dbf_ray.plan.uncovered import uncovered_notes
from dbf_ray.room import enough_room
from dbf_ray.run.naming import mlflow_target, run_directory
from dbf_ray.run.pictures import Pictures
from dbf_ray.run.resume import restore, save
from dbf_ray.run.same_data import resumed_data
from dbf_ray.run.summary import about_run, lineage, so_far, summarize
from dbf_ray.run.telling import Telling
from dbf_ray.tracking import Tracker, make_trackers
from dbf_ray.training.ddp import broadcast_object, gather_objects, rank
from dbf_ray.training.loop import LoopState, Training, fit
from dbf_ray.values import finite

LOCK_PATIENCE = 10.0  # seconds: the process of a worker that is being replaced may still be ending


OnEpoch = Callable[[dict[str, Any], Path | None], bool]


def run(
    config: Config,
    *,
    directory: Path | None = None,
    trackers: Sequence[Tracker] | None = None,
    on_epoch: OnEpoch | None = None,
    resume: Path | None = None,
    begin: Path | None = None,
    label: str = "",
    quiet: bool = False,
    table: FlopTable | None = None,
    coverage: bool = True,
) -> dict[str, Any]:
    """Train one configuration.

    Args:
        config: the run.
        directory: the run's folder; None: ``runs_dir/name``.
        trackers: what it is reported to; None: JSON lines and, if configured, MLflow. Used on rank 0 only.
        on_epoch: called on every rank after each epoch with its record and, on rank 0, the checkpoint
            written; when rank 0's answer is False the run ends.
        resume: checkpoint folder to resume from; None: from the beginning.
        begin: checkpoint folder of another run, which has trained exactly alike up to there, to begin at.
        label: put before every line of progress.
        quiet: print no progress.
        table: see :func:`dbf_ray.build.prepare`.
        coverage: say so before the first epoch, where the detector can't match the objects
            (:mod:`dbf_ray.plan.uncovered`).

    Returns:
        The content of summary.json, on every rank.

    Raises:
        DbfRayError: bad input, before training; or a training that had to stop.
        Stopped: the process was asked to stop; the training has ended after an optimizer step.
    """
    directory = directory or run_directory(config)
    if config.training.threads is not None:
        torch.set_num_threads(config.training.threads)
    spec = prepare(config, table)
    data = resumed_data(spec, directory, resume, config.data.changed == "accept")
    about = about_run(config, spec, data)
    facts = about["facts"]
    writes = rank() == 0
    with (
        only_writer(directory, "training", "give another --name", LOCK_PATIENCE)
        if writes
        else contextlib.nullcontext()
    ):
        training = build_training(
            spec, journal=directory / "costs.jsonl", features=directory / "features", label=label, quiet=quiet
        )
        for line in notes_of(spec):
            training.progress.note(line)
        state = LoopState()
        if (start := resume or begin) is not None:
            known = restore(training, state, start, fork=resume is None)
            facts |= lineage(known, facts, state.epoch, None if resume is not None else start.name)
            how = "resuming" if resume is not None else f"beginning where {known['name']} was"
            training.progress.note(f"{how} after {state.epoch} of {training.epochs} epochs, from {start}")
            for line in data.notes:
                training.progress.note(line)
        if writes and coverage and not quiet and state.epoch < training.epochs:
            for line in uncovered_notes(config, spec):
                training.progress.note(line)
        pictures = Pictures(directory, spec, facts["name"], config.evaluation.pictures_every)
        if writes:
            data.write(directory)
            training.evaluated = pictures.evaluated
            pictures.begin()
        active: Sequence[Tracker] = []
        if writes:
            active = make_trackers(directory, mlflow_target(config)) if trackers is None else trackers
        telling = Telling(active)
        telling.start(about["config"], facts, state.records)
        try:
            with stopping.holding(), enough_room(directory, "its record"):
                stopped_early = _train(spec, about, training, state, directory, telling, pictures, on_epoch)
        except BaseException as error:
            telling.fail(error, directory)
            # not a crash: the same would only come again
            if isinstance(error, DbfRayError) and training.frozen is not None:
                training.frozen.close()
            raise
        summary = finite(summarize(spec, facts, training, state, directory, stopped_early))
        if training.frozen is not None and not stopped_early:
            training.frozen.close()
        if writes:
            pictures.finish(state.records)
        telling.finish(summary)
    return summary


def notes_of(spec: RunSpec) -> list[str]:
    """What is worth saying before a run trains: that map50 will tell nothing, and what its cache will do."""
    notes = [] if spec.unscored is None else [f"warning: {spec.unscored}"]
    if spec.unscored is not None and "map50" in spec.policy.needs_signals:
        notes.append(f"warning: policy {spec.policy.name} decides by map50, and so by nothing")
    notes += [] if spec.forecast is None else [dotted(str(spec.forecast), "data", "freezing")]
    options = ", ".join(f"data.augment.{name}" for name in spec.images.augmentation.switched_on)
    if spec.frozen.cache != "off" and options:
        notes.append(f"feature cache: off, since {options} leave no image that comes twice")
    elif spec.frozen.cache != "off" and spec.forecast is None:
        why = (
            "the policy decides while it trains"
            if spec.frozen_prefixes is None
            else "blocks of freezing.interval are not whole epochs"
        )
        notes.append(f"feature cache: how often it will hit is not known beforehand, since {why}")
    return notes


def _train(
    spec: RunSpec,
    about: dict[str, Any],
    training: Training,
    state: LoopState,
    directory: Path,
    telling: Telling,
    pictures: Pictures,
    on_epoch: OnEpoch | None,
) -> bool:
    """Train from ``state`` on, with a checkpoint and word to the trackers after each epoch; returns whether
    it was stopped early.
    """
    go_on = True
    meter = SystemMeter(directory.parent, training.device)

    def after_epoch(record: dict[str, Any]) -> bool:
        nonlocal go_on
        checkpoint = None
        record["so_far"] = so_far(spec, training, state)
        record["system"] = by_node(gather_objects(meter.take()))
        telling.stamp(record)
        if rank() == 0:
            checkpoint = save(training, state, about, directory)
            pictures.after_epoch()
            telling.epoch(record)
        go_on = broadcast_object(on_epoch(record, checkpoint) if on_epoch is not None else True)
        return go_on

    with at("training", "detector"):
        fit(training, state, after_epoch)
    return not go_on
