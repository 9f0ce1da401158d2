"""The exam that every reader sits: the same images and objects in each format are the same data set, and no
file makes a reader raise.
"""

from __future__ import annotations

import contextlib
import json
import math
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dbf_ray.data import DATASETS
from dbf_ray.data.class_lists import CLASS_LISTS, class_names
from dbf_ray.data.labelled import LabelledDataset, read_split
from dbf_ray.data.readers import READERS, Labels, recognise
from dbf_ray.errors import DataError
from dbf_ray.geometry import boxes_to_corners
from tests.data.label_writers import FORMATS, Images

every_format = pytest.mark.parametrize("name", list(READERS))
KINDS = {
    "syntax",
    "coordinate",
    "degenerate",
    "unknown_class",
    "unknown_image",
    "missing_image",
    "missing_labels",
    "duplicate_name",
    "image",
}
CLASSES = {
    "dior": ("ship", "harbor"),
    "hrsc": ("ship", "ship"),
    "hrsc_types": ("Car-carrier([]==[])", "Ford-class"),
}
BOXES = {  # cx, cy, w, h, degrees counter-clockwise; one reaches over the border
    "first": [
        (80.0, 60.0, 60.0, 20.0, 30.0),
        (40.5, 30.25, 20.0, 8.0, -75.0),
        (150.0, 110.0, 40.0, 12.0, 0.0),
    ],
    "second.1": [(100.0, 40.0, 50.0, 5.5, 89.0)],
    "third": [],
}
FLAGS = {"first": [False, True, False], "second.1": [True], "third": []}


def images_for(name: str) -> Images:
    """The exam's images, classes alternating between two of the format's own."""
    classes = CLASSES.get(name, ("small-vehicle", "plane"))
    images: Images = {}
    for image, boxes in BOXES.items():
        corners = boxes_to_corners(torch.tensor(boxes, dtype=torch.float64).reshape(-1, 5)).tolist()
        images[image] = [
            (tuple(one), classes[number % 2], FLAGS[image][number]) for number, one in enumerate(corners)
        ]
    return images


def read_all(name: str, root: Path, split: str = "train") -> list[Labels]:
    """Everything that a reader says of a split, its claims about problems and objects checked; DataError
    where it lists none.
    """
    reader = READERS[name]
    listing = reader.listing(root, split)
    read = [reader.read(item) for item in listing.items]
    for problem in [*listing.problems, *(problem for labels in read for problem in labels.problems)]:
        assert problem.kind in KINDS
        assert problem.message.strip()
        assert len(str(problem).splitlines()) == 1
        assert len(problem.message) < 1000
        assert problem.file.exists() or problem.kind == "missing_labels"
        assert problem.line is None or problem.line >= 1
    for one in (one for labels in read for one in labels.objects):
        assert len(one.corners) == 8
        assert all(math.isfinite(value) for value in one.corners)
        assert one.name.split() == [one.name]
    return read


def test_every_reader_sits_the_exam() -> None:
    assert set(FORMATS) == set(READERS)
    assert set(READERS) < set(DATASETS)


@every_format
def test_the_same_objects_in_every_format(name: str, tmp_path: Path) -> None:
    images, form = images_for(name), FORMATS[name]
    form.write(tmp_path, "train", images)
    dataset = LabelledDataset(READERS[name], tmp_path)
    assert sorted(dataset.image_ids) == sorted(BOXES)
    for index, image in enumerate(dataset.image_ids):
        target = dataset.load(index)[1]
        expected = torch.tensor(BOXES[image]).reshape(-1, 5)
        torch.testing.assert_close(torch.Tensor(target["boxes"]), expected, atol=0.01, rtol=0)
        assert target["boxes"].canvas_size == (120, 160)
        assert [dataset.classes[label] for label in target["labels"]] == [one[1] for one in images[image]]
        assert target["difficult"].tolist() == [form.difficult and flag for flag in FLAGS[image]]


@every_format
def test_recognised(name: str, tmp_path: Path) -> None:
    form = FORMATS[name]
    form.write(tmp_path, "train", images_for(name))
    form.write(tmp_path, "test", {"other": images_for(name)["first"]})
    assert recognise(tmp_path) == form.recognised
    assert READERS[name].splits(tmp_path) in (["test", "train"], ["train", "test"])
    others = [other for other in READERS if other not in (name, form.recognised) and other != "hrsc_types"]
    wrongly = [other for other in others if READERS[other].recognises(tmp_path)]
    assert wrongly in ([], ["dota"])  # images/ alone is DOTA's layout without labels, so it comes last


@every_format
def test_splits_taken_together(name: str, tmp_path: Path) -> None:
    form, images = FORMATS[name], images_for(name)
    form.write(tmp_path, "train", images)
    form.write(tmp_path, "test", {"other": images["first"]})
    dataset = LabelledDataset(READERS[name], tmp_path, "train+test")
    assert sorted(dataset.image_ids) == sorted([*images, "other"])
    assert sum(len(labels) for labels in dataset._labels) == 7


@every_format
def test_a_split_that_is_not_there(name: str, tmp_path: Path) -> None:
    FORMATS[name].write(tmp_path, "train", images_for(name))
    with pytest.raises(DataError, match=r"val") as caught:
        READERS[name].listing(tmp_path, "val")
    assert "\n" not in str(caught.value)
    if name != "dota":
        assert "(train)" in str(caught.value)


@every_format
def test_classes_that_the_config_names(name: str, tmp_path: Path) -> None:
    images = images_for(name)
    FORMATS[name].write(tmp_path, "train", images)
    [first, *_] = {one[1]: None for one in images["first"]}
    own = ["zeppelin", *sorted({one[1] for objects in images.values() for one in objects})]
    assert LabelledDataset(READERS[name], tmp_path, classes=own).classes == own
    with pytest.raises(
        DataError, match=r"classes must be among those of train or `classes` \(zeppelin\), got"
    ) as caught:
        LabelledDataset(READERS[name], tmp_path, classes=["zeppelin"])
    assert repr(first) in str(caught.value)


@every_format
def test_weird_folders(name: str, tmp_path: Path) -> None:
    reader = READERS[name]
    file = tmp_path / "file"
    file.write_text("no folder")
    loop = tmp_path / "loop"
    loop.mkdir()
    (loop / "again").symlink_to(loop)
    (loop / "train.json").symlink_to(tmp_path / "nothing")
    (loop / "data.yaml").mkdir()
    empty = tmp_path / "empty"
    (empty / ".git" / "images").mkdir(parents=True)
    for root in (tmp_path / "nowhere", file, loop, empty):
        assert reader.recognises(root) is False
        assert reader.splits(root) == []
        with pytest.raises(DataError) as caught:
            reader.listing(root, "train")
        assert str(root) in str(caught.value)
        assert reader.class_names(root) is None
    with pytest.raises(DataError, match=r"nowhere is not there"):
        recognise(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"empty must be in one of the known formats .*hrsc: .*none"):
        recognise(empty)


@every_format
def test_a_label_file_that_cannot_be_read(name: str, tmp_path: Path) -> None:
    """A folder where the file should be, a missing one, an empty one, and bytes that are no text."""
    form = FORMATS[name]
    form.write(tmp_path, "train", images_for(name))
    file = form.label_file(tmp_path, "train", "first")
    kinds = {}
    for fault in ("folder", "missing", "empty", "bytes"):
        file.unlink() if file.is_file() else file.rmdir() if file.is_dir() else None
        if fault == "folder":
            file.mkdir()
        elif fault != "missing":
            file.write_bytes(b"" if fault == "empty" else b"\xff\xfe\x00\x81")
        with pytest.raises(DataError, match="train") if name == "coco" else contextlib.nullcontext():
            kinds[fault] = [
                problem.kind for labels in read_all(name, tmp_path) for problem in labels.problems
            ]
    expected = {
        "dota": {"folder": ["syntax"], "missing": ["missing_labels"], "empty": [], "bytes": ["syntax"]},
        "yolo_obb": {"folder": ["syntax"], "missing": [], "empty": [], "bytes": ["syntax"]},
        "coco": {},
    }
    xml = {"folder": ["syntax"], "missing": ["missing_labels"], "empty": ["syntax"], "bytes": ["syntax"]}
    assert kinds == expected.get(name, xml)


@every_format
def test_byte_order_mark_and_line_ends_of_windows(name: str, tmp_path: Path) -> None:
    form = FORMATS[name]
    form.write(tmp_path, "train", images_for(name))
    before = [(item.image, labels) for item, labels in read_split(READERS[name], tmp_path, "train")]
    for file in sorted(tmp_path.rglob("*")):
        if file.suffix in (".txt", ".xml", ".json", ".yaml"):
            file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    assert [(item.image, labels) for item, labels in read_split(READERS[name], tmp_path, "train")] == before


@every_format
@pytest.mark.parametrize(
    ("corners", "message"),
    [
        ((10, 10, 30, 10, 50, 10, 20, 10), "area"),
        ((7, 7, 7, 7, 7, 7, 7, 7), "area"),
        ((10, 10, 30, 10, 1e9, 20, 10, 20), "1000000"),
    ],
)
def test_objects_that_are_none(name: str, corners: tuple[float, ...], message: str, tmp_path: Path) -> None:
    images = images_for(name)
    images["first"].append((corners, images["first"][0][1], False))
    FORMATS[name].write(tmp_path, "train", images)
    file = FORMATS[name].label_file(tmp_path, "train", "first")
    with pytest.raises(DataError, match=message) as caught:
        LabelledDataset(READERS[name], tmp_path)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("name", [name for name in READERS if not name.startswith("hrsc")])
def test_crossed_corners_are_an_object(name: str, tmp_path: Path) -> None:
    images = images_for(name)
    images["third"] = [((10, 10, 50, 30, 50, 10, 10, 30), images["first"][0][1], False)]
    FORMATS[name].write(tmp_path, "train", images)
    dataset = LabelledDataset(READERS[name], tmp_path)
    boxes = dataset.load(dataset.image_ids.index("third"))[1]["boxes"]
    torch.testing.assert_close(torch.Tensor(boxes), torch.tensor([[30.0, 20, 40, 20, 0]]), atol=0.01, rtol=0)


@every_format
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_label_file_makes_a_reader_raise(
    name: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Bytes at random, and whole files with some bytes cut out, put in or put twice. COCO's listing may
    refuse the only file there is.
    """
    root = _folder(name, tmp_path_factory.getbasetemp())
    file = FORMATS[name].label_file(root, "train", "first")
    whole = file.with_suffix(".whole").read_bytes()
    file.write_bytes(data.draw(st.one_of(st.binary(max_size=60), mutated(whole))))
    try:
        read_all(name, root)
    except DataError as error:
        refused = str(error)
    else:
        refused = ""
    assert refused == "" or (name == "coco" and str(file) in refused and "\n" not in refused)


def mutated(whole: bytes) -> st.SearchStrategy[bytes]:
    """A file with up to three changes: some bytes from one place to another are replaced by others, among
    them what parsers mind.
    """
    place = st.integers(0, len(whole))
    odd = [
        b"",
        b"nan",
        b"-1e999",
        b"\x00",
        b"\xff",
        b'"',
        b"<",
        b"</object>",
        b"&x;",
        b"[",
        b"{}",
        b"null",
        b"1e5",
        b"\r",
        b",",
        b" ",
        b"-",
    ]
    change = st.tuples(
        place,
        st.integers(0, 12),
        st.sampled_from(odd) | st.binary(max_size=4) | place.map(lambda at: whole[at : at + 9]),
    )

    def apply(changes: list[tuple[int, int, bytes]]) -> bytes:
        content = whole
        for at, length, new in changes:
            content = content[:at] + new + content[at + length :]
        return content

    return st.lists(change, min_size=1, max_size=3).map(apply)


def _folder(name: str, base: Path) -> Path:
    """A folder of the exam's images, written once, with its first label file kept beside as it was."""
    root = base / f"mutated-{name}"
    if not root.is_dir():
        FORMATS[name].write(root, "train", images_for(name))
        file = FORMATS[name].label_file(root, "train", "first")
        file.with_suffix(".whole").write_bytes(file.read_bytes())
    return root


@pytest.mark.parametrize("layout", ["flat", "split"])
def test_dota_beside_folders_of_other_formats(layout: str, tmp_path: Path) -> None:
    """images/ is in three layouts: labels in labelTxt/ make it DOTA's, whatever else has been exported
    beside.
    """
    folder = tmp_path if layout == "flat" else tmp_path / "train"
    for name in ("images", "labelTxt", "labels"):
        (folder / name).mkdir(parents=True)
    (tmp_path / "train.json").write_text('{"images": [], "annotations": []}')
    assert recognise(tmp_path) == "dota"
    (folder / "labelTxt").rmdir()
    assert recognise(tmp_path) == "yolo_obb"
    (folder / "labels").rmdir()
    assert recognise(tmp_path) == "coco"
    (tmp_path / "train.json").unlink()
    assert recognise(tmp_path) == "dota"


def test_json_that_is_not_cocos_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "train.json").write_text(json.dumps({"name": "images", "steps": [1, 2]}))
    assert recognise(tmp_path) == "dota"


def test_class_lists_are_usable() -> None:
    counts = {name: len(class_names(name)) for name in CLASS_LISTS}
    assert counts == {
        "dota-v1.0": 15,
        "dota-v1.5": 16,
        "dota-v2.0": 18,
        "dior-r": 20,
        "hrsc2016": 1,
        "hrsc2016-types": 31,
    }
    assert all(class_names(names) == names for names in CLASS_LISTS.values())


def test_a_folder_that_declares_its_classes_is_asked_before_its_labels(tmp_path: Path) -> None:
    """Order of trust: data.classes, the format's own list, what the folder declares, the labels in train."""
    images = {
        "a": [((10.0, 10, 30, 10, 30, 20, 10, 20), "zebra", False)],
        "b": [((10.0, 10, 30, 10, 30, 20, 10, 20), "ant", False)],
    }
    FORMATS["yolo_obb"].write(tmp_path / "yolo", "train", images)
    make = partial(LabelledDataset, READERS["yolo_obb"], tmp_path / "yolo")
    assert make().classes == ["zebra", "ant"]
    assert make(classes=["ant", "zebra"]).classes == ["ant", "zebra"]
    FORMATS["dota"].write(tmp_path / "dota", "train", images)
    assert LabelledDataset(READERS["dota"], tmp_path / "dota").classes == ["ant", "zebra"]
