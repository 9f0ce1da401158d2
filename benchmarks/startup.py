"""What Ray Train costs beside a training: seconds until the first step, of a report, and of an epoch against
the same workers without Ray, in turns.

python -m benchmarks.startup                     two workers, start-up and its parts
python -m benchmarks.startup --pairs 5 --images 7200     and epochs of a minute against the bare loop
"""

from __future__ import annotations

import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from scipy.stats import t as student
from torch.multiprocessing.spawn import start_processes

from dbf_ray.cli.options import make_parser, print_json, run_command
from dbf_ray.config import Config, load_config, save_config
from dbf_ray.run import run
from dbf_ray.run.summary import machine, versions
from dbf_ray.tracking import make_trackers, read_epochs

TRAINING: dict[str, Any] = {
    "data.name": "synthetic",
    "data.val_images": 4,
    "data.image_size": 96,
    "detector.backbone": "mobilenet_v2",
    "detector.fpn_channels": 16,
    "detector.head_convs": 1,
    "training.epochs": 2,
    "training.batch_size": 8,
    "training.threads": 1,
    "evaluation.every": 2,
    "evaluation.pictures_every": 0,
    "tracking.mlflow": False,
}
PARTS = {
    "importing the command": "import dbf_ray.cli.train",
    "importing Ray Train too": "import dbf_ray.cluster.train",
    "these, and starting a Ray": "from dbf_ray.cluster import connected_ray\nwith connected_ray(): pass",
}


def timed(*command: str) -> float:
    """Seconds that a Python process takes."""
    begun = time.perf_counter()
    subprocess.run(
        [sys.executable, *command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    return time.perf_counter() - begun


def trained(folder: Path, config: Config, *, bare: bool) -> dict[str, float]:
    """Train in processes of its own, under Ray Train or bare; seconds until the first step, of the second
    epoch from the end of the first to its own, and of that beside its steps and evaluation.
    """
    config = config.model_copy(update={"runs_dir": folder, "name": "run"})
    save_config(config, folder / "config.yaml")
    module = "benchmarks.startup" if bare else "jobs.train"
    begun = time.time()
    timed("-m", module, "--bare" if bare else "--config", str(folder / "config.yaml"))
    first, second = read_epochs(folder / "run")
    between = second["time"] - first["time"]
    return {
        "first_step": first["time"] - first["wall_seconds"] - begun,
        "epoch": between,
        "beside": between - second["wall_seconds"],
    }


def bare_rank(rank: int, file: str, workers: int, meeting: str) -> None:
    """One rank of the same training, without Ray."""
    config = load_config(file)
    directory = config.runs_dir / str(config.name)
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=workers
    )
    run(config, directory=directory, trackers=make_trackers(directory, None) if rank == 0 else [], quiet=True)
    torch.distributed.destroy_process_group()


def bare(file: str) -> None:
    """All ranks."""
    workers = load_config(file).cluster.workers
    meeting = str(Path(file).with_name("meeting"))
    start_processes(bare_rank, args=(file, workers, meeting), nprocs=workers, start_method="spawn")


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean of values and half of its 95 % interval (Student's)."""
    count = len(values)
    half = math.inf
    if count > 1:
        half = float(student.ppf(0.975, count - 1)) * statistics.stdev(values) / math.sqrt(count)
    return statistics.fmean(values), half


def command(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure and print."""
    parser = make_parser("python -m benchmarks.startup", __doc__ or "", sections=None)
    parser.add_argument(
        "--bare", metavar="FILE", help="train this configuration without Ray, and nothing else"
    )
    parser.add_argument("--workers", type=int, default=2, help="(default: 2)")
    parser.add_argument("--pairs", type=int, default=1, help="of trainings, in turns (default: 1)")
    parser.add_argument("--images", type=int, default=64, help="of an epoch (default: 64)")
    options = parser.parse_args(arguments)
    if options.bare is not None:
        bare(options.bare)
        return {}
    parts = {name: timed("-c", code) for name, code in PARTS.items()}
    for name, seconds in parts.items():
        print(f"{seconds:7.1f} s  {name}", flush=True)
    changes = {"data.train_images": options.images, "cluster.workers": options.workers}
    config = load_config(None, {**TRAINING, **changes})
    pairs: list[dict[str, dict[str, float]]] = []
    for number in range(options.pairs):
        ways = ("Ray Train", "bare") if number % 2 == 0 else ("bare", "Ray Train")
        found = {}
        for way in ways:
            with tempfile.TemporaryDirectory() as scratch:
                found[way] = trained(Path(scratch), config, bare=way == "bare")
        pairs.append(found)
        print(
            *(
                f"{way}: {one['first_step']:.1f} s to the first step, an epoch {one['epoch']:.2f} s, "
                f"{one['beside']:.2f} s of it beside steps and evaluation"
                for way, one in found.items()
            ),
            sep="\n",
            flush=True,
        )
    ratio, half = interval([pair["Ray Train"]["epoch"] / pair["bare"]["epoch"] for pair in pairs])
    report = [pair["Ray Train"]["beside"] - pair["bare"]["beside"] for pair in pairs]
    print(f"an epoch under Ray Train over a bare one: {ratio:.4f} +- {half:.4f}")
    result = {
        "parts": parts,
        "pairs": pairs,
        "ratio": ratio,
        "half": half,
        "report": statistics.fmean(report),
        **{key: getattr(options, key) for key in ("workers", "images")},
        "machine": machine(),
        "versions": versions(),
    }
    print(f"a report: {result['report']:.2f} s")
    if options.json:
        print_json(result)
    return result


if __name__ == "__main__":
    sys.exit(run_command(command))
