"""Confusion by hand, and the score with the best F1 against trying them all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from dbf_ray.evaluation import Evaluator
from dbf_ray.evaluation.confusion import FALLBACK, best_f1, confusion


def boxes(*places: float) -> np.ndarray[Any, Any]:
    return np.array([[x, 10, 8, 4, 30] for x in places], np.float32).reshape(-1, 5)


def image(found: Any, scores: Any, labels: Any, there: Any, of: Any, difficult: Any = None) -> dict[str, Any]:
    of = np.array(of, np.int64)
    return {
        "detections": {
            "boxes": found,
            "scores": np.array(scores, np.float32),
            "labels": np.array(labels, np.int64),
        },
        "objects": {
            "boxes": there,
            "labels": of,
            "difficult": np.zeros(len(of), bool) if difficult is None else np.array(difficult, bool),
        },
    }


def test_each_object_is_taken_once_by_the_best_score_of_whatever_class() -> None:
    one = image(
        # right, the same object again, a wrong class, nothing there, below the score
        boxes(10, 10.5, 50, 90, 130),
        [0.9, 0.8, 0.7, 0.6, 0.1],
        [0, 1, 0, 1, 1],
        boxes(10, 50, 130),
        [0, 1, 1],
    )
    other = image(boxes(), [], [], boxes(10), [0])
    counts = confusion({"a": one, "b": other}, 2, 0.3)
    #                              found as 0, 1, missed
    assert counts.tolist() == [[1, 0, 1], [1, 0, 1], [0, 2, 0]]
    assert confusion({}, 2, 0.3).tolist() == [[0] * 3] * 3


def test_difficult_objects_count_nowhere() -> None:
    one = image(boxes(10, 50), [0.9, 0.9], [0, 0], boxes(10, 90), [0, 0], [True, True])
    assert confusion({"a": one}, 1, 0.3).tolist() == [[0, 0], [1, 0]]
    # and leave what is not difficult to be taken
    both = image(boxes(10), [0.9], [0], boxes(10, 11.5), [0, 0], [True, False])
    assert confusion({"a": both}, 1, 0.3).tolist() == [[1, 0], [0, 0]]


def test_an_object_is_taken_from_the_threshold_on() -> None:
    one = image(boxes(10), [0.9], [0], boxes(12), [0])
    assert confusion({"a": one}, 1, 0.3, 0.3).tolist() == [[1, 0], [0, 0]]
    assert confusion({"a": one}, 1, 0.3, 0.9).tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize("seed", range(5))
def test_the_best_score_is_the_one_found_by_trying_them_all(seed: int) -> None:
    random = np.random.default_rng(seed)
    evaluator, images = Evaluator(3, list("abc")), []
    for number in range(6):
        there = random.uniform(0, 200, (5, 1)) * [1, 0, 0, 0, 0] + [0, 10, 8, 4, 30]
        found = np.concatenate([there + random.normal(0, 0.4, there.shape), there + np.eye(5)[0] * 99])
        one = image(
            found, random.uniform(size=10), random.integers(0, 3, 10), there, random.integers(0, 3, 5)
        )
        images.append(one)
        target = {key: torch.from_numpy(value) for key, value in one["objects"].items()}
        evaluator.update(
            [{key: torch.from_numpy(value) for key, value in one["detections"].items()}],
            [{**target, "image_id": str(number)}],
        )
    evaluator.compute()
    score, f1 = best_f1(evaluator.matches[""])

    def f1_from(least: float) -> float:
        right = found = 0
        for one in images:
            kept = one["detections"]["scores"] >= least
            for label in range(3):
                mine = kept & (one["detections"]["labels"] == label)
                found += int(mine.sum())
                part = {key: value[mine] for key, value in one["detections"].items()}
                theirs = one["objects"]["labels"] == label
                objects = {key: value[theirs] for key, value in one["objects"].items()}
                right += confusion({"": {"detections": part, "objects": objects}}, 3, least)[label, label]
        return 2 * right / (found + 30)

    scores = np.concatenate([one["detections"]["scores"] for one in images])
    assert f1 == pytest.approx(max(map(f1_from, scores)))
    assert f1 == pytest.approx(f1_from(score - 1e-6))
    assert f1 > 0


def test_where_nothing_is_right_there_is_no_best() -> None:
    evaluator = Evaluator(1, ["a"])
    target = {"boxes": torch.zeros(0, 5), "labels": torch.zeros(0).long(), "difficult": torch.zeros(0).bool()}
    evaluator.update([{**target, "scores": torch.zeros(0)}], [{**target, "image_id": "a"}])
    evaluator.compute()
    assert best_f1(evaluator.matches[""]) == (FALLBACK, 0.0)
