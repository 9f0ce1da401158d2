"""``dbf plan`` as a person types it."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import dbf_ray
from dbf_ray.cli import plan, prepare_data, train
from dbf_ray.cli.options import run_command
from dbf_ray.config import load_config
from dbf_ray.data.digest import data_digest
from dbf_ray.data.labelled import LabelledDataset
from dbf_ray.data.readers import find_reader
from tests.cli.conftest import write_ships

Refused = Callable[..., str]
PLAIN = "8 8 40 8 40 24 8 24 plane 0\n"


@pytest.fixture
def planning(root: Path, narrow: None) -> list[str]:
    """Arguments, on the narrow backbone of the tests."""
    return [str(root), "--out", str(root.parent / "my.yaml"), "--detector.backbone", "narrow"]


def label(split: Path, text: str) -> None:
    for file in (split / "labelTxt").iterdir():
        file.write_text(text)


def test_from_labelled_images_to_a_training_in_two_commands(
    planning: list[str], root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root.parent)
    planning[0] = root.name  # a plan holds good wherever it is used
    assert plan.main(planning) == 0
    printed = capsys.readouterr().out
    file = root.parent / "my.yaml"
    config = load_config(file)
    assert (config.data.root, config.data.name, config.data.classes) == (root, "dota", ["ship"])
    assert (config.data.image_size, config.training.batch_size) == (256, 2)
    assert config.training.epochs / config.evaluation.every <= 25
    assert config.detector.anchor_angles == [0.0] or len(config.detector.anchor_angles or ()) % 2 == 0
    assert re.search(r"^covered +objects +defaults .*\nall +8 .* 100\.0%", printed, re.M)
    assert "fewer than 20 objects to train on, too rare to be learned: ship (8)" in printed
    found = json.loads((root.parent / "plan.json").read_text())
    print_ = found["fingerprint"]
    assert found["coverage"]["after"]["all"] == {"objects": 8, "covered": 1, "at_0.5": 1, "at_0.4": 1}
    assert (print_["images"], print_["objects"], print_["classes"]["ship"]["objects"]) == (8, 8, 8)
    assert print_["classes"]["ship"]["long_side"]["0.5"] == 4 * 32
    train_set, val_set = (LabelledDataset(find_reader("dota"), root, split) for split in ("train", "val"))
    assert data_digest(train_set) != data_digest(val_set)
    assert len(print_["data_digest"]) == 16
    options = ["--training.epochs", "1", "--detector.weights_backbone", "null", "--data.image_size", "64"]
    step = re.search(r"next: dbf train (.*)$", printed, re.M)
    assert step is not None
    line = [*shlex.split(step[1]), *options, "--tracking.mlflow", "false", "--training.batch_size", "4"]
    assert run_command(train.command, line) == 0


BAD: dict[str, tuple[str, str, str]] = {
    "no object": ("", "", "must label at least one object"),
    "normalised": (
        ".1 .1 .4 .1 .4 .3 .1 .3 ship 0\n",
        ".1 .1 .4 .1 .4 .3 .1 .3 ship 0\n",
        "100% of the boxes are smaller than one; normalised coordinates?",
    ),
    "unreadable": ("8 8 40 8 40 24 8 ship 0\n", PLAIN, "line 1"),
    "a class of val alone": ("8 8 40 8 40 24 8 24 ship 0\n", PLAIN, "got 'plane'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_data_are_refused_and_nothing_is_written(
    case: str, planning: list[str], root: Path, refused: Refused
) -> None:
    text, val, reason = BAD[case]
    label(root / "train", text)
    label(root / "val", val)
    assert reason in refused(plan.command, planning)
    assert sorted(one.name for one in root.parent.iterdir()) == [root.name]


def test_a_class_that_is_known_and_only_evaluated_is_refused(
    planning: list[str], root: Path, refused: Refused
) -> None:
    label(root / "val", PLAIN)
    line = refused(plan.command, [*planning, "--data.classes", "[ship,plane]"])
    assert "every class must have an object to train on, plane occurs in val alone" in line


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda a, root: [*a[:2], str(root.parent / "my.txt"), *a[3:]], "--out must be a YAML file"),
        (lambda a, root: [*a[:2], str(root / "train/images/000.png/x.yaml"), *a[3:]], "can be made"),
        (lambda a, root: [str(root / "none"), *a[1:]], "none"),
        (lambda a, root: a[1:], "a folder of labelled images is needed, got none"),
        (lambda a, root: [*a, "--data.val_split", "none"], "none"),
        (lambda a, root: [*a, "--detector.anchor_ratio", "[1.0]"], "unknown option detector.anchor_ratio"),
        (lambda a, root: [*a, "--data.name", "synthetic"], "synthetic, which needs no folder"),
    ],
)
def test_bad_arguments_are_refused(
    change: Callable[[list[str], Path], list[str]],
    reason: str,
    planning: list[str],
    root: Path,
    refused: Refused,
) -> None:
    assert reason in refused(plan.command, change(planning, root))
    assert sorted(one.name for one in root.parent.iterdir()) == [root.name]


def test_what_a_person_has_written_is_not_written_over(
    planning: list[str], root: Path, refused: Refused
) -> None:
    file = root.parent / "my.yaml"
    file.write_text("seed: 3\n")
    assert "was not made by dbf plan alone" in refused(plan.command, planning)
    assert file.read_text() == "seed: 3\n"
    file.unlink()
    assert plan.main(planning) == 0
    assert plan.main(planning) == 0  # its own is made anew
    file.write_text(file.read_text().replace("batch_size: 2", "batch_size: 1"))
    assert "was not made by dbf plan alone" in refused(plan.command, planning)


def test_a_file_of_another_kind_beside_it_is_not_written_over(
    planning: list[str], root: Path, refused: Refused
) -> None:
    file = root.parent / "plan.json"
    file.write_text('{"mine": 1}')
    assert "plan.json beside --out is there and was not made by dbf plan" in refused(plan.command, planning)
    assert file.read_text() == '{"mine": 1}'


def test_what_is_trained_on_is_not_evaluated_on(planning: list[str], root: Path) -> None:
    joined = [*planning, "--data.train_split", "train+val"]
    assert plan.main(joined) == 0
    config = load_config(root.parent / "my.yaml")
    assert config.data.selection_fraction == 0.2
    shutil.copytree(root / "val", root / "test")
    assert plan.main(joined) == 0
    config = load_config(root.parent / "my.yaml")
    assert (config.data.val_split, config.data.selection_fraction) == ("test", 0)


def test_options_and_a_base_stay(planning: list[str], root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = root.parent / "base.yaml"
    base.write_text("detector: {fpn_channels: 8, head_convs: 0}\ntraining: {batch_size: 1}\n")
    assert plan.main([*planning, "--config", str(base), "--data.flips", "[horizontal]"]) == 0
    config = load_config(root.parent / "my.yaml")
    assert (config.detector.fpn_channels, config.training.batch_size) == (8, 1)
    assert config.data.flips == ["horizontal"]
    assert re.search(r"data\.flips +horizontal +as given; the rule would choose", capsys.readouterr().out)


def test_an_undivided_folder_has_images_held_out_and_one_image_none(
    tmp_path: Path, narrow: None, capsys: pytest.CaptureFixture[str]
) -> None:
    for count, share in ((6, 0.2), (1, 0.0)):
        folder = tmp_path / str(count)
        write_ships(folder, count)
        out = tmp_path / f"{count}.yaml"
        assert plan.main([str(folder), "--out", str(out), "--detector.backbone", "narrow"]) == 0
        assert load_config(out).data.selection_fraction == share
        printed = capsys.readouterr().out
        assert ("there is one image" in printed) == (count == 1)
        assert ("held out" in printed) == (count > 1)


def test_objects_too_small_to_be_seen_are_named_with_file_and_line(
    planning: list[str], root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = root / "train/labelTxt/003.txt"
    file.write_text(file.read_text() + "3 3 9 3 9 3.5 3 3.5 ship 0\n")
    assert plan.main(planning) == 0
    printed = capsys.readouterr().out
    assert "note: 1 objects will have a short side below 3 px at 256" in printed
    assert f"ship, 2 px: {file}, line 4" in printed
    (one,) = json.loads((root.parent / "plan.json").read_text())["short_objects"]
    assert one == {"file": str(file), "line": 4, "class": "ship", "short_side": 2.0}


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """Two images of 900 px with ships of 4 x 12 px: too small once the images are shrunk to 512."""
    for split in ("train", "val"):
        for folder in ("images", "labelTxt"):
            (tmp_path / "large" / split / folder).mkdir(parents=True)
        rows = [f"{x} {x} {x + 12} {x} {x + 12} {x + 4} {x} {x + 4} ship 0\n" for x in range(20, 880, 40)]
        Image.new("RGB", (900, 900)).save(tmp_path / "large" / split / "images" / "a.png")
        (tmp_path / "large" / split / "labelTxt" / "a.txt").write_text("".join(rows))
    return tmp_path / "large"


def test_large_images_of_small_objects_are_to_be_cut_first_and_the_command_for_it_works(
    large: Path, narrow: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "my.yaml"
    options = ["--detector.backbone", "narrow", "--detector.name", "rotated_fcos", "--training.device", "cpu"]
    arguments = [str(large), "--out", str(out), *options]
    assert plan.main(arguments) == 1
    printed = capsys.readouterr().out
    assert not out.exists()
    cut, again = (shlex.split(line)[1:] for line in printed.splitlines() if line.startswith("  dbf "))
    patches = str(tmp_path / "patches")
    assert (
        prepare_data.main([patches if word == "PATCHES" else word for word in [*cut[1:], "--workers", "0"]])
        == 0
    )
    assert sorted(again[-8:]) == sorted(
        [*options, *arguments[1:3]]
    )  # what was said of the detector is said again
    assert plan.main([patches if word == "PATCHES" else word for word in again[1:]]) == 0
    assert load_config(out).data.image_size == 512
    both = tmp_path / "both.yaml"
    arguments[2] = str(both)
    assert plan.main([*arguments, "--patches", str(tmp_path / "cut")]) == 0
    one, other = load_config(out), load_config(both)
    assert other.data.root == tmp_path / "cut"
    assert one.detector == other.detector
    assert one.training == other.training


def test_an_image_size_that_is_given_is_that_of_patches(large: Path, narrow: None, tmp_path: Path) -> None:
    options = ["--detector.backbone", "narrow", "--training.device", "cpu", "--data.image_size", "256"]
    out, patches = tmp_path / "my.yaml", tmp_path / "patches"
    assert plan.main([str(large), "--out", str(out), "--patches", str(patches), *options]) == 0
    config = load_config(out)
    assert (config.data.root, config.data.image_size) == (patches, 256)


def test_from_python(root: Path, narrow: None) -> None:
    found = dbf_ray.plan_settings(root, detector={"backbone": "narrow"})
    assert found["config"]["data"]["root"] == str(root)
    assert {"choices", "fingerprint", "coverage", "notes", "yaml", "short_objects"} <= set(found)


def test_generated_scenes_need_no_folder(tmp_path: Path, narrow: None) -> None:
    out = tmp_path / "scenes.yaml"
    options = ["--data.name", "synthetic", "--data.train_images", "12", "--data.val_images", "2"]
    assert plan.main([*options, "--out", str(out), "--detector.backbone", "narrow"]) == 0
    config = load_config(out)
    assert (config.data.name, config.data.train_images) == ("synthetic", 12)
