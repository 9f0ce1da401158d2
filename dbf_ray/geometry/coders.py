"""Box coders: from an anchor (an oriented box, an upright box or a point) and a box to what a network
predicts, and back.

The rules are those of MMRotate 0.3.4 and MMDetection 2.28.2. Angles that a network predicts stay in radians,
*clockwise*, as there, so that reference weights fit. Oriented boxes are in our convention (see
:mod:`.boxes`), decoded ones are canonical; upright boxes are (x1, y1, x2, y2).

- :class:`RotatedBoxCoder`, oriented box to oriented box: RetinaNet, RoI head of Oriented R-CNN.
- :class:`HorizontalBoxCoder`, upright to upright: region proposals of Faster R-CNN.
- :class:`MidpointOffsetCoder`, upright to oriented: region proposals of Oriented R-CNN.
- :class:`HorizontalToRotatedCoder`, upright to oriented: RoI head of Faster R-CNN.
- :class:`DistanceAngleCoder`, point to oriented: FCOS.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torchvision.ops import box_convert, clip_boxes_to_image

from dbf_ray.geometry.boxes import axes, boxes_to_corners, canonicalize, circumscribed

MAX_RATIO = 1000 / 16  # a decoded side is at most this many times the anchor's, and at least 1 / this
_LEVEL = 0.1  # pixels: a box whose sides rise no more than this counts as upright


class RotatedBoxCoder:
    """Deltas between oriented boxes (MMRotate's ``DeltaXYWHAOBBoxCoder`` with ``edge_swap`` and ``proj_xy``,
    le90).

    The shift is projected on the anchor's axes and divided by its sides, sides are compared by logarithm, and
    the angle's change is in radians, clockwise. A box has two names, with w and h exchanged; the one whose
    angle is nearer to the anchor's is encoded.

    Args:
        stds: divisors of the five deltas.
        max_ratio: the change of a side is limited to this factor when decoding.
    """

    def __init__(
        self, stds: tuple[float, float, float, float, float] = (1, 1, 1, 1, 1), max_ratio: float = MAX_RATIO
    ) -> None:
        self.stds = stds
        self.max_ratio = max_ratio

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

    def decode(self, anchors: Tensor, deltas: Tensor, image_size: tuple[int, int] | None = None) -> Tensor:
        """Canonical boxes [N, 5] from anchors [N, 5] and deltas [N, 5].

        Args:
            anchors: [N, 5], pixels and degrees.
            deltas: [N, 5], as :meth:`encode` gives them.
            image_size: (height, width) in pixels; centres are moved into [0, width - 1] x [0, height - 1],
                sides and angle stay.
        """
        deltas = deltas * anchors.new_tensor(self.stds)
        u, v = axes(anchors)
        center = anchors[:, :2] + deltas[:, :1] * anchors[:, 2:3] * u + deltas[:, 1:2] * anchors[:, 3:4] * v
        if image_size is not None:
            height, width = image_size
            center = torch.stack([center[:, 0].clamp(0, width - 1), center[:, 1].clamp(0, height - 1)], -1)
        sides = anchors[:, 2:4] * _growth(deltas[:, 2:4], self.max_ratio)
        angle = anchors[:, 4:] - torch.rad2deg(deltas[:, 4:])
        return canonicalize(torch.cat([center, sides, angle], -1))


class HorizontalBoxCoder:
    """Deltas (x, y, w, h) between upright boxes (R-CNN, arXiv 1311.2524, appendix C; mmdet's
    ``DeltaXYWHBBoxCoder``).

    Args:
        stds: divisors of the four deltas.
        max_ratio: the change of a side is limited to this factor when decoding.
    """

    def __init__(
        self, stds: tuple[float, float, float, float] = (1, 1, 1, 1), max_ratio: float = MAX_RATIO
    ) -> None:
        self.stds = stds
        self.max_ratio = max_ratio

    def encode(self, anchors: Tensor, boxes: Tensor) -> Tensor:
        """Deltas [N, 4] that turn anchors [N, 4] into boxes [N, 4] (both upright, pixels)."""
        deltas = _upright_deltas(box_convert(anchors, "xyxy", "cxcywh"), box_convert(boxes, "xyxy", "cxcywh"))
        return deltas / anchors.new_tensor(self.stds)

    def decode(self, anchors: Tensor, deltas: Tensor, image_size: tuple[int, int] | None = None) -> Tensor:
        """Upright boxes [N, 4] from anchors [N, 4] and deltas [N, 4], cut at the borders of an image of
        ``image_size`` (height, width).
        """
        center, sides = _moved(
            box_convert(anchors, "xyxy", "cxcywh"), deltas * anchors.new_tensor(self.stds), self.max_ratio
        )
        boxes = torch.cat([center - sides / 2, center + sides / 2], -1)
        return boxes if image_size is None else clip_boxes_to_image(boxes, image_size)


class MidpointOffsetCoder:
    """Oriented boxes as offsets on the sides of their circumscribed upright box (Oriented R-CNN, arXiv
    2108.05699, section 3.1).

    The first four deltas are those of :class:`HorizontalBoxCoder` for the circumscribed box. The last two say
    where the oriented box touches its top and right sides, from their middles, in widths and heights
    (MMRotate's ``MidpointOffsetCoder``). Four free numbers make a parallelogram; decoding lengthens its
    shorter diagonal, which gives a rectangle.

    Args:
        stds: divisors of the six deltas.
        max_ratio: the change of a side of the circumscribed box is limited to this factor when decoding.
    """

    def __init__(
        self,
        stds: tuple[float, float, float, float, float, float] = (1, 1, 1, 1, 0.5, 0.5),
        max_ratio: float = MAX_RATIO,
    ) -> None:
        self.stds = stds
        self.max_ratio = max_ratio

    def encode(self, anchors: Tensor, boxes: Tensor) -> Tensor:
        """Deltas [N, 6] that turn upright anchors [N, 4] into oriented boxes [N, 5].

        A box that is upright within 0.1 pixels touches at its top right and its bottom right corner, so that
        its deltas do not jump with a tiny turn. The reference asks this of the top and of the right side
        apart: a long thin box, slightly turned, then touches both at opposite corners, and decodes to a flat
        one. Here both have to be level; for all other boxes the deltas are the same.
        """
        centred = torch.cat([torch.zeros_like(boxes[:, :2]), boxes[:, 2:]], -1)
        sides = 2 * circumscribed(centred)[:, 2:]
        x, y = boxes_to_corners(centred).unflatten(-1, (4, 2)).unbind(-1)  # [N, 4] each
        below, left = y - y.amin(-1, keepdim=True), x.amax(-1, keepdim=True) - x
        upright = ((below <= _LEVEL).sum(-1, keepdim=True) > 1) & ((left <= _LEVEL).sum(-1, keepdim=True) > 1)
        level = upright * _LEVEL
        touch = torch.stack(
            [
                x.masked_fill(below > level, -math.inf).amax(-1),
                y.masked_fill(left > level, -math.inf).amax(-1),
            ],
            -1,
        )
        outer = _upright_deltas(box_convert(anchors, "xyxy", "cxcywh"), torch.cat([boxes[:, :2], sides], -1))
        return torch.cat([outer, touch / sides], -1) / anchors.new_tensor(self.stds)

    def decode(self, anchors: Tensor, deltas: Tensor) -> Tensor:
        """Canonical boxes [N, 5] from upright anchors [N, 4] and deltas [N, 6]. The reference limits nothing
        to the image here.
        """
        deltas = deltas * anchors.new_tensor(self.stds)
        center, sides = _moved(box_convert(anchors, "xyxy", "cxcywh"), deltas[:, :4], self.max_ratio)
        touch = deltas[:, 4:].clamp(-0.5, 0.5) * sides
        # half diagonals: to the top side and to the right side
        top = torch.stack([touch[:, 0], -sides[:, 1] / 2], -1)
        right = torch.stack([sides[:, 0] / 2, touch[:, 1]], -1)
        to_top, to_right = top.norm(dim=-1, keepdim=True), right.norm(dim=-1, keepdim=True)
        longer = torch.maximum(to_top, to_right)
        top, right = top * (longer / to_top), right * (longer / to_right)
        first, second = right - top, right + top  # two sides of the rectangle
        w, h = first.norm(dim=-1), second.norm(dim=-1)
        along = torch.where((w >= h)[:, None], first, second)  # never zero, as the shorter side may be
        angle = -torch.rad2deg(torch.atan2(along[:, 1], along[:, 0]))
        return canonicalize(
            torch.cat([center, torch.stack([torch.maximum(w, h), torch.minimum(w, h), angle], -1)], -1)
        )


class HorizontalToRotatedCoder:
    """Deltas from upright to oriented boxes (MMRotate's ``DeltaXYWHAHBBoxCoder`` with ``edge_swap``, le90).

    The same as :class:`RotatedBoxCoder` with anchors at angle 0, but for the unit of the angle's change:
    ``norm_factor`` half turns, clockwise.

    Args:
        stds: divisors of the five deltas.
        norm_factor: 2 measures the angle's change in whole turns.
        max_ratio: the change of a side is limited to this factor when decoding.
    """

    def __init__(
        self,
        stds: tuple[float, float, float, float, float] = (0.1, 0.1, 0.2, 0.2, 0.1),
        norm_factor: float = 2.0,
        max_ratio: float = MAX_RATIO,
    ) -> None:
        self.rotated = RotatedBoxCoder((*stds[:4], stds[4] * norm_factor * math.pi), max_ratio)

    def encode(self, proposals: Tensor, boxes: Tensor) -> Tensor:
        """Deltas [N, 5] that turn upright proposals [N, 4] into oriented boxes [N, 5]."""
        return self.rotated.encode(_unturned(proposals), boxes)

    def decode(self, proposals: Tensor, deltas: Tensor, image_size: tuple[int, int] | None = None) -> Tensor:
        """Canonical boxes [N, 5] from upright proposals [N, 4] and deltas [N, 5].

        ``image_size`` is taken so that RoI heads can call every coder alike; like the reference this coder
        moves nothing into the image.
        """
        return self.rotated.decode(_unturned(proposals), deltas)


class DistanceAngleCoder:
    """Distances from a point to the four sides of an oriented box, and its angle (MMRotate's
    ``DistanceAnglePointCoder``, le90; FCOS).

    Left and right are measured along the box's side w, top and bottom along h, so that a point inside has
    four positive distances. The angle is in radians, clockwise, in [-pi/2, pi/2): a box at -90 degrees, which
    is +90 as well, has angle -pi/2, as in the reference.
    """

    def encode(
        self, points: Tensor, boxes: Tensor, max_distance: float | None = None, eps: float = 0.1
    ) -> Tensor:
        """(left, top, right, bottom, angle) [N, 5] of boxes [N, 5] as seen from points [N, 2].

        Args:
            points: (x, y), pixels.
            boxes: pixels and degrees.
            max_distance: distances are limited to [0, ``max_distance`` - ``eps``]; None: as they are,
                negative outside the box.
            eps: keeps limited distances below ``max_distance``.
        """
        boxes = canonicalize(boxes)
        angle = torch.where(boxes[:, 4:] <= -90, boxes[:, 4:] + 180, boxes[:, 4:])  # (-90, 90]
        u, v = axes(torch.cat([boxes[:, :4], angle], -1))
        offset = points - boxes[:, :2]
        along = torch.stack([(offset * u).sum(-1), (offset * v).sum(-1)], -1)
        distances = torch.cat([boxes[:, 2:4] / 2 + along, boxes[:, 2:4] / 2 - along], -1)
        if max_distance is not None:
            distances = distances.clamp(0, max_distance - eps)
        return torch.cat([distances, -torch.deg2rad(angle)], -1)

    def decode(self, points: Tensor, distances: Tensor, image_size: tuple[int, int] | None = None) -> Tensor:
        """Canonical boxes [N, 5] from points [N, 2] and (left, top, right, bottom, angle) [N, 5].

        Boxes move with their points: for a loss on pairs at the same point, points at 0 keep all digits.
        ``image_size`` is taken so that heads can call every coder alike; like the reference this coder moves
        nothing into the image.
        """
        distances = distances.to(torch.promote_types(distances.dtype, points.dtype))
        low, high = distances[:, :2], distances[:, 2:4]
        boxes = torch.cat([points, low + high, -torch.rad2deg(distances[:, 4:])], -1)
        u, v = axes(boxes)
        shift = (high - low) / 2
        center = points + shift[:, :1] * u + shift[:, 1:] * v
        return canonicalize(torch.cat([center, boxes[:, 2:]], -1))


def _wrap(angle: Tensor) -> Tensor:
    """The same direction of a side, in [-90, 90)."""
    return torch.remainder(angle + 90, 180) - 90


def _growth(log_ratio: Tensor, max_ratio: float) -> Tensor:
    """Factors by which sides change."""
    return log_ratio.clamp(-math.log(max_ratio), math.log(max_ratio)).exp()


def _unturned(upright: Tensor) -> Tensor:
    """Oriented boxes [N, 5] at angle 0 from upright boxes [N, 4]; not canonical where taller than wide."""
    return torch.cat([box_convert(upright, "xyxy", "cxcywh"), torch.zeros_like(upright[:, :1])], -1)


def _upright_deltas(anchors: Tensor, boxes: Tensor) -> Tensor:
    """Shift in anchor's sides and logarithm of the sides' ratio [N, 4], of upright (cx, cy, w, h) [N, 4]."""
    return torch.cat(
        [(boxes[:, :2] - anchors[:, :2]) / anchors[:, 2:], torch.log(boxes[:, 2:] / anchors[:, 2:])], -1
    )


def _moved(anchors: Tensor, deltas: Tensor, max_ratio: float) -> tuple[Tensor, Tensor]:
    """Centres [N, 2] and sides [N, 2] of upright anchors (cx, cy, w, h) [N, 4] after deltas [N, 4]: the
    inverse of ``_upright_deltas``.
    """
    return anchors[:, :2] + deltas[:, :2] * anchors[:, 2:], anchors[:, 2:] * _growth(deltas[:, 2:], max_ratio)
