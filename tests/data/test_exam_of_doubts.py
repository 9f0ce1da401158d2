"""The second exam that every reader sits: what is written so that it can be read in two ways is never read as
the wrong one, and check and training say the same of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from dbf_ray.data.check import check_dataset
from dbf_ray.data.labelled import LabelledDataset
from dbf_ray.data.readers import READERS
from dbf_ray.errors import DataError
from tests.data.label_writers import FORMATS, SIZE, Images

SQUARE = (20.0, 28.0, 50.0, 28.0, 50.0, 36.0, 20.0, 36.0)
LABELS = {"dior": "ship", "hrsc": "ship", "hrsc_types": "ship"}
CORNERS = " ".join(f"{value:g}" for value in SQUARE)
SHARES = " ".join(f"{value / SIZE[1 - place % 2]:g}" for place, value in enumerate(SQUARE))
BNDBOX = "<bndbox><xmin>20</xmin><ymin>28</ymin><xmax>50</xmax><ymax>36</ymax></bndbox>"

Change = Callable[[str], str]  # of a label file's text


def replaced(old: str, new: str) -> Change:
    def change(text: str) -> str:
        assert old in text
        return text.replace(old, new)

    return change


def xml_box(box: str) -> Change:
    """The first object's box in DIOR's format."""

    def change(text: str) -> str:
        begin, end = text.index("<robndbox>"), text.index("</robndbox>") + len("</robndbox>")
        return text[:begin] + box + text[end:]

    return change


def annotation(**fields: object) -> Change:
    """Other fields of the first annotation in COCO's format."""

    def change(text: str) -> str:
        content = json.loads(text)
        content["annotations"][0] |= fields
        return json.dumps(content)

    return change


@dataclass(frozen=True)
class Doubt:
    """A label file with one object that is changed, and what is said of it; None: the box that is read."""

    change: Change
    says: str | None
    box: tuple[float, ...] = (35.0, 32.0, 30.0, 8.0, 0.0)


def dota(line: str) -> Change:
    return lambda text: f"{line}\n"


DOUBTS: dict[str, dict[str, Doubt]] = {
    "dota": {
        "a box and an angle": Doubt(dota("35 32 30 8 45 plane"), "6 fields, as boxes with an angle"),
        "an angle behind the class": Doubt(dota(f"{CORNERS} plane 45"), "difficult flag must be"),
        "class with a blank": Doubt(dota(f"{CORNERS} large plane 0"), "name the class 'large plane'"),
        "separated by commas": Doubt(dota(f"{CORNERS.replace(' ', ',')},plane,0"), None),
    },
    "dior": {
        "rotation beside": Doubt(
            xml_box(f"{BNDBOX}<angle>45</angle>"), "what turns a box must be understood"
        ),
        "CVAT's rotation": Doubt(
            xml_box(
                f"{BNDBOX}<attributes><attribute><name>rotation</name><value>45</value></attribute></attributes>"
            ),
            None,
            (35, 32, 30, 8, -45),
        ),
        "roLabelImg's box": Doubt(
            xml_box(
                "<robndbox><cx>35</cx><cy>32</cy><w>30</w><h>8</h><angle>0.5235987756</angle></robndbox>"
            ),
            None,
            (35, 32, 30, 8, -30),
        ),
        "no angle": Doubt(
            xml_box("<robndbox><cx>35</cx><cy>32</cy><w>30</w><h>8</h></robndbox>"), "it lacks"
        ),
    },
    "hrsc": {
        "no angle": Doubt(replaced("<mbox_ang>-0.000000</mbox_ang>", ""), "it lacks mbox_ang"),
        "an angle of another name": Doubt(replaced("mbox_ang>", "angle>"), "it lacks mbox_ang"),
        "an empty angle": Doubt(replaced("<mbox_ang>-0.000000", "<mbox_ang>"), "must be numbers, got ''"),
        "degrees": Doubt(replaced("<mbox_ang>-0.000000", "<mbox_ang>45"), "must be in radians"),
    },
    "yolo_obb": {
        "a box and an angle": Doubt(dota("0 0.2 0.3 0.2 0.1 0.785"), "6 fields, as boxes with an angle"),
        "a score behind": Doubt(dota(f"0 {SHARES} 0.9"), "10 fields"),
        "pixels": Doubt(dota(f"0 {CORNERS}"), "coordinates must be normalised"),
        "per cent": Doubt(dota("0 12.5 23.3 31.2 23.3 31.2 30 12.5 30"), "coordinates must be normalised"),
        "a little outside": Doubt(dota("0 -0.05 0.1 0.25 0.1 0.25 0.2 -0.05 0.2"), None, (16, 18, 48, 12, 0)),
        "below zero by more than an image": Doubt(
            dota("0 -1.5 0.1 0.3 0.1 0.3 0.2 -1.5 0.2"), "coordinates must be normalised"
        ),
    },
    "coco": {
        "rotation beside": Doubt(
            annotation(segmentation=[], bbox=[20, 28, 30, 8], angle=45), "what turns a box"
        ),
        "CVAT's rotation": Doubt(
            annotation(segmentation=[], bbox=[20, 28, 30, 8], attributes={"rotation": 45}),
            None,
            (35, 32, 30, 8, -45),
        ),
        "five numbers": Doubt(annotation(segmentation=[], bbox=[35, 32, 30, 8, 45]), "must have 4 numbers"),
        "a polygon that is not turned": Doubt(annotation(attributes={"rotation": 45}), "must say the same"),
        "a key twice": Doubt(replaced('"bbox": [0]', '"bbox": [1], "bbox": [2]'), "must hold a key once"),
        "two classes of one name": Doubt(
            replaced('"categories": [', '"categories": [{"id": 9, "name": "plane"}, '),
            "must differ in their names",
        ),
    },
}
DOUBTS["hrsc_types"] = DOUBTS["hrsc"]
ROWS = [(name, doubt) for name, doubts in DOUBTS.items() for doubt in doubts]


def written(name: str, root: Path) -> Path:
    """One object in two images each of train and val, and the label file of the first."""
    obj = (SQUARE, LABELS.get(name, "plane"), False)
    images: Images = {"a": [obj], "b": []}
    FORMATS[name].write(root, "train", images)
    FORMATS[name].write(root, "val", {"c": [obj], "d": []})
    return FORMATS[name].label_file(root, "train", "a")


def test_every_format_sits_the_exam() -> None:
    assert set(DOUBTS) == set(FORMATS)


@pytest.mark.parametrize(("name", "row"), ROWS, ids=lambda value: value)
def test_nothing_is_read_as_what_it_is_not(name: str, row: str, tmp_path: Path) -> None:
    doubt = DOUBTS[name][row]
    file = written(name, tmp_path)
    text = file.read_text()
    file.write_text(doubt.change(text.replace('"iscrowd"', '"bbox": [0], "iscrowd"')))
    if doubt.says is None:
        dataset = LabelledDataset(READERS[name], tmp_path)
        boxes = torch.Tensor(dataset.load(dataset.image_ids.index("a"))[1]["boxes"])
        torch.testing.assert_close(boxes, torch.tensor([doubt.box], dtype=torch.float32), atol=1e-3, rtol=0)
        assert check_dataset(tmp_path, READERS[name], workers=0).problems == []
        return
    with pytest.raises(DataError) as caught:
        LabelledDataset(READERS[name], tmp_path)
    message = str(caught.value)
    assert doubt.says in message
    assert str(file) in message
    assert len(message.splitlines()) == 1
    report = check_dataset(tmp_path, READERS[name], workers=0)
    assert report.errors >= 1
    assert any(doubt.says in problem.message for problem in report.problems)


@pytest.mark.parametrize("name", FORMATS)
def test_an_object_given_twice_is_named_with_both_places(name: str, tmp_path: Path) -> None:
    obj = (SQUARE, LABELS.get(name, "plane"), False)
    FORMATS[name].write(tmp_path, "train", {"a": [obj, obj], "b": []})
    FORMATS[name].write(tmp_path, "val", {"c": [obj], "d": []})
    [problem] = check_dataset(tmp_path, READERS[name], workers=0).problems
    assert problem.kind == "duplicate_object"
    assert problem.file == FORMATS[name].label_file(tmp_path, "train", "a")
    assert "same box as that of" in problem.message
