"""Shipped configurations and spaces: in a checkout and in a wheel, by name and by path."""

from __future__ import annotations

from pathlib import Path

import pytest

from dbf_ray import shipped
from dbf_ray.config import load_config
from dbf_ray.errors import ConfigError
from dbf_ray.search.spaces import load_space
from dbf_ray.shipped import find_shipped, shipped_files

ROOT = Path(__file__).resolve().parents[1]


def test_a_checkout_ships_what_the_repository_has() -> None:
    assert shipped_files("configuration")["demo"] == ROOT / "jobs" / "configs" / "demo.yaml"
    assert shipped_files("search space")["rho"] == ROOT / "search_spaces" / "rho.py"
    assert load_config("demo") == load_config(ROOT / "jobs" / "configs" / "demo.yaml")
    assert load_space("rho").file == ROOT / "search_spaces" / "rho.py"


def test_a_wheel_ships_its_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "HERE", tmp_path)
    folder = tmp_path / "shipped_files" / "configs"
    folder.mkdir(parents=True)
    (folder / "own.yaml").write_text("seed: 3\n")
    assert load_config("own").seed == 3


def test_a_file_goes_before_a_name_and_a_folder_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rho").mkdir()
    (tmp_path / "demo").write_text("seed: 5\n")
    assert load_config("demo").seed == 5
    assert find_shipped("search space", "rho") == ROOT / "search_spaces" / "rho.py"


def test_a_name_that_is_neither() -> None:
    with pytest.raises(ConfigError, match=r"configuration domo does not exist.*demo, .*did you mean demo\?"):
        load_config("domo")
    with pytest.raises(ConfigError, match=r"space x\.py does not exist; give an existing \.py file.*rho"):
        load_space("x.py")
