"""The three commands of :mod:`benchmarks.search`."""

from __future__ import annotations

import importlib
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.search import bands, compare, overhead, task
from benchmarks.search.record import Recording
from benchmarks.search.world import load_world, observed_front, write_facts
from dbf_ray.cli.options import make_parser, parse, print_json
from dbf_ray.config import with_overrides
from dbf_ray.errors import ConfigError
from dbf_ray.files import write_json
from dbf_ray.machine import usable_cpus
from dbf_ray.run.summary import machine, versions
from dbf_ray.search.checked import CheckedBegin


def record_command(arguments: Sequence[str]) -> dict[str, Any]:
    """Record learning curves of one training seed: of ships with --data.root, else of the demo's scenes."""
    sections = ("", "data", "detector", "training")
    parser = make_parser("python -m benchmarks.search record", str(record_command.__doc__), sections=sections)
    parser.add_argument("--out", type=Path, required=True, help="the table (CSV); facts beside it (JSON)")
    parser.add_argument(
        "--settings", type=int, default=200, help="of policies (default: 200), and all of rho"
    )
    parser.add_argument("--only", type=int, help="train these many settings alone, the first ones")
    parser.add_argument("--hours", type=float, help="begin no setting after so many")
    parser.add_argument("--processes", type=int, default=2, help="at once, a thread each (default: 2)")
    parser.add_argument("--images", type=int, default=task.IMAGES, help="to train on (default: %(default)s)")
    parser.add_argument("--val-images", type=int, default=task.VAL_IMAGES, help="(default: %(default)s)")
    parser.add_argument("--size", type=int, default=task.SIZE, help="pixels (default: %(default)s)")
    parser.add_argument("--work", type=Path, help="folder of runs and states; default: beside the table")
    options, given = parse(parser, arguments)
    overrides = dict(given)
    work = options.work or options.out.with_suffix(".work")
    size = {"images": options.images, "val_images": options.val_images, "size": options.size}
    root = overrides.pop("data.root", None)
    base = task.scenes(**size) if root is None else task.ships(Path(root), work / "data", **size)
    config = with_overrides(task.recorded(base), overrides)
    begin = CheckedBegin()
    settings = task.settings_of(config, options.settings, begin)
    horizon = begin(config).horizon
    called = shlex.join(Path(one).name if "/" in one else one for one in arguments)
    about = {"machine": machine(), "versions": versions(), "command": called, **size}
    write_facts(options.out, config, horizon, about)
    recording = Recording(
        settings[: options.only], horizon, options.out, work / f"seed-{config.seed}", config.seed
    )
    result = recording.run(options.processes, options.hours)
    if options.json:
        print_json(result)
    return result


def replay_command(arguments: Sequence[str]) -> dict[str, Any]:
    """Replay searches on a recorded table and print what they reach."""
    parser = make_parser("python -m benchmarks.search replay", str(replay_command.__doc__))
    parser.add_argument("file", type=Path, help="the table (CSV), with its facts (JSON) beside it")
    parser.add_argument("--out", type=Path, help="write the result there (JSON)")
    parser.add_argument("--samplers", nargs="+", default=["random", "grid", "tpe", "cost"], metavar="NAME")
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 4], metavar="N")
    parser.add_argument("--searches", type=int, default=20, help="search seeds (default: 20)")
    parser.add_argument("--trainings", type=int, default=60, help="budget of a search (default: 60)")
    parser.add_argument(
        "--seen", type=float, default=0.75, help="share of the settings that a search can draw"
    )
    parser.add_argument("--processes", type=int, default=usable_cpus(), help="(default: one a core)")
    parser.add_argument("--reported", metavar="MODULE:NAME", help="what a search reports as its front")
    parser.add_argument("--answer", metavar="MODULE:NAME", help="what it says of its own chance")
    options = parser.parse_args(arguments)
    world = load_world(options.file)
    found = compare.Comparison(
        world,
        options.trainings,
        options.searches,
        _named(options.reported) or observed_front,
        _named(options.answer) or (bands.answer if {*world.resampled} == {*world.seeds} else None),
        options.seen,
    )
    result = found.run(options.samplers, options.workers, options.processes)
    result |= {"machine": machine(), "versions": versions(), "seen": options.seen}
    print(compare.table_text(result))
    if options.out is not None:
        write_json(options.out, result)
    if options.json:
        print_json(result)
    return result


def overhead_command(arguments: Sequence[str]) -> dict[str, Any]:
    """Time real searches of tiny trainings: what a trial costs beside its epochs, and what a fork costs."""
    parser = make_parser("python -m benchmarks.search overhead", str(overhead_command.__doc__))
    parser.add_argument("--epochs", type=int, default=4, help="of each trial (default: 4)")
    options = parser.parse_args(arguments)
    result = overhead.measure(options.epochs)
    print(overhead.text(result))
    if options.json:
        print_json(result)
    return result


def _named(path: str | None) -> Any:
    """The object of ``module:name``."""
    if path is None:
        return None
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"a function must be given as module:name, got {path!r}: {error}") from error
