"""The rule for anchors, and the figures that it compares, against the whole matrix."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dbf_ray.config import Config, with_overrides
from dbf_ray.detectors.anchors import RotatedAnchors, level_shapes
from dbf_ray.geometry import box_iou_rotated
from dbf_ray.plan.coverage import grids_of
from dbf_ray.plan.objects import Objects, scaled
from dbf_ray.plan.rules.anchors import (
    MOST,
    THRESHOLDS,
    AnchorSet,
    OverlapTable,
    anchors_for,
    best_anchors,
    by_class,
    candidates,
    choose_anchors,
    even_angles,
    rule,
)
from tests.plan.random_objects import known, spread

STRIDES = [8, 16, 32, 64, 128]


def made(covered: float, several: float, *, scales: int = 1, angles: int = 4, mean: float = 0.5) -> AnchorSet:
    return AnchorSet((1.0,) * scales, (2.0,), (0.0,) * angles, covered, several, mean)


def test_the_smallest_that_gives_several_anchors_to_enough_objects_is_taken() -> None:
    large, small = made(0.99, 0.99, angles=8), made(0.96, 0.95, angles=6)
    assert choose_anchors([large, small, made(0.97, 0.94, angles=2)]) is small
    better = made(0.96, 0.96, angles=6, mean=0.6)
    assert choose_anchors([large, small, better]) is better


def test_else_that_which_gives_several_to_most_of_those_that_cover_enough() -> None:
    few, most = made(0.96, 0.5, angles=2), made(0.95, 0.8, angles=8)
    assert choose_anchors([few, made(0.94, 0.9), most]) is most


def test_else_that_which_covers_most() -> None:
    covers = made(0.9, 0.1, angles=8)
    assert choose_anchors([made(0.8, 0.7), covers, made(0.9, 0.1, scales=2, angles=8)]) is covers


def test_no_set_is_larger_than_a_cell_may_have_and_none_is_there_twice() -> None:
    sets = list(candidates())
    assert len(set(sets)) == len(sets) > 1000
    assert max(len(a) * len(b) * len(c) for a, b, c in sets) == MOST


@pytest.mark.parametrize("count", [2, 4, 6, 8])
def test_angles_are_closed_under_flips_and_quarter_turns(count: int) -> None:
    angles = even_angles(count)
    for seen in (lambda a: -a, lambda a: a + 90):
        assert sorted((seen(angle) + 90) % 180 - 90 for angle in angles) == sorted(angles)


@pytest.fixture(scope="module")
def some() -> tuple[Objects, OverlapTable]:
    """A few objects, and what they share with all shapes."""
    objects = spread(24, 60, 15, side=160)
    return objects, OverlapTable(objects.boxes, grids_of(objects), STRIDES)


@given(which=st.integers(0, len(list(candidates())) - 1))
@settings(max_examples=6)
def test_the_figures_of_a_set_are_those_of_the_whole_matrix(
    some: tuple[Objects, OverlapTable], which: int
) -> None:
    objects, table = some
    scales, ratios, angles = list(candidates())[which]
    anchors = torch.cat(
        RotatedAnchors(STRIDES, 4.0, scales, ratios, angles)(level_shapes((160, 160), STRIDES))
    )
    square = (anchors[:, 2] - anchors[:, 3]).abs() < 1e-3  # at right angles it is one shape
    iou = box_iou_rotated(anchors[~(square & (anchors[:, 4] < 0))], objects.boxes.float())
    best = torch.where(iou >= 0.4, iou, 0.0).amax(0).mean().item()
    for threshold in THRESHOLDS:
        found = table.judge(threshold)[which]
        assert found.mean_iou == pytest.approx(best, abs=1e-3)
        if (iou - threshold).abs().amin() > 1e-4:  # else rounding decides
            positives = (iou >= threshold).sum(0)
            assert found.covered == pytest.approx((positives >= 1).float().mean().item(), abs=1e-6)
            assert found.several == pytest.approx((positives >= 3).float().mean().item(), abs=1e-6)


def test_slim_objects_get_slim_anchors_at_many_angles_and_squares_one() -> None:
    def chosen(long: float, short: float) -> tuple[AnchorSet, float]:
        objects = spread(60, long, short)
        return best_anchors(OverlapTable(objects.boxes, grids_of(objects), STRIDES))

    slim, threshold = chosen(80, 14)
    assert min(slim.ratios) >= 4
    assert len(slim.angles) >= 6
    assert slim.several >= 0.95
    assert threshold >= 0.4
    square, threshold = chosen(40, 40)
    assert set(square.ratios) <= {1.0, 1.5}
    assert square.per_cell <= 4
    assert threshold == 0.5


def test_the_table_knows_all_sets() -> None:
    objects = spread(3, 30, 10)
    table = OverlapTable(objects.boxes, grids_of(objects), STRIDES)
    found = [(one.scales, one.ratios, one.angles) for one in table.judge(0.5)]
    assert found == list(candidates())


def test_what_is_chosen_fits_beside_what_is_given() -> None:
    facts = known(spread(40, 60, 12))
    free = {choice.key: choice.value for choice in rule(facts, Config())}
    config = with_overrides(
        Config(), {"detector.anchor_ratios": [2.0], "detector.anchor_scales": [0.25, 0.5, 1, 2]}
    )
    given = frozenset({"detector.anchor_ratios", "detector.anchor_scales"})
    choices = {choice.key: choice.value for choice in rule(replace(facts, given=given), config)}
    assert choices["detector.anchor_ratios"] == free["detector.anchor_ratios"]  # what would have been chosen
    found, threshold = anchors_for(
        facts, config, {"anchor_ratios": [2.0], "anchor_scales": [0.25, 0.5, 1, 2]}
    )
    assert (found.scales, found.ratios) == ((0.25, 0.5, 1.0, 2.0), (2.0,))
    assert choices["detector.anchor_angles"] == list(found.angles)
    assert choices["detector.positive_iou"] == threshold
    assert found.per_cell <= MOST
    many = list(candidates(scales=tuple(map(float, range(1, 20)))))
    assert {len(b) * len(c) for _, b, c in many} == {1, 2}  # as few more as what is given makes
    assert anchors_for(facts, config, {"positive_iou": 0.6})[1] == 0.6


def test_classes_count_alike_whatever_they_have() -> None:
    labels = torch.tensor([0] * 400 + [1] * 40 + [2])
    weights = by_class(labels, 4)
    shares = [weights[labels == label].sum().item() for label in range(3)]
    assert sum(shares) == pytest.approx(1)
    assert shares[0] == pytest.approx(shares[1])
    assert shares[2] == pytest.approx(shares[0] / 20)
    slim, square = spread(300, 60, 12), spread(30, 30, 30)
    both = Objects(
        *(
            torch.cat([getattr(slim, name), getattr(square, name)])
            for name in ("boxes", "labels", "difficult")
        ),
        torch.cat([slim.image, square.image]),
        slim.sizes,
        ["slim", "square"],
    )
    both.labels[300:] = 1
    both = both.pick(both.image.argsort(stable=True))
    found, threshold = anchors_for(known(both), Config())
    shown = scaled(both, Config().data.image_size)
    squares = shown.pick(torch.nonzero(both.labels == 1).squeeze(-1))
    table = OverlapTable(squares.boxes, grids_of(squares), STRIDES)
    chosen = (found.scales, found.ratios, found.angles)
    (own,) = (one for one in table.judge(threshold) if (one.scales, one.ratios, one.angles) == chosen)
    assert own.covered >= 0.9  # one object of eleven, and half of what is asked for
