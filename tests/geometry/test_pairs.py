"""The search for pairs that may touch names every such pair once, whatever the sizes, places and order."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dbf_ray.geometry import circumscribed, pairs
from dbf_ray.geometry.intersection import frames
from tests.geometry.slow import clustered, scattered

sides = st.one_of(st.just(0.0), st.floats(0.001, 50), st.floats(100, 50000))
numbers = st.tuples(st.floats(-3e4, 3e4), st.floats(-3e4, 3e4), sides, sides, st.floats(-360, 360))
boxes_of = st.lists(numbers, min_size=1, max_size=40).map(
    lambda rows: torch.tensor(rows, dtype=torch.float64)
)


def found(a: Tensor, b: Tensor) -> Tensor:
    """How often each pair is named [N, M]."""
    count = torch.zeros(len(a), len(b), dtype=torch.int64)
    for rows, columns in pairs.meeting(pairs.bounds(frames(a)), pairs.bounds(frames(b))):
        count.index_put_((rows, columns), torch.ones_like(rows), accumulate=True)
    return count


def meet(a: Tensor, b: Tensor) -> Tensor:
    p, q = circumscribed(a.double())[:, None], circumscribed(b.double())
    has_area = (a[:, 2:4] > 0).all(-1)[:, None] & (b[:, 2:4] > 0).all(-1)
    return has_area & (p[..., :2] < q[..., 2:]).all(-1) & (p[..., 2:] > q[..., :2]).all(-1)


@settings(max_examples=60, deadline=None)
@given(boxes_of, boxes_of, st.booleans())
def test_every_pair_with_areas_that_meets_is_named_once(a: Tensor, b: Tensor, tiles: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairs, "_DIRECT", 0 if tiles else 1 << 14)
        count = found(a, b)
    assert count.max() <= 1
    assert (count[meet(a, b)] == 1).all()


@pytest.mark.parametrize(
    "boxes",
    [scattered(5000, 800, 1), clustered(5000, 20, 800, 2), scattered(5000, 1, 3) + 1e6],
    ids=["scattered", "clustered", "far"],
)
def test_hardly_any_pair_is_named_that_does_not_meet(boxes: Tensor) -> None:
    count, expected = found(boxes, boxes[:100]), meet(boxes, boxes[:100])
    assert (count[expected] == 1).all()
    assert count.max() == 1
    assert int(count.sum()) <= 1.01 * int(expected.sum())
