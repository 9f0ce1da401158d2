"""Shipped configurations that a plan made are still what it would make."""

from __future__ import annotations

from pathlib import Path

import pytest

from dbf_ray.api import plan_settings
from dbf_ray.config import load_config, to_dict
from dbf_ray.values import flat

PLACES = ("data.root", "detector.weights_backbone")  # of a machine


@pytest.mark.slow
def test_the_plan_for_ships_is_what_is_shipped(shared: Path) -> None:
    made = plan_settings(shared / "data/hrsc2016", data={"image_size": 256}, training={"device": "cpu"})
    planned, shipped = flat(made["config"]), flat(to_dict(load_config("hrsc_planned")))
    for key in (*PLACES, "training.device"):
        planned.pop(key, None), shipped.pop(key, None)
    assert planned == shipped
