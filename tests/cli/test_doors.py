"""``dbf`` and ``python -m jobs.X``: the same commands."""

from __future__ import annotations

import ast
import os
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from dbf_ray.cli import main as dbf
from dbf_ray.cli import train

ROOT = Path(__file__).resolve().parents[2]
DOORS = sorted(file.stem for file in (ROOT / "jobs").glob("*.py") if file.stem != "__init__")
HELP = """
import sys, time
sys.modules["torch"] = None
begun = time.process_time()
from dbf_ray.cli.main import main
status = main(["--help"])
assert time.process_time() - begun < 0.5
sys.exit(status)
"""


def test_every_command_has_a_door() -> None:
    assert [name.replace("_", "-") for name in DOORS] == sorted(dbf.COMMANDS)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"dbf": "dbf_ray.cli.main:main"}


@pytest.mark.parametrize("name", DOORS)
def test_a_door_is_thin_and_leads_to_its_command(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(ast.parse((ROOT / "jobs" / f"{name}.py").read_text()).body) <= 4
    monkeypatch.syspath_prepend(ROOT)
    for arguments, status in ((["--help"], 0), (["--no-such-option"], 2)):
        monkeypatch.delitem(sys.modules, f"jobs.{name}", raising=False)  # another test may have imported it
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        with pytest.raises(SystemExit) as left:
            runpy.run_module(f"jobs.{name}", run_name="__main__")
        assert left.value.code == status
    printed = capsys.readouterr()
    assert printed.out.startswith(f"usage: python -m jobs.{name} ")
    assert printed.err.startswith("error: ")


def test_help_is_quick_and_needs_no_torch() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HELP],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert all(f"\n  {name} " in done.stdout for name in dbf.COMMANDS)


def test_a_command_gets_its_arguments_and_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def instead(arguments: list[str], prog: str) -> int:
        calls.append((arguments, prog))
        return 3

    monkeypatch.setattr(train, "main", instead)
    assert dbf.main(["train", "--dry-run"]) == 3
    assert calls == [(["--dry-run"], "dbf train")]


def test_what_is_no_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert dbf.main(["trian"]) == 2
    assert capsys.readouterr().err == "error: unknown command trian; did you mean train?\n"
    assert dbf.main([]) == 2
    assert dbf.main(["--version"]) == 0
