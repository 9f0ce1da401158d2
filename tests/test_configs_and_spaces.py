"""Every configuration and every search space in the repository is read, found by walking the folders."""

from __future__ import annotations

import ast
import contextlib
from pathlib import Path
from typing import Any

import optuna
import pytest

from dbf_ray.cli import train
from dbf_ray.config import Config, load_config
from dbf_ray.detectors import BACKBONES, DETECTORS
from dbf_ray.member_help import member_help
from dbf_ray.plan.costs import Costs
from dbf_ray.plan.stage_times import StageTimes
from dbf_ray.search.settings import Settings
from dbf_ray.search.spaces import NotAllowedError, load_space
from tests.search.begins import four_stages

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted((ROOT / "jobs" / "configs").rglob("*.yaml"))
SPACES = sorted(file for file in (ROOT / "search_spaces").rglob("*.py") if file.name != "__init__.py")
# Where the data of a configuration that needs a folder lie, beside the checkout.
ROOTS = {"hrsc_mobilenet_v2": "data/hrsc2016", "hrsc_planned": "data/hrsc2016", "patches": "data/dota_sample"}
COSTS = Costs("cpu", 64, (1.0, 2.0), (1, 1), (1, 1), (1, 1), 0.0, 0.0, 2.0, (1, 1), 0, True, 8, 1, (4, 4))
TIMES = StageTimes((1.0,) * 5, (), (1,) * 5, 4, 3, True, COSTS)


def names(files: list[Path]) -> list[str]:
    return [file.stem for file in files]


def test_there_are_configurations_and_spaces() -> None:
    assert {"demo", "hrsc_mobilenet_v2"} <= set(names(CONFIGS))
    assert "rho" in names(SPACES)
    strays = [
        file
        for folder in ("jobs/configs", "search_spaces")
        for file in (ROOT / folder).rglob("*")
        if file.suffix in (".yml", ".json")
    ]
    assert strays == []  # they would not be found above


@pytest.mark.parametrize("file", CONFIGS, ids=names(CONFIGS))
def test_every_configuration_passes_a_dry_run(
    file: Path,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = load_config(file)
    options = ["--config", str(file), "--runs_dir", str(tmp_path / "runs"), "--training.device", "cpu"]
    weights = config.detector.weights_backbone
    if weights is not None and not (ROOT / weights).is_file():
        options += ["--detector.weights_backbone", "null"]  # a fresh clone, its weights not fetched yet
    if config.data.name != "synthetic":
        options += ["--data.root", str(request.getfixturevalue("shared") / ROOTS[file.stem])]
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(train, "time_stages", lambda config, limit: TIMES)  # half a minute each
    result = train.command([*options, "--dry-run"])
    assert result["seconds"] > 0
    assert len(result["frozen_prefixes"]) == config.training.epochs
    assert 0 < result["compute_ratio"] <= 1
    assert "training images" in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("file", CONFIGS, ids=names(CONFIGS))
def test_every_configuration_names_members_that_exist(file: Path) -> None:
    config = load_config(file)
    assert config.detector.name in DETECTORS
    assert config.detector.backbone in BACKBONES
    assert file.read_text().startswith("#")  # says what it is for


@pytest.mark.parametrize("space", SPACES, ids=names(SPACES))
@pytest.mark.parametrize("file", [None, *CONFIGS], ids=["defaults", *names(CONFIGS)])
def test_every_space_draws_valid_settings_over_every_configuration(space: Path, file: Path | None) -> None:
    config = load_config(file)
    loaded = load_space(space)
    settings = Settings(config, four_stages)
    baselines = [settings.make(baseline) for baseline in loaded.baselines]
    assert {"full", "frozen"} <= {baseline.policy for baseline in baselines}
    study = optuna.create_study(
        directions=["maximize", "minimize"], sampler=optuna.samplers.RandomSampler(seed=0)
    )
    drawn = []
    for trial in (study.ask() for _ in range(12)):
        overrides = loaded.overrides(trial, config)
        with contextlib.suppress(NotAllowedError):
            loaded.check_constraints(trial.params)
            drawn.append(settings.make(overrides))
    assert len({setting.key for setting in drawn}) > 1
    assert all(isinstance(setting.config, Config) for setting in drawn)


@pytest.mark.parametrize("space", SPACES, ids=names(SPACES))
def test_every_space_explains_itself(space: Path) -> None:
    tree: Any = ast.parse(space.read_text())
    assert ast.get_docstring(tree)


@pytest.mark.parametrize(("field", "table"), [("name", DETECTORS), ("backbone", BACKBONES)])
def test_the_help_names_every_detector_and_backbone(field: str, table: dict[str, object]) -> None:
    names, rest = member_help(f"detector.{field}").removeprefix(": ").split(", or ")
    assert (names.split(", "), rest) == (list(table), "a dotted path package.module:Name")
    assert member_help("detector.fpn_channels") == ""
