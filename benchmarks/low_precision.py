"""What low precision of frozen stages costs a detector: trainings in each way, over several seeds.

Two trainings of one seed that differ in rounding alone soon differ in every weight, so one pair says little.
Each way is therefore trained with several seeds, and its mean difference to float32 stands beside its
standard error, its largest one, and those of "float32, no engine", which show how far chance alone goes:
there, sums are only taken in another order. With --alike N a seed's first N epochs are trained once, in
float32, and only the frozen span after them in each way: what happens in the first steps decides most of what
chance does.

map50 is that of the evaluated images, after the last epoch. With --orientations there is a second one, of
these in four orientations, which chance moves less, and rows have that of each mirrored orientation by
itself; with --wide a third, of the four orientations together with the training images: it has more objects
still, but knows fit from generalisation no more. With --folds N each seed is a cross-validation:
data.train_split is divided into N, anew for each seed, and there are N trainings, each evaluated on another
part and trained on the rest. Where images are few their mean is over all of them, and expected to be moved
less by chance than one training.

Means, standard errors and the largest difference are over trainings (seeds times folds) as if none had to do
with another.

Ways: float32 (engine, features kept as they are); the same without the engine; the engine in bf16; features
of float32 kept in bf16. The backbone is never trained, all else is as configured, in float32. What was
measured is kept in runs_dir: started again with the same options, it resumes there; with others it begins
anew.

python -m benchmarks.low_precision --config jobs/configs/hrsc_mobilenet_v2.yaml --data.root DIR \\
    --detector.weights_backbone FILE \\
    --data.pad_to square --seeds 3 --processes 2 --json
    (the same with --data.train_split train+val --folds 4 --orientations: a cross-validation of all images)
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

from dbf_ray.build.data import build_eval_loader, choose_device, feeding, make_datasets, make_split
from dbf_ray.build.images import image_settings
from dbf_ray.cli.options import make_parser, parse, print_json, run_command
from dbf_ray.config import Config, load_config, make_config, to_dict, with_overrides
from dbf_ray.data import split_selection
from dbf_ray.data.transforms import flip
from dbf_ray.detectors import Detector
from dbf_ray.detectors.backbones import FLOAT32_STAGES
from dbf_ray.detectors.backbones.engine import PrefixEngine
from dbf_ray.errors import ConfigError, DataError
from dbf_ray.evaluate import load_detector
from dbf_ray.evaluation import Evaluator
from dbf_ray.files import write_text
from dbf_ray.run import run, run_directory
from dbf_ray.run.summary import machine, versions

Row = dict[str, Any]
EXACT = "float32"
WAYS: dict[str, dict[str, Any]] = {
    EXACT: {},
    "float32, no engine": {"freezing.engine": False},
    "engine in bf16": {"freezing.engine_precision": "bf16"},
    "kept in bf16": {"freezing.cache_dtype": "bf16"},
}
ALIKE = {
    **{
        "freezing.policy": "frozen",
        "freezing.engine": True,
        "freezing.engine_precision": "float32",
        "freezing.cache": "ram",
    },
    **{"freezing.cache_dtype": "float32", "training.precision": "float32", "tracking.mlflow": False},
}
SCORES = ("map50", "orientations", "wide")
ORIENTATIONS = ("identity", "horizontal", "vertical", "diagonal")


def command(arguments: Sequence[str] | None = None) -> Row:
    """Train every way with every seed and print a table."""
    parser = make_parser(
        "python -m benchmarks.low_precision", __doc__ or "", sections=("", "data", "detector", "training")
    )
    parser.add_argument("--seeds", type=int, default=8, help="seeds from --seed on (default: %(default)s)")
    parser.add_argument(
        "--processes",
        type=int,
        default=1,
        help="trainings at once, of one thread each (default: %(default)s)",
    )
    parser.add_argument(
        "--only", nargs="*", default=list(WAYS), choices=list(WAYS), help="ways beside float32 (default: all)"
    )
    parser.add_argument(
        "--alike",
        type=int,
        default=0,
        help="epochs that are trained in float32 for all ways (default: %(default)s)",
    )
    parser.add_argument(
        "--folds",
        type=int,
        default=0,
        help="cross-validate: this many trainings of each way and seed, each evaluated on another part of "
        "data.train_split and trained on the rest; instead of data.val_split or data.selection_fraction "
        "(default: none)",
    )
    parser.add_argument(
        "--orientations", action="store_true", help="evaluate on the same images in four orientations too"
    )
    parser.add_argument(
        "--wide",
        action="store_true",
        help="as --orientations, and on the four orientations together with the training images",
    )
    options, overrides = parse(parser, arguments)
    config = load_config(options.config, overrides)
    if not 0 <= options.alike < config.training.epochs:
        raise ConfigError(
            f"--alike must be 0 or more and less than training.epochs {config.training.epochs}, got "
            f"{options.alike}"
        )
    if options.folds and (options.folds < 2 or options.alike):
        raise ConfigError(
            f"--folds must be 2 or more, and without --alike, got --folds {options.folds} --alike "
            f"{options.alike}"
        )
    if options.folds and config.data.selection_fold:
        raise ConfigError(
            f"--folds trains all folds, got data.selection_fold {config.data.selection_fold} too; leave it "
            "out"
        )
    if image_settings(config.data, compiled=False).augmentation.switched_on:
        raise ConfigError("features can be kept of orientations alone, got data.augment; leave it out")
    ways = [EXACT, *(way for way in options.only if way != EXACT)]
    seeds = range(config.seed, config.seed + options.seeds)
    folds = range(options.folds or 1)
    check_folds(config, seeds, options.folds)
    starts: dict[int, str | None] = dict.fromkeys(seeds)
    if options.alike:
        made = in_processes(
            begin,
            [(to_dict(of_way(config, EXACT, seed)), options.alike) for seed in seeds],
            options.processes,
        )
        starts = {result["seed"]: result["checkpoint"] for result in made}
    more = ("orientations",) * (options.orientations or options.wide) + ("wide",) * options.wide
    trainings = [
        (to_dict(of_way(held_out(config, fold, options.folds), way, seed)), starts[seed], more)
        for seed, way, fold in product(seeds, ways, folds)
    ]
    rows = list(in_processes(score, trainings, options.processes))
    compared = summary(rows)
    print(table(compared))
    result = {
        "rows": rows,
        "ways": compared,
        "alike": options.alike,
        "folds": options.folds,
        "machine": machine(),
        "versions": versions(),
    }
    if options.json:
        print_json(result)
    return result


def of_way(config: Config, way: str, seed: int) -> Config:
    """The configuration of one training, whose run is named after its way and seed."""
    last = {"evaluation.every": config.training.epochs, "training.threads": 1}
    return with_overrides(config, {**ALIKE, **WAYS[way], **last, "seed": seed, "name": f"{way}-{seed}"})


def held_out(config: Config, fold: int, folds: int) -> Config:
    """The configuration that holds one of ``folds`` shares of the training split out to be evaluated on; as
    it is where there are none.
    """
    if not folds:
        return config
    changes = {"data.selection_fraction": 1 / folds, "data.selection_fold": fold}
    return with_overrides(config, {**changes, "runs_dir": config.runs_dir / f"fold {fold} of {folds}"})


def check_folds(config: Config, seeds: Sequence[int], folds: int) -> None:
    """Refuse folds without images, before any is trained.

    Raises:
        ConfigError: there are not enough scenes, or one of them is so large that a fold gets none.
    """
    if not folds:
        return
    everything = make_split(config.data, config.data.train_split)
    for seed, fold in product(seeds, range(folds)):
        try:
            split_selection(everything, 1 / folds, seed, fold)
        except DataError as error:
            raise ConfigError(
                f"--folds must leave images for each, got {folds}: none for fold {fold} of seed {seed}; "
                "lower it"
            ) from error


def in_processes(work: Callable[..., Row], calls: Sequence[tuple[Any, ...]], processes: int) -> Iterator[Row]:
    """The results of all calls as they come, each in a process of its own."""
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        futures = [pool.submit(work, *arguments) for arguments in calls]
        try:
            for number, future in enumerate(as_completed(futures), start=1):
                row = future.result()
                which = f"{row['way']}, seed {row['seed']}" + (
                    f", fold {row['fold']}" if "fold" in row else ""
                )
                print(f"{number}/{len(futures)} {which}: map50 {row['map50']}", file=sys.stderr, flush=True)
                yield row
        finally:
            pool.shutdown(cancel_futures=True)


def begin(tree: Row, epochs: int) -> Row:
    """Train the first epochs of a configuration; its row names the last checkpoint."""
    config = make_config({**tree, "name": f"start-{tree['seed']}"}, "a training of this benchmark")

    def train(config: Config) -> Row:
        summary = run(config, quiet=True, on_epoch=lambda record, _: record["epoch"] + 1 < epochs)
        return {"checkpoint": summary["checkpoint"], "map50": summary["map50"]}

    return keep_row(config, train, epochs)


def score(tree: Row, start: str | None = None, more: Sequence[str] = ()) -> Row:
    """Train a configuration, from checkpoint ``start`` on if there is one; its last checkpoint is evaluated
    for ``more`` scores too, if any.
    """

    def train(config: Config) -> Row:
        summary = run(config, quiet=True, resume=None if start is None else Path(start))
        if not more:
            return {"map50": summary["map50"]}
        detector, classes = load_detector(Path(summary["checkpoint"]), config)
        return map50_of(detector, classes, config, more)

    return keep_row(make_config(tree, "a training of this benchmark"), train, start, more)


def keep_row(config: Config, train: Callable[[Config], Row], *depends_on: Any) -> Row:
    """The row of a training; what an earlier call measured, where that was of the same by the same."""
    folder, machinery = run_directory(config), [machine(), versions(), PrefixEngine.revision, FLOAT32_STAGES]
    torch.set_num_threads(1)
    made_from = json.loads(json.dumps({"config": to_dict(config), "depends_on": depends_on, "by": machinery}))
    file = folder / "score.json"
    way, _, seed = str(config.name).rpartition("-")
    which = {
        "way": way,
        "seed": int(seed),
        **({"fold": config.data.selection_fold} if config.data.selection_fraction else {}),
    }
    if file.exists() and (found := json.loads(file.read_text(encoding="utf-8")))["made_from"] == made_from:
        return {**found["row"], **which}
    shutil.rmtree(folder, ignore_errors=True)
    begun = time.perf_counter()
    row = {**which, **train(config), "seconds": time.perf_counter() - begun}
    write_text(file, json.dumps({"row": row, "made_from": made_from}))
    return row


@torch.no_grad()
def map50_of(
    detector: Detector, classes: list[str], config: Config, more: Sequence[str] = ("orientations", "wide")
) -> dict[str, float]:
    """map50 of the evaluated images as they are; and, where more is asked for, of these in each mirrored
    orientation ("horizontal" and so on), of these in all four orientations ("orientations"), and of all that
    together with the training images ("wide").
    """
    alone = (
        dict(zip(ORIENTATIONS, ("map50", *ORIENTATIONS[1:]), strict=True))
        if more
        else {ORIENTATIONS[0]: "map50"}
    )
    evaluators = {name: Evaluator(len(classes), classes) for name in (*alone.values(), *more)}
    train_set, eval_set, _ = make_datasets(config.data, config.seed)
    feed = feeding(config.data, config.evaluation.batch_size, choose_device(config.training.device))
    parts = [("evaluated", eval_set, ORIENTATIONS if more else ORIENTATIONS[:1])] + [
        ("trained", train_set, ORIENTATIONS[:1])
    ] * ("wide" in more)
    for kind, dataset, orientations in parts:
        for batch, targets in build_eval_loader(dataset, config.data.image_size, feed):
            for orientation in orientations:
                shown = [
                    flip(image, target, orientation) for image, target in zip(batch, targets, strict=True)
                ]
                named = [
                    {**target, "image_id": f"{kind} {orientation} {target['image_id']}"}
                    for _, target in shown
                ]
                found = detector([image for image, _ in shown])
                counted = {alone[orientation], "orientations", "wide"} if kind == "evaluated" else {"wide"}
                for name in counted & evaluators.keys():
                    evaluators[name].update(found, named)
    return {name: evaluator.compute()["map50"] for name, evaluator in evaluators.items()}


def summary(rows: Sequence[Row]) -> dict[str, Row]:
    """For each way the mean and spread of its map50s, and the mean difference to float32 of the same seed and
    fold, its standard error and the largest one.
    """
    exact = {(row["seed"], row.get("fold")): row for row in rows if row["way"] == EXACT}
    found: dict[str, Row] = {}
    for way in dict.fromkeys(row["way"] for row in rows):
        mine = [row for row in rows if row["way"] == way]
        found[way] = {"seeds": len({row["seed"] for row in mine}), "trainings": len(mine)}
        for key in (key for key in SCORES if key in mine[0]):
            off = [row[key] - exact[row["seed"], row.get("fold")][key] for row in mine]
            found[way] |= {
                f"{key}_mean": statistics.fmean(row[key] for row in mine),
                f"{key}_spread": spread([row[key] for row in mine]),
            }
            found[way] |= {
                f"{key}_off": statistics.fmean(off),
                f"{key}_off_error": spread(off) / len(off) ** 0.5,
            }
            found[way][f"{key}_off_largest"] = max(off, key=abs)
    return found


def spread(values: Sequence[float]) -> float:
    """Standard deviation of a sample; nan of one value."""
    return statistics.stdev(values) if len(values) > 1 else float("nan")


def table(ways: dict[str, Row]) -> str:
    """What a reader compares."""
    keys = [key for key in SCORES if f"{key}_mean" in ways[EXACT]]
    lines = [
        f"{'way':20} seeds trainings" + "".join(f"  {key:16}  to float32          largest" for key in keys)
    ]
    for way, row in sorted(ways.items(), key=lambda item: list(WAYS).index(item[0])):
        cells = [
            f"{row[f'{key}_mean']:.4f} +- {row[f'{key}_spread']:.4f}  {row[f'{key}_off']:+.4f} +- "
            f"{row[f'{key}_off_error']:.4f}  {row[f'{key}_off_largest']:+.4f}"
            for key in keys
        ]
        lines.append(f"{way:20} {row['seeds']:5} {row['trainings']:9}  {'  '.join(cells)}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(run_command(command))
