"""What a training is after each of its epochs, by name: a chain of hashes over all that shaped it. Two
settings that agree up to an epoch have one name there, so that what one has trained the other can begin at.

Pure: what a configuration means is asked of its keys' roles (:mod:`dbf_ray.config.roles`), and data, weights
and versions come in as digests.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dbf_ray.config import Config, FreezingConfig, identity, key_of, role_of
from dbf_ray.freezing import Decision, Horizon, Policy

Names = Sequence[str]
"""E + 1 names: of what a training is before its first epoch, and after each."""


@dataclass(frozen=True)
class Shaping:
    """All of a configuration that shapes what is trained, by when it begins to matter.

    Attributes:
        always: from the beginning on: everything but freezing, and what of freezing is no policy's.
        thawed: from the first thaw on.
        frozen: where any stage is frozen.
    """

    always: dict[str, Any]
    thawed: list[Any]
    frozen: list[Any]


def shaping(config: Config) -> Shaping:
    """What shapes the training of ``config``, but for its policy and interval: a timeline says both."""
    from dbf_ray.build import resolved  # loads torch, which names alone do not need

    shape, fields = identity(resolved(config)), FreezingConfig.model_fields
    matters = {f"freezing.{name}": role_of(field).matters for name, field in fields.items()}
    thawed, frozen = (
        [shape.pop(key) for key, when in matters.items() if when == kind] for kind in ("thawed", "frozen")
    )
    of_policy = {
        key
        for key in shape
        if key.startswith("freezing.")
        and (key.split(".")[1] not in fields or key.split(".")[1] in ("policy", "interval"))
    }
    return Shaping({key: value for key, value in shape.items() if key not in of_policy}, thawed, frozen)


def held(decision: Decision, horizon: Horizon) -> tuple[int, tuple[float, ...] | None]:
    """What a decision comes to: effective prefix, and factors of learning rates, None for 1 everywhere."""
    factors = decision.lr_factors
    ones = factors is not None and set(factors) == {1.0}
    return max(decision.num_frozen, horizon.always_frozen), None if ones else factors


def state_names(
    shape: Shaping, policy: Policy, horizon: Horizon, epochs: int, origin: Mapping[str, Any]
) -> tuple[str, ...]:
    """Names of what a training is after 0, 1, ... E epochs.

    Args:
        shape: of its configuration.
        policy: which; one that needs signals shares with nothing but itself.
        horizon: the run's.
        epochs: E; horizon's blocks may be longer or shorter than one.
        origin: whatever else it begins with: digests of data and weights, versions of the code.
    """
    # blocks count in a scheduler's state, so their length matters from the beginning
    begin: dict[str, Any] = {**origin, "shape": shape.always, "block": horizon.block_steps}
    pieces: Iterable[Any] = range(epochs)
    if policy.needs_signals:
        begin |= {"policy": [policy.name, policy.parameters()], "freezing": [shape.thawed, shape.frozen]}
    else:
        pieces = _pieces(shape, policy, horizon, epochs)
    names = [key_of(begin)]
    for piece in pieces:
        names.append(key_of({"after": names[-1], "trained": piece}))
    return tuple(names)


def _pieces(shape: Shaping, policy: Policy, horizon: Horizon, epochs: int) -> Iterator[list[Any]]:
    """What each epoch does, block by block: prefix, factors, steps, and settings where they matter."""
    timeline = [held(decision, horizon) for decision in policy.timeline(horizon)]
    steps, length = horizon.all_steps // epochs, horizon.block_steps
    for epoch in range(epochs):
        first, end = epoch * steps, (epoch + 1) * steps
        piece = []
        for block in range(first // length, -(-end // length)):
            prefix, factors = timeline[block]
            begin = max(first, block * length)
            thaws = begin == block * length and block > 0 and prefix < timeline[block - 1][0]
            piece.append(
                [
                    *(prefix, factors, min(end, (block + 1) * length) - begin),
                    shape.thawed if thaws else None,
                    shape.frozen if prefix > 0 else None,
                ]
            )
        yield piece


def common(one: Names, two: Names) -> int:
    """How many epochs two settings share from the beginning on."""
    same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, two, strict=False)))
    return max(0, same - 1)


def deepest(names: Names, have: Container[str]) -> int:
    """The epoch of the deepest state on a setting's way that is in ``have``; 0 where none is."""
    return max((epoch for epoch in range(1, len(names)) if names[epoch] in have), default=0)


def leaves(names: Names, others: Iterable[Names]) -> set[int]:
    """The epochs, not the first nor the last, at which others leave a setting's way."""
    return {common(names, other) for other in others} - {0, len(names) - 1}


def wanted(open_: Collection[Names], have: Collection[str], most: int) -> list[str]:
    """The at most ``most`` states of ``have`` that together save the settings of ``open_`` most epochs, those
    that save more first; of equal ones the first in ``have``.
    """
    users: dict[str, list[tuple[int, int]]] = {state: [] for state in have}  # (setting, epoch) by state
    for setting, names in enumerate(open_):
        for epoch in range(1, len(names) - 1):
            if names[epoch] in users:
                users[names[epoch]].append((setting, epoch))
    saved, chosen = [0] * len(open_), list[str]()
    while len(chosen) < most:
        gains = {
            state: sum(max(0, epoch - saved[setting]) for setting, epoch in used)
            for state, used in users.items()
        }
        best = max(gains, key=lambda state: gains[state], default=None)
        if best is None or gains[best] == 0:
            break
        chosen.append(best)
        for setting, epoch in users.pop(best):
            saved[setting] = max(saved[setting], epoch)
    return chosen
