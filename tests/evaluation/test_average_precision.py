"""Average precision against reference figures, against a slow implementation on shapely polygons, and by its
properties.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import Polygon

from dbf_ray.errors import ConfigError, DataError
from dbf_ray.evaluation import average_precision

REFERENCE_METHODS = {"07": "voc07", "area": "voc12"}
Images = list[dict[str, Any]]


def detections_of(*rows: tuple[list[float], float, int]) -> dict[str, Any]:
    boxes, scores, labels = [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows]
    return {
        "boxes": torch.tensor(boxes).reshape(-1, 5),
        "scores": torch.tensor(scores),
        "labels": torch.tensor(labels, dtype=torch.long),
    }


def objects_of(*rows: tuple[list[float], int, bool]) -> dict[str, Any]:
    boxes, labels, difficult = [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows]
    return {
        "boxes": torch.tensor(boxes).reshape(-1, 5),
        "labels": torch.tensor(labels, dtype=torch.long),
        "difficult": torch.tensor(difficult, dtype=torch.bool),
    }


# ---------------------------------------------------------------- first witness: reference figures


def reference_boxes(rows: list[list[float]]) -> torch.Tensor:
    """From (cx, cy, w, h, radians clockwise) to degrees counter-clockwise."""
    boxes = np.asarray(rows, dtype=np.float32).reshape(-1, 5).astype(np.float64)
    boxes[:, 4] = -np.degrees(boxes[:, 4])
    return torch.from_numpy(boxes.astype(np.float32))


def reference_set(case: dict[str, Any]) -> tuple[Images, Images]:
    detections, objects = [], []
    for per_class in case["dets"]:
        rows = [(row, label) for label, found in enumerate(per_class) for row in found]
        scores, labels = [row[5] for row, _ in rows], [label for _, label in rows]
        boxes = reference_boxes([row[:5] for row, _ in rows])
        detections.append(
            {"boxes": boxes, "scores": torch.tensor(scores), "labels": torch.tensor(labels, dtype=torch.long)}
        )
    for truth in case["gts"]:
        labels = truth["labels"] + truth["labels_ignore"]
        difficult = [False] * len(truth["labels"]) + [True] * len(truth["labels_ignore"])
        boxes = reference_boxes(truth["bboxes"] + truth["bboxes_ignore"])
        objects.append(
            {
                "boxes": boxes,
                "labels": torch.tensor(labels, dtype=torch.long),
                "difficult": torch.tensor(difficult),
            }
        )
    return detections, objects


def test_equals_the_reference_in_all_sets_methods_and_thresholds(shared: Path) -> None:
    cases = json.loads((shared / "reference" / "evaluation.json").read_text())["sets"]
    compared = 0
    for case in cases:
        detections, objects = reference_set(case)
        for key, expected in case["mmrotate"].items():
            method, threshold = key.split("@")
            if threshold.startswith("mean"):
                continue
            per_class, mean = average_precision(
                detections, objects, float(threshold), REFERENCE_METHODS[method]
            )
            devkit = case["devkit"][key]["ap"]
            with_objects = [label for label, count in enumerate(expected["num_gts"]) if count]
            assert sorted(per_class) == with_objects
            for label in with_objects:
                assert per_class[label] == pytest.approx(expected["ap"][label], abs=1e-6)
                assert per_class[label] == pytest.approx(devkit[label], abs=1e-6)
            assert mean == pytest.approx(expected["mAP"], abs=1e-6)
            compared += 1
    assert compared == 3 * 2 * 10


# ---------------------------------------------------------------- second witness: slow, one detection at a
# time, shapely


def polygon(box: list[float]) -> Polygon:
    cx, cy, w, h, angle = box
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    # along w: (cos, -sin), along h: (sin, cos); y points down
    return Polygon(
        [
            (cx + x * w * cos + y * h * sin, cy - x * w * sin + y * h * cos)
            for x, y in ((-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5))
        ]
    )


def slow_iou(a: list[float], b: list[float]) -> float:
    first, second = polygon(a), polygon(b)
    shared_area = first.intersection(second).area
    return float(shared_area / (first.area + second.area - shared_area))


def slow_average_precision(
    detections: Images, objects: Images, threshold: float, method: str
) -> tuple[dict[int, float], float]:
    labels = sorted(
        {
            int(label)
            for image in objects
            for label, hard in zip(image["labels"], image["difficult"], strict=True)
            if not hard
        }
    )
    result = {}
    for label in labels:
        truths = [
            [
                (box.tolist(), bool(hard))
                for box, name, hard in zip(image["boxes"], image["labels"], image["difficult"], strict=True)
                if name == label
            ]
            for image in objects
        ]
        found = [
            (float(score), index, box.tolist())
            for index, image in enumerate(detections)
            for box, score, name in zip(image["boxes"], image["scores"], image["labels"], strict=True)
            if name == label
        ]
        used: set[tuple[int, int]] = set()
        points, right, wrong = [], 0, 0
        total = sum(not hard for image in truths for _, hard in image)
        for _, index, box in sorted(found, key=lambda item: -item[0]):
            overlaps = [slow_iou(box, truth) for truth, _ in truths[index]]
            best = max(range(len(overlaps)), key=overlaps.__getitem__, default=-1)
            if best >= 0 and overlaps[best] >= threshold - 1e-6:
                if truths[index][best][1]:
                    continue
                if (index, best) in used:
                    wrong += 1
                else:
                    used.add((index, best))
                    right += 1
            else:
                wrong += 1
            points.append((right / total, right / (right + wrong)))
        if method == "voc07":
            result[label] = (
                sum(
                    max((p for r, p in points if r >= level), default=0.0)
                    for level in np.arange(0.0, 1.1, 0.1)
                )
                / 11
            )
        else:
            area, before = 0.0, 0.0
            for recall in sorted({r for r, _ in points}):
                area += (recall - before) * max(p for r, p in points if r >= recall)
                before = recall
            result[label] = area
    return result, (sum(result.values()) / len(result) if result else math.nan)


@st.composite
def scenes(draw: st.DrawFn) -> tuple[Images, Images]:
    """A few images with objects, and detections that are jittered copies of objects or lie elsewhere; scores
    often tie.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    detections, objects = [], []
    for _ in range(draw(st.integers(1, 4))):
        count = int(rng.integers(0, 6))
        boxes = np.column_stack(
            [rng.uniform(0, 60, (count, 2)), rng.uniform(4, 30, (count, 2)), rng.uniform(-90, 90, count)]
        )
        labels = rng.integers(0, 3, count)
        objects.append(
            objects_of(
                *(
                    (box.tolist(), int(label), bool(rng.random() < 0.25))
                    for box, label in zip(boxes, labels, strict=True)
                )
            )
        )
        copies = np.repeat(np.arange(count), 2)
        jitter = rng.normal(0, 1, (len(copies), 5)) * [1, 1, 1, 1, 4]
        near = [
            (np.maximum(boxes[i] + jitter[k], [-99, -99, 1, 1, -999]), labels[i])
            for k, i in enumerate(copies)
            if rng.random() < 0.8
        ]
        far = [
            (np.append(rng.uniform(0, 60, 2), [10, 5, 0]), rng.integers(0, 3))
            for _ in range(int(rng.integers(0, 4)))
        ]
        detections.append(
            detections_of(
                *((box.tolist(), float(rng.integers(1, 9)) / 8, int(label)) for box, label in near + far)
            )
        )
    return detections, objects


@settings(deadline=None, max_examples=60)
@given(scenes(), st.sampled_from([0.3, 0.5, 0.75]), st.sampled_from(["voc12", "voc07"]))
def test_equals_the_slow_witness(scene: tuple[Images, Images], threshold: float, method: str) -> None:
    per_class, mean = average_precision(*scene, threshold, method)
    expected, expected_mean = slow_average_precision(*scene, threshold, method)
    assert per_class == pytest.approx(expected, abs=1e-9)
    assert mean == pytest.approx(expected_mean, abs=1e-9, nan_ok=True)


# ---------------------------------------------------------------- rules, one by one

A = [20.0, 20.0, 20.0, 10.0, 0.0]
B = [60.0, 20.0, 20.0, 10.0, 30.0]
NOWHERE = [200.0, 200.0, 20.0, 10.0, 0.0]


def ap(
    detections: dict[str, Any], objects: dict[str, Any], threshold: float = 0.5, method: str = "voc12"
) -> float:
    return average_precision([detections], [objects], threshold, method)[0][0]


def test_closed_form_of_one_miss_between_two_hits() -> None:
    found = detections_of((A, 0.9, 0), (NOWHERE, 0.8, 0), (B, 0.7, 0))
    there = objects_of((A, 0, False), (B, 0, False))
    assert ap(found, there) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert ap(found, there, method="voc07") == pytest.approx((6 * 1 + 5 * 2 / 3) / 11)


def test_second_detection_of_an_object_is_wrong() -> None:
    found = detections_of((A, 0.9, 0), (A, 0.8, 0), (B, 0.7, 0))
    assert ap(found, objects_of((A, 0, False), (B, 0, False))) == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_detection_claims_only_the_object_it_overlaps_most() -> None:
    """The second detection overlaps the claimed object more than the free one: it is wrong, although the free
    one would do.
    """
    first, second = [20.0, 20.0, 20.0, 10.0, 0.0], [24.0, 20.0, 20.0, 10.0, 0.0]
    found = detections_of((first, 0.9, 0), ([21.0, 20.0, 20.0, 10.0, 0.0], 0.8, 0))
    assert ap(found, objects_of((first, 0, False), (second, 0, False))) == pytest.approx(0.5)


def test_detection_on_a_difficult_object_counts_neither_way() -> None:
    there = objects_of((A, 0, True), (B, 0, False))
    found = detections_of((A, 0.9, 0), (A, 0.85, 0), (B, 0.8, 0))
    assert ap(found, there) == 1.0
    assert ap(detections_of((NOWHERE, 0.9, 0), (B, 0.8, 0)), there) == pytest.approx(0.5)


def test_overlap_equal_to_the_threshold_matches() -> None:
    half = [20.0, 17.5, 20.0, 5.0, 0.0]  # the upper half of A
    found, there = detections_of((half, 0.9, 0)), objects_of((A, 0, False))
    assert ap(found, there, 0.5) == 1.0
    assert ap(found, there, 0.501) == 0.0
    assert ap(detections_of((A, 0.9, 0)), there, 1.0) == 1.0


def test_classes_and_images_do_not_mix() -> None:
    there = [objects_of((A, 0, False)), objects_of((A, 1, False))]
    per_class, mean = average_precision([detections_of((A, 0.9, 1)), detections_of((A, 0.9, 1))], there)
    assert per_class == {0: 0.0, 1: pytest.approx(1 / 2)}
    assert mean == pytest.approx(1 / 4)


def test_class_without_objects_is_left_out_and_no_class_gives_nan() -> None:
    found = detections_of((A, 0.9, 0), (B, 0.9, 2))
    assert average_precision([found], [objects_of((A, 0, False), (B, 1, True))]) == ({0: 1.0}, 1.0)
    per_class, mean = average_precision([found], [objects_of((A, 0, True))])
    assert per_class == {}
    assert math.isnan(mean)
    assert math.isnan(average_precision([], [])[1])


def test_eleven_points_are_float64_multiples_of_a_tenth() -> None:
    """As in the development kits a recall of 3/10 does not reach 3 * 0.1: levels 0, 0.1, 0.2 count, 0.3 does
    not.
    """
    boxes = [[40.0 * i, 20.0, 20.0, 10.0, 0.0] for i in range(10)]
    found = detections_of(*((box, 0.9, 0) for box in boxes[:3]))
    assert ap(found, objects_of(*((box, 0, False) for box in boxes)), method="voc07") == pytest.approx(3 / 11)


# ---------------------------------------------------------------- properties


@settings(deadline=None, max_examples=25)
@given(scenes(), st.sampled_from(["voc12", "voc07"]))
def test_perfect_detections_reach_one(scene: tuple[Images, Images], method: str) -> None:
    objects = scene[1]
    perfect = [
        {"boxes": image["boxes"], "scores": torch.rand(len(image["labels"])), "labels": image["labels"]}
        for image in objects
    ]
    per_class, _ = average_precision(perfect, objects, 0.95, method)
    assert all(value == pytest.approx(1.0) for value in per_class.values())


@settings(deadline=None, max_examples=25)
@given(scenes(), st.randoms(use_true_random=False))
def test_order_of_images_does_not_matter_without_ties(scene: tuple[Images, Images], random: Any) -> None:
    detections, objects = scene
    for index, image in enumerate(detections):
        image["scores"] = image["scores"] + 1e-3 * torch.rand(len(image["scores"])) + 1e-5 * index
    order = list(range(len(objects)))
    random.shuffle(order)
    before = average_precision(detections, objects)[0]
    after = average_precision([detections[i] for i in order], [objects[i] for i in order])[0]
    assert after == pytest.approx(before, abs=1e-12)


@settings(deadline=None, max_examples=25)
@given(scenes(), st.sampled_from(["voc12", "voc07"]))
def test_low_false_positives_never_change_and_high_ones_never_raise(
    scene: tuple[Images, Images], method: str
) -> None:
    detections, objects = scene
    before = average_precision(detections, objects, 0.5, method)[0]
    low = [
        {key: torch.cat([image[key], extra]) for key, extra in zip(image, extras(0.0), strict=True)}
        for image in detections
    ]
    high = [
        {key: torch.cat([image[key], extra]) for key, extra in zip(image, extras(2.0), strict=True)}
        for image in detections
    ]
    with_high = average_precision(high, objects, 0.5, method)[0]
    assert average_precision(low, objects, 0.5, method)[0] == pytest.approx(before)
    assert all(with_high[label] <= before[label] + 1e-12 for label in before)


def extras(score: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.tensor([[900.0, 900.0, 10.0, 5.0, 0.0]] * 3), torch.full((3,), score), torch.arange(3)


@settings(deadline=None, max_examples=25)
@given(scenes())
def test_within_zero_and_one_and_falling_with_the_threshold(scene: tuple[Images, Images]) -> None:
    values = [average_precision(*scene, threshold)[0] for threshold in (0.3, 0.5, 0.95)]
    assert all(0.0 <= value <= 1.0 for per_class in values for value in per_class.values())
    assert all(sorted(per_class) == sorted(values[0]) for per_class in values)


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize("threshold", [0.0, -0.5, 1.5, math.nan])
def test_refuses_a_threshold_out_of_range(threshold: float) -> None:
    with pytest.raises(ConfigError, match=r"iou_threshold must be in \(0, 1\], got"):
        average_precision([], [], threshold)


def test_refuses_an_unknown_method() -> None:
    with pytest.raises(ConfigError, match="method must be one of voc12, voc07, got 'coco'"):
        average_precision([], [], method="coco")


def test_refuses_lists_that_do_not_fit() -> None:
    good = detections_of((A, 0.9, 0))
    with pytest.raises(DataError, match="same images, got 1 and 0"):
        average_precision([good], [])
    with pytest.raises(DataError, match="detections of image 0"):
        average_precision([good | {"scores": torch.zeros(2)}], [objects_of()])
    with pytest.raises(DataError, match="ground truth of image 0"):
        average_precision(
            [good], [objects_of((A, 0, False)) | {"difficult": torch.zeros(3, dtype=torch.bool)}]
        )
    with pytest.raises(DataError, match="scores must be finite, got nan"):
        average_precision([detections_of((A, math.nan, 0))], [objects_of((A, 0, False))])
