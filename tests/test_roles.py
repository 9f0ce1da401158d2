"""What a key is, said at its field: places, resources and labels may change between two calls, for a run and
a study alike; everything else may not.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic import Field
from pydantic.fields import FieldInfo

from dbf_ray.build import resolved
from dbf_ray.config import Config, elsewhere, identity, make_config, paths, role_of, to_dict, with_overrides
from dbf_ray.config.roles import Place, leaves
from dbf_ray.config.sections import Section
from dbf_ray.errors import ConfigError
from dbf_ray.run import find_resume
from dbf_ray.search.optuna_study import open_study
from dbf_ray.search.settings import Settings
from dbf_ray.search.spaces import load_space
from dbf_ray.search.study import Study
from dbf_ray.training.checkpoint import save_checkpoint
from tests.search.begins import four_stages

BASE = {
    "data.root": "/here/data",
    "detector.weights_backbone": "/here/weights.pth",
    "detector.weights_mmrotate": "/here/checkpoint.pth",
    "detector.weights_checkpoint": "/here/epoch-00012",
    "freezing.policy": "step",
    "freezing.rho": 3,
    "training.accumulation": 2,
}
ANOTHER = {  # where another value is not simply made of the type
    "data.root": "/there/data",
    "data.classes": ["ship"],
    "data.flips": ["vertical"],
    "data.augment.scales": [0.5, 1.5],
    "detector.weights_backbone": "/there/weights.pth",
    "detector.weights_mmrotate": "/there/checkpoint.pth",
    "detector.weights_checkpoint": "/there/epoch-00012",
    "detector.name": "rotated_fcos",
    "detector.norm_eval": "sync",
    "freezing.policy": "full",
    "search.accuracy": "ap50/ship",
    "search.sampler": "random",
    "training.accumulation": 4,
    "training.batch_size": 16,
    "training.milestones": [5],
    "search.controls": [0.9],
}
SPACE = """
BASELINES = [{'freezing.policy': 'full'}]
def space(trial):
    return {'seed': trial.suggest_int('seed', 0, 9)}
"""
KEYS = {key: field for key, field, _ in leaves(Config())}
MAY = [key for key, field in KEYS.items() if role_of(field).name != "identity"]
MAY_NOT = [
    *(key for key, field in KEYS.items() if role_of(field).name == "identity"),
    "freezing.rho",
    "detector.loss_beta",
]


def another(key: str, field: FieldInfo | None, value: Any) -> Any:
    """A valid value of a key other than ``value``."""
    if key in ANOTHER:
        return ANOTHER[key]
    kinds = list(get_args(field.annotation) or [field.annotation]) if field else []
    if field is not None and get_origin(field.annotation) is Literal:
        return next(choice for choice in get_args(field.annotation) if choice != value)
    if isinstance(value, bool) or (value is None and bool in kinds):
        return not value
    if isinstance(value, float) or (value is None and float in kinds):
        return 0.5 if value != 0.5 else 0.25
    if isinstance(value, int) or (value is None and int in kinds):
        return (value or 0) + 1 if key != "data.image_size" else 64
    return "/another" if Path in kinds or isinstance(value, Path) else "another"


def changed(key: str) -> Config:
    base = with_overrides(Config(), BASE)
    field = KEYS.get(key)
    value: Any = base
    for part in key.split("."):
        value = getattr(value, part, None)
    return with_overrides(base, {key: another(key, field, value)})


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    record = {"config": to_dict(with_overrides(Config(), BASE)), "epochs": []}
    save_checkpoint(folder / "checkpoints", 1, {}, record)
    return folder


@pytest.fixture(scope="module")
def opening(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Config], Study]:
    folder = tmp_path_factory.mktemp("study")
    (folder / "space.py").write_text(SPACE)

    def opened(config: Config) -> Study:
        study = open_study(folder / "study.db", "test", trials=4, seed=0)
        return Study(study, load_space(folder / "space.py"), Settings(config, four_stages))

    opened(with_overrides(Config(), BASE)).optuna.ask()  # a study without a trial is tied to nothing
    return opened


def last_state(config: Config) -> str:
    """The name of what a training ends in."""
    return Settings(config, four_stages).make({}).states[-1]


@pytest.mark.parametrize("key", MAY)
def test_places_resources_and_labels_may_change(
    key: str, run_folder: Path, opening: Callable[[Config], Study]
) -> None:
    config = changed(key)
    assert to_dict(config) != to_dict(with_overrides(Config(), BASE))
    assert find_resume(config, run_folder) is not None
    opening(config)
    assert last_state(config) == last_state(with_overrides(Config(), BASE))


@pytest.mark.parametrize("key", MAY_NOT)
def test_what_shapes_the_training_may_not(
    key: str, run_folder: Path, opening: Callable[[Config], Study]
) -> None:
    config = changed(key)
    with pytest.raises(ConfigError, match=rf"another configuration, it differs in .*{key} \(.*, now .*\)"):
        find_resume(config, run_folder)
    with pytest.raises(ConfigError, match=rf"other settings, it differs in .*{key} \(.*, now .*\)"):
        opening(config)
    if not key.startswith("freezing.interval."):  # whose blocks' length counts, however it is written
        assert last_state(config) != last_state(with_overrides(Config(), BASE))


@pytest.mark.parametrize("weights", [None, "DEFAULT", "/here/others.pth"])
def test_other_weights_are_another_training_wherever_they_are(weights: str | None, run_folder: Path) -> None:
    config = with_overrides(Config(), {**BASE, "detector.weights_backbone": weights})
    with pytest.raises(ConfigError, match=r"differs in detector\.weights_backbone \('weights.pth', now "):
        find_resume(config, run_folder)


def test_a_field_that_says_nothing_shapes_the_training() -> None:
    class Later(Section):
        new: int = Field(1, description="nobody thought of its role")
        folder: Place[Path] = Field(Path("a"), description="somewhere")

    class Whole(Section):
        later: Later = Field(default_factory=Later)

    assert identity(Whole()) == {"later.new": 1}
    assert paths(Whole()) == {"later.folder": Path("a")}


def test_what_is_left_to_the_detector_is_what_the_detector_takes() -> None:
    for name, own in (("rotated_retinanet", 4), ("oriented_rcnn", 1)):
        silent, spoken = (
            with_overrides(Config(), {"detector.name": name, "detector.head_convs": convs})
            for convs in (None, own)
        )
        assert identity(silent) != identity(spoken)
        assert identity(resolved(silent)) == identity(resolved(spoken))


def test_names_of_weights_are_no_paths() -> None:
    named = {
        "detector.weights_backbone": "DEFAULT",
        "tracking.uri": "sqlite:///x.db",
        "cluster.storage": "s3://a",
    }
    assert set(paths(with_overrides(Config(), named))) == {"runs_dir", "search.studies_dir"}
    assert set(paths(with_overrides(Config(), {**BASE, "freezing.cache_dir": "scratch"}))) == {
        *("runs_dir", "search.studies_dir", "data.root", "freezing.cache_dir"),
        *("detector.weights_backbone", "detector.weights_mmrotate", "detector.weights_checkpoint"),
    }


def test_the_same_training_elsewhere() -> None:
    begun = with_overrides(Config(), {**BASE, "training.device": "cuda", "training.lr": 0.5})
    here = with_overrides(Config(), {"data.root": "/mine", "training.device": "cpu", "training.lr": 0.1})
    moved = with_overrides(begun, elsewhere(begun, here))
    assert identity(moved) == identity(begun)
    assert (moved.data.root, moved.training.device, moved.training.lr) == (Path("/mine"), "cpu", 0.5)
    assert make_config(to_dict(moved), "itself") == moved
