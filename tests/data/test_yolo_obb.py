from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image

from dbf_ray.data.labelled import LabelledDataset
from dbf_ray.data.readers import LabelledObject, Problem
from dbf_ray.data.readers.yolo_obb import YoloObbReader, parse_line
from dbf_ray.errors import DataError
from tests.data.label_writers import Images, write_images, write_yolo_obb

reader = YoloObbReader()
yolo = partial(LabelledDataset, reader)
SQUARE = (16.0, 12.0, 48.0, 12.0, 48.0, 24.0, 16.0, 24.0)
LINE = "0 0.1 0.1 0.3 0.1 0.3 0.2 0.1 0.2"  # the same on an image of 160 x 120
IMAGES: Images = {"a": [(SQUARE, "ship", False)]}


def test_documented_example() -> None:
    """The line that the format's page shows, on an image of 1000 x 500."""
    line = "0 0.780811 0.743961 0.782371 0.74686 0.777691 0.752174 0.776131 0.749758"
    one = parse_line(line, Path("here"), 3, (500, 1000), {0: "plane"})
    assert isinstance(one, LabelledObject)
    assert one.corners == pytest.approx(
        (780.811, 371.9805, 782.371, 373.43, 777.691, 376.087, 776.131, 374.879)
    )
    assert (one.name, one.difficult, one.line) == ("plane", False, 3)


def test_commas_blanks_and_empty_lines(tmp_path: Path) -> None:
    write_yolo_obb(tmp_path, "train", IMAGES)
    (tmp_path / "labels" / "train" / "a.txt").write_text(f"\n  {LINE.replace(' ', ',  ')}\r\n\n{LINE}\t\n\n")
    boxes = yolo(tmp_path).load(0)[1]["boxes"]
    torch.testing.assert_close(torch.Tensor(boxes), torch.tensor([[32.0, 18, 32, 12, 0]] * 2))
    assert [one.line for one in reader.read(reader.listing(tmp_path, "train").items[0]).objects] == [2, 4]


@pytest.mark.parametrize(
    ("line", "kind", "parts"),
    [
        ("0 0.5 0.5 0.2 0.1", "syntax", ["5 fields", "horizontal YOLO", "cx cy w h"]),
        ("0 0.5 0.5 0.2 0.1 0.785", "syntax", ["6 fields", "an angle", "the corners must be written"]),
        ("0 0.1 0.1 0.3 0.1 0.3 0.2 0.1 0.2 0.15 0.15", "syntax", ["segmentation of 5 points"]),
        ("0 0.1 0.1 0.3 0.1 0.3 0.2 0.1 0.2 0.98", "syntax", ["10 fields:"]),
        ("ship 0.1 0.1 0.3 0.1 0.3 0.2 0.1 0.2", "syntax", ["an index", "'ship'"]),
        ("0.5 0.1 0.1 0.3 0.1 0.3 0.2 0.1 0.2", "syntax", ["an index", "'0.5'"]),
        ("2 0.1 0.1 0.3 0.1 0.3 0.2 0.1 0.2", "unknown_class", ["(0 to 1)", "'2'"]),
        ("-1 0.1 0.1 0.3 0.1 0.3 0.2 0.1 0.2", "unknown_class", ["(0 to 1)", "'-1'"]),
        ("0 0.1 nan 0.3 0.1 0.3 0.2 0.1 0.2", "coordinate", ["finite", "'nan'"]),
        ("0 0.1 0.1 0.3 x 0.3 0.2 0.1 0.2", "syntax", ["numbers", "'x'"]),
        ("0 0_1 0.1 0.3 0.1 0.3 0.2 0.1 0.2", "syntax", ["numbers", "'0_1'"]),
        ("0 16 12 48 12 48 24 16 24", "coordinate", ["normalised", "160 x 120", "'16'"]),
        ("0 0.1 -1.01 0.3 0.1 0.3 0.2 0.1 0.2", "coordinate", ["normalised", "'-1.01'"]),
    ],
)
def test_bad_lines(line: str, kind: str, parts: list[str]) -> None:
    problem = parse_line(line, Path("here"), 7, (120, 160), {0: "ship", 1: "plane"})
    assert isinstance(problem, Problem)
    assert (problem.kind, problem.line) == (kind, 7)
    for part in [*parts, line]:
        assert part in problem.message


def test_objects_may_reach_beyond_the_image() -> None:
    one = parse_line("0 -0.5 0.1 1.5 0.1 1.5 2 -1 2", Path("here"), 1, (120, 160), {0: "ship"})
    assert isinstance(one, LabelledObject)
    assert one.corners == pytest.approx((-80, 12, 240, 12, 240, 240, -160, 240))


def test_an_image_without_a_label_file_has_no_objects(tmp_path: Path) -> None:
    write_yolo_obb(tmp_path, "train", {**IMAGES, "b": [], "c": []})
    (tmp_path / "labels" / "train" / "c.txt").unlink()
    dataset = yolo(tmp_path)
    assert dataset.image_ids == ["a", "b", "c"]
    assert [len(labels) for labels in dataset._labels] == [1, 0, 0]
    assert yolo(tmp_path, drop_empty=True).image_ids == ["a"]
    (tmp_path / "labels" / "train" / "c.txt").symlink_to("a.txt.on-another-disk")
    with pytest.raises(DataError, match=r"c\.txt: every image needs a label file, this one is missing"):
        yolo(tmp_path)


def test_sizes_are_those_of_the_upright_image(tmp_path: Path) -> None:
    """Stored as 160 x 120 with the note that it is turned, an image is 120 x 160, and so are its labels."""
    write_yolo_obb(tmp_path, "train", IMAGES)
    file = tmp_path / "images" / "train" / "a.png"
    image = Image.open(file)
    image.load()
    image.getexif()[274] = 6
    image.save(file, exif=image.getexif())
    pixels, target = yolo(tmp_path).load(0)
    assert pixels.shape == (3, 160, 120)
    torch.testing.assert_close(torch.Tensor(target["boxes"]), torch.tensor([[24.0, 24, 24, 16, 0]]))


def test_a_broken_image_is_a_problem(tmp_path: Path) -> None:
    write_yolo_obb(tmp_path, "train", IMAGES)
    (tmp_path / "images" / "train" / "a.png").write_bytes(b"not an image")
    [problem] = reader.read(reader.listing(tmp_path, "train").items[0]).problems
    assert problem.kind == "broken_image"
    assert str(problem).count("a.png") == 1
    assert "must be decodable" in problem.message


def test_roboflows_layout(tmp_path: Path) -> None:
    """train/images and train/labels; what others call val is valid."""
    write_yolo_obb(tmp_path / "other", "train", IMAGES)
    for split in ("train", "valid"):
        write_images(tmp_path / split / "images", ["a", "b"], ".jpg")
        (tmp_path / split / "labels").mkdir()
        (tmp_path / split / "labels" / "a.txt").write_text(LINE.replace("0 ", "1 ", 1))
    (tmp_path / "data.yaml").write_text(
        "train: ../train/images\nval: ../valid/images\n\nnc: 2\nnames: ['cargo ship', 'ship']\n"
    )
    assert reader.splits(tmp_path) == ["other", "train", "valid"]
    assert yolo(tmp_path).classes == ["cargo-ship", "ship"]
    assert yolo(tmp_path, "val").load(0)[1]["labels"].tolist() == [1]
    assert reader.listing(tmp_path, "val").items == reader.listing(tmp_path, "valid").items


def test_an_undivided_folder(tmp_path: Path) -> None:
    """images/ and labels/ without splits, names in classes.txt, as Label Studio writes them."""
    write_images(tmp_path / "images", ["a"], ".jpg")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text(LINE)
    (tmp_path / "classes.txt").write_text("cargo ship\nplane\n")
    assert reader.splits(tmp_path) == []
    assert reader.recognises(tmp_path)
    assert yolo(tmp_path, "train").part == yolo(tmp_path, "val").part
    assert yolo(tmp_path).classes == ["cargo-ship", "plane"]
    (tmp_path / "classes.txt").rename(tmp_path / "labels" / "classes.txt")
    assert yolo(tmp_path).classes == ["cargo-ship", "plane"]
    assert reader.listing(tmp_path, "all").problems == []


@pytest.mark.parametrize(
    ("name", "text", "names"),
    [
        ("data.yaml", "names:\n  1: plane\n  0: ship", ["ship", "plane"]),
        ("dataset.yaml", "names: [ship, plane]", ["ship", "plane"]),
        ("anything.yml", "\ufeffnames: {'0': ship, '7': 747}", ["ship", "747"]),
        ("data.yaml", "nc: 3\nnames: [yes, no, 01]", ["yes", "no", "01"]),
        ("data.yaml", "names:\n- 12:30\n- null\n- 1e3\n- 2024-01-01", ["12:30", "null", "1e3", "2024-01-01"]),
        ("data.yaml", "names: {0: off, 1: 007, 2: .5}\nnc: 3\ntrain: no", ["off", "007", ".5"]),
        ("classes.txt", "yes\n01\n~\n", ["yes", "01", "~"]),
        ("classes.txt", "ship\r\nplane\r\n\r\n \n", ["ship", "plane"]),
        ("data.yaml", "old: &a [yes, no]\nnames: *a", ["yes", "no"]),
        ("data.yaml", "names: [cargo\u00a0ship, می\u200cشود]", ["cargo-ship", "می\u200cشود"]),
        ("data.yaml", "names: null\nnc: 3", None),
        ("data.yaml", "train: images/train", None),
        ("data.yaml", "", None),
        ("data.yaml", "- ship", None),
    ],
)
def test_names(name: str, text: str, names: list[str] | None, tmp_path: Path) -> None:
    write_yolo_obb(tmp_path, "train", IMAGES)
    (tmp_path / "data.yaml").unlink()
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert reader.class_names(tmp_path) == names
    assert yolo(tmp_path).classes == (names or ["0"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nc: 1\nnames: [ship\n", r"data\.yaml, line 3: data\.yaml must be YAML"),
        ("names: ship", r"data\.yaml: names must be a list .* got 'ship'"),
        ("names: []", r"names must be a list of different names"),
        ("names: [ship, ship]", r"different names, .* got {1: 'ship'}"),
        ("names: [cargo ship, cargo-ship]", r"different names, .* got {1: 'cargo-ship'}"),
        ("names: {ship: 0}", r"mapping from indices to them, got {'ship': '0'}"),
        ("names: {-1: ship}", r"mapping from indices to them, got {'-1': 'ship'}"),
        ("names: {010: ship}", r"mapping from indices to them, got {'010': 'ship'}"),
        (
            "names: {0: ship, 1: plane, 0: tug}",
            r"data\.yaml, line 1: .* hold a key once, '0' is in line 1 too",
        ),
        ("names: {0: ship, '0': plane}", r"'0' is in line 1 too"),
        ("names: [ship]\nnc: 1\nnames: [plane]", r"data\.yaml, line 3: .* 'names' is in line 1 too"),
        (
            "names: [ship, plane]\nnc: 3",
            r"nc must be the number of names, 2, got 3; correct it, or the names",
        ),
        ("names: {0: ship}\nnc: many", r"nc must be the number of names, 1, got 'many'"),
        ("names: [ship]\nnc: true", r"nc must be the number of names, 1, got True"),
        ("names: [ship]\nkpt_shape: [2, 2]", r"data\.yaml: labels must be oriented boxes, kpt_shape says"),
        ("names: [ship, ]\nnc: []", r"nc must be the number of names, 1, got \[\]"),
        ("names:\n- ship\n-\n", r"got {1: ''}"),
        ("names: [ship, ]\nnc: !!timestamp no", r"data\.yaml must be YAML"),
        ("names: [ship, [plane]]", r"got {1: \['plane'\]}"),
        ("names: [ship, ' ']", r"got {1: ' '}"),
        (f"names: {'[' * 800}", r"data\.yaml"),
        ("names: \x00", r"must be YAML"),
        ('names: [ship, "a\\0"]', r"data\.yaml: names must be a list of different names"),
    ],
)
def test_bad_names(text: str, message: str, tmp_path: Path) -> None:
    """One problem of the list, not one for each image; labels are read all the same."""
    write_yolo_obb(tmp_path, "train", IMAGES)
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(DataError, match=message):
        reader.class_names(tmp_path)
    listing = reader.listing(tmp_path, "train")
    assert [one.kind for one in listing.problems] == ["syntax"]
    assert [one.name for one in reader.read(listing.items[0]).objects] == ["0"]
    with pytest.raises(DataError, match=message):
        yolo(tmp_path, classes=["ship"])


def test_several_files_that_may_have_the_names(tmp_path: Path) -> None:
    """Any other YAML file counts only if it is the only one."""
    write_yolo_obb(tmp_path, "train", IMAGES)
    (tmp_path / "data.yaml").rename(tmp_path / "ships.yaml")
    assert reader.class_names(tmp_path) == ["ship"]
    (tmp_path / "model.yaml").write_text("names: [other]")
    assert reader.class_names(tmp_path) is None
    (tmp_path / "ships.yaml").rename(tmp_path / "data.yaml")
    assert reader.class_names(tmp_path) == ["ship"]


def test_a_test_set_and_orphans(tmp_path: Path) -> None:
    write_yolo_obb(tmp_path, "train", IMAGES)
    write_images(tmp_path / "images" / "test", ["t"], ".png")
    listing = reader.listing(tmp_path, "test")
    assert listing.unlabelled == tmp_path / "labels" / "test"
    with pytest.raises(DataError, match=r"labels/test is not there"):
        yolo(tmp_path, "test", ["ship"])
    (tmp_path / "labels" / "train" / "ghost.txt").write_text(LINE)
    assert [(one.kind, one.file.name) for one in reader.listing(tmp_path, "train").problems] == [
        ("orphan_labels", "ghost.txt")
    ]
    (tmp_path / "images" / "empty").mkdir()
    with pytest.raises(DataError, match=r"images/empty must hold images .*found none"):
        reader.listing(tmp_path, "empty")
