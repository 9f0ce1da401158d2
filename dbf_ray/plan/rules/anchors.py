"""Anchors: the smallest product of scales, ratios and angles that covers the objects."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from dbf_ray.config import Config
from dbf_ray.plan.choices import Choice, Facts
from dbf_ray.plan.coverage import grids_of
from dbf_ray.plan.kinds import has_oriented_anchors, strides_of
from dbf_ray.plan.objects import drawn_counted, scaled
from dbf_ray.plan.overlaps import LEAST, overlaps

MOST = 16  # anchors a cell
ENOUGH = 0.95  # of the objects
PARTS = ("scales", "ratios", "angles")
SEVERAL = 3  # anchors of an object, below which a training depends on a cell or two
THRESHOLDS = (0.5, 0.45, 0.4)
OCTAVE = 4.0  # strides that an anchor of scale 1 is large
STEPS = 6  # scales to an octave
SCALES = tuple(2 ** (k / STEPS) for k in range(-2 * STEPS, STEPS))  # .25 to 1.78
RATIOS = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
ANGLES = (2, 4, 6, 8)  # how many even steps of 180 / n degrees; even: closed under quarter turns too
FULL = 20  # objects of a class, from which on it counts as much as any other
MOST_OBJECTS = 600  # that sets are compared on
_SETS_AT_ONCE = 256
_ROUNDING = 1e-9  # of sums of weights

Numbers = tuple[float, ...]


@dataclass(frozen=True)
class AnchorSet:
    """Anchors at each cell, and what they do at a ``positive_iou``.

    Attributes:
        scales, ratios, angles: as the detector's options.
        covered: share of the objects with an anchor at ``positive_iou`` or more.
        several: share of those with :data:`SEVERAL` such anchors.
        mean_iou: mean over the objects of the best overlap (0 where it is below .4).
    """

    scales: tuple[float, ...]
    ratios: tuple[float, ...]
    angles: tuple[float, ...]
    covered: float
    several: float
    mean_iou: float

    @property
    def per_cell(self) -> int:
        """How many there are at a cell."""
        return len(self.scales) * len(self.ratios) * len(self.angles)


def even_angles(count: int) -> tuple[float, ...]:
    """``count`` even steps of 180 / count degrees, from -90."""
    return tuple(-90 + 180 * k / count for k in range(count))


def choose_anchors(sets: Iterable[AnchorSet]) -> AnchorSet:
    """The smallest set that gives several anchors to 95 % of the objects; else, of those that cover 95 %, the
    one that gives several to most; else the one that covers most. Of equal ones the smaller, then that of the
    better mean overlap.
    """
    found = list(sets)
    enough = [one for one in found if one.covered >= ENOUGH]
    if not enough:
        return max(found, key=lambda one: (one.covered, -one.per_cell, one.mean_iou))
    return min(enough, key=lambda one: (-min(one.several, ENOUGH), one.per_cell, -one.mean_iou))


def best_anchors(table: OverlapTable) -> tuple[AnchorSet, float]:
    """The set to take, and its ``positive_iou``: the highest of the table's thresholds at which a set of at
    most 16 anchors a cell gives several anchors to 95 % of the objects; else that at which one covers 95 %;
    else the lowest.
    """
    found = []
    for threshold in table.thresholds:
        found.append((choose_anchors(table.judge(threshold)), threshold))
        if found[-1][0].several >= ENOUGH:
            return found[-1]
    return next((pair for pair in found if pair[0].covered >= ENOUGH), found[-1])


def candidates(
    scales: Numbers | None = None, ratios: Numbers | None = None, angles: Numbers | None = None
) -> Iterator[tuple[Numbers, Numbers, Numbers]]:
    """Scales, ratios and angles of all sets of at most 16 anchors a cell, or as few more as what is given
    makes; squares alone are not turned further than they differ.
    """
    all_ratios = itertools.chain(*(itertools.combinations(RATIOS, count) for count in (1, 2, 3)))
    for own_ratios in [ratios] if ratios else all_ratios:
        turned = [(0.0,), (0.0, 45.0)] if own_ratios == (1.0,) else list(map(even_angles, ANGLES))
        turned = [angles] if angles else turned
        least = len(scales or (1.0,)) * len(ratios or (1.0,)) * min(map(len, turned))
        for own_scales in [scales] if scales else _scale_sets():
            for own_angles in turned:
                if len(own_scales) * len(own_ratios) * len(own_angles) <= max(MOST, least):
                    yield own_scales, own_ratios, own_angles


def _scale_sets() -> Iterator[tuple[float, ...]]:
    """One to three spread evenly over an octave; or two an octave apart: below the finest level is none."""
    for count, step in ((1, 0), (2, STEPS // 2), (3, STEPS // 3), (2, STEPS)):
        for first in range(len(SCALES) - step * (count - 1)):
            yield tuple(SCALES[first + step * k] for k in range(count))


class OverlapTable:
    """What objects share with each anchor shape that sets are made of.

    Args:
        boxes: objects [M, 5], M >= 1, resized as training does.
        grids: (height, width) [M, 2] of the padded image of each.
        strides: of the detector's levels.
        given: scales, ratios or angles that all sets have.
        thresholds: of overlap, the highest first.
        weights: of the objects [M], with sum 1; None: all alike.
    """

    def __init__(
        self,
        boxes: Tensor,
        grids: Tensor,
        strides: Sequence[int],
        given: Mapping[str, Numbers] = MappingProxyType({}),
        thresholds: Sequence[float] = THRESHOLDS,
        weights: Tensor | None = None,
    ) -> None:
        self.thresholds = thresholds
        self._weights = (
            torch.full((len(boxes),), 1 / len(boxes), dtype=torch.float64) if weights is None else weights
        )
        self._weights = self._weights.double()
        sets = {
            parts: dict.fromkeys(map(_distinct, itertools.product(*parts))) for parts in candidates(**given)
        }
        column = {shape: number for number, shape in enumerate(sorted(set().union(*sets.values())))}
        self._sets = list(sets)
        own = [torch.tensor([column[one] for one in shapes]) for shapes in sets.values()]
        self._columns = pad_sequence(own, batch_first=True, padding_value=len(column))  # the last: no shape
        sides = [
            (OCTAVE * scale * math.sqrt(ratio), OCTAVE * scale / math.sqrt(ratio), angle)
            for scale, ratio, angle in column
        ]
        best, counts = overlaps(boxes, grids, torch.tensor(sides), strides, thresholds)
        self._best, self._counts = pad(best, (0, 1)), pad(counts, (0, 1))

    def judge(self, threshold: float) -> list[AnchorSet]:
        """All sets, at a ``positive_iou`` among the thresholds."""
        counts = self._counts[self.thresholds.index(threshold)]
        figures: list[Tensor] = []
        for columns in self._columns.split(_SETS_AT_ONCE):
            positives = counts[:, columns].sum(-1)
            figures.append(
                torch.stack(
                    [
                        self._weights @ (positives >= 1).double(),
                        self._weights @ (positives >= SEVERAL).double(),
                        self._weights @ self._best[:, columns].amax(-1).double(),
                    ],
                    -1,
                )
            )
        rows = torch.cat(figures).add(_ROUNDING).clamp(max=1).tolist()
        return [AnchorSet(*parts, *row) for parts, row in zip(self._sets, rows, strict=True)]


def _distinct(shape: tuple[float, float, float]) -> tuple[float, float, float]:
    """A square's right angles are one shape."""
    scale, ratio, angle = shape
    return (scale, ratio, angle % 90 if ratio == 1 else angle)


def by_class(labels: Tensor, classes: int) -> Tensor:
    """Weights [M] with sum 1 by which classes count alike; one of fewer than 20 objects as much less as it
    has fewer, so that no single object decides.
    """
    weights = 1 / labels.bincount(minlength=classes).clamp(min=FULL).double()[labels]
    return weights / weights.sum()


def anchors_for(
    facts: Facts, config: Config, own: Mapping[str, Any] = MappingProxyType({})
) -> tuple[AnchorSet, float]:
    """See :func:`best_anchors`: for the objects at the configured image size, beside the options that
    somebody has set, ``own``; found once for each size and such options.
    """
    size, strides = config.data.image_size, strides_of(config.detector.name, config.detector.backbone)
    given = {name: tuple(map(float, own[f"anchor_{name}"])) for name in PARTS if f"anchor_{name}" in own}
    thresholds = (max(LEAST, own["positive_iou"]),) if "positive_iou" in own else THRESHOLDS
    key = ("anchors", size, tuple(strides), tuple(given.items()), thresholds)
    if key not in facts.memory:
        shown = scaled(facts.objects, size)
        some = shown.pick(drawn_counted(shown, MOST_OBJECTS))
        weights = by_class(some.labels, len(some.classes))
        table = OverlapTable(some.boxes, grids_of(some), strides, given, thresholds, weights)
        facts.memory[key] = best_anchors(table)
    found: tuple[AnchorSet, float] = facts.memory[key]
    return found


def rule(facts: Facts, config: Config) -> list[Choice]:
    """Anchors and thresholds of a detector of oriented anchors: what fits beside those options that somebody
    has set; of these, what would have been chosen.
    """
    if not has_oriented_anchors(config.detector.name):
        return []
    given = config.detector.parameters
    own = {key: value for key, value in given.items() if f"detector.{key}" in facts.given}
    (found, threshold), (free, free_threshold) = (anchors_for(facts, config, one) for one in (own, {}))
    why = (
        f"{found.per_cell} a cell: {found.covered:.1%} of the objects (classes count alike) overlap one by "
        f"{threshold}, {found.several:.1%} {SEVERAL} or more"
    )
    values: dict[str, Any] = {
        f"anchor_{name}": [round(one, 3) for one in getattr(free if f"anchor_{name}" in own else found, name)]
        for name in PARTS
    }
    values["positive_iou"] = max(
        free_threshold if "positive_iou" in own else threshold, own.get("negative_iou", 0.0)
    )
    values["negative_iou"] = round(max(0.0, own.get("positive_iou", threshold) - 0.1), 2)
    return [
        Choice(f"detector.{option}", value, "" if number else why, "anchors")
        for number, (option, value) in enumerate(values.items())
    ]
