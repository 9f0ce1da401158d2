"""What a training step needs in memory, known before training.

Weights, their copies and the network's activations are counted on the meta device. Assignment, sampling,
pooled regions and losses depend on values and cannot be: up to three images with many objects are run through
all that follows the backbone, on the CPU.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from dbf_ray.cost import FlopTable
from dbf_ray.cost.live_bytes import LiveBytes, nbytes
from dbf_ray.detectors import Detector
from dbf_ray.detectors.backbones import FrozenFeatures

OBJECTS = 100  # of an image in the rehearsal
# over what was rehearsed: which regions are pooled from which level moved it by 2 % where it was measured
MARGIN = 1.1
# Autocast on a GPU runs group and layer norms in float32: input, output and the output in bf16 are 10 bytes a
# number where float32 has 8.
FLOAT32_NORMS = 1.25


@dataclass(frozen=True)
class Rehearsal:
    """Bytes of tensors in what follows the backbone, of one micro-batch; see :func:`rehearse`.

    Attributes:
        prepared: of an image that is ready for the network, and its assignment.
        preparing: beyond these the most while images are made ready; of one image, two, three.
        running: beyond these and the backbone's features the most from the neck's forward to its backward
            pass; of one image, two, three.
    """

    prepared: int
    preparing: tuple[int, ...]
    running: tuple[int, ...]


def rehearse(detector: Detector, table: FlopTable, side: int, most_images: int = 3) -> Rehearsal:
    """Run steps of one to three images of ``side`` x ``side`` pixels with 100 objects each through what
    follows the backbone.

    Three, since memory is the larger of several sums: that of one image may be for what is done image by
    image, as suppression is. The backbone's features are random numbers. Neither the detector nor torch's
    global generators are touched.

    Args:
        detector: on any device.
        table: of it.
        side: in pixels, a multiple of 32.
        most_images: 1 or more; of fewer than three no more are run.
    """
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.default_generator.manual_seed(0)  # not torch.manual_seed, which seeds GPUs too
        copied = copy.deepcopy(detector).cpu()
        copied.backbone.requires_grad_(False)
        copied.backbone.num_frozen = copied.backbone.num_stages
        copied.train()
        one = table.features(side, side, copied.backbone.num_stages)
        prepared, preparing, running = zip(
            *(_rehearsed(copied, one, side, n) for n in range(1, min(3, most_images) + 1)), strict=True
        )
    return Rehearsal(prepared[0], preparing, running)


def _rehearsed(detector: Detector, one: FrozenFeatures, side: int, images: int) -> tuple[int, int, int]:
    """As :class:`Rehearsal` has them, for so many images."""
    pixels = [torch.randint(0, 256, (3, side, side), dtype=torch.uint8) for _ in range(images)]
    targets: list[dict[str, Any]] = []
    for index in range(images):
        middles, sides, angles = (
            torch.rand(OBJECTS, 2) * side,
            torch.rand(OBJECTS, 2) * side / 8 + 8,
            torch.rand(OBJECTS, 1) * 180 - 90,
        )
        labels = torch.randint(0, detector.num_classes, (OBJECTS,))
        targets.append({"boxes": torch.cat([middles, sides, angles], 1), "labels": labels, "seed": index})
    features = one.map(lambda part: torch.rand(images, *part.shape[1:]))
    with LiveBytes() as live:
        batch = replace(detector.prepare(pixels, targets, (side, side)), frozen=features)
        prepared, preparing = live.now, live.peak - live.now
        live.peak = live.now
        losses = detector(batch, detector.at_least(batch.normalizers))
        torch.stack(list(losses.values())).sum().backward()
        running = live.peak - prepared
    detector.zero_grad(set_to_none=True)
    return prepared, preparing, running


def extrapolated(measured: Sequence[int], images: int) -> int:
    """What was measured of 1, 2, ... images, for so many; beyond them along the line through the last two."""
    if images <= len(measured):
        return measured[images - 1]
    return measured[-1] + (images - len(measured)) * max(0, measured[-1] - measured[-2])


class StepMemory:
    """The most bytes of tensors that are alive on one rank in a training step.

    Eager, with all images of a micro-batch at once in the frozen stages, and activations in float32: under
    autocast they need less where it has no norms that stay in float32. Not in it: what operators use inside,
    what an allocator keeps, what adaptive policies' signals keep, objects beyond 100 an image.

    Args:
        detector: on any device.
        table: of it.
        side: of the square that images are padded to, in pixels.
        most_images: that a micro-batch may have.
        kept: copies of the weights that are there all the time: 1, and those of the optimizer and of an
            average.
        engine: frozen stages have a copy for inference.
        replicated: gradients have a copy for their all-reduce.
        low_precision: autocast keeps a copy of the trained weights in bf16 for a step.
    """

    def __init__(
        self,
        detector: Detector,
        table: FlopTable,
        side: int,
        *,
        most_images: int,
        kept: int,
        engine: bool,
        replicated: bool,
        low_precision: bool,
    ) -> None:
        self._table, self._side, self._always_frozen = table, side, detector.backbone.always_frozen
        self._rehearsal = rehearse(detector, table, side, most_images)
        self._weights = nbytes(detector.state_dict().values())
        self._stages = [nbytes(stage.state_dict().values()) for stage in detector.backbone.stages]
        self._kept, self._engine, self._of_trained = kept, engine, replicated + 0.5 * low_precision
        norms = any(isinstance(module, (nn.GroupNorm, nn.LayerNorm)) for module in detector.modules())
        self._activations = FLOAT32_NORMS if low_precision and norms else 1.0

    def __call__(self, prefix: int, images: int, micro_batches: int) -> int:
        """Bytes with ``prefix`` stages frozen, for a step of ``micro_batches`` with ``images`` in each."""
        table, side, rehearsal = self._table, self._side, self._rehearsal
        prefix = max(prefix, self._always_frozen)
        trained = self._weights - sum(self._stages[:prefix])  # gradients have the weights' size
        copies = (
            self._kept * self._weights
            + self._engine * (self._weights - trained)
            + round(self._of_trained * trained)
        )
        every_image = 3 * side**2 + rehearsal.prepared  # as it was loaded, and as it is ready
        earlier = (micro_batches > 1) * trained  # gradients of the micro-batches before
        # Both have a micro-batch's images once more than is there, which is a margin for what is counted.
        network = table.network_bytes(side, side, prefix, images)
        losses = table.backbone_bytes(side, side, prefix, images) + round(
            MARGIN * extrapolated(rehearsal.running, images)
        )
        running = round(self._activations * max(network, losses)) + earlier
        features = images * 4 * table.feature_numbers(side, side, prefix)  # of the last micro-batch
        update = features + 2 * trained  # gradients, and what an optimizer computes of all of them at once
        preparing = extrapolated(rehearsal.preparing, images)
        return copies + micro_batches * images * every_image + max(running, update, preparing)
