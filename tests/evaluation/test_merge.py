from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dbf_ray.evaluation import Evaluator, average_precision
from dbf_ray.evaluation.merge import Detections, as_found, merge_patches
from dbf_ray.geometry import box_iou_rotated
from dbf_ray.geometry.windows import patch_name, sliding_windows


def found(boxes: list[list[float]], scores: list[float], labels: list[int]) -> Detections:
    return as_found(boxes, scores, labels)


def merged_slowly(
    patches: dict[str, Detections], threshold: float
) -> dict[str, list[tuple[float, int, list[float]]]]:
    """Every detection moved by the numbers in its patch's name; best first, dropped if it overlaps one of its
    class that was kept.
    """
    images: dict[str, list[tuple[float, int, list[float]]]] = {}
    for name, one in patches.items():
        image, _, x, _, y = (*name.split("__")[:3], "", name.split("___")[1])
        for box, score, label in zip(
            one.boxes.tolist(), one.scores.tolist(), one.labels.tolist(), strict=True
        ):
            images.setdefault(image, []).append(
                (score, label, [box[0] + int(x.strip("_")), box[1] + int(y), *box[2:]])
            )
    kept: dict[str, list[tuple[float, int, list[float]]]] = {}
    for image, rows in images.items():
        kept[image] = []
        for row in sorted(rows, key=lambda row: -row[0]):
            others = [other[2] for other in kept[image] if other[1] == row[1]]
            if (
                not others
                or float(box_iou_rotated(torch.tensor([row[2]]), torch.tensor(others)).max()) < threshold
            ):
                kept[image].append(row)
    return kept


def test_an_object_in_the_overlap_is_kept_once() -> None:
    left = found([[900, 50, 40, 20, 30], [100, 100, 40, 20, 0]], [0.8, 0.7], [0, 0])
    # the same place: 824 further left
    right = found([[76, 50, 40, 20, 30], [76, 50, 40, 20, 30]], [0.9, 0.6], [0, 1])
    merged = merge_patches(
        {"P1__1024__0___0": left, "P1__1024__824___0": right, "P2": found([[5, 5, 4, 2, 0]], [0.5], [0])}
    )
    assert merged["P1"].boxes.tolist() == [
        [900, 50, 40, 20, 30],
        [100, 100, 40, 20, 0],
        [900, 50, 40, 20, 30],
    ]
    assert merged["P1"].scores.tolist() == pytest.approx([0.9, 0.7, 0.6])
    assert merged["P1"].labels.tolist() == [0, 0, 1]
    assert merged["P2"].boxes.tolist() == [[5, 5, 4, 2, 0]]


def test_patches_of_an_enlarged_image_are_brought_to_its_size() -> None:
    """As the DOTA devkit names them: this one was cut at (824, 0) of the image at half its size."""
    merged = merge_patches({"P6__0.5__824___0": found([[10, 20, 6, 4, 15]], [0.5], [0])})
    assert merged["P6"].boxes.tolist() == [[1668, 40, 12, 8, 15]]


def test_no_detections_are_an_image_without_detections() -> None:
    merged = merge_patches({"P1__64__0___0": found([], [], []), "P1__64__48___0": found([], [], [])})
    assert merged["P1"].boxes.shape == (0, 5)
    assert merged["P1"].labels.dtype == torch.int64


@given(seed=st.integers(0, 10**6), threshold=st.sampled_from([0.1, 0.3, 0.5]))
@settings(max_examples=30, deadline=None)
def test_merging_is_the_slow_greedy_one(seed: int, threshold: float) -> None:
    generator = np.random.default_rng(seed)
    patches = {}
    for window in sliding_windows(150, 220, [100], [30]):
        count = int(generator.integers(0, 12))
        boxes = np.stack(
            [
                *generator.uniform(0, 100, (2, count)),
                *generator.uniform(5, 40, (2, count)),
                generator.uniform(-90, 90, count),
            ],
            -1,
        )
        patches[patch_name("P", window)] = as_found(
            boxes,
            generator.permutation(count) / 20 + generator.uniform(0, 0.04, count),
            generator.integers(0, 2, count),
        )
    merged, slow = merge_patches(patches, threshold)["P"], merged_slowly(patches, threshold).get("P", [])
    assert merged.scores.tolist() == pytest.approx([row[0] for row in slow])
    assert merged.labels.tolist() == [row[1] for row in slow]
    assert merged.boxes[:, :2].flatten().tolist() == pytest.approx(
        [value for row in slow for value in row[2][:2]], abs=1e-3
    )


def objects(boxes: list[list[float]], labels: list[int]) -> dict[str, Tensor]:
    return {
        "boxes": torch.tensor(boxes).reshape(-1, 5),
        "labels": torch.tensor(labels, dtype=torch.int64),
        "difficult": torch.zeros(len(labels), dtype=torch.bool),
    }


def test_merged_metrics_are_those_of_the_whole_images() -> None:
    """Patches seen at half their size; one object found in both of two patches counts once, one in no patch's
    view is missed.
    """
    evaluator = Evaluator(2, ["ship", "plane"])
    seen = {
        "P1__100__0___0": ([[45.0, 20, 10, 4, 0], [10, 10, 6, 4, 20]], [0.9, 0.4], [0, 1]),
        "P1__100__80___0": ([[5.0, 20, 10, 4, 0]], [0.95], [0]),
    }
    for name, (boxes, scores, labels) in seen.items():
        detections = {
            "boxes": torch.tensor(boxes),
            "scores": torch.tensor(scores),
            "labels": torch.tensor(labels),
        }
        evaluator.update([detections], [{**objects(boxes, labels), "image_id": name, "scale": 0.5}])
    originals = {"P1": objects([[90, 40, 20, 8, 0], [20, 20, 12, 8, 20], [500, 500, 30, 9, 5]], [0, 1, 1])}
    result = evaluator.compute_merged(originals)
    assert evaluator.compute()["map50"] == 1
    per_class, mean = average_precision(
        [{"boxes": [[90, 40, 20, 8, 0], [20, 20, 12, 8, 20]], "scores": [0.95, 0.4], "labels": [0, 1]}],
        [originals["P1"]],
    )
    assert result["merged/ap50/ship"] == per_class[0] == 1
    assert result["merged/ap50/plane"] == per_class[1] == 0.5
    assert result["merged/map50"] == mean
    assert set(result) == {f"merged/{name}" for name in evaluator.compute()}


def test_images_without_a_detection_count_as_well() -> None:
    evaluator = Evaluator(1, ["ship"])
    nothing = {
        "boxes": torch.zeros(0, 5),
        "scores": torch.zeros(0),
        "labels": torch.zeros(0, dtype=torch.int64),
    }
    evaluator.update([nothing], [{**objects([], []), "image_id": "P1__100__0___0"}])
    assert evaluator.compute_merged({"P1": objects([[9, 9, 5, 4, 0]], [0])})["merged/map50"] == 0
