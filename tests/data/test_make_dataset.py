from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dbf_ray.build.data import make_datasets
from dbf_ray.config import load_config
from dbf_ray.data import DATASETS, READERS, make_dataset
from dbf_ray.data.scenes.objects import CLASSES
from dbf_ray.errors import ConfigError, DataError


def test_table() -> None:
    assert set(DATASETS) == {"synthetic", *READERS}
    assert "dota" in READERS


def test_synthetic() -> None:
    dataset = make_dataset("synthetic", "val", images=5, image_size=128)
    assert len(dataset) == len(dataset.image_ids) == 5
    assert dataset.classes == CLASSES
    assert dataset.load(0)[0].shape == (3, 128, 128)
    with pytest.raises(
        DataError, match=r"generated scenes have the classes plane, .*got \['boat'\]; leave `classes` out"
    ):
        make_dataset("synthetic", classes=["boat"])


def test_dota(make_root: Callable[..., Path]) -> None:
    root = make_root({"a": "10 10 30 10 30 20 10 20 ship 0", "b": ""})
    assert make_dataset("dota", root=str(root), drop_empty=True).image_ids == ["a"]
    assert make_dataset("dota", root=root, classes=["car", "ship"]).load(0)[1]["labels"].tolist() == [1]
    with pytest.raises(DataError, match=r"needs `root`, got none"):
        make_dataset("dota")


def test_unknown_name() -> None:
    with pytest.raises(
        ConfigError, match=r"unknown data set 'pascal'; known: synthetic, .*dota, or a dotted"
    ):
        make_dataset("pascal")


def test_splits_of_other_names(make_root: Callable[..., Path]) -> None:
    ship = "10 10 30 10 30 20 10 20 ship 0"
    make_root({"a": ship}, "trainval")
    root = make_root({"b": ship}, "test")
    config = load_config(
        None,
        {
            "data.name": "dota",
            "data.root": str(root),
            "data.train_split": "trainval",
            "data.val_split": "test",
        },
    )
    train, evaluated, split = make_datasets(config.data, config.seed)
    assert (train.image_ids, evaluated.image_ids, split) == (["a"], ["b"], "val")
