"""A word before the first epoch, where a detector can surely not match the objects that it is to learn."""

from __future__ import annotations

import math
import shlex
from dataclasses import replace
from typing import Any

import torch

from dbf_ray.build import RunSpec
from dbf_ray.config import Config
from dbf_ray.data import CLASS_LISTS
from dbf_ray.detectors import with_defaults
from dbf_ray.plan.coverage import coverage
from dbf_ray.plan.objects import Objects, views
from dbf_ray.plan.parts import parts

SECONDS = 2.5  # for all of it, on data of any size
LEAST_DRAWN = 20  # objects of a class
MOST_MISSED = 0.1  # of the objects of a class
DOUBT = 0.05  # one-sided: how likely no more than MOST_MISSED are missed of all, where that is said
MOST_NAMED = 12  # classes
REFERENCE_SIZE = (
    1024  # pixels: of the patches that MMRotate's le90 configurations, the defaults, are made for
)
REFERENCE_CLASSES = ("dota-v1.0", "dota-v1.5", "dota-v2.0")
MATCHING = (
    *("anchor_scales", "anchor_ratios", "anchor_angles", "positive_iou", "negative_iou"),
    *("rpn_positive_iou", "rpn_negative_iou", "regress_limits", "center_radius"),
)
"""The options that decide what stands for an object."""


def uncovered_notes(config: Config, spec: RunSpec, seconds: float = SECONDS) -> list[str]:
    """A warning, if of classes with 20 objects or more that were looked at surely over a tenth are not
    covered; difficult objects do not count.

    As many objects are looked at as ``seconds`` allow, 3,000 at most, drawn by class with a seed; each in one
    of the orientations, at one end of the scales. Nothing is said of a reference's recipe on data that it is
    made for, nor of a detector of a kind that is not known.
    """
    if is_reference(config, spec.train_set.classes):
        return []
    counts, missed = missed_by_class(config, spec, seconds)
    names = spec.train_set.classes
    over = [
        (missed[label] / count, f"{names[label]} ({missed[label] / count:.0%} of {count})")
        for label, count in enumerate(counts)
        if count >= LEAST_DRAWN and surely_over(missed[label], count)
    ]
    if not over:
        return []
    listed = [text for _, text in sorted(over, key=lambda row: -row[0])]
    more = f" and {len(listed) - MOST_NAMED} more classes" if len(listed) > MOST_NAMED else ""
    data = config.data
    where = f"--data.name {data.name}" if data.root is None else shlex.quote(str(data.root))
    return [
        f"warning: many objects are not matched by {config.detector.name} as it is set, and so hardly "
        f"learned: {', '.join(listed[:MOST_NAMED])}{more}; for settings that fit, or whether images should "
        f"be cut into patches: dbf plan {where} --out FILE.yaml"
    ]


def is_reference(config: Config, classes: list[str]) -> bool:
    """Whether this is a reference's recipe on data that it is made for: DOTA's classes on patches of 1024 px,
    and all that decides what stands for an object as MMRotate has it.
    """
    given, usual = config.detector.parameters, with_defaults(config.detector.name, {})
    own = all(_plain(given[key]) == _plain(usual[key]) for key in MATCHING if key in given and key in usual)
    of_dota = any(set(classes) == set(CLASS_LISTS[name]) for name in REFERENCE_CLASSES)
    return own and of_dota and config.data.image_size == REFERENCE_SIZE


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value


def surely_over(missed: float, count: int, share: float = MOST_MISSED, doubt: float = DOUBT) -> bool:
    """Whether the lower bound of Clopper and Pearson (Biometrika 26, 1934; one-sided, 95 %) for the share of
    which ``missed`` of ``count`` is a sample lies above ``share``: if no more than that were missed of all,
    so many would be in fewer than 5 of 100 samples. Parts of an object (in some views) count when they make
    a whole.
    """
    least = math.floor(missed + 1e-6)
    if least == 0:
        return False
    tail = 0.0
    for k in range(least, count + 1):
        ways = math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1)
        tail += math.exp(ways + k * math.log(share) + (count - k) * math.log1p(-share))
    return tail < doubt


def missed_by_class(config: Config, spec: RunSpec, seconds: float) -> tuple[list[int], list[float]]:
    """How many objects of each class were looked at, each in a view drawn by a seed, and how many of these
    are not covered there (a fraction, where patches do not hold all objects whole).
    """
    data, classes = config.data, len(spec.train_set.classes)
    counts, missed = torch.zeros(classes, dtype=torch.int64), torch.zeros(classes, dtype=torch.float64)
    stream = torch.Generator().manual_seed(0)
    for objects, chosen in parts(spec.train_set, seconds):
        shown = list(views(objects, data.image_size, data.flips, data.augment.scales))
        found = coverage(spec.detector, [mixed(shown, stream)], chosen)
        if found is None:
            break
        counts += objects.labels[chosen].bincount(minlength=classes)
        missed.index_add_(0, objects.labels[chosen], 1 - (found.matched[0] * found.held).double())
    return counts.tolist(), missed.tolist()


def mixed(shown: list[Objects], stream: torch.Generator) -> Objects:
    """Each image in one of the views, drawn."""
    images, objects = shown[0].sizes, shown[0]
    view = torch.randint(len(shown), (len(images),), generator=stream)
    boxes = torch.stack([one.boxes for one in shown])[view[objects.image], torch.arange(len(objects))]
    sizes = torch.stack([one.sizes for one in shown])[view, torch.arange(len(images))]
    return replace(objects, boxes=boxes, sizes=sizes)
