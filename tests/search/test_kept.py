"""What stays of the trials' checkpoints when a search has ended."""

from __future__ import annotations

from pathlib import Path

from dbf_ray.search.kept import keep_only
from dbf_ray.training.checkpoint import list_checkpoints, load_checkpoint, newest_whole, save_checkpoint


def test_the_last_checkpoints_of_some_stay_without_the_optimizers_state(tmp_path: Path) -> None:
    for number in range(4):
        for epoch in (2, 3):
            state = {"epoch": epoch, "model": {"a": number}, "optimizer": {"state": [0.0] * 1000}}
            save_checkpoint(tmp_path / str(number) / "checkpoints", epoch, state, {"epochs": [{}] * epoch})
    states = ("COMPLETE", "COMPLETE", "FAIL", "COMPLETE")
    rows = [{"number": number, "state": state} for number, state in enumerate(states)]
    for _ in range(2):  # again, it changes nothing
        keep_only({1, 2, 9}, {"trials": [*rows, {"number": 9, "state": "COMPLETE"}]}, tmp_path)
        left = {number: list_checkpoints(tmp_path / str(number) / "checkpoints") for number in range(4)}
        assert {number: [path.name for path in paths] for number, paths in left.items()} == {
            0: [],
            1: ["epoch-00003"],
            2: ["epoch-00002", "epoch-00003"],  # it may go on
            3: [],
        }
        assert newest_whole(tmp_path / "1" / "checkpoints") == left[1][0]
        state, record = load_checkpoint(left[1][0])
        assert (state, len(record["epochs"])) == ({"epoch": 3, "model": {"a": 1}}, 3)
