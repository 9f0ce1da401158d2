"""What an epoch of a frozen span costs on real images, with and without the engine and the cache, and how
long it waits for data.

Four trainings whose backbone is never trained take turns, epoch by epoch, in one process. The first epoch of
each fills the caches and is left out. An epoch here is its training steps, data waiting included; no
evaluation. Epochs with the whole backbone trained come after them.

python -m benchmarks.frozen_epochs --config jobs/configs/hrsc_mobilenet_v2.yaml --data.root DIR \\
    --detector.weights_backbone FILE \\
    --training.precision float32 --data.orientation_per span --data.pad_to square --json
"""

from __future__ import annotations

import cProfile
import itertools
import pstats
import sys
from collections.abc import Sequence
from typing import Any

import torch

from dbf_ray.build import build_training, prepare
from dbf_ray.cli.options import make_parser, parse, print_json, run_command
from dbf_ray.config import Config, load_config, with_overrides
from dbf_ray.run.summary import machine, versions
from dbf_ray.training.loop import Training, train_epoch

Row = dict[str, Any]
# In a profile: (file that a function is in, "~" for torch's own; the functions; whether what they call counts
# too).
PARTS: dict[str, tuple[str, tuple[str, ...], bool]] = {
    "backward passes": ("~", ("<method 'run_backward' of 'torch._C._EngineBase' objects>",), False),
    "convolutions": ("~", ("<built-in method torch.conv2d>",), False),
    "normalisation and assignment": ("detectors/base.py", ("prepare",), True),
    "cache and engine": ("training/frozen.py", ("__call__",), True),
    "update": ("torch/optim/optimizer.py", ("wrapper",), True),
}


def command(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Train and print a table."""
    parser = make_parser(
        "python -m benchmarks.frozen_epochs",
        __doc__ or "",
        sections=("", "data", "detector", "freezing", "training"),
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="epochs of each training that count (default: 3)"
    )
    parser.add_argument(
        "--full",
        type=int,
        default=2,
        help="epochs with the whole backbone trained, the best of which counts; 0: none (default: 2)",
    )
    parser.add_argument(
        "--profile",
        action="store_true",
        help="then profile one more epoch with engine and cache: where its time goes",
    )
    options, overrides = parse(parser, arguments)
    config = load_config(options.config, overrides)
    if config.training.threads is not None:
        torch.set_num_threads(config.training.threads)
    ways = {
        (engine, cache): way(config, engine, cache)
        for engine, cache in itertools.product((False, True), ("off", "ram"))
    }
    epochs: dict[tuple[bool, str], list[Row]] = {key: [] for key in ways}
    for epoch in range(max(1, options.rounds) + 1):
        for key, training in ways.items():
            epochs[key].append(one_epoch(training, epoch))
            print(
                f"epoch {epoch}, engine {key[0]}, cache {key[1]}: {epochs[key][-1]['device_seconds']:.1f} s",
                file=sys.stderr,
                flush=True,
            )
    training = full_training(config)
    full = min(
        (one_epoch(training, epoch) for epoch in range(options.full)),
        key=lambda row: row["device_seconds"],
        default=None,
    )
    least = {key: min(rows[1:], key=lambda row: row["device_seconds"]) for key, rows in epochs.items()}
    rows = [
        {
            "engine": engine,
            "cache": cache,
            **{
                key: row[key]
                for key in (
                    "device_seconds",
                    "data_wait_share",
                    "cache_hits",
                    "cache_misses",
                    "cache_bytes",
                    "executed_flops",
                )
            },
            "of_full": None if full is None else row["device_seconds"] / full["device_seconds"],
            "cached_of_frozen": row["device_seconds"] / least[engine, "off"]["device_seconds"],
        }
        for (engine, cache), row in least.items()
    ]
    for row in rows:
        of_full = "" if row["of_full"] is None else f"  of a trained epoch {row['of_full']:.3f}"
        print(
            f"engine {row['engine']!s:5}  cache {row['cache']:4}  {row['device_seconds']:7.1f} s{of_full}  "
            f"of the same without cache {row['cached_of_frozen']:.3f}  waiting for data "
            f"{row['data_wait_share']:.1%}  hits {row['cache_hits']} of "
            f"{row['cache_hits'] + row['cache_misses']}"
        )
    if full is not None:
        print(f"trained epoch {full['device_seconds']:.1f} s, waiting for data {full['data_wait_share']:.1%}")
    profile = profile_epoch(ways[True, "ram"], max(1, options.rounds) + 1) if options.profile else None
    result = {
        "rows": rows,
        "full": full,
        "rounds": options.rounds,
        "profile": profile,
        "machine": machine(),
        "versions": versions(),
    }
    if options.json:
        print_json(result)
    return result


def way(config: Config, engine: bool, cache: str) -> Training:
    """A training whose backbone is frozen, in one of the ways."""
    changes = {"freezing.policy": "frozen", "freezing.engine": engine, "freezing.cache": cache}
    return build_training(prepare(with_overrides(config, changes)), quiet=True)


def full_training(config: Config) -> Training:
    """A training with the whole backbone."""
    return build_training(prepare(with_overrides(config, {"freezing.policy": "full"})), quiet=True)


def one_epoch(training: Training, epoch: int) -> Row:
    """Train an epoch's steps; what they cost."""
    training.ledger.begin_epoch(epoch)
    train_epoch(training, epoch)
    training.ledger.end_steps()
    if training.frozen is not None:
        training.frozen.end_epoch()
    return training.ledger.end_epoch()


def profile_epoch(training: Training, epoch: int) -> dict[str, float]:
    """Train an epoch under Python's profiler and print its functions; shares of its time by what they do."""
    profiler = cProfile.Profile()
    profiler.runcall(one_epoch, training, epoch)
    stats = pstats.Stats(profiler)
    stats.sort_stats("tottime").print_stats(15)
    total: float = stats.total_tt  # type: ignore[attr-defined]
    spent = dict.fromkeys(PARTS, 0.0)
    for (file, _, function), (_, _, own, cumulative, _) in stats.stats.items():  # type: ignore[attr-defined]
        for name, (where, functions, whole) in PARTS.items():
            if where in file and function in functions:
                spent[name] += (cumulative if whole else own) / total
    print("  ".join(f"{name} {share:.1%}" for name, share in spent.items()))
    return spent


if __name__ == "__main__":
    sys.exit(run_command(command))
