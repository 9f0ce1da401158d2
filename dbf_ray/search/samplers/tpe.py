"""The sampler ``tpe``: Optuna's, for spaces whose cost is known only afterwards."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import ClassVar

from dbf_ray.search.samplers.base import Candidate, Sampler, Told


class Tpe(Sampler):
    """Optuna's tree-structured Parzen estimator draws settings by parameters, of the whole space and not of a
    pool: the study asks Optuna itself (:func:`..optuna_study.open_study` has its settings).
    """

    name: ClassVar[str] = "tpe"
    draws: ClassVar[bool] = True

    def next(
        self,
        pool: Sequence[Candidate],
        told: Sequence[Told],
        running: Sequence[Candidate],
        have: Collection[str],
    ) -> int | None:
        """None: Optuna draws."""
        return None
