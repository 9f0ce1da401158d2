"""``dbf compare``: one page of studies in folders and in MLflow, and what it says of those that are none."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow import MlflowClient

import dbf_ray.tracking
from dbf_ray.cli import compare
from dbf_ray.cli.options import run_command
from tests.synthetic_study import synthetic_study
from tests.tracking.told import begun, end, run_id, steps

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def studies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two studies in the folder where they are looked for; MLflow's store is not there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name, trials in (("ships", 6), ("planes", 5)):
        synthetic_study(tmp_path / "studies" / name, trials, 4, running=trials - 5, draws=50)
    return tmp_path / "studies"


def data_of(page: Path) -> dict[str, Any]:
    found = re.search(r'id="data">(.*?)</script>', page.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_a_study_by_name_and_one_by_path(studies: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--study", "ships", "--study", str(studies / "planes"), "--out", "a/b.html", "--json"]
    assert run_command(compare.command, arguments) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "ships: 5 of 6 trials complete, from studies/ships"
    result = json.loads(printed[-1])
    assert result["out"] == "a/b.html"
    assert [one["study"] for one in result["studies"]] == ["ships", "planes"]
    data = data_of(Path("a/b.html"))
    assert len(data["rows"]) == 11
    assert all(row["runs"] for row in data["rows"]), "every run has its epochs"
    assert data["studies"][0]["running"] == 1
    again = ["--study", "ships/", "--study", str(studies / "planes" / "pareto.json"), "--out", "a/b.html"]
    assert run_command(compare.command, again) == 2, "a name with a slash is a path"
    assert run_command(compare.command, again[2:]) == 0, "the page of before is drawn anew"
    assert len(data_of(Path("a/b.html"))["rows"]) == 5


def test_studies_of_one_name_are_told_by_their_paths(studies: Path) -> None:
    shutil.copytree(studies / "ships", studies.parent / "other" / "ships")
    assert run_command(compare.command, ["--study", "ships", "--study", "other/ships"]) == 0
    assert data_of(Path("compare.html"))["title"] == "ships, other/ships"


def test_a_study_that_was_moved_without_its_trials(studies: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(studies / "ships" / "trials")
    assert run_command(compare.command, ["--study", "ships", "--search.studies_dir", "studies"]) == 0
    assert "no timelines" in capsys.readouterr().err
    assert data_of(Path("compare.html"))["chosen"] == []


def half(studies: Path, content: str | None) -> None:
    (studies / "half").mkdir()
    (studies / "half" / "study.db").write_text("")
    if content is not None:
        (studies / "half" / "pareto.json").write_text(content)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], r"--study must be given, got none; studies has half, planes, ships"),
        (
            ["--study", "shps"],
            r"--study shps is not in studies; did you mean ships\? studies has half, planes",
        ),
        (["--study", "x/y"], r"--study must be a study, got x/y, where no folder is; studies has"),
        (["--study", "studies/ships/trials/0"], r"trials/0, a single run; give a folder that a search made"),
        (["--study", "studies"], r"got studies, which has no pareto.json"),
        (["--study", "ships", "--study", "ships"], r"different names, got ships, ships; give each once"),
        (["--study", "ships", "--out", "a.png"], r"--out must be an HTML file, got a.png; give a.png.html"),
        (
            ["--study", "ships", "--out", "studies/ships.html/a.html"],
            r"--out must be a file that can be written",
        ),
        (
            ["--study", "ships", "--out", "mine.html"],
            r"--out is there and is no page of a study, got mine.html",
        ),
        (["--study", "ships", "--stdy", "x"], r"unknown option --stdy; did you mean --study\?"),
        (["--study", "ships", "--search.studies_dir", "none"], r"not in none; none has no studies"),
        (
            ["--study", "nets", "--tracking.uri", "http://127.0.0.1:1"],
            r"MLflow at http://127.0.0.1:1 cannot be reached \(.*\); start it, give another one",
        ),
        (
            ["--study", "nets", "--tracking.uri", "sqlite:///no.db"],
            r"no.db must be there, and there is no such",
        ),
    ],
)
def test_what_is_no_study_is_refused_in_a_line(
    studies: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    half(studies, None)
    Path("mine.html").write_text("<p>my notes</p>")
    (studies / "ships.html").write_text("")
    before = sorted(studies.parent.rglob("*"))
    assert run_command(compare.command, arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert re.search(said, printed.err), printed.err
    assert printed.err.count("\n") == 1
    assert sorted(studies.parent.rglob("*")) == before
    assert Path("mine.html").read_text() == "<p>my notes</p>"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, r"the study in studies/half has no pareto.json yet.*call the dbf search that began it again"),
        ('{"study": "half", "tri', r"half/pareto.json must be whole JSON, and cannot be read"),
        (
            '{"study": "half", "trials": []}',
            r"half/pareto.json must have objectives, and has not: another version",
        ),
        ("[]", r"another version of dbf_ray wrote it; call the dbf search that made it again"),
    ],
)
def test_half_a_study_and_one_of_another_version(
    studies: Path, capsys: pytest.CaptureFixture[str], content: str | None, said: str
) -> None:
    half(studies, content)
    assert run_command(compare.command, ["--study", "half"]) == 2
    printed = capsys.readouterr().err
    assert re.search(said, printed), printed
    assert not Path("compare.html").exists()


def test_the_page_is_opened(studies: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    opened: list[str] = []
    monkeypatch.setattr(compare.webbrowser, "open", lambda url: bool(opened.append(url)))
    assert run_command(compare.command, ["--study", "ships", "--open"]) == 0
    assert opened == [(studies.parent / "compare.html").as_uri()]
    assert capsys.readouterr().err == "warning: no browser could be started; open compare.html in one\n"


def test_sync_delivers_first(studies: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    calls: list[tuple[str, str | None]] = []
    failure: list[str | None] = [None]

    def deliver(root: Path, uri: str | None) -> Any:
        calls.append((str(root), uri))
        return SimpleNamespace(runs=2, pending=1, failure=failure[0])

    monkeypatch.setattr(dbf_ray.tracking, "deliver", deliver, raising=False)
    assert run_command(compare.command, ["--sync", "--json"]) == 0
    assert calls == [("studies", None)], "there is no folder of runs"
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["sync"]["runs"] == 2
    assert run_command(compare.command, ["--sync", "--study", "ships", "--tracking.uri", "http://h:1"]) == 0
    assert calls[1:] == [("studies/ships", "http://h:1")]
    failure[0] = "it is away"
    assert run_command(compare.command, ["--sync"]) == 2
    assert "MLflow, which failed: it is away; call this again" in capsys.readouterr().err
    assert run_command(compare.command, ["--sync", "--study", "ships"]) == 0, "the page needs no store"


def test_a_page_of_a_folder_needs_no_mlflow(studies: Path) -> None:
    code = (
        "import sys; sys.modules['mlflow'] = None\n"
        "from dbf_ray.cli.compare import main; sys.exit(main(['--study', 'ships']))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, cwd=studies.parent)


def test_sync_delivers_what_a_store_has_missed(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "runs" / "a"
    trackers = begun(run, "http://127.0.0.1:9", 3)
    with pytest.warns(UserWarning, match="dbf compare --sync"):
        end(trackers)
    assert run_command(compare.command, ["--sync", "--tracking.uri", uri]) == 0
    assert "MLflow: 1 runs delivered" in capsys.readouterr().out
    assert steps(MlflowClient(uri), run_id(run)) == [0, 1, 2]
