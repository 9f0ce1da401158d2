"""``import dbf_ray``: quick, without torch, and every name what it is, whatever else was imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import dbf_ray

ROOT = Path(__file__).resolve().parents[1]
NAMES = {
    "Config",
    "Freezer",
    "FreezingSchedule",
    "evaluate_checkpoint",
    "load_config",
    "make_policy",
    "plan_settings",
    "predict_images",
    "search_schedules",
    "train_detector",
}


def run_python(code: str, *arguments: str) -> Any:
    """What ``code`` prints, in a new process, read as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


QUICK = """
import json, sys, time
sys.modules["torch"] = None
begun = time.process_time()
import dbf_ray
names = dir(dbf_ray)
seconds = time.process_time() - begun
dbf_ray.Config, dbf_ray.load_config, dbf_ray.make_policy
print(json.dumps([seconds, names]))
"""


def test_the_import_is_quick_and_needs_no_torch() -> None:
    seconds, names = run_python(QUICK)
    assert seconds < 0.2
    assert set(names) >= NAMES


def test_all_names_are_told_and_others_are_refused() -> None:
    assert set(dbf_ray.__all__) == NAMES
    assert dbf_ray.__version__
    with pytest.raises(AttributeError, match="no attribute 'train_detektor'"):
        dbf_ray.train_detektor  # noqa: B018


@pytest.mark.parametrize("name", sorted(NAMES))
def test_each_has_a_docstring_with_an_example(name: str) -> None:
    text = getattr(dbf_ray, name).__doc__
    examples = [line for line in text.splitlines() if line.strip().startswith(">>> ")]
    assert any(name in line for line in examples)


def test_no_name_is_a_modules() -> None:
    """A sub-module that is imported becomes an attribute of its package."""
    package = Path(dbf_ray.__file__).parent
    assert not NAMES & {file.stem for file in package.iterdir()}


EVERYTHING = """
import importlib, json, pkgutil, random, sys
import dbf_ray

names = sorted(dbf_ray.__all__)
before = {name: getattr(dbf_ray, name) for name in names} if sys.argv[2] == "before" else {}
modules = sorted(module.name for module in pkgutil.walk_packages(dbf_ray.__path__, "dbf_ray."))
random.Random(int(sys.argv[1])).shuffle(modules)
for module in modules:
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:  # of a library that is optional
        if error.name is None or error.name.startswith("dbf_ray"):
            raise
after = {name: getattr(dbf_ray, name) for name in names}
assert all(after[name] is before[name] for name in before)
homes = {name: f"{value.__module__}.{value.__qualname__}" for name, value in after.items()}
print(json.dumps([len(modules), homes]))
"""


@pytest.mark.parametrize(
    ("seed", "when"),
    [
        (0, "before"),
        pytest.param(1, "after", marks=pytest.mark.slow),
        pytest.param(2, "after", marks=pytest.mark.slow),
    ],
)
def test_names_stay_what_they_are_whatever_is_imported_in_whatever_order(seed: int, when: str) -> None:
    count, homes = run_python(EVERYTHING, str(seed), when)
    assert count > 150
    assert homes == {name: f"dbf_ray.{home}.{name}" for name, home in dbf_ray._HOMES.items()}
