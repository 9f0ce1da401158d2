"""Samplers compared on a recorded table: what is replayed, the table of results, and its text."""

from __future__ import annotations

import itertools
import math
import multiprocessing
import statistics as plain
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from benchmarks.search.replay import Step, replay
from benchmarks.search.samplers import Make, candidates_of, samplers
from benchmarks.search.statistics import Answer, Pair, epochs_to, honesty, interval, paired, score_at
from benchmarks.search.world import World, observed_front

SHARE_OF_CEILING = 0.95
AT = (6, 12, 24, 48)  # trainings whose epochs the score is shown at
HONEST_AT = 12
Reported = Callable[[World, int, Sequence[int]], Sequence[int]]
"""(world, training seed, settings that are trained) -> those that the search reports as its front."""


@dataclass(frozen=True)
class Way:
    """One way to search."""

    sampler: str
    workers: int
    share: bool

    def __str__(self) -> str:
        workers = f"{self.workers} worker{'s' if self.workers > 1 else ''}"
        return f"{self.sampler}, {workers}{', shared' if self.share else ''}"


@dataclass(frozen=True)
class Comparison:
    """What is compared.

    Attributes:
        world: the table.
        trainings: budget, in whole trainings' epochs.
        searches: search seeds.
        reported: what counts as a search's answer.
        answer: what a search says of its own uncertainty; None: not looked at.
        seen: share of the settings that a search can draw, others for each search seed: samplers that leave
            nothing to chance differ by it alone. Baselines always.
        makers: of samplers, and ``candidates`` of what they choose from; None: the project's.
    """

    world: World
    trainings: int = 60
    searches: int = 20
    reported: Reported = observed_front
    answer: Answer | None = None
    seen: float = 0.75
    makers: Mapping[str, Make] | None = None
    candidates: Callable[[World, int], Sequence[Any]] = candidates_of

    def pool(self, search: int) -> list[int]:
        """The settings that a search can draw, baselines first."""
        first, count = self.world.baselines, len(self.world.cost)
        others = np.random.default_rng(search).permutation(np.arange(first, count))
        return [*range(first), *others[: round(self.seen * (count - first))].tolist()]

    def one(self, way: Way, pair: Pair) -> dict[str, Any]:
        """One search: its scores, and what :func:`honesty` says."""
        world, (training, search) = self.world, pair
        make = (self.makers or samplers())[way.sampler]
        steps = replay(
            world,
            training,
            make(world, training, search),
            self.candidates(world, training),
            workers=way.workers,
            share=way.share,
            budget=self.trainings * world.epochs,
            pool=self.pool(search),
        )
        steps = [step for step in steps if {*range(world.baselines)} <= {*step.told}]
        score = world.score(training)
        scores = [score(self.reported(world, training, step.told)) for step in steps]
        goal = SHARE_OF_CEILING * world.exhaustive(training)
        found: dict[str, Any] = {
            "at": {one: score_at(steps, scores, one * world.epochs) for one in AT if one <= self.trainings},
            "epochs_to_95": epochs_to(steps, scores, goal),
        }
        if self.answer is not None and (told := told_at(steps, HONEST_AT * world.epochs)):
            found["honesty"] = honesty(world, training, told, self.answer)
        return found

    def run(
        self,
        names: Sequence[str],
        workers: Sequence[int],
        processes: int = 1,
        say: Callable[[str], None] = print,
    ) -> dict[str, Any]:
        """Every way with every pair of seeds; the content of the result's JSON."""
        ways = [Way(*one) for one in itertools.product(names, workers, (False, True))]
        pairs = [*itertools.product(self.world.seeds, range(self.searches))]
        found: dict[Way, dict[Pair, dict[str, Any]]] = {}
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, context, _open, (self,)) as pool:
            for way in ways:
                each = pool.map if processes > 1 else map
                results = each(partial(_search if processes > 1 else self.one, way), pairs)
                found[way] = dict(zip(pairs, results, strict=True))
                say(f"{way}: {_middle(found[way])}")
        return self._result(found)

    def _result(self, found: Mapping[Way, Mapping[Pair, Mapping[str, Any]]]) -> dict[str, Any]:
        world = self.world
        alone = len(world.cost) * world.epochs
        ceilings = {seed: world.exhaustive(seed) for seed in world.seeds}
        rows = [self._row(way, searches, alone) for way, searches in found.items()]
        return {
            "settings": len(world.cost),
            "epochs": world.epochs,
            "training_seeds": world.seeds,
            "search_seeds": self.searches,
            "exhaustive": {
                "epochs": alone,
                "epochs_shared": {
                    seed: len({name for one in world.settings[seed] for name in one.states[1:]})
                    for seed in world.seeds
                },
                "score": ceilings,
                "mean_score": plain.fmean(ceilings.values()),
            },
            "truth": "means over the other training seeds" if len(world.seeds) > 1 else "the same seed",
            "rows": rows,
            "differences": self._differences(found),
        }

    def _row(self, way: Way, searches: Mapping[Pair, Mapping[str, Any]], alone: int) -> dict[str, Any]:
        to_95 = sorted(one["epochs_to_95"] for one in searches.values())
        median = to_95[len(to_95) // 2]  # the upper one: a median that is reached was reached by half
        honest = [one["honesty"] for one in searches.values() if "honesty" in one]
        return {
            "sampler": way.sampler,
            "workers": way.workers,
            "share": way.share,
            "at": {
                one: interval([search["at"][one] for search in searches.values()])
                for one in next(iter(searches.values()))["at"]
            },
            "epochs_to_95": None if math.isinf(median) else median,
            "share_of_exhaustive": None if math.isinf(median) else median / alone,
            "reached_95": sum(map(math.isfinite, to_95)) / len(to_95),
            "honesty": {
                name: plain.fmean(one[name] for one in honest) for name in (honest[0] if honest else ())
            },
        }

    def _differences(self, found: Mapping[Way, Mapping[Pair, Mapping[str, Any]]]) -> list[dict[str, Any]]:
        """Paired differences of the score at 12 trainings: the last sampler's over the others', all else
        equal; and of sharing over not sharing.
        """
        at = max(one for one in AT if one <= min(12, self.trainings))
        scores = {
            way: {pair: one["at"].get(at, math.nan) for pair, one in searches.items()}
            for way, searches in found.items()
        }
        return [
            {"of": str(one), "over": str(other), "trainings": at, **paired(scores[one], scores[other])}
            for one, other in itertools.permutations(scores, 2)
            if _is_told(one, other, list(scores)[-1].sampler)
        ]


_opened: list[Comparison] = []  # in a process of the pool: sent once, and not with every search


def _open(comparison: Comparison) -> None:
    _opened.append(comparison)


def _search(way: Way, pair: Pair) -> dict[str, Any]:
    return _opened[0].one(way, pair)


def _is_told(one: Way, other: Way, best: str) -> bool:
    """Whether a difference is told: of the sampler ``best`` over another, or of sharing over not sharing."""
    if (one.workers, one.share) == (other.workers, other.share):
        return one.sampler == best
    return (one.sampler, one.workers, one.share) == (other.sampler, other.workers, True)


def told_at(steps: Sequence[Step], epochs: int) -> tuple[int, ...]:
    """What was trained once so many epochs were."""
    before = [step.told for step in steps if step.epochs <= epochs]
    return before[-1] if before else ()


def _middle(searches: Mapping[Pair, Mapping[str, Any]]) -> str:
    at = next(iter(searches.values()))["at"]
    return ", ".join(
        f"{one} trainings {interval([search['at'][one] for search in searches.values()])['iqm']:.2f}"
        for one in at
    )


def table_text(result: Mapping[str, Any]) -> str:
    """The result as the Markdown of a page: scores, then differences at 12 trainings."""
    columns = [*result["rows"][0]["at"]]
    ceiling, alone = result["exhaustive"]["mean_score"], result["exhaustive"]["epochs"]
    shared = result["exhaustive"]["epochs_shared"].values()
    lines = [
        f"{result['settings']} settings, {result['epochs']} epochs each; training seeds "
        f"{', '.join(map(str, result['training_seeds']))}, {result['search_seeds']} search seeds each. "
        f"Exhaustive: {ceiling:.3f} with {alone} epochs, {min(shared)} shared. Truth: {result['truth']}.",
        "",
        f"| sampler | workers | shared | {' | '.join(f'{one} trainings' for one in columns)} | "
        "epochs to 95 % of exhaustive | share of its epochs | reached |",
        "|---|---:|---|" + "---:|" * (len(columns) + 3),
    ]
    for row in result["rows"]:
        cells = [_cell(row["at"][one]) for one in columns]
        to_95, share = row["epochs_to_95"], row["share_of_exhaustive"]
        reached = ["-", "-"] if to_95 is None else [f"{to_95:.0f}", f"{share:.3f}"]
        cells += [*reached, f"{row['reached_95']:.2f}"]
        who = [row["sampler"], str(row["workers"]), "yes" if row["share"] else "no"]
        lines.append(f"| {' | '.join([*who, *cells])} |")
    for place, one in enumerate(result["differences"]):
        if place == 0:
            lines += ["", f"| of | over | difference at {one['trainings']} trainings |", "|---|---|---:|"]
        lines.append(f"| {one['of']} | {one['over']} | {_cell(one)} |")
    honest = [row for row in result["rows"] if row["honesty"]]
    if honest:
        lines += ["", "| sampler | coverage of 90 % bands | Brier score of P(front) | on the front |"]
        lines += ["|---|---:|---:|---:|"]
        for row in honest:
            way, said = Way(row["sampler"], row["workers"], row["share"]), row["honesty"]
            lines.append(
                f"| {way} | {said['coverage']:.2f} | {said['brier']:.3f} | {said['base_rate']:.2f} |"
            )
    return "\n".join(lines)


def _cell(found: Mapping[str, float]) -> str:
    return f"{found['iqm']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"
