"""A tiny model and a witness of its trainings."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import torch
from torch import Tensor, nn

STAGES = ["first", "second"]


class Tiny(nn.Module):
    """Two stages with train-mode norms and dropout, and a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(4, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.second(self.first(images))
        return self.head(features.mean((2, 3)))


def data(batches: int) -> tuple[Tensor, Tensor]:
    """Images and labels of batches of four, all alike: a trainer that resumes may skip some or not."""
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return images.repeat(batches, 1, 1, 1), (torch.arange(4) % 2).repeat(batches)


def bits(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


class Watch:
    """Called before each step: what is trained in each epoch, and what stood still in it.

    Attributes:
        trained: of each epoch, how many of the two stages.
    """

    def __init__(self) -> None:
        self.trained: list[int] = []
        self._epochs: list[tuple[int, dict[str, Tensor], set[str], dict[int, Tensor]]] = []

    def __call__(self, epoch: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        grouped = {id(p) for group in optimizer.param_groups for p in group["params"]}
        assert all(id(p) in grouped for p in model.parameters())
        if not self._epochs or self._epochs[-1][0] != epoch:
            frozen = {
                name for name in STAGES if not any(p.requires_grad for p in getattr(model, name).parameters())
            }
            assert all(not m.training for name in frozen for m in getattr(model, name).modules())
            self.trained.append(2 - len(frozen))
            momenta = {
                id(p): s["momentum_buffer"].clone()
                for p, s in optimizer.state.items()
                if "momentum_buffer" in s
            }
            self._epochs.append((epoch, bits(model), frozen, momenta))

    def check(self, model: nn.Module) -> None:
        """Frozen stages stood still bit for bit in their epochs, norm statistics too; all else moved."""
        assert len(self._epochs[-1][3]) == len(list(model.parameters()))
        after = [row[1] for row in self._epochs[1:]] + [bits(model)]
        for (_, before, frozen, _), now in zip(self._epochs, after, strict=True):
            still = {name for name in before if torch.equal(before[name], now[name])}
            assert still == {name for name in before if name.split(".")[0] in frozen}, (frozen, still)
        for k in range(1, len(self._epochs)):  # momentum waits
            owners = {id(p): name.split(".")[0] for name, p in model.named_parameters()}
            for key, value in self._epochs[k - 1][3].items():
                if owners[key] in self._epochs[k - 1][2]:
                    assert torch.equal(value, self._epochs[k][3][key])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def join_ranks(rank: int, port: int) -> None:
    """Tell a trainer that this process is one of two that something else has started, as torchrun does."""
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "NODE_RANK": 0, "WORLD_SIZE": 2, "MASTER_PORT": port}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", **{name: str(value) for name, value in ranks.items()}}


def keep(folder: Path, name: str, model: nn.Module) -> None:
    torch.save({key: p.detach() for key, p in model.named_parameters()}, folder / f"{name}.pt")


def check_alike(folder: Path, names: list[str]) -> None:
    """Parameters that :func:`keep` kept are the same bits, and not those that training began with."""
    first, *others = (torch.load(folder / f"{name}.pt", weights_only=True) for name in names)
    for other in others:
        assert all(torch.equal(value, other[key]) for key, value in first.items())
    begun = dict(Tiny().named_parameters())
    assert not any(torch.equal(value, begun[key]) for key, value in first.items())
