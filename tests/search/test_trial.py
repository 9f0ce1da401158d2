"""A trial's process, without Tune: where it goes on from."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from dbf_ray.config import Config, to_dict
from dbf_ray.search import trial
from dbf_ray.search.trial import TrialSetup
from dbf_ray.training.checkpoint import save_checkpoint
from tests.training.damage import flipped

LOST = '{"attempt": 1, "epoch": 2, "spent": {"executed_flops": 7}}\n'


@pytest.fixture
def trials(tmp_path: Path) -> Path:
    """Trial 3 was interrupted after two epochs, with work on a third; trial 4 is to go on with it."""
    save_checkpoint(
        tmp_path / "3" / "checkpoints", 2, {"epoch": 2}, {"config": to_dict(Config()), "epochs": []}
    )
    (tmp_path / "3" / "costs.jsonl").write_text(LOST)
    (tmp_path / "4").mkdir()
    return tmp_path


def go_on(trials: Path) -> dict[str, Any]:
    seen: dict[str, Any] = {}

    def run(config: Config, *, directory: Path, resume: Path | None, **_: Any) -> dict[str, Any]:
        seen["resume"], journal = resume, directory / "costs.jsonl"
        seen["journal"] = journal.read_text() if journal.exists() else None
        return {}

    assignment = {"number": 4, "config": to_dict(Config()), "retry_of": 3}
    trial._train(assignment, TrialSetup("s", str(trials), run=run), trials / "4")
    return seen


def test_a_retry_takes_the_checkpoint_and_the_cost_of_the_work_beyond_it(trials):
    assert go_on(trials) == {"resume": trials / "3" / "checkpoints" / "epoch-00002", "journal": LOST}


def test_a_retry_that_was_killed_keeps_its_own_journal(trials):
    (trials / "4" / "costs.jsonl").write_text(LOST + LOST)
    assert go_on(trials)["journal"] == LOST + LOST


def test_a_trial_goes_on_from_the_newest_whole_checkpoint(trials):
    record = {"config": to_dict(Config()), "epochs": []}
    torn = save_checkpoint(trials / "3" / "checkpoints", 3, {"epoch": 3}, record)
    flipped("checkpoint.pt")(torn)
    own = save_checkpoint(trials / "4" / "checkpoints", 3, {"epoch": 3}, record)
    assert go_on(trials)["resume"] == own
    flipped("record.json")(own)
    with pytest.warns(UserWarning, match=r"epoch-00003 .*going on from epoch-00002"):
        assert go_on(trials)["resume"] == trials / "3" / "checkpoints" / "epoch-00002"


def test_without_a_whole_checkpoint_the_work_begins_anew_and_so_does_its_journal(trials):
    checkpoint = trials / "3" / "checkpoints" / "epoch-00002"
    (checkpoint / "checkpoint.pt").unlink()
    with pytest.warns(UserWarning, match=r"work of .*3 is lost: .*epoch-00002 \(checkpoint.pt is missing\)"):
        assert go_on(trials) == {"resume": None, "journal": None}
    shutil.rmtree(checkpoint)
    assert go_on(trials) == {"resume": None, "journal": None}
