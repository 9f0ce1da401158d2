"""Decoded images in memory: the same samples, each decoded once, by whatever process."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dbf_ray.data import (
    Dataset,
    DecodedImages,
    EvalView,
    LabelledDataset,
    Sample,
    SyntheticDataset,
    TrainView,
    train_loader,
)
from dbf_ray.data.readers.dota import DotaReader

OBJECT = "4.5 6 30 8.25 28 20 3 18 ship 1\n"


class Counted:
    """A data set that counts its loads, over processes too."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset, self.classes, self.image_ids = dataset, dataset.classes, dataset.image_ids
        self.loads = multiprocessing.get_context("fork").Value("i", 0)

    def __len__(self) -> int:
        return len(self.dataset)

    def load(self, index: int) -> Sample:
        with self.loads.get_lock():
            self.loads.value += 1
        return self.dataset.load(index)


def same(one: Sample, two: Sample) -> None:
    (image, target), (other, wanted) = one, two
    assert image.dtype == torch.uint8
    assert torch.equal(image, other)
    assert target.keys() == wanted.keys()
    for key, value in target.items():
        expected: Any = wanted[key]  # type: ignore[literal-required]
        assert type(value) is type(expected)
        assert torch.equal(value, expected) if isinstance(value, torch.Tensor) else value == expected
    assert target["boxes"].canvas_size == wanted["boxes"].canvas_size
    assert target["boxes"].format == wanted["boxes"].format


@pytest.fixture(params=["dota", "synthetic"])
def dataset(request: pytest.FixtureRequest, make_root: Callable[..., Path]) -> Dataset:
    if request.param == "synthetic":
        return SyntheticDataset("train", 4, 64)
    return LabelledDataset(
        DotaReader(), make_root({"a": OBJECT, "bb": "", "ccc": OBJECT * 3, "dddd": OBJECT}), classes=["ship"]
    )


def test_kept_samples_are_those_that_would_be_decoded(dataset: Dataset) -> None:
    counted = Counted(dataset)
    kept, plain = DecodedImages(counted, 48, 1 << 30), DecodedImages(dataset, 48)
    assert (kept.kept, plain.kept) == (4, 0)
    for _ in range(3):
        for index in range(4):
            same(kept[index], plain[index])
    assert counted.loads.value == 4
    first = kept[0][0]
    first.zero_()
    assert bool(kept[0][0].any())  # what was given out is not what is kept


def test_views_are_the_same_either_way(dataset: Dataset) -> None:
    kept = DecodedImages(dataset, 48, 1 << 30)
    for epoch in range(3):
        for index in range(4):
            same(TrainView(dataset, 48, resized=kept)[epoch, index], TrainView(dataset, 48)[epoch, index])
            same(EvalView(dataset, 48, kept)[index], EvalView(dataset, 48)[index])


def test_the_budget_bounds_what_is_kept(dataset: Dataset) -> None:
    counted = Counted(dataset)
    one = DecodedImages(dataset, 48, 1 << 30).budget_used // 4
    kept = DecodedImages(counted, 48, 2 * one + one // 2)
    assert (kept.kept, kept.budget_used) == (2, 2 * one)
    for _ in range(3):
        for index in range(4):
            same(kept[index], DecodedImages(dataset, 48)[index])
    assert counted.loads.value == 2 + 2 * 3


def test_an_image_with_too_many_objects_is_decoded_each_time(make_root: Callable[..., Path]) -> None:
    counted = Counted(LabelledDataset(DotaReader(), make_root({"a": OBJECT * 5000}), classes=["ship"]))
    kept = DecodedImages(counted, 48, 1 << 30)
    same(kept[0], kept[0])
    assert counted.loads.value == 2


def test_loading_processes_share_one_store(dataset: Dataset) -> None:
    counted = Counted(dataset)
    view = TrainView(counted, 48, resized=DecodedImages(counted, 48, 1 << 30))
    loader = train_loader(view, batch_size=4, accumulation=4, workers=2, prefetch=1)
    for epoch in range(4):
        for micro, (images, targets) in zip(
            loader.epoch(epoch),
            train_loader(TrainView(dataset, 48), batch_size=4, accumulation=4).epoch(epoch),
            strict=True,
        ):
            same((micro[0][0], micro[1][0]), (images[0], targets[0]))
    assert counted.loads.value == 4


def test_a_copy_in_another_process_keeps_nothing_and_works(dataset: Dataset) -> None:
    kept = DecodedImages(dataset, 48, 1 << 30)
    kept[0]
    copied = pickle.loads(pickle.dumps(kept))
    assert copied.kept == 0
    same(copied[0], kept[0])
