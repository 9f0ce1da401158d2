"""The warning before the first epoch: when it is given, and how sure it is."""

from __future__ import annotations

from fractions import Fraction
from math import comb
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dbf_ray.data import CLASS_LISTS
from dbf_ray.plan import uncovered
from dbf_ray.plan.kinds import bare_detector
from dbf_ray.plan.parts import parts
from dbf_ray.plan.uncovered import is_reference, missed_by_class, surely_over, uncovered_notes
from tests.plan.box_dataset import BoxDataset
from tests.tiny import TINY, as_options, tiny_config

SLIM, SQUARE = (60.0, 6.0, 40.0), (32.0, 32.0, 0.0)  # width, height, degrees


def run_of(dataset: Any, name: str = "rotated_retinanet", detector: Any = None, **changes: Any) -> Any:
    """A configuration, and what a training on the data set looks at."""
    config = tiny_config(detector__name=name, **{"detector__backbone": "mobilenet_v2", **changes})
    detector = detector or bare_detector(name, "mobilenet_v2", config.detector.parameters)
    return config, SimpleNamespace(train_set=dataset, detector=detector)


def test_classes_that_are_not_matched_are_named_with_their_shares() -> None:
    (line,) = uncovered_notes(*run_of(BoxDataset({"bar": [SLIM] * 40, "box": [SQUARE] * 40})))
    assert line.startswith("warning: ")
    assert "bar (100% of 40)" in line
    assert "box" not in line
    assert "dbf plan" in line
    assert "\n" not in line
    assert uncovered_notes(*run_of(BoxDataset({"bar": [SLIM] * 40}), "rotated_fcos")) == []


@pytest.mark.parametrize(("count", "warned"), [(19, False), (20, True)])
def test_a_class_of_few_objects_is_not_judged(count: int, warned: bool) -> None:
    assert bool(uncovered_notes(*run_of(BoxDataset({"bar": [SLIM] * count})))) == warned


def test_difficult_objects_do_not_count() -> None:
    data = BoxDataset({"bar": [SLIM] * 40}, difficult=True)
    assert uncovered_notes(*run_of(data)) == []
    assert list(parts(data, 5)) == []


@pytest.mark.parametrize("count", [20, 33, 100, 400])
def test_sure_is_what_exact_sums_say(count: int) -> None:
    tenth = Fraction(1, 10)
    for missed in range(0, count + 1, max(1, count // 50)):
        tail = sum(comb(count, k) * tenth**k * (1 - tenth) ** (count - k) for k in range(missed, count + 1))
        assert surely_over(missed, count) == (tail < Fraction(1, 20))
    assert not surely_over(11, 100)
    assert not surely_over(11.9, 100)
    assert surely_over(100, 100)


def test_no_word_on_a_reference_recipe_on_its_own_data() -> None:
    classes = CLASS_LISTS["dota-v1.0"]
    at = {"data__image_size": 1024}
    assert is_reference(tiny_config(**at), classes)
    assert is_reference(tiny_config(**at, detector__positive_iou=0.5, detector__nms_threshold=0.3), classes)
    assert not is_reference(tiny_config(**at, detector__positive_iou=0.6), classes)
    assert not is_reference(tiny_config(), classes)
    assert not is_reference(tiny_config(**at), classes[:5])
    slim = BoxDataset({name: [SLIM] * 20 if name == "ship" else [] for name in classes})
    assert uncovered_notes(*run_of(slim, **at)) == []
    assert uncovered_notes(*run_of(slim, data__image_size=64))


def test_a_detector_of_another_kind_is_not_judged() -> None:
    assert uncovered_notes(*run_of(BoxDataset({"bar": [SLIM] * 40}), detector=torch.nn.Module())) == []


def test_data_without_objects_are_not_judged() -> None:
    assert uncovered_notes(*run_of(BoxDataset({"bar": []}))) == []


def test_images_of_which_only_a_part_is_trained_on_are_looked_at() -> None:
    from dbf_ray.data import Subset

    data = BoxDataset({"bar": [SLIM] * 40, "box": [SQUARE] * 40})
    counts, missed = missed_by_class(*run_of(Subset(data, range(0, 80, 2))), 20)
    assert counts == [20, 20]
    assert missed == [20, 0]


def test_time_is_short_on_data_of_any_size() -> None:
    looked = [
        sum(missed_by_class(*run_of(BoxDataset({"bar": [SLIM] * 3000})), time)[0]) for time in (0.01, 600)
    ]
    assert looked[0] <= 900
    assert looked[1] == 3000


def lines_with(text: str) -> list[str]:
    return [line for line in text.splitlines() if "not matched" in line]


def on_files(root: Path, **changes: Any) -> dict[str, Any]:
    other = ("data.train_images", "data.val_images", "search.controls")
    bare = {key: value for key, value in TINY.items() if key not in other}
    return {**bare, "data.name": "dota", "data.root": str(root), "training.epochs": 1, **changes}


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("fits", [False, True])
def test_a_training_says_it_once(fits: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from jobs.train import main

    root = BoxDataset({"bar": [SQUARE if fits else SLIM] * 24}).written(tmp_path / "data")
    assert main(as_options(on_files(root, runs_dir=tmp_path / "runs"))) == 0
    said = capsys.readouterr().err
    assert len(lines_with(said)) == (0 if fits else 1)
    if not fits:
        assert said.index("not matched") < said.index("epoch 1/1")


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("fits", [False, True])
def test_a_search_says_it_once_of_its_base(
    fits: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dbf_ray.config import load_config
    from dbf_ray.search import search, tuner

    class StoppedError(Exception):
        """No trial is trained."""

    def stop(*_: object, **__: object) -> None:
        raise StoppedError

    root = BoxDataset({"bar": [SQUARE if fits else SLIM] * 24}).written(tmp_path / "data")
    config = load_config(None, on_files(root))
    (tmp_path / "s").mkdir()  # where a folder is, Ray is started for the trials alone
    said: list[str] = []
    monkeypatch.setattr(tuner.Searching, "execute", stop)
    space = Path(__file__).parents[2] / "search_spaces" / "rho.py"
    with pytest.raises(StoppedError):
        search(config, space, study_name="s", studies_dir=tmp_path, progress=said.append)
    assert len(lines_with("\n".join(said))) == (0 if fits else 1)


@pytest.mark.usefixtures("narrow")
def test_a_trial_and_other_ranks_spend_no_time_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from dbf_ray.run import run, runner
    from dbf_ray.run.pictures import Pictures

    asked: list[Any] = []
    monkeypatch.setattr(runner, "uncovered_notes", lambda *parts: asked.append(parts) or ["a word"])
    monkeypatch.setattr(Pictures, "_draw", lambda *_: None)
    config = tiny_config(runs_dir=str(tmp_path), training__epochs=1, evaluation__every=1)
    run(config, directory=tmp_path / "trial", coverage=False)
    assert not asked
    run(config, directory=tmp_path / "run", resume=None)
    assert len(asked) == 1
    assert capsys.readouterr().err.count("a word") == 1
    assert uncovered.SECONDS <= 3
