"""A frozen prefix as an inference engine: the same function of the images, in less time.

A prefix that is not trained needs no separate batch norms, no float32 and no care for a backward pass. The engine is a copy: the backbone's own
parameters and buffers are never touched, so there is nothing to undo when the prefix is trained again, but to drop the copy.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from types import FunctionType

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node, symbolic_trace
from torch.fx.experimental.optimization import fuse
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from dbf_ray.detectors.backbones.parts import NormedStage
from dbf_ray.detectors.backbones.staged import FrozenFeatures, StagedBackbone, image_by_image, run_stages
from dbf_ray.detectors.precision import no_autocast

Backend = str | Callable[..., object]


class PrefixEngine:
    """The first ``backbone.no_grad_stages`` stages for inference.

    Batch norms are folded into the convolutions before them (torch.fx's ``fuse``; Jacob et al. 2017, arXiv 1712.05877, eq. 14), in float32 and before
    any rounding. Weights lie in channels-last memory; in bf16, those of convolutions and linear layers are rounded once and run under autocast, while
    norms and sums stay in float32, as autocast has it. It is no module, so a backbone that holds one keeps its parameters' names.

    Args:
        backbone: with its frozen prefix in force. Later changes of its weights are not seen.
        dtype: torch.bfloat16, or torch.float32.
        backend: of ``torch.compile``, which makes a graph for each shape of images; fewer images than the most so far are filled up with blank
            ones. None: not compiled.

    Attributes:
        folded: how many batch norms are gone.
    """

    def __init__(self, backbone: StagedBackbone, dtype: torch.dtype = torch.float32, backend: Backend | None = None) -> None:
        self.dtype = dtype
        self._read_from, self._goes_on = backbone.read_from, backbone.no_grad_stages < backbone.num_stages
        frozen = list(backbone.stages[: backbone.no_grad_stages])
        self._stages = [inference_copy(stage, dtype) for stage in frozen]
        self.folded = sum(map(count_norms, frozen)) - sum(map(count_norms, self._stages))
        self._compiled, self._largest = None if backend is None else self._compile(backend), 0

    def refresh(self, backbone: StagedBackbone) -> None:
        """Take the backbone's weights as they are now, with the same stages frozen; what is compiled stays so."""
        for stage, trained in zip(self._stages, backbone.stages, strict=False):
            stage.load_state_dict(inference_copy(trained, self.dtype).state_dict())

    @torch.no_grad()
    def __call__(self, images: Tensor) -> FrozenFeatures:
        """What ``backbone.frozen_features(images)`` gives for images [B, 3, H, W], up to rounding.

        In the dtype that the engine computes in under a caller's autocast, else in the images' own.
        """
        mixed = torch.is_autocast_enabled(images.device.type)
        images = images.contiguous(memory_format=torch.channels_last)
        with self._precision(images.device):
            found = image_by_image(self._run, images)
        return found if mixed else [None if part is None else part.to(images.dtype) for part in found]

    def _precision(self, device: torch.device) -> contextlib.AbstractContextManager[object]:
        if self.dtype != torch.bfloat16:
            return no_autocast(device)
        return torch.autocast(device.type, self.dtype, cache_enabled=False)

    def _run(self, images: Tensor) -> FrozenFeatures:
        if self._compiled is None:
            return run_stages(self._stages, images, self._read_from, self._goes_on)
        count = len(images)
        self._largest = max(self._largest, count)
        images = F.pad(images, (0, 0, 0, 0, 0, 0, 0, self._largest - count)) if count < self._largest else images
        found = self._compiled(self._stages, images, self._read_from, self._goes_on)
        return [None if part is None else part[:count] for part in found]

    def _compile(self, backend: Backend) -> Callable[..., FrozenFeatures]:
        # A code object of its own, with which dynamo keeps its graphs: engines would else share one limit of graphs, and go on uncompiled beyond it.
        name = f"run_stages_{len(self._stages)}_frozen"
        return torch.compile(
            FunctionType(run_stages.__code__.replace(co_name=name), run_stages.__globals__, name), backend=backend, dynamic=False
        )


def inference_copy(stage: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy of a stage in eval mode without gradients, its batch norms folded where its graph can be traced."""
    if isinstance(stage, NormedStage):
        return NormedStage(inference_copy(stage.body, dtype), inference_copy(stage.norm, dtype))
    copied = plain_norms(copy.deepcopy(stage)).eval().requires_grad_(False)
    if count_norms(copied):
        try:
            copied = folded(copied)
        except Exception as error:  # whatever a module's own code makes of a tracer's stand-ins for tensors
            reason = " ".join(str(error).split())[:200]
            warnings.warn(f"batch norms of a {type(stage).__name__} are not folded, its graph cannot be traced: {reason}", stacklevel=2)
    if dtype == torch.bfloat16:
        for module in copied.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.to(dtype)
    return copied.to(memory_format=torch.channels_last)


def folded(module: nn.Module) -> nn.Module:
    """``module`` with each batch norm folded into the convolution before it, as torch.fx's ``fuse`` does; its convolutions may be written to.

    Raises:
        ValueError: a convolution or norm is used more than once, so that it cannot take another's place.
    """
    graph = symbolic_trace(module)
    used = Counter(node.target for node in graph.graph.nodes if node.op == "call_module")
    for name, times in used.items():
        if times > 1 and isinstance(graph.get_submodule(str(name)), _BatchNorm | nn.Conv2d):
            raise ValueError(f"{name} is used {times} times")
    absorb_shifts(graph)
    return fuse(module, inplace=True)


@torch.no_grad()
def absorb_shifts(graph: GraphModule) -> None:
    """Move each batch norm's shift into the bias of the convolutions after it, where these are 1 x 1 and nothing else reads the norm.

    The same function: W (x + s) = W x + W s. But the maps between are centred about zero, so that low precision rounds what varies in them, not what
    is constant: the norm of MobileNetV2's first block gives maps 40 times as far from zero as they vary, and where they are rounded as they are, the
    next block is off by half. After Nagel et al. 2019, arXiv 1906.04721, section 4.1.3, where nothing is nonlinear between the two.
    """

    def module(node: Node) -> nn.Module | None:
        return graph.get_submodule(str(node.target)) if node.op == "call_module" else None

    for node in graph.graph.nodes:
        norm, readers = module(node), [module(user) for user in node.users]
        if not isinstance(norm, _BatchNorm) or not norm.affine or not readers or not all(map(is_pointwise, readers)):
            continue
        for conv in readers:
            add = conv.weight.flatten(1).matmul(norm.bias)
            conv.bias = nn.Parameter(add if conv.bias is None else conv.bias + add, requires_grad=False)
        norm.bias = nn.Parameter(torch.zeros_like(norm.bias), requires_grad=False)


def is_pointwise(module: nn.Module | None) -> bool:
    """Whether it is a convolution of each pixel by itself, of all channels together: borders are not padded."""
    return isinstance(module, nn.Conv2d) and (*module.kernel_size, *module.padding, module.groups) == (1, 1, 0, 0, 1)


def plain_norms(module: nn.Module) -> nn.Module:
    """``module`` with batch norms over ranks replaced by torch's plain one, which in eval mode is the same function; children in place."""
    if isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm) and type(module) is not nn.BatchNorm2d:
        norm = nn.BatchNorm2d(module.num_features, module.eps, module.momentum, affine=False)
        norm.affine, norm.weight, norm.bias = module.affine, module.weight, module.bias
        norm.running_mean, norm.running_var = module.running_mean, module.running_var
        return norm
    for name, child in module.named_children():
        setattr(module, name, plain_norms(child))
    return module


def count_norms(module: nn.Module) -> int:
    """How many batch norms are in a module."""
    return sum(isinstance(part, _BatchNorm) for part in module.modules())


def prefix_state(backbone: StagedBackbone) -> Sequence[Tensor]:
    """Parameters and buffers of the frozen prefix, all that its features depend on beside the images."""
    return [t for stage in backbone.stages[: backbone.no_grad_stages] for t in (*stage.parameters(), *stage.buffers())]
