"""What each freezing policy costs: predicted from its timeline, and measured in a small real training on two
DDP ranks.

Predicted: compute_ratio is the one that --dry-run prints (for policies that decide while training: of the
prefixes they chose). Seconds and memory are those of the prefixes, taken from a calibration run that trains
two epochs with each prefix 0..K, the second of which counts. Bytes are four for each trained parameter and
optimizer step. Every run has processes of its own.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

from dbf_ray.build import prepare
from dbf_ray.cli.options import make_parser, parse, print_json, run_command
from dbf_ray.config import Config, load_config, with_overrides
from dbf_ray.errors import ConfigError
from dbf_ray.run import run
from dbf_ray.run.summary import machine, versions
from dbf_ray.tracking import read_epochs, read_summary

WORKERS = 2
# A setting of every policy for six epochs; thresholds of adaptive ones so that they freeze and thaw in so
# short a time.
POLICIES: dict[str, dict[str, Any]] = {
    "full": {},
    "frozen": {},
    "step": {"rho": 3},
    "epochs": {"epochs": [0, 3]},
    "random_budget": {"budget": 2},
    "bernoulli": {"p": 0.4},
    "front": {"budget": 2},
    "back": {"budget": 2},
    "lr_scale": {"factor": 0.1},
    "layer_decay": {"xi": 0.5},
    "warmup_step": {"warmup": 1, "rho": 3},
    "cosine": {"start": 0.8, "end": 0.1},
    "gradual_unfreeze": {"every": 1},
    "gradual_freeze": {"t0": 0.3, "p": 1.0},
    "multirate_step": {"rho": 1, "growth": 1.6},
    "gradnorm": {"percentile": 75, "window": 1, "recheck": 3},
    "aimd": {"threshold": 0.9, "max_rho": 4},
    "drift": {"low": 0.001, "high": 0.001, "recheck": 2},
    "plateau": {"patience": 2, "min_delta": 0.02},
    "budget": {"limit": 0.8, "inner": {"name": "cosine", "start": 1.0, "end": 0.3}},
}


def command(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run every policy and print a table."""
    parser = make_parser(
        "python -m benchmarks.policies", __doc__ or "", sections=("", "data", "detector", "training")
    )
    parser.add_argument(
        "--images", type=int, default=24, help="training images, the first that have objects (default: 24)"
    )
    parser.add_argument("--only", nargs="*", default=list(POLICIES), help="policies to run (default: all)")
    options, overrides = parse(parser, arguments)
    config = load_config(options.config, {"training.epochs": 6, **overrides})
    if config.data.root is None:
        raise ConfigError("real images are needed, got no data.root; give a folder with train/ and val/")
    with tempfile.TemporaryDirectory() as folder:
        few_images(config.data.root, Path(folder) / "data", options.images)
        config = with_overrides(
            config,
            {
                **{
                    "data.root": f"{folder}/data",
                    "runs_dir": f"{folder}/runs",
                    "tracking.mlflow": False,
                    "cluster.workers": WORKERS,
                },
                **{"training.threads": 1, "evaluation.every": 1, "training.warmup_steps": 4},
            },
        )
        spec = prepare(config)
        prefixes = calibrate(config, spec.num_stages)
        rows = [row(name, of_policy(config, name, POLICIES[name]), prefixes) for name in options.only]
    full = next((r for r in rows if r["policy"] == "full"), None)
    print_table(rows, full)
    result = {
        "rows": rows,
        "b": spec.backbone_share,
        "prefixes": prefixes,
        "workers": WORKERS,
        "machine": machine(),
        "versions": versions(),
    }
    if options.json:
        print_json(result)
    return result


def few_images(root: Path, folder: Path, count: int) -> None:
    """A data set of the first ``count`` training images that have objects, and a sixth as many of val."""
    for split, most in (("train", count), ("val", max(2, count // 6))):
        labels = [
            file for file in sorted((root / split / "labelTxt").glob("*.txt")) if file.read_text().strip()
        ][:most]
        for kind in ("images", "labelTxt"):
            (folder / split / kind).mkdir(parents=True)
        for label in labels:
            image = next((root / split / "images").glob(f"{label.stem}.*"))
            shutil.copy(label, folder / split / "labelTxt")
            shutil.copy(image, folder / split / "images")


def of_policy(config: Config, name: str, parameters: dict[str, Any], epochs: int | None = None) -> Config:
    """The configuration with a policy, in a run named after it, or after the calibration if it has a number
    of ``epochs`` of its own.
    """
    own = {f"freezing.{key}": value for key, value in parameters.items()}
    length = {"training.epochs": epochs, "name": f"calibration by {name}"} if epochs else {"name": name}
    return with_overrides(config, {"freezing.policy": name, **own, **length})


def rank_main(rank: int, folder: str, tree: dict[str, Any]) -> None:
    """One rank of a run."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORKERS)
    run(Config.model_validate(tree), quiet=True)
    dist.destroy_process_group()


def train(config: Config) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Summary and epochs of a run on its own ranks."""
    with tempfile.TemporaryDirectory() as folder:
        spawn(rank_main, args=(folder, config.model_dump(mode="json")), nprocs=WORKERS)
    directory = config.runs_dir / str(config.name)
    summary = read_summary(directory)
    assert summary is not None
    print(f"{config.name}: {summary['device_seconds']:.1f} device seconds", file=sys.stderr, flush=True)
    return summary, read_epochs(directory)


def calibrate(config: Config, num_stages: int) -> list[dict[str, float]]:
    """Seconds, mean memory and bytes of an epoch with each prefix 0..K."""
    _, epochs = train(of_policy(config, "gradual_unfreeze", {"every": 2}, 2 * num_stages))
    _, frozen = train(of_policy(config, "frozen", {}, 2))
    seconds = {e["frozen_stages"]: e for e in (*epochs, *frozen)}  # the later epoch of a prefix wins
    keys = ("device_seconds", "mean_memory_bytes", "allreduce_bytes")
    return [{key: seconds[n][key] for key in keys} for n in range(num_stages + 1)]


def row(name: str, config: Config, prefixes: list[dict[str, float]]) -> dict[str, Any]:
    """Predicted and measured cost of one policy."""
    spec = prepare(config)
    summary, _ = train(config)
    chosen = summary["frozen_prefixes"]
    seconds = [prefixes[n]["device_seconds"] for n in chosen]
    memory = sum(prefixes[n]["mean_memory_bytes"] * s for n, s in zip(chosen, seconds, strict=True)) / sum(
        seconds
    )
    steps = spec.horizon.block_steps
    sizes = [sum(p.numel() for p in stage.parameters()) for stage in spec.detector.backbone.stages]
    rest = sum(p.numel() for p in spec.detector.parameters()) - sum(sizes)
    return {
        "policy": name,
        "parameters": POLICIES[name],
        "frozen_prefixes": chosen,
        "known_before": spec.compute_ratio is not None,
        "compute_ratio_predicted": spec.cost_of(chosen) if spec.compute_ratio is None else spec.compute_ratio,
        "compute_ratio": summary["compute_ratio"],
        "analytic_ratio": summary["analytic_ratio"],
        "executed_flops": summary["executed_flops"],
        "device_seconds_predicted": sum(seconds),
        "device_seconds": summary["device_seconds"],
        "mean_memory_bytes_predicted": memory,
        "mean_memory_bytes": summary["mean_memory_bytes"],
        "peak_memory_bytes": summary["peak_memory_bytes"],
        "allreduce_bytes_predicted": sum(4 * steps * (rest + sum(sizes[n:])) for n in chosen),
        "allreduce_bytes": summary["allreduce_bytes"],
        "map50": summary["map50"],
    }


def print_table(rows: list[dict[str, Any]], full: dict[str, Any] | None) -> None:
    """Ratios to full where it was run: predicted, measured."""
    print(
        "policy            prefixes      compute_ratio      executed   device seconds    mean memory, MB   "
        "all-reduced, MB"
    )
    for r in rows:
        executed = f"{r['executed_flops'] / full['executed_flops']:.4f}" if full else "-"
        timeline = "".join(map(str, r["frozen_prefixes"]))
        print(
            f"{r['policy']:17} {timeline:12} {r['compute_ratio_predicted']:.4f} {r['compute_ratio']:.4f} "
            f"({r['analytic_ratio']:.4f})  {executed}  {r['device_seconds_predicted']:7.1f} "
            f"{r['device_seconds']:7.1f}   {r['mean_memory_bytes_predicted'] / 1e6:7.0f} "
            f"{r['mean_memory_bytes'] / 1e6:7.0f}   {r['allreduce_bytes_predicted'] / 1e6:8.1f} "
            f"{r['allreduce_bytes'] / 1e6:8.1f}"
        )


if __name__ == "__main__":
    sys.exit(run_command(command))
