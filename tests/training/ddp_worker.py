"""What test_ddp.py runs as each rank of a gloo group; it writes what it saw as JSON."""

from __future__ import annotations

import contextlib
import copy
import gc
import hashlib
import json
import weakref
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dbf_ray.detectors.backbones import StagedBackbone
from dbf_ray.detectors.norms import SyncBatchNorm2d, convert_sync_batchnorm
from dbf_ray.errors import TrainingError
from dbf_ray.freezing import Freezer
from dbf_ray.training.ddp import (
    DynamicDDP,
    all_reduce_sum,
    broadcast_object,
    equalize_norm_buffers,
    gather_objects,
    rank,
    world_size,
)

PREFIXES = [0, 3, 0, 2, 3, 3, 1, 0, 3, 0]
STEPS = 3
BATCH = 4  # images over all ranks and micro-batches


class Net(nn.Module):
    """Three stages (grouped convolution among them), a neck with a train-mode norm, two head branches."""

    def __init__(self, norm_eval: bool | str) -> None:
        super().__init__()

        def stage(inputs: int, outputs: int, groups: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(inputs, outputs, 3, 2, 1, groups=groups, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
            )

        self.backbone = StagedBackbone(
            [stage(3, 8, 1), stage(8, 8, 8), stage(8, 16, 2)],
            [8, 8, 16],
            [2, 4, 8],
            norm_eval=norm_eval is True,
        )
        self.neck = nn.Sequential(nn.Conv2d(16, 8, 1), nn.GroupNorm(2, 8))
        self.scores, self.boxes = nn.Conv2d(8, 2, 1), nn.Conv2d(8, 5, 1)
        if norm_eval == "sync":
            convert_sync_batchnorm(self)

    def forward(self, images: Tensor) -> Tensor:
        features = self.neck(self.backbone(images)[-1])
        return self.scores(features).square().mean() + (self.boxes(features) - 1).abs().mean()


def images(epoch: int, step: int) -> Tensor:
    generator = torch.Generator().manual_seed(1000 * epoch + step)
    return torch.randn(BATCH, 3, 32, 32, generator=generator) * (1 + torch.arange(BATCH).view(-1, 1, 1, 1))


def tensors(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def digest(named: dict[str, Tensor]) -> dict[str, str]:
    return {
        name: hashlib.sha256(t.detach().contiguous().numpy().tobytes()).hexdigest()[:16]
        for name, t in named.items()
    }


def optimizer_digest(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, str]:
    names = {id(p): name for name, p in model.named_parameters()}
    return {
        f"{names[id(p)]}.{key}": hashlib.sha256(value.numpy().tobytes()).hexdigest()[:16]
        for p, state in optimizer.state.items()
        for key, value in state.items()
        if isinstance(value, Tensor)
    }


def rounds(
    norm_eval: bool | str, optimizer_name: str, accumulation: int = 1, channels_last: bool = False
) -> dict[str, Any]:
    """Train through PREFIXES as the loop does; per epoch what moved, on every rank."""
    torch.manual_seed(0)
    model = Net(norm_eval)
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    freezer = Freezer(model.backbone)
    if optimizer_name == "sgd":
        optimizer: torch.optim.Optimizer = torch.optim.SGD(
            model.parameters(), lr=0.02, momentum=0.9, weight_decay=0.01
        )
    else:
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.002, weight_decay=0.05)
    ddp = DynamicDDP(model)
    epochs = []
    for epoch, prefix in enumerate(PREFIXES):
        changed = freezer.apply(prefix)
        if changed or epoch == 0:
            ddp.rebuild()
        before, states_before, bytes_before = (
            digest(tensors(model)),
            optimizer_digest(model, optimizer),
            ddp.allreduce_bytes,
        )
        model.train()
        for step in range(STEPS):
            one_step(ddp, optimizer, images(epoch, step), accumulation)
        unequal = len({json.dumps(row) for row in gather_objects(digest(dict(model.named_buffers())))}) > 1
        equalize_norm_buffers(model)
        after = digest(tensors(model))
        rows = gather_objects(after)
        frozen = {name for name in after for k in range(prefix) if name.startswith(f"backbone.stages.{k}.")}
        states_after = optimizer_digest(model, optimizer)
        epochs.append(
            {
                "prefix": prefix,
                "changed": changed,
                "differ_between_ranks": sorted(
                    {name for row in rows for name in after if row[name] != rows[0][name]}
                ),
                "buffers_differed_before_equalizing": unequal,
                "frozen_moved": sorted(name for name in frozen if before[name] != after[name]),
                "frozen_tensors": len(frozen),
                "trained_still": sorted(
                    n for n, p in model.named_parameters() if p.requires_grad and before[n] == after[n]
                ),
                "buffers_moved": sorted(n for n, _ in model.named_buffers() if before[n] != after[n]),
                "states_lost": sorted(set(states_before) - set(states_after)),
                "frozen_states_moved": sorted(
                    key
                    for key in states_before
                    if key.rpartition(".")[0] in frozen and states_before[key] != states_after.get(key)
                ),
                "bytes": ddp.allreduce_bytes - bytes_before,
                "trained_bytes": sum(
                    p.numel() * p.element_size() for p in model.parameters() if p.requires_grad
                ),
            }
        )
    return {
        "epochs": epochs,
        "rebuilds": ddp.rebuilds,
        "weights": {n: t.flatten().tolist() for n, t in tensors(model).items()},
    }


def one_step(ddp: DynamicDDP, optimizer: torch.optim.Optimizer, batch: Tensor, accumulation: int) -> None:
    micro_batches = batch.chunk(accumulation)
    for number, micro in enumerate(micro_batches):
        share = micro.chunk(world_size())[rank()]
        with ddp.no_sync() if number < len(micro_batches) - 1 else contextlib.nullcontext():
            (ddp(share) / accumulation).backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def refusal(act: Any) -> str:
    try:
        act()
    except TrainingError as error:
        return str(error)
    return ""


def disagreements() -> dict[str, Any]:
    """What rebuild says on every rank when rank 1 has gone its own way."""
    torch.manual_seed(0)
    model = Net(True)
    freezer = Freezer(model.backbone)
    ddp = DynamicDDP(model)
    ddp.rebuild()
    seen = {"agreed": refusal(ddp.rebuild)}
    freezer.apply(3 if rank() == 1 else 1)
    seen["stale_call"] = refusal(lambda: ddp(images(0, 0)))
    seen["trained_set"] = refusal(ddp.rebuild)
    freezer.apply(1)
    kept = model.backbone.stages[0][1].running_mean.clone()
    if rank() == 1:
        model.backbone.stages[0][1].running_mean[3] += 1e-3
    seen["buffer"] = refusal(ddp.rebuild)
    model.backbone.stages[0][1].running_mean.copy_(kept)
    if rank() == 1:
        with torch.no_grad():
            model.boxes.weight[0, 0] *= 1.0001
    seen["parameter"] = refusal(ddp.rebuild)
    other = DynamicDDP(nn.Linear(2 + rank(), 2))
    seen["shape"] = refusal(other.rebuild)
    return seen


def first_build() -> dict[str, Any]:
    """Ranks that start apart: the first rebuild gives all of them rank 0's parameters and buffers."""
    torch.manual_seed(rank())
    model = Net(False).to(memory_format=torch.channels_last)
    model.backbone.stages[0][1].running_mean.fill_(rank() + 1.0)
    own = digest(tensors(model))
    DynamicDDP(model).rebuild()
    return {
        "rank0_before": broadcast_object(own),
        "apart": len({json.dumps(r) for r in gather_objects(own)}),
        "after": digest(tensors(model)),
    }


def many_rebuilds() -> dict[str, Any]:
    """Freeze, rebuild and step many times: no old wrapper, reducer or hook survives."""
    torch.manual_seed(0)
    model = Net(True)
    freezer, ddp = Freezer(model.backbone), DynamicDDP(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    old: list[weakref.ref[nn.Module]] = []
    live = []
    for number in range(60):
        freezer.apply((0, 3)[number % 2])
        ddp.rebuild()
        before = ddp.allreduce_bytes
        one_step(ddp, optimizer, images(0, number), 1)
        assert ddp.allreduce_bytes - before == sum(
            p.numel() * 4 for p in model.parameters() if p.requires_grad
        )
        old.append(weakref.ref(ddp._wrapped))
        live.append(
            sum(type(o) is nn.parallel.DistributedDataParallel for o in gc.get_objects())
            if number in (9, 59)
            else 0
        )
    return {
        "alive": sum(ref() is not None for ref in old),
        "ddp_objects": [live[9], live[59]],
        "rebuilds": ddp.rebuilds,
    }


def relative_error(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max().clamp(min=1e-3))


def sync_norm() -> dict[str, Any]:
    """SyncBatchNorm2d on unequal shares of a batch against one-process BatchNorm2d on all of it."""
    results = {}
    for name, momentum, affine in (("affine", 0.1, True), ("plain", 0.1, False), ("cumulative", None, True)):
        torch.manual_seed(3)
        plain = nn.BatchNorm2d(5, momentum=momentum, affine=affine)
        if affine:
            nn.init.normal_(plain.weight)
            nn.init.normal_(plain.bias)
        synced = SyncBatchNorm2d(5, momentum=momentum, affine=affine)
        synced.load_state_dict(plain.state_dict())
        errors: dict[str, float] = {}
        for step in range(3):
            batch = (
                torch.randn(5, 5, 6, 7, generator=torch.Generator().manual_seed(step)) * 3 + 40 * step
            ).requires_grad_()
            weights = torch.randn(5, 5, 6, 7, generator=torch.Generator().manual_seed(9 + step))
            whole = plain(batch)
            (whole * weights).sum().backward()
            shares = torch.arange(5).split([3, 2])[rank()] if world_size() == 2 else torch.arange(5)
            part = batch.detach()[shares].requires_grad_()
            out = synced(part)
            (out * weights[shares]).sum().backward()
            pairs = {"out": (out, whole[shares]), "input_grad": (part.grad, batch.grad[shares])}
            pairs["mean"], pairs["var"] = (
                (synced.running_mean, plain.running_mean),
                (synced.running_var, plain.running_var),
            )
            if affine:
                pairs["weight_grad"] = (all_reduce_sum(synced.weight.grad.clone()), plain.weight.grad)
                pairs["bias_grad"] = (all_reduce_sum(synced.bias.grad.clone()), plain.bias.grad)
            for key, (a, b) in pairs.items():
                errors[key] = max(errors.get(key, 0.0), relative_error(a.detach(), b.detach()))
            synced.zero_grad()
            plain.zero_grad()
        with torch.no_grad():
            # in eval mode no collective: unequal calls must not hang
            batch = torch.randn(2 + rank(), 5, 4, 4)
            errors["eval"] = (
                float((synced.eval()(batch) - plain.eval()(batch)).abs().max()) if rank() == 0 else 0.0
            )
        results[name] = errors
    return results


def equal_values() -> dict[str, Any]:
    """Norm buffers on which ranks agree, and one on which they do not."""
    norm = nn.BatchNorm2d(64)
    norm.running_mean.copy_(torch.rand(64, generator=torch.Generator().manual_seed(1)) * 0.1)
    norm.running_var.copy_(torch.full((64,), 1.0 + rank()))
    kept = norm.running_mean.clone()
    equalize_norm_buffers(norm)
    return {
        "kept": torch.equal(kept, norm.running_mean),
        "mean_of_others": norm.running_var.unique().tolist(),
    }


def own_buffers() -> dict[str, Any]:
    """Train-mode norms see this rank's images only: nobody overwrites its buffers between two equalisings."""
    torch.manual_seed(0)
    model = Net(False)
    alone = copy.deepcopy(model)
    ddp = DynamicDDP(model)
    ddp.rebuild()
    for step in range(3):
        share = images(0, step).chunk(world_size())[rank()]
        ddp(share)
        alone(share)
    return {"as_alone": digest(dict(model.named_buffers())) == digest(dict(alone.named_buffers()))}


def every_mode() -> dict[str, Any]:
    """What one process can do as well as several."""
    results: dict[str, Any] = {}
    for norm_eval in (True, False, "sync"):
        for optimizer in ("sgd", "adamw"):
            results[f"rounds-{norm_eval}-{optimizer}"] = rounds(norm_eval, optimizer)
    results["rounds-True-sgd-accumulated"] = rounds(True, "sgd", accumulation=2)
    results["rounds-True-adamw-channels_last"] = rounds(True, "adamw", channels_last=True)
    results["sync_norm"], results["equal_values"] = sync_norm(), equal_values()
    return results


def main(own_rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/init", rank=own_rank, world_size=2)
    torch.manual_seed(0)
    results: dict[str, Any] = {
        "rank": rank(),
        "world": world_size(),
        "broadcast": broadcast_object({"from": own_rank}),
    }
    results["sum"] = all_reduce_sum(torch.tensor([own_rank + 1.0])).tolist()
    results["gathered"] = gather_objects(2**70 + own_rank)
    results.update(every_mode())
    results["disagreements"], results["first_build"] = disagreements(), first_build()
    results["many_rebuilds"], results["own_buffers"] = many_rebuilds(), own_buffers()
    Path(folder, f"{own_rank}.json").write_text(json.dumps(results))
    dist.barrier()
    dist.destroy_process_group()
