"""Which metrics a run has in MLflow: names that stay, grouped by what is before the slash, each with its unit
and meaning (docs/tracking.md is made of this list).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from dbf_ray.values import flat

LONGEST_NAME = 240  # MLflow takes 250 signs
EPOCHS_DONE = "cost/epochs"  # logged with every epoch: which steps a run already has


class Metric(NamedTuple):
    """A metric; capitals in its name stand for what varies (``val/ap50/CLASS``)."""

    name: str
    unit: str
    meaning: str


METRICS = (
    Metric("val/map50", "fraction", "mean average precision at rotated IoU 0.5 (VOC2012 area)"),
    Metric("val/map50_best", "fraction", "the best map50 of the epochs so far"),
    Metric("val/map50_voc07", "fraction", "the same by VOC2007's eleven points"),
    Metric("val/map75", "fraction", "mean average precision at rotated IoU 0.75"),
    Metric("val/map50_95", "fraction", "mean over the IoUs 0.5, 0.55 .. 0.95"),
    Metric("val/ap50/CLASS", "fraction", "average precision of one class at IoU 0.5"),
    Metric("val/accuracy", "own", "what one's own training function reports"),
    Metric("merged/METRIC", "fraction", "each of val's on the images that patches were cut from"),
    Metric("train/loss", "1", "sum of the losses, mean over the epoch's steps"),
    Metric("train/loss_NAME", "1", "one loss (box, cls ...)"),
    Metric("train/lr", "1", "the largest learning rate at the epoch's end"),
    Metric("train/gradient_norm", "1", "of trained parameters before clipping, mean over the epoch's steps"),
    Metric("train/METRIC", "fraction", "of an evaluation of the training images, as val's"),
    Metric("own/NAME", "own", "a further number that one's own training function reports"),
    Metric("freezing/num_frozen", "stages", "leading stages frozen in most steps of the epoch"),
    Metric("freezing/mean_frozen", "stages", "the mean over the epoch's steps"),
    Metric("cost/epochs", "epochs", "done so far"),
    Metric(
        "cost/compute_ratio",
        "share",
        "nominal training FLOPs so far, over those of a whole full training; in a study the base's",
    ),
    Metric("cost/executed_flops", "FLOPs", "that really ran so far, repeated work included"),
    Metric("cost/own_executed_flops", "FLOPs", "of a fork, without what it inherited"),
    Metric("cost/device_seconds", "s", "of training steps so far, summed over ranks"),
    Metric("cost/data_wait_seconds", "s", "of these, waiting for data"),
    Metric("cost/wall_seconds", "s", "so far, evaluation included"),
    Metric("cost/tracking_seconds", "s", "inside tracker calls so far"),
    Metric("cost/allreduce_bytes", "bytes", "of gradients that one rank handed to all-reduce so far"),
    Metric("cost/energy_joules", "J", "of the devices in training steps so far, where NVML answers"),
    Metric("cost/peak_memory_bytes", "bytes", "the largest of any rank so far"),
    Metric("cost/mean_memory_bytes", "bytes", "mean over the time of steps so far"),
    Metric("cost/cache_seconds_saved", "s", "by cached features so far"),
    Metric("speed/images_per_second", "1/s", "trained in this epoch"),
    Metric("speed/data_wait_share", "share", "of the epoch's steps in which they waited for data"),
    Metric("speed/tracking_share", "share", "seconds inside tracker calls, over the epoch's"),
    Metric("speed/cache_hit_rate", "share", "of images whose frozen features came from the cache"),
    Metric("speed/epoch_wall_seconds", "s", "of this epoch, evaluation included"),
    Metric("speed/epoch_device_seconds", "s", "of this epoch's steps, summed over ranks"),
    Metric("speed/epoch_executed_flops", "FLOPs", "of this epoch"),
    Metric("speed/epoch_allreduce_bytes", "bytes", "of this epoch"),
    Metric("speed/epoch_peak_memory_bytes", "bytes", "of this epoch"),
    Metric("speed/epoch_mean_memory_bytes", "bytes", "of this epoch: it shows what freezing saves"),
    Metric("system/NODE/cpu_utilization_percentage", "%", "of all cores of a node, mean over the epoch"),
    Metric("system/NODE/system_memory_usage_percentage", "%", "of a node's memory, at the epoch's end"),
    Metric("system/NODE/system_memory_usage_megabytes", "MB", "of a node, at the epoch's end"),
    Metric("system/NODE/disk_usage_percentage", "%", "of the disk that a node works in"),
    Metric("system/NODE/network_receive_megabytes", "MB", "received by a node in the epoch"),
    Metric("system/NODE/network_transmit_megabytes", "MB", "sent by a node in the epoch"),
    Metric("system/NODE/gpu_N_utilization_percentage", "%", "of a GPU, mean of the driver's last samples"),
    Metric("system/NODE/gpu_N_memory_usage_percentage", "%", "of a GPU's memory, at the epoch's end"),
    Metric("search/trials", "trials", "of a study, complete"),
    Metric("search/runs", "runs", "of a study, complete: trials and their repeats with further seeds"),
    Metric("search/hypervolume", "share", "of what the reference spans, that the front dominates"),
    Metric("search/hypervolume_gain", "share", "the same, less what the baselines span alone"),
    Metric("search/front", "trials", "on the front"),
    Metric("search/epochs_trained", "epochs", "trained by all trials"),
    Metric("search/epochs_shared", "epochs", "that trials have from others"),
    Metric("search/best_ACCURACY", "as it", "of the most accurate trial"),
    Metric("predict/images", "images", "of a prediction"),
    Metric("predict/failed", "images", "that could not be read"),
    Metric("predict/windows", "windows", "looked at"),
    Metric("predict/detections", "objects", "found"),
    Metric("predict/seconds", "s", "for all of it"),
    Metric("predict/windows_per_second", "1/s", "windows over seconds"),
)

TRAIN = ("loss", "lr", "gradient_norm")
SPEED = (
    *("wall_seconds", "device_seconds", "executed_flops", "allreduce_bytes"),
    *("peak_memory_bytes", "mean_memory_bytes"),
)
SCORES = ("map50", "map50_voc07", "map75", "map50_95", "accuracy")
# of a record, what has no place in a chart: counts that the figures above are made of
LEFT_OUT = (
    *("epoch", "time", "frozen_stages", "steps", "attempt", "data_wait_seconds", "energy_joules"),
    *("cache_hits", "cache_misses", "cache_bytes", "cache_seconds_saved", "tracking_seconds"),
)


def is_listed(name: str) -> bool:
    """Whether a metric is one of :data:`METRICS`."""
    return any(re.fullmatch(_pattern(metric.name), name) for metric in METRICS)


def _pattern(name: str) -> str:
    return re.sub(r"(?<![A-Za-z])[A-Z]+(?![a-z])", ".+", name)


def scores(metrics: Mapping[str, Any], split: str = "val") -> dict[str, float]:
    """The figures of an evaluation on ``split``, and those on whole images."""
    named = {
        name if name.startswith("merged/") else f"{split}/{name}": value
        for name, value in metrics.items()
        if name in SCORES or name.startswith(("ap50/", "merged/"))
    }
    return _valid(named)


def epoch_metrics(
    records: Sequence[Mapping[str, Any]], full_share: float = 1.0
) -> list[tuple[int, float, dict[str, float]]]:
    """Of each epoch's record its number, its time (seconds since 1970, 0 where it is not noted) and its
    metrics; values that are missing or not finite are left out.

    Args:
        records: content of epochs.jsonl, from the first epoch on.
        full_share: see :class:`.MlflowTarget`.
    """
    found, best = [], -math.inf
    for record in records:
        best = max(best, record.get("map50") if _is_number(record.get("map50")) else -math.inf)  # type: ignore
        metrics = {**_named(record, full_share), "val/map50_best": best}
        found.append((record["epoch"], float(record.get("time") or 0.0), _valid(metrics)))
    return found


def _named(record: Mapping[str, Any], full_share: float) -> dict[str, Any]:
    so_far = dict(record.get("so_far") or {})
    if so_far.get("compute_ratio") is not None:
        so_far["compute_ratio"] *= full_share
    hits, misses = (record.get(f"cache_{what}") or 0 for what in ("hits", "misses"))
    steps = {int(prefix): count for prefix, count in (record.get("steps_per_prefix") or {}).items()}
    frozen = record.get("frozen_stages")
    mean = sum(prefix * count for prefix, count in steps.items()) / sum(steps.values()) if steps else frozen
    wall = record.get("wall_seconds")
    named: dict[str, Any] = {
        **scores(record),
        **{f"train/{name}": record.get(name) for name in TRAIN},
        **{f"train/loss_{name}": value for name, value in (record.get("losses") or {}).items()},
        "freezing/num_frozen": frozen,
        "freezing/mean_frozen": mean,
        **{f"cost/{name}": value for name, value in so_far.items()},
        EPOCHS_DONE: record["epoch"] + 1,
        "speed/images_per_second": record.get("images_per_second"),
        "speed/data_wait_share": record.get("data_wait_share"),
        "speed/tracking_share": (record.get("tracking_seconds") or 0.0) / wall if wall else None,
        "speed/cache_hit_rate": hits / (hits + misses) if hits else None,
        **{f"speed/epoch_{name}": record.get(name) for name in SPEED},
        **{f"system/{name}": value for name, value in flat(record.get("system") or {}, "/").items()},
    }
    known = {*SCORES, *TRAIN, *SPEED, *LEFT_OUT, "images_per_second", "data_wait_share"}
    others = [name for name in record if name not in known and not name.startswith(("ap50/", "merged/"))]
    return named | {f"own/{name}": record[name] for name in others}


def _valid(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Those with a finite number, under names that every store takes."""
    names = valid_names(metrics)
    return {names[name]: float(value) for name, value in metrics.items() if _is_number(value)}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


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
