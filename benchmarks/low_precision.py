"""What low precision of frozen stages costs a detector: trainings in each way, over several seeds.

Two trainings of one seed that differ in rounding alone soon differ in every weight, so one pair says little. Each way is therefore trained with
several seeds, and its mean difference to float32 stands beside its standard error, its largest one, and those of "float32, no engine", which show
how far chance alone goes: there, sums are only taken in another order. With --alike N a seed's first N epochs are trained once, in float32, and
only the frozen stretch after them in each way: what happens in the first steps decides most of what chance does.

map50 is that of the evaluated images, after the last epoch. With --wide there is a second one, of these in four views together with the training
images: it has several times the objects, and so less chance of its own, but knows fit from generalisation no more.

Ways: float32 (engine, features kept as they are); the same without the engine; the engine in bf16; features of float32 kept in bf16. The
backbone is never trained, all else is as configured, in float32. What was measured is kept in runs_dir: started again, it goes on there.

python -m benchmarks.low_precision --config jobs/configs/hrsc_mobilenet_v2.yaml --data.root DIR --detector.weights_backbone FILE \\
    --data.canvas square --seeds 3 --processes 2 --json
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from dbf_ray.build_data import build_eval_loader, make_datasets
from dbf_ray.build_frozen import augmentation
from dbf_ray.config import Config, load_config, make_config, to_dict, with_overrides
from dbf_ray.data.transforms import flip
from dbf_ray.detectors import Detector
from dbf_ray.detectors.backbones import FLOAT32_STAGES
from dbf_ray.detectors.backbones.engine import PrefixEngine
from dbf_ray.errors import ConfigError
from dbf_ray.evaluate import load_detector
from dbf_ray.evaluation import Evaluator
from dbf_ray.files import write_text
from dbf_ray.run import machine, run, run_directory, versions
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
    **{"freezing.cache_dtype": "float32", "training.precision": "float32", "tracking.mlflow": False},
}
VIEWS = ("identity", "horizontal", "vertical", "diagonal")


def command(arguments: Sequence[str] | None = None) -> Row:
    """Train every way with every seed and print a table."""
    parser = make_parser("benchmarks.low_precision", __doc__ or "", sections=("", "data", "detector", "training"))
    parser.add_argument("--seeds", type=int, default=8, help="seeds from --seed on (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=1, help="trainings at once, of one thread each (default: %(default)s)")
    parser.add_argument("--only", nargs="*", default=list(WAYS), choices=list(WAYS), help="ways beside float32 (default: all)")
    parser.add_argument("--alike", type=int, default=0, help="epochs that are trained in float32 for all ways (default: %(default)s)")
    parser.add_argument("--wide", action="store_true", help="evaluate on more images too: the same in four views, and the training images")
    options, overrides = parse(parser, arguments)
    config = load_config(options.config, overrides)
    if not 0 <= options.alike < config.training.epochs:
        raise ConfigError(f"--alike must be 0 or more and less than training.epochs {config.training.epochs}, got {options.alike}")
    if augmentation(config).switched_on:
        raise ConfigError("features can be kept of views alone, got data.augment; leave it out")
    ways = [EXACT, *(way for way in options.only if way != EXACT)]
    seeds = range(config.seed, config.seed + options.seeds)
    starts: dict[int, str | None] = dict.fromkeys(seeds)
    if options.alike:
        made = in_processes(begin, [(to_dict(of_way(config, EXACT, seed)), options.alike) for seed in seeds], options.processes)
        starts = {result["seed"]: result["checkpoint"] for result in made}
    trainings = [(to_dict(of_way(config, way, seed)), starts[seed], options.wide) for seed, way in product(seeds, ways)]
    rows = list(in_processes(score, trainings, options.processes))
    compared = summary(rows)
    print(table(compared))
    result = {"rows": rows, "ways": compared, "alike": options.alike, "machine": machine(), "versions": versions()}
    if options.json:
        print_json(result)
    return result


def of_way(config: Config, way: str, seed: int) -> Config:
    """The configuration of one training, whose run is named after its way and seed."""
    last = {"evaluation.every": config.training.epochs, "training.threads": 1}
    return with_overrides(config, {**ALIKE, **WAYS[way], **last, "seed": seed, "name": f"{way}-{seed}"})


def in_processes(work: Callable[..., Row], calls: Sequence[tuple[Any, ...]], processes: int) -> Iterator[Row]:
    """The results of all calls as they come, each in a process of its own."""
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        futures = [pool.submit(work, *arguments) for arguments in calls]
        try:
            for number, future in enumerate(as_completed(futures), start=1):
                row = future.result()
                print(f"{number}/{len(futures)} {row['way']}, seed {row['seed']}: map50 {row['map50']}", file=sys.stderr, flush=True)
                yield row
        finally:
            pool.shutdown(cancel_futures=True)


def begin(tree: Row, epochs: int) -> Row:
    """Train the first epochs of a configuration; its row names the last checkpoint."""
    config = make_config({**tree, "name": f"start-{tree['seed']}"}, "a training of this benchmark")

    def train(config: Config) -> Row:
        summary = run(config, quiet=True, on_epoch=lambda record, _: record["epoch"] + 1 < epochs)
        return {"checkpoint": summary["checkpoint"], "map50": summary["map50"]}

    return kept(config, train, epochs)


def score(tree: Row, start: str | None = None, wide: bool = False) -> Row:
    """Train a configuration, from checkpoint ``start`` on if there is one; with ``wide`` its last checkpoint is evaluated on more images too."""

    def train(config: Config) -> Row:
        summary = run(config, quiet=True, resume=None if start is None else Path(start))
        if not wide:
            return {"map50": summary["map50"]}
        detector, classes = load_detector(Path(summary["checkpoint"]), config)
        return map50_of(detector, classes, config)

    return kept(make_config(tree, "a training of this benchmark"), train, start, wide)


def kept(config: Config, train: Callable[[Config], Row], *depends_on: Any) -> Row:
    """The row of a training; what an earlier call measured, where that was of the same by the same."""
    folder, machinery = run_directory(config), [machine(), versions(), PrefixEngine.revision, FLOAT32_STAGES]
    torch.set_num_threads(1)
    made_from = json.loads(json.dumps({"config": to_dict(config), "depends_on": depends_on, "by": machinery}))
    file = folder / "score.json"
    if file.exists() and (found := json.loads(file.read_text(encoding="utf-8")))["made_from"] == made_from:
        return dict(found["row"])
    shutil.rmtree(folder, ignore_errors=True)
    begun = time.perf_counter()
    way, _, seed = str(config.name).rpartition("-")
    row = {"way": way, "seed": int(seed), **train(config), "seconds": time.perf_counter() - begun}
    write_text(file, json.dumps({"row": row, "made_from": made_from}))
    return row


@torch.no_grad()
def map50_of(detector: Detector, classes: list[str], config: Config) -> dict[str, float]:
    """map50 of the evaluated images as they are, and ("wide") of these in four views together with the training images."""
    plain, wide = Evaluator(len(classes), classes), Evaluator(len(classes), classes)
    train_set, eval_set, _ = make_datasets(config)
    for kind, dataset, views in (("evaluated", eval_set, VIEWS), ("trained", train_set, VIEWS[:1])):
        for images, targets in build_eval_loader(config, dataset):
            for view in views:
                shown = [flip(image, target, view) for image, target in zip(images, targets, strict=True)]
                named = [{**target, "image_id": f"{kind} {view} {target['image_id']}"} for _, target in shown]
                found = detector([image for image, _ in shown])
                wide.update(found, named)
                if (kind, view) == ("evaluated", VIEWS[0]):
                    plain.update(found, named)
    return {"map50": plain.compute()["map50"], "wide": wide.compute()["map50"]}


def summary(rows: Sequence[Row]) -> dict[str, Row]:
    """For each way the mean and spread of its map50s, and the mean difference to float32 of the same seed, its standard error and the largest one."""
    exact = {row["seed"]: row for row in rows if row["way"] == EXACT}
    found: dict[str, Row] = {}
    for way in dict.fromkeys(row["way"] for row in rows):
        mine = [row for row in rows if row["way"] == way]
        found[way] = {"seeds": len(mine)}
        for key in (key for key in ("map50", "wide") if key in mine[0]):
            off = [row[key] - exact[row["seed"]][key] for row in mine]
            found[way] |= {f"{key}_mean": statistics.fmean(row[key] for row in mine), f"{key}_spread": spread([row[key] for row in mine])}
            found[way] |= {f"{key}_off": statistics.fmean(off), f"{key}_off_error": spread(off) / len(off) ** 0.5}
            found[way][f"{key}_off_largest"] = max(off, key=abs)
    return found


def spread(values: Sequence[float]) -> float:
    """Standard deviation of a sample; nan of one value."""
    return statistics.stdev(values) if len(values) > 1 else float("nan")


def table(ways: dict[str, Row]) -> str:
    """What a reader compares."""
    keys = [key for key in ("map50", "wide") if f"{key}_mean" in ways[EXACT]]
    lines = [f"{'way':20} seeds" + "".join(f"  {key:16}  to float32          largest" for key in keys)]
    for way, row in sorted(ways.items(), key=lambda item: list(WAYS).index(item[0])):
        cells = [
            f"{row[f'{key}_mean']:.4f} +- {row[f'{key}_spread']:.4f}  {row[f'{key}_off']:+.4f} +- {row[f'{key}_off_error']:.4f}"
            f"  {row[f'{key}_off_largest']:+.4f}"
            for key in keys
        ]
        lines.append(f"{way:20} {row['seeds']:5}  {'  '.join(cells)}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(command))
