"""One's own training function in the place of the detector's: what is checked before the first trial.

The function is called once for each trial, with those of :data:`GIVEN` that it takes (docs/own-training.md);
:mod:`.own_run` makes a run of that call.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import textwrap
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dbf_ray.config import Config, with_overrides
from dbf_ray.config.search_section import OF_FUNCTION
from dbf_ray.errors import ConfigError
from dbf_ray.files import write_json
from dbf_ray.freezing import Horizon
from dbf_ray.freezing.policies.base import require_int
from dbf_ray.run.summary import versions
from dbf_ray.search.checked import code_versions
from dbf_ray.search.settings import Beginning

GIVEN = ("schedule", "folder", "begin", "report", "config")
NEEDED = ("schedule", "report")
COSTS = ("compute_ratio", "device_seconds")
FILE = "function.json"


@dataclass(frozen=True)
class OwnTraining:
    """A training function, and what a search must know of it.

    Attributes:
        train: the function.
        takes: which of :data:`GIVEN`.
        version: what it is called: a state of another version is never begun at.
        epochs: E of the full training that ``compute_ratio`` is over.
        num_stages: K, of its model.
        costs: what an epoch costs with the first 0..K stages frozen, in any one unit.
        signals: what it reports to a :class:`dbf_ray.FreezingSchedule` in each epoch.
    """

    train: Callable[..., Any]
    takes: tuple[str, ...]
    version: str
    epochs: int
    num_stages: int
    costs: tuple[float, ...]
    signals: tuple[str, ...] = ()

    @property
    def begins(self) -> bool:
        """Whether it can begin at a checkpoint."""
        return "begin" in self.takes

    def facts(self) -> dict[str, Any]:
        """All by which its trials would be others, or could not be compared."""
        return {"version": self.version, "num_stages": self.num_stages, "costs": list(self.costs)}

    def horizon(self, config: Config) -> Horizon:
        """Of a trial."""
        return Horizon(config.training.epochs, self.num_stages, config.seed, costs=self.costs)


def own_training(
    train: Callable[..., Any],
    *,
    epochs: int,
    num_stages: int,
    costs: Sequence[float],
    version: str | None = None,
    signals: Collection[str] = (),
) -> OwnTraining:
    """``train``, checked.

    Raises:
        ConfigError: it cannot be called as trials call it, a number is out of range, or neither a version nor
            its source is known.
    """
    require_int("num_stages", num_stages, low=1, owner="one's own training")
    require_int("epochs", epochs, low=1, owner="one's own training")
    values = tuple(costs) if isinstance(costs, Sequence) and not isinstance(costs, str) else ()
    if len(values) != num_stages + 1 or not all(map(_is_cost, values)):
        raise ConfigError(
            f"costs must be {num_stages + 1} finite numbers > 0, what an epoch costs with the first "
            f"0..{num_stages} stages frozen, got {costs!r}"
        )
    takes = _taken(train)
    named = version if version is not None else _source_digest(train)
    return OwnTraining(train, takes, named, epochs, num_stages, values, tuple(signals))


def own_config(config: Config, own: OwnTraining) -> Config:
    """``config`` for trials of the function; one that begins at no checkpoint shares nothing.

    Raises:
        ConfigError: a key asks for what such a training does not do.
    """
    if config.cluster.workers != 1:
        raise ConfigError(
            f"cluster.workers must be 1 with one's own training function, got {config.cluster.workers}: it "
            "is called in one process; give cluster={'workers': 1}, and it may start more itself"
        )
    if config.search.cost not in COSTS:
        raise ConfigError(
            f"search.cost must be {' or '.join(COSTS)} with one's own training function, got "
            f"{config.search.cost}: nothing else is known of it; leave it out"
        )
    changes: dict[str, Any] = {"training.epochs": own.epochs, "search.accuracy": OF_FUNCTION}
    changes["data.selection_fraction"] = 0.0
    if not own.begins:
        changes |= {"search.kept_states": 0, "search.keep": "states"}
    return with_overrides(config, changes)


@dataclass(frozen=True)
class OwnRecord:
    """What of a function is kept in a study's folder."""

    facts: dict[str, Any]
    notes: tuple[str, ...] = ()

    def write(self, folder: Path) -> None:
        """Write ``function.json``."""
        write_json(folder / FILE, self.facts)


@dataclass
class OwnBegin:
    """How the trials of a function begin: a :class:`dbf_ray.search.settings.StudyBegin`."""

    own: OwnTraining
    warnings: list[str] = field(default_factory=list)

    def __call__(self, config: Config) -> Beginning:
        """How a trial with ``config`` begins.

        Raises:
            ConfigError: its decisions are not made by epochs.
        """
        interval = config.freezing.interval
        if (interval.unit, interval.every) != ("epochs", 1):
            raise ConfigError(
                f"freezing.interval must be 1 epoch with one's own training function, got {interval.every} "
                f"{interval.unit}: a FreezingSchedule decides once an epoch; leave it out"
            )
        origin = {"function": self.own.facts(), "versions": code_versions(versions())}
        return Beginning(self.own.horizon(config), origin, signals=self.own.signals)

    def study_data(self, config: Config, folder: Path) -> OwnRecord:
        """The function's facts.

        Raises:
            ConfigError: the study in ``folder`` has trials of another function.
        """
        now = self.own.facts()
        try:
            before = json.loads((folder / FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            before = now if not any((folder / "trials").glob("*")) else {"version": None}
        changed = [name for name in now if before.get(name) != now[name]]
        if changed:
            name = changed[0]
            raise ConfigError(
                f"the study {folder.name!r} was begun with another training function, its {name} was "
                f"{before.get(name)!r}, and is now {now[name]!r}; give {name}={before.get(name)!r} if it "
                "trains the same, or another study=..."
            )
        return OwnRecord(now)

    def uncovered(self) -> list[str]:
        """Nothing: the data are the function's."""
        return []


def _is_cost(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and value > 0


def _taken(train: Any) -> tuple[str, ...]:
    """Those of :data:`GIVEN` that a function takes."""
    form = f"train must be a function of {', '.join(NEEDED)} and, if it wants them, folder, begin and config"
    if not callable(train):
        raise ConfigError(f"{form}, got {train!r}")
    parameters = inspect.signature(train).parameters.values()
    if any(one.kind is one.VAR_KEYWORD for one in parameters):
        return GIVEN
    takes = [one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
    asked = [one.name for one in parameters if one.default is one.empty and one.name not in GIVEN]
    if asked or not {*NEEDED} <= {*takes}:
        raise ConfigError(
            f"{form}, called by name, got {_name(train)}{inspect.signature(train)}; give further arguments "
            "a default, or bind them with functools.partial"
        )
    if "begin" in takes and "folder" not in takes:
        raise ConfigError(
            f"train must take folder, to write checkpoints in, where it takes begin, to begin at one, got "
            f"{_name(train)}{inspect.signature(train)}; take both, or none"
        )
    return tuple(name for name in GIVEN if name in takes)


def _source_digest(train: Any) -> str:
    """A version made of the function's own source."""
    try:
        source = textwrap.dedent(inspect.getsource(train))
    except (OSError, TypeError) as error:
        raise ConfigError(
            f"a training function needs a version where its source cannot be read, got {train!r}; give "
            "version='1', and another one whenever it trains otherwise"
        ) from error
    return hashlib.sha256(source.encode()).hexdigest()[:16]


def _name(train: Any) -> str:
    return str(getattr(train, "__name__", type(train).__name__))
