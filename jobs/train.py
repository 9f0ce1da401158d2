"""Train one detector with one freezing policy."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from dbf_ray.build import RunSpec, prepare
from dbf_ray.config import Config, load_config
from dbf_ray.errors import ConfigError
from dbf_ray.run import find_resume, run, run_directory
from dbf_ray.run.runner import notes_of
from jobs.command_line import main, make_parser, parse, print_json

ABOUT = """Train an oriented detector, its backbone frozen in the epochs that a freezing policy says.

Frozen epochs cost less; compute_ratio is the run's training FLOPs over those of policy full."""
EPILOG = """examples:
  train on generated scenes, the backbone unfrozen in every 4th epoch:
    python -m jobs.train --config jobs/configs/demo.yaml --freezing.policy step --freezing.rho 4
  see the timeline and what it costs, without training:
    python -m jobs.train --config jobs/configs/demo.yaml --freezing.policy step --freezing.rho 4 --dry-run
  train on your own images in DOTA's format (DIR/train and DIR/val, each with images/ and labelTxt/):
    python -m jobs.train --config jobs/configs/hrsc_mobilenet_v2.yaml --data.root DIR --detector.weights_backbone FILE
  two workers (DDP under Ray Train):
    python -m jobs.train --config jobs/configs/demo.yaml --cluster.workers 2

A run leaves runs/NAME/: config.yaml, epochs.jsonl, summary.json, checkpoints/. The same command goes on after an interruption."""

COLUMNS = 120  # of a drawn timeline at most
SECTIONS = ("", "data", "detector", "freezing", "training", "evaluation", "cluster", "tracking")


def command(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Train, or with ``--dry-run`` only check and say what would be trained."""
    parser = make_parser("jobs.train", ABOUT, EPILOG, SECTIONS, "[--dry-run]")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check everything, print the timeline and its cost, and train nothing",
    )
    options, overrides = parse(parser, arguments)
    config = load_config(options.config, overrides)
    if options.dry_run:
        result = dry_run(config)
    elif wants_ray(config):
        result = train_with_ray(config)
    else:
        directory = run_directory(config)
        resume = find_resume(config, directory)
        if resume is not None:
            print(f"going on from {resume}", file=sys.stderr)
        result = run(config, directory=directory, resume=resume)
    if not options.dry_run:
        print(report(result, config))
    if options.json:
        print_json(result)
    return result


def wants_ray(config: Config) -> bool:
    """Whether the run goes through Ray Train."""
    use, workers = config.cluster.use_ray, config.cluster.workers
    if use is False and workers > 1:
        raise ConfigError(
            f"more than one worker needs Ray Train, got cluster.workers {workers} with cluster.use_ray "
            f"false; change one"
        )
    return workers > 1 if use is None else use


def train_with_ray(config: Config) -> dict[str, Any]:
    """Train under Ray Train. A run on this machine is checked before Ray starts; on a cluster the data may
    lie elsewhere.
    """
    from dbf_ray.cluster import train_on_ray
    from dbf_ray.cluster.ray_runtime import cluster_address

    if cluster_address(config.cluster.address) is None:
        prepare(config)
    return train_on_ray(config)


def dry_run(config: Config) -> dict[str, Any]:
    """Check a run and print its timeline, budget and compute_ratio."""
    wants_ray(config)
    spec = prepare(config)
    print(timeline(spec))
    return {
        "policy": spec.policy.name,
        "parameters": spec.policy.parameters(),
        "epochs": config.training.epochs,
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
        "micro_batches": spec.micro_batches,
        "flops_per_prefix": spec.flops_per_prefix,
        "forward_flops_per_prefix": [step.forward for step in spec.flops],
        "backward_flops_per_prefix": [step.backward for step in spec.flops],
    }


def timeline(spec: RunSpec) -> str:
    """Blocks x stages as text, the budget, and what it costs."""
    horizon, unit = spec.horizon, "epochs"
    lines = [f"policy {spec.policy.name} {spec.policy.parameters() or ''}".rstrip()]
    if horizon.block_steps * spec.config.training.epochs != horizon.all_steps:
        unit = f"blocks of {horizon.block_steps} optimizer steps"
    if spec.frozen_prefixes is None or spec.lr_factors is None:
        lines.append("this policy decides while training: its timeline and cost are not known beforehand")
    else:
        lines += drawn(spec.frozen_prefixes, spec.num_stages, "epoch" if unit == "epochs" else "block")
        lines += factors(spec.lr_factors, spec.num_stages)
        lines.append(
            f"budget {spec.budget} of {horizon.epochs} {unit}, compute_ratio {spec.compute_ratio:.10g} "
            f"(if backward were 2 x forward everywhere: {spec.analytic_ratio:.4f})"
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
        f"{lowest:.4f} "
        f"(analytic {ceiling:.4f}: a speed-up of at most {1 / ceiling:.2f} by FLOPs)"
    )
    lines += notes_of(spec)
    lines.append(
        f"{len(spec.train_set)} training images, {len(spec.eval_set)} to evaluate on ({spec.eval_split})"
    )
    return "\n".join(lines)


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


def report(summary: dict[str, Any], config: Config) -> str:
    """What a finished run says."""
    map50 = summary["map50"]
    return (
        f"map50 {'none (no objects)' if map50 is None or map50 != map50 else f'{map50:.3f}'}, compute_ratio "
        f"{summary['compute_ratio']:.3f} "
        f"(analytic {summary['analytic_ratio']:.3f}), "
        f"{summary['wall_seconds']:.0f} s; record in {run_directory(config)}"
    )


if __name__ == "__main__":
    sys.exit(main(command))
