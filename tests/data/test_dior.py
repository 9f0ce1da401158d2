from __future__ import annotations

import codecs
from functools import partial
from pathlib import Path

import pytest
import torch

from dbf_ray.data.labelled import LabelledDataset
from dbf_ray.data.readers import Item, LabelledObject, Problem
from dbf_ray.data.readers.dior import DiorReader
from dbf_ray.errors import DataError
from tests.data.label_writers import dior_object, write_dior, write_images

reader = DiorReader()
dior = partial(LabelledDataset, reader)
SQUARE = (10.0, 10.0, 30.0, 10.0, 30.0, 20.0, 10.0, 20.0)
ORIENTED = Path("Annotations", "Oriented Bounding Boxes")


def write_object(root: Path, inner: str) -> None:
    """One image whose label file has ``inner`` for its objects, the first of them in line 2."""
    write_dior(root, "train", {"a": []})
    (root / ORIENTED / "a.xml").write_text(f"<annotation>\n{inner}\n</annotation>\n")


def read_one(root: Path) -> tuple[list[LabelledObject], list[Problem]]:
    labels = reader.read(Item(root / "JPEGImages-trainval" / "a.jpg", root / ORIENTED / "a.xml"))
    return labels.objects, labels.problems


def test_dior_sample(shared: Path) -> None:
    dataset = dior(shared / "data" / "dior_sample")
    assert dataset.image_ids == ["00001"]
    assert dataset.classes[9] == "golffield"
    image, target = dataset.load(0)
    assert image.shape == (3, 800, 800)
    torch.testing.assert_close(torch.Tensor(target["boxes"]), torch.tensor([[408.5, 454.5, 551, 435, 0]]))
    assert target["labels"].tolist() == [9]
    assert target["difficult"].tolist() == [False]
    assert reader.listing(shared / "data" / "dior_sample", "train").problems == []


def test_a_turned_box(tmp_path: Path) -> None:
    """3-4-5: sides 50 and 25 along (4, -3)/5 and (3, 4)/5, so turned counter-clockwise by atan(3/4)."""
    corners = (40, 60, 80, 30, 95, 50, 55, 80)
    write_dior(tmp_path, "train", {"a": [(corners, "Expressway-Service-area", True)]})
    [[cx, cy, w, h, angle]] = dior(tmp_path).load(0)[1]["boxes"].tolist()
    assert (cx, cy, w, h, angle) == pytest.approx((67.5, 55, 50, 25, 36.8699), abs=1e-3)
    assert read_one(tmp_path)[0] == [LabelledObject(corners, "expressway-service-area", True, 9)]


def test_an_upright_box_without_corners(tmp_path: Path) -> None:
    box = "<bndbox><xmin>5</xmin><ymin>6.5</ymin><xmax>25</xmax><ymax>16</ymax></bndbox>"
    write_object(tmp_path, f"<object><name>SHIP</name>{box}</object>")
    assert read_one(tmp_path) == ([LabelledObject((5, 6.5, 25, 6.5, 25, 16, 5, 16), "ship", False, 2)], [])


def test_names_of_other_classes_are_as_written(tmp_path: Path) -> None:
    write_dior(
        tmp_path,
        "train",
        {"a": [(SQUARE, "A14", False), (SQUARE, " wind  mill ", False), (SQUARE, "R&D <x>", False)]},
    )
    assert [one.name for one in read_one(tmp_path)[0]] == ["A14", "wind-mill", "R&D-<x>"]
    assert dior(tmp_path, classes=["A14", "wind-mill", "R&D-<x>"]).load(0)[1]["labels"].tolist() == [0, 1, 2]
    with pytest.raises(DataError, match=r"a\.xml, line 9: classes must be among .*windmill\), got 'A14'"):
        dior(tmp_path)


@pytest.mark.parametrize(
    ("inner", "kind", "line", "parts"),
    [
        (
            dior_object(SQUARE, "ship", False).replace("<y_right_top>10.0000", "<y_right_top>nan"),
            "coordinate",
            5,
            ["finite", "'nan'"],
        ),
        (
            dior_object(SQUARE, "ship", False).replace("<y_right_top>10.0000", "<y_right_top>"),
            "syntax",
            5,
            ["numbers", "got ''"],
        ),
        (
            dior_object(SQUARE, "ship", False).replace("y_right_top", "y_topright"),
            "syntax",
            5,
            ["it lacks y_right_top"],
        ),
        (
            dior_object(SQUARE, "ship", False).replace("<difficult>0", "<difficult>2"),
            "syntax",
            4,
            ["<difficult> must be 0 or 1", "'2'"],
        ),
        (dior_object(SQUARE, "", False), "syntax", 2, ["must have a <name>"]),
        ("<object><name>ship</name></object>", "syntax", 2, ["<robndbox> or a <bndbox>"]),
        (
            "<object><name>ship</name><bndbox><xmin>1</xmin></bndbox></object>",
            "syntax",
            2,
            ["lacks ymin, xmax, ymax"],
        ),
        ("<object><name>ship</name>\n</abject>", "syntax", 3, ["well-formed XML", "mismatched tag"]),
        ("<object>&nbsp;</object>", "syntax", 2, ["well-formed XML", "undefined entity"]),
        ("</annotation><annotation>", "syntax", 2, ["well-formed XML", "junk after document element"]),
    ],
)
def test_problems(inner: str, kind: str, line: int, parts: list[str], tmp_path: Path) -> None:
    write_object(tmp_path, inner.rstrip("\n"))
    objects, [problem] = read_one(tmp_path)
    assert objects == []
    assert (problem.kind, problem.line, problem.file) == (kind, line, tmp_path / ORIENTED / "a.xml")
    for part in parts:
        assert part in problem.message


def test_what_is_right_is_read_beside_what_is_wrong(tmp_path: Path) -> None:
    good = dior_object(SQUARE, "ship", False)
    write_object(tmp_path, good + good.replace("10.0000", "x", 1) + good)
    objects, problems = read_one(tmp_path)
    assert [one.line for one in objects] == [2, 30]
    assert [problem.line for problem in problems] == [19]


def test_another_formats_xml_is_not_an_empty_image(tmp_path: Path) -> None:
    write_object(tmp_path, "")
    assert read_one(tmp_path) == ([], [])
    (tmp_path / ORIENTED / "a.xml").write_text("<?xml version='1.0'?>\n<HRSC_Image/>")
    [problem] = read_one(tmp_path)[1]
    assert (problem.kind, problem.line) == ("syntax", 2)
    assert "must hold <annotation>, got <HRSC_Image>" in problem.message


def test_encodings(tmp_path: Path) -> None:
    """UTF-8 is read whatever the file says that it is; otherwise what expat knows."""
    write_object(tmp_path, dior_object(SQUARE, "Schöne-Klasse", False))
    file = tmp_path / ORIENTED / "a.xml"
    text = file.read_text(encoding="utf-8")
    for content in (
        codecs.BOM_UTF8 + text.encode(),
        f"<?xml version='1.0' encoding='gb2312'?>{text}".encode(),
        text.encode("utf-16"),
        f"<?xml version='1.0' encoding='iso-8859-1'?>{text}".encode("iso-8859-1"),
    ):
        file.write_bytes(content)
        objects, problems = read_one(tmp_path)
        assert problems == []
        assert [one.name for one in objects] == ["Schöne-Klasse"]
    file.write_bytes("<?xml version='1.0' encoding='gb2312'?><annotation>船</annotation>".encode("gb2312"))
    [problem] = read_one(tmp_path)[1]
    assert "save the file as UTF-8" in problem.message


def test_entities_that_blow_up_or_look_elsewhere(tmp_path: Path) -> None:
    write_object(tmp_path, "")
    file = tmp_path / ORIENTED / "a.xml"
    grow = "".join(f'<!ENTITY l{number} "{f"&l{number - 1};" * 10}">' for number in range(1, 12))
    file.write_text(
        f'<!DOCTYPE annotation [<!ENTITY l0 "{"lol" * 100}">{grow}]><annotation>&l11;</annotation>'
    )
    [problem] = read_one(tmp_path)[1]
    assert "must not declare entities of their own, got 'l0'" in problem.message
    secret = tmp_path / "secret"
    secret.write_text("ship")
    name = f"<object><name>&x;</name>{dior_object(SQUARE, '', False).split('</difficult>')[1]}"
    file.write_text(
        f'<!DOCTYPE annotation [<!ENTITY x SYSTEM "{secret.as_uri()}">]><annotation>{name}</annotation>'
    )
    objects, [problem] = read_one(tmp_path)
    assert objects == []
    assert "must not declare entities of their own, got 'x'" in problem.message


def test_lists(tmp_path: Path) -> None:
    """Second column, blank lines, line ends of Windows, a byte-order mark, suffixes, blanks within names."""
    write_dior(tmp_path, "train", {name: [] for name in ("a", "b", "c", "d e", "f 1")})
    file = tmp_path / "ImageSets" / "Main" / "train.txt"
    file.write_bytes(codecs.BOM_UTF8 + b"b  1\r\n\r\na -1\r\n  c.jpg \r\nd e\r\nf 1\r\n\r\n")
    assert dior(tmp_path).image_ids == ["b", "a", "c", "d e", "f 1"]


def test_lists_that_name_what_is_not_there(tmp_path: Path) -> None:
    write_dior(tmp_path, "train", {"a": [], "b": []})
    file = tmp_path / "ImageSets" / "Main" / "train.txt"
    file.write_text(f"a\nghost\na\n{'x' * 5000}\nb\n")
    listing = reader.listing(tmp_path, "train")
    assert [item.image.stem for item in listing.items] == ["a", "b"]
    assert [(one.kind, one.line) for one in listing.problems] == [
        ("missing_image", 2),
        ("duplicate_name", 3),
        ("missing_image", 4),
    ]
    assert "'ghost', not in" in listing.problems[0].message
    assert str(tmp_path / "JPEGImages-trainval") in listing.problems[0].message
    assert "a is in line 1 too" in listing.problems[1].message
    with pytest.raises(DataError, match=r"train\.txt, line 2: listed images must be there, got 'ghost'"):
        dior(tmp_path)
    (tmp_path / ORIENTED / "b.xml").unlink()
    assert [one.kind for one in reader.read(listing.items[1]).problems] == ["missing_labels"]
    file.write_text("\n \n")
    with pytest.raises(DataError, match=r"train\.txt: a list must name at least one image"):
        reader.listing(tmp_path, "train")
    file.write_bytes(b"a\n\xff")
    with pytest.raises(DataError, match=r"train\.txt: lists of images must be UTF-8 text, byte 2"):
        reader.listing(tmp_path, "train")


def test_splits_are_the_lists(tmp_path: Path) -> None:
    write_dior(tmp_path, "train", {"a": []})
    for name in ("test", "val", "ship_train", "mini", ".hidden"):
        (tmp_path / "ImageSets" / "Main" / f"{name}.txt").write_text("a\n")
    (tmp_path / "ImageSets" / "Main" / "readme.md").write_text("lists")
    assert reader.splits(tmp_path) == ["train", "val", "test", "mini"]
    assert len(reader.listing(tmp_path, "ship_train").items) == 1
    with pytest.raises(
        DataError,
        match=r"the split must be one of those that are there \(train, val, test, mini\), got 'trainval'",
    ):
        reader.listing(tmp_path, "trainval")


def test_folders_of_images(tmp_path: Path) -> None:
    """DIOR-R's two folders, or VOC's one."""
    write_dior(tmp_path, "train", {"a": []})
    write_dior(tmp_path, "test", {"b": []})
    assert [item.image.parent.name for item in reader.listing(tmp_path, "test").items] == ["JPEGImages-test"]
    plain = tmp_path / "plain"
    write_dior(plain, "train", {"a": []})
    (plain / "JPEGImages-trainval").rename(plain / "JPEGImages")
    assert dior(plain).image_ids == ["a"]
    (plain / "JPEGImages").rename(plain / "images")
    with pytest.raises(
        DataError, match=r"must hold images in one of JPEGImages-trainval, JPEGImages-test, JPEGImages"
    ):
        dior(plain)


def test_labels_directly_in_annotations(tmp_path: Path) -> None:
    write_dior(tmp_path, "train", {"a": [(SQUARE, "dam", True)]})
    (tmp_path / ORIENTED / "a.xml").rename(tmp_path / "Annotations" / "a.xml")
    (tmp_path / ORIENTED).rmdir()
    assert dior(tmp_path).load(0)[1]["labels"].tolist() == [8]


def test_a_test_set_without_labels(tmp_path: Path) -> None:
    write_images(tmp_path / "JPEGImages-test", ["a"], ".jpg")
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Main" / "test.txt").write_text("a")
    listing = reader.listing(tmp_path, "test")
    assert listing.unlabelled == tmp_path / "Annotations"
    assert [reader.read(item).objects for item in listing.items] == [[]]
    with pytest.raises(DataError, match=r"must hold ImageSets/Main.*Annotations is not there"):
        dior(tmp_path, "test")
