"""Coverage as JSON holds it, against numbers counted by hand."""

from __future__ import annotations

import pytest
import torch

from dbf_ray.config import make_config
from dbf_ray.plan.coverage import Coverage
from dbf_ray.plan.objects import Objects
from dbf_ray.plan.written import shares, size_names


def four() -> Objects:
    """On an image of 200 pixels, of 20 x 5, 20 x 20, 60 x 60 and 150 x 150 pixels; the third is difficult."""
    sides = torch.tensor([[20, 5], [20, 20], [60, 60], [150, 150]]).double()
    return Objects(
        boxes=torch.cat([torch.full((4, 2), 100.0), sides, torch.zeros(4, 1)], 1).double(),
        labels=torch.tensor([0, 1, 1, 1]),
        difficult=torch.tensor([False, False, True, False]),
        image=torch.zeros(4, dtype=torch.int64),
        sizes=torch.tensor([[200, 200]]),
        classes=["a", "b", "none of it"],
    )


def test_overlaps_by_class_and_size_with_difficult_objects_apart() -> None:
    strength = torch.tensor([[0.0, 0.42, 0.6, 0.5], [0.41, 0.48, 0.6, 0.9]])
    config = make_config({"data": {"image_size": 100}, "detector": {"name": "rotated_retinanet"}}, "here")
    found = shares(Coverage(strength >= 0.45, strength, torch.ones(4)), four(), config)
    assert found is not None
    assert found["all"] == pytest.approx({"objects": 3, "covered": 0.5, "at_0.5": 2 / 6, "at_0.4": 5 / 6})
    assert found["difficult"] == {"objects": 1, "covered": 1.0, "at_0.5": 1.0, "at_0.4": 1.0}
    assert found["classes"]["a"] == {"objects": 1, "covered": 0.0, "at_0.5": 0.0, "at_0.4": 0.5}
    assert found["classes"]["b"] == {"objects": 2, "covered": 0.75, "at_0.5": 0.5, "at_0.4": 1.0}
    assert found["classes"]["none of it"]["covered"] is None
    # half as large as labelled: square roots of the areas are 5, 10 and 75
    assert [row["objects"] for row in found["sizes"].values()] == [2, 0, 0, 1, 0]
    assert list(found["sizes"]) == size_names()
    assert found["sizes"]["64 to 128 px"]["covered"] == 1.0


def test_points_below_three_are_told() -> None:
    strength = torch.tensor([[0.0, 1.0, 9.0, 3.0]])
    config = make_config({"data": {"image_size": 200}, "detector": {"name": "rotated_fcos"}}, "here")
    found = shares(Coverage(strength >= 1, strength, torch.ones(4)), four(), config)
    assert found is not None
    assert found["classes"]["b"] == {"objects": 2, "covered": 1.0, "under_3_points": 0.5}
    assert found["classes"]["a"] == {"objects": 1, "covered": 0.0, "under_3_points": 1.0}


def test_proposals_have_their_share_alone() -> None:
    strength = torch.tensor([[2.0, 1.0, 0.0, 3.0]])
    config = make_config({"detector": {"name": "oriented_rcnn"}}, "here")
    found = shares(Coverage(strength >= 1, strength, torch.ones(4)), four(), config)
    assert found is not None
    assert (found["all"], found["difficult"]) == (
        {"objects": 3, "covered": 1.0},
        {"objects": 1, "covered": 0.0},
    )
    assert shares(None, four(), config) is None
