from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dbf_ray.data.labelled import LabelledDataset
from dbf_ray.data.patches.cutting import SplitCounts, SplitSettings, cut_all, run_task
from dbf_ray.data.patches.originals import originals_of
from dbf_ray.data.patches.split import SplitWork, prepare_out, split_work
from dbf_ray.data.readers import READERS, Reader
from dbf_ray.data.readers.dota import DotaReader
from dbf_ray.errors import ConfigError, DataError
from tests.data.label_writers import FORMATS

SHIP, CUT = "10 10 30 10 30 20 10 20 ship 0\n", "10 26 20 26 20 36 10 36 plane 1\n"  # CUT: rows 26 to 36
SMALL = SplitSettings(size=32, overlap=8)


def prepared(
    root: Path, out: Path, settings: SplitSettings = SMALL, reader: Reader | None = None
) -> SplitWork:
    work = split_work(reader or DotaReader(), root, out, settings)
    prepare_out(work, root, out, settings)
    return work


def split(
    root: Path, out: Path, settings: SplitSettings = SMALL, reader: Reader | None = None
) -> SplitCounts:
    return sum((run_task(task) for task in prepared(root, out, settings, reader).tasks), SplitCounts())


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def test_patches_are_a_data_set(make_root: Callable[..., Path], tmp_path: Path) -> None:
    make_root({"a": SHIP + CUT, "b": ""}, "data/train")
    root = make_root({"c": SHIP}, "data/val") / "data"
    counts = split(root, tmp_path / "out")
    # 40 x 60 pixels: starts 0, 8 down and 0, 24, 28 across
    assert counts.written == 3 * 6
    train = LabelledDataset(DotaReader(), tmp_path / "out")
    assert len(train) == 12
    assert train.classes == ["plane", "ship"]
    assert set(train.sizes) == {(32, 32)}
    by_name = {name: train.load(index) for index, name in enumerate(train.image_ids)}
    image, target = by_name["a__32__0___8"]
    assert (
        image.permute(1, 2, 0).numpy()
        == np.asarray(Image.open(root / "train" / "images" / "a.png"))[8:40, :32]
    ).all()
    assert sorted(zip(target["labels"].tolist(), target["difficult"].tolist(), strict=True)) == [
        (0, True),
        (1, False),
    ]
    # six of CUT's ten rows are inside, too little
    assert by_name["a__32__0___0"][1]["labels"].tolist() == [1]
    assert by_name["b__32__28___8"][1]["labels"].tolist() == []
    assert LabelledDataset(DotaReader(), tmp_path / "out", "val").image_ids[0] == "c__32__0___0"


def test_a_second_run_writes_nothing_and_torn_patches_again(
    make_root: Callable[..., Path], tmp_path: Path
) -> None:
    root, out = make_root({"a": SHIP + CUT, "b": SHIP}, "data"), tmp_path / "out"
    root = root / "data"
    split(root, out)
    before = content(out)
    assert split(root, out) == SplitCounts(0, 12, 5, 0)
    torn = out / "images" / "a__32__24___0.png"
    torn.write_bytes(torn.read_bytes()[:-7])
    (out / "labelTxt" / "b__32__0___0.txt").write_text("10 10 30")
    (out / "images" / "b__32__28___8.png").unlink()
    (out / "labelTxt" / "b__32__24___0.txt").unlink()
    (out / "images" / ".a.png.77.partial").write_bytes(b"half")
    assert (split(root, out).written, content(out)) == (4, before)


def test_other_settings_are_refused(make_root: Callable[..., Path], tmp_path: Path) -> None:
    root = make_root({"a": SHIP}, "data") / "data"
    split(root, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"cut otherwise: overlap 8 there, 9 now; give another OUT"):
        split_work(DotaReader(), root, tmp_path / "out", SplitSettings(32, 9))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds other files"):
        split_work(DotaReader(), root, tmp_path / "full", SMALL)
    with pytest.raises(DataError, match="outside the data"):
        split_work(DotaReader(), root, root / "patches", SMALL)


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 0},
        {"size": 31, "overlap": 0},
        {"rates": (1.0, 40.0)},
        {"overlap": 1024},
        {"rates": ()},
        {"rates": (1.0, 1.0)},
        {"rates": (0.0,)},
        {"share": 0.0},
        {"image_share": 1.0},
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"got .*; (change|correct|raise)"):
        SplitSettings(**wrong)  # type: ignore[arg-type]


def test_wrong_labels_are_refused_before_anything_is_written(
    make_root: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_root({"a": SHIP, "b": "10 10 30\n"}, "data") / "data"
    with pytest.raises(DataError, match=r"b\.txt, line 1"):
        split_work(DotaReader(), root, tmp_path / "out", SMALL)
    (root / "labelTxt" / "b.txt").write_text(SHIP)
    with pytest.raises(DataError, match=r"a\.txt, line 1: classes must be among plane, got 'ship'"):
        split_work(DotaReader(), root, tmp_path / "out", SMALL, ["plane"])
    assert not (tmp_path / "out").exists()


def test_a_test_set_has_no_labels(make_root: Callable[..., Path], tmp_path: Path) -> None:
    root = make_root({"a": SHIP}, "data/train") / "data"
    make_root({"t": None}, "data/test")
    (root / "test" / "labelTxt").rmdir()
    split(root, tmp_path / "out")
    assert sorted(folder.name for folder in (tmp_path / "out" / "test").iterdir()) == ["images"]
    assert len(list((tmp_path / "out" / "test" / "images").iterdir())) == 6


def test_rates_change_the_windows(make_root: Callable[..., Path], tmp_path: Path) -> None:
    root = make_root({"a": SHIP}, "data") / "data"
    split(root, tmp_path / "out", SplitSettings(size=32, overlap=5, rates=(1.0, 0.8)))
    sizes = {Image.open(file).size for file in (tmp_path / "out" / "images").iterdir()}
    assert sizes == {(32, 32), (40, 40)}


def test_several_processes_write_the_same(make_root: Callable[..., Path], tmp_path: Path) -> None:
    root = make_root(dict.fromkeys("abcd", SHIP + CUT), "data") / "data"
    split(root, tmp_path / "one")
    tasks = prepared(root, tmp_path / "two").tasks
    assert all(isinstance(done, SplitCounts) for done in cut_all(tasks, 2))
    assert content(tmp_path / "one" / "images") == content(tmp_path / "two" / "images")
    assert content(tmp_path / "one" / "labelTxt") == content(tmp_path / "two" / "labelTxt")


def test_an_image_that_breaks_does_not_stop_the_others(
    make_root: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_root(dict.fromkeys("abc", SHIP), "data") / "data"
    tasks = prepared(root, tmp_path / "out").tasks
    (root / "images" / "b.png").write_bytes(b"no image any more")
    done = list(cut_all(tasks, 0))
    assert sorted(type(one).__name__ for one in done) == ["DataError", "SplitCounts", "SplitCounts"]
    assert len(list((tmp_path / "out" / "images").iterdir())) == 12


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_windows_of_a_tiff_are_tasks_of_their_own(tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("rasterio", reason="reads TIFF files by windows")
    for name in ("images", "labelTxt"):
        (tmp_path / "data" / name).mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (100, 70, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "data" / "images" / f"a.{suffix}")
    (tmp_path / "data" / "labelTxt" / "a.txt").write_text(SHIP)
    tasks = prepared(tmp_path / "data", tmp_path / "out").tasks
    assert len(tasks) == (1 if suffix == "png" else 4)
    assert sum((run_task(task) for task in tasks), SplitCounts()).written == 12
    patch = np.asarray(Image.open(tmp_path / "out" / "images" / "a__32__38___68.png"))
    assert (patch == pixels[68:, 38:]).all()


KILLED = """
import sys
from pathlib import Path
from dbf_ray.data.patches import cutting, split
from dbf_ray.data.readers import READERS, Reader
from dbf_ray.data.readers.dota import DotaReader
whole = cutting._write_patch
def slowly(*arguments):
    whole(*arguments)
    import time
    time.sleep(0.2)
cutting._write_patch = slowly
root, out, settings = Path(sys.argv[1]), Path(sys.argv[2]), cutting.SplitSettings(size=32, overlap=8)
work = split.split_work(DotaReader(), root, out, settings)
split.prepare_out(work, root, out, settings)
for task in work.tasks:
    cutting.run_task(task)
"""


def test_a_killed_split_goes_on(make_root: Callable[..., Path], tmp_path: Path) -> None:
    root, out = make_root(dict.fromkeys("abcd", SHIP + CUT), "data") / "data", tmp_path / "out"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(root), str(out)], env=environment)
    deadline = time.monotonic() + 120
    while len(list(out.glob("labelTxt/*.txt"))) < 5:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = len(list(out.glob("labelTxt/*.txt")))
    assert done < 24
    counts = split(root, out)
    assert (counts.kept, counts.written) == (done, 24 - done)
    split(root, tmp_path / "whole")
    assert content(out / "images") == content(tmp_path / "whole" / "images")


def test_the_objects_of_the_uncut_images(make_root: Callable[..., Path], tmp_path: Path) -> None:
    root, out = make_root({"a": SHIP + CUT, "b": SHIP}, "data") / "data", tmp_path / "out"
    assert originals_of(LabelledDataset(DotaReader(), root)) is None
    split(root, out)
    patches = LabelledDataset(DotaReader(), out)
    originals = originals_of(patches)
    assert originals is not None
    uncut = LabelledDataset(DotaReader(), root)
    for index, name in enumerate(uncut.image_ids):
        target = uncut.load(index)[1]
        assert originals[name]["boxes"].tolist() == target["boxes"].tolist()
        assert originals[name]["labels"].tolist() == target["labels"].tolist()
        assert originals[name]["difficult"].tolist() == target["difficult"].tolist()
    (out / "originals" / "b.txt").unlink()
    with pytest.raises(DataError, match=r"b\.txt is missing; split the data again"):
        originals_of(patches)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_can_be_cut(tmp_path: Path, name: str) -> None:
    """Images of 120 x 160 pixels: starts 0, 20 down and 0, 50, 60 across. A ship at one corner is in one
    patch.
    """
    label = "ship" if name != "dior" else "harbor"
    ship = ((4.0, 4.0, 24.0, 4.0, 24.0, 14.0, 4.0, 14.0), label, True)
    for split_name in ("train", "val"):
        FORMATS[name].write(tmp_path / "data", split_name, {f"{split_name}1": [ship], f"{split_name}2": []})
    if name == "dior":
        lists = tmp_path / "data" / "ImageSets" / "Main"
        (lists / "trainval.txt").write_text(
            "".join((lists / f"{part}.txt").read_text() for part in ("train", "val"))
        )
    counts = split(tmp_path / "data", tmp_path / "out", SplitSettings(100, 50), READERS[name])
    assert sorted(entry.name for entry in (tmp_path / "out").iterdir()) == [
        "sources.json",
        "split.json",
        "train",
        "val",
    ]
    assert (counts.written, counts.objects) == (4 * 6, 2)
    cut = LabelledDataset(DotaReader(), tmp_path / "out", "val", classes_from="val")
    assert cut.target(cut.image_ids.index("val1__100__0___0"))["difficult"].tolist() == [
        FORMATS[name].difficult
    ]


def test_patches_of_images_that_are_gone_or_have_changed_are_replaced(
    make_root: Callable[..., Path], tmp_path: Path
) -> None:
    root, out = make_root({"a": SHIP + CUT, "bb": SHIP}, "data") / "data", tmp_path / "out"
    split(root, out)
    (root / "images" / "bb.png").rename(root / "images" / "c.png")
    (root / "labelTxt" / "bb.txt").rename(root / "labelTxt" / "c.txt")
    fresh = np.random.default_rng(9).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(fresh).save(root / "images" / "a.png")
    work = split_work(DotaReader(), root, out, SMALL)
    assert prepare_out(work, root, out, SMALL) == 12
    for task in work.tasks:
        run_task(task)
    split(root, tmp_path / "new")
    for folder in ("images", "labelTxt", "originals"):
        assert content(out / folder) == content(tmp_path / "new" / folder)


def test_objects_in_no_patch_are_told(make_root: Callable[..., Path], tmp_path: Path) -> None:
    long = "5 5 55 5 55 15 5 15 bridge 0\n"  # of which no window of 32 pixels holds 70 %
    root = make_root({"a": SHIP + long}, "data") / "data"
    work = split_work(DotaReader(), root, tmp_path / "out", SMALL)
    assert [(image.name, one.name, one.line) for image, one in work.lost] == [("a.png", "bridge", 2)]


def test_cut_objects_are_counted(make_root: Callable[..., Path], tmp_path: Path) -> None:
    # x 10 to 36: windows from 0 hold 22 of 26 columns
    root = make_root({"a": "10 10 36 10 36 20 10 20 ship 0\n"}, "data") / "data"
    counts = split(root, tmp_path / "out")
    assert (counts.objects, counts.cut) == (2, 2)


def test_a_test_set_with_two_images_of_one_name_is_refused(
    make_root: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_root({"a": None}, "data") / "data"
    (root / "labelTxt").rmdir()
    Image.new("RGB", (8, 8)).save(root / "images" / "a.jpg")
    with pytest.raises(DataError, match="images must differ in more than their suffix"):
        split_work(DotaReader(), root, tmp_path / "out", SMALL)
