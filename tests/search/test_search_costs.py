"""A search by other objectives: timed once, kept, compared anew; refused where trials will not have them."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray import cloudpickle

from dbf_ray.build import prepare
from dbf_ray.cluster.ray_runtime import Resources
from dbf_ray.config import Config, with_overrides
from dbf_ray.data.contents import classes_in
from dbf_ray.errors import ConfigError, DataError
from dbf_ray.plan.costs import Costs
from dbf_ray.plan.stage_times import StageTimes
from dbf_ray.search import search, timing
from dbf_ray.search.checked import CheckedBegin
from dbf_ray.search.compared import check_accuracy, check_measured
from dbf_ray.search.cost import Costs as SearchCosts
from dbf_ray.search.settings import Settings
from dbf_ray.search.timing import Timings, in_trial, kind_of, measured, measured_by_ray
from tests import tiny
from tests.detectors import narrow
from tests.search.test_cost import begins

for module in (sys.modules[__name__], tiny, narrow):  # which a worker cannot import
    cloudpickle.register_pickle_by_value(module)
COSTS = Costs("cpu", 64, (1.0, 2.0), (1, 1), (1, 1), (1, 1), 0.0, 0.0, 2.0, (1, 1), 0, True, 8, 1, (4, 4))
SPACE = """
BASELINES = [{'freezing.policy': 'full'}, {'freezing.policy': 'frozen'}]
def space(trial):
    return {
        'freezing.policy': 'step',
        'freezing.rho': 2,
        'data.image_size': trial.suggest_categorical('size', SIZES),
        'training.lr': trial.suggest_categorical('lr', [1e-3, 1e-4]),
    }
"""


@pytest.fixture
def timed() -> list[int]:
    return []


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, timed: list[int]) -> dict[str, Any]:
    """Of searches whose trials only ask and tell: frozen ones are less accurate, and measured at random."""

    @contextlib.contextmanager
    def no_ray(*_: Any, **__: Any) -> Iterator[Resources]:
        yield Resources(2, 0, "here")

    def tell(self: Any, at_once: int) -> None:
        missing, self._ended_well = self._missing(), 1
        while missing > 0 and (asked := self.study.ask()) is not None:
            score = {"full": 0.6, "frozen": 0.3, "step": 0.5}[asked.setting.policy]
            summary = {"map50": score, "map75": score / 2, "compute_ratio": 0.1, "device_seconds": 5.0}
            missing -= self.study.tell(asked.number, summary)

    def timer(config: Config) -> dict[str, Any]:
        """A frozen step takes a quarter of a second, at 64 pixels half of that."""
        timed.append(config.data.image_size)
        seconds = config.data.image_size / 128
        plain = (seconds, seconds, seconds, seconds, seconds / 4)
        return {"times": StageTimes(plain, (), (1,) * 5, 4, 3, True, COSTS).as_dict()}

    monkeypatch.setattr("dbf_ray.search.tuner.connected_ray", no_ray)
    monkeypatch.setattr("dbf_ray.search.searching.Searching._run_visits", tell)
    return {
        "study_name": "s",
        "studies_dir": tmp_path,
        "progress": lambda line: None,
        "run": print,
        "begin": begins,
        "timer": timer,
    }


def base(**changes: Any) -> Config:
    fixed = {"tracking.mlflow": False, "training.epochs": 12, "data.image_size": 128, "search.controls": []}
    return with_overrides(Config(), {**fixed, **changes})


def space_of(folder: Path, sizes: str) -> Path:
    file = folder / "sizes.py"
    file.write_text(f"SIZES = {sizes}\n{SPACE}")
    return file


def test_seconds_are_timed_once_for_each_kind_and_kept(
    tmp_path: Path, options: dict[str, Any], timed: list[int]
) -> None:
    space = space_of(tmp_path, "[64, 128]")
    config = base(**{"search.cost": "seconds_ratio", "search.accuracy": "map75"})
    result = search(config, space, trials=6, **options)
    assert sorted(timed) == [64, 128]
    assert result["objectives"] == {"map75": "maximize", "seconds_ratio": "minimize"}
    rows = {(row["policy"], row["overrides"].get("data.image_size")): row for row in result["trials"]}
    assert rows["full", None]["seconds_ratio"] == 1.0
    assert rows["frozen", None]["seconds_ratio"] == 0.25
    assert rows["step", 128]["seconds_ratio"] == pytest.approx((6 + 6 / 4) / 12)
    assert rows["step", 64]["seconds_ratio"] == pytest.approx((6 + 6 / 4) / 12 / 2)
    assert rows["step", 64]["compute_ratio"] == pytest.approx((6 * 30 + 6 * 14) / (12 * 30) / 4), "not .1"
    assert result["reference"] == pytest.approx([0.3 / 2 - 0.015, 1.0 + 0.075])
    kept = json.loads((tmp_path / "s" / "timing.json").read_text())
    assert [one["about"]["image_size"] for one in kept.values()] == [128, 64]

    by_flops = search(base(), space, trials=6, **options)  # nothing is trained: compared anew
    assert by_flops["objectives"] == {"map50": "maximize", "compute_ratio": "minimize"}
    assert by_flops["reference"] == pytest.approx([0.27, 1.0 + 0.1 * (1 - 14 / 30)])
    again = search(config, space, trials=6, **options)
    assert again == result, "the reference of these objectives is kept"
    assert len(timed) == 2
    (tmp_path / "s" / "timing.json").write_text("{")
    with pytest.raises(ConfigError, match=r"timing\.json cannot be read .*steps are timed anew"):
        search(config, space, trials=6, **options)


def test_too_many_kinds_are_refused_and_nothing_is_written(tmp_path: Path, options: dict[str, Any]) -> None:
    space = space_of(tmp_path, "list(range(64, 704, 32))")
    with pytest.raises(ConfigError, match=r"at most 8 of them, and .*sizes\.py draws more"):
        search(base(**{"search.cost": "seconds_ratio"}), space, trials=6, **options)
    assert not (tmp_path / "s").exists()


def test_what_is_measured_is_said_to_be_known_afterwards(tmp_path: Path, options: dict[str, Any]) -> None:
    said: list[str] = []
    config = base(**{"search.cost": "device_seconds"})
    result = search(config, space_of(tmp_path, "[128]"), trials=3, **options | {"progress": said.append})
    assert [row["device_seconds"] for row in result["trials"]] == [5.0] * 3
    assert "study s: device_seconds is measured, so it is known of no setting before it trains" in said


def test_energy_without_a_meter_is_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    config = base(**{"search.cost": "energy_joules", "training.device": "cpu"})
    with pytest.raises(ConfigError, match=r"energy counter .* and cpu has none here; compare by --search"):
        search(config, space_of(tmp_path, "[128]"), trials=3, **options)
    assert not (tmp_path / "s").exists()
    check_measured(base(**{"search.cost": "device_seconds"}))


@pytest.mark.usefixtures("narrow")
def test_an_accuracy_that_no_evaluation_has_is_refused() -> None:
    config = tiny.tiny_config(search__accuracy="map50_95")
    spec = prepare(config)
    check_accuracy(config, spec)
    with pytest.raises(ConfigError, match="merged/map50 or ap50/CLASS, got 'ap75/ship'"):
        with_overrides(config, {"search.accuracy": "ap75/ship"})
    there = {spec.train_set.classes[label] for label in classes_in(spec.eval_set, counted=True)}
    (known, *_), (none, *_) = sorted(there), [name for name in spec.train_set.classes if name not in there]
    check_accuracy(with_overrides(config, {"search.accuracy": f"ap50/{known}"}), spec)
    with pytest.raises(DataError, match=rf"will be none, since no object of class {none} counts in the val"):
        check_accuracy(with_overrides(config, {"search.accuracy": f"ap50/{none}"}), spec)
    with pytest.raises(ConfigError, match=r"must be ap50/ and one of .*, got ap50/zeppelin"):
        check_accuracy(with_overrides(config, {"search.accuracy": "ap50/zeppelin"}), spec)
    with pytest.raises(ConfigError, match="merged/map50 needs evaluated images that are all patches"):
        check_accuracy(with_overrides(config, {"search.accuracy": "merged/map50"}), spec)


@pytest.mark.usefixtures("narrow")
def test_what_a_search_knows_of_costs_can_be_sent() -> None:
    """Ray pickles the searcher, and with it the study."""
    settings = Settings(tiny.tiny_config(freezing__cache="ram"), CheckedBegin())
    setting = settings.make({"freezing.policy": "frozen"})
    costs = SearchCosts(settings, "compute_ratio", Timings(Path("nowhere")).seconds)
    assert 0 < costs.known(setting) < 1  # type: ignore[operator]
    again = cloudpickle.loads(cloudpickle.dumps(costs))
    assert again.known(setting) == costs.known(setting)
    assert settings.beginning(setting.config).hits(4, 2 * 4) > 0, "two steps an epoch, four epochs"


def test_kinds_are_told_apart_by_what_takes_time() -> None:
    config = Config()
    same = {"training.lr": 1e-5, "training.epochs": 3, "training.milestones": [2], "seed": 4}
    same |= {"freezing.policy": "full", "training.threads": 2}
    assert kind_of(with_overrides(config, same)) == kind_of(config)
    for key, value in (("data.image_size", 96), ("training.batch_size", 2), ("freezing.cache", "ram")):
        assert kind_of(with_overrides(config, {key: value})) != kind_of(config), key
    assert Timings(Path("nowhere")).times(config) is None


def narrow_measured(tree: dict[str, Any]) -> dict[str, Any]:
    tiny.add_narrow()
    assert tree["training"]["threads"] == 1
    return measured(Config.model_validate(tree))


def refused(tree: dict[str, Any]) -> None:
    raise ConfigError("no such image here")


@pytest.mark.ray
@pytest.mark.usefixtures("narrow", "two_cpus")
def test_steps_are_timed_where_trials_train(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "_measured_tree", narrow_measured)
    found = measured_by_ray(tiny.tiny_config(training__threads=None, training__batch_size=2))
    assert len(StageTimes.from_dict(found["times"]).plain) == 5
    assert "1 threads" in found["machine"]
    with pytest.raises(ConfigError, match="no such image here"):
        in_trial(Config(), refused, {})
