"""What test_any_module.py runs as each rank of a gloo group; it writes what it saw as JSON.

Models that know nothing of freezing, trained by two ranks through freeze and unfreeze rounds, as anybody
would with DDP's defaults.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torchvision
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dbf_ray.errors import TrainingError
from dbf_ray.freezing import Freezer, FreezingSchedule, make_policy

LR, MOMENTUM = 0.01, 0.9
Loss = Callable[[nn.Module, torch.Generator], Tensor]


def digest(named: dict[str, Tensor]) -> dict[str, str]:
    return {
        name: hashlib.sha256(t.detach().contiguous().numpy()).hexdigest()[:16] for name, t in named.items()
    }


def state(model: nn.Module) -> dict[str, str]:
    return digest({**dict(model.named_parameters()), **dict(model.named_buffers())})


def momenta(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, str]:
    named = {name: optimizer.state.get(p, {}).get("momentum_buffer") for name, p in model.named_parameters()}
    return digest({name: t for name, t in named.items() if t is not None})


def differing(row: dict[str, str]) -> list[str]:
    rows: list[dict[str, str]] = [{}, {}]
    dist.all_gather_object(rows, row)
    return [name for name in row if rows[0][name] != rows[1][name]]


def rounds(
    model: nn.Module,
    stages: list[Any],
    loss: Loss,
    policy: str,
    epochs: int,
    steps: int,
    wrap_once: bool = False,
    **parameters: Any,
) -> list[dict[str, Any]]:
    """Train; of each epoch what moved on this rank, and what differs between ranks after it."""
    freezer = Freezer.of(model, stages)
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM)
    schedule = FreezingSchedule(make_policy(policy, **parameters), freezer, epochs, optimizer=optimizer)
    generator = torch.Generator().manual_seed(dist.get_rank())
    ddp = DistributedDataParallel(model, find_unused_parameters=wrap_once)
    seen = []
    for epoch in range(epochs):
        changed = schedule.begin_epoch(epoch)
        if changed and not wrap_once:
            ddp = DistributedDataParallel(model)
        names = [
            name
            for stage in stages[: freezer.num_frozen]
            for name in ([stage] if isinstance(stage, str) else stage)
        ]
        before, kept = state(model), momenta(model, optimizer)
        frozen = {name for name in before if name.startswith(tuple(f"{name}." for name in names))}
        ddp.train()
        momentum_wrong = sum(one_step(ddp, optimizer, loss, generator) for _ in range(steps))
        after, kept_after = state(model), momenta(model, optimizer)
        trained = {name for name, p in model.named_parameters() if p.requires_grad}
        parameters_and_frozen = frozen | {name for name, _ in model.named_parameters()}
        seen.append(
            {
                "num_frozen": freezer.num_frozen,
                "changed": changed,
                "frozen": len(frozen),
                "frozen_moved": sorted(name for name in frozen if before[name] != after[name]),
                "frozen_trained": sorted(frozen & trained),
                "trained_still": sorted(name for name in trained if before[name] == after[name]),
                "waiting_momenta": len(frozen & kept.keys()),
                "waiting_momenta_moved": sorted(n for n in frozen & kept.keys() if kept[n] != kept_after[n]),
                "momentum_wrong": momentum_wrong,
                "ranks_differ": differing({name: after[name] for name in sorted(parameters_and_frozen)}),
            }
        )
    return seen


def one_step(ddp: nn.Module, optimizer: torch.optim.Optimizer, loss: Loss, generator: torch.Generator) -> int:
    """How many momentum buffers are not what those before and the gradients make of them."""
    loss(ddp, generator).backward()
    trained = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    expected = []
    for p in trained:
        before = optimizer.state[p].get("momentum_buffer")
        expected.append(p.grad.clone() if before is None else before * MOMENTUM + p.grad)
    optimizer.step()
    optimizer.zero_grad()
    return sum(
        not torch.allclose(optimizer.state[p]["momentum_buffer"], want, rtol=1e-5)
        for p, want in zip(trained, expected, strict=True)
    )


def classify(model: nn.Module, generator: torch.Generator) -> Tensor:
    images = torch.randn(2, 3, 32, 32, generator=generator)
    return nn.functional.cross_entropy(model(images), torch.randint(3, (2,), generator=generator))


def detect(model: nn.Module, generator: torch.Generator) -> Tensor:
    images = [torch.rand(3, 64, 64, generator=generator) for _ in range(2)]
    corners = torch.rand(2, 1, 2, generator=generator) * 24 + 4
    targets = [
        {"boxes": torch.cat([c, c + 30], 1), "labels": torch.ones(1, dtype=torch.int64)} for c in corners
    ]
    return torch.stack(list(model(images, targets).values())).sum()


def resnet() -> nn.Module:
    model = torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=3)
    model.fc.bias.requires_grad_(False)  # the user's own
    return model


def faster_rcnn() -> nn.Module:
    return torchvision.models.detection.fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=2,
        min_size=64,
        max_size=64,
        rpn_post_nms_top_n_train=20,
        box_roi_pool=torchvision.ops.MultiScaleRoIAlign(["0", "1"], output_size=1, sampling_ratio=1),
    )


def disagreement() -> str:
    """What begin_epoch says where each rank reports a value of its own."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    plateau = make_policy("plateau", patience=1, min_delta=0.5)
    schedule = FreezingSchedule(plateau, Freezer.of(model, ["0"]), 4, signals=["map50"])
    try:
        for epoch in range(4):
            schedule.begin_epoch(epoch)
            schedule.report(map50=float(epoch * dist.get_rank()))
    except TrainingError as error:
        return f"epoch {epoch}: {error}"
    return ""


def main(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/init", rank=rank, world_size=2)
    torch.manual_seed(rank)  # DDP itself makes the ranks' models equal
    stem = ["conv1", "bn1", "layer1"]
    body = [f"backbone.body.{k}" for k in range(17)]
    results = {
        "classifier": rounds(resnet(), [stem, "layer2", "layer3", "layer4"], classify, "step", 4, 2, rho=2),
        "detector": rounds(
            faster_rcnn(), [body[:4], body[4:7], body[7:]], detect, "multirate_step", 6, 1, rho=2, growth=1.5
        ),
        "wrapped once": rounds(resnet(), [stem, "layer2"], classify, "step", 4, 2, wrap_once=True, rho=2),
        "disagreement": disagreement(),
    }
    Path(folder, f"{rank}.json").write_text(json.dumps(results))
    dist.barrier()
    dist.destroy_process_group()
