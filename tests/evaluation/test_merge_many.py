"""Suppression strip by strip, for images with very many detections, leaves what plain suppression leaves."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dbf_ray.evaluation import merge
from dbf_ray.evaluation.merge import Detections, suppressed
from dbf_ray.geometry import batched_nms_rotated


def crowd(count: int, side: float, seed: int, classes: int = 3) -> Detections:
    """Slim boxes at all angles, a third of them near others, some very large, with scores of which many are
    equal.
    """
    generator = torch.Generator().manual_seed(seed)
    boxes = torch.rand(count, 5, generator=generator) * torch.tensor(
        [side, side, 40, 12, 180]
    ) + torch.tensor([0, 0, 12, 2, -90.0])
    near = torch.randint(count, (count // 3,), generator=generator)
    boxes[: len(near)] = boxes[near] + torch.randn(len(near), 5, generator=generator) * torch.tensor(
        [2, 2, 1, 0.2, 3]
    )
    boxes[::50, 2] *= 20
    labels = torch.randint(classes, (count,), generator=generator)
    labels[: len(near)] = labels[near]
    return Detections(boxes, (torch.rand(count, generator=generator) * 50).round() / 50, labels)


def plainly(found: Detections, threshold: float) -> Detections:
    keep = batched_nms_rotated(found.boxes, found.scores, found.labels, threshold)
    return Detections(*(tensor[keep] for tensor in found))


@pytest.mark.parametrize("strip", [1, 7, 100, 10_000])
@pytest.mark.parametrize("threshold", [0.05, 0.1, 0.5, 1.0])
def test_strips_leave_the_same_in_the_same_order(
    strip: int, threshold: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = crowd(400, 400.0, seed=strip)
    wanted = plainly(found, threshold)
    monkeypatch.setattr(merge, "_MANY", 0)
    monkeypatch.setattr(merge, "_STRIP", strip)
    merged = suppressed(found, threshold)
    assert all(torch.equal(a, b) for a, b in zip(merged, wanted, strict=True))
    assert threshold == 1.0 or len(wanted.scores) < 390


@given(seed=st.integers(0, 10**6), side=st.sampled_from([30.0, 300.0, 20_000.0]))
@settings(max_examples=30, deadline=None)
def test_of_any_density(seed: int, side: float) -> None:
    found = crowd(150, side, seed)
    keep = merge._suppressed_by_strips(found, 0.1)
    assert torch.equal(keep, batched_nms_rotated(found.boxes, found.scores, found.labels, 0.1))


def test_chains_of_any_length() -> None:
    """Boxes in a row, each over the next: the first removes the second, so the third stays."""
    boxes = torch.tensor([[10.0 * index, 0, 16, 8, 0] for index in range(40)])
    found = Detections(boxes, torch.linspace(0.9, 0.1, 40), torch.zeros(40, dtype=torch.int64))
    assert merge._suppressed_by_strips(found, 0.1).tolist() == list(range(0, 40, 2))


@pytest.mark.parametrize("count", [0, 1])
def test_few(count: int) -> None:
    found = crowd(1, 10.0, 0)
    found = Detections(*(tensor[:count] for tensor in found))
    assert len(suppressed(found, 0.1).scores) == count


def test_boxes_that_are_no_numbers_are_left_alone() -> None:
    found = crowd(60, 50.0, 1)
    found.boxes[::7, 0] = torch.nan
    found.boxes[1::7, 2] = torch.inf
    assert torch.equal(
        merge._suppressed_by_strips(found, 0.1),
        batched_nms_rotated(found.boxes, found.scores, found.labels, 0.1),
    )


def test_very_many_take_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge, "batched_nms_rotated", None)
    found = crowd(31_000, 20_000.0, 0)
    assert 0 < len(suppressed(found, 0.1).scores) < 31_000
