"""Box coders: from an oriented anchor and an oriented box to regression targets and back."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dbf_ray.geometry.boxes import axes, canonicalize


class RotatedBoxCoder:
    """Deltas between oriented boxes (MMRotate's ``DeltaXYWHAOBBoxCoder`` with ``edge_swap`` and ``proj_xy``, le90).

    The shift is projected on the anchor's axes and divided by its sides, sides are compared by logarithm, and the angle's change is in
    radians, *clockwise* as in the reference, so that reference weights fit. A box has two names, with w and h exchanged; the one whose
    angle is nearer to the anchor's is encoded. Decoding returns the canonical form.

    Args:
        stds: divisors of the five deltas.
        max_ratio: the change of a side is limited to this factor when decoding.
    """

    def __init__(self, stds: tuple[float, float, float, float, float] = (1, 1, 1, 1, 1), max_ratio: float = 1000 / 16) -> None:
        self.stds = stds
        self.max_log = math.log(max_ratio)

    def encode(self, anchors: Tensor, boxes: Tensor) -> Tensor:
        """Deltas [N, 5] that turn anchors [N, 5] into boxes [N, 5] (both in pixels and degrees)."""
        u, v = axes(anchors)
        shift = boxes[:, :2] - anchors[:, :2]
        same, swapped = _wrap(boxes[:, 4] - anchors[:, 4]), _wrap(boxes[:, 4] - anchors[:, 4] + 90)
        keep = same.abs() < swapped.abs()
        w, h = torch.where(keep, boxes[:, 2], boxes[:, 3]), torch.where(keep, boxes[:, 3], boxes[:, 2])
        turn = -torch.deg2rad(torch.where(keep, same, swapped))
        deltas = [
            (shift * u).sum(-1) / anchors[:, 2],
            (shift * v).sum(-1) / anchors[:, 3],
            torch.log(w / anchors[:, 2]),
            torch.log(h / anchors[:, 3]),
            turn,
        ]
        return torch.stack(deltas, -1) / anchors.new_tensor(self.stds)

    def decode(self, anchors: Tensor, deltas: Tensor) -> Tensor:
        """Canonical boxes [N, 5] from anchors [N, 5] and deltas [N, 5]."""
        deltas = deltas * anchors.new_tensor(self.stds)
        u, v = axes(anchors)
        center = anchors[:, :2] + deltas[:, :1] * anchors[:, 2:3] * u + deltas[:, 1:2] * anchors[:, 3:4] * v
        sides = anchors[:, 2:4] * deltas[:, 2:4].clamp(-self.max_log, self.max_log).exp()
        angle = anchors[:, 4:] - torch.rad2deg(deltas[:, 4:])
        return canonicalize(torch.cat([center, sides, angle], -1))


def _wrap(angle: Tensor) -> Tensor:
    """The same direction of a side, in [-90, 90)."""
    return torch.remainder(angle + 90, 180) - 90
