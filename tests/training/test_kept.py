"""Which checkpoints stay: the newest, and the best where that is wanted."""

from __future__ import annotations

from pathlib import Path

import pytest

from dbf_ray.run import run
from dbf_ray.run.resume import best_epoch
from dbf_ray.training import loop
from dbf_ray.training.checkpoint import list_checkpoints
from tests.tiny import tiny_config


@pytest.mark.parametrize(
    ("keep_best", "kept", "best"),
    [(True, [2, 4, 5], 2), (False, [4, 5], None)],
    ids=["best", "newest"],
)
def test_the_best_stays(
    keep_best: bool,
    kept: list[int],
    best: int | None,
    tmp_path: Path,
    narrow: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scores = iter([0.1, 0.5, 0.3, 0.5, 0.2])
    monkeypatch.setattr(loop, "evaluate", lambda *_: {"map50": next(scores)})
    config = tiny_config(training__epochs=5, training__keep_best=keep_best, evaluation__every=1)
    summary = run(config, directory=tmp_path / "run", quiet=True)
    folder = tmp_path / "run" / "checkpoints"
    assert [path.name for path in list_checkpoints(folder)] == [f"epoch-{epoch:05d}" for epoch in kept]
    assert summary["checkpoint"] == str(folder / "epoch-00005")
    assert summary["checkpoint_best"] == (None if best is None else str(folder / f"epoch-{best:05d}"))


def test_the_first_of_equals_is_the_best_and_nothing_is_of_none() -> None:
    assert best_epoch([{"map50": None}, {"map50": float("nan")}]) is None
    assert best_epoch([{"map50": 0.2}, {"map50": None}, {"map50": 0.4}, {"map50": 0.4}]) == 3
