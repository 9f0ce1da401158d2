"""The objects of a data set as a detector will see them: scaled, and in each of the views of a training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dbf_ray.data import Dataset, Subset
from dbf_ray.data.samples import Target
from dbf_ray.data.transforms import IDENTITY, ORIENTATIONS, orientation_size, resized_size
from dbf_ray.geometry import canonicalize
from dbf_ray.plan.lost import held_by_class

MOST_DRAWN = 3000


@dataclass(frozen=True)
class Objects:
    """All objects of a data set.

    Attributes:
        boxes: float64 [N, 5], pixels of their images and degrees, canonical.
        labels: int64 [N], indices into ``classes``.
        difficult: bool [N].
        image: int64 [N], which image each is on.
        sizes: int64 [I, 2], height and width of the images, those without objects too.
        classes: names in label order.
        held: float64 [C], of images that are patches, the share of each class's objects that a patch holds
            whole; None: they are no patches.
    """

    boxes: Tensor
    labels: Tensor
    difficult: Tensor
    image: Tensor
    sizes: Tensor
    classes: list[str]
    held: Tensor | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    def pick(self, index: Tensor) -> Objects:
        """Some of the objects, on the same images."""
        parts = {name: getattr(self, name)[index] for name in ("boxes", "labels", "difficult", "image")}
        return replace(self, **parts)


def objects_of(dataset: Dataset) -> Objects:
    """The objects of a data set; images are not decoded where it gives their targets alone.

    Raises:
        DataError: images are patches, and labels of the uncut ones are missing.
    """
    rows = [target_of(dataset, index) for index in range(len(dataset))]
    return replace(objects_in(rows, list(dataset.classes)), held=held_by_class(dataset))


def objects_in(rows: Sequence[tuple[Target, tuple[int, int]]], classes: list[str]) -> Objects:
    """The objects of images of which the targets and (height, width) are given."""
    targets, sizes = [target for target, _ in rows], [size for _, size in rows]
    boxes = [target["boxes"].as_subclass(Tensor).double().reshape(-1, 5) for target in targets]
    return Objects(
        boxes=torch.cat(boxes) if boxes else torch.zeros(0, 5, dtype=torch.float64),
        labels=torch.cat([torch.zeros(0, dtype=torch.int64), *(target["labels"] for target in targets)]),
        difficult=torch.cat([torch.zeros(0, dtype=torch.bool), *(target["difficult"] for target in targets)]),
        image=torch.repeat_interleave(torch.arange(len(boxes)), torch.tensor([len(part) for part in boxes])),
        sizes=torch.tensor(sizes, dtype=torch.int64).reshape(-1, 2),
        classes=classes,
    )


def tells_targets(dataset: Any) -> bool:
    """Whether it gives targets without their images."""
    return hasattr(dataset.dataset if isinstance(dataset, Subset) else dataset, "target")


def target_of(dataset: Any, index: int) -> tuple[Target, tuple[int, int]]:
    """Target and (height, width) of an image."""
    if isinstance(dataset, Subset):
        return target_of(dataset.dataset, dataset.indices[index])
    if hasattr(dataset, "target"):
        return dataset.target(index), dataset.sizes[index]
    image, target = dataset.load(index)
    return target, tuple(image.shape[-2:])


def drawn(objects: Objects, seed: int = 0, most: int = MOST_DRAWN) -> Tensor:
    """Indices of at most ``most`` objects, as many of each class as of the others while it has some, drawn at
    random within a class.
    """
    return draw_order(objects.labels, len(objects.classes), seed)[:most].sort().values


def draw_order(labels: Tensor, classes: int, seed: int = 0) -> Tensor:
    """All objects by their ``labels`` [N] in the order in which :func:`drawn` takes them."""
    stream = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(labels), generator=stream)
    grouped = torch.sort(labels[shuffled], stable=True)
    counts = torch.bincount(labels, minlength=classes)
    rank = torch.empty_like(shuffled)  # of an object within its class
    rank[grouped.indices] = torch.arange(len(labels)) - (counts.cumsum(0) - counts)[grouped.values]
    return shuffled[torch.sort(rank, stable=True).indices]


def drawn_counted(objects: Objects, most: int) -> Tensor:
    """The same of those that are not difficult, where there are such."""
    counted = torch.nonzero(~objects.difficult).squeeze(-1)
    counted = counted if len(counted) else torch.arange(len(objects))
    return counted[drawn(objects.pick(counted), most=most)]


def scaled(objects: Objects, image_size: int, factor: float = 1.0) -> Objects:
    """Images with their long side resized to ``image_size`` pixels, then scaled by ``factor`` as
    ``augment.scales`` does.
    """
    sizes = [resized_size((height, width), image_size) for height, width in objects.sizes.tolist()]
    factors = factor * image_size / objects.sizes.amax(-1).double()
    boxes = objects.boxes.clone()
    boxes[:, :4] *= factors[objects.image, None]
    if factor != 1:
        sizes = [(max(1, round(height * factor)), max(1, round(width * factor))) for height, width in sizes]
    return replace(objects, boxes=boxes, sizes=torch.tensor(sizes, dtype=torch.int64).reshape(-1, 2))


def oriented(objects: Objects, orientation: str) -> Objects:
    """The objects in an orientation, a key of ``dbf_ray.data.transforms.ORIENTATIONS``, in closed form."""
    turned, left_right, top_bottom = ORIENTATIONS[orientation]
    cx, cy, w, h, angle = objects.boxes.unbind(-1)
    height, width = objects.sizes[objects.image].double().unbind(-1)
    if turned:
        cx, cy, angle, height, width = cy, width - cx, angle + 90, width, height
    if left_right:
        cx, angle = width - cx, -angle
    if top_bottom:
        cy, angle = height - cy, -angle
    sizes = [orientation_size((int(tall), int(wide)), orientation) for tall, wide in objects.sizes.tolist()]
    return replace(
        objects,
        boxes=canonicalize(torch.stack([cx, cy, w, h, angle], -1)),
        sizes=torch.tensor(sizes, dtype=torch.int64).reshape(-1, 2),
    )


def views(
    objects: Objects, image_size: int, flips: Sequence[str] = (), scales: Sequence[float] | None = None
) -> Iterator[Objects]:
    """The objects as a training shows them: in each orientation, at the least and the largest scale."""
    ends = sorted({min(scales), max(scales)}) if scales else [1.0]
    for factor in ends:
        resized = scaled(objects, image_size, factor)
        for orientation in (IDENTITY, *flips):
            yield oriented(resized, orientation)
