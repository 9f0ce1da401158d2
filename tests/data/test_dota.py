from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.tv_tensors import BoundingBoxFormat

from dbf_ray.data.labelled import LabelledDataset, found_classes
from dbf_ray.data.readers import LabelledObject
from dbf_ray.data.readers.dota import DotaReader, format_line, parse_line
from dbf_ray.errors import DataError

dota = partial(LabelledDataset, DotaReader())
SQUARE = "10 10 30 10 30 20 10 20 ship 0"


def test_header_bom_crlf_missing_difficult_and_empty_file(make_root: Callable[..., Path]) -> None:
    first = b"\xef\xbb\xbfimagesource:GoogleEarth\r\ngsd:0.1\r\n"
    first += b"10 10 30 10 30 20 10 20 ship 1\r\n\r\n1.5 2.5 9.5 2.5 9.5 4.5 1.5 4.5 plane\r\n"
    root = make_root({"a": first, "b": "", "c": "imagesource:x\ngsd:null\n"})
    dataset = dota(root)
    assert dataset.classes == ["plane", "ship"]
    assert dataset.image_ids == ["a", "b", "c"]
    image, target = dataset.load(0)
    assert image.shape == (3, 40, 60)
    assert image.dtype == torch.uint8
    assert target["boxes"].format == BoundingBoxFormat.CXCYWHR
    assert target["boxes"].canvas_size == (40, 60)
    torch.testing.assert_close(
        torch.Tensor(target["boxes"]), torch.tensor([[20.0, 15, 20, 10, 0], [5.5, 3.5, 8, 2, 0]])
    )
    assert target["labels"].tolist() == [1, 0]
    assert target["difficult"].tolist() == [True, False]
    for index in (1, 2):
        _, target = dataset.load(index)
        assert target["boxes"].shape == (0, 5)
        assert target["labels"].shape == target["difficult"].shape == (0,)


def test_drop_empty(make_root: Callable[..., Path]) -> None:
    root = make_root({"a": SQUARE, "b": "", "c": SQUARE})
    assert dota(root, drop_empty=True).image_ids == ["a", "c"]
    with pytest.raises(DataError, match=r"`drop_empty` leaves no image"):
        dota(make_root({"only": ""}, "val"), "val", ["ship"], drop_empty=True)


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("10 10 30 10 30 20 10 20", ["8 fields"]),
        ("20 15 20 10 45 ship", ["6 fields", "boxes with an angle"]),
        ("10 10 30 10 30 20 10 20 ship 0.785", ["difficult flag must be 0 or 1", "'0.785'"]),
        ("10 10 30 10 30 20 10 20 0.785 ship", ["difficult flag must be 0 or 1", "'ship'"]),
        ("10 10 30 10 30 20 10 20 ship 0 extra", ["11 fields", "extra"]),
        ("10 10 30 ten 30 20 10 20 ship 0", ["must be numbers", "'ten'"]),
        ("10 10 30 nan 30 20 10 20 ship 0", ["finite", "'nan'"]),
        ("10 10 30 -inf 30 20 10 20 ship 0", ["finite", "'-inf'"]),
        ("10 10 30 1e30 30 20 10 20 ship 0", ["within 1000000 pixels", "'1e30'"]),
        ("10 10 30 10 30 20 10 20 ship 3", ["difficult flag must be 0 or 1", "'3'"]),
        ("10,10,30,10,30,20,10,x,ship,0", ["must be numbers", "'x'"]),
        ("10 10 30 10 50 10 20 10 ship 0", ["must have an area", "10 10 30 10 50 10 20 10"]),
        ("7 7 7 7 7 7 7 7 ship 0", ["must have an area", "7 7 7 7 7 7 7 7"]),
        ("10 10 30 10 30 20 10 20 submarine 0", ["'submarine'", "ship", "`classes`"]),
        ("gsd:0.1", ["1 fields", "gsd:0.1"]),
    ],
)
def test_bad_lines_are_named_at_construction(
    make_root: Callable[..., Path], line: str, parts: list[str]
) -> None:
    root = make_root({"fine": SQUARE, "bad": f"imagesource:x\n{SQUARE}\n{line}\n"})
    with pytest.raises(DataError) as caught:
        dota(root, classes=["ship"])
    message = str(caught.value)
    assert "\n" not in message
    for part in [str(root / "train" / "labelTxt" / "bad.txt"), "line 3", *parts]:
        assert part in message


def test_crossed_corners_are_an_object() -> None:
    # its shoelace area is zero, its hull's is not
    line = parse_line("0 0 10 10 10 0 0 10 ship", Path("here"), 1)
    assert isinstance(line, LabelledObject)
    assert line.difficult is False
    assert line.corners == (0, 0, 10, 10, 10, 0, 0, 10)


@pytest.mark.parametrize(("flag", "difficult"), [("", False), (" 0", False), (" 1", True), (" 2", True)])
def test_cut_objects_of_other_splitters_are_difficult(flag: str, difficult: bool) -> None:
    line = parse_line(f"0 0 10 0 10 5 0 5 ship{flag}", Path("here"), 1)
    assert isinstance(line, LabelledObject)
    assert line.difficult is difficult


def test_commas_separate_as_well() -> None:
    spaced, commas = (
        parse_line(text, Path("here"), 1)
        for text in ("0 0 10 0 10 5.5 0 5.5 ship 1", "0,0, 10,0,10,5.5,0 , 5.5,ship,1")
    )
    assert commas == spaced


@pytest.mark.parametrize("value", [0.0, 12.0, 0.1, 937.1234, 1e5 + 0.5, -3.25, 1 / 3])
def test_written_lines_are_read_again(value: float) -> None:
    line = format_line((value, 0, 10, 0, 10, 5, 0, 5), "ship", 2)
    back = parse_line(line, Path("here"), 4)
    assert isinstance(back, LabelledObject)
    assert back.corners[0] == pytest.approx(value, abs=5e-4)
    assert (back.name, back.difficult, back.line) == ("ship", True, 4)


def test_the_label_folder_of_mmrotates_splitter(make_root: Callable[..., Path]) -> None:
    root = make_root({"a": SQUARE})
    (root / "train" / "labelTxt").rename(root / "train" / "annfiles")
    assert dota(root).load(0)[1]["labels"].tolist() == [0]


def test_splits_taken_together(make_root: Callable[..., Path]) -> None:
    make_root({"a": SQUARE})
    root = make_root({"v": SQUARE.replace("ship", "tank")}, "val")
    both = dota(root, "train+val", classes_from="train+val")
    assert (both.image_ids, both.classes) == (["a", "v"], ["ship", "tank"])
    make_root({"a": SQUARE}, "val")
    both = dota(root, "train+val", ["ship", "tank"])
    assert both.image_ids == ["train/a", "val/a", "val/v"]  # their split tells them apart


def test_public_class_lists(make_root: Callable[..., Path]) -> None:
    root = make_root({"a": SQUARE})
    lists = {
        name: dota(root, classes=name).classes for name in ("dota-v1.0", "dota-v1.5", "dota-v2.0", "hrsc2016")
    }
    assert {name: len(names) for name, names in lists.items()} == {
        "dota-v1.0": 15,
        "dota-v1.5": 16,
        "dota-v2.0": 18,
        "hrsc2016": 1,
    }
    assert lists["dota-v2.0"][:16] == lists["dota-v1.5"]
    assert dota(root, classes="dota-v1.0").load(0)[1]["labels"].tolist() == [6]
    with pytest.raises(DataError, match=r"a list of names, or one of dota-v1\.0, .* got 'dota'"):
        dota(root, classes="dota")


def test_missing_label_file(make_root: Callable[..., Path]) -> None:
    root = make_root({"a": SQUARE, "b": None})
    with pytest.raises(
        DataError, match=r"labelTxt/b\.txt: every image needs a label file.*empty if there are no objects"
    ):
        dota(root)


def test_label_file_that_is_no_text(make_root: Callable[..., Path]) -> None:
    root = make_root({"a": b"10 10 \xff\xfe"})
    with pytest.raises(DataError, match=r"labelTxt/a\.txt: label files must be UTF-8 text, byte 6"):
        dota(root)


def test_label_file_that_is_a_folder(make_root: Callable[..., Path]) -> None:
    root = make_root({"a": None})
    (root / "train" / "labelTxt" / "a.txt").mkdir()
    with pytest.raises(DataError, match=r"labelTxt/a\.txt: label files must be readable"):
        dota(root)


def test_folders(make_root: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere is not there; give an existing folder as `root`"):
        dota(tmp_path / "nowhere")
    root = make_root({"a": SQUARE})
    with pytest.raises(DataError, match=r"val/images is not there"):
        dota(root, "val")
    make_root({}, "val")
    with pytest.raises(DataError, match=r"val/images must hold images .*found none"):
        dota(root, "val")
    for file in (root / "train" / "labelTxt").iterdir():
        file.unlink()
    (root / "train" / "labelTxt").rmdir()
    with pytest.raises(DataError, match=r"train/labelTxt is not there"):
        dota(root)


def test_flat_root_is_its_own_split(make_root: Callable[..., Path]) -> None:
    root = make_root({"a": SQUARE}, None)
    assert dota(root, "val").image_ids == dota(root, "train").image_ids == ["a"]


def test_val_uses_the_classes_of_train(make_root: Callable[..., Path]) -> None:
    make_root({"a": SQUARE + "\n10 10 30 10 30 20 10 20 plane 0"})
    root = make_root({"v": SQUARE}, "val")
    dataset = dota(root, "val")
    assert dataset.classes == ["plane", "ship"]
    assert dataset.load(0)[1]["labels"].tolist() == [1]
    make_root({"w": SQUARE.replace("ship", "tank")}, "val")
    with pytest.raises(DataError, match=r"w\.txt, line 1: .*\(plane, ship\), got 'tank'"):
        dota(root, "val")


@pytest.mark.parametrize("classes", [[], ["ship", "ship"], ["large vehicle", "large-vehicle"], [""], [" "]])
def test_bad_class_lists(make_root: Callable[..., Path], classes: list[str]) -> None:
    with pytest.raises(DataError, match=r"`classes` must be different names, blanks in them as hyphens"):
        dota(make_root({"a": SQUARE}), classes=classes)


def test_no_objects_at_all(make_root: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match=r"must label at least one object"):
        found_classes(DotaReader(), make_root({"a": "", "b": "gsd:1"}))


def test_two_images_for_one_label_file(make_root: Callable[..., Path]) -> None:
    root = make_root({"a": SQUARE})
    Image.new("RGB", (8, 8)).save(root / "train" / "images" / "a.jpg")
    with pytest.raises(DataError, match=r"a\.png: images must differ in more than their suffix, a\.jpg"):
        dota(root)


def test_label_without_image_is_reported(
    make_root: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    root = make_root({"a": SQUARE})
    (root / "train" / "labelTxt" / "orphan.txt").write_text(SQUARE)
    with caplog.at_level(logging.WARNING):
        dataset = dota(root)
    assert len(dataset) == 1
    assert caplog.text.count("orphan.txt") == 1  # though labels are read for their classes first


def test_truncated_image_is_found_at_construction(make_root: Callable[..., Path]) -> None:
    root = make_root({"a": SQUARE, "b": SQUARE})
    file = root / "train" / "images" / "b.png"
    file.write_bytes(file.read_bytes()[:-500])
    with pytest.raises(DataError, match=r"images/b\.png: images must be decodable"):
        dota(root)


def test_image_that_breaks_later_is_named_at_load(make_root: Callable[..., Path]) -> None:
    root = make_root({"a": SQUARE})
    dataset = dota(root)
    (root / "train" / "images" / "a.png").write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"images/a\.png: images must be decodable, got: not an image file"):
        dataset.load(0)


def test_hrsc2016(shared: Path) -> None:
    root = shared / "data" / "hrsc2016"
    train, val = dota(root), dota(root, "val")
    assert train.classes == val.classes == ["ship"]
    assert not set(train.image_ids) & set(val.image_ids)
    counts = [[len(dataset._labels[index]) for index in range(len(dataset))] for dataset in (train, val)]
    assert [len(count) for count in counts] == [554, 175]
    assert [sum(count) for count in counts] == [1253, 530]
    assert counts[0].count(0) == 63
    assert len(dota(root, drop_empty=True)) == 554 - 63
    image, target = train.load(train.image_ids.index("100000766"))
    assert max(image.shape) == 640
    # 448.9 106.5 460.8 310.0 438.9 311.3 426.9 107.8: a ship nearly upright, leaning a little to the left
    [[cx, cy, w, h, angle]] = target["boxes"].tolist()
    assert (cx, cy) == pytest.approx((443.875, 208.9), abs=0.05)
    assert (w, h) == pytest.approx((203.85, 21.97), abs=0.3)
    assert angle == pytest.approx(-86.65, abs=0.2)


def test_dota_sample(shared: Path) -> None:
    dataset = dota(shared / "data" / "dota_sample")
    assert dataset.image_ids == ["P0003", "P0005", "P0075", "P1888"]
    assert dataset.classes == ["large-vehicle", "roundabout", "small-vehicle", "swimming-pool"]
    targets = [dataset.load(index)[1] for index in range(4)]
    assert [len(target["labels"]) for target in targets] == [55, 130, 2, 64]
    assert [int(target["difficult"].sum()) for target in targets] == [13, 21, 0, 0]
    assert [target["boxes"].canvas_size for target in targets] == [
        (1023, 1147),
        (977, 884),
        (839, 451),
        (557, 712),
    ]
