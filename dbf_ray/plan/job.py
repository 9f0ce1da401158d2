"""A plan from a folder: look at the data, ask the rules, say what a person should know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from dbf_ray.build.detector import detector_options
from dbf_ray.config import Config, to_dict, with_overrides
from dbf_ray.plan.choices import Facts
from dbf_ray.plan.costs import Budget
from dbf_ray.plan.fingerprint import fingerprint, too_short
from dbf_ray.plan.folder import look, with_data
from dbf_ray.plan.given import on_gpu
from dbf_ray.plan.kinds import is_two_stage
from dbf_ray.plan.measured import measure
from dbf_ray.plan.objects import Objects, drawn, scaled
from dbf_ray.plan.patches import command
from dbf_ray.plan.patches import cut as cut_images
from dbf_ray.plan.plan import Plan, make_plan
from dbf_ray.plan.rules import duration, memory
from dbf_ray.plan.rules.image_size import choose_image_size
from dbf_ray.plan.written import shares, to_yaml

FEW = 20  # objects of a class, below which it is hardly trained or judged
UNEQUAL = {"images": 4, "objects": 500}  # ratio of the longest to the shortest, above which it is said


def plan_data(
    base: Config,
    given: frozenset[str],
    root: Path | None,
    patches: Path | None,
    say: Callable[[str], None],
    budget: Budget,
) -> dict[str, Any]:
    """See :func:`dbf_ray.plan_settings`.

    Args:
        base: what choices are laid over.
        given: its keys that stay.
        root: folder of the data; None: that of ``base``.
        patches: where images are cut to, if that is due; None: not.
        say: takes each step.
        budget: memory and time that a training may take.
    """
    detector_options(base.detector)  # refused before anything is read
    config = with_data(base, root, given)
    facts = _read(config, say)
    own = config.data.image_size if "data.image_size" in given else None
    if config.data.root is not None and (own is None or patches is not None):
        two_stages = is_two_stage(config.detector.name)
        size = choose_image_size(facts.objects, two_stages=two_stages, gpu=facts.gpu, largest=own)
        if size.patches and patches is None:
            return {"cut": command(config.data.root, config.data.name, size, "data.name" in given)}
        if patches is not None and not size.patches:
            say(f"images need not be cut, {patches} is not made")
        elif patches is not None:
            say(
                f"cutting images into patches of {size.side} px, {size.overlap} px shared, "
                f"in {patches}{size.warning}"
            )
            cut_images(config.data.root, config.data.name, patches, size, say)
            kept = {"data.name": "dota", "data.classes": facts.objects.classes}
            config = with_data(with_overrides(config, kept), patches, given | {"data.name"})
            facts = _read(config, say)
    if config.data.root is not None:  # in a fixed order, whatever is found next time
        config = with_overrides(config, {"data.classes": facts.objects.classes})
    facts = replace(facts, budget=budget, given=given, measure=lambda chosen: measure(chosen, say))
    plan = make_plan(facts, config, lambda name: say(f"rule: {name}"))
    return as_dict(plan, facts)


def _read(config: Config, say: Callable[[str], None]) -> Facts:
    facts = look(config, on_gpu(config))
    say(f"read: {len(facts.objects)} objects to train on in {len(facts.objects.sizes)} images")
    return facts


def as_dict(plan: Plan, facts: Facts) -> dict[str, Any]:
    """The plan as JSON holds it, and as YAML."""
    objects = facts.objects
    some = objects.pick(drawn(objects))
    found = [shares(part, some, plan.config) for part in (plan.before, plan.after)]
    size = plan.config.data.image_size
    return {
        "config": to_dict(plan.config),
        "choices": [vars(choice) for choice in plan.choices],
        "fingerprint": {"data_digest": facts.digest, **fingerprint(objects, size)},
        "coverage": {"before": found[0], "after": found[1]},
        "measured": asdict(facts.memory["costs"]) if "costs" in facts.memory else {},
        "notes": [
            *notes_of(facts, size),
            *memory.warnings(facts, plan.config),
            *duration.warnings(facts, plan.config),
        ],
        "short_objects": short_objects(facts, size),
        "yaml": to_yaml(plan),
    }


def notes_of(facts: Facts, image_size: int) -> list[str]:
    """What a person should know of the data."""
    objects, notes = facts.objects, []
    counts = objects.labels.bincount(minlength=len(objects.classes)).tolist()
    rare = [f"{name} ({count})" for name, count in zip(objects.classes, counts, strict=True) if count < FEW]
    if rare:
        notes.append(f"fewer than {FEW} objects to train on, too rare to be learned: {', '.join(rare)}")
    notes += unequal(objects)
    if facts.evaluated is None and facts.scenes < 2:
        notes.append("there is one image: what is trained on is evaluated on, which says little; add more")
    if facts.evaluated is not None:
        judged = facts.evaluated.labels.bincount(minlength=len(objects.classes)).tolist()
        missing = [name for name, count in zip(objects.classes, judged, strict=True) if not count]
        if missing:
            notes.append(f"nothing to be judged by in what is evaluated on: {', '.join(missing)}")
    return notes


def unequal(objects: Objects) -> list[str]:
    """What is said of images and of objects that no one image size suits."""
    found = []
    for things, sides, why in (
        ("images", objects.sizes.amax(-1), "each is scaled to the same long side, and its objects with it"),
        ("objects", objects.boxes[:, 2:4].amax(-1), "few levels of a detector see both"),
    ):
        low, high = sides.min().item(), sides.max().item()
        if high > UNEQUAL[things] * low:
            found.append(f"{things} of very different sizes, long sides of {low:.6g} to {high:.6g} px: {why}")
    return found


def short_objects(facts: Facts, image_size: int) -> list[dict[str, Any]]:
    """Each object whose short side will be below 3 pixels: ``file`` and ``line`` of its label, ``class`` and
    ``short_side``, pixels at ``image_size``; shortest first.
    """
    objects = facts.objects
    index = too_short(objects, image_size)
    sides = scaled(objects, image_size).boxes[index, 2:4].amin(-1).tolist()
    found = []
    for one, side in sorted(zip(index.tolist(), sides, strict=True), key=lambda pair: pair[1]):
        file, line = facts.place(one)
        found.append(
            {
                "file": None if file is None else str(file),
                "line": line,
                "class": objects.classes[int(objects.labels[one])],
                "short_side": round(side, 2),
            }
        )
    return found
