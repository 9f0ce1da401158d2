"""The configuration: strict, complete, and the same after a round trip through YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dbf_ray.config import (
    Config,
    apply_overrides,
    load_config,
    make_config,
    save_config,
    to_dict,
    with_overrides,
)
from dbf_ray.errors import ConfigError
from dbf_ray.files import LONGEST_NAME


def test_the_defaults_are_valid_and_complete() -> None:
    assert load_config() == Config()
    assert make_config(to_dict(Config()), "itself") == Config()


def test_a_file_and_overrides_over_it(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    # data: all keys commented out
    file.write_text("training:\n  epochs: 3\n  lr: 1e-3\nfreezing: {policy: step, rho: 2}\ndata:\n")
    config = load_config(
        file,
        {
            "training.lr": "5e-4",
            "freezing.rho": "4",
            "data.flips": "[vertical]",
            "detector.weights_backbone": "null",
        },
    )
    assert (config.training.epochs, config.training.lr) == (3, 5e-4)
    assert (config.freezing.policy, config.freezing.parameters) == ("step", {"rho": 4})
    assert (config.data.flips, config.detector.weights_backbone) == (["vertical"], None)


def test_augmentation_is_off_and_set_by_nested_keys(tmp_path: Path) -> None:
    assert (load_config().data.flips, to_dict(load_config())["data"]["augment"]["scales"]) == (
        ["horizontal", "vertical", "diagonal"],
        None,
    )
    file = tmp_path / "config.yaml"
    file.write_text("data: {flips: [rotate90, transpose], augment: {rotate: 30, hue: 0.1}}\n")
    config = load_config(file, {"data.augment.scales": "[0.5, 1.5]", "data.augment.hue": "0.05"})
    assert config.data.flips == ["rotate90", "transpose"]
    assert (config.data.augment.rotate, config.data.augment.scales, config.data.augment.hue) == (
        30.0,
        [0.5, 1.5],
        0.05,
    )
    assert make_config(to_dict(config), "itself") == config


def test_a_saved_configuration_is_the_same_when_read_again(tmp_path: Path) -> None:
    overrides = {
        "freezing.policy": "step",
        "freezing.rho": 3,
        "data.root": "/some/where",
        "detector.norm_eval": "sync",
        "name": "null-hypothesis",
    }
    config = load_config(None, {**overrides, "detector.anchor_angles": [-90.0, 0.0]})
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config


@given(st.text(st.characters(codec="utf-8", exclude_characters="/\\", exclude_categories=["C"]), min_size=1))
def test_text_stays_text(text: str) -> None:
    """A run may be called 5, off or 2024-01-01, though YAML reads them as a number, false and a date."""
    assume(text not in ("null", ".", "..") and len(text.encode()) <= LONGEST_NAME)
    assert load_config(None, {"name": text}).name == text


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("data.root", "2016", Path("2016")),
        ("detector.weights_backbone", "1e5", "1e5"),
        ("training.epochs", "5", 5),
        ("training.lr", "1e-4", 1e-4),
        ("training.clip_norm", "null", None),
        ("detector.norm_eval", "false", False),
        ("detector.norm_eval", "sync", "sync"),
        ("tracking.mlflow", "off", False),
        ("data.classes", "[ship, plane]", ["ship", "plane"]),
        ("training.milestones", "[]", []),
    ],
)
def test_values_from_the_command_line(key: str, text: str, value: object) -> None:
    section, name = key.split(".")
    found = getattr(getattr(load_config(None, {key: text}), section), name)
    assert found == value
    assert type(found) is type(value) or isinstance(value, Path)


KEYS = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map(".".join)


@given(
    st.dictionaries(st.sampled_from("abc"), st.dictionaries(st.sampled_from("abc"), st.integers())),
    KEYS,
    st.integers(),
)
def test_an_override_changes_its_key_alone(tree: dict[str, Any], key: str, value: int) -> None:
    before = {outer: dict(inner) for outer, inner in tree.items()}
    parts = key.split(".")
    if len(parts) == 3 and isinstance(tree.get(parts[0], {}).get(parts[1]), int):
        with pytest.raises(ConfigError, match="is a value, not a section"):
            apply_overrides(tree, {key: value})
        return
    after = apply_overrides(tree, {key: value})
    assert tree == before
    node: Any = after
    for part in parts:
        node = node[part]
    assert node == value
    for outer, inner in before.items():
        for name, old in inner.items():
            if parts[: len(parts)] != [outer, name][: len(parts)]:
                assert after[outer][name] == old


def test_another_policy_keeps_how_long_decisions_hold_and_what_thawing_does(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(
        "freezing: {policy: step, rho: 3, interval: {unit: steps, every: 50}, momentum: reset, "
        "rewarm_steps: 9}"
    )
    for config in (
        load_config(file, {"freezing.policy": "cosine", "freezing.start": 1, "freezing.end": 0}),
        with_overrides(
            load_config(file), {"freezing.policy": "cosine", "freezing.start": 1, "freezing.end": 0}
        ),
    ):
        assert config.freezing.parameters == {"start": 1, "end": 0}
        assert (config.freezing.interval.unit, config.freezing.interval.every) == ("steps", 50)
        assert (config.freezing.momentum, config.freezing.rewarm_steps) == ("reset", 9)
    file.write_text("freezing: {policy: budget, limit: 0.9, inner: {name: step, rho: 3}}")
    front = {"freezing.inner.name": "front", "freezing.inner.budget": 2}
    for config in (load_config(file, front), with_overrides(load_config(file), front)):
        assert config.freezing.parameters == {"limit": 0.9, "inner": {"name": "front", "budget": 2}}
    assert load_config(file, {"freezing.inner.rho": 4}).freezing.parameters["inner"] == {
        "name": "step",
        "rho": 4,
    }
    nested = load_config(
        None,
        {
            "freezing.policy": "budget",
            "freezing.limit": "0.8",
            "freezing.inner.name": "step",
            "freezing.inner.rho": "2",
        },
    )
    assert nested.freezing.parameters == {"limit": 0.8, "inner": {"name": "step", "rho": 2}}


def test_another_policy_drops_the_parameters_of_the_first() -> None:
    config = load_config(None, {"freezing.policy": "step", "freezing.rho": 3})
    assert with_overrides(config, {"freezing.policy": "full"}).freezing.parameters == {}
    assert with_overrides(config, {"freezing.policy": "step", "freezing.rho": 5}).freezing.parameters == {
        "rho": 5
    }
    assert with_overrides(config, {"training.epochs": 2}).freezing.parameters == {"rho": 3}
    assert config.freezing.parameters == {"rho": 3}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"freezing.name": "step"}, "unknown key name; did you mean policy?"),
        ({"trainin.epochs": 1}, "unknown key trainin: did you mean training?"),
        ({"data.canvas": "square"}, "unknown key data.canvas; it is called data.pad_to now (in "),
        (
            {"data.view_per": "stretch"},
            "unknown key data.view_per; it is called data.orientation_per now (in ",
        ),
        ({"training.epoch": 1}, "unknown key training.epoch: did you mean epochs?"),
        ({"evaluation.zzz": 1}, "unknown key evaluation.zzz: known here: every, batch_size"),
        ({"detector.frozen_stage": 1}, "detector: unknown key frozen_stage; did you mean frozen_stages?"),
        ({"freezing.polici": "step"}, "freezing: unknown key polici; did you mean policy?"),
        ({"training.epochs": 0}, "training.epochs: should be greater than or equal to 1, got 0"),
        ({"training.lr": float("nan")}, "training.lr: should be a finite number, got nan"),
        (
            {"training.milestones": [3, 3]},
            "training.milestones: milestones must be increasing epochs >= 1, got [3, 3]",
        ),
        ({"data.selection_fraction": 1}, "data.selection_fraction: should be less than 1, got 1"),
        (
            {"data.flips": ["up"]},
            "data.flips.0: should be 'horizontal', 'vertical', 'diagonal', 'rotate90', 'rotate270', "
            "'transpose' or 'transverse', got 'up'",
        ),
        ({"data.augment.rotat": 9}, "unknown key data.augment.rotat: did you mean rotate?"),
        ({"data.augment.rotate": 200}, "data.augment.rotate: should be less than or equal to 180, got 200"),
        ({"data.augment.hue": 0.7}, "data.augment.hue: should be less than or equal to 0.5, got 0.7"),
        (
            {"data.augment.scales": 0.5},
            "data.augment.scales: should be a valid list, written [a, b], got 0.5",
        ),
        ({"seed": -1}, "seed: should be greater than or equal to 0, got -1"),
        (
            {"name": "a/b"},
            "name: should be the name of one folder, without slashes (runs_dir says where), got 'a/b'",
        ),
        ({"name": ".."}, "got '..'"),
        (
            {"name": "é" * 128},
            "name: should be a name that a folder can have: text in UTF-8 within 255 bytes",
        ),
        ({"name": "run\udcb0"}, "name: should be a name that a folder can have"),
        ({"name": "run\n"}, "name: should be a name that a folder can have"),
        ({"training": 3}, "training: should be a valid dictionary"),
        ({"seed.x": 1}, "seed"),
    ],
)
def test_what_is_refused(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(None, overrides)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert "(in the options given); dbf train --help explains every key" in str(error.value)


def test_workers_and_micro_batches_must_share_the_batch() -> None:
    with pytest.raises(ConfigError, match=r"training\.batch_size must be divisible by .* = 2 x 3, got 8"):
        load_config(None, {"training.batch_size": 8, "cluster.workers": 2, "training.accumulation": 3})
    assert (
        load_config(
            None, {"training.batch_size": 12, "cluster.workers": 2, "training.accumulation": 3}
        ).cluster.workers
        == 2
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"- 1\n", "must hold a mapping of sections and keys to values, found list"),
        (b"5\n", "must hold a mapping of sections and keys to values, found int"),
        (b"a: [1\n", "is not valid YAML"),
        (b"name: \xff\xfe\n", "is not valid YAML"),
        (b"training: {epochs: many}\n", "training.epochs: should be a valid integer"),
    ],
)
def test_broken_files_are_named(content: bytes, message: str, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as error:
        load_config(file)
    assert message in str(error.value)
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_and_empty_files(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"the configuration .*nowhere\.yaml does not exist; give an existing .*demo, hrsc_mobilenet_v2",
    ):
        load_config(tmp_path / "nowhere.yaml")
    with pytest.raises(ConfigError, match="Is a directory"):
        load_config(tmp_path)
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert load_config(tmp_path / "empty.yaml") == Config()
