"""What a search would train, said before it begins."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from dbf_ray.config import Config, with_overrides
from dbf_ray.errors import ConfigError
from dbf_ray.search import forecast_search, forecast_text
from dbf_ray.search.settings import Beginning
from dbf_ray.tracking import write_epochs
from tests.search.begins import four_stages

SPACES = Path(__file__).parents[2] / "search_spaces"


def begin(config: Config) -> Beginning:
    return dataclasses.replace(four_stages(config), checkpoint_bytes=10**8)


def forecast(folder: Path, trials: int, space: str = "rho", **changes: Any) -> dict[str, Any]:
    where = {"search.studies_dir": str(folder.parent)}
    config = with_overrides(Config(), {"training.epochs": 12, "search.controls": [], **where, **changes})
    return forecast_search(config, SPACES / f"{space}.py", study_name=folder.name, trials=trials, begin=begin)


def test_all_of_rho(tmp_path: Path) -> None:
    found = forecast(tmp_path / "s", 20)
    assert (found["trials"], found["settings"], found["settings_are_all"]) == (13, 13, True)
    assert (found["epochs"], found["epochs_trained"], found["seconds"]) == (156, 90, None)
    assert found["disk_bytes"] == 10**8 * (16 + 2 * 20)
    text = forecast_text("s", found)
    assert "13 trials to do, of a space with 13 settings: 156 epochs, of which about 90 are to be" in text
    assert "up to 5.60 GB in checkpoints of 0.100 GB" in text
    assert text.endswith("time: not known before the study's first trial")
    assert list(tmp_path.iterdir()) == []


def test_shorter_full_trainings_come_on_top(tmp_path: Path) -> None:
    found = forecast(tmp_path, 13, **{"search.controls": [0.75, 0.5]})
    assert (found["trials"], found["epochs"], found["epochs_trained"]) == (15, 156 + 15, 90 + 15)


def test_what_is_kept_counts(tmp_path: Path) -> None:
    assert forecast(tmp_path, 20, **{"search.kept_states": 0})["epochs_trained"] == 156
    few = forecast(tmp_path, 20, **{"search.kept_states": 2})["epochs_trained"]
    assert 90 < few < 156
    assert forecast(tmp_path, 20, **{"search.keep": "front"})["disk_bytes"] == 10**8 * 20
    assert forecast(tmp_path, 5, **{"search.keep": "all"})["disk_bytes"] == 10**8 * (60 + 10)


def test_a_study_that_goes_on_trains_what_it_lacks_and_has_timed_an_epoch(tmp_path: Path) -> None:
    rows = [
        {"state": "COMPLETE", "overrides": {"freezing.policy": policy}, "run": str(tmp_path / policy)}
        for policy in ("full", "frozen")
    ]
    for seconds, row in enumerate(rows, start=10):
        own = [{"epoch": epoch, "wall_seconds": seconds} for epoch in range(12)]
        write_epochs(Path(row["run"]), [own[0] | {"inherited": "s-9", "wall_seconds": 99}, *own[1:]])
    (tmp_path / "pareto.json").write_text(json.dumps({"trials": rows}))
    found = forecast(tmp_path, 4)
    assert (found["trials"], found["epochs"]) == (2, 24)
    assert 12 < found["epochs_trained"] < 24
    assert found["seconds"] == pytest.approx(10.5 * found["epochs_trained"])
    assert "time: about " in forecast_text("s", found)
    done = forecast(tmp_path, 2)
    assert (done["trials"], done["epochs_trained"]) == (0, 0)


def test_a_large_space_has_at_least_what_was_drawn(tmp_path: Path) -> None:
    space = tmp_path / "lr.py"
    space.write_text(
        "BASELINES = [{'freezing.policy': 'full'}]\ndef space(trial):\n    return {'training.lr': "
        "trial.suggest_float('lr', 1e-4, 1e-2)}"
    )
    config = with_overrides(Config(), {"search.controls": []})
    found = forecast_search(config, space, study_name="s", trials=3, begin=begin)
    assert (found["settings"], found["settings_are_all"]) == (513, False)
    assert found["epochs"] == found["epochs_trained"] == 36
    assert "at least 513 settings" in forecast_text("s", found)


def test_what_a_search_would_refuse_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a study's name"):
        forecast(tmp_path / "a b", 3)
    (tmp_path / "s" / "trials" / "0").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"study\.db is not there"):
        forecast(tmp_path / "s", 3)
