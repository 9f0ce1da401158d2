"""Batch norms of a network that is not trained, folded into its convolutions."""

from __future__ import annotations

import copy
from collections import Counter

import torch
from torch import nn
from torch.fx import GraphModule, Node, symbolic_trace
from torch.fx.experimental.optimization import fuse
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from dbf_ray.detectors.norms import SyncBatchNorm2d


def folded(module: nn.Module) -> nn.Module:
    """A copy of ``module``, which is in eval mode, with each batch norm folded into the convolution before
    it.

    By torch.fx's ``fuse`` (Jacob et al. 2017, arXiv 1712.05877, eq. 14), after :func:`absorb_shifts`.

    Raises:
        ValueError: something is done with a convolution, linear layer or norm beside calling it once, so that
            another cannot take its place.
    """
    copied = copy.deepcopy(module)
    graph = symbolic_trace(copied)
    check_foldable(graph)
    absorb_shifts(graph)
    return fuse(copied, inplace=True)


def check_foldable(graph: GraphModule) -> None:
    """Refuse what folding would change the function of.

    Raises:
        ValueError: a layer with weights is called more than once, has hooks, or its weights are read by
            themselves; or a norm follows a linear layer: of [N, L, C] it norms the second dimension, while
            ``fuse`` takes it for the last, and which it is a graph does not tell.
    """
    used = Counter(str(node.target) for node in graph.graph.nodes if node.op == "call_module")
    layers = {
        name: part
        for name in used
        if isinstance(part := graph.get_submodule(name), _BatchNorm | _ConvNd | nn.Linear)
    }
    for name, layer in layers.items():
        if used[name] > 1:
            raise ValueError(f"{name} is used {used[name]} times")
        if layer._forward_hooks or layer._forward_pre_hooks:
            raise ValueError(f"{name} has hooks")
    for node in graph.graph.nodes:
        if node.op == "get_attr" and (owner := str(node.target).rpartition(".")[0]) in layers:
            raise ValueError(f"{node.target} is read beside the call of {owner}")
        if isinstance(layers.get(str(node.target)), _BatchNorm):
            for source in node.all_input_nodes:
                if isinstance(layers.get(str(source.target)), nn.Linear):
                    raise ValueError(f"{node.target} norms what the linear layer {source.target} gives")


@torch.no_grad()
def absorb_shifts(graph: GraphModule) -> None:
    """Move each batch norm's shift into the bias of the convolutions after it, where these are 1 x 1 and
    nothing else reads the norm.

    The same function: W (x + s) = W x + W s. But where running statistics are those of the data, the maps
    between are centred about zero, so that low precision rounds what varies in them, not what is constant:
    the norm of MobileNetV2's first block gives maps 40 times as far from zero as they vary, and where they
    are rounded as they are, the next block is off by half. After Nagel et al. 2019, arXiv 1906.04721, section
    4.1.3, where nothing is nonlinear between the two.
    """

    def module(node: Node) -> nn.Module | None:
        return graph.get_submodule(str(node.target)) if node.op == "call_module" else None

    for node in graph.graph.nodes:
        norm, readers = module(node), [module(user) for user in node.users]
        if type(norm) is not nn.BatchNorm2d or norm.bias is None:
            continue
        shift = norm.bias.detach()
        convolutions = [
            reader
            for reader in readers
            if type(reader) is nn.Conv2d and is_pointwise(reader) and reader.weight.dtype == shift.dtype
        ]
        if not readers or len(convolutions) < len(readers):
            continue
        for convolution in convolutions:
            moved = convolution.weight.flatten(1).matmul(shift)
            convolution.bias = nn.Parameter(
                moved if convolution.bias is None else convolution.bias + moved, requires_grad=False
            )
        norm.bias = nn.Parameter(torch.zeros_like(shift), requires_grad=False)


def is_pointwise(convolution: nn.Conv2d) -> bool:
    """Whether it takes each pixel by itself, all its channels together; no border is padded."""
    return (*convolution.kernel_size, *convolution.padding, convolution.groups) == (1, 1, 0, 0, 1)


def plain_norms(module: nn.Module) -> nn.Module:
    """``module`` with batch norms over ranks replaced by torch's plain one, which in eval mode is the same
    function; children in place.
    """
    if type(module) in (SyncBatchNorm2d, nn.SyncBatchNorm):
        assert isinstance(module, _BatchNorm)
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
