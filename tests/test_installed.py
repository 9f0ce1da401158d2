"""The wheel in a new environment, beside the libraries that are there already, used from an empty folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("dbf_ray", "jobs", "search_spaces")
FILES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")
TINY = [
    *("--detector.weights_backbone", "null", "--detector.fpn_channels", "16", "--data.image_size", "64"),
    *("--data.train_images", "8", "--data.val_images", "4", "--data.selection_fraction", "0"),
    *("--training.epochs", "1", "--training.threads", "1", "--tracking.mlflow", "false"),
]

pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path) -> str:
    """What a command prints; without this checkout on Python's path."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=cwd, env=kept)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the checkout in which an older version has left a build/."""
    source = tmp_path_factory.mktemp("source")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, source)
    for stale in ("build/lib/jobs/old.py", "build/lib/dbf_ray/old.py"):
        (source / stale).parent.mkdir(parents=True)
        (source / stale).write_text("")
    out = source / "out"
    pip = (sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation")
    run(*pip, "--no-cache-dir", "--wheel-dir", out, source, cwd=source)
    [file] = out.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel. It sees the libraries through a .pth file, but no editable install
    among them: .pth files of a folder that is itself named in one are not read.
    """
    folder = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(folder)
    site = folder / site_packages(folder)
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = folder / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", wheel, cwd=folder)
    return folder


def site_packages(folder: Path) -> Path:
    return Path(sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)}))


def test_a_wheel_holds_the_package_and_what_is_shipped(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {name.split("/")[0].split("-")[0] for name in names} == {"dbf_ray"}
    packed = {name for name in names if name.startswith("dbf_ray/")}
    modules = {str(file.relative_to(ROOT)) for file in (ROOT / "dbf_ray").rglob("*.py")}
    shipped = {
        f"dbf_ray/shipped_files/configs/{file.name}" for file in (ROOT / "jobs/configs").glob("*.yaml")
    }
    shipped |= {f"dbf_ray/shipped_files/{file.relative_to(ROOT)}" for file in ROOT.glob("search_spaces/*.py")}
    page = {str(file.relative_to(ROOT)) for file in (ROOT / "dbf_ray/reports/page").glob("*.[hcj]*")}
    assert len(page) == 4
    assert packed == modules | shipped | page


def test_site_packages_got_the_package_alone(environment: Path) -> None:
    got = {entry.name.split("-")[0] for entry in site_packages(environment).iterdir()}
    assert got == {"dbf_ray", "libraries.pth"}


def test_the_command_works_in_an_empty_folder(environment: Path, tmp_path: Path) -> None:
    dbf = environment / "bin" / "dbf"
    assert "\n  train " in run(dbf, "--help", cwd=tmp_path)
    place = run(environment / "bin" / "python", "-c", "import dbf_ray; print(dbf_ray.__file__)", cwd=tmp_path)
    assert Path(place.strip()).is_relative_to(environment)
    printed = run(dbf, "train", "--config", "demo", "--dry-run", "--json", cwd=tmp_path)
    assert json.loads(printed.splitlines()[-1])["compute_ratio"] == 1
    printed = run(dbf, "train", "--config", "demo", *TINY, "--dry-run", "--json", cwd=tmp_path)
    assert json.loads(printed.splitlines()[-1])["policy"] == "full"
    assert list(tmp_path.iterdir()) == []
    space = ("--space", "rho", "--trials", "2", "--concurrent", "1", "--json")
    printed = run(dbf, "search", "--config", "demo", *TINY, *space, cwd=tmp_path)
    result = json.loads(printed.splitlines()[-1])
    assert [trial["policy"] for trial in result["trials"]] == ["full", "frozen"]
    assert (tmp_path / "studies" / "rho-synthetic" / "pareto.json").is_file()
