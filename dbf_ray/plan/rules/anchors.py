"""Anchors: the smallest product of scales, ratios and angles that covers the objects."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dbf_ray.config import Config
from dbf_ray.plan.choices import Choice, Facts
from dbf_ray.plan.coverage import grids_of
from dbf_ray.plan.kinds import has_oriented_anchors, strides_of
from dbf_ray.plan.objects import drawn, scaled
from dbf_ray.plan.overlaps import best_overlaps

MOST = 16  # anchors a cell
ENOUGH = 0.95  # of the objects
THRESHOLDS = (0.5, 0.45, 0.4)
OCTAVE = 4.0  # strides that an anchor of scale 1 is large
STEPS = 6  # scales to an octave
SCALES = tuple(2 ** (k / STEPS) for k in range(-STEPS, STEPS))  # .5 to 1.78
RATIOS = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
ANGLES = (2, 4, 6, 8)  # how many even steps of 180 / n degrees; even: closed under quarter turns too
MOST_OBJECTS = 600  # that sets are compared on


@dataclass(frozen=True)
class AnchorSet:
    """Anchors at each cell, and what they do.

    Attributes:
        scales, ratios, angles: as the detector's options.
        covered: share of the objects with an anchor at ``positive_iou`` or more.
        mean_iou: mean over the objects of the best overlap (0 where it is below .4).
    """

    scales: tuple[float, ...]
    ratios: tuple[float, ...]
    angles: tuple[float, ...]
    covered: float
    mean_iou: float

    @property
    def per_cell(self) -> int:
        """How many there are at a cell."""
        return len(self.scales) * len(self.ratios) * len(self.angles)


def even_angles(count: int) -> tuple[float, ...]:
    """``count`` even steps of 180 / count degrees, from -90."""
    return tuple(-90 + 180 * k / count for k in range(count))


def choose_anchors(table: OverlapTable, threshold: float, most: int = MOST) -> AnchorSet:
    """The smallest set that covers 95 % of the objects at overlap ``threshold`` (``positive_iou``), else the
    one of at most ``most`` anchors a cell that covers most; of equally small ones that of the best mean
    overlap.
    """
    sets = [table.judge(*parts, threshold) for parts in candidates(most)]
    enough = [one for one in sets if one.covered >= ENOUGH]
    if enough:
        return min(enough, key=lambda one: (one.per_cell, -one.mean_iou))
    return max(sets, key=lambda one: (one.covered, -one.per_cell, one.mean_iou))


def best_anchors(table: OverlapTable) -> tuple[AnchorSet, float]:
    """The set to take, and at which ``positive_iou``: the highest of .5, .45 and .4 at which a set of at most
    16 anchors a cell covers 95 %, else .4.
    """
    for threshold in THRESHOLDS:
        found = choose_anchors(table, threshold)
        if found.covered >= ENOUGH:
            break
    return found, threshold


def candidates(most: int = MOST) -> Iterator[tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]]:
    """Scales, ratios and angles of all sets of at most ``most`` anchors a cell. Scales are spread evenly over
    an octave, from one level's to the next's; squares alone are not turned further than they differ.
    """
    for scales in _scale_sets():
        for count in (1, 2, 3):
            for ratios in itertools.combinations(RATIOS, count):
                for angles in [(0.0,), (0.0, 45.0)] if ratios == (1.0,) else map(even_angles, ANGLES):
                    if len(scales) * len(ratios) * len(angles) <= most:
                        yield scales, ratios, angles


def _scale_sets() -> Iterator[tuple[float, ...]]:
    for count in (1, 2, 3):
        step = STEPS // count
        for first in range(STEPS if count == 1 else step):
            for start in (first - STEPS, first):
                places = [start + step * k for k in range(count)]
                if all(-STEPS <= place < STEPS for place in places):
                    yield tuple(2 ** (place / STEPS) for place in places)


class OverlapTable:
    """The best overlap of each object with each anchor shape that sets are made of.

    Args:
        boxes: objects [M, 5], M >= 1, resized as training does.
        grids: (height, width) [M, 2] of the padded image of each.
        strides: of the detector's levels.
    """

    def __init__(self, boxes: Tensor, grids: Tensor, strides: Sequence[int]) -> None:
        angles = sorted({0.0, 45.0, *itertools.chain(*map(even_angles, ANGLES))})
        shapes = list(itertools.product(SCALES, RATIOS, angles))
        sides = [
            (OCTAVE * scale * math.sqrt(ratio), OCTAVE * scale / math.sqrt(ratio), angle)
            for scale, ratio, angle in shapes
        ]
        self._column = {shape: column for column, shape in enumerate(shapes)}
        self._table = best_overlaps(boxes, grids, torch.tensor(sides), strides).T.contiguous()
        self._best: dict[
            tuple[tuple[float, ...], ...], Tensor
        ] = {}  # of each set and object, for any threshold

    def judge(
        self,
        scales: tuple[float, ...],
        ratios: tuple[float, ...],
        angles: tuple[float, ...],
        threshold: float,
    ) -> AnchorSet:
        """What a set does."""
        key = (scales, ratios, angles)
        if key not in self._best:
            columns = [self._column[shape] for shape in itertools.product(*key)]
            self._best[key] = self._table[columns].amax(0)
        best = self._best[key]
        return AnchorSet(
            scales, ratios, angles, (best >= threshold).float().mean().item(), best.mean().item()
        )


def table_of(facts: Facts, config: Config) -> OverlapTable:
    """For the objects at the configured image size; made once for each size."""
    size, strides = config.data.image_size, strides_of(config.detector.name, config.detector.backbone)
    key = ("overlaps", size, tuple(strides))
    if key not in facts.memory:
        shown = scaled(facts.objects, size)
        some = shown.pick(drawn(shown, 0, MOST_OBJECTS))
        facts.memory[key] = OverlapTable(some.boxes, grids_of(some), strides)
    return facts.memory[key]


def rule(facts: Facts, config: Config) -> list[Choice]:
    """Anchors and thresholds of a detector of oriented anchors."""
    if not has_oriented_anchors(config.detector.name):
        return []
    found, threshold = best_anchors(table_of(facts, config))
    why = f"{found.per_cell} a cell: {found.covered:.1%} of the objects overlap one by {threshold}"
    values = {
        "anchor_scales": [round(scale, 3) for scale in found.scales],
        "anchor_ratios": list(found.ratios),
        "anchor_angles": list(found.angles),
        "positive_iou": threshold,
        "negative_iou": round(threshold - 0.1, 2),
    }
    return [Choice(f"detector.{option}", value, why, "anchors") for option, value in values.items()]
