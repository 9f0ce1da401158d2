"""Where workers go on if Ray Train's own copies of checkpoints are torn; without a Ray."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import ray.train

from dbf_ray.cluster.resume import checkpoint_to_resume
from dbf_ray.errors import TrainingError
from tests.training.damage import DAMAGES, flipped, made


@pytest.fixture
def copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Ray's copies of three checkpoints, the last of which it reports."""
    paths = []
    for number, path in enumerate(made(tmp_path / "checkpoints", 1, 2, 3), start=1):
        copy = tmp_path / "ray" / f"checkpoint_2026-11-30_12-00-0{number}.123456"
        paths.append(Path(shutil.copytree(path, copy)))
    shutil.copytree(paths[2], tmp_path / "ray" / "checkpoint_2026-11-30_12-00-04.1")  # cut off, not reported
    monkeypatch.setattr(ray.train, "get_checkpoint", lambda: ray.train.Checkpoint(str(paths[2])))
    return paths


def chosen(begun: str | None = None, own: Path | None = None) -> Path | None:
    with checkpoint_to_resume(begun, own) as folder:
        return folder


def test_the_last_reported_one_is_taken(copies: list[Path], tmp_path: Path) -> None:
    assert chosen("begun", tmp_path / "checkpoints") == copies[2]


@pytest.mark.parametrize("case", DAMAGES)
def test_else_the_newest_whole_one(
    copies: list[Path], tmp_path: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "checkpoints"
    DAMAGES[case][0](copies[2])
    assert chosen(None, own) == own / "epoch-00003"
    assert f"warning: checkpoint {copies[2]} is torn" in capsys.readouterr().out
    assert chosen() == copies[1]
    DAMAGES[case][0](own / "epoch-00003")
    with pytest.warns(UserWarning, match="going on from epoch-00002"):
        assert chosen(None, own) == own / "epoch-00002"
    DAMAGES[case][0](copies[1])
    assert chosen("begun") == copies[0]


def test_else_what_the_run_was_started_with_else_one_line(copies: list[Path], tmp_path: Path) -> None:
    for copy in copies:
        flipped("checkpoint.pt")(copy)
    assert chosen("begun") == Path("begun")
    with pytest.raises(TrainingError, match="not one is; remove that folder") as error:
        chosen()
    assert str(tmp_path / "ray") in str(error.value)
    shutil.rmtree(copies[2])
    with pytest.raises(TrainingError, match="not one is"):
        chosen()


def test_without_a_reported_one_it_is_what_the_run_was_started_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray.train, "get_checkpoint", lambda: None)
    assert chosen("begun") == Path("begun")
    assert chosen() is None
