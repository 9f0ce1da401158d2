"""What a sampler is: it says which setting of a pool is trained next. Without Ray, files or torch, so that
recorded trainings can be replayed with the same classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from dbf_ray.search.settings import Setting


@dataclass(frozen=True)
class Candidate:
    """A setting as samplers see it.

    Attributes:
        setting: it, with the names of its states.
        cost: what it costs, in any one unit; None where that is known only afterwards.
        features: numbers about 0..1 that are alike for settings that train alike (:mod:`..features`); empty
            where that is known only afterwards.
    """

    setting: Setting
    cost: float | None
    features: tuple[float, ...] = ()


@dataclass(frozen=True)
class Told:
    """A setting that was trained to its end.

    Attributes:
        candidate: which.
        accuracy: more is better.
        cost: what it did cost, in the unit of ``candidate.cost``; less is better.
    """

    candidate: Candidate
    accuracy: float
    cost: float


@dataclass(frozen=True)
class Facts:
    """What of a space decides whether a sampler can serve it.

    Attributes:
        pool: settings that it can draw.
        complete: these are all.
    """

    pool: Sequence[Candidate]
    complete: bool

    @property
    def unknown(self) -> Candidate | None:
        """One whose cost, or schedule, is not known before it is trained."""
        return next((one for one in self.pool if one.cost is None or not one.features), None)


class Sampler(ABC):
    """Chooses. What it chooses depends on its arguments and its seed alone: it remembers nothing, so that a
    search goes on after a kill as it would have.

    Attributes:
        name: in configurations and messages.
        draws: it draws settings of its own by Optuna and not from the pool: :meth:`next` is always None.
    """

    name: ClassVar[str]
    draws: ClassVar[bool] = False

    def __init__(self, seed: int = 0) -> None:
        """``seed``: of what is left to chance, if anything is."""
        self.seed = seed

    @staticmethod
    def why_not(facts: Facts) -> str | None:
        """Why it cannot serve a space, to follow "the sampler NAME"; None: it can."""
        return None

    @abstractmethod
    def next(
        self,
        pool: Sequence[Candidate],
        told: Sequence[Told],
        running: Sequence[Candidate],
        have: Collection[str],
    ) -> int | None:
        """The place in ``pool`` of the setting to train next; None for none.

        Args:
            pool: settings that have not begun, and may begin now.
            told: settings that are trained.
            running: settings that are being trained.
            have: names of the states at which a training can begin.
        """
