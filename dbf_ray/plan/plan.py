"""From a data set to a configuration: the rules, one after another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dbf_ray.config import Config, DetectorConfig, to_dict, with_overrides
from dbf_ray.detectors import own_options
from dbf_ray.plan.choices import Choice, Facts, Rule
from dbf_ray.plan.coverage import Coverage, coverage
from dbf_ray.plan.kinds import bare_detector
from dbf_ray.plan.objects import Objects, drawn, views
from dbf_ray.plan.rules import (
    anchors,
    duration,
    holdout,
    image_size,
    memory,
    optimizer,
    points,
    proposals,
    weights,
)
from dbf_ray.plan.rules import views as orientations
from dbf_ray.values import flat

RULES: dict[str, Rule] = {
    "images to evaluate on": holdout.rule,
    "image size": image_size.rule,
    "orientations": orientations.rule,
    "detector": points.detector_rule,
    "anchors": anchors.rule,
    "anchors of proposals": proposals.rule,
    "points": points.rule,
    "pretrained weights": weights.rule,
    "batch": optimizer.batch_rule,
    "memory": memory.rule,
    "epochs": duration.rule,
    "optimization": optimizer.rule,
}
"""In the order in which they look at what the ones before have chosen. A rule can be exchanged here."""


@dataclass(frozen=True)
class Plan:
    """A configuration, and why.

    Attributes:
        config: with all that was chosen.
        choices: what the rules chose, in their order, and what they would have chosen.
        before, after: coverage with the detector's own defaults and as planned; None where it is of a kind
            that is not known.
    """

    config: Config
    choices: list[Choice]
    before: Coverage | None
    after: Coverage | None


def make_plan(facts: Facts, base: Config, step: Callable[[str], None] = lambda _: None) -> Plan:
    """Choose what fits.

    Args:
        facts: what is known; which keys of ``base`` stay, whatever a rule says, among it.
        base: what choices are laid over.
        step: called with the name of each rule before it is asked.
    """
    config, choices = base, []
    for name, rule in RULES.items():
        step(name)
        chosen = rule(facts, config)
        for choice in chosen if all(fits(choice, config) for choice in chosen) else ():
            if choice.key in facts.given or unfit(choice, config):
                now = flat(to_dict(config)).get(choice.key)
                choices.append(Choice(**{**vars(choice), "stays": now}))
                continue
            config = with_overrides(config, {choice.key: choice.value})
            choices.append(choice)
    step("coverage")
    return Plan(config, choices, covered(facts.objects, config, usual=True), covered(facts.objects, config))


def fits(choice: Choice, config: Config) -> bool:
    """Whether there is such a key: a detector from outside need not have what others of its kind have."""
    section, _, option = choice.key.partition(".")
    known = (*DetectorConfig.model_fields, *own_options(config.detector.name))
    return section != "detector" or option in known


def unfit(choice: Choice, config: Config) -> bool:
    """Whether it is another detector, which has not all of the options that are set."""
    own = config.detector.parameters
    return choice.key == "detector.name" and not set(own) <= set(own_options(choice.value))


def covered(objects: Objects, config: Config, usual: bool = False) -> Coverage | None:
    """What a configured detector makes of at most 3,000 objects in all views; ``usual``: with the detector's
    own defaults.
    """
    options = {} if usual else config.detector.parameters
    detector = bare_detector(config.detector.name, config.detector.backbone, options)
    shown = views(objects, config.data.image_size, config.data.flips, config.data.augment.scales)
    return coverage(detector, shown, drawn(objects))
