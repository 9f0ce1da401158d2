"""Val, reported once and for the front alone: a search selects on images held out of train, so its own map50
values are those it chose by.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dbf_ray.config import Config, elsewhere, with_overrides
from dbf_ray.errors import DbfRayError
from dbf_ray.evaluate import config_of, metrics_of
from dbf_ray.files import write_json
from dbf_ray.tracking import read_summary
from dbf_ray.training.checkpoint import whole_checkpoint
from dbf_ray.values import finite

FILE = "val.json"


def validate_front(
    result: Mapping[str, Any],
    folder: Path,
    config: Config,
    show: Callable[[str], None],
    evaluate: Callable[[Path, Config], dict[str, float]] = metrics_of,
) -> None:
    """Evaluate the last checkpoint of each trial on the front on val, once; its metrics go to the trial's
    ``val.json``.

    Does nothing where trials were compared on val itself. A checkpoint that is not on this machine is left
    out, with a line that says so.

    Args:
        result: content of pareto.json.
        folder: where the trials' run folders are.
        config: the study's; what a trial drew (image size, backbone) is read from its checkpoint.
        show: called with each line for the person.
        evaluate: of a checkpoint folder and a configuration to metrics.
    """
    if config.data.selection_fraction == 0:
        return
    for number in result["front"]:
        trial = folder / str(number)
        summary = read_summary(trial)
        if summary is None or (trial / FILE).exists():
            continue
        try:
            checkpoint = whole_checkpoint(Path(str(summary["checkpoint"])))
            metrics = finite(evaluate(checkpoint, _trial_config(checkpoint, config)))
        except DbfRayError as error:
            show(f"trial {number}: not evaluated on val: {error}")
            continue
        write_json(trial / FILE, {**metrics, "checkpoint": str(checkpoint)})
        show(
            f"trial {number}, on the front: val map50 {_text(metrics['map50'])} (selection map50 "
            f"{_text(summary['map50'])})"
        )


def _trial_config(checkpoint: Path, config: Config) -> Config:
    """The configuration that the checkpoint was trained with, with the places and resources of the study."""
    trained = config_of(checkpoint)
    changes = elsewhere(trained, config)  # nothing of them is for Ray: an evaluation needs no workers
    return with_overrides(trained, {k: v for k, v in changes.items() if not k.startswith("cluster.")})


def val_map50(trial: Path) -> float | None:
    """map50 on val of a trial's run folder, None where it was not evaluated there."""
    try:
        value = json.loads((trial / FILE).read_text(encoding="utf-8"))["map50"]
    except (OSError, ValueError, KeyError):
        return None
    return value if isinstance(value, float) else None


def _text(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"
