"""One training run, without Ray: configuration in, record out.

The run's folder holds config.yaml, epochs.jsonl, summary.json and checkpoints/; a checkpoint alone restores weights, optimizer,
policy, ledger and the record so far. Inside an initialised process group every rank calls :func:`run`; rank 0 writes.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
import platform
import re
import statistics
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from dbf_ray.build import Plan, build_training, prepare
from dbf_ray.build_frozen import augmentation
from dbf_ray.config import Config, make_config, save_config, to_dict
from dbf_ray.data import sizes_of
from dbf_ray.detectors import DETECTORS, with_defaults
from dbf_ray.errors import ConfigError, DbfRayError
from dbf_ray.freezing import budget
from dbf_ray.locks import only_writer
from dbf_ray.tracking import MlflowTarget, Tracker, make_trackers, read_summary, resolve_uri
from dbf_ray.tracking.base import finite
from dbf_ray.training.checkpoint import list_checkpoints, load_checkpoint, random_state, restore_random_state, save_checkpoint
from dbf_ray.training.ddp import broadcast_object, rank, world_size
from dbf_ray.training.loop import LoopState, Training, fit
from dbf_ray.training.scheduler import SchedulerState

LOCK_PATIENCE = 10.0  # seconds: the process of a worker that is being replaced may still be ending
OnEpoch = Callable[[dict[str, Any], Path | None], bool]


def run(
    config: Config,
    *,
    directory: Path | None = None,
    trackers: Sequence[Tracker] | None = None,
    on_epoch: OnEpoch | None = None,
    resume: Path | None = None,
    label: str = "",
    quiet: bool = False,
) -> dict[str, Any]:
    """Train one configuration.

    Args:
        config: the run.
        directory: the run's folder; None: ``runs_dir/name``.
        trackers: who is told of it; None: JSON lines and, if configured, MLflow. Used on rank 0 only.
        on_epoch: called on every rank after each epoch with its record and, on rank 0, the checkpoint written; when rank 0's answer is
            False the run ends.
        resume: checkpoint folder to go on from; None: from the beginning.
        label: put before every line of progress.
        quiet: print no progress.

    Returns:
        The content of summary.json, on every rank.

    Raises:
        DbfRayError: bad input, before training; or a training that had to stop.
    """
    directory = directory or run_directory(config)
    if config.training.threads is not None:
        torch.set_num_threads(config.training.threads)
    plan = prepare(config)
    writes = rank() == 0
    with only_writer(directory, "training", "give another --name", LOCK_PATIENCE) if writes else contextlib.nullcontext():
        training = build_training(plan, journal=directory / "costs.jsonl", features=directory / "features", label=label, quiet=quiet)
        for line in notes_of(plan):
            training.progress.note(line)
        state = LoopState()
        if resume is not None:
            restore(training, state, resume)
        told: Sequence[Tracker] = []
        if writes:
            told = make_trackers(directory, mlflow_target(config)) if trackers is None else trackers
        for tracker in told:
            tracker.start(to_dict(config), facts_of(plan), state.epoch)
            for record in state.records:
                tracker.epoch(record)
        try:
            stopped_early = _train(plan, training, state, directory, told, on_epoch)
        except BaseException as error:
            reason = str(error) if isinstance(error, DbfRayError) else f"{type(error).__name__}: {error}"
            for tracker in told:
                tracker.fail(reason)
            if isinstance(error, DbfRayError) and training.frozen is not None:  # not a crash: the same would only come again
                training.frozen.close()
            raise
        summary = summarize(plan, training, state, directory, stopped_early)
        if training.frozen is not None and not stopped_early:
            training.frozen.close()
        pictures = draw(directory, state, plan) if writes else []
        for tracker in told:
            tracker.finish(summary, pictures)
    return summary


def notes_of(plan: Plan) -> list[str]:
    """What is worth saying before a run trains: what its cache will do, and how its micro-batches are chosen."""
    notes = [] if plan.forecast is None else [str(plan.forecast)]
    options = ", ".join(f"data.augment.{name}" for name in augmentation(plan.config).switched_on)
    if plan.config.freezing.cache != "off" and options:
        notes.append(f"feature cache: off, since {options} leave no image that comes twice")
    elif plan.config.freezing.cache != "off" and plan.forecast is None:
        why = "the policy decides while it trains" if plan.frozen_prefixes is None else "blocks of freezing.interval are not whole epochs"
        notes.append(f"feature cache: how often it will hit is not known beforehand, since {why}")
    if plan.micro_batches is not None:
        counts = ", ".join(f"{count} with {n} stages frozen" for n, count in enumerate(plan.micro_batches))
        notes.append(f"micro-batches of a step within {plan.config.training.micro_batch_gb:g} GB: {counts}")
    return notes


def _train(plan: Plan, training: Training, state: LoopState, directory: Path, told: Sequence[Tracker], on_epoch: OnEpoch | None) -> bool:
    """Train from ``state`` on, with a checkpoint and word to the trackers after each epoch; returns whether it was stopped early."""
    go_on = True

    def after_epoch(record: dict[str, Any]) -> bool:
        nonlocal go_on
        checkpoint = None
        if rank() == 0:
            checkpoint = save(training, state, plan.config, directory, plan)
            for tracker in told:
                tracker.epoch(record)
        go_on = broadcast_object(on_epoch(record, checkpoint) if on_epoch is not None else True)
        return go_on

    fit(training, state, after_epoch)
    return not go_on


def run_name(config: Config) -> str:
    """The run's name: the configured one, or made from what varies between runs."""
    if config.name:
        return config.name
    parameters = "".join(f"-{key}{_in_a_name(value)}" for key, value in sorted(config.freezing.parameters.items()))
    interval = config.freezing.interval
    held = "" if (interval.unit, interval.every) == ("epochs", 1) else f"-every{interval.every}{interval.unit}"
    return f"{config.freezing.policy}{parameters}{held}-{config.detector.backbone}-{config.data.name}-seed{config.seed}"


def _in_a_name(value: Any) -> str:
    """A parameter as part of a folder's name: short, and different for different values."""
    if isinstance(value, dict):
        return "".join(f"-{key}{_in_a_name(part)}" for key, part in sorted(value.items()))
    text = "_".join(map(_in_a_name, value)) if isinstance(value, list | tuple) else str(value)
    safe = re.sub(r"[^\w.+-]", "_", text)
    return safe if len(safe) <= 24 else f"{safe[:12]}~{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def run_directory(config: Config) -> Path:
    """The folder of a run."""
    return config.runs_dir / run_name(config)


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
    differing = _differences(_effective(record["config"], checkpoints[-1]), _effective(to_dict(config), checkpoints[-1]))
    if differing:
        raise ConfigError(
            f"run {directory.name!r} in {directory.parent} was started with another configuration, it differs in {', '.join(differing)}; "
            "give the same, or another --name"
        )
    return checkpoints[-1]


def save(training: Training, state: LoopState, config: Config, directory: Path, plan: Plan) -> Path:
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
    if training.average is not None:
        tensors["ema"] = training.average.state_dict()
    facts = {"epochs": state.records, "facts": facts_of(plan)}
    record = finite({"config": to_dict(config), "classes": training.classes, "window": training_window(plan), **facts})
    return save_checkpoint(directory / "checkpoints", state.epoch, tensors, record, config.training.keep_checkpoints)


def restore(training: Training, state: LoopState, checkpoint: Path) -> None:
    """Undo of :func:`save`, on every rank."""
    tensors, record = load_checkpoint(checkpoint, training.device)
    if record["classes"] != training.classes:
        raise ConfigError(f"checkpoint {checkpoint} was trained for classes {record['classes']}, this run has {training.classes}")
    training.detector.load_state_dict(tensors["model"])
    training.optimizer.load_state_dict(tensors["optimizer"])
    training.ledger.load_state_dict(tensors["ledger"])
    scheduler = training.scheduler
    scheduler.load_state_dict(tensors.get("scheduler") or _older_scheduler(tensors["policy"], record["epochs"], scheduler.num_stages))
    if training.average is not None:
        training.average.load_state_dict(tensors["ema"])
    if training.frozen is not None and "frozen" in tensors:
        training.frozen.load_state_dict(tensors["frozen"])
    restore_random_state(tensors["random"])
    state.epoch, state.records = tensors["epoch"], record["epochs"]


def _older_scheduler(policy: dict[str, Any], records: list[dict[str, Any]], num_stages: int) -> dict[str, Any]:
    """The scheduler's state in a checkpoint from when a decision always held for an epoch, and no policy heard of signals."""
    prefixes = [record["frozen_stages"] for record in records]
    state = SchedulerState(policy, prefixes, frozen_blocks=[0] * num_stages, thawed_at=[None] * num_stages)
    return {"state": vars(state), "signals": {}}


def training_window(plan: Plan) -> int:
    """Pixels that ``data.image_size`` pixels stand for: the median long side of the training images as they are stored."""
    sizes = sizes_of(plan.train_set)
    return round(statistics.median(max(size) for size in sizes)) if sizes else plan.config.data.image_size


def facts_of(plan: Plan) -> dict[str, Any]:
    """What is known of a run before it trains."""
    return {
        "name": run_name(plan.config),
        "policy": plan.policy.name,
        "parameters": plan.policy.parameters(),
        "rho": plan.policy.parameters().get("rho"),
        "seed": plan.config.seed,
        "num_stages": plan.num_stages,
        "frozen_prefixes": plan.frozen_prefixes,
        "budget": plan.budget,
        "compute_ratio": plan.compute_ratio,
        "analytic_ratio": plan.analytic_ratio,
        "backbone_share": plan.backbone_share,
        "norm_eval": plan.config.detector.norm_eval,
        "expected_hit_rate": None if plan.forecast is None else plan.forecast.hit_rate,
        "eval_split": plan.eval_split,
        "train_images": len(plan.train_set),
        "eval_images": len(plan.eval_set),
        "world_size": world_size(),
        "machine": machine(),
        "versions": versions(),
    }


def summarize(plan: Plan, training: Training, state: LoopState, directory: Path, stopped_early: bool) -> dict[str, Any]:
    """The content of summary.json."""
    prefixes = training.scheduler.state.prefixes
    steps = prefix_steps(state.records)
    evaluated = [record for record in state.records if record["map50"] is not None]
    last = evaluated[-1] if evaluated else {}
    scores = [record["map50"] for record in evaluated]
    checkpoint = list_checkpoints(directory / "checkpoints") if rank() == 0 else []
    summary = {
        **facts_of(plan),
        "epochs": len(state.records),
        "frozen_prefixes": prefixes,
        "budget": budget(prefixes, plan.num_stages),
        **{key: last.get(key) for key in ("map50", "map50_voc07", "map75", "map50_95")},
        "map50_best": max((s for s in scores if s == s), default=None),
        **{key: value for key, value in last.items() if key.startswith(("ap50/", "merged/"))},
        "compute_ratio": plan.cost_of(list(steps), list(steps.values())),
        "analytic_ratio": plan.analytic_cost_of(list(steps), list(steps.values())),
        **training.ledger.totals(),
        "checkpoint": str(checkpoint[-1]) if checkpoint else None,
        "stopped_early": stopped_early,
    }
    return broadcast_object(summary)


def prefix_steps(records: Sequence[dict[str, Any]]) -> dict[int, int]:
    """Optimizer steps that each frozen prefix had, over all epochs' records."""
    total: dict[int, int] = {}
    for record in records:
        for prefix, steps in record.get("steps_per_prefix", {record["frozen_stages"]: record["steps"]}).items():
            total[int(prefix)] = total.get(int(prefix), 0) + steps
    return total


def draw(directory: Path, state: LoopState, plan: Plan) -> list[Path]:
    """The learning curve of a finished run as PNG; nothing, and a warning, where it cannot be drawn."""
    try:
        from dbf_ray.reports.curves import learning_curves, learning_png
        from dbf_ray.reports.study import replace_file
    except ImportError:
        return []
    file = directory / "learning_curve.png"
    try:
        replace_file(file, learning_png(learning_curves({run_name(plan.config): state.records}, plan.num_stages)))
    except Exception as error:  # a picture must not cost the record
        warnings.warn(f"cannot draw {file}: {type(error).__name__}: {error}", stacklevel=2)
        return []
    return [file]


def mlflow_target(config: Config) -> MlflowTarget | None:
    """Where in MLflow a single run goes; None if it is switched off."""
    if not config.tracking.mlflow:
        return None
    return MlflowTarget(uri=resolve_uri(config.tracking.uri), experiment=config.tracking.experiment, run_name=run_name(config))


def machine() -> str:
    """The machine, in words: processor, cores and threads in use, GPU."""
    processor = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:
            processor = next(line.split(":", 1)[1].strip() for line in stream if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{processor}, {os.cpu_count()} cores, {torch.get_num_threads()} threads{gpu}"


def versions() -> dict[str, str]:
    """Versions of what a result may depend on."""
    found = {"python": platform.python_version()}
    for package in ("dbf-ray", "torch", "torchvision", "ray", "optuna", "mlflow", "numpy"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


# What may change between a run's start and its resume: where things are and how they are run, not what is trained.
MAY_DIFFER = (
    *("name", "runs_dir", "tracking", "cluster", "search", "data.loader_workers", "training.keep_checkpoints", "training.threads"),
    *("training.device", "evaluation.batch_size", "data.prefetch", "data.decoded_gb", "freezing.cache_gb", "freezing.cache_dir"),
)
PATHS = ("data.root", "detector.weights_backbone", "detector.weights_mmrotate")


def _effective(tree: dict[str, Any], checkpoint: Path) -> dict[str, Any]:
    """A configuration with everything in it that it leaves to defaults, so that one from an older version can be compared."""
    frozen = {"engine": False, **tree.get("freezing", {})}  # before there was an engine there was none
    tree = to_dict(make_config({**tree, "freezing": frozen}, f"checkpoint {checkpoint}"))
    detector = tree["detector"]
    if detector["head_convs"] is None and detector["name"] in DETECTORS:
        detector["head_convs"] = with_defaults(detector["name"], {})["head_convs"]
    return tree


def _differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key in sorted(old.keys() | new.keys()):
        dotted, was, now = f"{prefix}{key}", old.get(key), new.get(key)
        if dotted in PATHS and was is not None and now is not None and Path(was).absolute() == Path(now).absolute():
            continue
        if dotted in MAY_DIFFER:
            continue
        if isinstance(was, dict) and isinstance(now, dict):
            found += _differences(was, now, f"{dotted}.")
        elif was != now:
            found.append(f"{dotted} ({was!r}, now {now!r})")
    return found


__all__ = ["find_resume", "run", "run_directory", "run_name", "save_config"]
