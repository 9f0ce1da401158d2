"""The check of a data set finds each planted fault alone and all of them together, at the right place, and
nothing else.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dbf_ray.data.check import KINDS, Report, check_dataset, severity
from dbf_ray.data.check.names import likeness, public_list, slip
from dbf_ray.data.labelled import LabelledDataset
from dbf_ray.data.readers import READERS, Item, Listing, Problem, recognise
from dbf_ray.data.readers.dota import DotaReader
from dbf_ray.data.walk import walk
from dbf_ray.errors import DataError, ResourceError
from tests.data.check.outcomes import refused
from tests.data.check.planted_faults import (
    FAULTS,
    HEADER,
    INSIDE,
    SPLITS,
    Fault,
    image,
    labels,
    line,
    misplaced,
    write_clean,
    write_one,
)
from tests.data.label_writers import FORMATS


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clean(tmp_path_factory.mktemp("clean") / "data")


@pytest.fixture
def root(clean: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(clean, tmp_path / "data"))


def check(root: Path, **more: Any) -> Report:
    return check_dataset(root, READERS[more.pop("format", None) or recognise(root)], workers=0, **more)


def places(report: Report) -> list[tuple[str, Path, int | None]]:
    return [(problem.kind, problem.file, problem.line) for problem in report.problems]


def test_a_clean_set_is_clean(clean: Path) -> None:
    seen: list[tuple[int, int]] = []
    report = check(clean, progress=lambda done, total: seen.append((done, total)))
    total = sum(SPLITS.values()) + 4
    assert report.problems == []
    assert report.errors == 0
    assert list(report.splits) == ["test", "train", "val"]
    assert seen == [(done, total) for done in range(1, total + 1)]
    (note,) = report.notes
    assert note == f"test has no labels ({clean / 'test' / 'labelTxt'} is not there): a test set"
    dataset = LabelledDataset(DotaReader(), clean, "train")
    boxes = np.concatenate([record.objects.boxes for record in report.splits["train"]])
    np.testing.assert_allclose(
        boxes, torch.cat([dataset.load(i)[1]["boxes"] for i in range(len(dataset))]), atol=1e-3
    )


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_each_fault_is_found_alone(root: Path, fault: Fault) -> None:
    """And a training refuses just what the check says that it does."""
    file, number = fault.plant(root, 5)
    report = check(root)
    assert places(report) == [(fault.kind, file, number)]
    assert fault.says in report.problems[0].message
    assert "\n" not in report.problems[0].message
    assert severity(fault.kind) == ("warning" if fault.warning else "error")
    assert report.errors == (not fault.warning)
    assert (
        bool(refused(root, READERS["dota"])) == bool(report.refused) == (not fault.warning and not fault.told)
    )


def test_labels_above_the_sub_folder_of_their_image(root: Path) -> None:
    """Told where they lie and where they should be; there they are found."""
    file, _ = misplaced(root, 5)
    report = check(root)
    own = labels(root, 5).parent / "more5" / file.name
    assert places(report) == [("misplaced_labels", file, None), ("missing_labels", own, None)]
    assert str(report.problems[0]).endswith(f"move it to {own}")
    assert refused(root, READERS["dota"])
    own.parent.mkdir()
    file.rename(own)
    assert check(root).problems == []
    assert not refused(root, READERS["dota"])


def test_all_faults_are_found_together(root: Path) -> None:
    expected = [(fault.kind, *fault.plant(root, number)) for number, fault in enumerate(FAULTS)]
    report = check(root)
    assert Counter(places(report)) == Counter(expected)
    content = report.as_dict()
    assert content["errors"] == sum(not fault.warning for fault in FAULTS)
    assert content["warnings"] == sum(fault.warning for fault in FAULTS)
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert {fault.kind for fault in FAULTS} | {
        "missing_image",
        "unknown_image",
        "broken_split",
        "rare_class",
        "ambiguous_class",
        "no_objects",
        "nothing_counts",
        "left_out",
        "misplaced_labels",
    } == set(KINDS)
    files = [str(problem.file) for problem in report.problems]
    assert files == sorted(files)
    assert check(root).as_dict() == content


def test_what_a_reader_finds_and_the_table_does_not_know_is_an_error() -> None:
    assert severity("from another planet") == "error"


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_checked(tmp_path: Path, name: str) -> None:
    kind = FORMATS[name]
    label = {"hrsc": "ship", "hrsc_types": "Ford-class", "dior": "ship"}.get(name, "plane")
    good = ((20.0, 20.0, 60.0, 20.0, 60.0, 40.0, 20.0, 40.0), label, False)
    off = ((200.0, 20.0, 240.0, 20.0, 240.0, 40.0, 200.0, 40.0), label, False)
    kind.write(tmp_path, "train", {"alpha": [good], "beta": [good, off], "gamma": []})
    kind.write(tmp_path, "val", {"delta": [good, good], "epsilon": []})
    report = check(tmp_path, format=name)
    found = {problem.kind: problem for problem in report.problems}
    assert len(report.problems) == 2
    assert found["outside"].file == kind.label_file(tmp_path, "train", "beta")
    assert found["duplicate_object"].file == kind.label_file(tmp_path, "val", "delta")
    if name == "coco":
        assert found["outside"].message.startswith("beta.png, object 2: ")
        assert "same box as that of object 1" in found["duplicate_object"].message
    else:
        for problem, mark in (
            (found["outside"], "objects must lie on the image of 160 x 120"),
            (found["duplicate_object"], "same box as"),
        ):
            assert mark in problem.message
            assert problem.line is not None
            assert problem.line == marked_line(problem.file, name)
    assert report.as_dict()["objects"] == 5


@pytest.mark.parametrize("name", ["hrsc2016", "dota_sample", "dior_sample"])
def test_real_sets_are_clean(shared: Path, name: str) -> None:
    report = check(shared / "data" / name)
    assert [str(problem) for problem in report.problems] == []
    numbers = report.as_dict()
    expected = {"hrsc2016": (729, 1783), "dota_sample": (4, 251), "dior_sample": (1, 1)}
    assert (numbers["images"], numbers["objects"]) == expected[name]


def marked_line(file: Path, name: str) -> int:
    """Line at which the second object of a label file begins."""
    mark = {"dior": "<object>", "hrsc": "<HRSC_Object>", "hrsc_types": "<HRSC_Object>"}.get(
        name, "0." if name == "yolo_obb" else " plane "
    )
    return [number for number, text in enumerate(file.read_text().splitlines(), 1) if mark in text][1]


def test_given_classes_are_the_ones_allowed(root: Path) -> None:
    file, number = line("40 40 90 40 90 60 40 60 shipp 0")(root, 3)
    names = ["plane", "ship", "small-vehicle", "large-vehicle", "storage-tank", "harbor", "shipp"]
    assert check(root, classes=names).problems == []
    report = check(root, classes=[name for name in names if name != "plane"])
    planes = sum(text.split()[8] == "plane" for text in lines_of(root))
    assert planes > 0
    assert Counter(problem.kind for problem in report.problems) == {"unknown_class": planes}
    assert "classes must be among ship, small-vehicle" in report.problems[0].message
    assert "name all classes" in report.problems[0].message
    assert places(check(root, classes="dota-v1.0")) == [("unknown_class", file, number)]
    with pytest.raises(DataError, match=r"one of dota-v1\.0, .*got 'dota'"):
        check(root, classes="dota")


def lines_of(root: Path) -> list[str]:
    """All object lines."""
    return [text for file in root.rglob("labelTxt/*.txt") for text in file.read_text().splitlines()[2:]]


def rename_classes(root: Path, names: dict[str, str]) -> None:
    for file in root.rglob("labelTxt/*.txt"):
        rows = [text.split() for text in file.read_text().splitlines()[2:]]
        file.write_text(
            HEADER + "".join(" ".join([*row[:8], names.get(row[8], row[8]), *row[9:]]) + "\n" for row in rows)
        )


def test_slips_in_classes_that_no_public_list_has(root: Path) -> None:
    rename_classes(
        root,
        {
            "plane": "Airbus-A320",
            "ship": "vessel",
            "storage-tank": "silo",
            "harbor": "quay",
            "small-vehicle": "car",
        },
    )
    rename_classes(root, {"large-vehicle": "lorry"})
    assert check(root).problems == []
    for name in ("vessels", "Vessel", "lorry_"):
        found = line(f"40 40 90 40 90 60 40 60 {name} 0")(root, 7)
        report = check(root)
        assert places(report) == [("misspelled_class", *found)]
        assert f"got '{name}' (1 object in 1 image) beside " in report.problems[0].message
        labels(root, 7).write_text("".join(labels(root, 7).read_text().splitlines(keepends=True)[:-1]))
    line("40 40 90 40 90 60 40 60 Airbus-A330 0")(root, 7)  # another type, not a slip
    line("40 40 90 40 90 60 40 60 lighthouse 0")(root, 8)
    assert check(root).problems == []


def test_a_class_beside_a_public_list_that_is_not_rare_is_no_slip(root: Path) -> None:
    for number in range(6):
        line("40 40 90 40 90 60 40 60 wind-turbine 0")(root, number)
    assert check(root).problems == []


def test_rare_classes_are_worth_a_warning(root: Path) -> None:
    """In two images of many objects, beside DOTA's classes; and alike to a usual name in sound alone."""
    for number in range(40):
        line("\n".join(f"{x} 40 {x + 3} 40 {x + 3} 60 {x} 60 ship 0" for x in range(5, 125, 5)))(
            root, number % 8
        )
    for number in (1, 2):
        line("40 80 90 80 90 100 40 100 windmill 0")(root, number)
    report = check(root)
    rare = [problem for problem in report.problems if problem.kind != "duplicate_object"]
    assert [problem.kind for problem in rare] == ["rare_class", "rare_class"]
    assert {severity(problem.kind) for problem in rare} == {"warning"}


def test_names_that_differ_in_case_are_one_however_many_there_are(root: Path) -> None:
    for number in range(6):
        line("40 40 90 40 90 60 40 60 Wind_Turbine 0")(root, number)
        line("40 80 90 80 90 100 40 100 wind-turbine 0")(root, number)
    line("40 110 90 110 90 120 40 120 wind-turbine 0")(root, 7)
    report = check(root)
    assert [problem.kind for problem in report.problems] == ["misspelled_class"] * 6
    assert all("'Wind_Turbine'" in problem.message for problem in report.problems)


def test_a_slip_is_one_letter() -> None:
    for name in ("shipp", "shp", "sship", "Ship", "ship_"):
        assert slip(name, "ship"), name
    assert slip("excavatr", "excavator")
    assert slip("excavaotr", "excavator")
    assert not slip("warship", "airship")
    assert not slip("A320", "A330")


def test_patches_of_one_image_in_two_splits_leak(root: Path) -> None:
    names = {"train": "P1__512__0___0", "val": "P1__512__200___0"}
    for split, name in names.items():
        image(root, 3, split).rename(image(root, 3, split).with_name(f"{name}.png"))
        labels(root, 3, split).rename(labels(root, 3, split).with_name(f"{name}.txt"))
    report = check(root)
    assert places(report) == [("leak", root / "val" / "images" / f"{names['val']}.png", None)]
    assert "both have patches of P1" in report.problems[0].message


def test_likeness_of_names() -> None:
    assert likeness("Storage_Tank", "storage-tank") == 1
    assert likeness("ship", "shipp") > 0.8
    assert likeness("small-vehicle", "large-vehicle") < 0.8
    assert likeness("A320", "A330") == 0
    assert likeness("ship", "plane") < 0.5


def test_the_shortest_public_list_that_fits_is_assumed(clean: Path) -> None:
    from dbf_ray.data.check.names import Counts

    records = check(clean).records
    assert public_list(Counts.of(records)) == "dota-v1.0"
    assert public_list(Counts.of([])) is None


def test_what_two_readings_find_is_told_once(tmp_path: Path) -> None:
    """YOLO's reader needs the image's size for the labels, and the names for each split and for the list of
    classes.
    """
    good = ((20.0, 20.0, 60.0, 20.0, 60.0, 40.0, 20.0, 40.0), "plane", False)
    for split, name in (("train", "alpha"), ("val", "beta")):
        FORMATS["yolo_obb"].write(tmp_path, split, {name: [good]})
    file = tmp_path / "images" / "train" / "alpha.png"
    file.write_bytes(file.read_bytes()[:200])
    assert places(check(tmp_path)) == [("broken_image", file, None)]
    (tmp_path / "data.yaml").write_text("names: [plane\n")
    assert [problem.kind for problem in check(tmp_path).problems] == ["syntax", "broken_image"]


def test_a_training_split_needs_labels(root: Path) -> None:
    shutil.rmtree(root / "train" / "labelTxt")
    report = check(root)
    assert places(report) == [("missing_labels", root / "train" / "labelTxt", None)]


def test_a_split_that_cannot_be_listed_does_not_stop_the_others(root: Path) -> None:
    for file in (root / "val" / "images").iterdir():
        file.unlink()
    report = check(root)
    assert places(report) == [("broken_split", root / "val", None)]
    assert "found none" in report.problems[0].message
    assert list(report.splits) == ["test", "train"]


@pytest.mark.parametrize("place", ["", "nowhere"])
def test_a_folder_that_is_no_data_set_is_refused(tmp_path: Path, place: str) -> None:
    with pytest.raises(DataError, match=r"give (an existing|such a) folder"):
        check_dataset(tmp_path / place, DotaReader(), workers=0)


def test_a_reader_that_raises_does_not_stop_the_walk(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = DotaReader.read

    def failing(self: DotaReader, item: Item) -> Any:
        if item.image == image(root, 4):
            raise RecursionError("too deep")
        return read(self, item)

    monkeypatch.setattr(DotaReader, "read", failing)
    report = check(root)
    assert places(report) == [("syntax", labels(root, 4), None)]
    assert "RecursionError: too deep" in report.problems[0].message


def test_a_set_that_is_not_divided(root: Path) -> None:
    found = line("140 40 190 40 190 60 140 60 ship 0")(root, 2)
    report = check(root / "train")
    assert places(report) == [("outside", *found)]
    assert list(report.splits) == ["all"]


def test_lists_that_hold_each_other_do_not_leak(tmp_path: Path) -> None:
    """DIOR names trainval.txt besides train.txt and val.txt."""
    good = ((20.0, 20.0, 60.0, 20.0, 60.0, 40.0, 20.0, 40.0), "ship", False)
    for split, names in {"train": ["alpha", "beta"], "val": ["gamma"], "test": ["delta"]}.items():
        FORMATS["dior"].write(tmp_path, split, {name: [good] for name in names})
    lists = tmp_path / "ImageSets" / "Main"
    (lists / "trainval.txt").write_text("alpha\nbeta\ngamma\n")
    report = check(tmp_path)
    assert report.problems == []
    assert report.notes == ["trainval is made of other splits, its images are looked at there"]
    assert report.as_dict()["images"] == 4
    (lists / "val.txt").write_text("gamma\nbeta\n")
    leaking = check(tmp_path)
    assert [problem.kind for problem in leaking.problems] == ["leak"]
    assert "train and val must not show the same, this image is in both" in leaking.problems[0].message


class Deadly:
    """Ends the process that takes it out of the queue, as a decoder would that crashes."""

    def __reduce__(self) -> Any:
        return os._exit, (3,)


def test_an_image_that_ends_its_process_is_reported(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("val", "test"):
        shutil.rmtree(root / folder)
    for number in range(3, SPLITS["train"]):
        image(root, number).unlink()
        labels(root, number).unlink()
    listing = DotaReader.listing

    def deadly(self: DotaReader, root: Path, split: str) -> Listing:
        found = listing(self, root, split)
        found.items[1] = Item(found.items[1].image, found.items[1].labels, Deadly())
        return found

    monkeypatch.setattr(DotaReader, "listing", deadly)
    seen: list[tuple[int, int]] = []
    report = check_dataset(
        root, DotaReader(), workers=2, progress=lambda done, total: seen.append((done, total))
    )
    assert places(report) == [("broken_image", image(root, 1), None)]
    assert "ended the process" in report.problems[0].message
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert [record.pixels is not None for record in report.records] == [True, False, True]


def test_processes_that_cannot_start_are_no_fault_of_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    from concurrent.futures import ThreadPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    class Broken(ThreadPoolExecutor):
        def submit(self, *_: Any, **__: Any) -> Any:
            raise BrokenProcessPool

    monkeypatch.setattr("dbf_ray.data.walk._pool", lambda workers: Broken(workers))
    with pytest.raises(ResourceError, match=r"\(workers 0\)"):
        list(walk(str, [1, 2, 3], 2))


def test_images_that_reach_the_walk_in_strips_are_the_same(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = check(root).records
    monkeypatch.setattr("dbf_ray.data.check.look.STRIP_PIXELS", 128 * 7)
    for one, other in zip(whole, check(root).records, strict=True):
        assert one.pixels is not None
        assert other.pixels is not None
        assert (one.pixels.digest, one.pixels.blank) == (other.pixels.digest, other.pixels.blank)
        np.testing.assert_array_equal(one.pixels.thumbnail, other.pixels.thumbnail)


def test_many_objects_twice_are_told_once_each(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    rows = [
        ([*rng.uniform(20, 180, 2), 20, 8, float(angle)], "ship", 0) for angle in rng.uniform(-90, 90, 60)
    ]
    rows = [*rows, *rows[:30], *rows[:30], *((box, "plane", 0) for box, _, _ in rows[30:])]
    report = check(write_one(tmp_path, rows))
    assert [(problem.kind, problem.line) for problem in report.problems] == [
        ("duplicate_object", number) for number in range(61, 121)
    ]
    assert [int(problem.message.split(" of line ")[1].split()[0]) for problem in report.problems] == [
        *range(1, 31),
        *range(1, 31),
    ]


def test_problems_of_one_file_are_in_order_of_lines(root: Path) -> None:
    for text in (
        INSIDE,
        "140 40 190 40 190 60 140 60 ship 0",
        "10 10",
        INSIDE,
        "40 40 90 40 70 40 50 40 ship 0",
    ):
        line(text)(root, 1)
    report = check(root)
    numbers = [problem.line for problem in report.problems]
    assert numbers == sorted(numbers, key=lambda number: number or 0)
    assert [problem.kind for problem in report.problems] == [
        "outside",
        "syntax",
        "duplicate_object",
        "degenerate",
    ]
    assert all(isinstance(problem, Problem) for problem in report.problems)
