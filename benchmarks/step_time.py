"""Seconds of a training step for each frozen prefix, beside what FLOPs say. Prefixes are interleaved, so that
a busy machine hits all alike.

python -m benchmarks.step_time --config jobs/configs/demo.yaml --rounds 8 --json
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch

from dbf_ray.build import build_training, prepare
from dbf_ray.cli.options import make_parser, parse, print_json, run_command
from dbf_ray.config import load_config
from dbf_ray.run.summary import machine, versions
from dbf_ray.training.loop import Training, train_step


def measure(training: Training, rounds: int) -> dict[int, list[float]]:
    """Milliseconds of ``rounds`` steps with 0..K stages frozen, on the same batches; the first round is a
    warm-up and left out.
    """
    times: dict[int, list[float]] = {n: [] for n in range(training.scheduler.freezer.num_stages + 1)}
    micro_batches = training.train_loader.epoch(0)
    steps = [
        list(itertools.islice(micro_batches, training.accumulation))
        for _ in range(min(4, training.train_loader.steps_per_epoch))
    ]
    for round_number in range(rounds + 1):
        for n in times:
            training.scheduler.freezer.apply(n)
            training.ddp.rebuild()
            training.detector.train()
            batches = [training.detector.prepare(*micro) for micro in steps[round_number % len(steps)]]
            begun = time.perf_counter()
            train_step(training, batches)
            if training.device.type == "cuda":
                torch.cuda.synchronize()
            if round_number:
                times[n].append(1000 * (time.perf_counter() - begun))
    return times


def command(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure and print a table."""
    sections = ("", "data", "detector", "training")
    parser: argparse.ArgumentParser = make_parser(
        "python -m benchmarks.step_time", __doc__ or "", sections=sections
    )
    parser.add_argument("--rounds", type=int, default=8, help="steps timed for each prefix (default: 8)")
    options, overrides = parse(parser, arguments)
    config = load_config(options.config, overrides)
    if config.training.threads is not None:
        torch.set_num_threads(config.training.threads)
    spec = prepare(config)
    times = measure(build_training(spec, quiet=True), max(1, options.rounds))
    whole = statistics.median(times[0])
    rows = [
        {
            "frozen_stages": n,
            "step_ms": statistics.median(ms),
            "step_ms_min": min(ms),
            "time_ratio": statistics.median(ms) / whole,
            "flops": spec.flops_per_prefix[n],
            "flops_ratio": spec.flops_per_prefix[n] / spec.flops_per_prefix[0],
        }
        for n, ms in times.items()
    ]
    print("frozen  step ms (median, min)  time ratio  FLOPs ratio")
    for row in rows:
        print(
            f"{row['frozen_stages']:>6}  {row['step_ms']:>13.1f} {row['step_ms_min']:>8.1f}  "
            f"{row['time_ratio']:>10.3f}  {row['flops_ratio']:>11.3f}"
        )
    result = {
        "rows": rows,
        "b": spec.backbone_share,
        "rounds": options.rounds,
        "machine": machine(),
        "versions": versions(),
    }
    if options.json:
        print_json(result)
    return result


if __name__ == "__main__":
    sys.exit(run_command(command))
