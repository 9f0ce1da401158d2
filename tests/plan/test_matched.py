"""What is shown of the objects that a detector does not match."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dbf_ray.config import make_config
from dbf_ray.plan.coverage import Coverage
from dbf_ray.plan.matched import Matched, shapes, worst_images
from dbf_ray.plan.objects import Objects

CONFIG = {"data": {"image_size": 2048, "flips": []}, "detector": {"anchor_ratios": [1.0, 4.0]}}


def three_images() -> Matched:
    """Of 2048 x 2048 pixels: (0) one object matched; (1) three of 4 x 4 near each other and one far away, not
    matched; (2) one matched, in one of two views only, and one never.
    """
    centers = [[512, 512], [1800, 1800], [1810, 1790], [1790, 1810], [100, 100], [1024, 1024], [900, 40]]
    sides = [[32, 32], [4, 4], [4, 4], [4, 4], [4, 4], [32, 32], [4, 4]]
    boxes = torch.cat([torch.tensor(centers), torch.tensor(sides), torch.zeros(7, 1)], 1).double()
    hits = torch.tensor([[1, 0, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0, 0, 0]]).bool()
    objects = Objects(
        boxes=boxes,
        labels=torch.zeros(7, dtype=torch.int64),
        difficult=torch.zeros(7, dtype=torch.bool),
        image=torch.tensor([0, 1, 1, 1, 1, 2, 2]),
        sizes=torch.tensor([[2048, 2048]] * 3),
        classes=["a"],
    )
    found = Coverage(hits, hits.float(), torch.ones(7))
    files = [Path(f"{name}.png") for name in "pqr"]
    return Matched(make_config(CONFIG, "here"), "train", files, objects, torch.arange(7), found, found)


def test_the_worst_images_are_shown_where_most_is_not_matched() -> None:
    first, second = worst_images(three_images(), 5)
    assert (first.title, first.window) == ("q.png, from (1024, 1024)", (1024, 1024, 1024, 1024))
    assert len(first.corners) == 3  # the far one is not in the window
    assert first.corners[0].tolist() == pytest.approx([774, 774, 778, 774, 778, 778, 774, 778])
    assert first.share.tolist() == [0, 0, 0]
    # looked at anew, and whole: the window about what is never matched
    assert (second.file.name, second.window[:2]) == ("r.png", (388, 0))
    assert second.share.tolist() == [0]
    assert [image.file.name for image in worst_images(three_images(), 1)] == ["q.png"]


def test_all_objects_of_a_window_are_looked_at_not_only_those_drawn() -> None:
    matched = three_images()
    some = Matched(**{**vars(matched), "chosen": torch.tensor([6])})
    hits = Coverage(torch.zeros(2, 1).bool(), torch.zeros(2, 1), torch.ones(1))
    [image] = worst_images(Matched(**{**vars(some), "before": hits, "after": hits}), 5)
    assert image.share.tolist() == [0]
    moved = matched.objects.boxes.clone()
    moved[5, :2] = torch.tensor([1024, 512])  # onto a corner of a cell, into the window
    objects = Objects(**{**vars(matched.objects), "boxes": moved})
    [image] = worst_images(Matched(**{**vars(some), "objects": objects, "before": hits, "after": hits}), 5)
    assert image.share.tolist() == [1, 0]


def test_sides_of_anchors_are_those_of_each_level() -> None:
    found = shapes(three_images())
    assert [level["stride"] for level in found["anchors"]] == [8, 16, 32, 64, 128]
    assert found["anchors"][0]["sides"][0] == [32.0, 32.0]
    assert [64.0, 16.0] in found["anchors"][0]["sides"]  # ratio 4, one for each scale
    assert len(found["anchors"][0]["sides"]) == 6
    assert (found["long"][:2], found["share"]) == ([32, 4], [1, 0, 0, 0, 0, 0.5, 0])
    usual = shapes(three_images(), usual=True)["anchors"][0]["sides"]
    assert [64.0, 16.0] not in usual


def test_limits_of_points_and_upright_boxes_of_proposals() -> None:
    matched = three_images()
    fcos = make_config({"detector": {"name": "rotated_fcos"}}, "here")
    assert shapes(Matched(**{**vars(matched), "config": fcos}))["limits"] == [128, 256, 512, 1024]
    boxes = matched.objects.boxes.clone()
    boxes[0, 4] = 45
    turned = Objects(**{**vars(matched.objects), "boxes": boxes})
    config = make_config({"data": {"image_size": 2048}, "detector": {"name": "oriented_rcnn"}}, "here")
    found = shapes(Matched(**{**vars(matched), "config": config, "objects": turned}))
    assert found["long"][0] == pytest.approx(32 * 2**0.5)
    assert (found["upright"], found["anchors"][0]["stride"]) == (True, 4)
