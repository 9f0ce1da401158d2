"""What a detector matches of a folder's objects, before and after settings were chosen: numbers to print, and
what is drawn of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dbf_ray.build.data import make_split
from dbf_ray.build.detector import detector_options
from dbf_ray.config import Config, at, with_overrides
from dbf_ray.data.check.dataset import WHOLE
from dbf_ray.data.check.samples import window_about
from dbf_ray.data.labelled import LabelledDataset
from dbf_ray.detectors.fcos import RotatedFCOS
from dbf_ray.detectors.retinanet import RotatedRetinaNet
from dbf_ray.detectors.two_stage import TwoStageDetector
from dbf_ray.geometry import boxes_to_corners, circumscribed
from dbf_ray.plan.coverage import Coverage, anchor_shapes, coverage
from dbf_ray.plan.folder import check_pixels, with_data
from dbf_ray.plan.given import given_keys
from dbf_ray.plan.kinds import bare_detector, has_oriented_anchors, has_points, is_two_stage
from dbf_ray.plan.objects import Objects, drawn, objects_of, scaled, views
from dbf_ray.plan.plan import covered
from dbf_ray.plan.written import shares

Window = tuple[int, int, int, int]  # left, top, width, height


@dataclass(frozen=True)
class Matched:
    """Objects to train on, and what a detector makes of those that were drawn of them.

    Attributes:
        config: with the folder as its data.
        split: of the folder; all, where it is not divided.
        files: of the images.
        objects: all, as labelled.
        chosen: indices of those looked at.
        before, after: with the detector's own defaults, and as configured.
    """

    config: Config
    split: str
    files: list[Path]
    objects: Objects
    chosen: Tensor
    before: Coverage
    after: Coverage

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it; ``before`` and ``after`` see :func:`.written.shares`."""
        config, some = self.config, self.objects.pick(self.chosen)
        return {
            "detector": config.detector.name,
            "backbone": config.detector.backbone,
            "options": config.detector.parameters,
            "split": self.split,
            "image_size": config.data.image_size,
            "views": len(self.after.matched),
            "objects": len(self.objects),
            "looked_at": len(some),
            "before": shares(self.before, some, config),
            "after": shares(self.after, some, config),
        }


def check_settings(config: Config) -> None:
    """Refuse a detector or options that no data can be looked at with.

    Raises:
        ConfigError: naming the key.
    """
    with at("detector"):
        bare_detector(config.detector.name, config.detector.backbone, detector_options(config.detector))


def match(config: Config, root: Path, name: str) -> Matched:
    """Look at the objects of a folder's training split, read as a training reads them.

    Args:
        config: what is trained, and how images are shown.
        root: folder of the data.
        name: their format.

    Raises:
        DataError: a training would refuse the labels, or they hold nothing to look at.
    """
    given = given_keys(config) | {"data.name"}
    config = with_data(with_overrides(config, {"data.name": name}), root, given)
    dataset = make_split(config.data, config.data.train_split)
    objects = objects_of(dataset)
    check_pixels(objects, str(root))
    before, after = covered(objects, config, usual=True), covered(objects, config)
    assert before is not None
    assert after is not None
    assert isinstance(dataset, LabelledDataset)
    split = dataset.part[1] or WHOLE
    return Matched(config, split, dataset.files, objects, drawn(objects), before, after)


def is_known(config: Config) -> bool:
    """Whether it is known what a detector of this kind matches."""
    name = config.detector.name
    return has_oriented_anchors(name) or has_points(name) or is_two_stage(name)


def shapes(matched: Matched, usual: bool = False) -> dict[str, Any]:
    """Sizes of the objects looked at and what matches them, in pixels of images resized for training.

    Args:
        matched: the objects.
        usual: with the detector's own defaults.

    Returns:
        ``long`` and ``short`` [n]: sides of the objects, or, if ``upright``, of the upright boxes around
        them, which is what a proposal network's anchors are compared with; ``share`` [n]: of the views in
        which each is matched; ``anchors``: of each level ``stride`` and ``sides`` (long, short) [k, 2];
        ``limits``: long sides at which FCOS changes from a level to the next.
    """
    config = matched.config
    detector = bare_detector(
        config.detector.name, config.detector.backbone, {} if usual else config.detector.parameters
    )
    boxes = scaled(matched.objects, config.data.image_size).pick(matched.chosen).boxes
    sides, levels, limits = boxes[:, 2:4], [], []
    if isinstance(detector, RotatedRetinaNet):
        levels = [(stride, anchor_shapes(detector)[:, :2] * stride) for stride in detector.anchors.strides]
    elif isinstance(detector, TwoStageDetector):
        around, base = circumscribed(boxes), detector.rpn.anchors.base
        sides = around[:, 2:] - around[:, :2]
        levels = [(stride, (base[:, 2:] - base[:, :2]) * stride) for stride in detector.rpn.anchors.strides]
    elif isinstance(detector, RotatedFCOS):
        limits = [2 * high for _, high in detector.ranges[:-1]]
    found = matched.before if usual else matched.after
    return {
        "long": sides.amax(-1).tolist(),
        "short": sides.amin(-1).tolist(),
        "share": found.matched.double().mean(0).tolist(),
        "upright": isinstance(detector, TwoStageDetector),
        "anchors": [{"stride": stride, "sides": _unlike(anchors)} for stride, anchors in levels],
        "limits": limits,
    }


def _unlike(sides: Tensor) -> list[list[float]]:
    ordered = torch.stack([sides.amax(-1), sides.amin(-1)], -1)
    return torch.unique((ordered * 100).round() / 100, dim=0).tolist()


@dataclass(frozen=True)
class Marked:
    """A part of an image, and what is matched of the objects in it.

    Attributes:
        file: the image.
        window: the part: left, top, width and height in pixels.
        is_part: whether there is more of the image.
        corners: float64 [n, 8] of all objects whose centre is in the window, in its pixels.
        share: float [n] of the views in which each is matched.
    """

    file: Path
    window: Window
    is_part: bool
    corners: Tensor
    share: Tensor

    @property
    def title(self) -> str:
        """The image's name, and where the part begins if there is more of it."""
        return self.file.name + (f", from {self.window[:2]}" if self.is_part else "")


def worst_images(matched: Matched, count: int) -> list[Marked]:
    """At most ``count`` images of those with objects that are not matched: the ones first of which most are
    matched in no view. All objects in their windows are looked at, also such that were not drawn.
    """
    windows = dict(list(_windows(matched))[:count])
    objects = matched.objects.pick(
        torch.isin(matched.objects.image, torch.tensor([*windows], dtype=torch.int64)).nonzero().squeeze(-1)
    )
    left, top, width, height = torch.tensor(
        [windows.get(image, (0, 0, 0, 0)) for image in range(len(objects.sizes))], dtype=torch.float64
    )[objects.image].unbind(-1)
    x, y = objects.boxes[:, 0] - left, objects.boxes[:, 1] - top
    shown = ((x >= 0) & (y >= 0) & (x < width) & (y < height)).nonzero().squeeze(-1)
    share = torch.zeros(len(objects), dtype=torch.float64)
    share[shown] = _share(matched.config, objects, shown)
    marked = []
    for image, window in windows.items():
        own = shown[objects.image[shown] == image]
        offset = torch.tensor(window[:2] * 4, dtype=torch.float64)
        corners = boxes_to_corners(objects.boxes[own]).reshape(-1, 8) - offset
        whole = tuple(objects.sizes[image].tolist())
        is_part = window[:1:-1] != whole
        marked.append(Marked(matched.files[image], window, is_part, corners, share[own]))
    return marked


def _share(config: Config, objects: Objects, chosen: Tensor) -> Tensor:
    if not len(chosen):
        return torch.zeros(0, dtype=torch.float64)
    detector = bare_detector(config.detector.name, config.detector.backbone, config.detector.parameters)
    shown = views(objects, config.data.image_size, config.data.flips, config.data.augment.scales)
    found = coverage(detector, shown, chosen)
    assert found is not None
    return found.matched.double().mean(0)


def _windows(matched: Matched) -> Iterator[tuple[int, Window]]:
    """Images with something that is not matched, the worst first, and what to show of each: where most of it
    is.
    """
    some, hits = matched.objects.pick(matched.chosen), matched.after.matched
    never, missed = ~hits.any(0), (~hits).sum(0)
    images = len(some.sizes)
    totals = [torch.bincount(some.image, part.double(), images) for part in (never, missed)]
    order = sorted(range(images), key=lambda image: [-float(total[image]) for total in totals])
    for image in order:
        if not totals[1][image]:
            return
        wanted = never if totals[0][image] else missed > 0
        centers = some.boxes[(some.image == image) & wanted, :2]
        near = (torch.cdist(centers, centers, p=float("inf")) < 512).sum(1)
        x, y = centers[near.argmax()].tolist()
        height, width = some.sizes[image].tolist()
        yield image, window_about(x, y, (height, width))
