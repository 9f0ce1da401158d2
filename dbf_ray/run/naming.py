"""What a run is called, in its folder and in MLflow."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from dbf_ray.config import Config, at
from dbf_ray.tracking import MlflowTarget, resolve_uri
from dbf_ray.tracking.origin import origin_tags
from dbf_ray.tracking.words import readable_name, setting_name


def run_name(config: Config) -> str:
    """The run's name: the configured one, or made from what varies between runs."""
    if config.name:
        return config.name
    parameters = "".join(
        f"-{key}{_in_a_name(value)}" for key, value in sorted(config.freezing.parameters.items())
    )
    interval = config.freezing.interval
    held = (
        "" if (interval.unit, interval.every) == ("epochs", 1) else f"-every{interval.every}{interval.unit}"
    )
    policy, backbone, data = map(
        safe_name, (config.freezing.policy, config.detector.backbone, config.data.name)
    )
    return f"{policy}{parameters}{held}-{backbone}-{data}-seed{config.seed}"


def safe_name(text: str) -> str:
    """``text`` as part of a folder's name: what is no letter, digit, "_", ".", "+" or "-" becomes "_"."""
    return re.sub(r"[^\w.+-]", "_", text)


def _in_a_name(value: Any) -> str:
    """A parameter as part of a folder's name: short, and different for different values."""
    if isinstance(value, dict):
        return "".join(f"-{key}{_in_a_name(part)}" for key, part in sorted(value.items()))
    text = "_".join(map(_in_a_name, value)) if isinstance(value, list | tuple) else str(value)
    safe = safe_name(text)
    return safe if len(safe) <= 24 else f"{safe[:12]}~{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def run_directory(config: Config) -> Path:
    """The folder of a run."""
    return config.runs_dir / run_name(config)


def mlflow_target(config: Config) -> MlflowTarget | None:
    """Where in MLflow a single run goes; None if it is switched off."""
    if not config.tracking.mlflow:
        return None
    with at("tracking"):
        uri = resolve_uri(config.tracking.uri)
    freezing, detector = config.freezing, config.detector
    setting = setting_name(freezing.policy, freezing.parameters)
    name = readable_name(setting, detector.name, detector.backbone, config.seed, config.name)
    return MlflowTarget(uri, config.tracking.experiment, name, tags=origin_tags())
