"""A training small enough to run in a second, on generated scenes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dbf_ray.config import Config
from dbf_ray.run.pictures import Pictures
from tests.tiny import tiny_config
from tests.training.frozen_runs import STEP
from tests.training.policy_runs import setting


@pytest.fixture
def tiny(tmp_path: Path, narrow: None) -> Callable[..., Config]:
    """Makes a tiny configuration whose runs folder is the test's own."""

    record = {"training__milestones": [3], "evaluation__every": 2, "runs_dir": str(tmp_path / "runs")}
    return lambda **changes: tiny_config(**{**record, **changes})


@pytest.fixture
def narrow_run(tmp_path: Path, narrow: None, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Config]:
    """Makes a run of a narrow backbone in the test's own folder; its prefix is frozen two epochs of three
    unless changed.
    """
    monkeypatch.setattr(Pictures, "_draw", lambda *_: None)
    return lambda name, **changes: setting(
        tmp_path, name, **{**({} if "freezing.policy" in changes else STEP), **changes}
    )
