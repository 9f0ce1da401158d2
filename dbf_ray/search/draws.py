"""What a space may draw: in a study that goes on, the same parameters from the same distributions as when it
began, but for ranges of integers, which may have become wider.

Optuna notices another kind of parameter or other choices while a trial is open, and then in every trial. Here
each draw is looked at before Optuna makes it. To compare two versions of a space, what the first drew is
drawn again: the distributions that it meets on the way have to be the same.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Mapping
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    check_distribution_compatibility,
    distribution_to_json,
    json_to_distribution,
)
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial

from dbf_ray.errors import ConfigError
from dbf_ray.search.optuna_study import scratch_study
from dbf_ray.search.spaces import DrawError, Overrides, SearchSpace

Record = list[tuple[dict[str, Any], dict[str, str]]]
"""Draws: parameters, and the distributions that they are from, as Optuna's JSON."""

REPLAYED = 200  # earlier trials that are drawn again, to come through the branches that they came through
BY_CHANCE = 50


class Draws:
    """Draws of one space, each looked at first."""

    def __init__(
        self, space: SearchSpace, study: str, trials: Iterable[FrozenTrial], record: Record | None = None
    ) -> None:
        """``trials``: what the study of that name has drawn so far; ``record``: what was rehearsed when it
        began.
        """
        self._space, self._study = space, study
        self._before: dict[str, BaseDistribution] = {}
        self._now: dict[str, BaseDistribution] = {}
        self._replayed: Mapping[str, BaseDistribution] = {}  # what is being drawn again was drawn from these
        branches: dict[str, tuple[dict[str, Any], Mapping[str, BaseDistribution]]] = {}
        for trial in trials:
            self._before |= trial.distributions
            choices = [
                [name, trial.params[name] if isinstance(drawn, CategoricalDistribution) else None]
                for name, drawn in sorted(trial.distributions.items())
            ]
            if trial.params and "setting" in trial.user_attrs:  # drawn to its end
                branches[json.dumps(choices)] = trial.params, trial.distributions
        rehearsed = [
            (params, {name: json_to_distribution(text) for name, text in texts.items()})
            for params, texts in record or []
        ]
        self._again = [*list(branches.values())[-REPLAYED:], *rehearsed]

    def overrides(self, trial: optuna.Trial, config: Any) -> Overrides:
        """What the space returns for ``trial``.

        Raises:
            DrawError: a parameter is not as it was before in the study, or Optuna could not keep it.
            NotAllowedError: a constraint of the space leaves it out.
            ConfigError: the function raises, or does not return a mapping of dotted keys.
        """
        suggest = trial._suggest  # every suggest_* comes through here

        def looked_at(name: str, drawn: BaseDistribution) -> Any:
            self._look(name, drawn)
            return suggest(name, drawn)

        trial._suggest = looked_at  # type: ignore
        found = self._space.overrides(trial, config)
        self._space.check_constraints(trial.params)
        return found

    def rehearse(self, config: Any) -> Record:
        """Draw in a scratch study: what was drawn before, which has to be met again, and by chance. Returns
        what chance drew.

        Raises:
            DrawError: as :meth:`overrides`; what the study drew is drawn from other distributions now; a
                constraint names what is never drawn.
        """
        scratch = scratch_study(RandomSampler(seed=0))
        drawn: list[optuna.Trial] = []
        for params, before in [*self._again, *[({}, {})] * BY_CHANCE]:
            scratch.enqueue_trial(params)
            drawn.append(scratch.ask())
            self._replayed = before
            try:
                self.overrides(drawn[-1], config)
            except DrawError:
                raise
            except ConfigError:  # this branch has no valid setting (any more); others may have
                continue
            finally:
                self._replayed = {}
            if before:
                self._same_names(before, drawn[-1].distributions)
        self._can_be_constrained({name for trial in drawn for name in trial.params})
        return [
            (trial.params, {name: distribution_to_json(one) for name, one in trial.distributions.items()})
            for trial in drawn[len(self._again) :]
        ]

    def _same_names(
        self, before: Mapping[str, BaseDistribution], now: Mapping[str, BaseDistribution]
    ) -> None:
        for name in (*(one for one in before if one not in now), *(one for one in now if one not in before)):
            was = f"drawn {name!r} from {_text(before[name])}" if name in before else f"not drawn {name!r}"
            its = f"it is {_text(now[name])}" if name in now else "it is not drawn"
            raise DrawError(
                f"{self._space.file}: the study {self._study!r} has {was}, and now {its}; draw it as before "
                "to continue it, or give another --study"
            )

    def _can_be_constrained(self, drawn: set[str]) -> None:
        """Refuse a constraint on what is not drawn, as of a name that is misspelt."""
        for words, holds in self._space.constraints.items():
            if missing := [name for name in inspect.signature(holds).parameters if name not in drawn]:
                raise DrawError(
                    f"{self._space.file}: a constraint's arguments must be names of parameters, but "
                    f"{words!r} has {missing[0]!r}, and what is drawn are {', '.join(sorted(drawn))}"
                )

    def _look(self, name: str, drawn: BaseDistribution) -> None:
        self._can_be_kept(name, drawn)
        before = self._before.get(name, drawn)
        replayed = self._replayed.get(name, drawn)
        before = replayed if not _contains(drawn, replayed) else before
        if not (_goes_on(before, drawn) and _contains(drawn, replayed)):
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


def _contains(now: BaseDistribution, before: BaseDistribution) -> bool:
    """Whether two distributions are the same, or ``now`` a wider range of integers."""
    if isinstance(now, CategoricalDistribution) or isinstance(before, CategoricalDistribution):
        return _goes_on(before, now)
    if not (isinstance(now, IntDistribution) and isinstance(before, IntDistribution)):
        return now == before
    return (
        (now.log, now.step) == (before.log, before.step)
        and now.low <= before.low <= before.high <= now.high
        and (before.low - now.low) % now.step == 0
    )


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
