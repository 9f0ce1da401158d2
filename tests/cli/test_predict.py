"""``dbf predict``: a real checkpoint on files; the detections are those of an evaluation, and what
is wrong is named.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dbf_ray.cli.predict import command, main
from dbf_ray.data import EvalView, make_dataset
from dbf_ray.evaluate import config_of, load_detector
from dbf_ray.evaluation.merge import as_found
from dbf_ray.evaluation.submission import read_task1
from dbf_ray.geometry import boxes_to_corners, corners_to_boxes, nms_rotated
from dbf_ray.predict import Options, predict
from dbf_ray.training.manifest import seal

Refused = Callable[..., str]
Trained = tuple[Path, list[str], str]


@pytest.fixture
def arguments(checkpoint: Path, root: Path, tmp_path: Path) -> list[str]:
    return [
        "--checkpoint",
        str(checkpoint),
        "--images",
        str(root / "val" / "images"),
        "--out",
        str(tmp_path / "out"),
        "--json",
    ]


def result_of(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def rows(file: Path) -> list[list[float]]:
    """Corners and score of each line."""
    return [
        [float(value) for value in (*line.split()[:8], line.split()[9])]
        for line in file.read_text().splitlines()
    ]


def test_the_detections_are_those_of_an_evaluation(
    arguments: list[str], checkpoint: Path, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 0
    result = result_of(capsys)
    assert (result["images"], result["windows"], result["skipped"], result["failed"]) == (2, 2, 0, [])
    detector, classes = load_detector(checkpoint, config_of(checkpoint))
    dataset = make_dataset("dota", "val", root=root, classes=classes)
    view = EvalView(dataset, 64)
    with torch.no_grad():
        images, targets = zip(*(view[index] for index in range(len(view))), strict=True)
        detections = detector(list(images))
    for name, detection, target in zip(dataset.image_ids, detections, targets, strict=True):
        found = as_found(detection["boxes"], detection["scores"], detection["labels"], target["scale"])
        wanted = torch.cat([boxes_to_corners(found.boxes.double()), found.scores.double()[:, None]], 1)
        written = torch.tensor(rows(tmp_path / "out" / "labels" / f"{name}.txt"), dtype=torch.float64)
        assert len(wanted) > 0
        assert written.numpy() == pytest.approx(wanted.numpy(), abs=0.02)
    assert result["detections"] == sum(len(detection["scores"]) for detection in detections)


def test_what_is_found_in_a_window_lies_where_the_window_does(
    checkpoint: Path, root: Path, tmp_path: Path
) -> None:
    """An image that fills a window of a large picture is seen as it is alone."""
    alone, large = tmp_path / "out", np.zeros((64 + 2 * 52, 64 + 4 * 52, 3), np.uint8)
    predict(checkpoint, root / "val" / "images" / "000.png", alone, say=lambda line: None)
    wanted = rows(alone / "labels" / "000.txt")[0]
    places = [(0, 0), (156, 104), (208, 0)]
    for x, y in places:
        large[y : y + 64, x : x + 64] = np.asarray(Image.open(root / "val" / "images" / "000.png"))
    Image.fromarray(large).save(tmp_path / "large.png")
    result = predict(
        checkpoint, tmp_path / "large.png", tmp_path / "large", Options(formats=("dota",)), lambda line: None
    )
    assert result["windows"] == 3 * 5
    found = np.array(rows(tmp_path / "large" / "labels" / "large.txt"))
    for x, y in places:
        moved = [*(value + (x, y)[index % 2] for index, value in enumerate(wanted[:8])), wanted[8]]
        assert np.abs(found - moved).max(1).min() < 0.03


def test_what_is_written(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    out, detections = tmp_path / "out", result_of(capsys)["detections"]
    settings = json.loads((out / "predict.json").read_text())
    assert (settings["window"], settings["overlap"], settings["image_size"], settings["classes"]) == (
        64,
        12,
        64,
        ["ship"],
    )
    for name in ("000", "001"):
        features = json.loads((out / "geojson" / f"{name}.geojson").read_text())["features"]
        assert len(features) == len(rows(out / "labels" / f"{name}.txt"))
        assert Image.open(out / "overlays" / f"{name}.jpg").size == (64, 64)
    images, classes = read_task1(out / "Task1")
    assert classes == ["ship"]
    assert sum(len(found.scores) for found in images.values()) == detections
    with zipfile.ZipFile(out / "Task1" / "submission.zip") as archive:
        assert archive.namelist() == ["Task1_ship.txt"]


def test_a_second_call_skips_what_is_complete_and_takes_what_is_new(
    arguments: list[str], root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 0
    first = result_of(capsys)
    shutil.copy(root / "train" / "images" / "003.png", root / "val" / "images" / "new.png")
    (root / "val" / "images" / "broken.png").write_text("no image")
    assert main([*arguments, "--batch", "1"]) == 1, "the exit status says that an image could not be read"
    printed = capsys.readouterr()
    result = json.loads(printed.out.splitlines()[-1])
    assert (result["images"], result["skipped"], [failure["image"] for failure in result["failed"]]) == (
        4,
        2,
        ["broken"],
    )
    assert "error: " in printed.err
    assert "broken.png" in printed.err
    assert result["detections"] > first["detections"]
    assert "1 could not be read" in printed.out


def test_one_image_as_geotiff(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rasterio = pytest.importorskip("rasterio", reason="writes GeoTIFF")
    file = tmp_path / "scene.tif"
    transform = rasterio.Affine(10, 0, 500_000, 0, -10, 1000)
    pixels = np.zeros((3, 100, 90), np.uint8)
    pixels[:, 40:57, 30:63] = 240
    with rasterio.open(
        file,
        "w",
        driver="GTiff",
        height=100,
        width=90,
        count=3,
        dtype="uint8",
        crs="EPSG:32631",
        transform=transform,
    ) as out:
        out.write(pixels)
    arguments[3] = str(file)
    assert main(arguments) == 0
    collection = json.loads((tmp_path / "out" / "geojson" / "scene.geojson").read_text())
    assert "WGS 84" in collection["coordinate_system"]
    (x, y), *_ = collection["features"][0]["geometry"]["coordinates"][0]
    assert (x, y) == pytest.approx((3.004, 0.005), abs=0.003)


def test_how_large_the_training_images_were_is_remembered(
    arguments: list[str], checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = json.loads((checkpoint / "record.json").read_text())
    assert record["window"] == 64
    record["window"] = 40
    (checkpoint / "record.json").write_text(json.dumps(record))
    seal(checkpoint)
    assert main(arguments) == 0
    assert "windows of 40 px (the long side of the images it was trained on)" in capsys.readouterr().err


def test_another_score_or_window_changes_what_is_found(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = {}
    for score in ("0", "0.05", "0.1"):
        assert main([*arguments[:-2], str(tmp_path / score), "--json", "--score", score]) == 0
        counts[score] = result_of(capsys)["detections"]
        assert all(
            row[8] > float(score) for file in (tmp_path / score / "labels").iterdir() for row in rows(file)
        )
    assert counts["0"] > counts["0.05"] > counts["0.1"] > 0
    assert (
        main([*arguments[:-2], str(tmp_path / "window"), "--json", "--window", "40", "--overlap", "30"]) == 0
    )
    assert result_of(capsys)["windows"] == 2 * 4 * 4


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (["--window", "0"], ["window must be >= 1", "got 0"]),
        (["--window", "x"], ["--window", "'x'", "--help"]),
        (["--overlap", "64"], ["overlap must be in [0, window) = [0, 64), got 64"]),
        (["--overlap", "-1"], ["got -1"]),
        (["--batch", "0"], ["batch must be >= 1, got 0"]),
        (["--score", "1"], ["score must be in [0, 1), got 1"]),
        (["--nms", "0"], ["nms must be an IoU in (0, 1], got 0"]),
        (["--formats", "dota,coco"], ["formats must be some of dota, geojson, overlay, got 'coco'"]),
        (["--formats", ""], ["formats must be some of"]),
        (["--overlay-size", "10"], ["overlay_size must be in 64..16384", "got 10"]),
        (["--overlay-score", "2"], ["overlay_score must be in [0, 1], got 2"]),
        (["--treshold", "2"], ["unknown option --treshold"]),
        (["--images", "nowhere"], ["images must be there, nowhere is not"]),
        (["--checkpoint", "nowhere"], ["nowhere is not a checkpoint"]),
    ],
)
def test_bad_options(
    options: Sequence[str], wanted: Sequence[str], arguments: list[str], refused: Refused
) -> None:
    line = refused(command, [*arguments, *options])
    for words in wanted:
        assert words in line


def test_an_output_folder_of_something_else(
    arguments: list[str], tmp_path: Path, refused: Refused, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out" / "labels").mkdir(parents=True)
    assert "out holds other files; give another" in refused(command, arguments)
    arguments[5] = str(tmp_path / "predictions")
    assert main(arguments) == 0
    capsys.readouterr()
    line = refused(command, [*arguments, "--window", "32"])
    for words in ("window 64 there, 32 now", "overlap 12 there, 6 now", "another --out"):
        assert words in line


def test_a_window_that_is_no_number(arguments: list[str], checkpoint: Path, refused: Refused) -> None:
    record = json.loads((checkpoint / "record.json").read_text())
    (checkpoint / "record.json").write_text(json.dumps({**record, "window": "large"}))
    seal(checkpoint)
    line = refused(command, arguments)
    assert "window in record.json must be a number of pixels >= 1, got 'large'; give --window" in line
    assert main([*arguments, "--window", "64"]) == 0


def test_interrupted_by_a_person(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> dict[str, Any]:
        raise KeyboardInterrupt

    monkeypatch.setattr("dbf_ray.cli.predict.predict", interrupted)
    assert main(arguments) == 130
    assert "the same command goes on from there" in capsys.readouterr().err


def test_suppression_is_the_chosen_one(arguments: list[str], tmp_path: Path) -> None:
    for nms in ("0.1", "0.9"):
        assert main([*arguments[:-2], str(tmp_path / nms), "--window", "40", "--nms", nms]) == 0
        table = torch.tensor(rows(tmp_path / nms / "labels" / "000.txt"))
        boxes = corners_to_boxes(table[:, :8])
        assert len(nms_rotated(boxes, table[:, 8], float(nms) + 0.02)) == len(boxes)
    counts = [len(rows(tmp_path / nms / "labels" / "000.txt")) for nms in ("0.1", "0.9")]
    assert counts[0] < counts[1]


def with_class(checkpoint: Path, name: str) -> None:
    """The checkpoint as if it were trained on a class of this name."""
    file = checkpoint / "record.json"
    record = json.loads(file.read_text())
    record["classes"] = [name]
    file.write_text(json.dumps(record))
    seal(file.parent)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("s" * 260, "names of files must be within 255 bytes, that of class "),
        ("a\udcb0", "names of classes must be text"),
    ],
    ids=["too long", "no text"],
)
def test_a_class_that_no_file_can_be_called_by(
    arguments: list[str], checkpoint: Path, tmp_path: Path, refused: Refused, name: str, message: str
) -> None:
    """Told before the work; without the files that would be called so, as is said, it is done."""
    with_class(checkpoint, name)
    told = refused(command, arguments)
    assert message in told
    assert "or write other formats than dota" in told
    assert main([*arguments, "--formats", "geojson,overlay"]) == 0
    features = json.loads((tmp_path / "out" / "geojson" / "000.geojson").read_text())["features"]
    assert {one["properties"]["class"] for one in features} <= {name}
