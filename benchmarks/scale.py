"""What a search of many trials costs beside its trainings: decisions, files, the driver's memory. Nothing is
trained and no Ray runs: stub visits end one after the other, many at once, as 64 GPUs would hold them.

python -m benchmarks.scale                       1,000 trials of policies, 64 at once
python -m benchmarks.scale --sampler random --trials 300
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from dbf_ray.cli.options import make_parser, print_json, run_command
from dbf_ray.config import Config, load_config, save_config, with_overrides
from dbf_ray.files import write_json
from dbf_ray.freezing import Horizon, make_policy
from dbf_ray.run.summary import machine, versions
from dbf_ray.search.cost import Costs
from dbf_ray.search.optuna_study import open_study
from dbf_ray.search.outcome import Outcome
from dbf_ray.search.repeats import Repeats
from dbf_ray.search.searcher import StudySearcher
from dbf_ray.search.settings import Beginning, Settings
from dbf_ray.search.sharing import Sharing
from dbf_ray.search.spaces import load_space
from dbf_ray.search.store import Store
from dbf_ray.search.study import Study, Trial
from dbf_ray.search.wanted import options_of
from dbf_ray.shipped import find_shipped

COSTS = (3.0, 2.2, 1.8, 1.4, 1.0)  # of an epoch with 0..4 stages frozen
MARKS = (50, 100, 200, 400, 600, 800, 1000)
FINISHED = "FINISHED"


def stub_begin(config: Config) -> Beginning:
    """A detector with four stages of which nothing else is known."""
    return Beginning(Horizon(config.training.epochs, 4, config.seed, costs=COSTS), {})


def stub_summary(config: Config) -> dict[str, Any]:
    """A summary made of the timeline alone."""
    horizon = Horizon(config.training.epochs, 4, config.seed, costs=COSTS)
    policy = make_policy(config.freezing.policy, **config.freezing.parameters)
    frozen = [one.num_frozen for one in policy.timeline(horizon)]
    trained = [(4 - one) / 4 * (0.5 + place / len(frozen)) for place, one in enumerate(frozen)]
    share = sum(trained) / len(frozen)
    return {
        "map50": 0.2 + 0.6 * share**0.5,
        "compute_ratio": sum(COSTS[one] for one in frozen) / (COSTS[0] * len(frozen)),
        "epochs": len(frozen),
        "frozen_prefixes": frozen,
    }


@dataclass
class Times:
    """Seconds of calls since the last row."""

    ask: list[float] = field(default_factory=list)
    tell: list[float] = field(default_factory=list)
    files: list[float] = field(default_factory=list)


class Stubs:
    """One search over stub visits in ``folder``."""

    def __init__(self, folder: Path, trials: int, at_once: int, sampler: str, epochs: int) -> None:
        self.folder, self.at_once = folder, at_once
        config = with_overrides(
            load_config(None, {}),
            {"training.epochs": epochs, "search.sampler": sampler, "search.controls": []},
        )
        folder.mkdir(parents=True)
        save_config(config, folder / "config.yaml")
        settings = Settings(config, stub_begin)
        self.study = Study(
            open_study(folder / "study.db", folder.name, trials=trials, seed=0),
            load_space(find_shipped("search space", "policies")),
            settings,
            **options_of(config, Costs(settings)),
            store=Store(folder / "states", versions()),
            sharing=Sharing(config.search.kept_states),
        )
        repeats = Repeats(self.study, folder / "trials")
        self.outcome = Outcome(self.study, config, folder, repeats, frozenset())
        self.times, self.done = Times(), 0
        self.searcher = StudySearcher(
            self.study, trials, lambda trial: self._begin(trial), lambda *_: None, lambda *_: self._end()
        )
        self._configs: dict[int, Config] = {}

    def _begin(self, trial: Trial) -> None:
        (self.folder / "trials" / str(trial.number)).mkdir(parents=True)
        self._configs[trial.number] = trial.setting.config

    def _end(self) -> None:
        begun = time.perf_counter()
        self.outcome.now_and_then()
        self.times.files.append(time.perf_counter() - begun)

    def run(self, marks: Sequence[int]) -> list[dict[str, Any]]:
        """Answer visits until no more are handed out; a row when so many trials have ended."""
        running: dict[str, dict[str, Any]] = {}
        rows: list[dict[str, Any]] = []
        handed = 0
        while True:
            while len(running) < self.at_once:
                begun = time.perf_counter()
                found = self.searcher.suggest(str(handed))
                self.times.ask.append(time.perf_counter() - begun)
                if not isinstance(found, dict):
                    break
                running[str(handed)] = found
                handed += 1
            if not running:
                return rows
            name = next(iter(running))
            self._answer(name, running.pop(name))
            if self.done in marks or not (running or found != FINISHED):
                rows.append(self._row())

    def _answer(self, name: str, visit: dict[str, Any]) -> None:
        summary = stub_summary(self._configs.pop(visit["number"]))
        write_json(self.folder / "trials" / str(visit["number"]) / "summary.json", summary)
        begun, files = time.perf_counter(), sum(self.times.files)
        self.searcher.on_trial_complete(name, {"outcome": json.dumps({"summary": summary, "records": []})})
        self.times.tell.append(time.perf_counter() - begun - (sum(self.times.files) - files))
        self.done += 1

    def _row(self) -> dict[str, Any]:
        times, self.times = self.times, Times()
        return {
            "trials": self.done,
            "ask_ms": 1000 * statistics.median(times.ask or [0.0]),
            "ask_worst_ms": 1000 * max(times.ask or [0.0]),
            "tell_ms": 1000 * statistics.median(times.tell),
            "files_ms": 1000 * statistics.median(times.files),
            "memory_mb": psutil.Process().memory_info().rss / 2**20,
            "study_db_mb": (self.folder / "study.db").stat().st_size / 2**20,
            "states": len(list((self.folder / "states").glob("*"))),
        }


def command(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure and print a table."""
    parser = make_parser("python -m benchmarks.scale", __doc__ or "", sections=None)
    parser.add_argument("--trials", type=int, default=1000, help="(default: 1000)")
    parser.add_argument("--at-once", type=int, default=64, help="(default: 64)")
    parser.add_argument("--sampler", default="cost", help="cost, random or tpe (default: cost)")
    parser.add_argument("--epochs", type=int, default=40, help="of a training (default: 40)")
    parser.add_argument("--quick", action="store_true", help="24 trials, in seconds")
    options = parser.parse_args(arguments)
    if options.quick:
        options.trials, options.at_once = 24, 4
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        stubs = Stubs(
            Path(scratch) / "scale", options.trials, options.at_once, options.sampler, options.epochs
        )
        made = time.perf_counter() - begun
        rows = stubs.run([*MARKS, options.trials])
    print(f"{'trials':>6} {'ask':>8} {'worst':>8} {'tell':>8} {'files':>8} ms  {'memory':>7} {'db':>6} MB")
    for row in rows:
        print(
            f"{row['trials']:>6} {row['ask_ms']:8.1f} {row['ask_worst_ms']:8.1f} {row['tell_ms']:8.1f} "
            f"{row['files_ms']:8.1f}     {row['memory_mb']:7.0f} {row['study_db_mb']:6.1f}"
        )
    result = {
        "rows": rows,
        "begin_seconds": made,
        "seconds": time.perf_counter() - begun,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10,
        **{key: getattr(options, key) for key in ("trials", "at_once", "sampler", "epochs")},
        "machine": machine(),
        "versions": versions(),
    }
    print(f"begun in {made:.1f} s, all in {result['seconds']:.0f} s")
    if options.json:
        print_json(result)
    return result


if __name__ == "__main__":
    sys.exit(run_command(command))
