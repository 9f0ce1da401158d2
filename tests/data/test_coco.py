from __future__ import annotations

import importlib.util
import itertools
import json
import math
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dbf_ray.data.labelled import LabelledDataset
from dbf_ray.data.readers import LabelledObject, Labels, Problem
from dbf_ray.data.readers.coco import CocoReader
from dbf_ray.data.readers.coco_objects import is_flat, parse_annotation, rectangle
from dbf_ray.errors import DataError
from tests.data.label_writers import Images, write_coco, write_images

reader = CocoReader()
coco = partial(LabelledDataset, reader)
SQUARE = (10.0, 10.0, 30.0, 10.0, 30.0, 20.0, 10.0, 20.0)
IMAGES: Images = {"a": [(SQUARE, "cargo ship", False)], "b": [(SQUARE, "plane", True)]}
NAMES = {1: "ship"}
Edit = Callable[[dict[str, Any]], object]


def parsed(**fields: Any) -> LabelledObject | Problem:
    return parse_annotation({"id": 5, "category_id": 1, **fields}, Path("here"), NAMES)


def written(root: Path, edit: Edit) -> Path:
    """A data folder whose JSON file ``edit`` has changed."""
    write_coco(root, "train", IMAGES)
    file = root / "annotations" / "train.json"
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content))
    return file


def smallest_area(points: list[tuple[float, float]]) -> float:
    """Area of the smallest rectangle around points, from the rectangles along every line through two of
    them.
    """
    areas = []
    for (x1, y1), (x2, y2) in itertools.combinations(points, 2):
        if (length := math.hypot(x2 - x1, y2 - y1)) > 0:
            u = ((x2 - x1) / length, (y2 - y1) / length)
            along, across = [x * u[0] + y * u[1] for x, y in points], [y * u[0] - x * u[1] for x, y in points]
            areas.append((max(along) - min(along)) * (max(across) - min(across)))
    return min(areas)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=3, max_size=9, unique=True))
def test_the_rectangle_around_more_points_is_the_smallest(whole: list[tuple[int, int]]) -> None:
    points = [(float(x), float(y)) for x, y in whole]
    corners = rectangle(points)
    if corners is None:
        assert is_flat(points)
        assert smallest_area(points) == pytest.approx(0, abs=1e-6)
        return
    (x1, y1), (x2, y2), (x3, y3), (x4, y4) = corners
    assert (x1 + x3, y1 + y3) == pytest.approx((x2 + x4, y2 + y4), abs=1e-6)
    assert (x2 - x1) * (x3 - x2) + (y2 - y1) * (y3 - y2) == pytest.approx(0, abs=1e-6)
    assert math.hypot(x2 - x1, y2 - y1) * math.hypot(x3 - x2, y3 - y2) == pytest.approx(
        smallest_area(points), abs=1e-6
    )
    for x, y in points:
        for (ax, ay), (bx, by) in itertools.pairwise([*corners, corners[0]]):
            turn = (x3 - x1) * (y2 - y1) - (y3 - y1) * (x2 - x1)  # which side of an edge is inside
            assert ((x - ax) * (by - ay) - (y - ay) * (bx - ax)) * math.copysign(1, turn) >= -1e-6


@pytest.mark.parametrize(
    ("fields", "corners"),
    [
        (
            {"segmentation": [[0, 0, 9, 1, 8, 5, 1, 6]]},
            (0, 0, 9, 1, 8, 5, 1, 6),
        ),  # not a rectangle, and kept as it is
        ({"segmentation": [[0, 0, 10, 10, 10, 0, 0, 10]]}, (0, 0, 10, 10, 10, 0, 0, 10)),  # crosses itself
        ({"segmentation": [[0, 0, 9, 1, 8, 5, 1, 6, 0, 0]]}, (0, 0, 9, 1, 8, 5, 1, 6)),  # closed
        ({"segmentation": [0, 0, 9, 1, 8, 5, 1, 6]}, (0, 0, 9, 1, 8, 5, 1, 6)),
        ({"bbox": [2, 3, 10, 4.5]}, (2, 3, 12, 3, 12, 7.5, 2, 7.5)),
        ({"segmentation": [], "bbox": [2, 3, 10, 4.5]}, (2, 3, 12, 3, 12, 7.5, 2, 7.5)),
        ({"segmentation": [[]], "bbox": [2, 3, 10, 4.5]}, (2, 3, 12, 3, 12, 7.5, 2, 7.5)),
        ({"segmentation": [[0, 0, 9, 1, 8, 5, 1, 6]], "bbox": [1, 1, 1, 1]}, (0, 0, 9, 1, 8, 5, 1, 6)),
    ],
)
def test_quadrilaterals(fields: dict[str, Any], corners: tuple[float, ...]) -> None:
    one = parsed(**fields)
    assert isinstance(one, LabelledObject)
    assert one == LabelledObject(corners, "ship", False, None)


@pytest.mark.parametrize(
    "polygons",
    [
        [[0, 0, 20, 0, 40, 0, 40, 10, 0, 10]],
        [[40, 10, 0, 10, 0, 0, 25, 3, 40, 0]],
        [[0, 0, 5, 0, 0, 10], [40, 10, 40, 0, 35, 10]],  # two parts of one object
    ],
)
def test_more_points_and_several_parts(polygons: list[list[float]]) -> None:
    one = parsed(segmentation=polygons)
    assert isinstance(one, LabelledObject)
    points = {(round(x, 6), round(y, 6)) for x, y in zip(one.corners[::2], one.corners[1::2], strict=True)}
    assert points == {(0, 0), (40, 0), (40, 10), (0, 10)}


@pytest.mark.parametrize(
    ("fields", "kind", "parts"),
    [
        ({"segmentation": {"counts": "abc", "size": [9, 9]}}, "syntax", ["run-length mask"]),
        ({"segmentation": [[0, 0, 1, 1, 2]]}, "syntax", ["even count", "[[0, 0, 1, 1, 2]]"]),
        ({"segmentation": [[0, 0, 1, 1]]}, "syntax", ["at least 3 points, got 2"]),
        ({"segmentation": [["0", "0", "9", "1", "8", "5"]]}, "syntax", ["numbers"]),
        ({"segmentation": "polygon"}, "syntax", ["numbers", "'polygon'"]),
        ({"segmentation": [[0, 0, math.nan, 1, 8, 5, 1, 6]]}, "coordinate", ["finite", "nan"]),
        ({"segmentation": [[0, 0, 1e30, 1, 8, 5, 1, 6]]}, "coordinate", ["1000000 pixels", "1e+30"]),
        ({"segmentation": [[0, 0, 10**400, 1, 8, 5, 1, 6]]}, "coordinate", ["inf"]),
        ({"segmentation": [[0, 0, 1, 1, 2, 2, 3, 3, 4, 4]]}, "degenerate", ["must have an area"]),
        ({"segmentation": [[0, 0, 1, 1, 2, 2, 3, 3]]}, "degenerate", ["must have an area"]),
        ({"segmentation": [[5, 5, 5, 5, 5, 5, 5, 5]]}, "degenerate", ["must have an area"]),
        ({"bbox": [1, 1, 0, 5]}, "degenerate", ["must have an area"]),
        ({"bbox": [1, 1, -3, 5]}, "syntax", ["must be positive, got -3 and 5"]),
        ({"bbox": [1, 1, 3, 5, 0.3]}, "syntax", ["4 numbers", "[1, 1, 3, 5, 0.3]"]),
        ({}, "syntax", ["must have polygons", "got None"]),
        ({"category_id": 2, "bbox": [1, 1, 3, 5]}, "unknown_class", ["one of categories", "got 2"]),
        ({"category_id": [1], "bbox": [1, 1, 3, 5]}, "unknown_class", ["got [1]"]),
    ],
)
def test_bad_annotations(fields: dict[str, Any], kind: str, parts: list[str]) -> None:
    problem = parsed(**fields)
    assert isinstance(problem, Problem)
    assert (problem.kind, problem.line) == (kind, None)
    for part in ["annotation 5", *parts]:
        assert part in problem.message


@pytest.mark.parametrize(
    ("fields", "difficult"),
    [
        ({}, False),
        ({"difficult": 0}, False),
        ({"difficult": "0"}, False),
        ({"difficult": 1}, True),
        ({"difficult": True}, True),
        ({"ignore": 1}, True),
        ({"ignore": 1, "difficult": 0}, False),
    ],
)
def test_difficult(fields: dict[str, Any], difficult: bool) -> None:
    one = parsed(bbox=[1, 1, 3, 5], **fields)
    assert isinstance(one, LabelledObject)
    assert one.difficult is difficult


def test_crowds_are_left_out(tmp_path: Path) -> None:
    def edit(content: dict[str, Any]) -> None:
        crowd = {
            "id": 7,
            "image_id": 10,
            "category_id": 1,
            "iscrowd": 1,
            "segmentation": {"counts": [], "size": [1, 1]},
        }
        content["annotations"].append(crowd)

    written(tmp_path, edit)
    assert [len(labels) for labels in coco(tmp_path)._labels] == [1, 1]


def test_names_by_id(tmp_path: Path) -> None:
    categories = [{"id": 9, "name": "plane"}, {"id": 1, "name": "cargo  ship"}, {"id": 2, "name": "tug"}]

    def edit(content: dict[str, Any]) -> None:
        content["categories"] = categories
        content["annotations"][1]["category_id"] = 9

    written(tmp_path, edit)
    dataset = coco(tmp_path)
    assert dataset.classes == reader.class_names(tmp_path) == ["cargo-ship", "tug", "plane"]
    assert dataset._labels == [[0], [2]]


def test_the_category_that_roboflow_adds_is_no_class(tmp_path: Path) -> None:
    """It groups the others and may even have the name of one of them."""

    def edit(content: dict[str, Any]) -> None:
        content["categories"] = [
            {"id": 0, "name": "plane", "supercategory": "none"},
            {"id": 1, "name": "ship", "supercategory": "plane"},
            {"id": 2, "name": "plane", "supercategory": "plane"},
        ]

    written(tmp_path, edit)
    assert coco(tmp_path).classes == ["ship", "plane"]


def test_categories_above_others_are_classes_where_nobody_says_they_are_not(tmp_path: Path) -> None:
    def edit(content: dict[str, Any]) -> None:
        content["categories"].append({"id": 3, "name": "vessel", "supercategory": "root"})
        content["categories"][0]["supercategory"] = "vessel"

    written(tmp_path, edit)
    assert coco(tmp_path).classes == ["cargo-ship", "plane", "vessel"]


@pytest.mark.parametrize(
    ("edit", "kinds", "part"),
    [
        (
            lambda c: c["annotations"][0].update(image_id=99),
            ["unknown_image"],
            "annotation 100: image_id must be the id of one of images, got 99",
        ),
        (lambda c: c["annotations"].append("text"), ["syntax"], "annotations must be mappings, got 'text'"),
        (
            lambda c: c["images"][0].update(file_name="ghost.png"),
            ["missing_image"],
            "image 10: listed images must be there, got 'ghost.png'",
        ),
        (
            lambda c: c["images"][0].pop("file_name"),
            ["syntax", "unknown_image"],
            "must have an id and a file_name",
        ),
        (
            lambda c: c["images"][1].update(id=10),
            ["duplicate_name", "unknown_image"],
            "got 10 or 'b.png' twice",
        ),
        (
            lambda c: c["images"][1].update(file_name="a.png"),
            ["duplicate_name", "unknown_image"],
            "got 11 or 'a.png' twice",
        ),
        (
            lambda c: c["categories"][0].update(name=" "),
            ["syntax"],
            "categories must have an id of their own and a name",
        ),
        (
            lambda c: c["categories"][0].update(id=2),
            ["syntax"],
            "categories must have an id of their own and a name",
        ),
        (lambda c: c["categories"][0].update(name=True), ["syntax"], "a name, which is text, got {'id': 1,"),
        (lambda c: c["categories"][0].update(name=747), ["syntax"], "a name, which is text, got {'id': 1,"),
        (lambda c: c["categories"][0].update(id=True), ["syntax"], "categories must have an id of their own"),
        (
            lambda c: c["categories"][0].update(name="plane "),
            ["syntax"],
            "categories must differ in their names, got 'plane' for 1 and 2; rename one, or make them one",
        ),
    ],
)
def test_problems_of_the_file(edit: Edit, kinds: list[str], part: str, tmp_path: Path) -> None:
    file = written(tmp_path, edit)
    listing = reader.listing(tmp_path, "train")
    assert [one.kind for one in listing.problems] == kinds
    assert part in listing.problems[0].message
    assert {one.file for one in listing.problems} == {file}
    with pytest.raises(DataError) as caught:
        coco(tmp_path)
    assert part in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"train\.json, line 1: label files must be JSON, got: Expecting value at column 1"),
        ('{"images": [],\n "annotations": [}', r"train\.json, line 2: .* at column 18"),
        ("[" * 100_000, r"train\.json: label files must be JSON, got: maximum recursion"),
        (
            '{"images": [' + "9" * 5000 + "]}",
            r"train\.json: label files must be JSON, got: Exceeds the limit",
        ),
        ("[]", r"must be a mapping with images, annotations and categories, got \[\]"),
        (
            '{"images": [], "annotations": [{"bbox": [1], "bbox": [2]}]}',
            r"hold a key once, 'bbox' is twice in",
        ),
        ('{"images": [], "annotations": [], "images": [1]}', r"hold a key once, 'images' is twice in"),
        ('{"annotations": []}', r"must be a mapping with images"),
        ('{"images": {"id": 1}}', r"images must be a list, got {'id': 1}"),
        ('{"images": [], "categories": 3}', r"categories must be a list, got 3"),
        ('{"images": [], "annotations": []}', r"must list at least one image"),
    ],
)
def test_files_that_are_no_list_of_images(text: str, message: str, tmp_path: Path) -> None:
    file = written(tmp_path, lambda content: None)
    file.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        reader.listing(tmp_path, "train")
    assert str(caught.value).count(str(file)) == 1


@pytest.mark.parametrize(
    ("json_file", "images", "split", "splits"),
    [
        ("annotations/train.json", "images/train", "train", ["train"]),
        ("annotations/train.json", "train", "train", ["train"]),
        ("annotations/train.json", "images", "train", ["train"]),
        ("annotations/train.json", "annotations", "train", ["train"]),
        ("annotations/instances_train.json", "train/images", "train", ["train"]),
        ("annotations/instances_train2017.json", "train2017", "train", ["train2017"]),
        ("annotations/instances_train2017.json", "images/train2017", "train2017", ["train2017"]),
        ("annotations/instances_default.json", "images/default", "default", ["default"]),
        ("train.json", "train_patches", "train", ["train"]),
        ("train.json", ".", "train", ["train"]),
        ("train/_annotations.coco.json", "train", "train", ["train"]),
        ("valid/_annotations.coco.json", "valid", "val", ["valid"]),
        ("ships/_annotations.coco.json", "ships", "ships", ["ships"]),
        ("train/anything.json", "train/images", "train", ["train"]),
        ("result.json", "images", "train", []),
        ("_annotations.coco.json", ".", "whatever", []),
    ],
)
def test_layouts(json_file: str, images: str, split: str, splits: list[str], tmp_path: Path) -> None:
    source, root = tmp_path / "source", tmp_path / "root"
    write_coco(source, "train", IMAGES)
    (root / json_file).parent.mkdir(parents=True)
    (source / "annotations" / "train.json").rename(root / json_file)
    write_images(root / images, list(IMAGES), ".png")
    assert reader.recognises(root)
    assert reader.splits(root) == splits
    assert [item.image for item in reader.listing(root, split).items] == [
        root / images / "a.png",
        root / images / "b.png",
    ]
    assert coco(root, split).classes == ["cargo-ship", "plane"]


@pytest.mark.parametrize(
    "name",
    [
        "images/train/a.png",
        "images\\train\\a.png",
        "train/a.png",
        "/elsewhere/upload/1/a.png",
        "..\\..\\media\\a.png",
    ],
)
def test_names_of_images_with_folders(name: str, tmp_path: Path) -> None:
    """With any system's separators; folders that are not here are not looked at."""
    written(tmp_path, lambda content: content["images"][0].update(file_name=name))
    found = [item.image for item in reader.listing(tmp_path, "train").items]
    assert [image.resolve() for image in found] == [
        tmp_path / "images" / "train" / "a.png",
        tmp_path / "images" / "train" / "b.png",
    ]


def test_a_listed_image_that_was_converted_is_named(tmp_path: Path) -> None:
    written(tmp_path, lambda content: None)
    file = next(tmp_path.rglob("*.png"))
    for other in (file.with_suffix(".webp"), file.with_suffix(".jpg")):
        with Image.open(file) as picture:
            picture.save(other)
        file.unlink()
        with pytest.raises(DataError, match=rf"got '{file.name}', but {other}; convert it, or name it so"):
            coco(tmp_path)
        other.rename(file)


def test_images_of_a_split_before_others_of_the_same_name(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_coco(tmp_path, split, IMAGES)
    write_images(tmp_path / "images", ["a", "b"], ".png")
    for split in ("train", "val"):
        assert {item.image.parent for item in reader.listing(tmp_path, split).items} == {
            tmp_path / "images" / split
        }


def test_which_file_is_a_splits(tmp_path: Path) -> None:
    """COCO's files for other tasks are none, trainval is not train, and of several for one split none is
    taken.
    """
    write_coco(tmp_path, "train", IMAGES)
    folder = tmp_path / "annotations"
    text = (folder / "train.json").read_text()
    (folder / "train.json").unlink()
    for name in (
        "instances_train2017",
        "instances_trainval",
        "captions_train2017",
        "person_keypoints_train2017",
    ):
        (folder / f"{name}.json").write_text(text)
    (folder / "broken_link.json").symlink_to(folder / "nothing")
    assert reader.splits(tmp_path) == ["train2017", "trainval"]
    assert len(reader.listing(tmp_path, "train").items) == 2
    (folder / "instances_train2014.json").write_text(text)
    with pytest.raises(
        DataError,
        match=r"one file must be that of 'train', 2 are; name one of train2014, train2017 as the split",
    ):
        reader.listing(tmp_path, "train")
    write_images(tmp_path / "images" / "train2014", ["a", "b"], ".png")
    assert {item.image.parent.name for item in reader.listing(tmp_path, "train2014").items} == {"train2014"}


def test_one_json_file_an_image_is_another_format(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / f"{number}.json").write_text('{"images": []}')
    assert reader.recognises(tmp_path) is False


def test_a_test_set_without_annotations(tmp_path: Path) -> None:
    file = written(tmp_path, lambda content: content.pop("annotations"))
    listing = reader.listing(tmp_path, "train")
    assert listing.unlabelled == file
    assert [reader.read(item) for item in listing.items] == [Labels(), Labels()]
    with pytest.raises(DataError, match=r"train\.json is not there or holds no labels"):
        coco(tmp_path)


def test_images_without_annotations_are_empty(tmp_path: Path) -> None:
    written(tmp_path, lambda content: content["annotations"].pop(0))
    dataset = coco(tmp_path)
    assert dataset._labels == [[], [1]]
    torch.testing.assert_close(
        torch.Tensor(dataset.load(1)[1]["boxes"]), torch.tensor([[20.0, 15, 20, 10, 0]])
    )


def test_shapely_is_needed_for_polygons_of_more_points_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shapely", None)
    spec = importlib.util.find_spec("dbf_ray.data.readers.coco_objects")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    one = module.parse_annotation(
        {"category_id": 1, "segmentation": [[0, 0, 2, 0, 2, 1, 0, 1]]}, Path("here"), NAMES
    )
    assert one.corners == (0, 0, 2, 0, 2, 1, 0, 1)
    with pytest.raises(DataError, match=r"needs shapely, which is not installed; pip install shapely"):
        module.parse_annotation({"category_id": 1, "segmentation": [[0, 0, 2, 0, 2, 1]]}, Path("here"), NAMES)
