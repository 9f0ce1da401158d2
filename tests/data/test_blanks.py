"""Class names with blanks, which DOTA's lines do not set apart from the flag behind them."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dbf_ray.cli import train
from dbf_ray.cli.options import run_command
from dbf_ray.cli.prepare_data import main
from dbf_ray.data import CLASS_LISTS
from dbf_ray.data.check import check_dataset
from dbf_ray.data.labelled import LabelledDataset, read_split
from dbf_ray.data.readers import READERS, LabelledObject, Problem
from dbf_ray.data.readers.dota import DotaReader, doubtful, parse_line
from tests.data.label_writers import FORMATS

CORNERS = "10 10 30 10 30 20 10 20"
OTHER = "40 10 50 10 50 30 40 30"
KNOWN = ("type 1", "storage tank", "ship")


def as_known(names: tuple[str, ...]) -> dict[str, bool]:
    return {name.replace(" ", "-"): " " in name for name in names}


def parsed(words: str, known: tuple[str, ...] = ()) -> LabelledObject | Problem:
    return parse_line(f"{CORNERS} {words}", Path("here"), 3, as_known(known))


@pytest.mark.parametrize(
    ("words", "known", "name", "difficult"),
    [
        ("type 1", (), "type", True),
        ("type 1", ("type", "ship"), "type", True),
        ("type 1", KNOWN, "type-1", False),
        ("type 1", ("type-1", "ship"), "type-1", False),
        ("type 1", ("type", "type-1"), "type", True),
        ("type-1 1", KNOWN, "type-1", True),
        ("type 1 1", KNOWN, "type-1", True),
        ("type 1 0", KNOWN, "type-1", False),
        ("type 1 0", ("type", "type 1"), "type-1", False),
        ("type-1", ("type", "type 1"), "type-1", False),
        ("storage tank", KNOWN, "storage-tank", False),
        ("storage tank 2", KNOWN, "storage-tank", True),
        ("ship 1", KNOWN, "ship", True),
        ("very long name of 2", ("very-long-name-of-2",), "very-long-name-of-2", False),
    ],
)
def test_blanks_within_a_name(words: str, known: tuple[str, ...], name: str, difficult: bool) -> None:
    found = parsed(words, known)
    assert isinstance(found, LabelledObject), found
    assert (found.name, found.difficult) == (name, difficult)


@pytest.mark.parametrize("separator", [",", "\t", ", "])
def test_separators_other_than_blanks_set_names_apart(separator: str) -> None:
    for words, known, expected in (
        ("storage tank", (), ("storage-tank", False, None)),
        (f"storage tank{separator}1", (), ("storage-tank", True, None)),
        (f"type{separator}1", ("type", "type 1"), ("type", True, None)),
        ("type 1", ("type-1",), ("type-1", False, None)),
        ("type 1", (), ("type", True, "type-1")),
    ):
        found = parse_line(separator.join([*CORNERS.split(), words]), Path("here"), 1, as_known(known))
        assert isinstance(found, LabelledObject), found
        assert (found.name, found.difficult, found.other) == expected


@pytest.mark.parametrize(
    ("words", "known", "says"),
    [
        (
            "type 1",
            ("type", "type 1"),
            "must be told apart, got 'type 1', which may be 'type' with flag 1 or",
        ),
        ("storage tank", ("ship",), "got 'tank'; correct the line, or name the class 'storage tank' among"),
        (
            "storage tank 0",
            (),
            "got 11 fields; correct it, or name the class 'storage tank' among all classes",
        ),
        ("one two three", (), "got 11 fields; correct it, or name the class 'one two three' among all"),
    ],
)
def test_words_that_are_no_class(words: str, known: tuple[str, ...], says: str) -> None:
    problem = parsed(words, known)
    assert isinstance(problem, Problem)
    assert problem.line == 3
    assert says in problem.message


def test_which_classes_are_in_doubt() -> None:
    def readings(*words: str) -> list[tuple[str, str | None]]:
        found = [parsed(one) for one in words]
        return [(one.name, one.other) for one in found if isinstance(one, LabelledObject)]

    assert doubtful(readings("type 1", "type 2", "ship 1", "tug")) == {"type": "type-1"}
    assert doubtful(readings("type 1", "type 0", "tug 1", "tug 1", "tug 0")) == {}
    assert doubtful(readings("plane", "tug", "tug")) == {}


def test_data_classes_say_what_a_line_means(
    make_root: Callable[..., Path], capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Without them check and a training name the doubt; each of the next steps ends it."""
    text = f"{CORNERS} type 1\n{OTHER} plane 0\n"
    root = make_root({"a": text, "bb": text})
    with caplog.at_level(logging.WARNING):
        undeclared = LabelledDataset(DotaReader(), root)
    assert undeclared.classes == ["plane", "type"]
    assert "'type' is read as a class with a difficult flag, but may be 'type-1'" in caplog.text
    [problem] = check_dataset(root, DotaReader(), workers=0).problems
    assert (problem.kind, problem.line) == ("ambiguous_class", 1)
    assert problem.file == root / "train" / "labelTxt" / "a.txt"
    assert "got 'type' with no flag but others than 0, which may be 'type-1' without one" in problem.message
    caplog.clear()
    for names in (["type 1", "plane"], ["type-1", "plane"]):
        dataset = LabelledDataset(DotaReader(), root, classes=names)
        target = dataset.load(0)[1]
        assert dataset.classes == ["type-1", "plane"]
        assert (target["labels"].tolist(), target["difficult"].tolist()) == ([0, 1], [False, False])
        assert check_dataset(root, DotaReader(), names, workers=0).problems == []
    assert main(["check", str(root), "--classes", "type 1,plane", "--workers", "0"]) == 0
    both = ["--data.classes", "[type,type 1,plane]"]
    folder = ["--data.name", "dota", "--data.root", str(root), "--runs_dir", str(root / "runs")]
    capsys.readouterr()
    assert run_command(train.command, [*folder, *both]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "a.txt, line 1: a class and its flag must be told apart, got 'type 1'" in line
    assert "write a flag behind each class, 'type-1' 0 say" in line
    assert main(["check", str(root), "--classes", "type,type 1,plane", "--workers", "0"]) == 1
    for file in (root / "train" / "labelTxt").iterdir():
        file.write_text(text.replace("type 1", "type-1 0"))
    assert main(["check", str(root), "--classes", "type,type 1,plane", "--workers", "0"]) == 0
    assert LabelledDataset(DotaReader(), root).classes == ["plane", "type-1"]
    assert caplog.text == ""


def test_a_public_list_is_known_too(make_root: Callable[..., Path]) -> None:
    root = make_root({"a": f"{CORNERS} storage tank\n"})
    assert check_dataset(root, DotaReader(), "dota-v1.0", workers=0).problems == []
    dataset = LabelledDataset(DotaReader(), root, classes="dota-v1.0")
    assert dataset.load(0)[1]["labels"].tolist() == [dataset.classes.index("storage-tank")]


def test_difficult_objects_of_a_known_class_are_in_no_doubt(make_root: Callable[..., Path]) -> None:
    root = make_root({"a": f"{CORNERS} ship 1\n", "bb": f"{OTHER} ship 2\n"})
    assert "ship" in CLASS_LISTS["dota-v1.0"]
    assert check_dataset(root, DotaReader(), workers=0).problems == []


def test_patches_and_merged_detections_of_a_class_with_a_blank(
    make_root: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Split writes one word and a flag; merged detections of the class are judged by labels with a blank."""
    root = make_root({"a": f"{CORNERS} type 1\n"})
    out = tmp_path.with_name("patches")
    assert (
        main(
            [
                "split",
                str(root),
                str(out),
                "--size",
                "64",
                "--overlap",
                "0",
                "--classes",
                "type 1",
                "--workers",
                "0",
            ]
        )
        == 0
    )
    [file] = (out / "train" / "labelTxt").iterdir()
    assert file.read_text().split()[-2:] == ["type-1", "0"]
    assert (out / "train" / "originals" / "a.txt").read_text().split()[-2:] == ["type-1", "0"]
    found = tmp_path.with_name("found")
    found.mkdir()
    (found / "Task1_type 1.txt").write_text(f"a 0.9 {CORNERS}\n")
    merged = tmp_path.with_name("merged")
    arguments = ["merge", str(found), str(merged), "--labels", str(root), "--split", "train"]
    capsys.readouterr()
    assert main(arguments) == 0
    assert {"merged/map50 1.0000", "merged/ap50/type-1 1.0000"} <= {
        " ".join(line.split()) for line in capsys.readouterr().out.splitlines()
    }
    assert sorted(file.name for file in merged.iterdir()) == ["Task1_type-1.txt", "submission.zip"]
    for folder in (out, found, merged):
        shutil.rmtree(folder)


@pytest.mark.parametrize("name", [name for name in READERS if not name.startswith("hrsc")])
def test_data_classes_with_blanks_in_every_format(name: str, tmp_path: Path) -> None:
    """Names with blanks are written as each format's tools do, and found as they are named."""
    objects = [
        ((10.0, 10.0, 30.0, 10.0, 30.0, 20.0, 10.0, 20.0), "storage tank", False),
        ((40.0, 10.0, 50.0, 10.0, 50.0, 30.0, 40.0, 30.0), "type 1", False),
    ]
    FORMATS[name].write(tmp_path, "train", {"a": [*objects]})
    dataset = LabelledDataset(READERS[name], tmp_path, classes=["type 1", "storage tank"])
    assert dataset.classes == ["type-1", "storage-tank"]
    assert sorted(dataset.load(0)[1]["labels"].tolist()) == [0, 1]
    if name != "dota":
        [(_, labels)] = read_split(READERS[name], tmp_path, "train")
        assert [one.name for one in labels.objects] == ["storage-tank", "type-1"]
