"""Policy ``plateau(patience, min_delta)``: the backbone is trained when the head alone gets no further (the
rule of ``ReduceLROnPlateau``, with an unfrozen epoch in the place of a lower learning rate).
"""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field, PositiveInt

from dbf_ray.freezing.policies.base import Decision, Horizon, Policy, Signals, State


class Plateau(Policy):
    """One unfrozen epoch whenever map50 has not risen by ``min_delta`` for ``patience`` frozen epochs. Epoch
    0 is unfrozen.

    It has risen if it lies above the score of the last rise (or the first score) by at least ``min_delta``,
    so that slow progress adds up. Only evaluated epochs count. The patience starts anew after each unfrozen
    epoch.

    Args:
        patience: evaluated frozen epochs without a rise, >= 1.
        min_delta: least rise of map50, 0..1; with 0 an equal value is none.
    """

    name = "plateau"
    needs_signals = ("map50",)  # None after an epoch that was not evaluated, NaN where nothing is to be found

    patience: PositiveInt
    min_delta: Annotated[float, Field(ge=0, le=1)]

    def decide(self, t: int, horizon: Horizon, signals: Signals, state: State) -> tuple[Decision, State]:
        """Count frozen epochs without a rise."""
        if not state:
            return Decision(0), {"best": None, "waited": 0, "frozen": False}
        best, waited = state["best"], state["waited"]
        score: float | None = signals["map50"]
        if score is not None:
            base = -math.inf if best is None else best
            rose = score > base and score >= base + self.min_delta
            waited = waited + 1 if state["frozen"] and not rose else 0
            best = score if rose else best
        if waited >= self.patience:
            return Decision(0), {"best": best, "waited": 0, "frozen": False}
        return Decision(horizon.num_stages), {"best": best, "waited": waited, "frozen": True}
