"""Windows cover an image and are alike; batches are the same whatever was done before."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dbf_ray.data import make_target
from dbf_ray.data.transforms import resize
from dbf_ray.predict.images import Picture
from dbf_ray.predict.windows import Piece, Tiling, batches

SIDES = st.integers(1, 300)


@given(height=SIDES, width=SIDES, window=st.integers(1, 120), share=st.floats(0, 0.9))
@settings(deadline=None, max_examples=50)
def test_windows_cover_every_pixel_row_by_row_and_have_one_size(
    height: int, width: int, window: int, share: float
) -> None:
    windows = Tiling(window, int(window * share), 64).windows((height, width))
    covered = torch.zeros(height, width, dtype=torch.bool)
    for one in windows:
        w, h = one.within(height, width)
        covered[one.y : one.y + h, one.x : one.x + w] = True
    assert covered.all()
    assert len({one.within(height, width) for one in windows}) == 1
    assert windows == sorted(windows, key=lambda one: (one.y, one.x))


def test_a_whole_window_is_resized_as_training_resizes_its_images() -> None:
    for size, image_size in (((90, 60), 64), ((33, 90), 128), ((90, 90), 90)):
        image = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
        wanted, _ = resize(image, make_target(torch.zeros(0, 5), [], [], "a", size), image_size)
        assert torch.equal(Tiling(90, 10, image_size).resize(image), wanted)


def test_smaller_images_are_resized_by_the_same_factor() -> None:
    tiling = Tiling(100, 10, 50)
    assert tiling.scale == 0.5
    assert tiling.resize(torch.zeros(3, 60, 41, dtype=torch.uint8)).shape == (3, 30, 20)
    assert tiling.resize(torch.zeros(3, 1, 41, dtype=torch.uint8)).shape == (3, 1, 20)
    assert tiling.resize(torch.full((3, 2, 1), 7, dtype=torch.uint8)).tolist() == [[[7]]] * 3


def picture(name: str, *size: int) -> Picture:
    return Picture(Path(f"{name}.png"), name, (size[0], size[1]), (1, 2))


def names(found: list[list[Piece]]) -> list[str]:
    return [" ".join(f"{piece.picture.name}{piece.number}" for piece in batch) for batch in found]


PICTURES = [
    picture("a", 8, 8),
    picture("b", 8, 8),
    picture("c", 8, 8),
    picture("d", 8, 20),
    picture("e", 8, 8),
    picture("f", 8, 7),
]
TILING = Tiling(8, 2, 8)


def test_batches() -> None:
    assert names(list(batches(PICTURES, TILING, 2, {}, []))) == ["a0 b0", "c0", "d0 d1", "d2", "e0", "f0"]
    assert names(list(batches(PICTURES, TILING, 4, {}, []))) == ["a0 b0 c0", "d0 d1 d2", "e0", "f0"]
    assert [piece.last for batch in batches(PICTURES, TILING, 4, {}, []) for piece in batch] == [True] * 3 + [
        False
    ] * 2 + [True] * 3


def test_complete_images_come_again_only_for_company() -> None:
    assert names(list(batches(PICTURES, TILING, 2, {"d": 2}, ["a", "e"]))) == ["a0 b0", "c0", "d2", "f0"]
    assert names(list(batches(PICTURES, TILING, 2, {}, ["a", "b", "c", "d"]))) == ["e0", "f0"]
    assert names(list(batches(PICTURES, TILING, 2, {}, [one.name for one in PICTURES]))) == []


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_every_window_comes_once(size: int) -> None:
    found = [piece for batch in batches(PICTURES, TILING, size, {}, []) for piece in batch]
    assert len(found) == len(set(found)) == 8
