"""How accurate a setting will be, guessed from those that are trained: a small Gaussian process; and how much
hypervolume it is expected to gain where its cost is known.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Features = Sequence[Sequence[float]] | npt.NDArray[np.float64]
Steps = Sequence[tuple[float, float]]
"""A staircase: (cost, accuracy), both ascending: from each cost on, the best accuracy."""

LENGTHS = (0.15, 0.25, 0.4, 0.6, 0.9, 1.4, 2.2, 3.5)  # of features, which are about 0..1
NOISES = (0.001, 0.01, 0.05, 0.15, 0.4)  # variances, of values scaled to variance 1


class Surrogate:
    """A Gaussian process over features: a smooth part and a linear one (scikit-learn's
    ``GaussianProcessRegressor``). Length and noise are those of a grid with the largest marginal likelihood:
    with few points a search for the best ones would settle at extremes.

    Args:
        features: one row for each trained setting.
        values: their accuracies.
        noise: least standard deviation of a value.
        shape: length and noise variance; None: chosen.

    Attributes:
        shape: the same.
    """

    def __init__(
        self,
        features: Features,
        values: Sequence[float] | Array,
        noise: float = 0.0,
        shape: tuple[float, float] | None = None,
        scale: tuple[float, float] | None = None,
    ) -> None:
        self._points, self._values = np.array(features, dtype=float), np.array(values, dtype=float)
        middle, spread = scale or (float(self._values.mean()), float(self._values.std()) or 1.0)
        self._scale = middle, spread
        scaled = (self._values - middle) / spread
        floor = (noise / spread) ** 2
        shapes = [shape] if shape else [(one, max(two, floor)) for one in LENGTHS for two in NOISES]
        fitted = [(_fitted(self._points, scaled, *one), one) for one in shapes]
        self._model, self.shape = max(fitted, key=lambda pair: pair[0].log_marginal_likelihood_value_)

    def predict(self, features: Features) -> tuple[Array, Array]:
        """Mean and standard deviation of the accuracy that each row has, without a measurement's noise."""
        middle, spread = self._scale
        mean, deviation = self._model.predict(np.array(features, dtype=float), return_std=True)
        return mean * spread + middle, deviation * spread

    def means(self) -> Array:
        """Posterior means of the trained settings, in their order."""
        return self.predict(self._points)[0]

    def believing(self, features: Features) -> Surrogate:
        """The same with settings that are trained by now, as if each had ended at its mean."""
        values = np.concatenate([self._values, self.predict(features)[0]])
        points = np.concatenate([self._points, np.array(features, dtype=float)])
        return Surrogate(points, values, shape=self.shape, scale=self._scale)


def staircase(costs: Sequence[float], accuracies: Sequence[float] | Array) -> list[tuple[float, float]]:
    """The best accuracy from each cost on."""
    steps: list[tuple[float, float]] = []
    for cost, accuracy in sorted(zip(costs, map(float, accuracies), strict=True)):
        if not steps or accuracy > steps[-1][1]:
            steps.append((cost, accuracy))
    return steps


def expected_gain(
    costs: Array, means: Array, deviations: Array, steps: Steps, reference: tuple[float, float]
) -> Array:
    """Expected gain in hypervolume of settings with known costs and normally distributed accuracies:

        integral over t from the cost to the reference's of EI(mean, deviation; f(t)) dt

    where f is the staircase and EI the expected improvement on a level, so that it is a sum over steps.

    Args:
        costs, means, deviations: [n], of the settings.
        steps: of what is trained.
        reference: (accuracy, cost); nothing beyond counts.

    Returns:
        [n], >= 0.
    """
    floor, limit = reference
    levels = np.array([floor, *(max(level, floor) for _, level in steps)])
    edges = np.minimum(np.array([-np.inf, *(cost for cost, _ in steps), limit]), limit)
    begins = np.maximum(edges[:-1], costs[:, None])  # [n, steps + 1]
    widths = np.maximum(0.0, edges[1:] - begins)
    improvements = _expected_improvement(means[:, None], deviations[:, None], levels)
    gains: Array = (widths * improvements).sum(axis=1)
    return gains


def _expected_improvement(means: Array, deviations: Array, levels: Array) -> Array:
    from scipy.special import ndtr

    deviations = np.maximum(deviations, 1e-12)
    over = means - levels
    z = over / deviations
    density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    improvement: Array = np.maximum(0.0, over * ndtr(z) + deviations * density)
    return improvement


def _fitted(points: Array, values: Array, length: float, noise: float) -> Any:
    gaussian, rbf, linear = _parts()
    kernel = rbf(length, "fixed") + 0.5 * linear(1.0, "fixed")
    return gaussian(kernel, alpha=noise, optimizer=None).fit(points, values)


@functools.cache
def _parts() -> tuple[Any, Any, Any]:
    """scikit-learn takes a second to import."""
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, DotProduct

    return GaussianProcessRegressor, RBF, DotProduct
