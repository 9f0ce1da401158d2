"""Search-space files: one Python file with a function ``space`` and a list ``BASELINES``
(search_spaces/rho.py explains how to write one).

``space(trial)`` or ``space(trial, config)`` draws with ``trial.suggest_*`` and returns overrides, dotted
configuration key -> value. ``BASELINES`` lists overrides that are trained first, whether or not the space
could draw them. ``SAMPLER`` may name the sampler that serves it best, and ``CONSTRAINTS`` may say which draws
are no settings: words -> a function of parameters, called with those of its arguments' names.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from dbf_ray.config import Config
from dbf_ray.errors import ConfigError
from dbf_ray.search.samplers import SAMPLERS
from dbf_ray.shipped import find_shipped, shipped_files

Overrides = dict[str, Any]
HINT = f"see {shipped_files('search space').get('rho')} for an example"


class DrawError(ConfigError):
    """A space draws what its study cannot keep: a fault of the space, not of one draw."""


class NotAllowedError(ConfigError):
    """A draw is no setting of the space: a constraint, or what the person asked for, leaves it out."""


@dataclass(frozen=True)
class SearchSpace:
    """A loaded search-space file.

    Attributes:
        sampler: that serves it best; None: as its costs say.
        constraints: words, and a function of parameters that is false for draws to leave out.
    """

    file: Path
    draw: Callable[..., Any]
    baselines: list[Overrides]
    sampler: str | None = None
    constraints: Mapping[str, Callable[..., Any]] = field(default_factory=dict)

    def overrides(self, trial: Any, config: Config) -> Overrides:
        """What ``space`` returns for an Optuna trial, checked.

        Raises:
            ConfigError: the function raises, or does not return a mapping of dotted keys.
        """
        try:
            wants_config = len(inspect.signature(self.draw).parameters) > 1
            drawn = self.draw(trial, config) if wants_config else self.draw(trial)
        except DrawError:
            raise
        except (Exception, SystemExit) as error:
            place = _line_in(self.file, error)
            raise ConfigError(f"{place}: space(trial) raised {type(error).__name__}: {error}") from error
        return _checked(
            drawn, f"{self.file}: space(trial) must return a mapping of dotted configuration keys to values"
        )

    def check_constraints(self, params: Mapping[str, Any]) -> None:
        """Refuse what the constraints leave out; one that names a parameter which was not drawn says nothing.

        Raises:
            NotAllowedError: with the constraint's words.
            ConfigError: a constraint raises.
        """
        for words, holds in self.constraints.items():
            names = inspect.signature(holds).parameters
            try:
                allowed = not names.keys() <= params.keys() or holds(**{name: params[name] for name in names})
            except (Exception, SystemExit) as error:
                place = _line_in(self.file, error)
                raise ConfigError(
                    f"{place}: the constraint {words!r} raised {type(error).__name__}: {error}"
                ) from error
            if not allowed:
                raise NotAllowedError(f"{self.file}: the constraint {words!r} leaves out {dict(params)}")


def load_space(file: str | Path) -> SearchSpace:
    """Load a search-space file, or the shipped one of that name.

    Raises:
        ConfigError: it is missing, is not valid Python, or lacks ``space`` or a list ``BASELINES``.
    """
    file = find_shipped("search space", file)
    module = _module(file)
    _check_keys(file)
    draw = getattr(module, "space", None)
    if not callable(draw):
        raise ConfigError(f"{file} must define a function space(trial), found {draw!r}; {HINT}")
    if not 1 <= len(inspect.signature(draw).parameters) <= 2:
        raise ConfigError(
            f"{file}: space must take (trial) or (trial, config), got space{inspect.signature(draw)}; {HINT}"
        )
    baselines = getattr(module, "BASELINES", None)
    if not isinstance(baselines, list):
        raise ConfigError(
            f"{file} must define a list BASELINES (it may be empty), found {baselines!r}; {HINT}"
        )
    rule = f"{file}: each of BASELINES must be a mapping of dotted configuration keys to values"
    sampler = getattr(module, "SAMPLER", None)
    if sampler is not None and sampler not in SAMPLERS:
        raise ConfigError(f"{file}: SAMPLER must be one of {', '.join(SAMPLERS)}, got {sampler!r}")
    constraints = _constraints(file, getattr(module, "CONSTRAINTS", {}))
    return SearchSpace(file, draw, [_checked(baseline, rule) for baseline in baselines], sampler, constraints)


def question(file: Path) -> str:
    """Which question a space answers: what its docstring begins with."""
    words = " ".join((ast.get_docstring(ast.parse(file.read_bytes())) or "").split())
    return words[: words.find("?") + 1]


def _constraints(file: Path, given: Any) -> Mapping[str, Callable[..., Any]]:
    fits = isinstance(given, Mapping) and all(isinstance(key, str) and callable(given[key]) for key in given)
    if not fits:
        raise ConfigError(
            f"{file}: CONSTRAINTS must be a mapping of words to functions of parameters, such as "
            f"{{'phase < rho': lambda phase, rho: phase < rho}}, got {given!r}"
        )
    return dict(given)


def _module(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"search_space_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise ConfigError(f"the search space must be a Python file (.py), got {file}; {HINT}")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise ConfigError(f"{file}, line {error.lineno}: not valid Python ({error.msg})") from error
    except (Exception, SystemExit) as error:
        raise ConfigError(
            f"{_line_in(file, error)}: loading the search space raised {type(error).__name__}: {error}"
        ) from error
    return module


def _check_keys(file: Path) -> None:
    """Refuse a mapping that is written with a key twice, of which Python keeps the last."""
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Dict):
            keys = [key.value for key in node.keys if isinstance(key, ast.Constant)]
            if twice := [key for place, key in enumerate(keys) if key in keys[:place]]:
                raise ConfigError(
                    f"{file}, line {node.lineno}: a mapping must hold a key once, got {twice[0]!r} twice; "
                    "remove one"
                )


def _checked(overrides: Any, rule: str) -> Overrides:
    if (
        not isinstance(overrides, Mapping)
        or not overrides
        or not all(isinstance(key, str) for key in overrides)
    ):
        raise ConfigError(
            f"{rule}, such as {{'freezing.policy': 'step', 'freezing.rho': 4}}, got {overrides!r}"
        )
    return dict(overrides)


def _line_in(file: Path, error: BaseException) -> str:
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == file
    ]
    return f"{file}, line {lines[-1]}" if lines else str(file)
