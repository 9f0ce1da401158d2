"""A run that began on two workers goes on with another number: images, their order and the effective batch
stay, so that the first step after the change is the one that the old number would have taken.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from dbf_ray.config import load_config
from dbf_ray.run import find_resume, run
from dbf_ray.training.checkpoint import list_checkpoints, load_checkpoint
from dbf_ray.training.ddp import rank
from tests.tiny import TINY, add_narrow, on_ranks

pytestmark = pytest.mark.usefixtures("narrow")
CASES: dict[str, dict[str, Any]] = {
    "sgd": {"training.optimizer": "sgd", "training.lr": 1e-2},
    "adamw": {},
    "frozen": {"freezing.policy": "step", "freezing.rho": 2, "freezing.cache": "ram"},
}


def trains(folder: Path, case: str, workers: int, until: int) -> None:
    """Begin or go on, and end after epoch ``until``; each epoch has two steps."""
    keys = {**TINY, "training.epochs": 4, "cluster.workers": workers, **CASES[case]}
    config = load_config(None, keys)

    def goes_on(record: dict[str, Any], checkpoint: Path | None) -> bool:
        return record["epoch"] < until

    resume = find_resume(config, folder)
    run(config, directory=folder, trackers=[], resume=resume, on_epoch=goes_on, quiet=True, coverage=False)


def as_rank(number: int, folder: str, workers: int) -> None:
    """One of the ranks: without a checkpoint it makes the first epoch's, which is kept for others; and it
    goes on in a copy.
    """
    add_narrow()
    torch.set_num_threads(1)
    store = f"file://{folder}/store-{workers}"
    dist.init_process_group("gloo", init_method=store, rank=number, world_size=workers)
    for case in CASES:
        begun, own = Path(folder) / case / "begun", Path(folder) / case / str(workers)
        if workers == 2:
            trains(begun, case, workers, until=0)
        if rank() == 0:
            shutil.copytree(begun, own)
        dist.barrier()
        trains(own, case, workers, until=1)
    dist.destroy_process_group()


def state_after(folder: Path) -> tuple[dict[str, torch.Tensor], list[Any], list[Any]]:
    """Weights, tensors of the optimizer's state, and the loss of each epoch."""
    tensors, record = load_checkpoint(list_checkpoints(folder / "checkpoints")[-1])
    optimizer = [value for state in tensors["optimizer"]["state"].values() for value in state.values()]
    return tensors["model"], optimizer, [epoch["loss"] for epoch in record["epochs"]]


def same(folder: Path, workers: int) -> None:
    for case in CASES:
        weights, moments, losses = state_after(folder / case / "2")
        other_weights, other_moments, other_losses = state_after(folder / case / str(workers))
        assert len(losses) == 2
        assert other_losses == pytest.approx(losses, rel=1e-5)
        for name, value in weights.items():
            torch.testing.assert_close(other_weights[name], value, rtol=1e-5, atol=1e-5, msg=f"{case} {name}")
        assert len(moments) == len(other_moments) > 0
        for value, other in zip(moments, other_moments, strict=True):
            torch.testing.assert_close(torch.as_tensor(other), torch.as_tensor(value), rtol=1e-4, atol=1e-5)


def test_two_workers_and_then_one(tmp_path: Path) -> None:
    on_ranks(as_rank, str(tmp_path), 2)
    for case in CASES:
        shutil.copytree(tmp_path / case / "begun", tmp_path / case / "1")
        trains(tmp_path / case / "1", case, 1, until=1)
    same(tmp_path, 1)


@pytest.mark.slow
def test_two_workers_and_then_four(tmp_path: Path) -> None:
    on_ranks(as_rank, str(tmp_path), 2)
    on_ranks(as_rank, str(tmp_path), 4, ranks=4)
    same(tmp_path, 4)
