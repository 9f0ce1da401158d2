"""The real loop on two gloo ranks, in every norm mode: ranks stay identical, and frozen epochs reduce only
what is trained.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from dbf_ray.build import build_training, prepare
from dbf_ray.config import load_config
from dbf_ray.training.loop import LoopState, run_epoch
from tests.tiny import TINY, add_narrow, on_ranks

MODES: tuple[Any, ...] = (True, False, "sync")
SETTINGS: dict[str, Any] = {
    **TINY,
    "detector.frozen_stages": 1,
    "training.accumulation": 2,
    "training.warmup_steps": 0,
    "freezing.policy": "step",
    "freezing.rho": 2,
    "cluster.workers": 2,
}


def rows_of(mode: Any) -> list[dict[str, Any]]:
    """Four epochs; what both ranks hold after each."""
    training = build_training(
        prepare(load_config(None, {**SETTINGS, "detector.norm_eval": mode})), quiet=True
    )
    state, rows = LoopState(), []
    before = None
    for _ in range(4):
        record = run_epoch(training, state)
        state.epoch += 1
        weights = training.detector.state_dict()
        pieces = [torch.zeros(1) for _ in range(2)]
        same = True
        for tensor in weights.values():
            pieces = [torch.empty_like(tensor) for _ in range(2)]
            dist.all_gather(pieces, tensor.contiguous())
            same &= torch.equal(pieces[0], pieces[1])
        trained = sum(p.numel() * p.element_size() for p in training.detector.parameters() if p.requires_grad)
        backbone = {name: tensor.clone() for name, tensor in weights.items() if name.startswith("backbone.")}
        still = before is not None and all(
            torch.equal(tensor, before[name]) for name, tensor in backbone.items()
        )
        before = backbone
        rows.append(
            {
                "prefix": record["frozen_stages"],
                "same": same,
                "still": still,
                "reduced": record["allreduce_bytes"],
                "expected": trained * record["steps"],
                "rebuilds": training.ddp.rebuilds,
            }
        )
    return rows


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    add_narrow()
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    rows = {str(mode): rows_of(mode) for mode in MODES}
    if rank == 0:
        Path(folder, "rows.json").write_text(json.dumps(rows))
    dist.destroy_process_group()


def test_ranks_stay_identical_through_freezing_and_unfreezing(tmp_path: Path) -> None:
    on_ranks(worker, str(tmp_path))
    for mode, rows in json.loads((tmp_path / "rows.json").read_text()).items():
        assert [row["prefix"] for row in rows] == [1, 4, 1, 4], mode
        assert all(row["same"] for row in rows), mode
        assert [row["still"] for row in rows] == [False, True, False, True], mode
        assert [row["reduced"] for row in rows] == [row["expected"] for row in rows], mode
        assert rows[1]["reduced"] < rows[0]["reduced"], mode
        assert [row["rebuilds"] for row in rows] == [1, 2, 3, 4], mode
