"""A plan as a configuration file that says why, and as JSON."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Mapping
from typing import Any

import torch
import yaml
from torch import Tensor

from dbf_ray.config import Config, to_dict
from dbf_ray.plan.choices import Choice
from dbf_ray.plan.coverage import FEW_POINTS, Coverage
from dbf_ray.plan.kinds import has_oriented_anchors, has_points
from dbf_ray.plan.objects import Objects, scaled
from dbf_ray.plan.plan import Plan
from dbf_ray.values import finite, flat

WIDTH = 110
SIZES = (16.0, 32.0, 64.0, 128.0)
"""Pixels of the resized image at which groups of sizes end: octaves, as levels are."""
SHOWN = (
    "data.name",
    "data.root",
    "data.train_split",
    "data.val_split",
    "data.classes",
    "detector.name",
    "detector.backbone",
    "training.batch_size",
    "training.optimizer",
    "training.precision",
)
"""Keys that are written also where they have the default's value."""


def to_yaml(plan: Plan) -> str:
    """The configuration: each key that is not the default's, those that a rule chose with figure and rule as
    a comment beside.
    """
    reasons = {choice.key: _reason(choice) for choice in plan.choices}
    kept = set(reasons) | set(SHOWN)
    defaults, values = flat(to_dict(Config())), flat(to_dict(plan.config))
    chosen = {key: value for key, value in values.items() if key in kept or value != defaults.get(key)}
    return "\n".join(_section(_tree(chosen), reasons)) + "\n"


def _tree(values: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *parents, leaf = key.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return tree


def _section(
    tree: Mapping[str, Any], reasons: Mapping[str, str], prefix: str = "", indent: str = ""
) -> list[str]:
    lines: list[str] = []
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and value:
            lines += [f"{indent}{name}:", *_section(value, reasons, f"{key}.", indent + "  ")]
            continue
        text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
        text = f"{name}: {text.removesuffix(chr(10)).removesuffix('...').strip()}"
        line = f"{indent}{text}"
        if key in reasons:
            beside = f"{line}  # {reasons[key]}"
            if len(beside) > WIDTH:
                comment = textwrap.wrap(reasons[key], WIDTH - len(indent) - 2)
                lines += [f"{indent}# {part}" for part in comment]
            else:
                line = beside
        lines.append(line)
    return lines


def _reason(choice: Choice) -> str:
    if choice.stays is None:
        return f"{choice.why} ({choice.rule})" if choice.why else choice.rule
    if choice.stays == choice.value:
        return f"as given, and as the rule would choose ({choice.rule})"
    why = f": {choice.why}" if choice.why else ""
    return f"as given; the rule would choose {choice.value}{why} ({choice.rule})"


def shares(found: Coverage | None, objects: Objects, config: Config) -> dict[str, Any] | None:
    """Coverage as JSON holds it.

    Args:
        found: of ``objects``; None where the detector is of a kind that is not known.
        objects: those looked at, as labelled.
        config: the detector, and the size that images are resized to.

    Returns:
        ``all`` and ``difficult``; ``classes`` by name and ``sizes`` by the square root of the area in pixels
        of the resized image, both without difficult objects. Each has ``objects`` and ``covered``; with
        oriented anchors ``at_0.5`` and ``at_0.4`` (the share that overlaps one by that much); with points
        ``under_3_points``. Shares are over all views, null without objects.
    """
    if found is None:
        return None
    name, counted = config.detector.name, ~objects.difficult
    boxes = scaled(objects, config.data.image_size).boxes
    sizes = torch.bucketize((boxes[:, 2] * boxes[:, 3]).sqrt(), torch.tensor(SIZES).double(), right=True)

    def group(which: Tensor) -> dict[str, Any]:
        row: dict[str, Any] = {"objects": int(which.sum()), "covered": found.share(which)}
        if has_oriented_anchors(name):
            row |= {f"at_{least}": found.share_of(least, which) for least in (0.5, 0.4)}
        if has_points(name):
            row["under_3_points"] = 1 - found.share_of(FEW_POINTS, which)
        return row

    labels = dict(enumerate(objects.classes))
    classes = {label: group(counted & (objects.labels == row)) for row, label in labels.items()}
    for row, label in labels.items():  # no patch holds any of them
        if objects.held is not None and objects.held[row] < 1 and not classes[label]["objects"]:
            classes[label]["covered"] = 0.0
    return finite(
        {
            "all": group(counted),
            "difficult": group(objects.difficult),
            "classes": classes,
            "sizes": {label: group(counted & (sizes == row)) for row, label in enumerate(size_names())},
        }
    )


def size_names() -> list[str]:
    """What the groups of sizes are called."""
    between = [f"{low:g} to {high:g} px" for low, high in itertools.pairwise(SIZES)]
    return [f"below {SIZES[0]:g} px", *between, f"{SIZES[-1]:g} px and more"]
