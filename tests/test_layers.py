"""The layers: imports point down, and heavy libraries stay in their rooms."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# A layer may import the layers below it. Rooms on one line are siblings and do not know each other.
LAYERS = [
    {"errors", "values", "machine", "single_keys", "stopping", "uris"},
    {"progress", "files", "remote", "tensors", "room"},
    {"members", "shipped"},
    {"geometry", "config", "locks"},
    {"detectors", "data", "evaluation", "freezing", "cost", "tracking"},
    {"training", "integrations"},
    {"build"},
    {"plan"},
    {"run", "evaluate", "merge", "member_help"},
    {"predict"},
    {"export"},
    {"cluster"},
    {"search"},
    {"api"},
    {"cli"},
    {"jobs"},
]
APART = {"reports": {"errors", "files", "values"}}  # reads records alone; search, run and cli may use it
ONLY_IN = {
    "ray": {"cluster", "search"},
    "optuna": {"search"},
    "sklearn": {"search"},
    "mlflow": {"tracking"},
    "matplotlib": {"reports"},
    "plotly": {"reports"},
    "pytorch_lightning": {"integrations"},
    "lightning": {"integrations"},
    "transformers": {"integrations"},
}
MODULES = sorted([*(ROOT / "dbf_ray").rglob("*.py"), *(ROOT / "jobs").rglob("*.py")])


def room_of(module: str) -> str | None:
    parts = module.split(".")
    if parts[0] == "jobs":
        return "jobs"
    return parts[1] if parts[0] == "dbf_ray" and len(parts) > 1 else None


def imports_of(file: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            found.append(node.module or "")
    return found


def level(room: str) -> int:
    return next(index for index, rooms in enumerate(LAYERS) if room in rooms)


def test_there_are_modules_to_check() -> None:
    assert len(MODULES) > 30


@pytest.mark.parametrize("file", MODULES, ids=lambda f: str(f.relative_to(ROOT)))
def test_imports_point_down(file: Path) -> None:
    own = room_of(".".join(file.relative_to(ROOT).with_suffix("").parts))
    if own in (None, "__init__"):
        return
    for module in imports_of(file):
        other = room_of(module)
        if other is not None and other != own:
            if own in APART:
                assert other in APART[own], f"{own} imports {module}"
            elif other in APART:
                assert level(own) >= level("run"), f"{own} imports {module}"
            else:
                assert level(other) < level(own), f"{own} imports {module}, which is not below it"
        library = module.split(".")[0]
        if library in ONLY_IN:
            assert own in ONLY_IN[library], f"{own} imports {library}"


def test_the_training_core_needs_neither_ray_nor_optuna_nor_mlflow() -> None:
    code = (
        "import sys\n"
        "for name in ('ray', 'optuna', 'mlflow', 'matplotlib', 'plotly'): sys.modules[name] = None\n"
        "import dbf_ray.run, dbf_ray.cli.train\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_policies_need_no_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None; from dbf_ray.freezing.policies import make_policy; "
        "make_policy('step', rho=2)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_each_callback_needs_its_own_library_alone() -> None:
    code = (
        "import sys\n"
        "import dbf_ray.integrations.staged, dbf_ray.freezing.schedule\n"
        "assert not {'pytorch_lightning', 'lightning', 'transformers'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
