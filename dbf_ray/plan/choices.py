"""What a rule chooses, and on what it may look."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dbf_ray.config import Config
from dbf_ray.plan.objects import Objects


@dataclass(frozen=True)
class Choice:
    """One value of a configuration.

    Attributes:
        key: dotted, of the configuration.
        value: what the rule chooses.
        why: the figure behind it, in a few words.
        rule: its name in docs/plan.md.
        stays: the value that was given by who called, and is kept; then ``value`` is what would be chosen.
    """

    key: str
    value: Any
    why: str
    rule: str
    stays: Any = None


@dataclass(frozen=True)
class Facts:
    """What rules may look at.

    Attributes:
        objects: those to train on, as labelled.
        evaluated: those to evaluate on; None where the folder has no such split.
        gpu: whether the configured device is one.
        scenes: how many images there are, patches of one counted as one.
        digest: of the data, as records of runs have it of each split.
        place: file and line that an object, by its index in ``objects``, is labelled in.
        fetched: weights of backbones that lie here already: file by name of the backbone.
        measured: figures of real steps, empty where nothing was measured.
        memory: what takes seconds to compute and several rules look at.
    """

    objects: Objects
    evaluated: Objects | None
    gpu: bool
    scenes: int = 2
    digest: str = ""
    place: Callable[[int], tuple[Path | None, int | None]] = lambda _: (None, None)
    fetched: Mapping[str, str] = field(default_factory=dict)
    measured: Mapping[str, float] = field(default_factory=dict)
    memory: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)


Rule = Callable[[Facts, Config], Sequence[Choice]]
"""Looks at the facts and at the configuration as the rules before left it."""
