"""Batch norms of a network that is not trained, folded into its convolutions."""

from __future__ import annotations

from collections import Counter

import torch
from torch import nn
from torch.fx import GraphModule, Node, symbolic_trace
from torch.fx.experimental.optimization import fuse
from torch.nn.modules.batchnorm import _BatchNorm


def folded(module: nn.Module) -> nn.Module:
    """``module`` in eval mode with each batch norm folded into the convolution before it; its norms and convolutions may be written to.

    By torch.fx's ``fuse`` (Jacob et al. 2017, arXiv 1712.05877, eq. 14), after :func:`absorb_shifts`.

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
        convolutions = [reader for reader in readers if isinstance(reader, nn.Conv2d) and is_pointwise(reader)]
        if not isinstance(norm, _BatchNorm) or not norm.affine or not readers or len(convolutions) < len(readers):
            continue
        for convolution in convolutions:
            shift = convolution.weight.flatten(1).matmul(norm.bias)
            convolution.bias = nn.Parameter(shift if convolution.bias is None else convolution.bias + shift, requires_grad=False)
        norm.bias = nn.Parameter(torch.zeros_like(norm.bias), requires_grad=False)


def is_pointwise(convolution: nn.Conv2d) -> bool:
    """Whether it takes each pixel by itself, all its channels together; no border is padded."""
    return (*convolution.kernel_size, *convolution.padding, convolution.groups) == (1, 1, 0, 0, 1)


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
