"""The seconds of steps with each number of frozen stages, timed once per study where its trials train, and
kept: so a cost in seconds is known before a trial as FLOPs are, and stays the same while a study goes on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import ray

from dbf_ray.build import resolved
from dbf_ray.config import Config, identity, key_of, to_dict, with_overrides
from dbf_ray.cost import Stretch
from dbf_ray.errors import ConfigError, DbfRayError
from dbf_ray.files import write_json
from dbf_ray.plan.stage_times import FORECAST_LIMIT, RUN_BY, StageTimes, time_stages
from dbf_ray.run.summary import machine, versions
from dbf_ray.search.compared import check_measured
from dbf_ray.search.draws import Draws
from dbf_ray.search.pool import BEGUN, Pool
from dbf_ray.search.settings import Settings
from dbf_ray.search.spaces import SearchSpace

FILE = "timing.json"
TRAINED_BY = ("batch_size", "accumulation", "optimizer", "precision", "channels_last", "ema", "compile")
NOT_TIMED = ("data.selection_", "detector.weights_")
Timer = Callable[[Config], Mapping[str, Any]]
"""Of a configuration to what :func:`measured` gives."""


def kind_of(config: Config) -> str:
    """The same for configurations whose steps take the same time: of one detector, one kind of images and
    batches, and frozen stages that are run alike.
    """
    kept = [f"training.{name}" for name in TRAINED_BY] + [f"freezing.{name}" for name in RUN_BY]
    shape = identity(resolved(config))
    return key_of(
        {
            key: value
            for key, value in shape.items()
            if key in kept or (key.startswith(("data.", "detector.")) and not key.startswith(NOT_TIMED))
        }
    )


class Timings:
    """What has been timed for the study in ``folder``, by :func:`kind_of`.

    Raises:
        ConfigError: its file cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / FILE
        self._known: dict[str, dict[str, Any]] = {}
        if self.file.exists():
            try:
                self._known = json.loads(self.file.read_text(encoding="utf-8"))
                self._times = {key: StageTimes.from_dict(one["times"]) for key, one in self._known.items()}
            except (OSError, ValueError, TypeError, KeyError) as error:
                raise ConfigError(
                    f"{self.file} cannot be read ({' '.join(str(error).split())[:200]}); put it back, or "
                    "remove it, and steps are timed anew"
                ) from error
        else:
            self._times = {}

    def times(self, config: Config) -> StageTimes | None:
        """Those of a training's steps; None where they were not timed."""
        return self._times.get(kind_of(config))

    def seconds(self, config: Config) -> Callable[[Stretch], float] | None:
        """What gives the seconds of stretches of a training; None where its steps were not timed."""
        times = self.times(config)
        return None if times is None else times.seconds

    def missing(self, configs: Iterable[Config]) -> list[Config]:
        """Those whose kind was not timed."""
        return [config for config in configs if kind_of(config) not in self._times]

    def time(self, configs: Iterable[Config], timer: Timer, show: Callable[[str], None]) -> None:
        """Time steps of these, one after the other, and keep what was found in the study's file."""
        for config in configs:
            data, detector = config.data, config.detector
            show(
                f"timing real steps of {detector.name} with {detector.backbone} at {data.image_size} px, "
                "once for this study"
            )
            self.add(config, timer(config))
            write_json(self.file, self._known)

    def add(self, config: Config, found: Mapping[str, Any]) -> None:
        """What :func:`measured` gave of a configuration."""
        kind = kind_of(config)
        self._times[kind] = StageTimes.from_dict(found["times"])
        tree = to_dict(config)
        about = {"image_size": tree["data"]["image_size"], "batch_size": tree["training"]["batch_size"]}
        about |= {name: tree["detector"][name] for name in ("name", "backbone")}
        self._known[kind] = {"about": about, **found}


def needs_timing(config: Config) -> bool:
    """Whether a search compares its trials by seconds that are timed beforehand."""
    return config.search.cost == "seconds_ratio"


def kinds(space: SearchSpace, settings: Settings, study_name: str) -> list[Config]:
    """One of each kind of training that the space may draw, the base configuration's first.

    Raises:
        ConfigError: there are more than a search should wait for.
    """
    pool = Pool(Draws(space, study_name, []), settings, settings.config.seed)
    made = [*map(settings.make, space.baselines), *pool.settings]
    found = {kind_of(setting.config): setting.config for setting in reversed(made)}
    found.pop(kind_of(settings.config), None)
    if len(found) >= BEGUN:
        raise ConfigError(
            f"search.cost seconds_ratio times each kind of training (images, detector, batch) before the "
            f"first trial, at most {BEGUN} of them, and {space.file} draws more; let it draw fewer, or "
            "compare by --search.cost compute_ratio"
        )
    return [settings.config, *reversed(found.values())]


def measured(config: Config) -> dict[str, Any]:
    """Times of steps in this process, and on what: plain values."""
    return {"times": time_stages(config).as_dict(), "machine": machine(), "versions": versions()}


def measured_briefly(config: Config) -> dict[str, Any]:
    """:func:`measured` for a forecast, within a third of its time."""
    return {"times": time_stages(as_trial(config), FORECAST_LIMIT).as_dict()}


def as_trial(config: Config) -> Config:
    """With as many threads as a trial has."""
    threads = config.training.threads or config.cluster.cpus_per_worker
    return with_overrides(config, {"training.threads": threads})


def measured_by_ray(config: Config) -> dict[str, Any]:
    """:func:`measured` on what a trial's worker has; Ray is connected.

    Raises:
        DbfRayError: the configuration cannot be used there.
    """
    found: dict[str, Any] = in_trial(config, _measured_tree, to_dict(as_trial(config)))
    return found


def check_measured_by_ray(config: Config) -> None:
    """:func:`.check_measured` where trials train; Ray is connected.

    Raises:
        ConfigError: energy without a meter.
    """
    if config.search.cost == "energy_joules":
        in_trial(config, _check_tree, to_dict(config))


def in_trial(config: Config, work: Callable[..., Any], *arguments: Any) -> Any:
    """What ``work`` gives in a process with the resources of a trial's worker."""
    cluster = config.cluster
    resources: dict[str, Any] = {"num_cpus": cluster.cpus_per_worker, "num_gpus": float(cluster.gpu)}
    task = ray.remote(max_retries=0, **resources)(work)
    try:
        return ray.get(task.remote(*arguments))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, DbfRayError):
            raise error.cause from None
        raise


def _measured_tree(tree: dict[str, Any]) -> dict[str, Any]:
    return measured(Config.model_validate(tree))


def _check_tree(tree: dict[str, Any]) -> None:
    check_measured(Config.model_validate(tree))
