from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from dbf_ray.data.images.rasters import open_raster
from dbf_ray.data.patches.objects import PADDING, objects_in, read_patch
from dbf_ray.data.readers import LabelledObject
from dbf_ray.data.readers.dota import read_labels
from dbf_ray.geometry import boxes_to_corners, corners_to_boxes
from dbf_ray.geometry.windows import Window, sliding_windows

# Objects kept, and those of them that are cut, over all patches of size 512, overlap 100, rates 0.5, 1 and
# 1.5: MMRotate 0.3.4's splitter.
REFERENCE = {"P0003": (305, 38), "P0005": (622, 50), "P0075": (7, 4), "P1888": (362, 21)}


def thing(cx: float, cy: float, w: float, h: float, angle: float) -> LabelledObject:
    return LabelledObject(
        tuple(boxes_to_corners(torch.tensor([[cx, cy, w, h, angle]], dtype=torch.float64))[0].tolist()),
        "thing",
    )


def inside_slowly(one: LabelledObject, window: Window, samples: int = 300) -> float:
    """Share of the area inside, by counting points: an even grid over the rectangle spanned by its first
    three corners.
    """
    corners = np.array(one.corners).reshape(4, 2)
    steps = (np.arange(samples) + 0.5) / samples
    across, along = np.meshgrid(steps, steps)
    points = (
        corners[0]
        + across[..., None] * (corners[1] - corners[0])
        + along[..., None] * (corners[3] - corners[0])
    )
    low, high = np.array([window.x, window.y]), np.array([window.x, window.y]) + window.size
    return float(((points >= low) & (points <= high)).all(-1).mean())


@pytest.mark.parametrize("name", REFERENCE)
def test_as_many_objects_as_in_mmrotates_patches(shared: Path, name: str) -> None:
    folder = shared / "data" / "dota_sample"
    with open_raster(folder / "images" / f"{name}.png") as raster:
        height, width = raster.size
    objects = read_labels(folder / "labelTxt" / f"{name}.txt").objects
    rates = (0.5, 1.0, 1.5)
    windows = sliding_windows(
        height, width, [int(512 / rate) for rate in rates], [int(100 / rate) for rate in rates]
    )
    found = [one for window in windows for one in objects_in(objects, window)]
    assert (len(found), sum(one.difficult == 2 for one in found)) == REFERENCE[name]


@given(
    cx=st.floats(-20, 120),
    cy=st.floats(-20, 120),
    w=st.floats(3, 60),
    h=st.floats(3, 60),
    angle=st.floats(-90, 89),
    share=st.floats(0.05, 1),
)
@settings(max_examples=60)
@example(cx=43.0, cy=55.0, w=45.5, h=55.5, angle=27.0, share=0.5)
def test_objects_are_kept_by_their_share_and_cut_to_the_window(
    cx: float, cy: float, w: float, h: float, angle: float, share: float
) -> None:
    one, window = thing(cx, cy, w, h, angle), Window(10, 20, 80)
    inside = inside_slowly(one, window)
    found = objects_in([one], window, share)
    if abs(inside - share) > 0.01:
        assert bool(found) is (inside > share)
    if not found:
        return
    [[*_, clipped_w, clipped_h, _]] = corners_to_boxes(
        torch.tensor([found[0].corners], dtype=torch.float64)
    ).tolist()
    corners = np.array(one.corners).reshape(4, 2)
    if ((corners >= [10, 20]) & (corners <= [90, 100])).all():  # counted points may miss a corner's tip
        assert found[0].difficult == 0
        assert np.array(found[0].corners).reshape(4, 2) + np.array([10, 20]) == pytest.approx(
            np.array(one.corners).reshape(4, 2)
        )
    elif inside < 0.99:
        assert found[0].difficult == 2
        assert clipped_w * clipped_h >= inside * w * h - 0.02 * w * h  # the rectangle holds what is left ...
        assert min(clipped_w, clipped_h) <= min(w, h) + 1e-6  # ... and is no larger than needed


def test_a_cut_upright_box_is_what_is_left_of_it() -> None:
    one = thing(50, 50, 40, 20, 0)  # x 30..70
    [cut] = objects_in([one], Window(40, 0, 100))  # three quarters of it
    xs, ys = cut.corners[0::2], cut.corners[1::2]
    assert (min(xs), max(xs), min(ys), max(ys)) == pytest.approx((0, 30, 40, 60))
    [whole] = objects_in([one], Window(40, 0, 100), clip=False)
    assert min(whole.corners[0::2]) == pytest.approx(-10)
    assert cut.difficult == whole.difficult == 2


def test_difficult_stays_difficult_and_crossed_sides_do_not_stop_it() -> None:
    [found] = objects_in([LabelledObject((10, 10, 30, 10, 30, 20, 10, 20), "ship", True)], Window(0, 0, 40))
    assert found.difficult == 1
    crossed = LabelledObject((0, 0, 30, 20, 30, 0, 0, 20), "ship")
    assert len(objects_in([crossed], Window(5, 0, 40))) == 1
    assert objects_in([crossed], Window(20, 0, 40)) == []


def test_padding_has_one_colour_and_the_image_is_at_the_top_left(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    with open_raster(tmp_path / "a.png") as raster:
        patch = read_patch(raster, Window(0, 0, 64)).permute(1, 2, 0).numpy()
        bare = read_patch(raster, Window(20, 10, 64), None).permute(1, 2, 0).numpy()
        inner = read_patch(raster, Window(5, 6, 20)).permute(1, 2, 0).numpy()
    assert patch.shape == (64, 64, 3)
    assert (patch[:30, :50] == pixels).all()
    assert (patch[30:] == PADDING).all()
    assert (patch[:, 50:] == PADDING).all()
    assert (bare == pixels[10:, 20:]).all()
    assert (inner == pixels[6:26, 5:25]).all()
