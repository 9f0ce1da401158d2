"""What a study's figures can tell in spite of chance, that of the images that were evaluated and that of the
seeds that were trained. Pure: arrays in, arrays out.

Of n settings each has accuracies of one or several *paired* seeds (all settings' seed s share their luck),
and each of these again on B resampled sets of images, the same sets for all settings. A *draw* of a setting
is what its accuracy might have been: its mean over seeds, plus how it moves on the b-th set of images, plus
what seeds add by chance. Differences between settings within a draw are therefore paired over images (Efron
and Tibshirani, "An Introduction to the Bootstrap", 1993).

The mean of a setting is that of a two-way layout, setting + seed, by least squares: a setting with seed 0
alone is compared with others as if it had been lucky, or not, as they were with seed 0. What seeds add beyond
is the layout's residual, pooled over settings; with few degrees of freedom its own uncertainty counts (a
chi-square draw), so that the draws are Student's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dbf_ray.reports.pareto import pareto_front

Floats = NDArray[np.float64]
DRAWS = 2000
FACTORS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
_TIE = 1e-12


@dataclass(frozen=True)
class Measured:
    """What was measured of one setting.

    Attributes:
        cost: its cost.
        accuracy: by seed.
        resampled: by seed [B], on resampled images; what is missing is not known.
    """

    cost: float
    accuracy: Mapping[int, float]
    resampled: Mapping[int, Floats]


@dataclass(frozen=True)
class Draws:
    """Accuracies that n settings might have had.

    Attributes:
        costs: [n].
        center: [n] their means over seeds.
        images: [n, B] deviations by images.
        seeds: [n, B] deviations by seeds.
        common: [B] deviations that all settings have alike, by seeds; of no difference.
        seed_sd: of one training against others with the same seed; None where no seed was repeated.
        freedom: degrees of freedom of ``seed_sd``.
        images_known: whether every setting has resampled accuracies.
    """

    costs: Floats
    center: Floats
    images: Floats
    seeds: Floats
    common: Floats
    seed_sd: float | None
    freedom: int
    images_known: bool

    @property
    def values(self) -> Floats:
        """[n, B]."""
        return self.center[:, None] + self.images + self.seeds

    def with_more(self, images: float, seeds: float) -> Draws:
        """As they would be with so many times the images and seeds, if means stayed: deviations shrink by the
        root.
        """
        return replace(self, images=self.images / images**0.5, seeds=self.seeds / seeds**0.5)


def draw(settings: Sequence[Measured], draws: int = DRAWS, seed: int = 0) -> Draws:
    """Draws of ``settings``; B is that of their resampled accuracies, ``draws`` where none has any."""
    center, luck, residuals, freedom = two_way([setting.accuracy for setting in settings])
    sets = {len(values) for setting in settings for values in setting.resampled.values()}
    size = sets.pop() if sets else draws
    images = np.zeros((len(settings), size))
    known = bool(settings)
    for row, setting in enumerate(settings):
        if moved := [values - values.mean() for values in setting.resampled.values()]:
            images[row] = np.mean(moved, axis=0)
        known &= len(moved) == len(setting.accuracy)
    rng = np.random.default_rng(seed)
    seeds, common, sd = np.zeros_like(images), np.zeros(size), None
    if freedom:
        sd = float((residuals**2).sum() / freedom) ** 0.5
        scale = sd * (freedom / rng.chisquare(freedom, size)) ** 0.5
        shares = np.array([len(setting.accuracy) for setting in settings]) ** -0.5
        seeds = rng.standard_normal(images.shape) * shares[:, None] * scale
    if len(luck) > 1:
        common = rng.standard_t(len(luck) - 1, size) * luck.std(ddof=1) / len(luck) ** 0.5
    costs = np.array([setting.cost for setting in settings], np.float64)
    return Draws(costs, center, images, seeds, common, sd, freedom, known)


def two_way(accuracies: Sequence[Mapping[int, float]]) -> tuple[Floats, Floats, Floats, int]:
    """Least squares of accuracy = setting + seed, with seeds' effects that sum to 0.

    Returns:
        Settings' means [n]; seeds' effects [S]; residuals of all trainings; their degrees of freedom. Where
        seeds and settings cannot be told apart (one setting alone has several seeds), seeds have no effect in
        common: [0].
    """
    cells = [(row, seed, value) for row, each in enumerate(accuracies) for seed, value in each.items()]
    seeds = sorted({seed for _, seed, _ in cells})
    n, repeated = len(accuracies), sum(len(each) > 1 for each in accuracies)
    more = len(seeds) - 1 if repeated > 1 else 0
    table = np.zeros((len(cells), n + more))
    for line, (row, seed, _) in enumerate(cells):
        table[line, row] = 1
        if more:
            place = seeds.index(seed)
            table[line, n:] = -1.0 if place == more else np.arange(more) == place
    values = np.array([value for _, _, value in cells], np.float64)
    if not len(cells):
        return np.zeros(0), np.zeros(0), values, 0
    solved, _, rank, _ = np.linalg.lstsq(table, values, rcond=None)
    found = np.asarray(solved, np.float64)
    luck = np.append(found[n:], -found[n:].sum()) if more else found[:0]
    return found[:n], luck, values - table @ found, len(cells) - int(rank)


def on_front(values: Floats, costs: Floats) -> NDArray[np.bool_]:
    """[n, B]: whether no other setting is better in one and no worse in the other, draw by draw."""
    order = np.argsort(costs, kind="stable")
    result = np.zeros(values.shape, bool)
    cheaper = np.full(values.shape[1:], -np.inf)
    for cost in dict.fromkeys(costs[order].tolist()):
        alike = np.flatnonzero(costs == cost)
        best = values[alike].max(0)
        result[alike] = (values[alike] == best) & (best > cheaper)
        cheaper = np.maximum(cheaper, best)
    return result


def knees(values: Floats, costs: Floats) -> NDArray[np.bool_]:
    """[n, B]: which setting is the knee (:func:`.pareto.knee_point`), draw by draw."""
    front = on_front(values, costs)
    width = np.broadcast_to(costs[:, None], values.shape)

    def scaled(table: Floats) -> Floats:
        low, high = np.where(front, table, np.inf).min(0), np.where(front, table, -np.inf).max(0)
        return np.asarray((table - low) / np.where(high > low, high - low, 1.0))

    bulge = np.where(front, scaled(values) - scaled(width), -np.inf)
    best = np.where(front, values, -np.inf).argmax(0)
    columns = np.arange(values.shape[1])
    most = bulge.max(0)
    chosen = np.where(most <= bulge[best, columns] + _TIE, best, (bulge >= most - _TIE).argmax(0))
    result = np.zeros(values.shape, bool)
    result[chosen, columns] = True
    return result


def within(values: Floats, tolerance: float) -> Floats:
    """[n]: how probably a setting loses less than ``tolerance`` against the best of all."""
    return np.asarray((values.max(0) - values < tolerance).mean(1))


def cheapest_within(draws: Draws, tolerance: float, confidence: float) -> int | None:
    """The cheapest setting that loses less than ``tolerance`` with ``confidence``; None: there is none."""
    if not len(draws.costs):
        return None
    probable = np.flatnonzero(within(draws.values, tolerance) >= confidence)
    return int(min(probable, key=lambda row: draws.costs[row])) if len(probable) else None


def interval(values: Floats, level: float = 0.9) -> Floats:
    """[2, ...]: what the middle ``level`` of the last axis lies between."""
    return np.quantile(values, [(1 - level) / 2, (1 + level) / 2], axis=-1)


def needed(draws: Draws, told: Callable[[Draws], bool]) -> dict[str, int | None]:
    """How many times as many images, seeds, or both ``told`` would need to be true, if the means stayed: an
    estimate. None: more than the last of FACTORS, or their variance is not known.
    """

    def least(images: bool, seeds: bool) -> int | None:
        if (seeds and not images and draws.seed_sd is None) or (images and not draws.images.any()):
            return None
        tried = ((f, draws.with_more(f if images else 1, f if seeds else 1)) for f in FACTORS)
        return next((factor for factor, more in tried if told(more)), None)

    return {"images": least(True, False), "seeds": least(False, True), "both": least(True, True)}


def above_line(
    draws: Draws, costs: Floats, controls: Sequence[int]
) -> tuple[list[float | None], list[float | None]]:
    """Whether settings lie above the line through ``controls`` (rows: ``full`` and its shorter trainings).

    Between two controls the line is straight; beyond the dearest it is flat. A setting cheaper than the
    cheapest control can only be told to be above it, by being more accurate than that one.

    Args:
        draws: of all settings.
        costs: [n] where the line is drawn over, such as seconds; NaN: not known.
        controls: their rows.

    Returns:
        For each setting how probably it is above, and by how much in the mean; None where that is not known.
    """
    usable = sorted((row for row in controls if np.isfinite(costs[row])), key=lambda row: costs[row])
    probable: list[float | None] = [None] * len(costs)
    gain: list[float | None] = [None] * len(costs)
    if len(usable) < 2:
        return probable, gain
    values, knots = draws.values, costs[usable]
    for row in range(len(costs)):
        if not np.isfinite(costs[row]) or row in usable:
            continue
        shares = _shares(float(costs[row]), knots)
        share = float((values[row] > shares @ values[usable]).mean())
        if costs[row] < knots[0] and share < 0.5:
            continue  # the line is below the cheapest control there, nobody knows how far
        probable[row], gain[row] = share, float(draws.center[row] - shares @ draws.center[usable])
    return probable, gain


def _shares(cost: float, knots: Floats) -> Floats:
    """Weights of the line's knots at a cost."""
    return np.array([np.interp(cost, knots, unit) for unit in np.eye(len(knots))])


def posterior_means(draws: Draws) -> Floats:
    """[n] what settings' accuracies are believed to be: means drawn towards what neighbours in cost have.

    A Gaussian process over cost (constant, a smooth part, and a part of each setting's own), of which the
    scales have the largest marginal likelihood on a grid (Rasmussen and Williams, "Gaussian Processes for
    Machine Learning", 2006, 2.3, 5.4); noise is the draws' own covariance, so that what images and seeds move
    alike is not taken for a difference. Without noise they are the means themselves.
    """
    moved = draws.images + draws.seeds
    n = len(draws.costs)
    moved = moved - moved.mean(0)  # what all have in common tells nothing about differences
    noise = moved @ moved.T / moved.shape[1] if n else np.zeros((0, 0))
    spread = float(draws.center.std()) if n else 0.0
    if n < 3 or not noise.any() or spread == 0:
        return draws.center.copy()
    reach = float(np.ptp(draws.costs)) or 1.0
    apart = (draws.costs[:, None] - draws.costs) / reach
    best, result = -np.inf, draws.center
    for length in (0.1, 0.2, 0.4, 0.8, 1.6):
        smooth = np.exp(-0.5 * (apart / length) ** 2)
        for size in (0.5, 1.0, 2.0, 4.0):
            for own in (0.0, 0.1, 0.3, 1.0):
                prior = spread**2 * (size**2 * smooth + own**2 * np.eye(n))
                likelihood, means = _posterior(prior, noise + 1e-9 * spread**2 * np.eye(n), draws.center)
                if likelihood > best:
                    best, result = likelihood, means
    return result


def _posterior(prior: Floats, noise: Floats, observed: Floats) -> tuple[float, Floats]:
    """Log marginal likelihood, but for a constant, and posterior means, around the generalised mean."""
    factor = np.linalg.cholesky(prior + noise)
    ones = np.linalg.solve(factor, np.ones(len(observed)))
    seen = np.linalg.solve(factor, observed)
    level = float(ones @ seen / (ones @ ones))
    rest = seen - level * ones
    weights = np.linalg.solve(factor.T, rest)
    return float(-0.5 * rest @ rest - np.log(np.diag(factor)).sum()), level + prior @ weights


def front_of(values: Floats, costs: Floats) -> list[int]:
    """Rows on the front of single values."""
    return pareto_front(list(zip(values.tolist(), costs.tolist(), strict=True)))
