from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dbf_ray.data import Dataset, EvalView, LabelledDataset, TrainView, eval_loader, train_loader
from dbf_ray.data.loaders import Batch, MicroBatchSampler, ShardSampler
from dbf_ray.data.readers.dota import DotaReader
from dbf_ray.errors import ConfigError, DataError

LAYOUTS = [(1, 1), (2, 1), (1, 2), (4, 1), (2, 2), (1, 4), (8, 1), (4, 2)]  # (accumulation, world size)


def sampler(
    images: int,
    accumulation: int,
    rank: int,
    world_size: int,
    *,
    seed: int = 0,
    epoch: int = 0,
    batch: int = 8,
) -> MicroBatchSampler:
    made = MicroBatchSampler(
        images, batch_size=batch, accumulation=accumulation, rank=rank, world_size=world_size, seed=seed
    )
    made.epoch = epoch
    return made


def effective_batches(
    images: int, accumulation: int, world_size: int, seed: int, epoch: int
) -> list[list[int]]:
    """Each step's images over all ranks and micro-batches, in global order."""
    ranks = [
        list(sampler(images, accumulation, rank, world_size, seed=seed, epoch=epoch))
        for rank in range(world_size)
    ]
    assert {len(batches) for batches in ranks} == {images // 8 * accumulation}
    return [
        [
            index
            for micro in range(accumulation)
            for rank in range(world_size)
            for _, index in ranks[rank][step * accumulation + micro]
        ]
        for step in range(images // 8)
    ]


@given(images=st.integers(8, 70), seed=st.integers(0, 3), epoch=st.integers(0, 3))
def test_every_layout_sees_the_same_effective_batches(images: int, seed: int, epoch: int) -> None:
    expected = effective_batches(images, 1, 1, seed, epoch)
    for accumulation, world_size in LAYOUTS[1:]:
        assert effective_batches(images, accumulation, world_size, seed, epoch) == expected
    flat = [index for batch in expected for index in batch]
    assert len(flat) == images // 8 * 8 == len(set(flat))
    assert set(flat) <= set(range(images))


def test_order_changes_with_epoch_and_seed_only() -> None:
    orders = {
        tuple(map(tuple, effective_batches(64, 1, 1, seed, epoch))) for seed in range(3) for epoch in range(4)
    }
    assert len(orders) == 12
    torch.manual_seed(99)
    assert tuple(map(tuple, effective_batches(64, 1, 1, 0, 0))) in orders


def test_micro_batches_carry_their_epoch() -> None:
    assert {epoch for batch in sampler(20, 2, 0, 1, epoch=5) for epoch, _ in batch} == {5}


def test_small_sets_and_bad_layouts_are_refused() -> None:
    with pytest.raises(
        DataError,
        match=r"at least one effective batch of 8 images, got 7; add images, lower `batch_size`",
    ):
        sampler(7, 1, 0, 1)
    with pytest.raises(ConfigError, match=r"divisible by workers x accumulation = 3 x 1, got 8"):
        sampler(20, 1, 0, 3)
    with pytest.raises(ConfigError, match=r"rank must be in 0\.\.1, got 2"):
        sampler(20, 1, 2, 2)


def seen(batches: Iterable[Batch]) -> list[list[int]]:
    return [[int(image[0, 0, 0]) for image in images] for images, _ in batches]


def test_train_loader(counting: Callable[[int], Dataset]) -> None:
    loader = train_loader(TrainView(counting(21), 48), batch_size=8, accumulation=2, seed=4)
    assert loader.steps_per_epoch == 2
    for epoch in (0, 1, 0):
        batches = list(loader.epoch(epoch))
        assert [len(images) for images, _ in batches] == [4] * 4
        assert seen(batches) == [
            [index for _, index in batch] for batch in sampler(21, 2, 0, 1, seed=4, epoch=epoch)
        ]
        assert [[target["image_id"] for target in targets] for _, targets in batches] == [
            [f"image{i}" for i in batch] for batch in seen(batches)
        ]


def test_worker_processes_see_the_same_epochs(counting: Callable[[int], Dataset]) -> None:
    view = TrainView(counting(24), 48, seed=3)
    here, there = (
        train_loader(view, batch_size=8, accumulation=2, seed=1, workers=workers) for workers in (0, 2)
    )
    next(there.epoch(9))  # an epoch left in the middle does no harm
    for epoch in (0, 1, 5):
        for (images, targets), (other_images, other_targets) in zip(
            here.epoch(epoch), there.epoch(epoch), strict=True
        ):
            assert all(bool((a == b).all()) for a, b in zip(images, other_images, strict=True))
            for a, b in zip(targets, other_targets, strict=True):
                assert a["boxes"].tolist() == b["boxes"].tolist()
                assert a["boxes"].canvas_size == b["boxes"].canvas_size == (32, 48)
                assert (a["image_id"], a["scale"]) == (b["image_id"], b["scale"])


@pytest.mark.parametrize("workers", [0, 1])
def test_global_random_numbers_are_left_alone(counting: Callable[[int], Dataset], workers: int) -> None:
    loader = train_loader(TrainView(counting(8), 48), batch_size=8, workers=workers)
    before = torch.get_rng_state()
    list(loader.epoch(0))
    list(eval_loader(EvalView(counting(8), 48), batch_size=3))
    assert bool((torch.get_rng_state() == before).all())


@given(images=st.integers(1, 40), world_size=st.integers(1, 5), batch=st.integers(1, 7))
def test_eval_shards_hold_each_image_once(images: int, world_size: int, batch: int) -> None:
    shards = [
        list(ShardSampler(images, batch_size=batch, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    flat = [index for shard in shards for part in shard for index in part]
    assert sorted(flat) == list(range(images))
    assert all(len(part) <= batch for shard in shards for part in shard)
    sizes = [sum(map(len, shard)) for shard in shards]
    assert max(sizes) - min(sizes) <= 1


def test_eval_loader_is_ordered_and_repeatable(counting: Callable[[int], Dataset]) -> None:
    loader = eval_loader(EvalView(counting(7), 48), batch_size=2, rank=1, world_size=2)
    assert len(loader) == 2
    assert seen(loader) == seen(loader) == [[1, 3], [5]]
    with pytest.raises(ConfigError, match=r"got 0 and 0"):
        eval_loader(EvalView(counting(7), 48), batch_size=0)


@pytest.mark.parametrize("workers", [0, 1])
def test_broken_image_is_one_clear_line(make_root: Callable[..., Path], workers: int) -> None:
    root = make_root(dict.fromkeys("ab", "10 10 30 10 30 20 10 20 ship 0"))
    dataset = LabelledDataset(DotaReader(), root)
    (root / "train" / "images" / "b.png").write_bytes(b"gone")
    with pytest.raises(DataError) as caught:
        list(train_loader(TrainView(dataset, 64), batch_size=2, workers=workers).epoch(0))
    assert str(caught.value).startswith(f"{root / 'train' / 'images' / 'b.png'}: images must be decodable")
    assert "\n" not in str(caught.value)
