"""What a space may draw: Optuna keeps a parameter's kind, whether it is drawn on a log scale, and its choices
and their order as they were first drawn in a study. A range may become wider or narrower, and parameters may
come and go.

Optuna notices another kind while a trial is open, and then in every trial. Here each draw is looked at before
Optuna makes it.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    check_distribution_compatibility,
)
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial

from dbf_ray.errors import ConfigError
from dbf_ray.search.spaces import DrawError, Overrides, SearchSpace

REPLAYED = 200  # earlier trials that are drawn again, to come through the branches that they came through
BY_CHANCE = 50


class Draws:
    """Draws of one space, each looked at first."""

    def __init__(self, space: SearchSpace, study: str, trials: Iterable[FrozenTrial]) -> None:
        """``trials``: what the study of that name has drawn so far."""
        self._space, self._study = space, study
        self._before: dict[str, BaseDistribution] = {}
        self._now: dict[str, BaseDistribution] = {}
        self._branches: dict[str, dict[str, Any]] = {}  # parameters of a trial for each way through the space
        for trial in trials:
            self._before |= trial.distributions
            choices = [
                [name, trial.params[name] if isinstance(drawn, CategoricalDistribution) else None]
                for name, drawn in sorted(trial.distributions.items())
            ]
            self._branches[json.dumps(choices)] = trial.params

    def overrides(self, trial: optuna.Trial, config: Any) -> Overrides:
        """What the space returns for ``trial``.

        Raises:
            DrawError: a parameter is not as it was before in the study, or Optuna could not keep it.
            ConfigError: the function raises, or does not return a mapping of dotted keys.
        """
        suggest = trial._suggest  # every suggest_* comes through here

        def looked_at(name: str, drawn: BaseDistribution) -> Any:
            self._look(name, drawn)
            return suggest(name, drawn)

        trial._suggest = looked_at  # type: ignore
        return self._space.overrides(trial, config)

    def rehearse(self, config: Any) -> None:
        """Draw in a scratch study: what earlier trials drew, whose branches chance may miss, and by chance.

        Raises:
            DrawError: as :meth:`overrides`.
        """
        scratch = optuna.create_study(directions=["maximize", "minimize"], sampler=RandomSampler(seed=0))
        for params in [*list(self._branches.values())[-REPLAYED:], *[{}] * BY_CHANCE]:
            scratch.enqueue_trial(params)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a value outside of a range that is narrower now
                try:
                    self.overrides(scratch.ask(), config)
                except DrawError:
                    raise
                except ConfigError:  # this branch has no valid setting (any more); others may have
                    continue

    def _look(self, name: str, drawn: BaseDistribution) -> None:
        self._can_be_kept(name, drawn)
        before = self._before.get(name, drawn)
        if not _goes_on(before, drawn):
            raise DrawError(
                f"{self._space.file}: the study {self._study!r} has drawn {name!r} from {_text(before)}, "
                f"and now it is {_text(drawn)}; draw it as before{_order(before, drawn)} to continue it, "
                "or give another --study"
            )
        first = self._now.setdefault(name, drawn)
        if not _goes_on(first, drawn):
            raise DrawError(
                f"{self._space.file}: a parameter must be of one kind and have one list of choices, but "
                f"{name!r} is drawn from {_text(first)} and from {_text(drawn)}; give each a name of its own"
            )

    def _can_be_kept(self, name: str, drawn: BaseDistribution) -> None:
        """Refuse choices that would come back from the study's file as others, or as one."""
        if not isinstance(drawn, CategoricalDistribution):
            return
        instead = "draw names or numbers of its values, and make the values of them in space(trial)"
        for place, choice in enumerate(drawn.choices):
            if not _comes_back(choice):
                raise DrawError(
                    f"{self._space.file}: choices must be null, true, false, numbers or text, but {name!r} "
                    f"has {choice!r} of type {type(choice).__name__}; {instead}"
                )
            for other in drawn.choices[:place]:
                if other == choice and json.dumps(other) != json.dumps(choice):
                    raise DrawError(
                        f"{self._space.file}: choices must be told apart, but {other!r} and {choice!r} of "
                        f"{name!r} are equal in Python, and Optuna would keep one for the other; {instead}"
                    )


def _comes_back(choice: Any) -> bool:
    """Whether a choice is the same once it has been written to the study's file, as JSON, and read."""
    try:
        return bool(json.loads(json.dumps(choice)) == choice or choice != choice)
    except (TypeError, ValueError):
        return False


def _goes_on(before: BaseDistribution, now: BaseDistribution) -> bool:
    """Whether Optuna can go on, and means the same by its choices: 1, 1.0 and true are equal, not alike."""
    if isinstance(before, CategoricalDistribution) and isinstance(now, CategoricalDistribution):
        return json.dumps(before.choices) == json.dumps(now.choices)
    try:
        check_distribution_compatibility(before, now)
    except ValueError:
        return False
    return True


def _order(before: BaseDistribution, now: BaseDistribution) -> str:
    """What to add where only the order of the choices differs."""
    if isinstance(before, CategoricalDistribution) and isinstance(now, CategoricalDistribution):
        same = sorted(map(json.dumps, before.choices)) == sorted(map(json.dumps, now.choices))
        return ", in the same order," if same else ""
    return ""


def _text(drawn: BaseDistribution) -> str:
    """A distribution in words."""
    if isinstance(drawn, CategoricalDistribution):
        return f"the choices {list(drawn.choices)!r}"
    if not isinstance(drawn, IntDistribution | FloatDistribution):
        return repr(drawn)
    kind = "integers" if isinstance(drawn, IntDistribution) else "numbers"
    step = "" if drawn.step in (None, 1) else f" in steps of {drawn.step}"
    return f"{kind} from {drawn.low} to {drawn.high}{step}" + (" on a log scale" if drawn.log else "")
