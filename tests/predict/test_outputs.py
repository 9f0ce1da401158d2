from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from dbf_ray.errors import ConfigError
from dbf_ray.evaluation import submission
from dbf_ray.evaluation.merge import Detections
from dbf_ray.evaluation.submission import text_names
from dbf_ray.geometry import box_iou_rotated_aligned, boxes_to_corners
from dbf_ray.merge import merge_files
from dbf_ray.predict.images import Picture
from dbf_ray.predict.outputs import Result, write_outputs, write_task1
from dbf_ray.reports.overlays import Layout
from tests.predict.conftest import make_folder

CLASSES = ["plane", "small vehicle", "ship"]


def random_found(count: int, seed: int) -> Detections:
    generator = torch.Generator().manual_seed(seed)
    boxes = torch.rand(count, 5, generator=generator) * torch.tensor(
        [900.0, 500, 30, 10, 180]
    ) + torch.tensor([50, 50, 12, 2, -90.0])
    return Detections(
        boxes,
        torch.rand(count, generator=generator).sort(descending=True).values,
        torch.randint(3, (count,), generator=generator),
    )


def result(name: str, found: Detections) -> Result:
    layout = Layout.of((600, 1000), 200)
    return Result(
        Picture(Path(f"{name}.tif"), name, (600, 1000), (1, 2)), found, layout, layout.canvas(), None
    )


def test_a_line_is_corners_class_and_score(tmp_path: Path) -> None:
    folder, found = (
        make_folder(tmp_path / "out"),
        Detections(torch.tensor([[20.0, 10, 8, 4, 90]]), torch.tensor([0.75]), torch.tensor([1])),
    )
    write_outputs(folder, result("sub/a", found), CLASSES, 0.3)
    assert (
        tmp_path / "out/labels/sub/a.txt"
    ).read_text() == "18.00 14.00 18.00 6.00 22.00 6.00 22.00 14.00 small-vehicle 0.75\n"
    feature = json.loads((tmp_path / "out/geojson/sub/a.geojson").read_text())["features"][0]
    assert feature["properties"]["class"] == "small vehicle"
    assert (tmp_path / "out/overlays/sub/a.jpg").is_file()


def test_task1_files_are_those_of_the_submission_writer(tmp_path: Path) -> None:
    """The other witness builds them from tensors, all images at once."""
    folder = make_folder(tmp_path / "out", ["dota"])
    images = {
        name: random_found(count, count) for name, count in (("sub/b__64__0___0", 40), ("a", 25), ("c", 0))
    }
    for name, found in images.items():
        write_outputs(folder, result(name, found), CLASSES, 0.3)
    write_task1(folder, list(images), CLASSES)
    shown = {Path(name).name: found for name, found in images.items()}
    submission.write_task1(shown, text_names(CLASSES), tmp_path / "wanted")
    for file in (tmp_path / "wanted").glob("*.txt"):
        assert (tmp_path / "out" / "Task1" / file.name).read_bytes() == file.read_bytes()
    with (
        zipfile.ZipFile(tmp_path / "out/Task1/submission.zip") as archive,
        zipfile.ZipFile(tmp_path / "wanted/submission.zip") as wanted,
    ):
        assert archive.namelist() == wanted.namelist()
        assert all(archive.read(name) == wanted.read(name) for name in wanted.namelist())


def test_task1_files_of_patches_can_be_merged(tmp_path: Path) -> None:
    folder, found = make_folder(tmp_path / "out", ["dota"]), random_found(30, 0)
    for name, shift in (("P1__1024__0___0", 0), ("P1__1024__40___0", 40)):
        moved = found._replace(boxes=found.boxes - torch.tensor([shift, 0, 0, 0, 0]))
        write_outputs(folder, result(name, moved), CLASSES, 0.3)
    write_task1(folder, ["P1__1024__0___0", "P1__1024__40___0"], CLASSES)
    merged = merge_files(tmp_path / "out" / "Task1", tmp_path / "merged")
    assert (merged.patches, len(merged.images), merged.detections) == (2, 1, 60)
    images, _ = submission.read_task1(tmp_path / "merged", text_names(CLASSES))
    assert 0 < len(images["P1"].scores) <= 30
    for box, score, label in zip(*images["P1"], strict=True):
        alike = (found.labels == label) & ((found.scores - score).abs() < 1e-5)
        assert (
            float(box_iou_rotated_aligned(found.boxes[alike], box.expand(int(alike.sum()), 5)).max()) > 0.99
        )


def test_images_of_one_name_in_different_folders_keep_their_folders_in_task1(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "out", ["dota"])
    for name in ("x/a 1", "y/a 1"):
        write_outputs(
            folder, result(name, random_found(2, 0)._replace(labels=torch.tensor([0, 0]))), CLASSES, 0.3
        )
    write_task1(folder, ["x/a 1", "y/a 1"], CLASSES)
    lines = (tmp_path / "out" / "Task1" / "Task1_plane.txt").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["x/a_1", "x/a_1", "y/a_1", "y/a_1"]
    corners = boxes_to_corners(random_found(2, 0).boxes.double())
    assert np.array([[float(value) for value in line.split()[2:]] for line in lines[:2]]) == pytest.approx(
        corners.numpy(), abs=0.006
    )


def test_names_in_text_files() -> None:
    assert text_names(["ship", "small  vehicle", "car/truck"]) == ["ship", "small-vehicle", "car-truck"]
    with pytest.raises(
        ConfigError, match=r"must differ in more than blanks and slashes, got 'a-b' twice in a b, a-b"
    ):
        text_names(["a b", "a-b"])
