"""What an evaluation keeps of its images: the same average precision from it, on these images and on others
drawn from them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dbf_ray.evaluation import Evaluator, average_precision
from dbf_ray.evaluation.matches import Matches, image_counts, read_matches, write_matches

Images = tuple[list[dict[str, Any]], list[dict[str, Any]]]


def scenes(seed: int, images: int = 8, classes: int = 3) -> Images:
    """Detections and objects: some found, some twice, some missed, some difficult."""
    rng = np.random.default_rng(seed)
    found, there = [], []
    for image in range(images):
        number = int(rng.integers(0, 5))
        boxes = np.concatenate([rng.uniform(20, 80, (number, 2)), rng.uniform(8, 30, (number, 3))], 1)
        labels = rng.integers(0, classes, number)
        again = np.repeat(np.arange(number), rng.integers(0, 3, number))
        shifted = boxes[again] + rng.normal(0, 1.5, (len(again), 5))
        extra = np.concatenate([rng.uniform(20, 80, (2, 2)), rng.uniform(8, 30, (2, 3))], 1)
        found.append(
            {
                "boxes": np.concatenate([shifted, extra]).astype(np.float32),
                "scores": rng.permutation(1000)[: len(again) + 2].astype(np.float32) / 1000 + image * 1e-5,
                "labels": np.concatenate([labels[again], rng.integers(0, classes, 2)]),
            }
        )
        difficult = rng.random(number) < 0.2
        there.append({"boxes": boxes.astype(np.float32), "labels": labels, "difficult": difficult})
    return found, there


def evaluated(found: Any, there: Any, classes: int = 3) -> tuple[dict[str, float], Matches]:
    evaluator = Evaluator(classes, [f"class {label}" for label in range(classes)])
    evaluator.update(found, [{**target, "image_id": f"P{image:03d}"} for image, target in enumerate(there)])
    return evaluator.compute(), evaluator.matches[""]


@pytest.mark.parametrize("seed", range(6))
def test_metrics_of_what_was_written_are_the_evaluators_to_the_bit(tmp_path: Path, seed: int) -> None:
    metrics, matches = evaluated(*scenes(seed))
    write_matches(tmp_path / "m.npz", {"": matches, "merged/": matches})
    for prefix in ("", "merged/"):
        again = read_matches(tmp_path / "m.npz", prefix)
        assert again is not None
        for name in ("map50", "map75", "map50_95", "ap50/class 1"):
            assert again.metric(name) == metrics[name], name
            once = again.resampled(name, np.ones((1, len(again.names)), np.int64))
            assert once[0] == pytest.approx(metrics[name], abs=1e-12)
    assert read_matches(tmp_path / "none.npz") is None
    (tmp_path / "m.npz").write_bytes((tmp_path / "m.npz").read_bytes()[:100])
    assert read_matches(tmp_path / "m.npz") is None


@pytest.mark.parametrize("seed", range(4))
def test_drawn_images_are_as_if_they_were_evaluated_so_often(seed: int) -> None:
    found, there = scenes(seed)
    _, matches = evaluated(found, there)
    counts = image_counts(matches.names.tolist(), 10, seed)
    assert (counts.sum(1) == len(found)).all()
    slow = []
    for times in counts:
        chosen = np.repeat(np.arange(len(found)), times)
        slow.append(average_precision([found[i] for i in chosen], [there[i] for i in chosen])[1])
    assert matches.resampled("map50", counts) == pytest.approx(slow, abs=1e-12)


def test_where_detections_are_all_right_the_spread_is_that_of_a_share() -> None:
    """One object an image, found or not: map50 is the share found, whose variance is p (1 - p) / n."""
    box = np.array([[50, 50, 20, 10, 0]], np.float32)
    nothing = np.zeros((0, 5), np.float32)
    found, there = [], []
    for image in range(100):
        boxes = box if image < 70 else nothing
        scores = np.full(len(boxes), 0.5, np.float32)
        found.append({"boxes": boxes, "scores": scores, "labels": np.zeros(len(boxes), np.int64)})
        there.append({"boxes": box, "labels": np.zeros(1, np.int64), "difficult": np.zeros(1, bool)})
    _, matches = evaluated(found, there, classes=1)
    drawn = matches.resampled("map50", image_counts(matches.names.tolist(), 4000))
    assert drawn.mean() == pytest.approx(0.7, abs=0.005)
    assert drawn.std() == pytest.approx((0.7 * 0.3 / 100) ** 0.5, rel=0.05)


def test_patches_of_a_scene_are_drawn_together() -> None:
    counts = image_counts(["a", "b", "a", "c"], 50)
    assert (counts[:, 0] == counts[:, 2]).all()
    assert (counts[:, [0, 1, 3]].sum(1) == 3).all()
    assert (counts == image_counts(["a", "b", "a", "c"], 50)).all()


def test_classes_without_an_object_in_a_draw_are_left_out() -> None:
    found, there = scenes(1)
    _, matches = evaluated(found, there)
    image = next(i for i, one in enumerate(there) if set(one["labels"][~one["difficult"]].tolist()) == {1})
    once = np.zeros((1, len(found)), np.int64)
    once[0, image] = 2
    expected = average_precision([found[image]] * 2, [there[image]] * 2)[1]
    assert matches.resampled("map50", once)[0] == pytest.approx(expected)
    empty = next(i for i, one in enumerate(there) if not (~one["difficult"]).any())
    none = np.zeros((1, len(found)), np.int64)
    none[0, empty] = 1
    assert np.isnan(matches.resampled("map50", none)[0])
