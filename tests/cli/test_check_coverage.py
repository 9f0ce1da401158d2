"""``prepare-data check`` with a configuration: what a detector can match, on objects counted by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from dbf_ray.cli import prepare_coverage
from dbf_ray.cli.prepare_data import command, main
from dbf_ray.config import load_config
from dbf_ray.reports.style import CLASSES
from tests.data.check.planted_faults import write_one

# Anchors of scale 1/8 are squares of 4, 8, 16, 32 and 64 pixels, those of 16 at each multiple of 32 pixels.
SMALL = ["--detector.anchor_scales", "[0.125]", "--detector.anchor_ratios", "[1.0]"]
THRESHOLDS = ["--detector.positive_iou", "0.45", "--detector.negative_iou", "0.35"]
SIZE = ["--data.image_size", "128"]
ROWS = [
    ([64.0, 64.0, 32.0, 32.0, 0.0], "square", 0),  # is an anchor, with the defaults too
    # shares 16 x 14.4 of 486.4 with a square of 16: .474; with the defaults' 45.3 x 22.6 460.8 of 1024: .45
    ([96.0, 96.0, 32.0, 14.4, 0.0], "oblong", 0),
    ([16.0, 16.0, 4.0, 4.0, 0.0], "dot", 0),  # is an anchor of 4, nothing to the defaults
    ([112.0, 16.0, 4.0, 4.0, 0.0], "dot", 1),
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_one(tmp_path / "data", ROWS, (128, 128))


def test_coverage_by_hand(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(data), "--workers", "0", "--json", *SIZE, *SMALL, *THRESHOLDS]) == 0
    *text, last = capsys.readouterr().out.splitlines()
    found = json.loads(last)["coverage"]
    assert (found["objects"], found["looked_at"], found["views"], found["image_size"]) == (4, 4, 4, 128)
    before, after = found["before"], found["after"]
    assert [row["all"]["covered"] for row in (before, after)] == pytest.approx([1 / 3, 1])
    assert [after["all"][key] for key in ("at_0.5", "at_0.4")] == pytest.approx([2 / 3, 1])
    assert before["all"]["at_0.4"] == pytest.approx(2 / 3)
    assert [row["difficult"]["covered"] for row in (before, after)] == [0, 1]
    assert {name: row["covered"] for name, row in before["classes"].items()} == {
        "square": 1,
        "oblong": 0,
        "dot": 0,
    }
    assert after["sizes"]["below 16 px"]["objects"] == 1
    rows = [line.split() for line in text]
    assert ["all", "3", "33.3%", "33.3%", "66.7%", "100.0%", "66.7%", "100.0%"] in rows
    assert ["oblong", "1", "0.0%", "0.0%", "100.0%", "100.0%", "0.0%", "100.0%"] in rows
    assert ["difficult,", "not", "counted", "else", "1", "0.0%"] in [row[:6] for row in rows]


def test_a_configuration_file_says_as_much_and_other_detectors_too(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "data: {image_size: 128, root: elsewhere, name: synthetic}\ndetector: {name: rotated_fcos}\n"
    )
    assert main(["check", str(data), "--workers", "0", "--json", "--config", str(file)]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])["coverage"]
    # a point lies at 4 + 8 k: the square holds some, the dots about 16 none
    classes = {name: row["covered"] for name, row in found["after"]["classes"].items()}
    assert (found["detector"], classes) == ("rotated_fcos", {"dot": 0, "oblong": 1, "square": 1})
    assert set(found["after"]["all"]) == {"objects", "covered", "under_3_points"}


def test_the_page_shows_what_nobody_matches(data: Path, tmp_path: Path) -> None:
    report = tmp_path / "report"
    arguments = ["check", str(data), "--workers", "0", "--report", str(report), *SIZE]
    assert main([*arguments, "--detector.name", "rotated_retinanet"]) == 0
    page = (report / "index.html").read_text()
    assert "<h2>Coverage</h2>" in page
    assert "one.png<br><span class='muted'>3 of 4 objects in no view" in page
    assert json.loads((report / "report.json").read_text())["coverage"]["before"]["all"]["objects"] == 3
    assert main(["check", str(data), "--workers", "0", "--report", str(report)]) == 0
    assert "Coverage" not in (report / "index.html").read_text()


def test_objects_are_marked_by_what_matches_them(data: Path) -> None:
    from dbf_ray.plan.matched import match, worst_images

    config = load_config(None, {"data.image_size": 128})
    [image] = worst_images(match(config, data, "dota"), 3)
    assert image.share.tolist() == [1, 0, 0, 0]
    pixels = np.asarray(prepare_coverage._drawn(image)).astype(int)
    scale = prepare_coverage.CELL / 128
    for (x, y, w, *_), never in zip([row[0] for row in ROWS], [False, True, True, True], strict=True):
        edge = pixels[round(y * scale), round((x - w / 2) * scale)]
        color = CLASSES[0 if never else 1]
        assert edge == pytest.approx([int(color[k : k + 2], 16) for k in (1, 3, 5)], abs=40)


def test_data_that_a_training_refuses_leave_coverage_out(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "labelTxt" / "one.txt").write_text("10 10\n")
    assert main(["check", str(data), "--workers", "0", "--json", *SIZE]) == 1
    *text, last = capsys.readouterr().out.splitlines()
    assert json.loads(last)["coverage"] is None
    [note] = [line for line in text if line.startswith("note: coverage is left out: ")]
    assert f"{data / 'labelTxt' / 'one.txt'}, line 1" in note


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--detector.anchor_ratio", "[1.0]"], ["anchor_ratio"]),
        (["--detector.anchor_ratios", "[]"], ["detector.anchor_ratios must be a non-empty list"]),
        (["--detector.anchor_ratios", "x"], ["detector.anchor_ratios", "'x'"]),
        (["--detector.name", "yolo"], ["yolo"]),
        (["--config", "nowhere.yaml"], ["nowhere.yaml"]),
        (["--data.image_siz", "128"], ["unknown option --data.image_siz; did you mean --data.image_size?"]),
        (["--data.image_size", "3"], ["data.image_size", "3"]),
        (["--training.epochs", "3"], ["unknown option --training.epochs"]),
        (["--data.root", "there"], ["unknown option --data.root; ROOT says it here"]),
        (["--data.name", "dota"], ["unknown option --data.name; --format says it here"]),
    ],
)
def test_bad_settings_are_refused_before_the_walk(
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    parts: list[str],
    refused: Callable[[object, Sequence[str]], str],
) -> None:
    monkeypatch.setattr("dbf_ray.cli.prepare_check.check_dataset", lambda *_: pytest.fail("the walk began"))
    told = refused(command, ["check", str(data), *arguments])
    for part in parts:
        assert part in told


def test_help_teaches_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["check", "--help"])
    shown = capsys.readouterr().out
    for option in ("--config FILE", "--data.image_size INT", "--detector.name TEXT", "--config my.yaml"):
        assert option in shown
    for option in ("--data.root", "--detector.weights_backbone", "--data.prefetch"):
        assert option not in shown
