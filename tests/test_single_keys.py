"""Where names are, text that YAML takes for something else stays text; and no mapping holds a key twice."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from dbf_ray.cli import train
from dbf_ray.cli.options import run_command
from dbf_ray.config import load_config
from dbf_ray.errors import ConfigError
from dbf_ray.search.spaces import load_space
from dbf_ray.single_keys import load_json, load_yaml

NAMES = ["yes", "no", "01", "12:30", "null", "1e3", "2024-01-01", "0x1F", "~", ".inf", "1_000"]
WRITTEN = f"[{', '.join(NAMES)}]"


def test_text_as_written_at_some_keys_alone() -> None:
    found = load_yaml(f"names: {WRITTEN}\nothers: {{a: yes, b: 01}}\n", lambda path: path[:1] == ("names",))
    assert found == {"names": NAMES, "others": {"a": True, "b": 1}}
    text = "base: &base {a: yes}\nfirst: {<<: *base, a: no}\nsecond: *base\n"
    assert load_yaml(text) == yaml.safe_load(text)  # a key that is merged may be written too
    for text in (f"x: &a {WRITTEN}\nnames: *a", f"x: &a {{0: {WRITTEN}}}\nnames: {{<<: *a}}"):
        names = load_yaml(text, lambda path: path[:1] == ("names",))["names"]
        assert (names[0] if isinstance(names, dict) else names) == NAMES  # written elsewhere
    assert load_yaml("") is None


@pytest.mark.parametrize(
    ("text", "line"), [("a: 1\nb: 2\na: 3", 3), ("top:\n  - {x: 1, 'x': 2}", 2), ("1: a\n0x1: b", 2)]
)
def test_a_key_twice(text: str, line: int) -> None:
    with pytest.raises(yaml.MarkedYAMLError, match="must hold a key once") as caught:
        load_yaml(text)
    assert caught.value.problem_mark is not None
    assert caught.value.problem_mark.line + 1 == line
    with pytest.raises(ValueError, match=r"hold a key once, 'bbox' is twice in"):
        load_json('[{"id": 1, "bbox": [1], "bbox": [2]}]')
    assert load_json('[{"id": 1}, {"id": 1}]') == [{"id": 1}, {"id": 1}]


def test_classes_of_a_configuration_are_as_written(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(f"name: 2024-01-01\ndata: {{classes: {WRITTEN}, root: 2016, drop_empty: no}}\n")
    config = load_config(file)
    assert config.data.classes == NAMES
    assert (config.name, config.data.root, config.data.drop_empty) == ("2024-01-01", Path("2016"), False)
    assert load_config(file, {"data.classes": WRITTEN, "name": "null"}).data.classes == NAMES
    file.write_text("name: null\ndata: {classes: null, root: ~}\n")
    config = load_config(file)
    assert (config.name, config.data.classes, config.data.root) == (None, None, None)


@pytest.mark.parametrize(
    "text", ["data: {root: a}\nseed: 1\ndata: {root: b}\n", "data:\n  root: a\n  name: dota\n  root: b\n"]
)
def test_a_configuration_with_a_key_twice(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    assert run_command(train.command, ["--config", str(file), "--runs_dir", str(tmp_path / "runs")]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert str(file) in line
    assert re.search(
        r"config\.yaml, line [34]: a mapping must hold a key once, '\w+' is in line [12] too", line
    )
    assert not (tmp_path / "runs").exists()


def test_dates_that_are_none_are_refused_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("seed: 2024-13-45\n")
    with pytest.raises(ConfigError, match=r"config\.yaml is not valid YAML: month must be"):
        load_config(file)


def test_a_search_space_with_a_key_twice(tmp_path: Path) -> None:
    file = tmp_path / "space.py"
    head = "def space(trial):\n    return {'seed': trial.suggest_int('seed', 0, 9)}\n"
    file.write_text(f"{head}BASELINES = [{{'seed': 1}}, {{'seed': 1}}]\n")
    assert len(load_space(file).baselines) == 2
    file.write_text(f"{head}BASELINES = [{{'freezing.policy': 'full',\n  'freezing.policy': 'step'}}]\n")
    with pytest.raises(ConfigError, match=r"space\.py, line 3: .*got 'freezing\.policy' twice; remove one"):
        load_space(file)
