"""Geometry against figures made by other implementations: shapely's exact polygons, OpenCV, mmcv and MMRotate."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dbf_ray.geometry import batched_nms_rotated, box_iou_rotated, box_iou_rotated_aligned, corners_to_boxes, nms_rotated


def load(shared: Path, name: str) -> dict[str, Any]:
    return json.loads((shared / "reference" / name).read_text())


def from_reference(rows: list[list[float]]) -> Tensor:
    """Boxes from radians clockwise to degrees counter-clockwise."""
    boxes = torch.from_numpy(np.array(rows, dtype=np.float32).astype(np.float64).reshape(-1, 5))
    return torch.cat([boxes[:, :4], -torch.rad2deg(boxes[:, 4:])], -1)


def test_iou_equals_the_exact_polygons(shared: Path) -> None:
    data = load(shared, "rotated_iou.json")
    a, b = from_reference(data["boxes1"]), from_reference(data["boxes2"])
    exact = torch.tensor(data["exact_iou"], dtype=torch.float64)
    assert (box_iou_rotated_aligned(a, b) - exact).abs().max() < 1e-6
    assert (box_iou_rotated(a, b).diagonal().double() - exact).abs().max() < 2e-5


def test_nms_keeps_what_the_reference_keeps(shared: Path) -> None:
    data = load(shared, "rotated_nms.json")
    for case in data["cases"]:
        kept = nms_rotated(from_reference(case["boxes"]).float(), torch.tensor(case["scores"]), case["iou_thr"])
        assert kept.tolist() == case["greedy_exact_keep"]
    for case in data["multiclass"]:
        scores = torch.tensor(case["scores_incl_bg_col"])[:, :-1]
        box, label = torch.nonzero(scores > case["score_thr"], as_tuple=True)
        boxes = from_reference(case["boxes"]).float()[box]
        kept = batched_nms_rotated(boxes, scores[box, label], label, case["iou_thr"])
        assert [[int(box[k]), int(label[k])] for k in kept] == case["exact_box_class"]


def test_minimum_rectangles_equal_opencv(shared: Path) -> None:
    for case in load(shared, "polygons.json")["cases"]:
        if case["poly2obb_np_le90"] is None:
            continue
        box = corners_to_boxes(torch.tensor([case["poly"]], dtype=torch.float64))
        two_minima = case["kind"] == "jittered_rect"  # a near-rectangle has two rectangles of equal area, and either may win
        assert box_iou_rotated_aligned(box, from_reference([case["poly2obb_np_le90"]])).item() > (0.95 if two_minima else 0.999)
        assert math.isclose(float(box[0, 2] * box[0, 3]), case["shapely_min_area"], rel_tol=1e-5)
