"""What is known of a run: before it trains, and the content of summary.json after."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from dbf_ray.build import RunSpec
from dbf_ray.build.stored import origin_of
from dbf_ray.config import Config, to_dict
from dbf_ray.data import sizes_of
from dbf_ray.data.described import described
from dbf_ray.freezing import budget
from dbf_ray.machine import usable_cpus
from dbf_ray.run.naming import run_name
from dbf_ray.run.resume import best_epoch
from dbf_ray.run.same_data import DataRecord
from dbf_ray.run.telling import TOTALS, tracking_of
from dbf_ray.tracking.origin import code_version
from dbf_ray.training.checkpoint import list_checkpoints, name_of
from dbf_ray.training.ddp import broadcast_object, rank, world_size
from dbf_ray.training.loop import LoopState, Training


def facts_of(config: Config, spec: RunSpec) -> dict[str, Any]:
    """What is known of a run before it trains; ``spec`` is made from ``config``."""
    begun = config.detector.weights_checkpoint
    return {
        "name": run_name(config),
        "began_with": None if begun is None else origin_of(Path(begun).expanduser()),
        "policy": spec.policy.name,
        "parameters": spec.policy.parameters(),
        "rho": spec.policy.parameters().get("rho"),
        "seed": config.seed,
        "num_stages": spec.num_stages,
        "frozen_prefixes": spec.frozen_prefixes,
        "budget": spec.budget,
        "compute_ratio": spec.compute_ratio,
        "analytic_ratio": spec.analytic_ratio,
        "backbone_share": spec.backbone_share,
        "norm_eval": config.detector.norm_eval,
        "expected_hit_rate": None if spec.forecast is None else spec.forecast.hit_rate,
        "eval_split": spec.eval_split,
        "datasets": [
            described(dataset, config.data.name, config.data.root, split)
            for split, dataset in {"train": spec.train_set, spec.eval_split: spec.eval_set}.items()
        ],
        "train_images": len(spec.train_set),
        "eval_images": len(spec.eval_set),
        "world_size": world_size(),
        "machine": machine(),
        "versions": versions(),
        "code": code_version(),
    }


def about_run(config: Config, spec: RunSpec, data: DataRecord) -> dict[str, Any]:
    """What is known of a run before it trains, as the records of its checkpoints hold it."""
    facts = facts_of(config, spec) | data.as_facts()
    facts |= {"forked_from": None, "pieces": [piece_of(facts, 0)]}
    return {"config": to_dict(config), "window": training_window(spec), "facts": facts}


def piece_of(facts: Mapping[str, Any], epoch: int) -> dict[str, Any]:
    """What trains from ``epoch`` on: machine, number of workers, versions."""
    return {"epoch": epoch, **{name: facts[name] for name in ("machine", "world_size", "versions")}}


def lineage(
    known: Mapping[str, Any], facts: Mapping[str, Any], epoch: int, state: str | None
) -> dict[str, Any]:
    """What the facts of a run say of what it goes on from.

    Args:
        known: facts of the checkpoint that it goes on from.
        facts: its own.
        epoch: where that is.
        state: what that is called, if it is another run's; None: its own.

    Returns:
        ``forked_from`` (run, epoch, state; None without) and ``pieces``: which machine, how many workers
        and which versions trained from which epoch on.
    """
    pieces, now = list(known.get("pieces") or ()), piece_of(facts, epoch)
    if not pieces or {**pieces[-1], "epoch": epoch} != now:
        pieces.append(now)
    if state is None:
        return {"pieces": pieces, "forked_from": known.get("forked_from")}
    return {"pieces": pieces, "forked_from": {"run": known["name"], "epoch": epoch, "state": state}}


def summarize(
    spec: RunSpec,
    facts: Mapping[str, Any],
    training: Training,
    state: LoopState,
    directory: Path,
    stopped_early: bool,
) -> dict[str, Any]:
    """The content of summary.json; ``facts`` as :func:`facts_of` gives them."""
    prefixes = training.scheduler.state.prefixes
    steps = prefix_steps(state.records)
    evaluated = [record for record in state.records if record["map50"] is not None]
    last = evaluated[-1] if evaluated else {}
    scores = [record["map50"] for record in evaluated]
    checkpoint = list_checkpoints(directory / "checkpoints") if rank() == 0 else []
    summary = {
        **facts,
        "epochs": len(state.records),
        "frozen_prefixes": prefixes,
        "budget": budget(prefixes, spec.num_stages),
        "steps_per_prefix": {str(prefix): count for prefix, count in sorted(steps.items())},
        **{key: last.get(key) for key in ("map50", "map50_voc07", "map75", "map50_95")},
        "map50_best": max((s for s in scores if s == s), default=None),
        **{key: value for key, value in last.items() if key.startswith(("ap50/", "merged/"))},
        "compute_ratio": spec.cost_of(list(steps), list(steps.values())),
        "analytic_ratio": spec.analytic_cost_of(list(steps), list(steps.values())),
        **training.ledger.totals(),
        "epochs_trained": sum("inherited" not in record for record in state.records),
        "own": training.ledger.own(),
        **tracking_of(state.records),
        "checkpoint": str(checkpoint[-1]) if checkpoint else None,
        "stopped_early": stopped_early,
    }
    if rank() == 0 and (best := best_epoch(state.records)) is not None:
        kept = directory / "checkpoints" / name_of(best)
        summary["checkpoint_best"] = str(kept) if kept in checkpoint else None
    return broadcast_object(summary)


def so_far(spec: RunSpec, training: Training, state: LoopState) -> dict[str, Any]:
    """What the epochs of ``state`` have cost, repeats and what was inherited included; ``compute_ratio`` is
    over a *whole* full training, so that it ends as the run's.
    """
    steps, totals = prefix_steps(state.records), training.ledger.totals()
    share = len(state.records) / training.epochs
    found = {name: totals[name] for name in TOTALS}
    found["compute_ratio"] = share * spec.cost_of(list(steps), list(steps.values()))
    found["tracking_seconds"] = tracking_of(state.records)["tracking_seconds"]
    if any("inherited" in record for record in state.records):
        found["own_executed_flops"] = training.ledger.own()["executed_flops"]
    return found


def prefix_steps(records: Sequence[dict[str, Any]]) -> dict[int, int]:
    """Optimizer steps that each frozen prefix had, over all epochs' records."""
    total: dict[int, int] = {}
    for record in records:
        for prefix, steps in record["steps_per_prefix"].items():
            total[int(prefix)] = total.get(int(prefix), 0) + steps
    return total


def training_window(spec: RunSpec) -> int:
    """Pixels that ``data.image_size`` pixels stand for: the median long side of the training images as they
    are stored.
    """
    sizes = sizes_of(spec.train_set)
    return round(statistics.median(max(size) for size in sizes)) if sizes else spec.images.size


def machine() -> str:
    """The machine, in words: processor, cores and threads in use, GPU."""
    processor = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:
            processor = next(
                line.split(":", 1)[1].strip() for line in stream if line.startswith("model name")
            )
    except (OSError, StopIteration):
        pass
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{processor}, {usable_cpus()} cores, {torch.get_num_threads()} threads{gpu}"


def versions() -> dict[str, str]:
    """Versions of what a result may depend on."""
    return dict(_versions())


@functools.cache
def _versions() -> dict[str, str]:
    """Read once: every checkpoint asks, and reading the packages' metadata takes a tenth of a second."""
    found = {"python": platform.python_version()}
    for package in ("dbf-ray", "torch", "torchvision", "ray", "optuna", "mlflow", "numpy"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
