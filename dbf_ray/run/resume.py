"""From a run's folder to a training that resumes: which checkpoint, what is in it, and what may have changed
since.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dbf_ray.build import RunSpec
from dbf_ray.config import Config, make_config, to_dict
from dbf_ray.detectors import with_defaults
from dbf_ray.errors import ConfigError
from dbf_ray.run.summary import facts_of, training_window
from dbf_ray.tracking import read_summary
from dbf_ray.training.checkpoint import (
    list_checkpoints,
    load_checkpoint,
    random_state,
    restore_random_state,
    save_checkpoint,
)
from dbf_ray.training.loop import LoopState, Training
from dbf_ray.values import finite


def find_resume(config: Config, directory: Path) -> Path | None:
    """The newest whole checkpoint of the run's folder, or None where there is none to go on from.

    Raises:
        ConfigError: the folder's run is finished, or was started with another configuration.
    """
    if (summary := read_summary(directory)) is not None and not summary.get("stopped_early"):
        raise ConfigError(
            f"run {directory.name!r} in {directory.parent} is finished (map50 {summary.get('map50')}); "
            "give another --name, or remove the folder to train it again"
        )
    checkpoints = list_checkpoints(directory / "checkpoints")
    if not checkpoints:
        return None
    _, record = load_checkpoint(checkpoints[-1])
    differing = _differences(
        _effective(record["config"], checkpoints[-1]), _effective(to_dict(config), checkpoints[-1])
    )
    if differing:
        raise ConfigError(
            f"run {directory.name!r} in {directory.parent} was started with another configuration, it "
            f"differs in {', '.join(differing)}; "
            "give the same, or another --name"
        )
    return checkpoints[-1]


def save(training: Training, state: LoopState, config: Config, directory: Path, spec: RunSpec) -> Path:
    """Write a checkpoint of everything that training needs to go on."""
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
    facts = {"epochs": state.records, "facts": facts_of(spec)}
    record = finite(
        {"config": to_dict(config), "classes": training.classes, "window": training_window(spec), **facts}
    )
    return save_checkpoint(
        directory / "checkpoints", state.epoch, tensors, record, config.training.keep_checkpoints
    )


def restore(training: Training, state: LoopState, checkpoint: Path) -> None:
    """Undo of :func:`save`, on every rank."""
    tensors, record = load_checkpoint(checkpoint, training.device)
    if record["classes"] != training.classes:
        raise ConfigError(
            f"checkpoint {checkpoint} was trained for classes {record['classes']}, this run has "
            f"{training.classes}"
        )
    training.detector.load_state_dict(tensors["model"])
    training.optimizer.load_state_dict(tensors["optimizer"])
    training.ledger.load_state_dict(tensors["ledger"])
    training.scheduler.load_state_dict(tensors["scheduler"])
    if training.average is not None:
        training.average.load_state_dict(tensors["ema"])
    if training.frozen is not None and "frozen" in tensors:
        training.frozen.load_state_dict(tensors["frozen"])
    if training.micro_batches is not None and "micro_batches" in tensors:
        training.micro_batches.load_state_dict(tensors["micro_batches"])
    restore_random_state(tensors["random"])
    state.epoch, state.records = tensors["epoch"], record["epochs"]


# What may change between a run's start and its resume: where things are and how they are run, not what is
# trained.
MAY_DIFFER = (
    *(
        "name",
        "runs_dir",
        "tracking",
        "cluster",
        "search",
        "data.loader_workers",
        "training.keep_checkpoints",
        "training.threads",
    ),
    *(
        "training.device",
        "evaluation.batch_size",
        "data.prefetch",
        "data.decoded_gb",
        "freezing.cache_gb",
        "freezing.cache_dir",
    ),
)


PATHS = ("data.root", "detector.weights_backbone", "detector.weights_mmrotate")


def _effective(tree: dict[str, Any], checkpoint: Path) -> dict[str, Any]:
    """A configuration with everything in it that it leaves to defaults, so that one from an older version can
    be compared.
    """
    frozen = {"engine": False, **tree.get("freezing", {})}  # before there was an engine there was none
    tree = to_dict(make_config({**tree, "freezing": frozen}, f"checkpoint {checkpoint}"))
    detector = tree["detector"]
    if detector["head_convs"] is None:
        detector["head_convs"] = with_defaults(detector["name"], {})["head_convs"]
    return tree


def _differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key in sorted(old.keys() | new.keys()):
        dotted, was, now = f"{prefix}{key}", old.get(key), new.get(key)
        if (
            dotted in PATHS
            and was is not None
            and now is not None
            and Path(was).absolute() == Path(now).absolute()
        ):
            continue
        if dotted in MAY_DIFFER:
            continue
        if isinstance(was, dict) and isinstance(now, dict):
            found += _differences(was, now, f"{dotted}.")
        elif was != now:
            found.append(f"{dotted} ({was!r}, now {now!r})")
    return found
