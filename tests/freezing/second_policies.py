"""A second implementation of every freezing rule, written from docs/policies.md without the first: whole
timelines at once, exact fractions instead of running sums, walks instead of moduli.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from dbf_ray.freezing.policies import make_policy

Trace = Sequence[Any]


def full(epochs: int, num_stages: int, seed: int) -> list[int]:
    return [0 for _ in range(epochs)]


def frozen(epochs: int, num_stages: int, seed: int) -> list[int]:
    return [num_stages for _ in range(epochs)]


def where(trained: set[int], epochs: int, num_stages: int) -> list[int]:
    return [0 if epoch in trained else num_stages for epoch in range(epochs)]


def step(epochs: int, num_stages: int, seed: int, rho: int, phase: int = 0) -> list[int]:
    """Marks the trained epochs by walking from the phase, without any modulo."""
    timeline = [num_stages] * epochs
    trained = phase
    while trained < epochs:
        timeline[trained] = 0
        trained += rho
    return timeline


def listed(epochs: int, num_stages: int, seed: int, /, **parameters: Any) -> list[int]:
    timeline = [num_stages] * epochs
    for epoch in parameters["epochs"]:
        if epoch < epochs:
            timeline[epoch] = 0
    return timeline


def chance(name: str, seed: int | str, epoch: int) -> Fraction:
    """The upper 53 bits of sha256's first eight bytes, of "name/seed/epoch", over 2**53."""
    digits = hashlib.sha256(f"{name}/{seed}/{epoch}".encode()).hexdigest()[:16]
    return Fraction(int(digits, 16) // 2**11, 2**53)


def random_budget(epochs: int, num_stages: int, seed: int, budget: int, draw: int | None = None) -> list[int]:
    lot = seed if draw is None else f"draw/{draw}"
    left = {epoch: chance("random_budget", lot, epoch) for epoch in range(epochs)}
    trained = set()
    for _ in range(budget):
        smallest = min(left, key=lambda epoch: (left[epoch], epoch))
        trained.add(smallest)
        del left[smallest]
    return where(trained, epochs, num_stages)


def bernoulli(epochs: int, num_stages: int, seed: int, p: float) -> list[int]:
    return where({e for e in range(epochs) if chance("bernoulli", seed, e) < Fraction(p)}, epochs, num_stages)


def front(epochs: int, num_stages: int, seed: int, budget: int) -> list[int]:
    return ([0] * budget + [num_stages] * epochs)[:epochs]


def back(epochs: int, num_stages: int, seed: int, budget: int) -> list[int]:
    return ([num_stages] * epochs + [0] * budget)[len(range(budget)) :][:epochs]


def warmup_step(epochs: int, num_stages: int, seed: int, warmup: int, rho: int) -> list[int]:
    return ([num_stages] * warmup + step(epochs, num_stages, seed, rho))[:epochs]


def cosine(epochs: int, num_stages: int, seed: int, start: float, end: float) -> list[int]:
    """The number of whole epochs in 0.5 + the sum of densities, without taking anything away: the n-th
    unfrozen epoch is where it reaches n.
    """
    timeline, reached, densities = [], 0, []
    for e in range(epochs):
        densities.append(
            start if epochs == 1 else end + (start - end) * (1 + math.cos(math.pi * e / (epochs - 1))) / 2
        )
        whole = math.floor(math.fsum([0.5, *densities]) + 1e-9)
        timeline.append(0 if whole > reached else num_stages)
        reached = whole
    return timeline


def gradual_unfreeze(epochs: int, num_stages: int, seed: int, every: int) -> list[int]:
    timeline: list[int] = []
    for n in range(num_stages - 1, 0, -1):
        timeline += [n] * every
    return (timeline + [0] * epochs)[:epochs]


def gradual_freeze(epochs: int, num_stages: int, seed: int, t0: float, p: float = 1.0) -> list[int]:
    """Stage by stage: from when on is it frozen?"""
    timeline = [0] * epochs
    exact = Fraction(t0) if t0 < 1e-6 else Fraction(t0).limit_denominator(10**12)  # 1/3 is meant as such
    for k in range(1, num_stages + 1):
        time = (exact + (1 - exact) * Fraction(k - 1, num_stages)) ** Fraction(p)
        for e in range(epochs):
            if abs(float(time) - e / epochs) > 1e-9 and time < Fraction(e, epochs):
                timeline[e] = k
    return timeline


def multirate_step(epochs: int, num_stages: int, seed: int, rho: int, growth: float = 2.0) -> list[int]:
    """Lays each stage's due epochs over those of the later ones."""
    timeline = [num_stages] * epochs
    for k in range(num_stages, 0, -1):
        period = math.floor(rho * growth ** (num_stages - k) + 0.5)
        for e in range(0, epochs, period):
            timeline[e] = k - 1
    return timeline


def aimd(
    epochs: int, num_stages: int, trace: Trace, threshold: float, max_rho: int, start: int = 2
) -> list[int]:
    """Jumps from one unfrozen epoch to the next."""
    timeline, rho, e = [num_stages] * epochs, start, 0
    while e < epochs:
        timeline[e] = 0
        rho = min(rho + 1, max_rho) if trace[e] < threshold else max(1, rho // 2)
        e += rho
    return timeline


def drift(epochs: int, num_stages: int, trace: Trace, low: float, high: float, recheck: int) -> list[int]:
    """Stretches of unfrozen epochs, recheck - 1 frozen ones between them."""
    timeline: list[int] = []
    first = True
    while len(timeline) < epochs:
        while True:
            timeline.append(0)
            if len(timeline) >= epochs:
                break
            value = trace[len(timeline) - 1]
            if (value > high) if first else (value >= low):
                break
        timeline += [num_stages] * (recheck - 1)
        first = False
    return timeline[:epochs]


def plateau(epochs: int, num_stages: int, trace: Trace, patience: int, min_delta: float) -> list[int]:
    """Looks back over the scores of the frozen epochs since the last unfrozen one."""
    timeline = [0]
    for e in range(1, epochs):
        since = max(index for index, n in enumerate(timeline) if n == 0) + 1
        without = 0
        for index in range(since, e):
            if trace[index] is None:
                continue
            without = 0 if rises(trace[: index + 1], min_delta) else without + 1
        timeline.append(0 if without >= patience else num_stages)
    return timeline


def rises(scores: Trace, min_delta: float) -> bool:
    """Is the last of these scores a rise above the one that was a rise before it?"""
    steps: list[float] = []
    for score in scores[:-1]:
        if score is not None and (not steps or (score > steps[-1] and score >= steps[-1] + min_delta)):
            steps.append(score)
    return not steps or (scores[-1] > steps[-1] and scores[-1] >= steps[-1] + min_delta)


def gradnorm(
    epochs: int, num_stages: int, trace: Trace, percentile: float, window: int, recheck: int
) -> list[int]:
    """Keeps every epoch's norms, and compares means over lists."""
    timeline: list[int] = []
    known: list[float | None] = [None] * num_stages
    collected: list[list[float]] = []
    n, whole, probe = 0, 0, False
    for e in range(epochs):
        if e:
            collected.append(trace[e - 1])
            if len(collected) == (1 if probe else window):
                trained = range(0 if probe else n, num_stages)
                means = {k: sum(row[k] for row in collected) / len(collected) for k in trained}
                changes = {k: relative(means[k], known[k]) for k in trained if known[k] is not None}
                if changes:
                    bar = percent_point(sorted(changes.values()), percentile)
                    n = 0 if probe else n
                    while n < num_stages and n in changes and changes[n] < bar:
                        n += 1
                elif probe:
                    n = 0
                for k in trained:
                    known[k] = means[k]
                collected, probe = [], False
        if n and e - whole >= recheck:
            timeline.append(0)
            whole, probe, collected = e, True, []
        else:
            timeline.append(n)
            whole = whole if n else e
    return timeline


def relative(now: float, before: float | None) -> float:
    assert before is not None
    return (math.inf if now else 0.0) if before == 0 else abs(now - before) / before


def percent_point(values: list[float], percent: float) -> float:
    place = (len(values) - 1) * percent / 100
    below, above = values[math.floor(place)], values[math.ceil(place)]
    return below if below == above else below + (above - below) * (place - math.floor(place))


def budget(
    epochs: int, num_stages: int, seed: int, costs: Sequence[int], limit: float, inner: dict[str, Any]
) -> list[int]:
    """Tries every wish: is the timeline so far, with it and then frozen to the end, within the limit?"""
    options = {key: value for key, value in inner.items() if key != "name"}
    wishes = make_policy(inner["name"], **options).decisions(epochs, num_stages, seed)
    timeline: list[int] = []
    for wish in wishes:
        tried = timeline + [wish] + [num_stages] * (epochs - len(timeline) - 1)
        within = Fraction(sum(costs[n] for n in tried), costs[0] * epochs) <= Fraction(limit) * (
            1 + Fraction(1, 10**9)
        )
        timeline.append(wish if within or wish == num_stages else num_stages)
    return timeline
