"""Whose detections are whose, where images lie in folders."""

from __future__ import annotations

import pytest

from dbf_ray.errors import DataError
from dbf_ray.evaluation.merge import Detections, as_found
from dbf_ray.merge import matched


def found(*names: str) -> dict[str, Detections]:
    return {name: as_found([[10, 10, 4, 2, 0]], [0.5], [0]) for name in names}


@pytest.mark.parametrize(
    ("given", "names", "expected"),
    [
        (["a/1", "b/1"], ["a/1", "b/1"], ["a/1", "b/1"]),
        (["1", "2"], ["a/1", "b/2"], ["a/1", "b/2"]),  # as DOTA names them
        (["images/a/1", "images/b/1"], ["a/1", "b/1"], ["a/1", "b/1"]),
        (["1", "x/1"], ["1"], ["1", "x/1"]),  # the second is another image
        (["my_pic"], ["site/my pic"], ["site/my pic"]),
        (["other"], ["a/1"], ["other"]),
        (["\\udcb0"], ["\udcb0"], ["\udcb0"]),
    ],
)
def test_detections_find_their_images(given: list[str], names: list[str], expected: list[str]) -> None:
    assert list(matched(found(*given), names)) == expected


@pytest.mark.parametrize(
    ("given", "names", "message"),
    [
        (["1"], ["a/1", "b/1"], "must tell their images apart, 1 may be of a/1 or b/1; detect in"),
        (["x/1", "y/1"], ["1"], "must have one name, x/1 and y/1 may both be of 1; detect in"),
    ],
)
def test_detections_that_may_be_of_two_images_are_refused(
    given: list[str], names: list[str], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        matched(found(*given), names)
