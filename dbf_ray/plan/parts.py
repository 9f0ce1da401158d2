"""The objects of a data set of any size, some after some, as long as there is time to look at them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from dbf_ray.data import Dataset
from dbf_ray.data.contents import flags_of
from dbf_ray.plan.lost import held_by_class
from dbf_ray.plan.objects import MOST_DRAWN, Objects, draw_order, objects_in, target_of, tells_targets

FIRST, GROWTH = 100, 8  # objects of the first part, and how many times as many may be in the next
LEAST = 20  # objects of a part
LISTING = 0.4  # of the time, at most, is for listing objects
CAREFUL = 0.7  # of the time that is left is planned for
ORIGINALS = 300  # uncut images whose objects are looked for in patches


@dataclass
class _Listed:
    """Objects that count: which image each is on, which of the image's it is, and its class; and targets
    that it took decoding an image to see.
    """

    images: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    seen: dict[int, Any] = field(default_factory=dict)


def parts(dataset: Dataset, seconds: float) -> Iterator[tuple[Objects, Tensor]]:
    """The objects of some images, and which of them are drawn: by class with a seed, no difficult ones, 3,000
    at most in all; for about ``seconds``, what is done with them included.
    """
    until = time.monotonic() + seconds
    listed = _list(dataset, until - (1 - LISTING) * seconds)
    held = held_by_class(dataset, ORIGINALS)
    order = draw_order(torch.tensor(listed.labels, dtype=torch.int64), len(dataset.classes))[:MOST_DRAWN]
    size = FIRST
    while len(order) and size >= LEAST:
        begun = time.monotonic()
        objects, chosen = _part(dataset, listed, order[:size].tolist())
        yield replace(objects, held=held), chosen
        now = time.monotonic()
        order, size = order[size:], int(min(GROWTH, CAREFUL * (until - now) / (now - begun)) * size)


def _list(dataset: Dataset, until: float) -> _Listed:
    """Objects of all images, or of as many, drawn with a seed, as there is time for."""
    listed, cheap = _Listed(), tells_targets(dataset)
    for index in torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0)).tolist():
        if cheap:
            labels, difficult = flags_of(dataset, index)
        else:
            target, _ = listed.seen[index] = target_of(dataset, index)
            labels, difficult = target["labels"].tolist(), target["difficult"].tolist()
        places = list(range(len(labels)))
        if any(difficult):
            places = [place for place in places if not difficult[place]]
            labels = [labels[place] for place in places]
        listed.places += places
        listed.labels += labels
        listed.images += [index] * len(places)
        if time.monotonic() > until:
            break
    return listed


def _part(dataset: Dataset, listed: _Listed, wanted: list[int]) -> tuple[Objects, Tensor]:
    """All objects of the images that hold one of the ``wanted`` (positions in the list), and which these
    are.
    """
    images = sorted({listed.images[k] for k in wanted})
    rows = [listed.seen.get(image) or target_of(dataset, image) for image in images]
    objects = objects_in(rows, list(dataset.classes))
    starts = torch.searchsorted(objects.image, torch.arange(len(images)))
    number = dict(zip(images, starts.tolist(), strict=True))
    return objects, torch.tensor([number[listed.images[k]] + listed.places[k] for k in wanted])
