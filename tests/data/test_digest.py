"""The digest of a data set tells changed names, sizes, labels and classes, and nothing else."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dbf_ray.data import Subset, SyntheticDataset, data_digest, make_dataset
from dbf_ray.data.digest import changes, data_facts, digest_of
from dbf_ray.data.patches.originals import original_files, originals_of
from tests.data.label_writers import FORMATS, SIZE

SQUARE = "10 10 30 10 30 20 10 20"
CORNERS = (10.0, 10.0, 50.0, 12.0, 48.0, 32.0, 8.0, 30.0)


@pytest.fixture
def root(make_root: Callable[..., Path]) -> Path:
    return make_root(dict.fromkeys("abc", f"{SQUARE} ship 0\n"))


def digest(root: Path) -> str:
    return data_digest(make_dataset("dota", root=root))


def test_the_place_and_the_time_do_not_matter(root: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "data"
    shutil.copytree(root / "train", moved / "train", copy_function=shutil.copyfile)
    for file in moved.rglob("*.*"):
        os.utime(file, (1, 1))
    assert digest(moved) == digest(root)
    (root / "train" / "labelTxt" / "a.txt").write_text(f"imagesource:x\n\n{SQUARE.replace(' ', ',')} ship\n")
    assert digest(moved) == digest(root)  # what is read is the same


def remove(root: Path) -> None:
    for folder, suffix in (("images", ".png"), ("labelTxt", ".txt")):
        (root / "train" / folder / f"b{suffix}").unlink()


def add(root: Path) -> None:
    for folder, suffix in (("images", ".png"), ("labelTxt", ".txt")):
        shutil.copy(root / "train" / folder / f"b{suffix}", root / "train" / folder / f"bb{suffix}")


def rename(root: Path) -> None:
    add(root)
    remove(root)


def label(text: str) -> Callable[[Path], None]:
    return lambda root: (root / "train" / "labelTxt" / "b.txt").write_text(text) and None


def another_size(root: Path) -> None:
    file = root / "train" / "images" / "b.png"
    Image.open(file).resize((50, 40)).save(file)


def other_pixels(root: Path) -> None:
    file = root / "train" / "images" / "b.png"
    before = file.stat().st_size
    noise = np.random.default_rng(9).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file)
    assert abs(file.stat().st_size - before) < 64


CHANGES: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "more": (add, ["train: 1 image (bb) more"]),
    "fewer": (remove, ["train: 1 image (b) fewer"]),
    "renamed": (rename, ["train: 1 image (bb) more", "train: 1 image (b) fewer"]),
    "no object": (label(""), ["train: labels changed of 1 image (b)"]),
    "difficult": (label(f"{SQUARE} ship 1\n"), ["train: labels changed of 1 image (b)"]),
    "moved": (label("11 10 30 10 30 20 10 20 ship 0\n"), ["train: labels changed of 1 image (b)"]),
    "turned": (label("30 10 30 20 10 20 10 10 ship 0\n"), ["train: labels changed of 1 image (b)"]),
    "another class": (
        label(f"{SQUARE} plane 0\n"),
        ["train: labels changed of 1 image (b)", "train: classes were ship, now plane, ship"],
    ),
    "another size": (another_size, ["train: 1 image (b) changed"]),
    "another file": (other_pixels, ["train: 1 image (b) changed"]),
}


@pytest.mark.parametrize("case", CHANGES)
def test_what_changed_is_told(case: str, root: Path) -> None:
    change, phrases = CHANGES[case]
    before = data_facts(make_dataset("dota", root=root))
    change(root)
    now = data_facts(make_dataset("dota", root=root))
    assert digest_of(before) != digest_of(now)
    assert changes({"train": before}, {"train": now}) == phrases
    assert changes({"train": before}, {"train": before}) == []


@pytest.mark.parametrize("suffix", ["bmp", "TIF"])
def test_another_image_with_the_same_border_in_a_file_that_is_not_compressed(root: Path, suffix: str) -> None:
    """Uncut aerial images have black borders, and these are how such a file ends."""
    file, size = root / "train" / "images" / f"b.{suffix}", (60, 40)
    file.with_suffix(".png").unlink()
    digests = set()
    for grey in (90, 200):
        image = Image.new("RGB", size)
        image.paste((grey, grey, grey), (10, 10, 50, 30))
        image.save(file)
        digests.add(digest(root))
    assert len(digests) == 2


def test_many_changes_are_counted_and_an_order_is_one(root: Path) -> None:
    before = data_facts(make_dataset("dota", root=root))
    for name in "ac":
        (root / "train" / "labelTxt" / f"{name}.txt").write_text(f"{SQUARE} ship 1\n")
    now = data_facts(make_dataset("dota", root=root))
    assert changes({"a": before}, {"a": now}) == ["a: labels changed of 2 images (the first is a)"]
    turned = {**before, "images": dict(reversed(before["images"].items()))}
    assert digest_of(turned) != digest_of(before)
    assert changes({"a": before}, {"a": turned}) == ["a: the images are listed in another order"]
    assert changes({"a": before}, {}) == [
        "a: 3 images (the first is a) fewer",
        "a: classes were ship, now none",
    ]


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_has_one(tmp_path: Path, name: str) -> None:
    def made(flag: bool, corners: tuple[float, ...] = CORNERS) -> str:
        shutil.rmtree(tmp_path / "data", ignore_errors=True)
        FORMATS[name].write(tmp_path / "data", "train", {"a": [(corners, "ship", flag)], "b": []})
        return data_digest(make_dataset(name, root=tmp_path / "data"))

    assert made(False) == made(False)
    assert (made(True) != made(False)) == FORMATS[name].difficult
    assert made(False, tuple(value + 1 for value in CORNERS)) != made(False)
    assert SIZE == (120, 160)


def test_generated_scenes_and_parts() -> None:
    scenes = SyntheticDataset("train", 4, 64)
    others = [
        SyntheticDataset("val", 4, 64),
        SyntheticDataset("train", 5, 64),
        SyntheticDataset("train", 4, 96),
    ]
    parts = [Subset(scenes, [0, 2]), Subset(scenes, [2, 0]), Subset(scenes, [0, 1])]
    assert (
        data_digest(scenes)
        == data_digest(SyntheticDataset("train", 4, 64))
        == data_digest(Subset(scenes, range(4)))
    )
    assert len({data_digest(one) for one in (scenes, *others, *parts)}) == 7


def test_labels_of_uncut_images_count_where_patches_are_judged_by_them(
    make_root: Callable[..., Path],
) -> None:
    root = make_root({f"big__40__0___{y}": f"{SQUARE} ship 0\n" for y in (0, 20)})
    (root / "train" / "originals").mkdir()
    (root / "train" / "originals" / "big.txt").write_text(f"{SQUARE} ship 0\n")
    dataset = make_dataset("dota", root=root)
    assert original_files(dataset) == {"big": root / "train" / "originals" / "big.txt"}
    assert list(originals_of(dataset) or {}) == ["big"]
    (root / "train" / "originals").rename(root / "train" / "gone")
    assert original_files(dataset) is None
