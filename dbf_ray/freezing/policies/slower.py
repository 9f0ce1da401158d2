"""Policies ``lr_scale(factor)`` and ``layer_decay(xi)``: never frozen, but slower. Controls, which save
nothing: does freezing do anything that a smaller learning rate does not?
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveFloat

from dbf_ray.freezing.policies.base import Horizon
from dbf_ray.freezing.policies.constant import Full


class LrScale(Full):
    """n(t) = 0; the learning rate of every backbone stage times ``factor``.

    Args:
        factor: > 0; 1 is full fine-tuning.
    """

    name = "lr_scale"

    factor: PositiveFloat

    def lr_factors(self, t: int, horizon: Horizon) -> tuple[float, ...]:
        """The same for all stages."""
        return (self.factor,) * horizon.num_stages


class LayerDecay(Full):
    """n(t) = 0; the learning rate of stage k = 1..K is lr * xi ** (K - k): discriminative fine-tuning of
    ULMFiT (arXiv 1801.06146, which takes xi = 1/2.6 per layer), layer-wise decay of BEiT (arXiv 2106.08254).

    Args:
        xi: decay from each stage to the one before, 0 < xi <= 1; 1 is full fine-tuning.
    """

    name = "layer_decay"

    xi: Annotated[float, Field(gt=0, le=1)]

    def lr_factors(self, t: int, horizon: Horizon) -> tuple[float, ...]:
        """Early stages slowly."""
        return tuple(self.xi**below for below in reversed(range(horizon.num_stages)))
