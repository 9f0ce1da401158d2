"""What a rule chooses, and on what it may look."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dbf_ray.config import Config
from dbf_ray.plan.costs import Budget, Costs
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
        budget: what a training may take.
        measure: takes real steps of a configuration; None: nothing is measured.
        given: dotted keys that stay, whatever a rule says.
        memory: what takes seconds to compute and several rules look at.
    """

    objects: Objects
    evaluated: Objects | None
    gpu: bool
    scenes: int = 2
    digest: str = ""
    place: Callable[[int], tuple[Path | None, int | None]] = lambda _: (None, None)
    fetched: Mapping[str, str] = field(default_factory=dict)
    budget: Budget = field(default_factory=Budget)
    measure: Callable[[Config], Costs] | None = None
    given: frozenset[str] = frozenset()
    memory: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)


Rule = Callable[[Facts, Config], Sequence[Choice]]
"""Looks at the facts and at the configuration as the rules before left it."""


def costs_of(facts: Facts, config: Config) -> Costs:
    """What real steps cost, measured once, as ``config`` is when it is first asked for."""
    if "costs" not in facts.memory:
        assert facts.measure is not None, "a budget needs a measurement"
        facts.memory["costs"] = facts.measure(config)
    found: Costs = facts.memory["costs"]
    return found
