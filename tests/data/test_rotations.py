"""A rotation beside an upright box: the box is turned where a tool says how, and refused elsewhere."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from dbf_ray.cli import train
from dbf_ray.cli.options import run_command
from dbf_ray.cli.prepare_data import main
from dbf_ray.data.labelled import LabelledDataset, boxes_of
from dbf_ray.data.readers import READERS, LabelledObject, Problem
from dbf_ray.data.readers.coco_objects import parse_annotation
from dbf_ray.data.readers.dior import DiorReader
from dbf_ray.data.readers.rotations import box_corners
from tests.data.label_writers import Images, write_coco, write_dior

BOX = [20, 28, 30, 8]  # left, top, width, height: its centre is (35, 32)
UPRIGHT = [20, 28, 50, 28, 50, 36, 20, 36]
OBJECT = {"id": 7, "image_id": 10, "category_id": 1, "bbox": BOX, "segmentation": []}


def parsed(**fields: Any) -> LabelledObject | Problem:
    return parse_annotation({**OBJECT, **fields}, Path("here"), {1: "ship"})


def box(found: object) -> list[float]:
    assert isinstance(found, LabelledObject), found
    return list(boxes_of([found])[0].tolist())


def polygon(degrees: float, digits: int = 6) -> list[list[float]]:
    """The box turned clockwise about its centre, as a polygon."""
    corners = box_corners(35, 32, 30, 8, math.radians(degrees))
    return [[round(value, digits) for value in corners]]


@pytest.mark.parametrize(
    ("degrees", "expected"), [(45, -45), (30.0, -30), ("330", 30), (-10, 10), (135, 45), (180, 0)]
)
def test_cvats_rotation_turns_the_box_clockwise_about_its_centre(degrees: Any, expected: float) -> None:
    """Ours are counter-clockwise."""
    found = box(parsed(attributes={"occluded": False, "rotation": degrees}))
    assert found == pytest.approx([35, 32, 30, 8, expected])


def test_detectron2s_box_of_five_numbers() -> None:
    """XYWHA_ABS: about the centre, degrees, counter-clockwise."""
    assert box(parsed(bbox=[35, 32, 30, 8, 25], bbox_mode=4)) == pytest.approx([35, 32, 30, 8, 25])
    assert box(parsed(bbox_mode="BoxMode.XYWH_ABS")) == pytest.approx([35, 32, 30, 8, 0])


@pytest.mark.parametrize(
    "fields",
    [
        {"attributes": {"rotation": 0.0}},
        {"attributes": {"rotation": "0.0", "type": "cargo"}},
        {"attributes": {"rotation": None}, "rbbox": None, "angle": 0},
        {"attributes": {"orientation": "left", "camera_angle": 12.5, "hobby": "fishing"}},
        {"rbbox": [35, 32, 30, 8, 0], "isrbbox": False, "rotated": "no"},
        {"attributes": [{"rotation": 0}, 4, ["rotation", 0]], "note": "{rotation: 45}", "degrees": "south"},
        {"rotatedrect": [], "triangle": 3, "quadrangle": None, "radius": 5, "degree_of_damage": "much"},
        {"attributes": [{"name": "rotation", "value": 0}, {"name": "speed", "value": 9}]},
        {"keypoints": [1, 2, 2], "num_keypoints": 1, "score": 0.5, "rectangle": 45},
    ],
)
def test_what_does_not_turn_the_box(fields: dict[str, Any]) -> None:
    assert box(parsed(**fields)) == pytest.approx([35, 32, 30, 8, 0])


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"rotation": 45}, "rotation 45 beside it"),
        ({"rotation": 0.5}, "rotation 0.5"),
        ({"angle": "-30"}, "angle '-30'"),
        ({"theta": math.pi / 4}, "theta 0.785"),
        ({"bboxAngle": 10}, "bboxAngle 10"),
        ({"rotation_deg": 10}, "rotation_deg 10"),
        ({"attributes": {"angle": 45}}, "attributes.angle 45"),
        ({"attributes": {"Rotation": 45}}, "attributes.Rotation 45"),
        ({"extra": {"box": {"rotation": 45}}}, "extra.box.rotation 45"),
        ({"attributes": [{"name": "rotation", "value": 45}]}, "attributes: rotation 45"),
        ({"attributes": {"rotation": 45}, "angle": 45}, "angle 45"),
        ({"attributes": [{"rotation": 45}]}, "attributes: rotation 45"),
        ({"attributes": '{"rotation": 45}'}, "attributes: rotation 45"),
        ({"attributes": [["rotation", 45]]}, "attributes: rotation 45"),
        (
            {"attributes": [{"label": "rotation", "values": [45]}]},
            "must be a finite number, got [45]",
        ),
        ({"attributes": {"a": {"b": {"c": {"d": {"rotation": 45}}}}}}, "attributes.a.b.c.d.rotation 45"),
        ({"rotationangle": 45}, "rotationangle 45"),
        ({"rotdeg": 45}, "rotdeg 45"),
        ({"rotations": [45]}, "rotations must be a finite number, got [45]"),
        ({"θ": 0.3}, "θ 0.3"),
        ({"degrees": 45}, "degrees 45"),
        ({"minAreaRect": [35, 32, 30, 8, 45]}, "minAreaRect ["),
        ({"heading": 200}, "heading 200"),
        ({"rbbox": [35, 32, 30, 8, 45]}, "rbbox [35, 32, 30, 8, 45]"),
        ({"rotated_box": {"cx": 35, "angle": 3}}, "rotated_box {"),
        ({"rotatedBox": [1, 2, 3]}, "rotatedBox [1, 2, 3]"),
        ({"obb": [35, 32, 30, 8, 45]}, "obb ["),
        ({"poly": UPRIGHT}, "poly ["),
        ({"oriented_bbox": "35 32 30 8 45"}, "oriented_bbox '35 32"),
        ({"isrbbox": True}, "isrbbox True"),
        ({"rotated": True}, "rotated True"),
        ({"attributes": {"rotation": "a quarter"}}, "must be a finite number, got 'a quarter'"),
        ({"attributes": {"rotation": ""}}, "must be a finite number, got ''"),
        ({"attributes": {"rotation": math.nan}}, "must be a finite number, got nan"),
        ({"attributes": {"rotation": math.inf}}, "must be a finite number, got inf"),
        ({"attributes": {"rotation": [45]}}, "must be a finite number, got [45]"),
        ({"attributes": {"rotation": True}}, "must be a finite number, got True"),
        ({"attributes": {"rotation": 10**400}}, "must be a finite number"),
        ({"attributes": {"rotation": 4500}}, "360 at most, got 4500"),
        ({"angle": "nan"}, "must be a finite number, got 'nan'"),
        ({"bbox": [20, 28, 30, 8, 45]}, "nobody says what the angle's"),
        ({"bbox": [20, 28, 30, 8, 0]}, "nobody says what the angle's"),
        ({"bbox": [35, 32, 30, 8, math.nan], "bbox_mode": 4}, "must be a finite number, got nan"),
        ({"bbox": [35, 32, 30, 8, 9], "bbox_mode": 4, "angle": 9}, "angle 9"),
        ({"bbox_mode": 0}, "bbox_mode must say"),
        ({"bbox_mode": "pascal"}, "bbox_mode must say"),
    ],
)
def test_what_is_refused(fields: dict[str, Any], says: str) -> None:
    problem = parsed(**fields)
    assert isinstance(problem, Problem)
    assert problem.kind == "syntax"
    assert problem.message.startswith("annotation 7: ")
    assert says in problem.message


@pytest.mark.parametrize(
    "fields",
    [
        {"segmentation": polygon(45), "attributes": {"rotation": 45}},
        {"segmentation": polygon(45, 0), "attributes": {"rotation": 45}},  # rounded to whole pixels
        {"segmentation": polygon(135), "attributes": {"rotation": 45.0}},  # another first side
        {"segmentation": polygon(30), "angle": -30},
        {"segmentation": polygon(30), "theta": math.radians(60)},  # of the other side, the other way
        {"segmentation": [UPRIGHT], "angle": 90},  # as OpenCV says it
        {"segmentation": [UPRIGHT], "attributes": {"rotation": 180}},
        {"segmentation": [[20, 28, 50, 28, 60, 36, 30, 36]], "attributes": {"rotation": 45}},  # no rectangle
        {"segmentation": [[17, 57, 32, 58, 31, 65, 1, 62, 17, 60]], "angle": 60},
        {"segmentation": polygon(30), "rbbox": [35, 32, 30, 8, -15], "isrbbox": True, "rotated": True},
        {"segmentation": polygon(30), "heading": 211},
    ],
)
def test_a_polygon_counts_where_the_rotation_does_not_contradict(fields: dict[str, Any]) -> None:
    found, alone = parsed(**fields), parsed(segmentation=fields["segmentation"])
    assert isinstance(found, LabelledObject), found
    assert found == alone


@pytest.mark.parametrize(
    "fields",
    [
        {"segmentation": [UPRIGHT], "attributes": {"rotation": 45}},
        {"segmentation": [UPRIGHT], "attributes": {"rotation": 2}},
        {"segmentation": [UPRIGHT], "attributes": {"rotation": 90}},  # before or after it was turned?
        {"segmentation": [UPRIGHT], "rotation": 45},
        {"segmentation": polygon(20), "attributes": {"rotation": 45}},
        {"segmentation": polygon(-30), "attributes": {"rotation": 30}},  # turned the wrong way
        {"segmentation": polygon(20), "angle": "x"},
    ],
)
def test_a_polygon_that_the_rotation_contradicts_is_refused(fields: dict[str, Any]) -> None:
    problem = parsed(**fields)
    assert isinstance(problem, Problem)
    assert "must say the same" in problem.message or "must be a finite number" in problem.message


def xml_object(inner: str) -> str:
    return f"<object>\n<name>ship</name>\n<difficult>0</difficult>\n{inner}</object>\n"


BNDBOX = "<bndbox><xmin>20</xmin><ymin>28</ymin><xmax>50</xmax><ymax>36</ymax></bndbox>\n"


def read_xml_object(root: Path, inner: str) -> LabelledObject | Problem:
    """The one object of an image in DIOR's format, which begins in line 2."""
    write_dior(root, "train", {"a": []})
    reader = DiorReader()
    [item] = reader.listing(root, "train").items
    assert item.labels is not None
    item.labels.write_text(f"<annotation>\n{xml_object(inner)}</annotation>\n")
    labels = reader.read(item)
    [found] = [*labels.objects, *labels.problems]
    return found


def attribute(name: str, value: str) -> str:
    return f"<attribute><name>{name}</name><value>{value}</value></attribute>"


@pytest.mark.parametrize(
    ("inner", "expected"),
    [
        (f"{BNDBOX}<attributes>{attribute('rotation', '45.0')}</attributes>", -45),  # CVAT
        (f"{BNDBOX}<attributes>{attribute('rotation', '0.0')}</attributes>", 0),
        (f"{BNDBOX}<angle>0</angle><pose>Left</pose>", 0),
        (  # roLabelImg: clockwise, radians
            "<type>robndbox</type><robndbox><cx>35</cx><cy>32</cy><w>30</w><h>8</h>"
            f"<angle>{math.radians(30)}</angle></robndbox>",
            -30,
        ),
        (f"{BNDBOX}<part><name>bow</name><angle>30</angle></part>", 0),
    ],
)
def test_boxes_in_xml(inner: str, expected: float, tmp_path: Path) -> None:
    assert box(read_xml_object(tmp_path, inner)) == pytest.approx([35, 32, 30, 8, expected])


def test_corners_in_xml_count_whatever_stands_beside(tmp_path: Path) -> None:
    """DIOR-R writes an angle beside them."""
    corners = box_corners(35, 32, 30, 8, math.radians(20))
    names = [f"{axis}_{c}" for c in ("left_top", "right_top", "right_bottom", "left_bottom") for axis in "xy"]
    inner = "".join(f"<{name}>{value}</{name}>" for name, value in zip(names, corners, strict=True))
    found = read_xml_object(tmp_path, f"<robndbox>{inner}</robndbox><angle>77</angle>{BNDBOX}")
    assert box(found) == pytest.approx([35, 32, 30, 8, -20])


@pytest.mark.parametrize(
    ("inner", "says"),
    [
        (f"{BNDBOX}<angle>45</angle>", "angle '45' beside it"),
        (f"{BNDBOX}<rotation>0.78</rotation>", "rotation '0.78'"),
        (f"{BNDBOX}<angle></angle>", "angle must be a finite number, got ''"),
        (f"{BNDBOX}<attributes>{attribute('rotation', 'nan')}</attributes>", "must be a finite number"),
        (f"{BNDBOX}<attributes>{attribute('angle', '45')}</attributes>", "attributes.angle '45'"),
        (f'{BNDBOX}<attributes><attribute name="rotation" value="45"/></attributes>', "rotation '45'"),
        (f'{BNDBOX}<attributes><attribute name="rotation">45</attribute></attributes>', "rotation '45'"),
        (f"{BNDBOX}<attributes><item><key>rotation</key><value>45</value></item></attributes>", "n '45'"),
        (BNDBOX.replace("</bndbox>", "<theta>1</theta></bndbox>"), "bndbox.theta '1'"),
        (BNDBOX.replace("<bndbox>", '<bndbox angle="30">'), "bndbox.angle '30'"),
        (f"{BNDBOX}<polygon><x1>20</x1><y1>28</y1></polygon>", "polygon '20 28'"),
        (f"{BNDBOX}<rbox>35 32 30 8 1</rbox>", "rbox '35 32 30 8 1'"),
        ("<robndbox><cx>35</cx><cy>32</cy><w>30</w><h>8</h></robndbox>", "it lacks x_left_top"),
        ("<robndbox><cx>35</cx><cy>32</cy><w>30</w><h>8</h><angle/></robndbox>", "must be numbers, got ''"),
        ("<robndbox><cx>35</cx><cy>32</cy><w>30</w><h>8</h><angle>45</angle></robndbox>", "radians"),
        ("<robndbox><cx>35</cx><cy>32</cy><w>-3</w><h>8</h><angle>1</angle></robndbox>", "must be positive"),
    ],
)
def test_xml_that_is_refused(inner: str, says: str, tmp_path: Path) -> None:
    problem = read_xml_object(tmp_path, inner)
    assert isinstance(problem, Problem)
    assert problem.line is not None
    assert says in problem.message


IMAGES: Images = {"a": [(tuple(map(float, UPRIGHT)), "ship", False)], "b": []}


def coco_root(root: Path, **fields: Any) -> Path:
    write_coco(root, "train", IMAGES)
    write_coco(root, "val", {"c": IMAGES["a"]})
    file = root / "annotations" / "train.json"
    content = json.loads(file.read_text())
    content["annotations"][0] |= {"bbox": BOX, "segmentation": [], **fields}
    file.write_text(json.dumps(content))
    return file


def test_commands_and_the_next_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """CVAT's box is turned; another key's is refused by check and train, whose next step then works."""
    root, runs = tmp_path / "data", tmp_path / "runs"
    command = ["--data.name", "coco", "--data.root", str(root), "--runs_dir", str(runs)]
    coco_root(root, attributes={"rotation": 45})
    boxes = LabelledDataset(READERS["coco"], root).load(0)[1]["boxes"]
    torch.testing.assert_close(torch.Tensor(boxes), torch.tensor([[35.0, 32, 30, 8, -45]]))
    assert main(["check", str(root), "--workers", "0"]) == 0
    file = coco_root(root, rotation=45)
    capsys.readouterr()
    assert main(["check", str(root), "--workers", "0"]) == 1
    assert f"{file}: annotation 100: what turns a box" in capsys.readouterr().out
    assert run_command(train.command, command) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert "give the four corners in segmentation, or remove rotation" in error
    assert not runs.exists()
    coco_root(root, rotation=45, segmentation=polygon(45))
    assert main(["check", str(root), "--workers", "0"]) == 0
