"""A frozen prefix as an inference engine: the same function of the images, in less time.

A prefix that is not trained needs no separate batch norms, little float32 and no care for a backward pass.
The engine is a copy: the backbone's own parameters and buffers are never touched, so there is nothing to undo
when the prefix is trained again, but to drop the copy.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import FunctionType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dbf_ray.detectors.backbones.folding import count_norms, folded, plain_norms
from dbf_ray.detectors.backbones.parts import NormedStage
from dbf_ray.detectors.backbones.staged import FrozenFeatures, StagedBackbone, image_by_image, run_stages
from dbf_ray.detectors.precision import no_autocast

Backend = str | Callable[..., object]


class PrefixEngine:
    """The first ``backbone.num_frozen`` stages for inference.

    Batch norms are folded into the convolutions before them, in float32 and before any rounding (see
    :func:`.folding.folded`). Weights lie in channels-last memory; in bf16, those of convolutions and linear
    layers are rounded once and run under autocast, while norms and sums stay in float32, as autocast has it,
    and so do the backbone's ``float32_stages`` altogether. It is no module, so a backbone that holds one
    keeps its parameters' names.

    Args:
        backbone: with its frozen prefix in force. Later changes of its weights are not seen.
        dtype: torch.bfloat16, or torch.float32.
        backend: of ``torch.compile``, which makes a graph for each shape of images; fewer images than the
            most so far are filled up with blank ones. None: not compiled.

    Attributes:
        folded: how many batch norms are gone.
        largest: the most images so far; where it is compiled, fewer are filled up to as many.
        revision: of its arithmetic; features that another revision gave are rounded otherwise.
    """

    revision = 3

    def __init__(
        self, backbone: StagedBackbone, dtype: torch.dtype = torch.float32, backend: Backend | None = None
    ) -> None:
        self.dtype = dtype
        self._read_from, self._goes_on = backbone.read_from, backbone.num_frozen < backbone.num_stages
        frozen = list(backbone.stages[: backbone.num_frozen])
        self._exact = 0 if dtype == torch.float32 else min(backbone.float32_stages, len(frozen))
        self._stages = list(self._copies(frozen))
        self.folded = sum(map(count_norms, frozen)) - sum(map(count_norms, self._stages))
        self._compiled, self.largest = None if backend is None else self._compile(backend), 0

    def refresh(self, backbone: StagedBackbone) -> None:
        """Take the backbone's weights as they are now, with the same stages frozen; what is compiled stays
        so.
        """
        for stage, copied in zip(
            self._stages, self._copies(backbone.stages[: len(self._stages)]), strict=True
        ):
            stage.load_state_dict(copied.state_dict())

    def tensors(self) -> list[Tensor]:
        """Its own weights and buffers."""
        return [tensor for stage in self._stages for tensor in stage.state_dict().values()]

    @torch.no_grad()
    def __call__(self, images: Tensor) -> FrozenFeatures:
        """What ``backbone.frozen_features(images)`` gives for images [B, 3, H, W], up to rounding.

        In the dtype that the engine computes in under a caller's autocast, else in the images' own.
        """
        mixed = torch.is_autocast_enabled(images.device.type)
        images = images.contiguous(memory_format=torch.channels_last)
        with self._precision(images.device):
            found = image_by_image(self._run, images)
        if not mixed:
            return found.map(lambda part: part.to(images.dtype))
        given = found.map(lambda part: part.to(self.dtype))
        outputs = (*given.outputs[: self._exact], *found.outputs[self._exact :])
        return FrozenFeatures(outputs, (given if 0 < len(self._stages) == self._exact else found).carried)

    def _copies(self, stages: Iterable[nn.Module]) -> Iterator[nn.Module]:
        return (
            exact_copy(stage) if number < self._exact else inference_copy(stage, self.dtype)
            for number, stage in enumerate(stages)
        )

    def _precision(self, device: torch.device) -> contextlib.AbstractContextManager[object]:
        if self.dtype != torch.bfloat16:
            return no_autocast(device)
        return torch.autocast(device.type, self.dtype, cache_enabled=False)

    def _run(self, images: Tensor) -> FrozenFeatures:
        if self._compiled is None:
            return run_stages(self._stages, images, self._read_from, self._goes_on)
        count = len(images)
        self.largest = max(self.largest, count)
        images = (
            F.pad(images, (0, 0, 0, 0, 0, 0, 0, self.largest - count)) if count < self.largest else images
        )
        found = self._compiled(self._stages, images, self._read_from, self._goes_on)
        return found.map(lambda part: part[:count])

    def _compile(self, backend: Backend) -> Callable[..., FrozenFeatures]:
        # A code object of its own, with which dynamo keeps its graphs: engines would else share one limit of
        # graphs, and go on uncompiled beyond it.
        name = f"run_stages_{len(self._stages)}_frozen"
        return torch.compile(
            FunctionType(run_stages.__code__.replace(co_name=name), run_stages.__globals__, name),
            backend=backend,
            dynamic=False,
        )


class Float32(nn.Module):
    """A module in float32, whatever autocast is in force."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, features: Tensor) -> Tensor:
        """The body's result for a map [B, C, H, W], in float32."""
        with no_autocast(features.device):
            return self.body(features.float())


def exact_copy(stage: nn.Module) -> nn.Module:
    """An :func:`inference_copy` in float32 that stays so under autocast."""
    if isinstance(stage, NormedStage):
        return NormedStage(exact_copy(stage.body), exact_copy(stage.norm))
    return Float32(inference_copy(stage, torch.float32).float())


def inference_copy(stage: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy of a stage in eval mode without gradients, its batch norms folded where that can be done."""
    if isinstance(stage, NormedStage):
        return NormedStage(inference_copy(stage.body, dtype), inference_copy(stage.norm, dtype))
    copied = plain_norms(copy.deepcopy(stage)).eval().requires_grad_(False)
    if count_norms(copied):
        try:
            copied = folded(copied)
        except Exception as error:  # whatever a module's own code makes of a tracer's stand-ins for tensors
            reason = " ".join(str(error).split())[:200]
            warnings.warn(f"batch norms of a {type(stage).__name__} are not folded: {reason}", stacklevel=2)
    if dtype == torch.bfloat16:
        for module in copied.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.to(dtype)
    return copied.to(memory_format=torch.channels_last)


def prefix_state(backbone: StagedBackbone) -> Sequence[Tensor]:
    """Parameters and buffers of the frozen prefix, all that its features depend on beside the images."""
    return [
        t for stage in backbone.stages[: backbone.num_frozen] for t in (*stage.parameters(), *stage.buffers())
    ]
