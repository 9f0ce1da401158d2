"""The rule for anchors of a proposal network."""

from __future__ import annotations

import pytest

from dbf_ray.config import Config, with_overrides
from dbf_ray.plan.plan import covered
from dbf_ray.plan.rules.proposals import rule
from tests.plan.random_objects import known, spread

TWO_STAGES = with_overrides(Config(), {"detector.name": "oriented_rcnn"})


def test_the_references_stay_where_they_cover_enough() -> None:
    assert rule(known(spread(60, 60, 30)), TWO_STAGES) == []
    assert rule(known(spread(60, 3, 2)), Config()) == []  # it has no proposals


@pytest.mark.parametrize(("long", "short"), [(10, 8), (5, 4)])
def test_small_objects_get_smaller_anchors(long: float, short: float) -> None:
    facts = known(spread(60, long, short))
    choices = {choice.key: choice for choice in rule(facts, TWO_STAGES)}
    scales = choices["detector.anchor_scales"].value
    assert min(scales) < 8
    planned = with_overrides(TWO_STAGES, {key: choice.value for key, choice in choices.items()})
    before, after = (covered(facts.objects, config) for config in (TWO_STAGES, planned))
    assert before is not None
    assert after is not None
    assert after.share() > before.share()
