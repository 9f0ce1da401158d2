"""The evaluator: its metrics against average_precision, independence of order and ranks, and what it
refuses.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from dbf_ray.errors import ConfigError, DataError
from dbf_ray.evaluation import IOU_THRESHOLDS, Evaluator, average_precision
from tests.tiny import on_ranks

CLASSES = ["plane", "ship", "tank"]


def images(count: int = 8, seed: int = 0) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Images whose detections are jittered copies of their objects, with scores that often tie."""
    generator = torch.Generator().manual_seed(seed)
    result = []
    for index in range(count):
        objects = int(torch.randint(0, 6, (1,), generator=generator))
        boxes = torch.rand(objects, 5, generator=generator) * torch.tensor(
            [100.0, 100, 20, 10, 180]
        ) + torch.tensor([0.0, 0, 10, 5, -90])
        labels = torch.randint(0, 2, (objects,), generator=generator)
        target = {
            "boxes": boxes,
            "labels": labels,
            "difficult": torch.rand(objects, generator=generator) < 0.2,
            "image_id": f"scene_{index:02d}",
        }
        noise = torch.randn(2 * objects, 5, generator=generator) * torch.tensor([1.0, 1, 1, 1, 4])
        scores = torch.randint(1, 5, (2 * objects,), generator=generator) / 4
        found = {"boxes": boxes.repeat(2, 1) + noise, "scores": scores, "labels": labels.repeat(2)}
        result.append((found, target))
    return result


def evaluate(pairs: list[tuple[dict[str, Any], dict[str, Any]]], batch: int = 3) -> dict[str, float]:
    evaluator = Evaluator(len(CLASSES), CLASSES)
    for start in range(0, len(pairs), batch):
        part = pairs[start : start + batch]
        evaluator.update([found for found, _ in part], [target for _, target in part])
    evaluator.gather()
    return evaluator.compute()


def test_metrics_are_those_of_average_precision() -> None:
    pairs = images()
    found, there = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    metrics = evaluate(pairs)
    per_class, mean = average_precision(found, there, 0.5)
    assert 0 < mean < 1
    assert metrics["map50"] == mean
    assert metrics["map50_voc07"] == average_precision(found, there, 0.5, "voc07")[1]
    assert metrics["map75"] == average_precision(found, there, 0.75)[1]
    assert metrics["map50_95"] == pytest.approx(
        sum(average_precision(found, there, t)[1] for t in IOU_THRESHOLDS) / 10
    )
    assert [metrics[f"ap50/{name}"] for name in CLASSES[:2]] == [per_class[0], per_class[1]]
    assert math.isnan(metrics["ap50/tank"])
    assert list(metrics) == [
        "map50",
        "map50_voc07",
        "map75",
        "map50_95",
        "ap50/plane",
        "ap50/ship",
        "ap50/tank",
    ]


def test_thresholds_are_exact_decimals() -> None:
    assert IOU_THRESHOLDS == (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


def test_order_and_batching_do_not_matter_even_with_tied_scores() -> None:
    pairs = images(12)
    expected = evaluate(pairs)
    assert evaluate(pairs[::-1], batch=5) == pytest.approx(expected, abs=0, nan_ok=True)


def test_zero_where_there_are_objects_and_nan_only_where_there_are_none() -> None:
    nothing = {
        "boxes": torch.zeros(0, 5),
        "scores": torch.zeros(0),
        "labels": torch.zeros(0, dtype=torch.long),
    }
    target = {
        "boxes": torch.ones(1, 5),
        "labels": torch.tensor([1]),
        "difficult": torch.tensor([False]),
        "image_id": "a",
    }
    metrics = evaluate([(nothing, target)])
    assert metrics["map50"] == metrics["map50_95"] == metrics["ap50/ship"] == 0.0
    assert math.isnan(metrics["ap50/plane"])
    assert all(
        math.isnan(value)
        for value in evaluate([(nothing, target | {"difficult": torch.tensor([True])})]).values()
    )
    assert all(math.isnan(value) for value in evaluate([]).values())


def test_later_changes_of_a_tensor_do_not_reach_the_evaluator() -> None:
    pairs = images(4)
    expected = evaluate(pairs)
    evaluator = Evaluator(len(CLASSES), CLASSES)
    evaluator.update([found for found, _ in pairs], [target for _, target in pairs])
    for found, _ in pairs:
        found["boxes"].zero_()
        found["scores"].zero_()
    assert evaluator.compute() == pytest.approx(expected, abs=0, nan_ok=True)


def enlarged(pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """The objects of images that were seen at half their size."""
    return {
        target["image_id"]: target | {"boxes": target["boxes"] * torch.tensor([2.0, 2, 2, 2, 1])}
        for _, target in pairs
    }


def _rank(rank: int, folder: str) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    try:
        pairs = [(found, target | {"scale": 0.5}) for found, target in images(9)]
        shared, both = Evaluator(len(CLASSES), CLASSES), Evaluator(len(CLASSES), CLASSES)
        shared.update([found for found, _ in pairs[rank::2]], [target for _, target in pairs[rank::2]])
        both.update([found for found, _ in pairs], [target for _, target in pairs])
        shared.gather()
        shared.gather()  # a second time changes nothing
        message = ""
        try:
            both.gather()
        except DataError as error:
            message = str(error)
        torch.save(
            (len(shared), shared.compute(), shared.compute_merged(enlarged(pairs)), message),
            f"{folder}/{rank}.pt",
        )
    finally:
        dist.destroy_process_group()


def test_two_ranks_get_the_metrics_of_one_and_refuse_an_image_on_both(tmp_path: Path) -> None:
    on_ranks(_rank, str(tmp_path))
    expected = evaluate(images(9))
    alone = Evaluator(len(CLASSES), CLASSES)
    alone.update([found for found, _ in images(9)], [target | {"scale": 0.5} for _, target in images(9)])
    whole = alone.compute_merged(enlarged(images(9)))
    assert whole["merged/map50"] > 0
    for rank in range(2):
        count, metrics, merged, message = torch.load(tmp_path / f"{rank}.pt")
        assert merged == pytest.approx(whole, abs=0, nan_ok=True)
        assert count == 9
        assert metrics == pytest.approx(expected, abs=0, nan_ok=True)
        assert "image 'scene_00' was evaluated on rank 1 and on one before it (9 such images)" in message


def test_refuses_bad_input() -> None:
    found, target = images(3)[1]
    evaluator = Evaluator(len(CLASSES), CLASSES)
    evaluator.update([found], [target])
    with pytest.raises(DataError, match="image 'scene_01' was evaluated twice"):
        evaluator.update([found], [target])
    with pytest.raises(DataError, match="got 0 for 1 targets"):
        evaluator.update([], [target])
    bad = found | {"boxes": torch.ones(1, 5), "scores": torch.ones(1), "labels": torch.tensor([3])}
    with pytest.raises(DataError, match=r"labels must be 0 to 2, got 3 \(detections of image 'other'\)"):
        evaluator.update([bad], [target | {"image_id": "other"}])
    with pytest.raises(ConfigError, match="got 3 names for 2 classes"):
        Evaluator(2, CLASSES)
    with pytest.raises(ConfigError, match="at least one threshold"):
        Evaluator(3, CLASSES, [])
    with pytest.raises(ConfigError, match="iou_threshold must be in"):
        Evaluator(3, CLASSES, [50.0])
