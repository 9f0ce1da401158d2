"""The bare loop that Ray Train is compared with trains the same, and the interval is Student's."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from benchmarks import startup
from dbf_ray.config import load_config


def test_the_bare_loop_leaves_what_is_compared(tmp_path: Path) -> None:
    changes = {"data.train_images": 8, "data.image_size": 64, "cluster.workers": 2}
    found = startup.trained(tmp_path, load_config(None, {**startup.TRAINING, **changes}), bare=True)
    assert 0 < found["beside"] < found["epoch"]
    assert found["first_step"] > 0


def test_the_interval_is_students() -> None:
    mean, half = startup.interval([1.0, 1.1, 1.2])
    assert mean == pytest.approx(1.1)
    assert half == pytest.approx(4.30265 * 0.1 / math.sqrt(3), rel=1e-5)
    assert startup.interval([1.0])[1] == math.inf
