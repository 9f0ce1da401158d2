"""A plan from a folder: look at the data, ask the rules, say what a person should know."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dbf_ray.config import Config, to_dict, with_overrides
from dbf_ray.errors import DataError
from dbf_ray.plan.choices import Facts
from dbf_ray.plan.fingerprint import TOO_SHORT, fingerprint, too_short
from dbf_ray.plan.folder import look, with_data
from dbf_ray.plan.given import on_gpu
from dbf_ray.plan.kinds import is_two_stage
from dbf_ray.plan.objects import drawn
from dbf_ray.plan.plan import Plan, make_plan
from dbf_ray.plan.rules.image_size import ImageSize, choose_image_size
from dbf_ray.plan.written import shares, to_yaml

FEW = 20  # objects of a class, below which it is hardly trained or judged


def plan_data(
    base: Config, given: frozenset[str], root: Path | None, patches: Path | None, say: Callable[[str], None]
) -> dict[str, Any]:
    """See :func:`dbf_ray.plan_settings`.

    Args:
        base: what choices are laid over.
        given: its keys that stay.
        root: folder of the data; None: that of ``base``.
        patches: where images are cut to, if that is due; None: not.
        say: takes each step.
    """
    config = with_data(base, root, given)
    say("reading labels and headers of images")
    facts = look(config, on_gpu(config))
    if config.data.root is not None:  # in a fixed order, whatever is found next time
        config = with_overrides(config, {"data.classes": facts.objects.classes})
    if config.data.root is not None and "data.image_size" not in given:
        size = choose_image_size(facts.objects, two_stages=is_two_stage(config.detector.name), gpu=facts.gpu)
        if size.patches:
            if patches is None:
                return {"cut": _command(config.data.root, size)}
            raise DataError("not yet")
    plan = make_plan(facts, config, given, lambda name: say(f"rule: {name}"))
    return as_dict(plan, facts)


def _command(root: Path, size: ImageSize) -> str:
    folder = shlex.quote(str(root))
    return (
        f"95% of the objects have a short side of a cell only at {size.needed:.0f} px, more than fits: cut "
        "the images first, then plan on the patches\n"
        f"  dbf prepare-data split {folder} PATCHES --size {size.side} --overlap {size.overlap}\n"
        "  dbf plan PATCHES --out FILE.yaml\n"
        f"or both at once: dbf plan {folder} --patches PATCHES --out FILE.yaml"
    )


def as_dict(plan: Plan, facts: Facts) -> dict[str, Any]:
    """The plan as JSON holds it, and as YAML."""
    objects = facts.objects
    some = objects.pick(drawn(objects))
    found = [shares(part, some, plan.config) for part in (plan.before, plan.after)]
    size = plan.config.data.image_size
    return {
        "config": to_dict(plan.config),
        "choices": [vars(choice) for choice in plan.choices],
        "fingerprint": fingerprint(objects, size),
        "coverage": {"before": found[0], "after": found[1]},
        "notes": notes_of(facts, size),
        "yaml": to_yaml(plan, ["Made by dbf plan: settings that fit the data; docs/plan.md has the rules."]),
    }


def notes_of(facts: Facts, image_size: int) -> list[str]:
    """What a person should know of the data."""
    objects, notes = facts.objects, []
    counts = objects.labels.bincount(minlength=len(objects.classes)).tolist()
    rare = [f"{name} ({count})" for name, count in zip(objects.classes, counts, strict=True) if count < FEW]
    if rare:
        notes.append(f"fewer than {FEW} objects to train on, too rare to be learned: {', '.join(rare)}")
    if facts.evaluated is not None:
        judged = facts.evaluated.labels.bincount(minlength=len(objects.classes)).tolist()
        missing = [name for name, count in zip(objects.classes, judged, strict=True) if not count]
        if missing:
            notes.append(f"nothing to be judged by in what is evaluated on: {', '.join(missing)}")
    short = too_short(objects, image_size)
    if len(short):
        notes.append(f"{len(short)} objects will have a short side below {TOO_SHORT:g} px at {image_size}")
    return notes
