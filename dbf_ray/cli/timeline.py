"""A run before it trains, as text: when which stages are trained, and what that costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from dbf_ray.build import RunSpec
from dbf_ray.plan.costs import gigabytes
from dbf_ray.plan.stage_times import StageTimes
from dbf_ray.progress import duration
from dbf_ray.run.runner import notes_of

COLUMNS = 120  # of a drawn timeline at most


def forecast_of(spec: RunSpec) -> dict[str, Any]:
    """What is known of a run before it trains: ``train --dry-run --json``."""
    return {
        "policy": spec.policy.name,
        "parameters": spec.policy.parameters(),
        "epochs": spec.train.epochs,
        "num_stages": spec.num_stages,
        "blocks": spec.horizon.epochs,
        "block_steps": spec.horizon.block_steps,
        "frozen_prefixes": spec.frozen_prefixes,
        "budget": spec.budget,
        "compute_ratio": spec.compute_ratio,
        "analytic_ratio": spec.analytic_ratio,
        "backbone_share": spec.backbone_share,
        "expected_hit_rates": None if spec.forecast is None else spec.forecast.hit_rates,
        "expected_hit_rate": None if spec.forecast is None else spec.forecast.hit_rate,
        "flops_per_prefix": spec.flops_per_prefix,
        "forward_flops_per_prefix": [step.forward for step in spec.flops],
        "backward_flops_per_prefix": [step.backward for step in spec.flops],
    }


def timeline(spec: RunSpec) -> str:
    """Blocks x stages as text, the budget, and what it costs."""
    horizon, unit = spec.horizon, "epochs"
    lines = [f"policy {spec.policy.name} {spec.policy.parameters() or ''}".rstrip()]
    if horizon.block_steps * spec.train.epochs != horizon.all_steps:
        unit = f"blocks of {horizon.block_steps} optimizer steps"
    if spec.frozen_prefixes is None or spec.lr_factors is None:
        lines.append("this policy decides while training: its timeline and cost are not known beforehand")
    else:
        lines += drawn(spec.frozen_prefixes, spec.num_stages, "epoch" if unit == "epochs" else "block")
        lines += factors(spec.lr_factors, spec.num_stages)
        lines.append(
            f"budget {spec.budget} of {horizon.epochs} {unit}, compute_ratio {spec.compute_ratio:.10g} (if "
            f"backward were 2 x forward everywhere: {spec.analytic_ratio:.4f})"
        )
    lowest, ceiling = spec.cost_of([spec.num_stages]), spec.analytic_cost_of([spec.num_stages])
    lines.append("frozen stages  forward  backward   of full   (GFLOP per image)")
    for n, step in enumerate(spec.flops):
        if n >= spec.always_frozen:
            lines.append(
                f"{n:13d} {step.forward / 1e9:8.3f} {step.backward / 1e9:9.3f} {spec.cost_of([n]):9.4f}"
            )
    lines.append(
        f"backbone's share of forward FLOPs {spec.backbone_share:.3f}, lowest possible compute_ratio "
        f"{lowest:.4f} (analytic {ceiling:.4f}: a speed-up of at most {1 / ceiling:.2f} by FLOPs)"
    )
    lines += notes_of(spec)
    lines.append(
        f"{len(spec.train_set)} training images, {len(spec.eval_set)} to evaluate on ({spec.eval_split})"
    )
    return "\n".join(lines)


def timed(spec: RunSpec, times: StageTimes, workers: int) -> dict[str, Any]:
    """What a run takes by steps that were timed: seconds and bytes of tensors."""
    evaluations = math.ceil(spec.train.epochs / spec.evaluate_every)
    return {
        "seconds": times.training_seconds(spec.stretches, evaluations, workers),
        "memory_bytes": times.memory(spec.stretches),
        "seconds_ratio": None
        if spec.frozen_prefixes is None
        else sum(map(times.seconds, spec.stretches)) / (spec.horizon.all_steps * times.step_seconds(0)),
        "step_seconds": [times.step_seconds(n) for n in range(spec.num_stages + 1)],
        "cached_step_seconds": [times.step_seconds(n, 1.0) for n in range(spec.num_stages + 1)]
        if times.cached
        else None,
        "step_bytes": list(times.step_bytes),
        "timed": "whole steps" if times.whole else "small images",
    }


def time_lines(spec: RunSpec, found: Mapping[str, Any]) -> list[str]:
    """The same as text."""
    prefixes = range(spec.always_frozen, spec.num_stages + 1)
    lines = ["steps timed     seconds" + ("    cached" if found["cached_step_seconds"] else "") + "   memory"]
    for n in prefixes:
        cached = found["cached_step_seconds"]
        known = f" {cached[n]:9.3f}" if cached else ""
        lines.append(f"{n:13d} {found['step_seconds'][n]:9.3f}{known} {gigabytes(found['step_bytes'][n]):>8}")
    most = "at most " if spec.frozen_prefixes is None else "about "
    ratio = "" if found["seconds_ratio"] is None else f" (seconds_ratio {found['seconds_ratio']:.3f})"
    rough = "" if found["timed"] == "whole steps" else ", roughly, since only small images were timed"
    return [
        *lines,
        f"time {most}{duration(found['seconds'])}{ratio}, evaluations included; memory of tensors up to "
        f"{gigabytes(found['memory_bytes'])}{rough}",
    ]


def drawn(prefixes: Sequence[int], num_stages: int, unit: str) -> list[str]:
    """A line for each stage: ``#`` trained, ``.`` frozen; where a column stands for several blocks, ``+`` for
    both.
    """
    several = -(-len(prefixes) // COLUMNS)
    columns = [prefixes[first : first + several] for first in range(0, len(prefixes), several)]
    lines = []
    for stage in range(num_stages, 0, -1):
        trained = [sum(n < stage for n in column) for column in columns]
        signs = (
            "." if count == 0 else "#" if count == len(column) else "+"
            for count, column in zip(trained, columns, strict=True)
        )
        lines.append(f"stage {stage}  " + "".join(signs))
    if several == 1:
        return [
            *lines,
            f"{unit}    " + "".join(str(e % 10) for e in range(len(prefixes))) + "   (# trained, . frozen)",
        ]
    return [*lines, f"(# trained, . frozen, + both; a column is {several} {unit}s)"]


def factors(lr_factors: Sequence[Sequence[float] | None], num_stages: int) -> list[str]:
    """A line that says how each stage's learning rate is scaled, where a policy does that."""
    kinds = {tuple(given or [1.0] * num_stages) for given in lr_factors}
    if kinds == {(1.0,) * num_stages}:
        return []
    if len(kinds) > 1:
        return ["learning rates of stages vary from block to block"]
    return [
        "learning rate of stages 1.."
        + str(num_stages)
        + " times "
        + ", ".join(f"{factor:.4g}" for factor in kinds.pop())
    ]
