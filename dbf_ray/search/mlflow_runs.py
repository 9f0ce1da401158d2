"""A study in MLflow: a parent run, and a child for each trial."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbf_ray.config import Config
from dbf_ray.search.cost import Costs
from dbf_ray.search.settings import Setting
from dbf_ray.tracking import MlflowTarget, resolve_uri
from dbf_ray.tracking.origin import origin_tags
from dbf_ray.tracking.words import readable_name, setting_name

if TYPE_CHECKING:
    from dbf_ray.tracking.mlflow import MlflowStudy


def parent_run(config: Config, folder: Path, trials: int, space_file: Path) -> MlflowStudy | None:
    """The parent run of the study in ``folder``; None without MLflow: off, or not installed."""
    if not config.tracking.mlflow:
        return None
    try:
        from dbf_ray.tracking.mlflow import MlflowStudy
    except ImportError:
        return None
    study = folder.name
    parameters = {
        "space": space_file.name,
        "trials": trials,
        "seed": config.seed,
        "epochs": config.training.epochs,
        "backbone": config.detector.backbone,
        "detector": config.detector.name,
        "data": config.data.name,
        "accuracy": config.search.accuracy,
        "cost": config.search.cost,
    }
    tags = {"dbf_ray.study": study, "dbf_ray.role": "search"}
    target = MlflowTarget(resolve_uri(config.tracking.uri), study, f"search · {study}", "search", tags=tags)
    parent = MlflowStudy(folder, target)
    parent.start(parameters, [space_file])
    return parent


def target(config: Config, folder: Path, parent: Any) -> MlflowTarget | None:
    """Where the trials go; None without a parent run."""
    if parent is None:
        return None
    tags = {**origin_tags(), "dbf_ray.study": folder.name}
    uri = resolve_uri(config.tracking.uri)
    return MlflowTarget(uri, folder.name, None, "trial", str(folder.absolute()), tags)


def about(setting: Setting, number: int, role: str, costs: Costs, run: Any) -> dict[str, Any]:
    """What a trial's process must know of its setting to name its run: values that JSON holds; ``run``: what
    trains, if that is one's own function.
    """
    name = setting_name(setting.policy, setting.parameters, setting.overrides)
    return {
        "setting": name,
        "tags": {"dbf_ray.trial": str(number), "dbf_ray.role": role, "dbf_ray.setting": name},
        "full_share": costs.full_share(setting),
        "function": getattr(getattr(getattr(run, "own", None), "train", None), "__name__", None),
    }


def of_trial(
    target: MlflowTarget, about: Mapping[str, Any], config: Config, seed: int | None
) -> MlflowTarget:
    """Where a trial's run goes; ``seed``: of a repeat."""
    parts = about["setting"], config.detector.name, config.detector.backbone, config.seed
    name = readable_name(*parts, function=about["function"])
    tags = {**target.tags, **about["tags"], "dbf_ray.seed": str(config.seed)}
    if seed is not None:
        tags["dbf_ray.repeat"] = str(seed)
    return replace(target, run_name=name, tags=tags, full_share=about["full_share"])


def deliver_rest(config: Config, folder: Path) -> str | None:
    """Deliver what the trials' own processes could not; a line for the person where something still waits."""
    if not config.tracking.mlflow:
        return None
    try:
        from dbf_ray.tracking.mlflow import deliver_rest
    except ImportError:
        return None
    return deliver_rest(folder, resolve_uri(config.tracking.uri))
