"""What a run is: its sections together, read from YAML plus dotted command-line overrides.

Nothing below :mod:`dbf_ray.build` sees these classes: it turns them into plain arguments.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from dbf_ray.config.base import Section
from dbf_ray.config.cluster_section import ClusterConfig
from dbf_ray.config.roles import Label, Place
from dbf_ray.config.search_section import SearchConfig
from dbf_ray.config.sections import (
    DataConfig,
    DetectorConfig,
    EvaluationConfig,
    FreezingConfig,
    TrackingConfig,
    TrainingConfig,
)
from dbf_ray.errors import ConfigError
from dbf_ray.files import LONGEST_NAME
from dbf_ray.shipped import find_shipped
from dbf_ray.single_keys import RepeatedKey, load_yaml
from dbf_ray.uris import public
from dbf_ray.values import is_text

RENAMED = {"data.canvas": "data.pad_to", "data.view_per": "data.orientation_per"}  # keys of 0.1.0


class Config(Section):
    """What a run is called and where it goes.

    Example:
        >>> Config(seed=1, training={"epochs": 24}).training.epochs
        24
    """

    name: Label[str | None] = Field(
        None, description="run name, also its folder; null: made from the policy, detector and seed"
    )
    seed: int = Field(0, ge=0, lt=2**31, description="seed of weights, order, augmentation and policies")
    runs_dir: Place[Path] = Field(Path("runs"), description="folder of the runs")
    data: DataConfig = Field(default_factory=DataConfig)
    detector: DetectorConfig = Field(default_factory=DetectorConfig)
    freezing: FreezingConfig = Field(default_factory=FreezingConfig)
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)
    cluster: ClusterConfig = Field(default_factory=ClusterConfig)
    tracking: TrackingConfig = Field(default_factory=TrackingConfig)
    search: SearchConfig = Field(default_factory=SearchConfig)

    @field_validator("name")
    @classmethod
    def _one_folder(cls, value: str | None) -> str | None:
        if value is not None and (value in ("", ".", "..") or "/" in value or "\\" in value):
            raise ValueError("should be the name of one folder, without slashes (runs_dir says where)")
        if value is not None and (not is_text(value) or len(value.encode()) > LONGEST_NAME):
            raise ValueError(
                f"should be a name that a folder can have: text in UTF-8 within {LONGEST_NAME} bytes"
            )
        return value

    @model_validator(mode="after")
    def _divisible(self) -> Config:
        parts = self.cluster.workers * self.training.accumulation
        if self.training.batch_size % parts:
            raise ValueError(
                "training.batch_size must be divisible by cluster.workers x training.accumulation = "
                f"{self.cluster.workers} x {self.training.accumulation}, got {self.training.batch_size}"
            )
        return self


def load_config(file: str | Path | None = None, overrides: Mapping[str, Any] | None = None) -> Config:
    """Read a YAML file and lay dotted overrides over it.

    Args:
        file: YAML file, the name of a shipped one (``demo``), or None for the defaults.
        overrides: dotted key -> value, for example ``{"freezing.rho": 5}``. Strings are parsed as YAML
            scalars.

    Raises:
        ConfigError: the file is missing or no YAML mapping, a key is unknown, or a value is out of range.

    Example:
        >>> load_config("demo", {"freezing.policy": "step", "freezing.rho": 4}).freezing.policy
        'step'
    """
    tree: dict[str, Any] = {}
    if file is not None:
        file = find_shipped("configuration", file)
        try:
            loaded = load_yaml(file.read_text(encoding="utf-8"), _is_text)
        except OSError as error:
            raise ConfigError(
                f"cannot read the configuration file {file}: {error.strerror or error}; give an existing "
                "YAML file"
            ) from error
        except RepeatedKey as error:
            line = "" if error.problem_mark is None else f", line {error.problem_mark.line + 1}"
            raise ConfigError(f"{file}{line}: {error.problem}") from error
        except (yaml.YAMLError, ValueError) as error:
            raise ConfigError(
                f"{file} is not valid YAML: {' '.join(str(error).split())}; correct it"
            ) from error
        if not isinstance(loaded, dict | None):
            raise ConfigError(
                f"{file} must hold a mapping of sections and keys to values, found {type(loaded).__name__}; "
                "the shipped ones are examples (--config demo)"
            )
        # A section whose keys are all commented out is empty, not null.
        tree = {
            key: {} if value is None and _section(key) else value for key, value in (loaded or {}).items()
        }
    freezing = tree.get("freezing")
    if (
        isinstance(freezing, dict)
        and overrides
        and overrides.get("freezing.policy", freezing.get("policy")) != freezing.get("policy")
    ):
        tree["freezing"] = _without_parameters(freezing)  # the file's policy goes, and its parameters with it
    _drop_inner(tree, overrides or {})
    place = (
        "the options given" if file is None else f"{file} with the options given" if overrides else str(file)
    )
    return make_config(apply_overrides(tree, overrides or {}), place)


def apply_overrides(tree: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of ``tree`` with each dotted key of ``overrides`` set."""
    result = {
        key: apply_overrides(value, {}) if isinstance(value, Mapping) else value
        for key, value in tree.items()
    }
    for dotted, value in overrides.items():
        *parents, leaf = dotted.split(".")
        node = result
        for parent in parents:
            child = node.setdefault(parent, {})
            if not isinstance(child, dict):
                raise ConfigError(f"{dotted}: {parent} is a value, not a section; give one or the other")
            node = child
        node[leaf] = _parse_scalar(value, dotted) if isinstance(value, str) else value
    return result


def with_overrides(config: Config, overrides: Mapping[str, Any]) -> Config:
    """Return a copy of ``config`` with dotted keys changed. Changing ``freezing.policy`` drops the old
    policy's parameters.
    """
    tree: dict[str, Any] = config.model_dump(mode="json")  # with the password
    if "freezing.policy" in overrides:
        tree["freezing"] = _without_parameters(tree["freezing"])
    _drop_inner(tree, overrides)
    return make_config(apply_overrides(tree, overrides), "the overrides")


def _drop_inner(tree: dict[str, Any], overrides: Mapping[str, Any]) -> None:
    """Another inner policy leaves nothing of the first one's parameters."""
    freezing = tree.get("freezing")
    if not isinstance(freezing, dict):
        return
    inner = freezing.get("inner")
    if isinstance(inner, dict) and overrides.get("freezing.inner.name", inner.get("name")) != inner.get(
        "name"
    ):
        tree["freezing"] = {**freezing, "inner": {}}


def _without_parameters(freezing: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in freezing.items() if key in FreezingConfig.model_fields}


def to_dict(config: Config) -> dict[str, Any]:
    """The complete configuration as plain YAML-able values, for records: without user and password."""
    tree: dict[str, Any] = config.model_dump(mode="json")
    if uri := tree["tracking"]["uri"]:
        tree["tracking"]["uri"] = public(uri)
    return tree


def save_config(config: Config, file: Path) -> None:
    """Write the complete configuration, reusable by :func:`load_config`."""
    file.write_text(yaml.safe_dump(to_dict(config), sort_keys=False), encoding="utf-8")


def make_config(tree: Mapping[str, Any], place: str) -> Config:
    """The configuration that ``tree`` describes; ``place`` says in messages where it came from.

    Raises:
        ConfigError: a key is unknown, or a value is out of range; all such problems on one line.
    """
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        problems = "; ".join(_problems(error.errors()))
        raise ConfigError(f"{problems} (in {place}); dbf train --help explains every key") from error


def _parse_scalar(text: str, dotted: str) -> Any:
    """``text`` read as YAML, or as it stands for keys whose values are text: a run may be called 5, a folder
    2024-01-01.
    """
    kinds = _kinds(dotted.split("."))
    listed = text.lstrip().startswith("[") and any(get_origin(kind) is list for kind in kinds)
    if (str in kinds or Path in kinds) and not listed:
        return None if type(None) in kinds and text in ("", "null") else text
    try:
        value = load_yaml(text, lambda path: listed and _holds_text(kinds))
    except (yaml.YAMLError, ValueError):
        return text
    if isinstance(value, str):
        try:
            return float(value)  # YAML 1.1 reads 1e-4 as a string
        except ValueError:
            return value
    return value


def _is_text(path: Sequence[str]) -> bool:
    """Whether what these keys lead to is text, or a list of it: ``[yes, no]`` as names of classes."""
    return bool({str, Path} & set(_kinds(path))) or (bool(path) and _holds_text(_kinds(path[:-1])))


def _holds_text(kinds: Iterable[Any]) -> bool:
    return any(get_origin(kind) is list and str in get_args(kind) for kind in kinds)


def _kinds(path: Sequence[str]) -> tuple[Any, ...]:
    """The types that a key's value may have."""
    node: Any = Config
    for part in path:
        node = node.model_fields[part].annotation if _is_model(node) and part in node.model_fields else None
    return get_args(node) or (node,)


def _problems(errors: Iterable[Any]) -> list[str]:
    """One phrase for each key with a problem; a value that fits none of several types has one error for each
    of them.
    """
    rules: dict[str, list[str]] = {}
    given: dict[str, str] = {}
    for item in errors:
        key, known = _locate(item["loc"])
        if item["type"] == "extra_forbidden":
            if key in RENAMED:
                rules[f"unknown key {key}; it is called {RENAMED[key]} now"] = []
                continue
            meant = difflib.get_close_matches(str(item["loc"][-1]), known, 1)
            rules[f"unknown key {key}"] = [
                f"did you mean {meant[0]}?" if meant else f"known here: {', '.join(known)}"
            ]
            continue
        rule = item["msg"].removeprefix("Value error, ").removeprefix("Input ")
        rules.setdefault(key, []).append(rule + (", written [a, b]" if item["type"] == "list_type" else ""))
        if not (isinstance(item["input"], Mapping) and item["type"] == "value_error"):
            given[key] = f", got {item['input']!r}"
    return [
        (f"{key}: " if key and rules[key] else key) + " or ".join(rules[key]) + given.get(key, "")
        for key in rules
    ]


def _locate(location: tuple[int | str, ...]) -> tuple[str, list[str]]:
    """Dotted key of an error's location, and the keys known where it ends; pydantic's names of union members
    are left out.
    """
    node: Any = Config
    parts: list[str] = []
    known: list[str] = []
    for part in location:
        if _is_model(node):
            known = list(node.model_fields)
        elif isinstance(part, str):
            continue
        parts.append(str(part))
        node = node.model_fields[part].annotation if _is_model(node) and part in node.model_fields else None
    return ".".join(parts), known


def _section(key: Any) -> bool:
    return key in Config.model_fields and _is_model(Config.model_fields[key].annotation)


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
