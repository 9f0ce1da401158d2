"""A backbone as ordered stages, of which leading ones can run without gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dbf_ray.detectors.backbones.parts import NormedStage
from dbf_ray.detectors.precision import uncached_autocast


@dataclass(frozen=True)
class FrozenFeatures:
    """All that the rest of a network needs of the n frozen stages: maps [B, C, H, W].

    Attributes:
        outputs: each of the n stages' output; None where nobody reads it, and for the last where a stage
            follows: it is ``carried``, or follows from it.
        carried: what the next stage takes, None where there is none. For n = 0 the images.
    """

    outputs: tuple[Tensor | None, ...]
    carried: Tensor | None

    def tensors(self) -> list[Tensor]:
        """The maps that there are, in order."""
        return [part for part in (*self.outputs, self.carried) if part is not None]

    def map(self, function: Callable[[Tensor], Tensor]) -> FrozenFeatures:
        """The same with ``function`` applied to each map that there is, in the order of :meth:`tensors`."""
        outputs = tuple(None if part is None else function(part) for part in self.outputs)
        return FrozenFeatures(outputs, None if self.carried is None else function(self.carried))

    def filled(self, tensors: Iterable[Tensor]) -> FrozenFeatures:
        """The same with other maps, as many as :meth:`tensors` has."""
        left = iter(tensors)
        return self.map(lambda _: next(left))


class StagedBackbone(nn.Module):
    """A backbone cut into K ordered stages.

    Args:
        stages: the stages in forward order; stage k takes what stage k-1 gives. A :class:`NormedStage` gives
            the next stage its plain map.
        out_channels: channels of each stage's output.
        strides: stride in pixels of each stage's output.
        norm_eval: keep all batch norms in eval mode (running statistics), also while training. Layer norms
            have no mode.
        always_frozen: leading stages that are never trained; a :class:`dbf_ray.freezing.Freezer` sees to it.
        float32_stages: leading stages that an inference engine in bf16 runs in float32, since the stages
            after them magnify what rounding does there.

    Attributes:
        num_frozen: leading stages that forward runs under ``torch.no_grad()`` and that stay in eval mode
            (norms and drop-path are still) whatever ``train()`` is called with. 0 unless somebody sets it.
        read_from: 0-based stage from which on outputs are read. Those of frozen stages before it are not
            kept.
    """

    def __init__(
        self,
        stages: Sequence[nn.Module],
        out_channels: Sequence[int],
        strides: Sequence[int],
        *,
        norm_eval: bool = True,
        always_frozen: int = 0,
        float32_stages: int = 0,
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.out_channels, self.strides = list(out_channels), list(strides)
        self.norm_eval = norm_eval
        self.always_frozen, self.float32_stages = always_frozen, float32_stages
        self.num_frozen = 0
        self.read_from = 0
        self.train()

    def output_parameters(self, stages: int) -> list[nn.Parameter]:
        """Parameters that only the outputs of the first ``stages`` stages use: their norms, where they have
        one.
        """
        return [
            p
            for stage in self.stages[:stages]
            if isinstance(stage, NormedStage)
            for p in stage.norm.parameters()
        ]

    @property
    def num_stages(self) -> int:
        """K, the number of stages."""
        return len(self.stages)

    def forward(self, images: Tensor, frozen: FrozenFeatures | None = None) -> list[Tensor]:
        """Feature maps [B, out_channels[k], ceil(H / strides[k]), ceil(W / strides[k])] of every stage, for
        images [B, 3, H, W].

        Args:
            images: normalised.
            frozen: the frozen stages' features, where somebody has them already; these stages are not run
                then.

        Returns:
            A map for each stage; None where ``frozen`` has none and it does not follow from it.
        """
        given = self._frozen_together(images) if frozen is None else frozen
        outputs, features = list(given.outputs), given.carried
        if outputs and features is not None:
            with torch.no_grad(), uncached_autocast(features.device):
                outputs[-1] = stage_output(self.stages[self.num_frozen - 1], features)
        for stage in self.stages[self.num_frozen :]:
            features = stage(features)
            outputs.append(stage_output(stage, features))
        return outputs  # type: ignore[return-value]

    @torch.no_grad()
    def frozen_features(self, images: Tensor) -> FrozenFeatures:
        """What the frozen stages give for images [B, 3, H, W], under the autocast in force; see
        :func:`image_by_image`.
        """
        stages = list(self.stages[: self.num_frozen])
        if not stages:
            return FrozenFeatures((), images)
        with uncached_autocast(images.device):
            return image_by_image(
                lambda part: run_stages(stages, part, self.read_from, self.num_frozen < self.num_stages),
                images,
            )

    @torch.no_grad()
    def _frozen_together(self, images: Tensor) -> FrozenFeatures:
        """The same with the output of every stage, for all images at once, as the stages that follow run."""
        stages = list(self.stages[: self.num_frozen])
        with uncached_autocast(images.device):
            return run_stages(stages, images, 0, self.num_frozen < self.num_stages)

    def train(self, mode: bool = True) -> StagedBackbone:
        """As ``nn.Module.train``, but frozen stages stay in eval mode, and with ``norm_eval`` so do all batch
        norms.
        """
        super().train(mode)
        for stage in self.stages[: self.num_frozen]:
            stage.eval()
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self


def run_stages(stages: Sequence[nn.Module], images: Tensor, read_from: int, goes_on: bool) -> FrozenFeatures:
    """The features of leading stages; ``goes_on`` says whether another stage follows them."""
    features, outputs = images, []
    for number, stage in enumerate(stages):
        features = stage(features)
        derived = goes_on and number == len(stages) - 1
        outputs.append(stage_output(stage, features) if number >= read_from and not derived else None)
    return FrozenFeatures(tuple(outputs), features if goes_on else None)


def stage_output(stage: nn.Module, features: Tensor) -> Tensor:
    """A stage's output for what its forward gave."""
    return stage.output(features) if isinstance(stage, NormedStage) else features


def image_by_image(run: Callable[[Tensor], FrozenFeatures], images: Tensor) -> FrozenFeatures:
    """``run`` for images [B, 3, H, W], on a CPU one at a time.

    There it needs the memory of one image, is no slower, and an image's features have the same bits in any
    company: kernels choose their order of summation by the batch. On a GPU, and when being compiled, all at
    once.
    """
    if images.device.type != "cpu" or torch.compiler.is_compiling():
        return run(images)
    joined = None
    for index in range(len(images)):
        found = run(images[index : index + 1])
        joined = joined or found.map(lambda part: empty_batch(part[0], len(images)))
        for whole, part in zip(joined.tensors(), found.tensors(), strict=True):
            whole[index] = part[0]
    return joined or run(images)


def empty_batch(one: Tensor, count: int, dtype: torch.dtype | None = None) -> Tensor:
    """Room for ``count`` maps like ``one`` [C, H, W], [count, C, H, W], in channels-last memory if ``one``
    is.
    """
    last = one.permute(1, 2, 0).is_contiguous() and not one.is_contiguous()
    layout = torch.channels_last if last else torch.contiguous_format
    return torch.empty((count, *one.shape), dtype=dtype or one.dtype, device=one.device, memory_format=layout)
