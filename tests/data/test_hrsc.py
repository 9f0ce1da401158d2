from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import pytest
import torch

from dbf_ray.data.class_lists import CLASS_LISTS
from dbf_ray.data.labelled import LabelledDataset
from dbf_ray.data.readers import Item, LabelledObject, Labels
from dbf_ray.data.readers.hrsc import TYPES, HrscReader
from dbf_ray.data.readers.rotations import box_corners
from dbf_ray.errors import DataError
from dbf_ray.geometry import boxes_to_corners
from tests.data.label_writers import hrsc_object, write_hrsc

reader, typed = HrscReader(), HrscReader(types=True)
hrsc = partial(LabelledDataset, reader)
SQUARE = (10.0, 10.0, 30.0, 10.0, 30.0, 20.0, 10.0, 20.0)
HOLDER = Path("FullDataSet")
# The first ship of HRSC2016: image 100000001, 1166 x 753 pixels, its bow noted at (964, 290).
FIRST = (582.9349, 353.2006, 778.1303, 174.2541, -0.2144308)


def read_one(root: Path, inner: str, by: HrscReader = reader) -> Labels:
    """One image whose label file has ``inner`` for its objects, the first of them in line 4."""
    write_hrsc(root, "train", {"a": []})
    file = root / HOLDER / "Annotations" / "a.xml"
    file.write_text(file.read_text().replace("  <HRSC_Objects>\n", f"  <HRSC_Objects>\n{inner}"))
    return by.read(Item(root / HOLDER / "AllImages" / "a.bmp", file))


def test_the_angle_is_clockwise_in_radians() -> None:
    """The ship points right and a little up, so counter-clockwise: its bow is where the middle of its right
    end is.
    """
    corners = box_corners(*FIRST)
    bow = ((corners[2] + corners[4]) / 2, (corners[3] + corners[5]) / 2)
    assert bow == pytest.approx((964, 290), abs=25)
    box = torch.tensor([[*FIRST[:4], -math.degrees(FIRST[4])]], dtype=torch.float64)
    assert corners == pytest.approx(boxes_to_corners(box)[0].tolist(), abs=1e-9)
    assert box_corners(10, 20, 8, 4, math.pi / 2) == pytest.approx((12, 16, 12, 24, 8, 24, 8, 16))


def test_against_the_same_ship_in_dotas_format(shared: Path) -> None:
    """Another's conversion of the same label, for the image at 640 x 413 and with one decimal."""
    line = (shared / "data" / "hrsc2016" / "train" / "labelTxt" / "100000001.txt").read_text().split()
    corners = box_corners(*FIRST)
    scaled = [value * (413 / 753 if place % 2 else 640 / 1166) for place, value in enumerate(corners)]
    assert [float(value) for value in line[:8]] == pytest.approx(scaled, abs=0.1)


def test_types() -> None:
    """Names and numbers as in MMRotate's table; 21 and 23 are no type."""
    assert len(TYPES) == 31
    by_number = {
        1: "ship",
        2: "aircraft-carrier",
        7: "Arleigh-Burke",
        20: "Car-carrier([]==[])",
        22: "Hovercraft",
        24: "yacht",
    }
    by_number |= {25: "CntShip(_|.--.--|_]=", 30: "Car-carrier(======|", 33: "Invincible-class"}
    assert {number: TYPES[f"1{number:08d}"] for number in by_number} == by_number
    assert "100000021" not in TYPES
    assert "100000023" not in TYPES
    assert list(TYPES.values()) == typed.classes == CLASS_LISTS["hrsc2016-types"]


def test_one_class_or_all_types(tmp_path: Path) -> None:
    write_hrsc(tmp_path, "train", {"a": [(SQUARE, "Nimitz", True), (SQUARE, "yacht", False)]})
    target = hrsc(tmp_path).load(0)[1]
    assert (target["labels"].tolist(), target["difficult"].tolist()) == ([0, 0], [True, False])
    dataset = LabelledDataset(typed, tmp_path)
    assert [dataset.classes[label] for label in dataset.load(0)[1]["labels"]] == ["Nimitz", "yacht"]
    assert reader.recognises(tmp_path) is True
    assert typed.recognises(tmp_path) is False


GOOD = hrsc_object(SQUARE, "yacht", True)


@pytest.mark.parametrize(
    ("inner", "by", "kind", "parts"),
    [
        (GOOD.replace("100000024", "100000021"), typed, "unknown_class", ["31 types", "'100000021'", "hrsc"]),
        (GOOD.replace("<Class_ID>100000024</Class_ID>", ""), typed, "unknown_class", ["got ''"]),
        (GOOD.replace("<mbox_w>20.000000", "<mbox_w>nan"), reader, "coordinate", ["finite", "'nan'"]),
        (
            GOOD.replace("<mbox_w>20.000000", "<mbox_w>-20"),
            reader,
            "coordinate",
            ["must be positive, got -20 and 10"],
        ),
        (GOOD.replace("<mbox_w>20.000000", "<mbox_w>20px"), reader, "syntax", ["numbers", "'20px'"]),
        (
            GOOD.replace("mbox_h", "mbox_height"),
            reader,
            "syntax",
            ["must hold mbox_cx, mbox_cy, mbox_w, mbox_h, mbox_ang", "lacks mbox_h"],
        ),
        (GOOD.replace("<mbox_ang>-0.000000", "<mbox_ang>-45"), reader, "coordinate", ["radians", "got -45"]),
    ],
)
def test_problems(inner: str, by: HrscReader, kind: str, parts: list[str], tmp_path: Path) -> None:
    assert inner != GOOD
    labels = read_one(tmp_path, inner + GOOD, by)
    assert [one.line for one in labels.objects] == [4 + inner.count("\n")]
    [problem] = labels.problems
    assert (problem.kind, problem.line) == (kind, 4)
    for part in parts:
        assert part in problem.message


def test_flags(tmp_path: Path) -> None:
    labels = read_one(
        tmp_path,
        GOOD + GOOD.replace("<difficult>1</difficult>", "") + GOOD.replace("<difficult>1", "<difficult>yes"),
    )
    assert [one.difficult for one in labels.objects] == [True, False]
    assert ["<difficult> must be 0 or 1, got 'yes'" in one.message for one in labels.problems] == [True]


def test_no_objects(tmp_path: Path) -> None:
    assert read_one(tmp_path, "") == Labels()
    file = tmp_path / HOLDER / "Annotations" / "a.xml"
    file.write_text("<HRSC_Image><HRSC_Objects/></HRSC_Image>")
    assert hrsc(tmp_path).load(0)[1]["boxes"].shape == (0, 5)
    file.write_text("<HRSC_Image></HRSC_Image>")
    assert hrsc(tmp_path).load(0)[1]["boxes"].shape == (0, 5)
    file.write_text("<annotation/>")
    with pytest.raises(
        DataError,
        match=r"a\.xml, line 1: label files of this format must hold <HRSC_Image>, got <annotation>",
    ):
        hrsc(tmp_path)


@pytest.mark.parametrize("holder", ["FullDataSet", "Train", "Test", "."])
def test_folders(holder: str, tmp_path: Path) -> None:
    write_hrsc(tmp_path, "train", {"a": [(SQUARE, "yacht", False)]})
    for name in ("AllImages", "Annotations"):
        (tmp_path / holder).mkdir(exist_ok=True)
        (tmp_path / "FullDataSet" / name).rename(tmp_path / holder / name)
    assert reader.recognises(tmp_path)
    assert hrsc(tmp_path).load(0)[1]["labels"].tolist() == [0]


def test_train_and_test_in_folders_of_their_own(tmp_path: Path) -> None:
    for split, name in (("train", "a"), ("test", "b")):
        write_hrsc(tmp_path, split, {name: [(SQUARE, "yacht", False)]})
        (tmp_path / "FullDataSet").rename(tmp_path / split.capitalize())
    places = {split: reader.listing(tmp_path, split).items[0] for split in ("train", "test")}
    assert {split: item.image.parent.parent.name for split, item in places.items()} == {
        "train": "Train",
        "test": "Test",
    }
    assert [item.labels for item in places.values()] == [
        tmp_path / "Train" / "Annotations" / "a.xml",
        tmp_path / "Test" / "Annotations" / "b.xml",
    ]


def test_lists(tmp_path: Path) -> None:
    write_hrsc(tmp_path, "train", {"a": [], "b": []})
    (tmp_path / "ImageSets" / "trainval.txt").write_text("b\r\na\r\n100000002\r\n")
    assert reader.splits(tmp_path) == ["train", "trainval"]
    listing = reader.listing(tmp_path, "trainval")
    assert [item.image.stem for item in listing.items] == ["b", "a"]
    assert [(one.kind, one.line) for one in listing.problems] == [("missing_image", 3)]
    with pytest.raises(
        DataError, match=r"must be one of those that are there \(train, trainval\), got 'test'"
    ):
        reader.listing(tmp_path, "test")


def test_a_test_set_without_labels(tmp_path: Path) -> None:
    write_hrsc(tmp_path, "test", {"a": []})
    (tmp_path / HOLDER / "Annotations" / "a.xml").unlink()
    assert [
        one.kind for item in reader.listing(tmp_path, "test").items for one in reader.read(item).problems
    ] == ["missing_labels"]
    (tmp_path / HOLDER / "Annotations").rmdir()
    listing = reader.listing(tmp_path, "test")
    assert listing.unlabelled == tmp_path / HOLDER / "Annotations"
    assert [reader.read(item) for item in listing.items] == [Labels()]


def test_lines_of_objects(tmp_path: Path) -> None:
    assert read_one(tmp_path, GOOD).objects == [LabelledObject(SQUARE, "ship", True, 4)]
