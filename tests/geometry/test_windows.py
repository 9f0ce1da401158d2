from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbf_ray.errors import ConfigError
from dbf_ray.geometry.windows import Window, parse_patch_name, patch_name, sliding_windows

# Width and height of the real images, and windows that MMRotate 0.3.4's get_sliding_window (img_rate_thr 0.6)
# gives for them.
REFERENCE = [
    ((1147, 1023), [1024], [200], 2),
    ((884, 977), [1024], [200], 1),
    ((1147, 1023), [1024, 512, 341], [200, 100, 66], 27),
    ((884, 977), [1024, 512, 341], [200, 100, 66], 19),
    ((451, 839), [1024, 512, 341], [200, 100, 66], 8),
    ((712, 557), [1024, 512, 341], [200, 100, 66], 10),
]
side = st.integers(1, 400)


def slowly(length: int, size: int, step: int) -> list[int]:
    """Starts in a row, by walking: on by a step until the end of the image is covered, the last one back to
    the border.
    """
    starts = [0]
    while starts[-1] + size < length:
        starts.append(starts[-1] + step)
    starts[-1] = max(0, min(starts[-1], length - size))
    return starts


@pytest.mark.parametrize(("image", "sizes", "overlaps", "count"), REFERENCE)
def test_as_many_as_mmrotates_splitter_gives(
    image: tuple[int, int], sizes: list[int], overlaps: list[int], count: int
) -> None:
    assert len(sliding_windows(image[1], image[0], sizes, overlaps)) == count


@given(height=side, width=side, size=st.integers(8, 150), share=st.floats(0, 0.85))
@settings(deadline=None)  # thousands of windows of a few pixels
def test_windows_are_those_of_a_walk_and_cover_the_image(
    height: int, width: int, size: int, share: float
) -> None:
    overlap = int(size * share)
    windows = sliding_windows(height, width, [size], [overlap])
    assert windows == [
        Window(x, y, size)
        for x in slowly(width, size, size - overlap)
        for y in slowly(height, size, size - overlap)
    ]
    columns = {column for window in windows for column in range(window.x, window.x + size)}
    rows = {row for window in windows for row in range(window.y, window.y + size)}
    assert columns >= set(range(width))
    assert rows >= set(range(height))
    for window in windows:
        assert window.x + size <= max(width, size)
        assert window.y + size <= max(height, size)


def test_among_sizes_those_mostly_beside_the_image_are_left_out() -> None:
    assert {window.size for window in sliding_windows(100, 100, [50, 200], [0, 0])} == {50}
    assert {window.size for window in sliding_windows(100, 100, [110, 50], [0, 0])} == {110, 50}
    # none is mostly on it: the best stays
    assert sliding_windows(100, 100, [200, 400], [0, 0]) == [Window(0, 0, 200)]
    assert sliding_windows(100, 100, [200, 400], [0, 0], 0.05) == [Window(0, 0, 200), Window(0, 0, 400)]


@pytest.mark.parametrize(("size", "overlap"), [(0, 0), (10, 10), (10, -1)])
def test_impossible_windows_are_refused(size: int, overlap: int) -> None:
    with pytest.raises(ConfigError, match=rf"size {size} and overlap {overlap}"):
        sliding_windows(100, 100, [size], [overlap])


@given(
    image=st.text("P0_9ab", min_size=1),
    x=st.integers(0, 10**5),
    y=st.integers(0, 10**5),
    size=st.integers(32, 4096),
)
def test_names_tell_where_a_patch_was(image: str, x: int, y: int, size: int) -> None:
    assert parse_patch_name(patch_name(image, Window(x, y, size))) == (image, x, y, 1)


def test_names_of_the_devkit_and_of_whole_images() -> None:
    """The devkit writes by how much it enlarged the image first, and cuts that: P0006__0.5__824___0."""
    assert parse_patch_name("P0006__0.5__824___0") == ("P0006", 824, 0, 0.5)
    assert parse_patch_name("P0006__1__0___1648") == ("P0006", 0, 1648, 1)
    assert parse_patch_name("P0006") == ("P0006", 0, 0, 1)
    assert parse_patch_name("a\nb__512__1___2") == ("a\nb", 1, 2, 1)
    assert parse_patch_name("harbour__12") == ("harbour__12", 0, 0, 1)
