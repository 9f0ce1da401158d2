"""Policy ``epochs(epochs=[...])``: the backbone is trained in listed epochs, the other rule of DBF's official
code.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, NonNegativeInt, field_validator

from dbf_ray.freezing.policies.base import Horizon, Schedule


class Epochs(Schedule):
    """n(t) = 0 iff t is in the list, else K.

    Args:
        epochs: 0-based epochs whose backbone is trained, increasing; those beyond the run's end have no
            effect.
    """

    name = "epochs"

    epochs: Annotated[list[NonNegativeInt], Field(strict=False)]

    @field_validator("epochs", mode="before")
    @classmethod
    def _listed(cls, given: Any) -> Any:
        if not isinstance(given, list | tuple):
            raise ValueError(f"epochs must be a list of epochs, written [0, 5, 10], got {given!r}")
        return given

    @field_validator("epochs")
    @classmethod
    def _increasing(cls, epochs: list[int]) -> list[int]:
        if sorted(set(epochs)) != epochs:
            raise ValueError(f"epochs must increase, each named once, got {epochs}")
        return epochs

    def num_frozen(self, t: int, horizon: Horizon) -> int:
        """Train the backbone in the listed epochs."""
        return 0 if t in self.epochs else horizon.num_stages
