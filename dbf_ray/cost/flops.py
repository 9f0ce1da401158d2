"""FLOPs of a training step, counted on the meta device: no data, no memory, the same on every machine.

Only what ``torch.utils.flop_counter`` knows is counted: convolutions, matrix products and attention, 2 FLOPs
for a multiply-add. Norms, activations, losses, assignment and the optimizer count nothing.

Why a correction is needed. Let F = 2 N prod(output pixels) prod(weight.shape) be the forward FLOPs of a
convolution (weight.shape has C_in / groups in it). Its backward is two products of the same size: the
gradient of the input and that of the weight, F each. torch (2.15 and before) writes the weight's gradient as
a convolution of the input, transposed to [C_in, N, ...], with the output's gradient as its weight, transposed
to [C_out, N, ...], and charges all C_in x C_out channel pairs for it, though only pairs within a group are
computed. That term comes out ``groups`` times too large, so backward / forward is 1 + groups instead of 2 (33
to 65 for depthwise layers of 32 to 64 channels). The input's gradient is counted right.
:func:`convolution_backward_flops` replaces the formula.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dbf_ray.errors import ConfigError


def convolution_backward_flops(
    grad_out_shape: Sequence[int],
    x_shape: Sequence[int],
    w_shape: Sequence[int],
    bias_shape: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
    output_mask: Sequence[bool],
    **_: Any,
) -> int:
    """FLOPs of ``aten.convolution_backward``: as many as the forward for each of the gradients of input and
    weight that is asked for.

    Shapes: grad_out [N, C_out, *out], x [N, C_in, *in], w [C_out, C_in / groups, *kernel], or [C_in, C_out /
    groups, *kernel] if transposed. The forward applies the kernel once for each output pixel, or for each
    input pixel if transposed.
    """
    pixels = math.prod((x_shape if transposed else grad_out_shape)[2:])
    forward = 2 * x_shape[0] * pixels * math.prod(w_shape)
    return forward * (int(output_mask[0]) + int(output_mask[1]))


def flop_counter() -> FlopCounterMode:
    """torch's counter with the corrected convolution backward; use as a context, then
    ``get_total_flops()``.
    """
    return FlopCounterMode(
        display=False, custom_mapping={torch.ops.aten.convolution_backward: convolution_backward_flops}
    )


def meta_copy(module: nn.Module) -> nn.Module:
    """A copy of ``module`` whose parameters and buffers have shapes and flags but no data. The module is not
    touched or copied in memory.
    """
    memo: dict[int, Any] = {}
    for parameter in module.parameters():
        memo[id(parameter)] = nn.Parameter(
            torch.empty_like(parameter, device="meta"), requires_grad=parameter.requires_grad
        )
    for buffer in module.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(module, memo)


@dataclass(frozen=True)
class StepFlops:
    """FLOPs of one image in one training step, forward and backward apart."""

    forward: int
    backward: int

    @property
    def total(self) -> int:
        """Forward plus backward."""
        return self.forward + self.backward


class FlopTable:
    """FLOPs per image of a detector for any padded size and frozen prefix, each counted once and kept.

    Works on a meta copy taken when it is made, and never touches the detector. Stages that a freezer holds
    frozen at that moment are counted as trainable. A frozen prefix n means max(n, backbone.always_frozen)
    stages under no_grad without gradients. Gradients that nobody needs are not counted: those of the images,
    and of what goes into the first trained stage.

    Args:
        detector: has ``backbone`` (a staged backbone) and ``network_outputs(images [B, 3, H, W]) -> tensors``
            that works on meta.
    """

    def __init__(self, detector: nn.Module) -> None:
        self._copy = meta_copy(detector).train()
        backbone: Any = self._copy.backbone
        for stage in backbone.stages[: backbone.num_frozen]:
            stage.requires_grad_(True)
        self._stages = [[p for p in stage.parameters() if p.requires_grad] for stage in backbone.stages]
        for module in self._copy.modules():
            if isinstance(module, nn.modules.batchnorm._NormBase):
                # a norm's mode costs no FLOPs; in train mode it may refuse one pixel or call for other ranks
                module.eval()
        self._steps: dict[tuple[int, int, int], StepFlops] = {}
        self._backbone: dict[tuple[int, int], list[int]] = {}

    def __call__(self, height: int, width: int, num_frozen: int) -> int:
        """Training FLOPs (forward and backward) of one image padded to ``height`` x ``width`` pixels."""
        return self.step(height, width, num_frozen).total

    @property
    def num_stages(self) -> int:
        """K, the number of stages."""
        return len(self._stages)

    def step(self, height: int, width: int, num_frozen: int) -> StepFlops:
        """FLOPs of one image with the first ``num_frozen`` stages frozen, forward and backward apart.

        Raises:
            ConfigError: ``num_frozen`` is not in 0..K.
        """
        if not 0 <= num_frozen <= self.num_stages:
            raise ConfigError(f"a frozen prefix must be in 0..{self.num_stages}, got {num_frozen}")
        backbone: Any = self._copy.backbone
        key = (height, width, max(num_frozen, backbone.always_frozen))
        if key not in self._steps:
            self._steps[key] = self._count(*key)
        return self._steps[key]

    def backbone_forward(self, height: int, width: int) -> int:
        """Forward FLOPs of the backbone alone for one image padded to ``height`` x ``width`` pixels."""
        return sum(self._stage_forwards(height, width))

    def prefix_forward(self, height: int, width: int, num_frozen: int) -> int:
        """Forward FLOPs of the first ``num_frozen`` stages alone, for one image padded to ``height`` x
        ``width`` pixels.
        """
        return sum(self._stage_forwards(height, width)[:num_frozen])

    def backbone_share(self, height: int, width: int) -> float:
        """b: the backbone's share of the forward FLOPs, 0..1."""
        return self.backbone_forward(height, width) / max(1, self.step(height, width, 0).forward)

    def prefix_shares(self, height: int, width: int) -> list[float]:
        """p of each prefix 0..K: the share of the backbone's forward FLOPs that is in its first n stages; K +
        1 numbers from 0 to 1.
        """
        forwards = self._stage_forwards(height, width)
        return [sum(forwards[:n]) / max(1, sum(forwards)) for n in range(self.num_stages + 1)]

    def _stage_forwards(self, height: int, width: int) -> list[int]:
        if (height, width) not in self._backbone:
            backbone: Any = self._copy.backbone
            features, forwards = _image(height, width), []
            for stage in backbone.stages:
                with flop_counter() as counter, torch.no_grad():
                    features = stage(features)
                forwards.append(counter.get_total_flops())
            self._backbone[height, width] = forwards
        return self._backbone[height, width]

    def feature_numbers(self, height: int, width: int, num_frozen: int) -> int:
        """How many numbers the rest of the network needs of the first ``num_frozen`` stages, of one image; 0
        for no stages.
        """
        if num_frozen == 0:
            return 0
        self._freeze(num_frozen)
        found = self._copy.backbone.frozen_features(_image(height, width))  # type: ignore[union-attr, operator]
        return sum(part.numel() for part in found.tensors())

    def _count(self, height: int, width: int, frozen: int) -> StepFlops:
        self._freeze(frozen)
        with flop_counter() as counter:
            outputs: list[Tensor] = self._copy.network_outputs(_image(height, width))  # type: ignore[operator]
        forward = counter.get_total_flops()
        with flop_counter() as counter:
            self._backward(outputs)
        self._copy.zero_grad(set_to_none=True)
        return StepFlops(forward, counter.get_total_flops())

    def _freeze(self, frozen: int) -> None:
        for index, parameters in enumerate(self._stages):
            for parameter in parameters:
                parameter.requires_grad_(index >= frozen)
        self._copy.backbone.num_frozen = frozen  # type: ignore[union-attr]

    @staticmethod
    def _backward(outputs: Sequence[Tensor]) -> None:
        losses = [out.sum() for out in outputs if out.requires_grad]
        if losses:
            torch.autograd.backward(losses)


def _image(height: int, width: int) -> Tensor:
    return torch.empty(1, 3, height, width, device="meta")
