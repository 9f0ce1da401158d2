"""Searches replayed on a recorded table, with simulated workers: an epoch takes each of them one tick."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.search.samplers import Sampler
from benchmarks.search.world import World
from dbf_ray.search.sharing import Sharing

KEPT = 16  # states at once, as search.kept_states


@dataclass(frozen=True)
class Told:
    """What a sampler is told of a setting, as :class:`dbf_ray.search.samplers.Told`."""

    candidate: Any
    accuracy: float
    cost: float


@dataclass(frozen=True)
class Step:
    """After a setting was trained.

    Attributes:
        epochs: that all workers have trained so far, unfinished settings' too.
        told: settings that are trained, in the order of their ends.
    """

    epochs: int
    told: tuple[int, ...]


def replay(
    world: World,
    seed: int,
    sampler: Sampler,
    candidates: Sequence[Any],
    *,
    workers: int,
    share: bool,
    budget: int,
    pool: Sequence[int] | None = None,
) -> list[Step]:
    """Search until about ``budget`` epochs are trained, or nothing is left: the baselines first, then what
    ``sampler`` chooses. With ``share`` beginnings are trained once, and states that are about to be reached
    are waited for.

    Args:
        world: the table.
        seed: the training seed that the search sees.
        sampler: chooses.
        candidates: one for each setting of the world.
        workers: how many train at once.
        share: whether beginnings are shared.
        budget: epochs.
        pool: settings that may be chosen; None: all.
    """
    states = [one.states for one in world.settings[seed]]
    sharing, have = Sharing(KEPT if share else 0), set[str]()
    left, running = (
        list(range(len(states)) if pool is None else pool),
        dict[int, tuple[dict[int, str], int]](),
    )
    told: list[int] = []
    steps: list[Step] = []
    trained = 0
    while trained < budget:
        while left and len(running) < workers:
            chosen = _choose(world, seed, sampler, candidates, sharing, have, left, told, [*running])
            if chosen is None:
                break
            left.remove(chosen)
            visit = sharing.begin(chosen, states[chosen], [states[one] for one in left], have)
            done = states[chosen].index(visit.begins[0]) if visit.begins else 0
            running[chosen] = visit.keep, done
        if not running:
            break
        ended = []
        for one, (keep, done) in running.items():
            running[one] = keep, done + 1
            trained += 1
            sharing.reached(one, done + 1)
            if share and done + 1 in keep:
                have.add(keep[done + 1])
            if done + 2 == len(states[one]):
                ended.append(one)
        for one in ended:
            del running[one]
            sharing.end(one)
            told.append(one)
            steps.append(Step(trained, tuple(told)))
        if share and ended:
            have &= sharing.needed([states[one] for one in left], have)
    return steps


def _choose(
    world: World,
    seed: int,
    sampler: Sampler,
    candidates: Sequence[Any],
    sharing: Sharing,
    have: set[str],
    left: Sequence[int],
    told: Sequence[int],
    running: Sequence[int],
) -> int | None:
    """The next setting; None: what is left waits, or the sampler has none."""
    settings = world.settings[seed]
    ready = [one for one in left if not sharing.waits(settings[one].states, have)]
    if left[0] < world.baselines:  # they come first
        return next((one for one in ready if one < world.baselines), None)
    known = [Told(candidates[one], float(world.final[seed][one]), float(world.cost[one])) for one in told]
    place = sampler.next(
        [candidates[one] for one in ready], known, [candidates[one] for one in running], have
    )
    return None if place is None else ready[place]
