"""Geometry against figures made by other implementations: shapely's exact polygons, OpenCV, mmcv and
MMRotate.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dbf_ray.geometry import (
    batched_nms_rotated,
    box_iou_rotated,
    box_iou_rotated_aligned,
    canonicalize,
    circumscribed,
    corners_to_boxes,
    nms_rotated,
    roi_align_rotated,
)
from tests.geometry.slow import exact_iou


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
    assert (box_iou_rotated_aligned(a, b) - exact).abs().max() < 1e-9
    for first, second in ((a, b), (b, a)):
        assert (box_iou_rotated(first, second).diagonal().double() - exact).abs().max() < 1e-7
    assert set(data["kind"]) >= {"generic", "identical"}


def test_gradient_of_the_iou_loss_equals_the_numeric_one_of_exact_polygons(shared: Path) -> None:
    data = load(shared, "losses.json")["RotatedIoULoss"]
    boxes, targets = from_reference(data["pred"]).requires_grad_(), from_reference(data["target"])
    iou = box_iou_rotated_aligned(boxes, targets)
    assert (iou - torch.tensor(data["exact_iou"], dtype=torch.float64)).abs().max() < 1e-9
    iou.clamp(min=1e-6).log().neg().sum().backward()
    assert boxes.grad is not None
    grad = torch.cat([boxes.grad[:, :4], -torch.rad2deg(boxes.grad[:, 4:])], 1)  # by clockwise radians
    assert (
        grad[:18] - torch.tensor(data["numeric_exact_grad_rows_0_17"], dtype=torch.float64)
    ).abs().max() < 1e-6
    assert not grad[18:].any()  # an equal pair, and one that does not touch


def test_small_boxes_far_out_keep_their_precision(shared: Path) -> None:
    rows = load(shared, "fcos_iou_precision.json")["rows"]
    assert rows
    for row in rows:
        low, high = row["side_units"]
        a, b = (
            row["centre_px"] * torch.tensor([1.0, 1, 0, 0, 0]) + torch.rand(40, 5) * high for _ in range(2)
        )
        for boxes in (a, b):
            boxes[:, 2:4] = low + torch.rand(40, 2) * (high - low)
            boxes[:, 4] = torch.rand(40) * 180 - 90
        exact = torch.tensor([exact_iou(x, y) for x, y in zip(a, b, strict=True)])
        assert (exact > 0).any()
        assert (box_iou_rotated_aligned(a, b) - exact).abs().max() < 1e-6


def test_nms_keeps_what_the_reference_keeps(shared: Path) -> None:
    data = load(shared, "rotated_nms.json")
    for case in data["cases"]:
        kept = nms_rotated(
            from_reference(case["boxes"]).float(), torch.tensor(case["scores"]), case["iou_thr"]
        )
        assert kept.tolist() == case["greedy_exact_keep"]
    for case in data["multiclass"]:
        scores = torch.tensor(case["scores_incl_bg_col"])[:, :-1]
        box, label = torch.nonzero(scores > case["score_thr"], as_tuple=True)
        boxes = from_reference(case["boxes"]).float()[box]
        kept = batched_nms_rotated(boxes, scores[box, label], label, case["iou_thr"])
        assert [[int(box[k]), int(label[k])] for k in kept] == case["exact_box_class"]
    equal = data["equal_thr_case"]
    assert (
        nms_rotated(
            from_reference(equal["boxes"]).float(), torch.tensor(equal["scores"]), equal["iou_thr"]
        ).tolist()
        == equal["mmcv_keep"]
    )


def test_rotated_roi_align_equals_the_reference(shared: Path) -> None:
    data = load(shared, "roi_ops_and_assignment.json")
    features = torch.tensor(data["features"], requires_grad=True)
    rois = torch.tensor(data["rois_rotated_b_cx_cy_w_h_a"])
    rois = torch.cat([rois[:, :1], from_reference(rois[:, 1:].tolist()).float()], 1)
    for sampling in (2, 0):
        found = roi_align_rotated(features, rois, 7, data["spatial_scale"], sampling)
        assert (
            found - torch.tensor(data[f"roi_align_rotated_s{sampling}_aligned_clockwise"])
        ).abs().max() < 1e-5
    roi_align_rotated(features, rois, 7, data["spatial_scale"], 2).sum().backward()
    assert features.grad is not None
    assert (features.grad - torch.tensor(data["roi_align_rotated_s2_grad_of_sum"])).abs().max() < 2e-5


def test_minimum_rectangles_equal_opencv(shared: Path) -> None:
    for case in load(shared, "polygons.json")["cases"]:
        if case["poly2obb_np_le90"] is None:
            continue
        box = corners_to_boxes(torch.tensor([case["poly"]], dtype=torch.float64))
        # a near-rectangle has two rectangles of equal area, and either may win
        two_minima = case["kind"] == "jittered_rect"
        assert box_iou_rotated_aligned(box, from_reference([case["poly2obb_np_le90"]])).item() > (
            0.95 if two_minima else 0.999
        )
        assert math.isclose(float(box[0, 2] * box[0, 3]), case["shapely_min_area"], rel_tol=1e-5)


def test_upright_boxes_and_angles_equal_the_reference(shared: Path) -> None:
    data = load(shared, "polygons.json")
    cases = [case for case in data["cases"] if case["poly2obb_np_le90"] is not None]
    outer = circumscribed(from_reference([case["poly2obb_np_le90"] for case in cases]))
    torch.testing.assert_close(
        outer, torch.tensor([case["obb2xyxy_le90"] for case in cases]).double(), atol=2e-3, rtol=1e-5
    )
    upright = torch.tensor(data["hbb"]).double()
    center, sides = (upright[:, :2] + upright[:, 2:]) / 2, upright[:, 2:] - upright[:, :2]
    boxes = canonicalize(torch.cat([center, sides, torch.zeros(len(upright), 1)], -1))
    assert (box_iou_rotated_aligned(boxes, from_reference(data["hbb2obb_le90"])) > 1 - 1e-6).all()
    angles = torch.tensor([*data["angles"], *data["edge_angles"]]).double()
    named = torch.tensor([[0.0, 0, 2, 1, 0]]).double().repeat(len(angles), 1)
    named[:, 4] = -torch.rad2deg(angles)
    ours = canonicalize(named)
    wanted = -torch.rad2deg(torch.tensor([*data["norm_angle_le90"], *data["norm_angle_le90_edge"]]).double())
    # the same direction, whichever of -90 and +90 names it
    turn = torch.remainder(ours[:, 4] - wanted + 90, 180) - 90
    assert turn.abs().max() < 1e-4
