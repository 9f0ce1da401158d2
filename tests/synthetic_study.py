"""The folder of a study as a search leaves it, made in seconds and without any training: for tests of what
shows studies, and of how that does with large ones.

Numbers are plausible, not measured: accuracy grows with the epochs in which the backbone is trained, costs
are those of a backbone with about half of the FLOPs, and chance adds its part. Beginnings that settings have
in common are shared, as a search does.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from dbf_ray.config import Config, to_dict, with_overrides
from dbf_ray.files import write_json, write_text
from dbf_ray.freezing import budget, make_policy
from dbf_ray.reports import study_result, write_study
from dbf_ray.tracking import write_epochs

STAGES = 4
STEPS = 48  # of an epoch
FLOPS = (18.2e9, 16.4e9, 14.6e9, 13.3e9, 12.4e9)  # of a step, by frozen stages
SECONDS = (0.37, 0.28, 0.23, 0.20, 0.17)  # of a step, by frozen stages
MEMORY = (1.8e9, 1.7e9, 1.55e9, 1.4e9, 1.27e9)  # bytes, by frozen stages
CLASSES = {"plane": 0.05, "ship": 0.0, "vehicle": -0.05}  # and how much better than the mean
LOSSES = {"classification": 0.4, "regression": 0.6}  # and their shares
VERSIONS = {"python": "3.11.7", "dbf-ray": "0.1.0", "torch": "2.15.0"}
MACHINE = "a made-up machine, 2 cores, 1 threads"
TOTALS = ("executed_flops", "device_seconds", "data_wait_seconds", "wall_seconds", "allreduce_bytes")
BEGAN = 1.79e9  # seconds since 1970
FAILURE = "the loss of an epoch was not finite"


@dataclass(frozen=True)
class Setting:
    """What a trial trains: overrides over the base, and the frozen prefix of each of its epochs."""

    overrides: dict[str, Any]
    prefixes: tuple[int, ...]
    role: str = "setting"


@dataclass
class Written:
    """A run that is there already."""

    title: str
    seed: int
    setting: Setting
    records: list[dict[str, Any]]


def synthetic_study(
    folder: Path,
    trials: int = 12,
    epochs: int = 12,
    *,
    seeds: int = 1,
    running: int = 0,
    failed: int = 0,
    every: int = 1,
    draws: int = 1000,
) -> dict[str, Any]:
    """Write ``folder`` (studies/NAME) as a search leaves it; returns the content of pareto.json.

    Args:
        folder: made if missing.
        trials: controls included, 4 to 3 * epochs + 1: the baselines and two shorter full trainings, then
            schedules.
        epochs: of the base configuration, at least 4.
        seeds: with which baselines, controls and every fifth schedule are trained.
        running: so many trials, the last ones, are in the middle of it.
        failed: so many before them have failed half-way.
        every: epochs between two evaluations.
        draws: resampled sets of images behind the intervals.
    """
    settings = list(itertools.islice(settings_of(epochs), trials))
    assert len(settings) == trials, f"of {epochs} epochs there are {len(settings)} settings"
    states = ["COMPLETE"] * (trials - running - failed) + ["FAIL"] * failed + ["RUNNING"] * running
    study = _Study(folder, epochs, every)
    rows, resampled = [], {}
    luck = 0.012 * np.random.default_rng(0).standard_normal(draws)  # of images: the same for all
    for number, (setting, state) in enumerate(zip(settings, states, strict=True)):
        row = study.run(str(number), setting, 0, state)
        repeated = state == "COMPLETE" and (number < 4 or number % 5 == 0)
        row["seeds"] = [
            study.run(f"{number}-seed-{seed}", setting, seed, state)
            for seed in range(1, seeds if repeated else 1)
        ]
        row |= {"number": number, "role": setting.role, "command": study.command(number, setting)}
        if state == "COMPLETE":
            runs = {run["seed"]: run["map50"] for run in (row, *row["seeds"])}
            own = 0.006 * np.random.default_rng(number + 1).standard_normal(draws)
            resampled[number] = {seed: value + luck + own for seed, value in runs.items()}
        rows.append(row)
    write_text(folder / "config.yaml", yaml.safe_dump(to_dict(study.config), sort_keys=False))
    result = study_result(folder.name, rows, resampled=resampled)
    write_study(result, folder)
    return result


def settings_of(epochs: int) -> Iterator[Setting]:
    """Baselines, shorter full trainings, then schedules."""

    def setting(role: str, policy: str, length: int = epochs, **parameters: int) -> Setting:
        keys = {"freezing.policy": policy, **{f"freezing.{key}": value for key, value in parameters.items()}}
        prefixes = make_policy(policy, **parameters).decisions(length, STAGES)
        return Setting(
            keys | ({"training.epochs": length} if length != epochs else {}), tuple(prefixes), role
        )

    yield setting("baseline", "full")
    yield setting("baseline", "frozen")
    for share in (0.75, 0.5):
        yield setting("control", "full", round(share * epochs))
    for rho in range(2, epochs + 1):
        yield setting("setting", "step", rho=rho)
    for spent in range(1, epochs):
        yield setting("setting", "front", budget=spent)
        yield setting("setting", "back", budget=spent)


@dataclass
class _Study:
    folder: Path
    epochs: int
    every: int
    written: list[Written] = field(default_factory=list)

    def __post_init__(self) -> None:
        keys = {"training.epochs": self.epochs, "evaluation.every": self.every, "data.name": "synthetic"}
        keys |= {"data.image_size": 256, "detector.backbone": "mobilenet_v2"}
        self.config = with_overrides(Config(), keys)

    def command(self, number: int, setting: Setting) -> str:
        """The command line that trains a setting once more."""
        changed = [f"--{key} {value}" for key, value in setting.overrides.items()]
        name = f"--name {self.folder.name}-{number}"
        return " ".join(["dbf train --config", str(self.folder / "config.yaml"), *changed, name])

    def run(self, name: str, setting: Setting, seed: int, state: str) -> dict[str, Any]:
        """Write one run's folder; returns its row, as far as the run knows."""
        run, title = self.folder / "trials" / name, f"{self.folder.name}-{name}"
        own = {"seed": seed, "name": title, "runs_dir": str(run.parent)}
        config = to_dict(with_overrides(self.config, {**setting.overrides, **own}))
        write_text(run / "config.yaml", yaml.safe_dump(config, sort_keys=False))
        records = self._records(title, setting, seed)
        records = records if state == "COMPLETE" else records[: max(1, len(records) // 2)]
        source, shared = self._beginning(setting, seed, len(records))
        fork = None
        if source is not None:
            records[:shared] = [{"inherited": source.title, **record} for record in source.records[:shared]]
            fork = {"run": source.title, "epoch": shared, "state": f"{shared:016x}"}
        write_epochs(run, records)
        self.written.append(Written(title, seed, setting, records))
        summary = self._summary(title, setting, seed, records) | {"forked_from": fork}
        if state == "COMPLETE":
            write_json(run / "summary.json", summary)
        elif state == "FAIL":
            write_json(run / "failure.json", {"reason": FAILURE})
        values = {key: summary[key] if state == "COMPLETE" else None for key in ("map50", "compute_ratio")}
        if state == "COMPLETE":  # a study's is over the base's full training
            values["compute_ratio"] = summary["compute_ratio"] * len(setting.prefixes) / self.epochs
        row = {**summary, **values, "state": state, "run": str(run), "overrides": setting.overrides}
        for key in ("name", "versions", "pieces", "machine", "frozen_prefixes", "checkpoint"):
            row.pop(key)
        return row | ({"failure": FAILURE} if state == "FAIL" else {})

    def _beginning(self, setting: Setting, seed: int, epochs: int) -> tuple[Written | None, int]:
        """The run that did the same for longest, and for how many epochs; the last one is trained."""
        best: tuple[Written | None, int] = (None, 0)
        for run in self.written:
            if run.seed != seed or len(run.setting.prefixes) != len(setting.prefixes):
                continue
            pairs = zip(setting.prefixes, run.setting.prefixes, strict=True)
            same = next((epoch for epoch, (one, other) in enumerate(pairs) if one != other), epochs)
            if (same := min(same, epochs - 1, len(run.records))) > best[1]:
                best = run, same
        return best

    def _records(self, title: str, setting: Setting, seed: int) -> list[dict[str, Any]]:
        """The epochs' records, as a training writes them."""
        chance, length = random.Random(title), len(setting.prefixes)
        luck, learned, records = random.Random(f"{seed}{setting.overrides}").gauss(0, 0.008), 0.0, []
        for epoch, prefix in enumerate(setting.prefixes):
            learned += 1 - 0.55 * prefix / STAGES
            grown = 1 - math.exp(-4.5 * learned / self.epochs)
            lr = 5e-4 * (1 + math.cos(math.pi * (epoch + 1) / length)) / 2
            loss = 0.5 + 1.6 * (1 - grown) + chance.gauss(0, 0.02)
            seconds = STEPS * SECONDS[prefix] * (1 + abs(chance.gauss(0, 0.03)))
            record: dict[str, Any] = {"epoch": epoch, "frozen_stages": prefix, "steps": STEPS}
            record |= {"steps_per_prefix": {str(prefix): STEPS}, "lr": lr, "loss": loss}
            record |= {"losses": {name: share * loss for name, share in LOSSES.items()}}
            record |= {"gradient_norm": 3 + chance.random(), "map50": None}
            if (epoch + 1) % self.every == 0 or epoch + 1 == length:
                map50 = 0.72 * grown * (0.9 + 0.1 * (epoch + 1) / length) + luck + chance.gauss(0, 0.004)
                map50 = min(max(map50, 0.0), 1.0)
                record |= {"map50": map50, "map50_voc07": 0.97 * map50, "map75": 0.45 * map50}
                record["map50_95"] = 0.5 * map50
                record |= {f"ap50/{name}": map50 * (1 + more) for name, more in CLASSES.items()}
            record |= {"executed_flops": round(STEPS * FLOPS[prefix]), "device_seconds": seconds}
            record |= {"data_wait_seconds": 0.01 * seconds, "wall_seconds": 1.05 * seconds}
            record |= {"allreduce_bytes": 0, "data_wait_share": 0.01, "cache_hits": 0, "cache_misses": 0}
            record |= {"cache_seconds_saved": 0.0, "cache_bytes": 0}
            record |= {"images_per_second": 4 * STEPS / seconds, "peak_memory_bytes": round(MEMORY[prefix])}
            record |= {"mean_memory_bytes": round(0.95 * MEMORY[prefix]), "energy_joules": None, "attempt": 1}
            record |= {"time": BEGAN + seconds * (epoch + 1), "tracking_seconds": 0.01}
            records.append(record)
        for done, record in enumerate(records, 1):
            record["so_far"] = self._so_far(records[:done], length)
        return records

    def _so_far(self, records: list[dict[str, Any]], length: int) -> dict[str, Any]:
        """What the first epochs of so many cost together."""
        prefixes = [record["frozen_stages"] for record in records]
        ratio = sum(FLOPS[prefix] for prefix in prefixes) / (FLOPS[0] * length)
        peak = max(record["peak_memory_bytes"] for record in records)
        totals = {name: sum(record[name] for record in records) for name in TOTALS}
        return {**totals, "compute_ratio": ratio, "peak_memory_bytes": peak}

    def _summary(
        self, title: str, setting: Setting, seed: int, records: list[dict[str, Any]]
    ) -> dict[str, Any]:
        """The content of summary.json."""
        prefixes, keys = list(setting.prefixes[: len(records)]), setting.overrides
        scores = [record["map50"] for record in records if record["map50"] is not None]
        last: dict[str, Any] = next(
            (record for record in reversed(records) if record["map50"] is not None), {}
        )
        parameters = {
            key.removeprefix("freezing."): value
            for key, value in keys.items()
            if key.startswith("freezing.") and key != "freezing.policy"
        }
        now = {"machine": MACHINE, "world_size": 1, "versions": VERSIONS}
        own = [record for record in records if "inherited" not in record]
        names = ("map50", "map50_voc07", "map75", "map50_95", *(f"ap50/{name}" for name in CLASSES))
        return {
            **{"name": title, "policy": keys["freezing.policy"], "parameters": parameters},
            **{"rho": parameters.get("rho"), "seed": seed, "num_stages": STAGES, **now},
            **{"frozen_prefixes": prefixes, "budget": budget(prefixes, STAGES), "backbone_share": 0.48},
            "compute_ratio": sum(FLOPS[prefix] for prefix in prefixes) / (FLOPS[0] * len(prefixes)),
            **{"data_digest": "c326377a1c0e23a5", "pieces": [{"epoch": 0, **now}], "epochs": len(records)},
            **{name: last.get(name) for name in names},
            **{"map50_best": max(scores, default=None), "energy_joules": None},
            **{name: sum(record[name] for record in records) for name in TOTALS},
            "peak_memory_bytes": max(record["peak_memory_bytes"] for record in records),
            "mean_memory_bytes": sum(record["mean_memory_bytes"] for record in records) // len(records),
            **{"epochs_trained": len(own), "checkpoint": None, "stopped_early": False},
            "own": {name: sum(record[name] for record in own) for name in TOTALS},
        }
