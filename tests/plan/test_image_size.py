"""Image size or patches, by how many pixels objects have."""

from __future__ import annotations

from dataclasses import replace

import torch
from hypothesis import given
from hypothesis import strategies as st

from dbf_ray.plan.objects import Objects
from dbf_ray.plan.rules.image_size import LARGEST, SIDES, SPARED, choose_image_size


def alike(short: float, long: float, side: int, count: int = 20) -> Objects:
    box = torch.tensor([[side / 2, side / 2, long, short, 0.0]], dtype=torch.float64)
    return Objects(
        box.repeat(count, 1),
        torch.zeros(count, dtype=torch.int64),
        torch.zeros(count, dtype=torch.bool),
        torch.zeros(count, dtype=torch.int64),
        torch.tensor([[side, side]]),
        ["a"],
    )


def test_it_is_the_least_side_at_which_objects_have_a_cell() -> None:
    found = choose_image_size(alike(16, 60, 640), two_stages=False, gpu=False)
    assert (found.side, found.patches, found.needed, found.short_side) == (320, False, 320, 8)
    assert choose_image_size(alike(15.9, 60, 640), two_stages=False, gpu=False).side == 384
    assert choose_image_size(alike(16, 60, 640), two_stages=True, gpu=False).side == 256
    small = choose_image_size(alike(2, 6, 400), two_stages=False, gpu=False)
    assert (small.side, small.patches) == (448, False)  # 1600 would do, but images have no more


def test_images_that_are_hardly_larger_are_not_shrunk() -> None:
    assert choose_image_size(alike(9, 30, 500), two_stages=False, gpu=False).side == 500  # 448 would do
    assert choose_image_size(alike(16, 60, 500), two_stages=False, gpu=False).side == 256
    assert choose_image_size(alike(9.5, 60, 1100), two_stages=False, gpu=True).side == 1024


def test_small_objects_of_a_few_large_images_are_not_lost_among_small_images() -> None:
    few = replace(alike(4, 12, 9000), sizes=torch.tensor([[9000, 9000]] + [[300, 300]] * 9))
    assert choose_image_size(few, two_stages=False, gpu=False).patches


def test_large_images_of_small_objects_are_cut() -> None:
    found = choose_image_size(alike(10, 30, 4000), two_stages=False, gpu=True)
    assert (found.side, found.patches, found.overlap, found.short_side) == (1024, True, 205, 10)
    assert choose_image_size(alike(10, 300, 4000), two_stages=False, gpu=True).overlap == 300
    assert choose_image_size(alike(10, 3000, 4000), two_stages=False, gpu=False).overlap == 384
    found = choose_image_size(alike(10, 3000, 4000), two_stages=False, gpu=False)
    assert found.warning == "; objects of 3000 px and more may be whole in no patch"
    assert choose_image_size(alike(10, 300, 4000), two_stages=False, gpu=True).warning == ""


@given(st.floats(1e-3, 500), st.floats(1, 20), st.integers(8, 20000), st.booleans(), st.booleans())
def test_whatever_the_objects_it_is_a_side_that_there_is(short, aspect, side, two_stages, gpu) -> None:
    found = choose_image_size(alike(short, short * aspect, side), two_stages=two_stages, gpu=gpu)
    assert found.side in SIDES or found.side == side <= SPARED * max(s for s in SIDES if s < side)
    assert found.side <= max(LARGEST[gpu], 256)
    assert found.patches == (min(found.needed, side) > LARGEST[gpu])
    assert 0 <= found.overlap < found.side
