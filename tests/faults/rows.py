"""The table of faults: each is a function that does harm to real processes and proves what it cost."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from tests.faults.place import Place

MODULES = ("processes", "workers", "checkpoints", "surroundings", "searches", "stopped", "nodes", "waits")


class NotHereError(Exception):
    """This fault cannot be made on this machine."""


@dataclass(frozen=True)
class Cost:
    """What a fault cost: seconds from the harm, or from the same command given again, until the next epoch
    was on disk (None: nothing had to come back); and what was lost.
    """

    seconds: float | None
    lost: str


@dataclass(frozen=True)
class Fault:
    """One row: what is killed or spoilt, when, and who brings it back."""

    name: str
    harm: str
    when: str
    back_by: str
    prove: Callable[[Place], Cost]

    def row(self, place: Place) -> dict[str, Any]:
        """Do it in ``place``.

        Raises:
            AssertionError: something was lost, or left.
            NotHereError: this machine does not allow it.
        """
        return self.facts() | asdict(self.prove(place))

    def facts(self) -> dict[str, Any]:
        """What is known of it before."""
        return {"name": self.name, "harm": self.harm, "when": self.when, "back_by": self.back_by}


FAULTS: dict[str, Fault] = {}


def fault(
    name: str, harm: str, when: str, back_by: str = "the same command"
) -> Callable[[Callable[[Place], Cost]], Callable[[Place], Cost]]:
    """Put a function into the table."""

    def put(prove: Callable[[Place], Cost]) -> Callable[[Place], Cost]:
        FAULTS[name] = Fault(name, harm, when, back_by, prove)
        return prove

    return put


def all_faults() -> dict[str, Fault]:
    """The whole table, by name."""
    for module in MODULES:
        importlib.import_module(f"tests.faults.{module}")
    return FAULTS
