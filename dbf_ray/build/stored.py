"""What a checkpoint holds for others than the run that wrote it: its configuration, and its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from dbf_ray.config import Config, make_config
from dbf_ray.detectors import Detector
from dbf_ray.errors import ConfigError, WeightsError
from dbf_ray.training.checkpoint import load_checkpoint, read_record, whole_checkpoint
from dbf_ray.training.manifest import digest_of


def stored_config(checkpoint: Path) -> Config:
    """The configuration in a checkpoint's record.

    Raises:
        WeightsError: the record cannot be read, or holds none that this version understands.
    """
    record = read_record(checkpoint)
    try:
        return make_config(record["config"], f"checkpoint {checkpoint}")
    except (KeyError, TypeError, ConfigError) as error:
        raise WeightsError(
            f"checkpoint {checkpoint} must hold a configuration that this version understands: {error}"
        ) from error


def stored_weights(state: Mapping[str, Any], record: Mapping[str, Any], checkpoint: Path) -> Any:
    """(classes, weights) of a loaded checkpoint; of the average, where it was what was evaluated.

    Raises:
        WeightsError: it lacks them.
    """
    try:
        return list(record["classes"]), state.get("ema", state)["model"]
    except (KeyError, TypeError) as error:
        raise WeightsError(
            f"checkpoint {checkpoint} lacks {error}; it must be one that a run of this project wrote"
        ) from error


def fit_weights(
    detector: Detector, weights: Mapping[str, Tensor], checkpoint: Path, kind: str, step: str
) -> None:
    """Load weights into a detector of a ``kind``; ``step``: what to do if they do not fit.

    Raises:
        WeightsError: naming the first tensor that does not fit.
    """
    try:
        detector.load_state_dict(weights)
    except (RuntimeError, TypeError, AttributeError) as error:
        first = [line.strip() for line in str(error).splitlines()[1:]] or [str(error)]
        raise WeightsError(
            f"the weights of checkpoint {checkpoint} do not fit {kind}: {first[0]}; {step}"
        ) from error


def begin_with(detector: Detector, checkpoint: Path, classes: Sequence[str], kind: str) -> None:
    """Give a detector that is to be trained the weights of another run's checkpoint.

    Raises:
        WeightsError: the checkpoint cannot be read, has other classes, or its weights do not fit.
    """
    whole = whole_checkpoint(checkpoint)
    found, weights = stored_weights(*load_checkpoint(whole), whole)
    if found != list(classes):
        raise WeightsError(
            f"`weights_checkpoint` must have the classes of this run, {', '.join(classes)}, {whole} has "
            f"{', '.join(map(str, found))}; give the same data.classes, or begin without it"
        )
    fit_weights(detector, weights, whole, kind, "give the detector options it was trained with")


def origin_of(checkpoint: Path) -> dict[str, Any]:
    """Which checkpoint a run began with, as its record holds it.

    Raises:
        WeightsError: it cannot be read.
    """
    whole = whole_checkpoint(checkpoint)
    record = read_record(whole)
    return {
        "run": (record.get("facts") or {}).get("name"),
        "epoch": len(record.get("epochs") or ()),
        "checkpoint": str(whole),
        "sha256": digest_of(whole),
    }
