from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dbf_ray.data import Dataset, Sample, make_target, split_selection
from dbf_ray.data.samples import scene_of
from dbf_ray.errors import DataError


class Named:
    """A data set of names only."""

    def __init__(self, names: list[str]) -> None:
        self.classes = ["thing"]
        self.image_ids = names

    def __len__(self) -> int:
        return len(self.image_ids)

    def load(self, index: int) -> Sample:
        return torch.zeros(3, 4, 4, dtype=torch.uint8), make_target(
            torch.zeros(0, 5), [], [], self.image_ids[index], (4, 4)
        )


def test_target_is_canonical() -> None:
    target = make_target(torch.tensor([[5.0, 6.0, 2.0, 8.0, 10.0]]), [3], [True], "x", (20, 30))
    assert target["boxes"].tolist() == [[5, 6, 8, 2, -80]]
    assert target["boxes"].canvas_size == (20, 30)
    assert target["labels"].dtype == torch.int64
    assert target["difficult"].dtype == torch.bool


@given(count=st.integers(2, 60), percent=st.integers(1, 99), seed=st.integers(0, 5))
def test_parts_are_disjoint_complete_and_of_about_the_share(count: int, percent: int, seed: int) -> None:
    dataset = Named([f"i{index}" for index in range(count)])
    train, held = split_selection(dataset, percent / 100, seed)
    assert sorted(train.image_ids + held.image_ids) == sorted(dataset.image_ids)
    assert min(len(train), len(held)) >= 1
    assert abs(len(held) - count * percent / 100) <= 1
    assert [held.load(index)[1]["image_id"] for index in range(len(held))] == held.image_ids


def test_fixed_by_seed_and_not_by_order() -> None:
    names = [f"i{index}" for index in range(50)]
    first, again, turned, other = (
        set(split_selection(Named(order), 0.3, seed)[1].image_ids)
        for order, seed in ((names, 0), (names, 0), (names[::-1], 0), (names, 1))
    )
    assert first == again == turned
    assert first != other


def test_patches_of_one_scene_stay_together() -> None:
    names = [
        f"P{scene:04d}__1024__{x}___0" for scene in range(20) for x in range(0, 824 * (1 + scene % 3), 824)
    ]
    train, held = split_selection(Named(names), 0.25, 3)
    assert not {scene_of(name) for name in train.image_ids} & {scene_of(name) for name in held.image_ids}
    assert 0.15 < len(held) / len(names) < 0.35


@given(count=st.integers(10, 60), parts=st.integers(2, 5), seed=st.integers(0, 5))
def test_folds_are_disjoint_and_together_nearly_everything(count: int, parts: int, seed: int) -> None:
    dataset = Named([f"i{index}" for index in range(count)])
    folds = [split_selection(dataset, 1 / parts, seed, fold) for fold in range(parts)]
    held = [name for _, fold in folds for name in fold.image_ids]
    assert len(held) == len(set(held)) >= count - parts
    for kept, fold in folds:
        assert sorted(kept.image_ids + fold.image_ids) == sorted(dataset.image_ids)


def test_folds_keep_the_patches_of_a_scene_together_and_end() -> None:
    names = [
        f"P{scene:04d}__1024__{x}___0" for scene in range(9) for x in range(0, 824 * (1 + scene % 3), 824)
    ]
    for fold in range(3):
        train, held = split_selection(Named(names), 0.3, 3, fold)
        assert not {scene_of(name) for name in train.image_ids} & {scene_of(name) for name in held.image_ids}
    with pytest.raises(DataError, match=r"got fold 40: none of 9 scenes is left for it; lower `fold`"):
        split_selection(Named(names), 0.3, 3, 40)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5])
def test_bad_share(counting: Callable[[int], Dataset], fraction: float) -> None:
    with pytest.raises(DataError, match=rf"between 0 and 1, got {fraction}; set `fraction`"):
        split_selection(counting(4), fraction, 0)


def test_too_few_scenes() -> None:
    with pytest.raises(DataError, match=r"at least 2 scenes, got 1"):
        split_selection(Named(["P1__0", "P1__1"]), 0.5, 0)
