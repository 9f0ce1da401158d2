"""What low precision of frozen stages costs a detector: whole trainings in each way, over several seeds.

Two trainings of one seed that differ in rounding alone soon differ in every weight, so one pair says nothing. Each way is therefore trained with
several seeds, and its mean difference to float32 stands beside its standard error, and beside that of "float32, no engine", which shows how far
chance alone goes: there, sums are only taken in another order. map50 is that of the validation images, and a second one ("wide") that of these
in four views and of the training images, whose chance is smaller since it has several times the objects.

Ways: float32 (engine, features kept as they are); the same without the engine; the engine in bf16; features of float32 kept in bf16. The
backbone is never trained, all else is as configured, in float32. What was measured is kept in runs_dir: started again, it goes on there.

python -m benchmarks.low_precision --config jobs/configs/hrsc_mobilenet_v2.yaml --data.root DIR --detector.weights_backbone FILE \\
    --data.image_size 256 --data.canvas square --training.epochs 10 --training.lr 1e-3 --seeds 8 --processes 2 --json
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import product
from multiprocessing import get_context
from typing import Any

import torch

from dbf_ray.build_data import build_eval_loader, make_split
from dbf_ray.config import Config, load_config, make_config, to_dict, with_overrides
from dbf_ray.data.transforms import flip
from dbf_ray.detectors import Detector
from dbf_ray.evaluate import load_detector
from dbf_ray.evaluation import Evaluator
from dbf_ray.run import machine, run, run_directory, versions
from dbf_ray.training.checkpoint import list_checkpoints
from jobs.command_line import main, make_parser, parse, print_json

Row = dict[str, Any]
EXACT = "float32"
WAYS: dict[str, dict[str, Any]] = {
    EXACT: {},
    "float32, no engine": {"freezing.engine": False},
    "engine in bf16": {"freezing.engine_precision": "bf16"},
    "kept in bf16": {"freezing.cache_dtype": "bf16"},
}
ALIKE = {
    **{"freezing.policy": "frozen", "freezing.engine": True, "freezing.engine_precision": "float32", "freezing.cache": "ram"},
    **{"freezing.cache_dtype": "float32", "training.precision": "float32", "data.view_per": "stretch", "tracking.mlflow": False},
}
VIEWS = {"val": ("identity", "horizontal", "vertical", "diagonal"), "train": ("identity",)}


def command(arguments: Sequence[str] | None = None) -> Row:
    """Train every way with every seed and print a table."""
    parser = make_parser("benchmarks.low_precision", __doc__ or "", sections=("", "data", "detector", "training"))
    parser.add_argument("--seeds", type=int, default=8, help="seeds from --seed on (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=1, help="trainings at once, of one thread each (default: %(default)s)")
    parser.add_argument("--only", nargs="*", default=list(WAYS), choices=list(WAYS), help="ways beside float32 (default: all)")
    options, overrides = parse(parser, arguments)
    config = load_config(options.config, overrides)
    ways = [EXACT, *(way for way in options.only if way != EXACT)]
    trainings = [of_way(config, way, config.seed + number) for number, way in product(range(options.seeds), ways)]
    rows = list(measured(trainings, options.processes))
    compared = summary(rows)
    print(table(compared))
    result = {"rows": rows, "ways": compared, "machine": machine(), "versions": versions()}
    if options.json:
        print_json(result)
    return result


def of_way(config: Config, way: str, seed: int) -> Config:
    """The configuration of one training, whose run is named after its way and seed."""
    last = {"evaluation.every": config.training.epochs, "training.threads": 1}
    return with_overrides(config, {**ALIKE, **WAYS[way], **last, "seed": seed, "name": f"{way}-{seed}"})


def measured(trainings: Sequence[Config], processes: int) -> Iterable[Row]:
    """The rows of all trainings as they come, each in a process of its own."""
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        futures = [pool.submit(score, to_dict(config)) for config in trainings]
        for number, future in enumerate(as_completed(futures), start=1):
            row = future.result()
            print(f"{number}/{len(futures)} {row['way']}, seed {row['seed']}: map50 {row['map50']:.4f}", file=sys.stderr, flush=True)
            yield row


def score(tree: Row) -> Row:
    """Train a configuration and evaluate its last checkpoint; what an earlier call measured, where that was of the same."""
    config = make_config(tree, "a training of this benchmark")
    file = run_directory(config) / "score.json"
    if file.exists() and (kept := json.loads(file.read_text()))["config"] == json.loads(json.dumps(tree)):
        return dict(kept["row"])
    torch.set_num_threads(1)
    begun = time.perf_counter()
    run(config, quiet=True)
    detector, classes = load_detector(list_checkpoints(run_directory(config) / "checkpoints")[-1], config)
    way, _, seed = str(config.name).rpartition("-")
    row = {"way": way, "seed": int(seed), **map50_of(detector, classes, config), "seconds": time.perf_counter() - begun}
    file.write_text(json.dumps({"row": row, "config": tree}))
    return row


@torch.no_grad()
def map50_of(detector: Detector, classes: list[str], config: Config) -> dict[str, float]:
    """map50 of the validation images, and of all images in all views."""
    plain, wide = Evaluator(len(classes), classes), Evaluator(len(classes), classes)
    for split, views in VIEWS.items():
        for images, targets in build_eval_loader(config, make_split(config, split, classes)):
            for view in views:
                shown = [flip(image, target, view) for image, target in zip(images, targets, strict=True)]
                named = [{**target, "image_id": f"{split} {view} {target['image_id']}"} for _, target in shown]
                found = detector([image for image, _ in shown])
                wide.update(found, named)
                if (split, view) == ("val", "identity"):
                    plain.update(found, named)
    return {"map50": plain.compute()["map50"], "wide": wide.compute()["map50"]}


def summary(rows: Sequence[Row]) -> dict[str, Row]:
    """For each way the mean and spread of its map50s, and the mean difference to float32 of the same seed with its standard error."""
    exact = {row["seed"]: row for row in rows if row["way"] == EXACT}
    found: dict[str, Row] = {}
    for way in dict.fromkeys(row["way"] for row in rows):
        mine = [row for row in rows if row["way"] == way]
        found[way] = {"seeds": len(mine)}
        for key in ("map50", "wide"):
            off = [row[key] - exact[row["seed"]][key] for row in mine]
            found[way] |= {f"{key}_mean": statistics.fmean(row[key] for row in mine), f"{key}_spread": spread([row[key] for row in mine])}
            found[way] |= {f"{key}_off": statistics.fmean(off), f"{key}_off_error": spread(off) / len(off) ** 0.5}
    return found


def spread(values: Sequence[float]) -> float:
    """Standard deviation of a sample; nan of one value."""
    return statistics.stdev(values) if len(values) > 1 else float("nan")


def table(ways: dict[str, Row]) -> str:
    """What a reader compares."""
    lines = [f"{'way':20} seeds  map50           to float32             wide            to float32"]
    for way, row in sorted(ways.items(), key=lambda item: list(WAYS).index(item[0])):
        cells = [
            f"{row[f'{key}_mean']:.4f} +- {row[f'{key}_spread']:.4f}  {row[f'{key}_off']:+.4f} +- {row[f'{key}_off_error']:.4f}  "
            for key in ("map50", "wide")
        ]
        lines.append(f"{way:20} {row['seeds']:5}  {' '.join(cells)}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(command))
