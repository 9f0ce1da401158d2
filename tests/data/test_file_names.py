"""What files are called: an image is its path below the folder of images; names of other systems; check and
training always agree.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dbf_ray.data.check import check_dataset
from dbf_ray.data.images.files import check_image
from dbf_ray.data.images.rasters import open_raster
from dbf_ray.data.labelled import LabelledDataset
from dbf_ray.data.patches.cutting import SplitCounts, SplitSettings, run_task
from dbf_ray.data.patches.originals import originals_of
from dbf_ray.data.patches.split import prepare_out, split_work
from dbf_ray.data.readers import READERS
from dbf_ray.data.readers.dota import DotaReader
from dbf_ray.data.samples import Subset, scene_of, split_selection
from dbf_ray.errors import DataError
from tests.data.check.outcomes import refused
from tests.data.label_writers import FORMATS, Images

every_format = pytest.mark.parametrize("name", ["dota", "dior", "hrsc", "yolo_obb", "coco"])
SHIP = ((20.0, 20.0, 60.0, 20.0, 60.0, 40.0, 20.0, 40.0), "ship", False)
LOWER = ((20.0, 80.0, 60.0, 80.0, 60.0, 100.0, 20.0, 100.0), "ship", False)
SITES: Images = {"siteA/0001": [SHIP], "siteB/0001": [SHIP, LOWER], "0002": [LOWER]}
GBK = os.fsdecode("影像".encode("gbk"))


def write(root: Path, name: str, images: Images) -> Path:
    FORMATS[name].write(root, "train", images)
    FORMATS[name].write(root, "val", {"v1": [SHIP]})
    return root


def taken(root: Path, name: str) -> dict[str, int]:
    """Objects by image of the training split, which check and training take without a word."""
    report = check_dataset(root, READERS[name], workers=0)
    assert [str(problem) for problem in report.problems] == []
    assert refused(root, READERS[name]) == ""
    dataset = LabelledDataset(READERS[name], root)
    return {image: len(labels) for image, labels in zip(dataset.image_ids, dataset._labels, strict=True)}


def kinds(root: Path, name: str) -> list[str]:
    """Kinds of problems of a folder; a training refuses it if, and only if, the check says so."""
    report = check_dataset(root, READERS[name], workers=0)
    assert bool(refused(root, READERS[name])) == bool(report.refused)
    return [problem.kind for problem in report.problems]


def renamed(root: Path, pattern: str, change: Callable[[Path], str]) -> None:
    files = sorted(file for file in root.rglob("*") if file.is_file() and file.match(pattern))
    assert files
    for file in files:
        file.rename(file.with_name(change(file)))


@every_format
def test_images_of_one_name_in_different_folders(name: str, tmp_path: Path) -> None:
    """They are a data set, each with its own labels, and so are their patches, with the objects of the uncut
    images.
    """
    root = write(tmp_path / "data", name, SITES)
    assert taken(root, name) == {"siteA/0001": 1, "siteB/0001": 2, "0002": 1}
    report = check_dataset(root, READERS[name], workers=0)
    assert any("siteA/0001, siteB/0001" in note and "Task 1" in note for note in report.notes)
    settings, out = SplitSettings(100, 50), tmp_path / "patches"
    for _ in range(2):
        work = split_work(READERS[name], root, out, settings)
        assert prepare_out(work, root, out, settings) == 0
        counts = sum((run_task(task) for task in work.tasks), SplitCounts())
    assert counts.kept == 4 * 6
    patches = LabelledDataset(DotaReader(), out)
    assert sorted({scene_of(image) for image in patches.image_ids}) == sorted(SITES)
    originals = originals_of(patches)
    assert originals is not None
    assert {image: len(one["boxes"]) for image, one in originals.items()} == taken(root, name)
    assert (out / "train" / "originals" / "siteB" / "0001.txt").is_file()
    assert taken(out, "dota").keys() == set(patches.image_ids)
    held = split_selection(patches, 0.4, 0)[1]
    assert originals_of(held) is not None
    assert {scene_of(image) for image in held.image_ids} < set(SITES)


def test_patches_of_images_that_are_gone_go_from_sub_folders_too(tmp_path: Path) -> None:
    root, out, settings = write(tmp_path / "data", "dota", SITES), tmp_path / "out", SplitSettings(100, 50)
    for removed in (0, 6):
        work = split_work(DotaReader(), root, out, settings)
        assert prepare_out(work, root, out, settings) == removed
        for task in work.tasks:
            run_task(task)
        for part in ("images", "labelTxt"):
            shutil.rmtree(root / "train" / part / "siteA", ignore_errors=True)
    assert not (out / "train" / "images" / "siteA").exists()
    assert not (out / "train" / "originals" / "siteA").exists()
    assert len(list((out / "train" / "images" / "siteB").iterdir())) == 6


@every_format
def test_splits_that_count_alike_are_told_apart_when_taken_together(name: str, tmp_path: Path) -> None:
    root = tmp_path
    FORMATS[name].write(root, "train", {"a": [SHIP]})
    FORMATS[name].write(root, "val", {"a" if name not in ("dior", "hrsc") else "b": [SHIP, LOWER]})
    both = LabelledDataset(READERS[name], root, "train+val")
    expected = ["a", "b"] if name in ("dior", "hrsc") else ["train/a", "val/a"]
    assert (both.image_ids, [len(labels) for labels in both._labels]) == (expected, [1, 2])
    assert Subset(both, [1]).image_ids == expected[1:]
    with pytest.raises(DataError, match="no image in common, train and train have this one; leave"):
        LabelledDataset(READERS[name], root, "train+train")


@every_format
def test_folders_with_two_underlines_are_no_patches(name: str, tmp_path: Path) -> None:
    images: Images = {f"my__site/{number}": [SHIP] for number in range(3)}
    root = write(tmp_path, name, images)
    assert {scene_of(image) for image in taken(root, name)} == set(images)


@every_format
def test_suffixes_in_any_case_of_letters(name: str, tmp_path: Path) -> None:
    root = write(tmp_path, name, SITES)
    for suffix in (".txt", ".xml", ".json", ".png", ".jpg", ".bmp", ".yaml"):
        if any(file.suffix == suffix for file in root.rglob("*")):
            renamed(root, f"*{suffix}", lambda file: file.stem + file.suffix.title())
    assert taken(root, name) == {"siteA/0001": 1, "siteB/0001": 2, "0002": 1}
    if name == "yolo_obb":
        next(root.glob("data.*")).unlink()
        (root / "Classes.TXT").write_text("ship\n")
        (root / "classes.TXT").write_text("boat\n")
        (root / "labels" / "train" / "classes.TXT").write_text("boat\n")
        assert LabelledDataset(READERS[name], root).classes == ["boat"]
        assert kinds(root, name) == []


@every_format
def test_names_that_differ_in_capitals_alone(name: str, tmp_path: Path) -> None:
    """Each has its own labels; and as on systems that do not tell them apart, one label file of other
    capitals is found.
    """
    root = write(tmp_path, name, {"One": [SHIP], "one": [SHIP, LOWER], "two": [LOWER]})
    assert taken(root, name) == {"One": 1, "one": 2, "two": 1}
    if name != "coco":
        renamed(root, "two.[tx][xm][tl]", lambda file: file.name.upper())
        assert taken(root, name) == {"One": 1, "one": 2, "two": 1}


@every_format
def test_what_systems_leave_is_passed_over(name: str, tmp_path: Path) -> None:
    root = write(tmp_path, name, SITES)
    for file in [file for file in root.rglob("*") if file.is_file()]:
        file.with_name(f"._{file.name}").write_bytes(b"\x00\x05\x16\x07Mac OS X")
        for left in (".DS_Store", "Thumbs.db", "desktop.ini"):
            (file.parent / left).write_bytes(b"\x00\x01")
    copy = shutil.copytree(root, tmp_path / "copy")
    shutil.move(copy, root / "__MACOSX")
    if name == "yolo_obb":
        shutil.copytree(root / "__MACOSX" / "images", root / "images" / "__MACOSX")
        shutil.copytree(root / "__MACOSX", root / "$RECYCLE.BIN")
    assert taken(root, name) == {"siteA/0001": 1, "siteB/0001": 2, "0002": 1}


@pytest.mark.parametrize("name", ["dota", "dior", "hrsc", "yolo_obb"])
@pytest.mark.parametrize(("suffix", "kind"), [(".webp", "WebP"), (".HEIC", "HEIC"), (".jp2", "JPEG 2000")])
def test_images_of_types_that_are_not_read_are_named(
    name: str, suffix: str, kind: str, tmp_path: Path
) -> None:
    """And converted to PNG, as the message says, they are read, with what they were made of beside them."""
    root = write(tmp_path / "data", name, SITES)
    file = next(file for file in root.rglob("siteA/0001.*") if file.suffix in (".png", ".jpg", ".bmp"))
    with Image.open(file) as picture:
        converted = picture.copy()
    other = file.rename(file.with_suffix(suffix))
    assert kinds(root, name) == ["unread_image"]
    message = f"{other}: images must be .png, .jpg, .jpeg, .bmp, .tif, .tiff, this is a {kind} image"
    assert refused(root, READERS[name]).startswith(message)
    with pytest.raises(DataError, match="which is not read; convert it to PNG"):
        split_work(READERS[name], root, tmp_path / "out", SplitSettings(100, 50))
    assert not (tmp_path / "out").exists()
    converted.save(file.with_suffix(".png"))
    assert taken(root, name) == {"siteA/0001": 1, "siteB/0001": 2, "0002": 1}


def test_a_folder_of_nothing_but_another_type_says_so(tmp_path: Path) -> None:
    root = write(tmp_path, "yolo_obb", {"a": [SHIP]})
    renamed(root, "images/train/*", lambda file: "a.webp")
    with pytest.raises(DataError, match=r"found none, but a\.webp: .* this is a WebP image, .* to PNG"):
        LabelledDataset(READERS["yolo_obb"], root)


def test_a_phones_picture_under_another_name_is_told(tmp_path: Path) -> None:
    root = write(tmp_path, "dota", {"a": [SHIP]})
    (root / "train" / "images" / "a.png").write_bytes(b"\x00\x00\x00\x24ftypheic" + bytes(40))
    assert kinds(root, "dota") == ["broken_image"]
    assert "this is a HEIC image" in refused(root, READERS["dota"])


@every_format
def test_two_images_that_differ_in_their_suffix_are_refused(name: str, tmp_path: Path) -> None:
    root = write(tmp_path, name, SITES)
    file = next(file for file in root.rglob("siteA/0001.*") if file.suffix in (".png", ".jpg", ".bmp"))
    with Image.open(file) as picture:
        Image.fromarray(np.asarray(picture)[:, ::-1]).save(file.with_suffix(".tif"))
    if name == "coco":
        listed = root / "annotations" / "train.json"
        content = json.loads(listed.read_text())
        content["images"].append({"id": 99, "file_name": "siteA/0001.tif"})
        listed.write_text(json.dumps(content))
    assert kinds(root, name) == ["duplicate_name"]
    assert "0001" in refused(root, READERS[name])


@every_format
def test_names_that_are_not_utf_8(name: str, tmp_path: Path) -> None:
    """In folders of images they are as good as others, and in JSON that Python wrote; lists must be text."""
    root = write(tmp_path, name, {"plain": [SHIP]}) if name in ("dior", "hrsc") else None
    if root is not None:
        listed = next(root.rglob("train.txt"))
        listed.write_bytes(listed.read_bytes() + os.fsencode(f"{GBK}\n"))
        assert kinds(root, name) == ["broken_split"]
        assert "lists of images must be UTF-8 text" in refused(root, READERS[name])
        return
    root = write(tmp_path / "data", name, {GBK: [SHIP], f"{GBK}/b": [SHIP, LOWER]})
    assert taken(root, name) == {GBK: 1, f"{GBK}/b": 2}
    out, settings = tmp_path / "out", SplitSettings(100, 50)
    work = split_work(READERS[name], root, out, settings)
    prepare_out(work, root, out, settings)
    assert sum((run_task(task) for task in work.tasks), SplitCounts()).written == 3 * 6
    kept, held = split_selection(LabelledDataset(DotaReader(), out), 0.5, 0)
    assert len(kept) == len(held) == 6


LISTED = {
    "folders of another system": ("siteA\\0001.png", "siteB\\0001.png"),
    "from another machine": ("C:\\data\\siteA\\0001.png", "/home/me/siteB/0001.png"),
    "from the folder of the JSON file": (
        "../images/train/siteA/0001.png",
        "../images/train/siteB/../siteB/0001.png",
    ),
    "other capitals": ("SITEA/0001.PNG", "siteB/0001.Png"),
    "from the top": ("images/train/siteA/0001.png", "./images/train//siteB/0001.png"),
    "whole paths": ("{root}/images/train/siteA/0001.png", "{root}/images/train/siteB/0001.png"),
}


@pytest.mark.parametrize("case", LISTED)
def test_names_that_a_list_of_another_machine_holds(case: str, tmp_path: Path) -> None:
    root = write(tmp_path, "coco", SITES)
    listed = root / "annotations" / "train.json"
    content = json.loads(listed.read_text())
    for entry, name in zip(content["images"], LISTED[case], strict=False):
        entry["file_name"] = name.format(root=root)
    listed.write_text(json.dumps(content))
    assert taken(root, "coco") == {"siteA/0001": 1, "siteB/0001": 2, "0002": 1}


def test_listed_images_outside_of_the_data_keep_their_whole_path(tmp_path: Path) -> None:
    root = write(tmp_path / "data", "coco", SITES)
    (root / "images" / "train" / "siteA").rename(tmp_path / "elsewhere")
    listed = root / "annotations" / "train.json"
    content = json.loads(listed.read_text())
    content["images"][0]["file_name"] = "../../../elsewhere/0001.png"
    listed.write_text(json.dumps(content))
    elsewhere = (tmp_path / "elsewhere" / "0001").as_posix().lstrip("/")
    listed.rename(root / "images" / "train.json")
    listed.parent.joinpath("val.json").rename(root / "images" / "val.json")
    for part in ("train", "val"):
        (root / part).mkdir()
        (root / "images" / f"{part}.json").rename(root / part / "_annotations.coco.json")
    content["images"][0]["file_name"] = str(tmp_path / "elsewhere" / "0001.png")
    (root / "train" / "_annotations.coco.json").write_text(json.dumps(content))
    assert taken(root, "coco") == {elsewhere: 1, "siteB/0001": 2, "0002": 1}


@pytest.mark.parametrize("lines", ["siteA\\0001\nsiteB\\0001\n", "./siteA/0001.jpg\n/x/siteB/0001.jpg\n"])
def test_lists_of_another_machine(lines: str, tmp_path: Path) -> None:
    root = write(tmp_path, "dior", SITES)
    (root / "ImageSets" / "Main" / "train.txt").write_text(lines)
    assert taken(root, "dior") == {"siteA/0001": 1, "siteB/0001": 2}


@every_format
def test_a_split_to_evaluate_on_needs_labels(name: str, tmp_path: Path) -> None:
    if name in ("dior", "hrsc"):
        pytest.skip("labels are those of all splits together")
    root = write(tmp_path, name, SITES)
    if name == "coco":
        file = root / "annotations" / "val.json"
        content = json.loads(file.read_text())
        del content["annotations"]
        file.write_text(json.dumps(content))
    else:
        shutil.rmtree(root / ("val/labelTxt" if name == "dota" else "labels/val"))
    assert kinds(root, name) == ["missing_labels"]


def test_folders_within_yolos_and_dotas_images(tmp_path: Path) -> None:
    """Those of usual names are splits, of others parts of one set where images lie beside them; nothing is
    left out in silence.
    """
    write(tmp_path / "a", "yolo_obb", {"0001": [SHIP]})
    shutil.copy(tmp_path / "a/images/train/0001.png", tmp_path / "a/images/stray.png")
    assert READERS["yolo_obb"].splits(tmp_path / "a") == ["train", "val"]
    assert kinds(tmp_path / "a", "yolo_obb") == ["left_out"]
    root = write(tmp_path / "b", "yolo_obb", SITES)
    for part in ("images", "labels"):
        shutil.rmtree(root / part / "val")
        for entry in list((root / part / "train").iterdir()):
            entry.rename(root / part / entry.name)
        (root / part / "train").rmdir()
    assert READERS["yolo_obb"].splits(root) == []
    assert LabelledDataset(READERS["yolo_obb"], root).image_ids == ["0002", "siteA/0001", "siteB/0001"]
    (root / "labels").rename(root / "labelTxt")
    for file in root.rglob("*.txt"):
        file.write_text("20 20 60 20 60 40 20 40 ship\n")
    assert LabelledDataset(DotaReader(), root).image_ids == ["0002", "siteA/0001", "siteB/0001"]
    for part in ("images", "labelTxt"):
        (root / part / "0002").with_suffix(".png" if part == "images" else ".txt").unlink()
        (root / part / "siteA").rename(root / part / "train")
        (root / part / "siteB").rename(root / part / "val")
    assert taken(root, "dota") == {"0001": 1}
    with pytest.raises(DataError, match=r"one of those that are there \(train, val\), got 'test'"):
        LabelledDataset(DotaReader(), root, "test")


def test_an_image_whose_patches_would_have_names_too_long(tmp_path: Path) -> None:
    """Refused before anything is written; a name that just fits is cut."""
    settings = SplitSettings(100, 50)
    for length, fits in ((255 - len("__100__60___20.png"), True), (240, False)):
        root, out = write(tmp_path / f"{length}", "dota", {"n" * length: [SHIP]}), tmp_path / f"out{length}"
        if not fits:
            with pytest.raises(
                DataError, match=r"names of files must be within 255 bytes, .* 258 bytes; give"
            ):
                split_work(DotaReader(), root, out, settings)
            assert not out.exists()
            continue
        work = split_work(DotaReader(), root, out, settings)
        prepare_out(work, root, out, settings)
        assert sum((run_task(task) for task in work.tasks), SplitCounts()).written == 2 * 6


@pytest.mark.parametrize("suffix", [".bmp", ".tif", ".png", ".jpg"])
def test_images_that_are_cut_off(suffix: str, tmp_path: Path) -> None:
    """A training that looks at headers alone sees what a check sees that decodes."""
    root = write(tmp_path, "dota", {"a": [SHIP]})
    file = root / "train" / "images" / "a.png"
    with Image.open(file) as picture:
        picture.save(file.with_suffix(suffix))
    if suffix != ".png":
        file.unlink()
    assert taken(root, "dota") == {"a": 1}
    content = file.with_suffix(suffix).read_bytes()
    file.with_suffix(suffix).write_bytes(content[: len(content) * 2 // 3])
    assert kinds(root, "dota") == ["broken_image"]


def test_images_that_are_too_large_to_train_on_are_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write(tmp_path / "data", "dota", {"a": [SHIP]})
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    report = check_dataset(root, READERS["dota"], workers=0)
    assert report.problems == []
    assert any("2 images are too large to train on as they are" in note for note in report.notes)
    assert "split it into patches" in refused(root, READERS["dota"])
    assert len(split_work(READERS["dota"], root, tmp_path / "out", SplitSettings(100, 50)).tasks) == 2


@pytest.mark.parametrize("name", ["dota", "yolo_obb"])
def test_two_label_files_of_one_image_are_refused(name: str, tmp_path: Path) -> None:
    root = write(tmp_path, name, SITES)
    file = FORMATS[name].label_file(root, "train", "siteA/0001")
    file.with_suffix(".TXT").write_text("")
    assert kinds(root, name) == ["duplicate_name"]
    assert refused(root, READERS[name]).startswith(
        f"{file.with_suffix('.TXT')}: an image must have one label"
    )
    file.with_suffix(".TXT").unlink()
    assert taken(root, name)["siteA/0001"] == 1


def test_tiff_files_whose_names_are_not_utf_8(tmp_path: Path) -> None:
    """Read without rasterio, which takes no such names, or named where only rasterio could."""
    rasterio = pytest.importorskip("rasterio", reason="writes TIFF files of several deep bands")
    file, deep = tmp_path / f"{GBK}.tif", tmp_path / f"{GBK}-deep.tif"
    pixels = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file)
    with open_raster(file) as raster:
        assert (raster.read(0, 0, 30, 20).permute(1, 2, 0).numpy() == pixels).all()
    with rasterio.open(
        tmp_path / "deep.tif", "w", driver="GTiff", height=20, width=30, count=4, dtype="uint16"
    ) as out:
        out.write(np.ones((4, 20, 30), np.uint16))
    (tmp_path / "deep.tif").rename(deep)
    with pytest.raises(DataError, match="which takes no names that are not UTF-8; rename it"):
        check_image(deep)
    assert check_image(deep.rename(tmp_path / "renamed.tif")) == (20, 30)


def test_declared_classes_that_are_no_text(tmp_path: Path) -> None:
    root = write(tmp_path, "yolo_obb", {"a": [SHIP]})
    (root / "data.yaml").write_text('names: ["a\\uDCB0"]\n')
    assert kinds(root, "yolo_obb") == ["syntax"]
