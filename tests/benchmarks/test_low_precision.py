"""The benchmark of low precision trains every way, compares pairs of one seed, and goes on where it
stopped.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import low_precision
from benchmarks.low_precision import WAYS, command, spread, summary
from dbf_ray.config import Config
from dbf_ray.data.transforms import EvalView, flip
from dbf_ray.errors import ConfigError
from dbf_ray.evaluate import load_detector
from tests import tiny

pytestmark = pytest.mark.usefixtures("narrow")
TINY = {
    key: str(value)
    for key, value in {
        **tiny.TINY,
        "data.train_images": 4,
        "training.epochs": 1,
        "training.batch_size": 2,
    }.items()
    if not key.startswith(("evaluation.", "search.", "tracking."))
}


def arguments(folder: Path, **changes: str) -> list[str]:
    """A command line for two trainings of a few seconds, which are evaluated on more images too."""
    options = {**TINY, "runs_dir": str(folder), **changes}
    return [*("--seeds", "1", "--only", "kept in bf16", "--wide"), *tiny.as_options(options), "--json"]


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        low_precision, "in_processes", lambda work, calls, _: [work(*arguments) for arguments in calls]
    )


def test_a_row_for_each_way_and_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = {"detector.backbone": "mobilenet_v3_small"}  # another process does not know the narrow one
    result = command([*arguments(tmp_path, **other), "--processes", "2"])
    assert {(row["way"], row["seed"]) for row in result["rows"]} == {("float32", 0), ("kept in bf16", 0)}
    assert set(result["ways"]) == {"float32", "kept in bf16"}
    assert all({"map50", "orientations", "wide"} <= set(row) for row in result["rows"])
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["rows"] == result["rows"]


@pytest.mark.usefixtures("in_this_process")
def test_a_second_call_trains_what_is_not_known_and_evaluates_what_it_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[tuple[str | None, int]] = []
    evaluated: list[str] = []

    def run(config: Config, **options: Any) -> dict[str, Any]:
        trained.append((config.name, config.training.epochs))
        return real_run(config, **options)

    def load(checkpoint: Path, config: Config) -> Any:
        evaluated.append(f"{checkpoint.parts[-3]} {checkpoint.name}")
        return load_detector(checkpoint, config)

    real_run = low_precision.run
    monkeypatch.setattr(low_precision, "run", run)
    monkeypatch.setattr(low_precision, "load_detector", load)
    first = command(arguments(tmp_path, **{"training.epochs": "3"}))["rows"]
    assert trained == [("float32-0", 3), ("kept in bf16-0", 3)]
    assert command(arguments(tmp_path, **{"training.epochs": "3"}))["rows"] == first
    assert len(trained) == 2
    # another recipe is another measurement; no checkpoint of the first is left to be taken for it
    command(arguments(tmp_path))
    assert trained[2:] == [("float32-0", 1), ("kept in bf16-0", 1)]
    assert evaluated[2:] == ["float32-0 epoch-00001", "kept in bf16-0 epoch-00001"]
    monkeypatch.setattr(low_precision.PrefixEngine, "revision", -1)
    command(arguments(tmp_path))
    assert len(trained) == 6
    monkeypatch.setitem(low_precision.FLOAT32_STAGES, "narrow", 3)
    command(arguments(tmp_path))
    assert len(trained) == 8


@pytest.mark.usefixtures("in_this_process")
def test_without_wide_map50_is_that_of_the_last_epoch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [
        option
        for option in arguments(tmp_path, **{"training.epochs": "2", "data.val_images": "4"})
        if option != "--wide"
    ]
    for row in command(options)["rows"]:
        assert "wide" not in row
        records = (tmp_path / f"{row['way']}-0" / "epochs.jsonl").read_text(encoding="utf-8").splitlines()
        assert [json.loads(record)["map50"] for record in records] == [None, row["map50"]]
    assert "wide" not in capsys.readouterr().out
    more = {"orientations", "horizontal", "vertical", "diagonal"}
    # measured anew
    assert all(
        set(row) == {"way", "seed", "map50", "seconds", *more}
        for row in command([*options, "--orientations"])["rows"]
    )
    assert all("wide" in row for row in command([*options, "--wide"])["rows"])  # and another


@pytest.mark.usefixtures("in_this_process")
def test_folds_share_the_training_images_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is evaluated once, by a detector that was not trained on it, and the figures that are compared are
    means over folds.
    """
    held: dict[str, list[set[str]]] = {}

    def run(config: Config, **options: Any) -> dict[str, Any]:
        kept, evaluated, _ = low_precision.make_datasets(config.data, config.seed)
        assert set(kept.image_ids) | set(evaluated.image_ids) == everything
        assert not set(kept.image_ids) & set(evaluated.image_ids)
        held.setdefault(str(config.name), []).append(set(evaluated.image_ids))
        return real_run(config, **options)

    real_run = low_precision.run
    scores = iter([0.1, 0.2, 0.3, 0.5, 0.5, 0.5])
    monkeypatch.setattr(low_precision, "run", run)
    monkeypatch.setattr(low_precision, "map50_of", lambda *_: {"map50": next(scores), "orientations": 0.4})
    changes = {"data.train_images": "9", "training.batch_size": "3"}
    everything = set(
        low_precision.make_datasets(low_precision.load_config(None, {**TINY, **changes}).data, 0)[0].image_ids
    )
    options = [option for option in arguments(tmp_path, **changes) if option != "--wide"]
    result = command([*options, "--folds", "3", "--orientations"])
    for folds in (held["float32-0"], held["kept in bf16-0"]):
        assert [len(fold) for fold in folds] == [3, 3, 3]
        assert set.union(*folds) == everything
    assert held["float32-0"] == held["kept in bf16-0"]
    assert [row["fold"] for row in result["rows"]] == [0, 1, 2, 0, 1, 2]
    compared = result["ways"]["kept in bf16"]
    assert (compared["seeds"], compared["trainings"]) == (1, 3)
    assert compared["map50_off"] == pytest.approx(0.3)  # .4, .3 and .2
    assert compared["map50_off_error"] == pytest.approx(0.1 / math.sqrt(3))
    assert compared["map50_off_largest"] == pytest.approx(0.4)
    assert compared["orientations_off"] == 0
    assert command([*options, "--folds", "3", "--orientations"])["rows"] == result["rows"]  # all are known
    assert len(held["float32-0"]) == 3
    monkeypatch.setattr(low_precision, "map50_of", lambda *_: {"map50": 0.4, "orientations": 0.4})
    command([*options, "--folds", "2", "--orientations"])
    # another division leaves these alone
    assert command([*options, "--folds", "3", "--orientations"])["rows"] == result["rows"]
    both = command([*options, "--folds", "3", "--orientations", "--seeds", "2"])["rows"]
    assert {(row["seed"], row["fold"]) for row in both} == {
        (seed, fold) for seed in range(2) for fold in range(3)
    }
    assert held["float32-1"] != held["float32-0"][:3]


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--folds", "1"], "--folds must be 2 or more, and without --alike, got --folds 1"),
        (["--folds", "-2"], "--folds must be 2 or more"),
        (["--folds", "2", "--alike", "1"], "got --folds 2 --alike 1"),
        (["--folds", "2", "--data.selection_fold", "1"], r"got data\.selection_fold 1 too; leave it out"),
        (["--folds", "7"], "--folds must leave images for each, got 7: none for fold . of seed 0; lower it"),
    ],
)
def test_folds_that_cannot_be_are_refused_before_any_training(
    wrong: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(low_precision, "run", lambda *_, **__: pytest.fail("was trained"))
    with pytest.raises(ConfigError, match=message):
        command([*arguments(tmp_path, **{"training.epochs": "2"}), *wrong])


@pytest.mark.usefixtures("in_this_process")
def test_spans_begin_with_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str | None, Path | None, int]] = []

    def run(config: Config, **options: Any) -> dict[str, Any]:
        summary = real_run(config, **options)
        calls.append((config.name, options.get("resume"), summary["epochs"]))
        return summary

    real_run = low_precision.run
    monkeypatch.setattr(low_precision, "run", run)
    changes = {"training.epochs": "3", "seed": "5"}
    command([*arguments(tmp_path, **changes), "--alike", "2"])
    start = tmp_path / "start-5" / "checkpoints" / "epoch-00002"
    assert calls == [("start-5", None, 2), ("float32-5", start, 3), ("kept in bf16-5", start, 3)]
    command([*arguments(tmp_path, **changes), "--alike", "2"])
    assert len(calls) == 3
    with pytest.raises(
        ConfigError, match=r"--alike must be 0 or more and less than training\.epochs 3, got 3"
    ):
        command([*arguments(tmp_path, **changes), "--alike", "3"])
    with pytest.raises(ConfigError, match=r"got data\.augment"):
        command(arguments(tmp_path, **{"data.augment.hue": "0.1"}))


@pytest.mark.parametrize("seen", low_precision.ORIENTATIONS)
def test_wide_is_over_four_orientations_and_the_training_images(seen: str) -> None:
    """Of a detector that finds everything in one view of the evaluated images and nothing else: precision 1
    up to its share of all objects.
    """
    config = low_precision.load_config(
        None, {"data.train_images": 3, "data.val_images": 4, "data.image_size": 64}
    )
    train_set, eval_set, _ = low_precision.make_datasets(config.data, config.seed)
    view = EvalView(eval_set, 64)
    known = {
        image.numpy().tobytes(): target
        for image, target in (flip(*view[index], seen) for index in range(len(view)))
    }

    def wanted(target: Any) -> list[int]:
        return list(target["labels"][~target["difficult"]].tolist())

    def detect(images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        found = []
        for image in images:
            target = known.get(image.numpy().tobytes())
            boxes, labels = (
                (target["boxes"], target["labels"])
                if target
                else (torch.zeros(0, 5), torch.zeros(0, dtype=torch.long))
            )
            found.append(
                {
                    "boxes": boxes.as_subclass(torch.Tensor),
                    "labels": labels,
                    "scores": torch.ones(len(labels)),
                }
            )
        return found

    found = low_precision.map50_of(detect, train_set.classes, config)  # type: ignore[arg-type]
    objects = [
        Counter(label for index in range(len(part)) for label in wanted(part.load(index)[1]))
        for part in (eval_set, train_set)
    ]
    shares = [
        objects[0][label] / (4 * objects[0][label] + objects[1][label]) for label in objects[0] | objects[1]
    ]
    alone = {
        "map50" if name == "identity" else name: float(name == seen) for name in low_precision.ORIENTATIONS
    }
    assert found == {
        **alone,
        "orientations": pytest.approx(1 / 4, abs=1e-6),
        "wide": pytest.approx(sum(shares) / len(shares), abs=1e-6),
    }
    assert low_precision.map50_of(detect, train_set.classes, config, ["orientations"]) == {
        key: found[key] for key in (*alone, "orientations")
    }  # type: ignore[arg-type]
    assert low_precision.map50_of(detect, train_set.classes, config, []) == {"map50": alone["map50"]}  # type: ignore[arg-type]


def test_pairs_of_one_seed_are_compared() -> None:
    scores = {
        ("float32", 0): 0.30,
        ("float32", 1): 0.20,
        ("kept in bf16", 1): 0.21,
        ("kept in bf16", 0): 0.27,
    }
    rows = [
        {"way": way, "seed": seed, "map50": map50, "wide": 2 * map50} for (way, seed), map50 in scores.items()
    ]
    found = summary(rows)["kept in bf16"]
    assert found["seeds"] == 2
    assert found["map50_mean"] == pytest.approx(0.24)
    assert found["map50_spread"] == pytest.approx(0.06 / math.sqrt(2))
    assert found["map50_off"] == pytest.approx(-0.01)  # -.03 and +.01
    assert found["map50_off_error"] == pytest.approx(0.04 / math.sqrt(2) / math.sqrt(2))
    assert found["map50_off_largest"] == pytest.approx(-0.03)
    assert found["wide_off"] == pytest.approx(-0.02)
    assert summary(rows)["float32"]["map50_off"] == 0
    assert (
        "wide_off"
        not in summary([{key: value for key, value in row.items() if key != "wide"} for row in rows])[
            "kept in bf16"
        ]
    )
    assert math.isnan(spread([0.3]))


def test_ways_differ_in_nothing_but_how_frozen_stages_are_run() -> None:
    config = low_precision.load_config(None, {})
    trees = {way: low_precision.to_dict(low_precision.of_way(config, way, 3)) for way in WAYS}
    assert len({json.dumps(tree["freezing"]) for tree in trees.values()}) == len(WAYS)
    for tree in trees.values():
        tree["freezing"] = {
            key: value
            for key, value in tree["freezing"].items()
            if key not in ("engine", "engine_precision", "cache_dtype")
        }
        assert tree.pop("name").endswith("-3")
    assert all(tree == trees["float32"] for tree in trees.values())
