"""DDP in a group of one rank, nccl on a GPU and gloo on a CPU: freezing, unfreezing and rebuilding through
the real loop, engine and cache on.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from dbf_ray.build import build_training, prepare
from dbf_ray.config import load_config
from dbf_ray.training.ddp import DynamicDDP
from dbf_ray.training.loop import LoopState, run_epoch

SETTINGS = {
    **{"data.train_images": 8, "data.val_images": 2, "data.image_size": 128, "data.orientation_per": "span"},
    **{"detector.backbone": "resnet18", "detector.fpn_channels": 32, "detector.head_convs": 1},
    **{
        "training.batch_size": 4,
        "training.accumulation": 2,
        "training.epochs": 6,
        "training.precision": "bf16",
        "training.warmup_steps": 0,
    },
    **{"freezing.policy": "step", "freezing.rho": 3, "freezing.cache": "ram", "tracking.mlflow": False},
}


def schedule(device: str) -> list[dict[str, Any]]:
    """Six epochs through DDP in a group of one rank; after each, the record and what DDP was asked to
    reduce.
    """
    training = build_training(prepare(load_config(None, {**SETTINGS, "training.device": device})), quiet=True)
    ddp = DynamicDDP(training.detector, training.device, alone=True)
    training.ddp = training.scheduler.ddp = ddp
    state, rows = LoopState(), []
    for _ in range(6):
        before = {name: p.detach().clone() for name, p in training.detector.backbone.named_parameters()}
        rows.append(run_epoch(training, state))
        state.epoch += 1
        moved = any(
            not torch.equal(before[name], p) for name, p in training.detector.backbone.named_parameters()
        )
        assert moved == (rows[-1]["frozen_stages"] == 0)
        trained = sum(p.numel() * p.element_size() for p in training.detector.parameters() if p.requires_grad)
        assert rows[-1]["allreduce_bytes"] == trained * rows[-1]["steps"] > 0
    assert ddp.rebuilds == 4
    assert [row["frozen_stages"] for row in rows] == [0, 4, 4, 0, 4, 4]
    assert [row["cache_hits"] for row in rows] == [0, 0, 8, 0, 0, 8]
    assert all(math.isfinite(row["loss"]) for row in rows)
    return rows


def alone(backend: str, device: str, folder: Path) -> list[dict[str, Any]]:
    dist.init_process_group(backend, init_method=f"file://{folder}/store", rank=0, world_size=1)
    try:
        return schedule(device)
    finally:
        dist.destroy_process_group()


@pytest.mark.gpu
def test_a_frozen_schedule_on_nccl(tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device, there is none")
    rows = alone("nccl", "cuda", tmp_path)
    assert rows[2]["peak_memory_bytes"] < rows[0]["peak_memory_bytes"]


def test_the_same_on_gloo(tmp_path: Path) -> None:
    alone("gloo", "cpu", tmp_path)
