"""``python -m jobs.prepare_data check``: exit status, what is printed, JSON and the report's files."""

from __future__ import annotations

import html
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from PIL import Image

from dbf_ray.cli.prepare_check import MOST_PRINTED, problem_lines
from dbf_ray.cli.prepare_data import COMMANDS, command, main
from dbf_ray.data.check import KINDS
from tests.data.check.planted_faults import FAULTS, SPLITS, line, write_clean

REPOSITORY = Path(__file__).resolve().parents[2]
KEYS = {
    "root",
    "format",
    "splits",
    "images",
    "objects",
    "problems",
    "errors",
    "warnings",
    "notes",
    "statistics",
}


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clean(tmp_path_factory.mktemp("clean") / "data")


@pytest.fixture
def data(clean: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(clean, tmp_path / "data"))


def test_clean_data(clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(clean), "--workers", "0", "--json"]) == 0
    printed = capsys.readouterr()
    *text, last = printed.out.splitlines()
    result = json.loads(last)
    images = sum(SPLITS.values()) + 4
    assert set(result) == KEYS
    assert (result["root"], result["format"], result["splits"]) == (
        str(clean),
        "dota",
        ["test", "train", "val"],
    )
    assert (result["images"], result["problems"], result["errors"], result["warnings"]) == (images, [], 0, 0)
    assert text[-1] == f"no problems in {images} images with {result['objects']} objects (format dota)"
    train = result["statistics"]["splits"]["train"]
    assert train["images"] == SPLITS["train"]
    row = [
        "train",
        *(str(train[key]) for key in ("images", "images_without_objects", "objects", "difficult")),
    ]
    assert row in [line.split() for line in text]
    assert any(row.split()[:1] == ["ship"] for row in text)
    assert any(row.startswith("note: test has no labels") for row in text)
    assert printed.err == ""


def test_errors_are_told_with_their_place_and_by_the_exit_status(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, number = line("140 40 190 40 190 60 140 60 ship 0")(data, 2)
    line("40 40 90 40 90 41 40 41 ship 0")(data, 3)
    assert main(["check", str(data), "--workers", "0", "--json"]) == 1
    text = capsys.readouterr().out
    rows = text.splitlines()
    assert rows[0] == "outside (error, 1): an object is not on the image, or for the most part not"
    assert rows[1].startswith(f"  {file}, line {number}: objects must lie on the image of 128 x 128 pixels")
    assert rows[3] == "tiny (warning, 1): an object is less than two pixels wide"
    assert rows[-2].startswith("1 error, 1 warning in ")
    result = json.loads(rows[-1])
    assert (result["errors"], result["warnings"]) == (1, 1)
    assert result["problems"][0] == {
        "kind": "outside",
        "severity": "error",
        "file": str(file),
        "line": number,
        "message": rows[1].split(": ", 1)[1],
    }


def test_warnings_alone_are_no_failure(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line("40 40 90 40 90 41 40 41 ship 0")(data, 3)
    assert main(["check", str(data), "--workers", "0"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("0 errors, 1 warning in ")


def test_report_of_all_faults(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, fault in enumerate(FAULTS):
        fault.plant(data, number)
    for _ in range(MOST_PRINTED + 3):
        line("10 10")(data, 35)
    folder = tmp_path / "new" / "report"
    assert main(["check", str(data), "--workers", "0", "--report", str(folder), "--samples", "5"]) == 1
    printed = capsys.readouterr().out
    more = sum(fault.kind == "syntax" for fault in FAULTS) + 3
    assert f"  and {more} more; --report DIR lists all" in printed
    assert {file.name for file in folder.iterdir()} == {
        "report.json",
        "problems.txt",
        "statistics.png",
        "samples.png",
        "index.html",
    }
    result = json.loads((folder / "report.json").read_text())
    assert set(result) == KEYS
    kinds = {problem["kind"] for problem in result["problems"]}
    assert kinds == {fault.kind for fault in FAULTS}
    listed = (folder / "problems.txt").read_text()
    page = html.unescape((folder / "index.html").read_text())
    for problem in result["problems"]:
        place = problem["file"] if problem["line"] is None else f"{problem['file']}, line {problem['line']}"
        assert f"  {place}: {problem['message']}\n" in listed
        assert KINDS[problem["kind"]].meaning in page
    assert "more;" not in listed
    assert Image.open(folder / "statistics.png").width > 1000
    samples = Image.open(folder / "samples.png").convert("RGB")
    assert samples.width > 2000
    assert len(samples.getcolors(1 << 24) or []) > 1000


def test_report_of_images_without_objects(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "report"
    assert main(["check", str(data / "test"), "--workers", "0", "--report", str(folder)]) == 0
    assert not (folder / "samples.png").exists()
    assert "no image has objects" in (folder / "index.html").read_text()


def test_samples_are_drawn_over_the_image(data: Path, tmp_path: Path) -> None:
    """Where an outline is drawn the picture differs from the image, and nowhere far from it."""
    from dbf_ray.cli.prepare_check import CELL, draw_samples
    from dbf_ray.data.check import check_dataset
    from dbf_ray.data.readers import READERS

    shutil.rmtree(data / "val")
    for file in (data / "train" / "labelTxt").iterdir():
        file.write_text("")
    (data / "train" / "labelTxt" / "train04.txt").write_text("40 40 90 40 90 60 40 60 ship 0\n")
    drawn = draw_samples(check_dataset(data, READERS["dota"], workers=0), 1)
    assert drawn is not None
    scale = CELL / 128
    with Image.open(data / "train" / "images" / "train04.png") as image:
        plain = image.resize((CELL, CELL), Image.Resampling.BICUBIC)
    left, top = 12, drawn.height - 12 - CELL
    changed = [
        (x, y)
        for x in range(0, CELL, 2)
        for y in range(0, CELL, 2)
        if drawn.getpixel((left + x, top + y)) != plain.getpixel((x, y))
    ]
    assert changed
    xs, ys = zip(*((x, y) for x, y in changed if y > 42 * scale), strict=True)
    assert min(xs) == pytest.approx(40 * scale, abs=6)
    assert max(xs) == pytest.approx(90 * scale, abs=6)
    assert max(ys) == pytest.approx(60 * scale, abs=6)
    assert min(y for _, y in changed) > 40 * scale - 40  # the caption is above
    inside = [(x, y) for x, y in changed if 46 * scale < x < 84 * scale and 46 * scale < y < 54 * scale]
    assert inside == []


def test_classes_and_format_can_be_given(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(data), "--workers", "0", "--format", "dota", "--classes", "dota-v1.5"]) == 0
    assert main(["check", str(data), "--workers", "0", "--classes", "ship, plane"]) == 1
    assert "classes must be among ship, plane, got 'harbor'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["check", "nowhere"], ["must exist, nowhere is not there"]),
        (["check"], ["required: ROOT", "prepare-data check --help"]),
        ([], ["required: COMMAND"]),
        (["mend", "here"], ["invalid choice: 'mend'", "check"]),
        (["check", ".", "--format", "voc"], ["unknown data format 'voc'", "dota", "or a dotted path"]),
        (["check", ".", "--clases", "ship"], ["unknown option --clases; did you mean --classes?"]),
        (["check", ".", "--workers", "-1"], ["must be >= 0, got -1"]),
        (
            ["check", ".", "--format", "dota", "--classes", "ship,ship"],
            ["different names", "['ship', 'ship']"],
        ),
        (["check", "EMPTY"], ["must be in one of the known formats"]),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, arguments: list[str], parts: list[str], refused: Callable[[object, Sequence[str]], str]
) -> None:
    (tmp_path / "empty").mkdir()
    told = refused(command, [str(tmp_path / "empty") if word == "EMPTY" else word for word in arguments])
    for part in parts:
        assert part in told


def test_a_report_that_cannot_be_written_is_told_before_the_walk(
    clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("dbf_ray.cli.prepare_check.check_dataset", lambda *_: pytest.fail("the walk began"))
    assert main(["check", str(clean), "--report", str(tmp_path / "file")]) == 2
    assert str(tmp_path / "file") in capsys.readouterr().err


def test_help_names_all_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    shown = capsys.readouterr().out
    for name in COMMANDS:
        assert f"    {name} " in shown
    with pytest.raises(SystemExit, match="0"):
        main(["check", "--help"])
    shown = capsys.readouterr().out
    for option in ("ROOT", "--format", "--classes", "--report", "--samples", "--workers", "--json"):
        assert option in shown
    assert "dota-v2.0" in shown


def test_unknown_kinds_are_printed() -> None:
    found = [{"kind": "odd", "severity": "error", "file": "a", "line": None, "message": "strange"}]
    assert problem_lines(found) == ["odd (error, 1)", "  a: strange", ""]


def test_as_a_program_with_processes(data: Path) -> None:
    """The walk starts processes that import the program's own module."""
    file, number = line("10 10")(data, 1)
    done = subprocess.run(
        [sys.executable, "-m", "jobs.prepare_data", "check", str(data), "--workers", "1", "--json"],
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr == ""
    (problem,) = json.loads(done.stdout.splitlines()[-1])["problems"]
    assert (problem["file"], problem["line"], problem["kind"]) == (str(file), number, "syntax")


def test_names_that_are_no_text_in_every_output(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Printed to a strict stream, and in each file of the report."""
    name = os.fsdecode(b"\xb0\xa1")
    for folder, suffix in (("images", "png"), ("labelTxt", "txt")):
        file = data / "train" / folder / f"train05.{suffix}"
        file.rename(file.with_stem(name))
    (data / "train" / "labelTxt" / f"{name}.txt").write_text("10 10\n")
    moved = data.rename(data.with_name(f"data{name}"))
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict"))
    status = main(["check", str(moved), "--workers", "0", "--json", "--report", str(tmp_path / "report")])
    assert status == 1
    for file in (tmp_path / "report").iterdir():
        if file.suffix != ".png":
            assert "udcb0" in file.read_bytes().decode("utf-8")
