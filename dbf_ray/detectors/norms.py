"""Batch norm over all ranks on any device, for ``norm_eval: sync``.

torch's own ``SyncBatchNorm`` needs CUDA; this one is plain differentiable tensor arithmetic, so that it runs,
and is tested, over gloo on CPUs. Each forward costs two all-reduces of C + 1 and C numbers, each backward as
many.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable


class SyncBatchNorm2d(nn.BatchNorm2d):
    """``nn.BatchNorm2d`` whose training statistics are those of the images of all ranks together.

    Mean and variance over N, H, W of all ranks (Ioffe & Szegedy 2015, arXiv 1502.03167); ranks may hold
    different numbers of images and different image sizes. Statistics are computed in two passes (mean, then
    squared differences), in float32 at least. In eval mode, and with one rank, it is the plain batch norm.
    Running statistics move alike on all ranks.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x`` [N, C, H, W]; same shape and dtype out. In training mode a collective: all ranks
        must call it.
        """
        synced = self.training and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
        if not synced:
            return super().forward(x)
        self._check_input_dim(x)
        values = x if x.dtype == torch.float64 else x.float()
        with torch.autocast(x.device.type, enabled=False):
            mean, count = self._mean(values)
            centred = values - mean.view(1, -1, 1, 1)
            variance = _SumOverRanks.apply(centred.square().sum(dim=(0, 2, 3))) / count
            self._track(mean, variance, count)
            scale = torch.rsqrt(variance + self.eps)
            if self.weight is not None:
                scale = scale * self.weight
            out = centred * scale.view(1, -1, 1, 1)
            return (out if self.bias is None else out + self.bias.view(1, -1, 1, 1)).to(x.dtype)

    def _mean(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Mean [C] and number of values per channel [] over all ranks."""
        local = values.new_full((1,), values.numel() / values.shape[1])
        packed = _SumOverRanks.apply(torch.cat([values.sum(dim=(0, 2, 3)), local]))
        count = packed[-1].detach()
        return packed[:-1] / count, count

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        factor = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
        unbiased = variance * (count / (count - 1).clamp(min=1))
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), factor)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), factor)


def convert_sync_batchnorm(module: nn.Module) -> nn.Module:
    """Replace every ``nn.BatchNorm2d`` in ``module`` by :class:`SyncBatchNorm2d` over the same parameters and
    buffers.

    Children are replaced in place; returns ``module``, or its replacement if it is a batch norm itself.
    """
    if type(module) is nn.BatchNorm2d:
        return _converted(module)
    for name, child in module.named_children():
        replacement = convert_sync_batchnorm(child)
        if replacement is not child:
            setattr(module, name, replacement)
    return module


def _converted(norm: nn.BatchNorm2d) -> SyncBatchNorm2d:
    synced = SyncBatchNorm2d(
        norm.num_features, norm.eps, norm.momentum, affine=False, track_running_stats=False
    )
    synced.affine, synced.track_running_stats = norm.affine, norm.track_running_stats
    synced.weight, synced.bias = norm.weight, norm.bias
    synced.running_mean, synced.running_var, synced.num_batches_tracked = (
        norm.running_mean,
        norm.running_var,
        norm.num_batches_tracked,
    )
    return synced.train(norm.training)


class _SumOverRanks(torch.autograd.Function):
    """y = sum over ranks of x. Each rank's y depends on every x, so the gradient of x is the sum over ranks
    of the gradients of y.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total
