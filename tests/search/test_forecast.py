"""What a search would train, said before it begins."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from dbf_ray.config import Config, with_overrides
from dbf_ray.cost import Stretch
from dbf_ray.errors import ConfigError
from dbf_ray.plan.costs import Costs
from dbf_ray.plan.stage_times import StageTimes
from dbf_ray.search import forecast_search, forecast_text
from dbf_ray.search.ahead import after
from dbf_ray.search.settings import Beginning
from tests.search.begins import four_stages
from tests.search.fake_search import FakeSearch

SPACES = Path(__file__).parents[2] / "search_spaces"


def begin(config: Config) -> Beginning:
    return dataclasses.replace(four_stages(config), checkpoint_bytes=10**8)


def timer(config: Config) -> dict[str, Any]:
    """A step takes a second, a frozen one half."""
    costs = Costs("cpu", 64, (1.0, 2.0), (1, 1), (1, 1), (1, 1), 0.0, 0.0, 2.0, (1, 1), 0, True, 8, 1, (4, 4))
    plain, most = (1.0, 1.0, 1.0, 1.0, 0.5), (9 * 10**8, 1, 1, 1, 5 * 10**8)
    return {"times": StageTimes(plain, (), most, 4, 3, True, costs).as_dict()}


def forecast(folder: Path, trials: int, space: str = "rho", **changes: Any) -> dict[str, Any]:
    where = {"search.studies_dir": str(folder.parent)}
    config = with_overrides(Config(), {"training.epochs": 12, "search.controls": [], **where, **changes})
    return forecast_search(
        config, SPACES / f"{space}.py", study_name=folder.name, trials=trials, begin=begin, timer=timer
    )


def test_all_of_rho(tmp_path: Path) -> None:
    found = forecast(tmp_path / "s", 20)
    assert (found["trials"], found["settings"], found["settings_are_all"]) == (13, 13, True)
    assert (found["epochs"], found["epochs_trained"], found["memory_bytes"]) == (156, 90, 9 * 10**8)
    assert found["disk_bytes"] == 10**8 * (16 + 2 * 13)
    evaluations = 90 * 1.5 * 2.0  # one image, 2 s untrained
    assert 45 + evaluations < found["seconds"] < 90 + evaluations
    text = forecast_text("s", found)
    assert "13 trials to do, of a space with 13 settings: 156 epochs, of which about 90 are to be" in text
    assert "up to 4.20 GB in checkpoints of 0.100 GB" in text
    assert "time: about " in text
    assert text.endswith("memory: up to 0.9 GB of tensors in a trial")
    assert list(tmp_path.iterdir()) == []


def test_shorter_full_trainings_come_on_top(tmp_path: Path) -> None:
    found = forecast(tmp_path, 13, **{"search.controls": [0.75, 0.5]})
    assert (found["trials"], found["epochs"], found["epochs_trained"]) == (15, 156 + 15, 90 + 15)


def test_what_is_kept_counts(tmp_path: Path) -> None:
    assert forecast(tmp_path, 20, **{"search.kept_states": 0})["epochs_trained"] == 156
    assert forecast(tmp_path, 20, **{"search.kept_states": 1, "search.keep": "all"})["epochs_trained"] == 90
    few = forecast(tmp_path, 20, **{"search.kept_states": 2})["epochs_trained"]
    assert 90 < few < 156
    assert forecast(tmp_path, 20, **{"search.keep": "front"})["disk_bytes"] == 10**8 * 13
    assert forecast(tmp_path, 5, **{"search.keep": "all"})["disk_bytes"] == 10**8 * (60 + 10)


def test_time_is_of_the_epochs_that_are_trained(tmp_path: Path) -> None:
    evaluation = 1.5 * 2.0
    one = forecast(tmp_path, 1)  # full
    assert one["seconds"] == pytest.approx(12 * (1.0 + evaluation))
    two = forecast(tmp_path, 2, **{"search.kept_states": 0})
    assert two["seconds"] == pytest.approx(12 * (1.0 + evaluation) + 12 * (0.5 + evaluation))
    parts = [Stretch(0, 3), Stretch(4, 5, 0.5)]
    assert after(parts, 0) == parts
    assert after(parts, 4) == [Stretch(4, 4, 0.5)]
    assert after(parts, 8) == []


def test_a_study_that_goes_on_trains_what_it_lacks(tmp_path: Path) -> None:
    rows = [
        {"state": "COMPLETE", "overrides": {"freezing.policy": policy}, "run": str(tmp_path / policy)}
        for policy in ("full", "frozen")
    ]
    (tmp_path / "pareto.json").write_text(json.dumps({"trials": rows}))
    found = forecast(tmp_path, 4)
    assert (found["trials"], found["epochs"]) == (2, 24)
    assert 12 < found["epochs_trained"] < 24
    done = forecast(tmp_path, 2)
    assert (done["trials"], done["epochs_trained"], done["seconds"]) == (0, 0, 0)
    assert "time" not in forecast_text("s", done)


def test_a_large_space_has_at_least_what_was_drawn(tmp_path: Path) -> None:
    space = tmp_path / "lr.py"
    space.write_text(
        "BASELINES = [{'freezing.policy': 'full'}]\ndef space(trial):\n    return {'training.lr': "
        "trial.suggest_float('lr', 1e-4, 1e-2)}"
    )
    config = with_overrides(Config(), {"search.controls": []})
    found = forecast_search(config, space, study_name="s", trials=3, begin=begin, timer=None)
    assert (found["settings"], found["settings_are_all"]) == (513, False)
    assert found["epochs"] == found["epochs_trained"] == 36
    assert "at least 513 settings" in forecast_text("s", found)


def test_a_study_that_could_not_go_on_is_refused_and_its_file_is_as_it_was(tmp_path: Path) -> None:
    FakeSearch(tmp_path / "s", SPACES / "rho.py", 12, Counter()).run(most_trials=3)
    before = (tmp_path / "s" / "study.db").read_bytes()
    same = {"search.sampler": "tpe"}
    assert forecast(tmp_path / "s", 5, **same)["settings"] == 13
    with pytest.raises(ConfigError, match=r"begun with other settings, it differs in training\.epochs"):
        forecast(tmp_path / "s", 5, **same, **{"training.epochs": 6})
    with pytest.raises(ConfigError, match=r"begun with other BASELINES, .*lr_scale.* is new"):
        forecast(tmp_path / "s", 5, "policies", **same)
    assert (tmp_path / "s" / "study.db").read_bytes() == before
    (tmp_path / "s" / "study.db").write_bytes(b"no study")
    with pytest.raises(ConfigError, match="cannot open the study 's'"):
        forecast(tmp_path / "s", 5)


def test_what_a_search_would_refuse_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a study's name"):
        forecast(tmp_path / "a b", 3)
    (tmp_path / "s" / "trials" / "0").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"study\.db is not there"):
        forecast(tmp_path / "s", 3)
