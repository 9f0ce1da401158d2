"""What a training step needs in memory, known before training.

Weights, their copies and the network's activations are counted on the meta device. Assignment, sampling, pooled regions and losses depend on
values and cannot be: one, two and three images with many objects are run through all that is not the backbone, on the CPU.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import torch

from dbf_ray.cost import FlopTable
from dbf_ray.cost.live_bytes import LiveBytes, nbytes
from dbf_ray.detectors import Detector

OBJECTS = 100  # of an image in the rehearsal
MARGIN = 1.1  # over what was rehearsed: which regions are pooled from which level moved it by 2 % where it was measured


@dataclass(frozen=True)
class Rehearsal:
    """Bytes of tensors in what follows the backbone, of one micro-batch; see :func:`rehearse`.

    Attributes:
        prepared: of an image that is ready for the network, and its assignment.
        preparing: the most while it is made ready.
        most_of: the most from the neck's forward to its backward pass, of one image, two, and three.
    """

    prepared: int
    preparing: int
    most_of: tuple[int, int, int]

    def most(self, images: int) -> int:
        """Bytes from the neck's forward to its backward pass for so many images, with a tenth for what depends on values."""
        one, two, three = self.most_of
        return round(MARGIN * (one if images == 1 else two + max(0, three - two) * (images - 2)))


def rehearse(detector: Detector, side: int) -> Rehearsal:
    """Run steps of one to three images of ``side`` x ``side`` pixels with 100 objects each through all but the backbone.

    Three, since memory is the larger of several sums: that of one image may be for what is done image by image, as suppression is.

    The detector is not touched, nor torch's global generator.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        copied = copy.deepcopy(detector).cpu().train()
        copied.backbone.requires_grad_(False)
        copied.backbone.no_grad_stages = copied.backbone.num_stages
        (prepared, preparing, one), (_, _, two), (_, _, three) = (_rehearsed(copied, side, images) for images in (1, 2, 3))
    return Rehearsal(prepared, preparing, (one, two, three))


def _rehearsed(detector: Detector, side: int, images: int) -> tuple[int, int, int]:
    """Bytes of a micro-batch that is ready; the most before; and the most after, beyond it and the backbone's features."""
    pixels = [torch.randint(0, 256, (3, side, side), dtype=torch.uint8) for _ in range(images)]
    targets: list[dict[str, Any]] = []
    for index in range(images):
        middles, sides, angles = torch.rand(OBJECTS, 2) * side, torch.rand(OBJECTS, 2) * side / 8 + 8, torch.rand(OBJECTS, 1) * 180 - 90
        labels = torch.randint(0, detector.num_classes, (OBJECTS,))
        targets.append({"boxes": torch.cat([middles, sides, angles], 1), "labels": labels, "seed": index})
    with LiveBytes() as live:
        batch = detector.prepare(pixels, targets, (side, side))
        prepared, preparing = live.now, live.peak
        batch = replace(batch, frozen=detector.backbone.frozen_features(batch.images))
        before = live.peak = live.now
        losses = detector(batch, detector.at_least(batch.normalizers))
        torch.stack(list(losses.values())).sum().backward()
        most = live.peak - before
    detector.zero_grad(set_to_none=True)
    return prepared, preparing, most


class StepMemory:
    """The most bytes of tensors that are alive on one rank in a training step.

    In float32 and eager, with all images of a micro-batch at once in the frozen stages. Not in it: what operators use inside, what an allocator
    keeps, what adaptive policies' signals keep, objects beyond 100 an image.

    Args:
        detector: on any device.
        table: of it.
        side: of the square that images are padded to, in pixels.
        kept: copies of the weights that are there all the time: 1, and those of the optimizer and of an average.
        engine: frozen stages have a copy for inference.
        replicated: gradients have a copy for their all-reduce.
        low_precision: autocast keeps a copy of the trained weights in bf16 for a step.
    """

    def __init__(
        self, detector: Detector, table: FlopTable, side: int, *, kept: int, engine: bool, replicated: bool, low_precision: bool
    ) -> None:
        self._table, self._side, self._always_frozen = table, side, detector.backbone.frozen_stages
        self._rehearsal = rehearse(detector, side)
        self._weights = nbytes(detector.state_dict().values())
        self._stages = [nbytes(stage.state_dict().values()) for stage in detector.backbone.stages]
        self._kept, self._engine, self._of_trained = kept, engine, replicated + 0.5 * low_precision

    def __call__(self, prefix: int, images: int, micro_batches: int) -> int:
        """Bytes with ``prefix`` stages frozen, for a step of ``micro_batches`` with ``images`` in each."""
        table, side, rehearsal = self._table, self._side, self._rehearsal
        prefix = max(prefix, self._always_frozen)
        trained = self._weights - sum(self._stages[:prefix])  # gradients have the weights' size
        copies = self._kept * self._weights + self._engine * (self._weights - trained) + round(self._of_trained * trained)
        network = table.network_bytes(side, side, prefix, images) + (micro_batches > 1) * trained
        losses = table.backbone_bytes(side, side, prefix, images) + rehearsal.most(images) + (micro_batches > 1) * trained
        update = 2 * trained  # gradients, and what an optimizer computes of all of them at once
        return copies + micro_batches * images * rehearsal.prepared + max(network, losses, update, rehearsal.preparing)
