"""Which parameters and metrics of a run go to a comparison UI, and under which names: few, numeric where they
can be, and stable.

A UI that shows a hundred runs side by side is only readable if every run has the same short list. Everything
else is in config.yaml, which is stored as an artifact.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from dbf_ray.config import FreezingConfig
from dbf_ray.values import flat

# Parameter name -> place in the configuration.
PARAMETERS = {
    "policy": "freezing.policy",
    "seed": "seed",
    "epochs": "training.epochs",
    "lr": "training.lr",
    "batch_size": "training.batch_size",
    "optimizer": "training.optimizer",
    "weight_decay": "training.weight_decay",
    "backbone_lr_factor": "training.backbone_lr_factor",
    "precision": "training.precision",
    "image_size": "data.image_size",
    "data": "data.name",
    "detector": "detector.name",
    "backbone": "detector.backbone",
    "fpn_channels": "detector.fpn_channels",
    "head_convs": "detector.head_convs",
    "always_frozen_stages": "detector.frozen_stages",
    "norm_eval": "detector.norm_eval",
    "workers": "cluster.workers",
    "ema": "training.ema",
    "interval_unit": "freezing.interval.unit",
    "interval_every": "freezing.interval.every",
    "thaw_momentum": "freezing.momentum",
    "rewarm_steps": "freezing.rewarm_steps",
    "rewarm_after": "freezing.rewarm_after",
    "engine": "freezing.engine",
    "cache": "freezing.cache",
    "orientation_per": "data.orientation_per",
}
FACTS = ("rho", "num_stages", "budget", "backbone_share", "world_size", "machine")
# names that a policy's parameter must not hide; rho is the policy's own
TAKEN = {*PARAMETERS, *FACTS} - {"rho"}
TOTALS = (
    "executed_flops",
    "device_seconds",
    "wall_seconds",
    "allreduce_bytes",
    "energy_joules",
    "cache_seconds_saved",
)
SUMMARY = (
    *("map50", "map50_best", "map50_voc07", "map75", "map50_95", "merged/map50", "merged/map50_95"),
    *(
        "compute_ratio",
        "budget",
        "backbone_share",
        "peak_memory_bytes",
        "mean_memory_bytes",
        "data_wait_share",
    ),
)
# of one epoch other than of the whole run
EPOCH_COSTS = (*TOTALS, "peak_memory_bytes", "mean_memory_bytes", "data_wait_share")
LONGEST_NAME = 240  # MLflow takes 250 signs
EPOCHS_DONE = "epochs_done"  # logged with every epoch: which steps a run already has


def parameters_of(config: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, str]:
    """The parameters to log, as text: the listed ones, the policy's own (``rho``, ``phase``) and facts known
    before training.
    """
    named = {name: _at(config, place) for name, place in PARAMETERS.items()}
    freezing = config.get("freezing") or {}
    own = {name: value for name, value in freezing.items() if name not in FreezingConfig.model_fields}
    named.update({f"policy_{name}" if name in TAKEN else name: value for name, value in own.items()})
    named.update({name: facts[name] for name in FACTS if facts.get(name) is not None})
    return {name: _as_text(value) for name, value in named.items() if value is not None}


def _as_text(value: Any) -> str:
    """A parameter as text that a table can show."""
    text = json.dumps(value) if isinstance(value, list | dict) else str(value)
    return text if len(text) <= LONGEST_NAME else text[: LONGEST_NAME - 3] + "..."


def epoch_metrics(record: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of one epoch record, nested ones with a slash (``losses/box``); missing and non-finite
    values are left out.

    Costs are named ``epoch_<cost>``, so that those of the whole run are never mixed with them. Names are
    :func:`valid_names`.
    """
    names = valid_names(flat(record, "/"))
    metrics = {
        f"epoch_{name}" if name in EPOCH_COSTS else names[name]: value
        for name, value in _numbers(record)
        if name != "epoch"
    }
    return {**metrics, EPOCHS_DONE: float(record["epoch"] + 1)}


def summary_metrics(summary: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a finished run: final metrics, and costs as ``total_<cost>``; of one that began at
    another's checkpoint also those that it did not inherit, as ``own_<cost>``.
    """
    values = dict(_numbers({name: summary.get(name) for name in SUMMARY}))
    values.update(
        {f"total_{name}": value for name, value in _numbers({name: summary.get(name) for name in TOTALS})}
    )
    own = summary.get("own") or {}
    if summary.get("forked_from") and own.get("executed_flops") is not None:
        values["own_executed_flops"] = float(own["executed_flops"])
    return values


def valid_names(names: Iterable[str]) -> dict[str, str]:
    """Each name as every MLflow store takes it: signs other than letters, digits and ``_-. /`` become ``_``,
    and so do empty parts of a path.

    Where two become the same, the later one gets a number (``ap50/a_b``, ``ap50/a_b_2``).
    """
    valid: dict[str, str] = {}
    for name in names:
        parts = re.sub(r"[^\w\-. /]", "_", name)[:LONGEST_NAME].split("/")
        made = candidate = "/".join(part if part.strip(".") else "_" for part in parts)
        copy = 1
        while candidate in valid.values():
            copy += 1
            candidate = f"{made}_{copy}"
        valid[name] = candidate
    return valid


def _numbers(tree: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in flat(tree, "/").items():
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            yield name, float(value)


def _at(tree: Mapping[str, Any], place: str) -> Any:
    node: Any = tree
    for part in place.split("."):
        if not isinstance(node, Mapping):
            return None
        node = node.get(part)
    return node
