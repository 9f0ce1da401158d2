"""Objects that no patch holds whole count as not covered."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from dbf_ray.cli import prepare_data
from dbf_ray.data import Dataset, Subset, make_dataset
from dbf_ray.data.readers import LabelledObject
from dbf_ray.plan.coverage import coverage
from dbf_ray.plan.kinds import bare_detector
from dbf_ray.plan.lost import held_by_class, is_held
from dbf_ray.plan.objects import objects_of

WINDOWS = [(0, 0, 64, 64), (64, 0, 128, 64), (0, 64, 64, 128), (64, 64, 128, 128), (32, 32, 96, 96)]


def rectangle(left: float, top: float, right: float, bottom: float) -> tuple[float, ...]:
    return (left, top, right, top, right, bottom, left, bottom)


@pytest.mark.parametrize(
    ("corners", "held"),
    [
        (rectangle(4, 4, 40, 20), True),
        (rectangle(4, 4, 64, 20), True),  # up to the window's end
        (rectangle(4, 4, 66, 20), False),
        (rectangle(50, 50, 80, 80), True),  # by the one in the middle
        (rectangle(20, 60, 110, 66), False),
        (rectangle(-20, 4, 40, 20), True),  # what lies on the image
        (rectangle(100, 100, 140, 120), True),
        (rectangle(-20, 4, 80, 20), False),
        (rectangle(-40, 4, -20, 20), True),  # nothing does
        ((-30, 20, 40, -50, 60, -30, -10, 40), True),  # a turned one, of which a corner is on the image
    ],
)
def test_a_window_holds_what_lies_on_the_image(corners: tuple[float, ...], held: bool) -> None:
    assert is_held(LabelledObject(tuple(map(float, corners)), "a"), WINDOWS) == held


@pytest.fixture
def patches(tmp_path: Path) -> Dataset:
    """Two images of 128 px, cut into patches of 64; one bar of 100 px, which no patch holds."""
    root = tmp_path / "data"
    for folder in ("images", "labelTxt"):
        (root / "train" / folder).mkdir(parents=True)
    lines = {
        "a": [
            "10 60 110 60 110 66 10 66 bar 0",
            "4 4 36 4 36 36 4 36 box 0",
            "10 50 110 50 110 56 10 56 bar 1",
        ],
        "b": ["4 17 54 17 54 25 4 25 bar 0", "30 4 62 4 62 36 30 36 box 0", "0 70 128 70 128 76 0 76 pole 0"],
    }
    for name, text in lines.items():
        Image.new("RGB", (128, 128)).save(root / "train" / "images" / f"{name}.png")
        (root / "train" / "labelTxt" / f"{name}.txt").write_text("\n".join(text) + "\n")
    out = tmp_path / "patches"
    options = ("--size", "64", "--overlap", "16", "--workers", "0", "--classes", "bar,box,pole")
    assert prepare_data.main(["split", str(root), str(out), *options]) == 0
    return make_dataset("dota", "train", root=out, classes=["bar", "box", "pole"])


def test_patches_know_which_objects_they_lost(patches: Dataset) -> None:
    held = held_by_class(patches)
    assert held is not None
    assert held.tolist() == [0.5, 1.0, 0.0]  # the difficult bar is apart
    own = [index for index, name in enumerate(patches.image_ids) if name.startswith("b__")]
    some = held_by_class(Subset(Subset(patches, range(len(patches))), own))
    assert some is not None
    assert some.tolist() == [1.0, 1.0, 0.0]
    (one,) = {tuple(found.tolist()) for found in [held_by_class(patches, 1)] if found is not None}
    assert one in {(0.0, 1.0, 1.0), (1.0, 1.0, 0.0)}  # of an image alone


def test_what_is_lost_is_not_covered(patches: Dataset) -> None:
    objects = objects_of(patches)
    counted = torch.nonzero(~objects.difficult).squeeze(-1)
    found = coverage(bare_detector("rotated_fcos", "mobilenet_v2", {}), [objects] * 2, counted)
    assert found is not None
    assert found.matched.all()
    labels = objects.labels[counted]
    assert found.share(labels == 0) == pytest.approx(0.5)
    assert found.share(labels == 1) == 1.0


def test_images_that_are_no_patches_lose_nothing(tmp_path: Path) -> None:
    for folder in ("images", "labelTxt"):
        (tmp_path / "train" / folder).mkdir(parents=True)
    for name in ("a", "b__64__0___0"):  # a name alone does not make one
        Image.new("RGB", (64, 64)).save(tmp_path / "train" / "images" / f"{name}.png")
        (tmp_path / "train" / "labelTxt" / f"{name}.txt").write_text("4 4 36 4 36 36 4 36 box 0\n")
    dataset = make_dataset("dota", "train", root=tmp_path)
    assert held_by_class(dataset) is None
    assert held_by_class(Subset(dataset, [1])) is None
    assert objects_of(dataset).held is None
