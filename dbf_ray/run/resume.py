"""From a run's folder to a training that resumes: which checkpoint, and what is in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from dbf_ray.build import resolved
from dbf_ray.build.stored import stored_config
from dbf_ray.config import Config, differences, identity
from dbf_ray.errors import ConfigError, WeightsError
from dbf_ray.locks import reading
from dbf_ray.tracking import read_summary
from dbf_ray.training.checkpoint import (
    load_checkpoint,
    newest_whole,
    random_state,
    restore_random_state,
    save_checkpoint,
)
from dbf_ray.training.ddp import decided
from dbf_ray.training.loop import LoopState, Training
from dbf_ray.values import finite


def find_resume(config: Config, directory: Path) -> Path | None:
    """The newest whole checkpoint of the run's folder, or None where there are none to resume from.

    Raises:
        ConfigError: the folder's run is finished, or was started with another configuration.
        WeightsError: the folder has checkpoints, and not one is whole.
        ResourceError: another process trains there, and has removed what was to be read.
    """
    if (summary := read_summary(directory)) is not None and not summary.get("stopped_early"):
        raise ConfigError(
            f"run {directory.name!r} in {directory.parent} is finished (map50 {summary.get('map50')}); give "
            "another --name, or remove the folder to train it again"
        )
    with reading(directory, "training", "give another --name"):
        checkpoint = decided(lambda: _newest_whole(directory))
        if checkpoint is None:
            return None
        begun = stored_config(checkpoint)
    if differing := differences(identity(resolved(begun)), identity(resolved(config))):
        raise ConfigError(
            f"run {directory.name!r} in {directory.parent} was started with another configuration, it "
            f"differs in {', '.join(differing)}; give the same, or another --name"
        )
    return checkpoint


def _newest_whole(directory: Path) -> Path | None:
    folder = directory / "checkpoints"
    try:
        return newest_whole(folder)
    except WeightsError as error:
        raise WeightsError(
            f"run {directory.name!r} in {directory.parent} cannot be resumed: {error}; remove {folder} to "
            "train it from the beginning, or give another --name"
        ) from error


def save(training: Training, state: LoopState, about: dict[str, Any], directory: Path) -> Path:
    """Write a checkpoint of everything that training needs to resume; its record holds what is known
    ``about`` the run. The newest stay, and the best one where that is wanted.
    """
    asked = about["config"]["training"]
    tensors = {
        "model": training.detector.state_dict(),
        "optimizer": training.optimizer.state_dict(),
        "scheduler": training.scheduler.state_dict(),
        "ledger": training.ledger.state_dict(),
        "epoch": state.epoch,
        "random": random_state(),
    }
    if training.frozen is not None:
        tensors["frozen"] = training.frozen.state_dict()
    if training.micro_batches is not None:
        tensors["micro_batches"] = training.micro_batches.state_dict()
    if training.average is not None:
        tensors["ema"] = training.average.state_dict()
    record = finite({**about, "classes": training.classes, "epochs": state.records})
    best = best_epoch(state.records) if asked["keep_best"] else None
    return save_checkpoint(
        directory / "checkpoints", state.epoch, tensors, record, asked["keep_checkpoints"], best
    )


def best_epoch(records: Sequence[Mapping[str, Any]]) -> int | None:
    """After how many epochs map50 was best, the first of equals; None where it was never a number."""
    scores = [(record.get("map50"), place) for place, record in enumerate(records, 1)]
    known = [(score, -place) for score, place in scores if score is not None and score == score]
    return -max(known)[1] if known else None


def restore(training: Training, state: LoopState, checkpoint: Path, *, fork: bool = False) -> dict[str, Any]:
    """Undo of :func:`save`, on every rank.

    Args:
        training, state: what goes on.
        checkpoint: where it goes on.
        fork: it is another run's, which has trained alike up to there: what it cost is inherited, and each of
            its epochs' records says in ``inherited`` which run trained it.

    Returns:
        The facts of the run that wrote it.
    """
    try:
        tensors, record = load_checkpoint(checkpoint, training.device)
    except WeightsError as error:
        raise WeightsError(f"{error}, or remove it to go on from one before it") from error
    if record.get("classes") != training.classes:
        raise ConfigError(
            f"checkpoint {checkpoint} was trained for classes {record.get('classes')}, this run has "
            f"{training.classes}"
        )
    try:
        return _put_in(training, state, tensors, record, fork)
    except torch.OutOfMemoryError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise WeightsError(
            f"checkpoint {checkpoint} must hold the state of a run like this one, it does not "
            f"({type(error).__name__}: {reason}); remove it to go on from one before it"
        ) from error


def _put_in(
    training: Training, state: LoopState, tensors: dict[str, Any], record: dict[str, Any], fork: bool
) -> dict[str, Any]:
    training.detector.load_state_dict(tensors["model"])
    training.optimizer.load_state_dict(tensors["optimizer"])
    training.ledger.load_state_dict(tensors["ledger"], inherit=fork)
    training.scheduler.load_state_dict(tensors["scheduler"])
    if training.average is not None:
        training.average.load_state_dict(tensors["ema"])
    # another run may have run frozen stages otherwise, as long as none was frozen
    if training.frozen is not None and "frozen" in tensors:
        training.frozen.load_state_dict(tensors["frozen"])
    if training.micro_batches is not None and "micro_batches" in tensors:
        training.micro_batches.load_state_dict(tensors["micro_batches"])
    restore_random_state(tensors["random"])
    facts: dict[str, Any] = record.get("facts") or {}
    inherited = {"inherited": facts["name"]} if fork else {}
    state.epoch, state.records = tensors["epoch"], [inherited | epoch for epoch in record["epochs"]]
    return facts
