"""The feature cache: what it keeps, what it drops, and that it never fails a run."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from dbf_ray.freezing.cache import (
    SUFFIX,
    DiskCache,
    FeatureCache,
    Key,
    RamCache,
    fingerprint_of,
    nbytes,
    pack,
    unpack,
)

Make = Callable[..., FeatureCache]


def key(index: int = 0, orientation: str = "identity", size: tuple[int, int] = (64, 96)) -> Key:
    return Key(f"image{index}", orientation, size)


def maps(seed: int = 0, channels: int = 3) -> list[Tensor]:
    """One map in channels-last memory as it comes out of a batch, one contiguous."""
    generator = torch.Generator().manual_seed(seed)
    batch = torch.randn(2, channels, 4, 6, generator=generator).contiguous(memory_format=torch.channels_last)
    return [batch[1], torch.randn(2 * channels, 2, 3, generator=generator)]


def equal(found: list[Tensor] | None, wanted: list[Tensor]) -> bool:
    return found is not None and all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


@pytest.fixture(params=["ram", "disk"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Makes a cache of either kind."""

    def made(budget: int = 1 << 20, dtype: str = "float32") -> FeatureCache:
        return (
            RamCache(budget, dtype)
            if request.param == "ram"
            else DiskCache(tmp_path / "features", budget, dtype)
        )

    return made


def test_float32_features_come_back_bit_for_bit_and_in_their_memory_order(make: Make) -> None:
    cache = make()
    cache.begin("one")
    assert cache.get(key()) is None
    assert cache.put(key(), maps())
    found = cache.get(key())
    assert equal(found, maps())
    assert found is not None
    assert [part.stride() for part in found] == [part.stride() for part in maps()]


@pytest.mark.parametrize(("name", "dtype"), [("bf16", torch.bfloat16), ("float16", torch.float16)])
def test_low_precision_is_one_rounding(make: Make, name: str, dtype: torch.dtype) -> None:
    cache = make(dtype=name)
    cache.begin("one")
    cache.put(key(), maps())
    assert equal(cache.get(key()), [part.to(dtype) for part in maps()])


@pytest.mark.parametrize("computed_in", [torch.float32, torch.bfloat16, torch.float16])
def test_float16_clips_what_is_beyond_it(make: Make, computed_in: torch.dtype) -> None:
    """In bf16, as under autocast, its limit of 65504 is not a number."""
    cache = make(dtype="float16")
    cache.begin("one")
    part = torch.tensor([[[1e6, -1e6, 3.0, float("nan")]]]).to(computed_in)
    cache.put(key(), [part])
    found = cache.get(key())
    assert found is not None
    assert found[0][..., :3].tolist() == [[[65504.0, -65504.0, 3.0]]]
    assert found[0][..., 3:].isnan().all()
    assert torch.equal(cache.as_kept(part)[..., :3], found[0][..., :3].to(computed_in))


def test_image_view_and_padded_size_are_told_apart(make: Make) -> None:
    cache = make()
    cache.begin("one")
    keys = [
        key(),
        key(1),
        key(orientation="horizontal"),
        key(size=(96, 64)),
        Key("image0", "identity", (6, 496)),
    ]
    for seed, one in enumerate(keys):
        cache.put(one, maps(seed))
    assert all(equal(cache.get(one), maps(seed)) for seed, one in enumerate(keys))


def test_another_fingerprint_drops_all_that_is_kept(make: Make) -> None:
    cache = make()
    cache.begin("one")
    cache.put(key(), maps())
    held = cache.bytes
    cache.begin("one")
    assert cache.bytes == held > 0
    cache.begin("two")
    assert (cache.get(key()), cache.bytes) == (None, 0)
    cache.put(key(), maps(5))
    cache.begin("one")
    assert cache.get(key()) is None
    cache.put(key(), maps())
    cache.drop()
    assert (cache.get(key()), cache.bytes) == (None, 0)


@given(channels=st.lists(st.integers(1, 40), min_size=1, max_size=30), budget=st.integers(0, 8000))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
def test_the_budget_is_never_passed_and_what_was_kept_stays(
    make: Make, channels: list[int], budget: int
) -> None:
    cache = make(budget)
    cache.begin("one")
    kept = [index for index, wide in enumerate(channels) if cache.put(key(index), maps(index, wide))]
    assert cache.bytes <= budget
    for index, wide in enumerate(channels):
        assert (
            equal(cache.get(key(index)), maps(index, wide))
            if index in kept
            else cache.get(key(index)) is None
        )
    if isinstance(cache, RamCache):
        assert cache.bytes == sum(nbytes(maps(index, channels[index])) for index in kept)
    elif isinstance(cache, DiskCache):
        assert cache.bytes == sum(file.stat().st_size for file in cache.folder.rglob("*") if file.is_file())
    cache.close()


def test_putting_twice_keeps_one(make: Make) -> None:
    cache = make()
    cache.begin("one")
    cache.put(key(), maps())
    held = cache.bytes
    cache.put(key(), maps(3))
    assert cache.bytes == held
    assert equal(cache.get(key()), maps())


def disk(folder: Path, rank: int = 0, ranks: int = 1, budget: int = 1 << 20) -> DiskCache:
    cache = DiskCache(folder / "features", budget, "float32", rank, ranks)
    cache.begin("one")
    return cache


def test_a_shard_on_disk_survives_its_process(tmp_path: Path) -> None:
    first = disk(tmp_path)
    first.put(key(), maps())
    (first.own / "one" / "torn.partial").write_bytes(b"half")
    again = disk(tmp_path)
    assert again.bytes == first.bytes > 0
    assert equal(again.get(key()), maps())
    assert not list(tmp_path.rglob("*.partial"))
    other = DiskCache(tmp_path / "features", 1 << 20, "float32")
    other.begin("two")
    assert (other.get(key()), other.bytes, list(tmp_path.rglob(f"*{SUFFIX}"))) == (None, 0, [])


def test_ranks_read_each_other_and_write_their_own(tmp_path: Path) -> None:
    caches = [disk(tmp_path, rank, 2) for rank in range(2)]
    caches[0].put(key(0), maps(0))
    caches[1].put(key(1), maps(1))
    for cache in caches:
        assert equal(cache.get(key(0)), maps(0))
        assert equal(cache.get(key(1)), maps(1))
    caches[0].close()
    assert equal(caches[1].get(key(1)), maps(1))
    caches[1].close()
    assert not (tmp_path / "features").exists()


def test_ranks_that_close_at_once_do_not_fail(tmp_path: Path) -> None:
    """One removes the folder that another is looking into."""
    errors: list[BaseException] = []

    def close(cache: DiskCache, together: threading.Barrier) -> None:
        together.wait()
        try:
            cache.close()
        except OSError as error:
            errors.append(error)

    for _ in range(100):
        together = threading.Barrier(4)
        threads = [
            threading.Thread(target=close, args=(disk(tmp_path, rank, 4), together)) for rank in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors
        assert not (tmp_path / "features").exists()


def test_shards_of_ranks_that_are_gone_are_shared_out(tmp_path: Path) -> None:
    for rank in range(4):
        disk(tmp_path, rank, 4).put(key(rank), maps(rank))
    now = [disk(tmp_path, rank, 2) for rank in range(2)]
    assert len({cache.bytes for cache in now}) == 1
    assert all(equal(cache.get(key(rank)), maps(rank)) for cache in now for rank in range(4))
    for cache in now:
        cache.begin("two")
    assert not list(tmp_path.rglob(f"*{SUFFIX}"))


def test_a_shard_that_is_too_large_by_now_is_cut(tmp_path: Path) -> None:
    for rank in range(4):
        cache = disk(tmp_path, rank, 4)
        for index in range(3):
            cache.put(key(10 * rank + index), maps(index))
    one = next(tmp_path.rglob(f"*{SUFFIX}")).stat().st_size
    assert disk(tmp_path, 0, 1, budget=20 * one).bytes == 12 * one
    cut = disk(tmp_path, 0, 1, budget=5 * one + 10)
    assert cut.bytes == 5 * one == sum(file.stat().st_size for file in tmp_path.rglob(f"*{SUFFIX}"))
    assert sum(cut.get(key(10 * rank + index)) is not None for rank in range(4) for index in range(3)) == 5


@given(position=st.floats(0, 1, exclude_max=True), cut=st.booleans(), bit=st.integers(0, 7))
@settings(deadline=None, max_examples=60)
def test_torn_bytes_are_told(position: float, cut: bool, bit: int) -> None:
    data = bytearray(pack(maps()))
    at = int(position * len(data))
    if cut:
        data = data[:at]
    else:
        data[at] ^= 1 << bit
    with pytest.raises(ValueError, match="the checksum is wrong"):
        unpack(bytes(data), torch.float32)


def test_a_torn_file_is_a_miss_and_is_removed(tmp_path: Path) -> None:
    cache = disk(tmp_path)
    cache.put(key(0), maps(0))
    cache.put(key(1), maps(1))
    file = cache.own / "one" / (key(0).digest + SUFFIX)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    fresh = disk(tmp_path)
    assert fresh.get(key(0)) is None
    assert not file.exists()
    assert fresh.bytes == (cache.own / "one" / (key(1).digest + SUFFIX)).stat().st_size
    assert equal(fresh.get(key(1)), maps(1))
    assert fresh.put(key(0), maps(0))
    assert file.read_bytes() == whole


def test_a_torn_file_of_another_size_leaves_the_right_count(tmp_path: Path) -> None:
    cache = disk(tmp_path)
    for index in range(2):
        cache.put(key(index), maps(index))
    one = cache.bytes // 2
    (cache.own / "one" / (key(0).digest + SUFFIX)).write_bytes(bytes(30_000))
    assert cache.get(key(0)) is None
    assert cache.bytes == one == sum(file.stat().st_size for file in tmp_path.rglob(f"*{SUFFIX}"))


def test_a_disk_that_cannot_be_written_to_costs_a_warning_and_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = disk(tmp_path)
    cache.put(key(0), maps(0))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    def read_only(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "replace", full)
    monkeypatch.setattr(Path, "unlink", read_only)
    with pytest.warns(UserWarning, match=r"cannot write to .*No space left on device.*nothing is added"):
        assert not cache.put(key(1), maps(1))
    monkeypatch.undo()
    assert not cache.put(key(2), maps(2))
    assert equal(cache.get(key(0)), maps(0))
    cache.begin("two")  # by now there may be room again
    assert cache.put(key(2), maps(2))
    assert not list(tmp_path.rglob("*.partial"))


def test_what_cannot_be_removed_counts_and_fails_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = disk(tmp_path)
    cache.put(key(0), maps(0))
    (cache.own / "one" / "left.partial").write_bytes(b"12345")

    def read_only(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", read_only)
    again = disk(tmp_path)
    assert again.bytes == cache.bytes + 5
    assert equal(again.get(key(0)), maps(0))


def test_other_fingerprints_that_cannot_be_removed_count_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or more would lie on the disk than the budget allows."""
    for rank in range(2):
        disk(tmp_path, rank, 2).put(key(rank), maps(rank))
    cache = disk(tmp_path)
    one = next(tmp_path.rglob(f"*{SUFFIX}")).stat().st_size
    cache.budget = 3 * one + 600
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    cache.begin("two")
    assert cache.bytes == 2 * one
    assert [cache.put(key(index), maps(index)) for index in range(3)] == [True, False, False]
    assert cache.bytes == sum(file.stat().st_size for file in tmp_path.rglob(f"*{SUFFIX}")) <= cache.budget
    cache.drop()
    assert cache.bytes == 3 * one
    monkeypatch.undo()
    cache.begin("one")
    assert cache.bytes == 2 * one


def test_a_folder_that_cannot_be_made_costs_a_warning_and_no_run(tmp_path: Path) -> None:
    (tmp_path / "features").write_text("a file")
    cache = DiskCache(tmp_path / "features", 1 << 20)
    with pytest.warns(UserWarning, match="the feature cache cannot write"):
        cache.begin("one")
    assert not cache.put(key(), maps())
    assert cache.get(key()) is None


def test_a_fingerprint_sees_every_bit_and_every_fact() -> None:
    tensors: list[Tensor] = [torch.arange(6.0).view(2, 3), torch.tensor(3)]
    moved = [tensors[0].clone(), tensors[1]]
    moved[0][1, 2] = torch.nextafter(moved[0][1, 2], torch.tensor(9.0))
    names = {
        fingerprint_of(tensors, 1),
        fingerprint_of(moved, 1),
        fingerprint_of(tensors, 2),
        fingerprint_of(tensors[:1], 1),
    }
    assert len(names) == 4
    assert fingerprint_of([tensor.clone() for tensor in tensors], 1) in names
