"""Plans: whatever the objects, a configuration comes out, and one that says why."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dbf_ray.build.detector import detector_options
from dbf_ray.config import Config, load_config, with_overrides
from dbf_ray.detectors.retinanet import RotatedRetinaNet
from dbf_ray.geometry import canonicalize
from dbf_ray.plan import plan as plan_module
from dbf_ray.plan.choices import Choice
from dbf_ray.plan.job import unequal
from dbf_ray.plan.objects import Objects
from dbf_ray.plan.plan import make_plan
from dbf_ray.plan.written import to_yaml
from tests.plan.random_objects import known, spread

DETECTORS = ["rotated_retinanet", "rotated_fcos", "oriented_rcnn", "rotated_faster_rcnn"]
SIDES = st.sampled_from([1e-3, 1.0, 7.0, 60.0, 1e3, 1e4])


@st.composite
def wild(draw: st.DrawFn) -> Objects:
    """A few objects of any size on images of any size, some of them off their image."""
    images = draw(st.lists(st.tuples(st.integers(1, 12000), st.integers(1, 12000)), min_size=1, max_size=3))
    count = draw(st.integers(1, 4))
    place, angle = st.floats(-100, 12000), st.floats(-90, 89)
    rows = [draw(st.tuples(place, place, SIDES, SIDES, angle)) for _ in range(count)]
    return Objects(
        canonicalize(torch.tensor(rows, dtype=torch.float64)),
        torch.tensor(draw(st.lists(st.integers(0, 2), min_size=count, max_size=count))),
        torch.tensor(draw(st.lists(st.booleans(), min_size=count, max_size=count))),
        torch.tensor(sorted(draw(st.integers(0, len(images) - 1)) for _ in range(count))),
        torch.tensor(images),
        ["a", "b", "never"],
    )


@pytest.mark.parametrize("name", DETECTORS)
@given(objects=wild())
@settings(max_examples=3)
def test_a_plan_comes_out_whatever_the_objects(name: str, objects: Objects) -> None:
    base = with_overrides(Config(), {"detector.name": name})
    plan = make_plan(known(objects), base)
    assert plan.config.training.epochs >= 12
    assert 256 <= plan.config.data.image_size <= 512
    for found in (plan.before, plan.after):
        assert found is not None
        assert found.matched.shape == (8 if found is plan.after else found.matched.shape[0], len(objects))
        assert math.isfinite(found.strength.sum())
    assert with_overrides(base, {c.key: c.value for c in plan.choices}) == plan.config


def test_what_is_given_stays_and_the_plan_says_what_it_would_have_chosen() -> None:
    objects = spread(40, 60, 12)
    base = with_overrides(Config(), {"detector.anchor_ratios": [3.0], "training.epochs": 7})
    plan = make_plan(known(objects, given=frozenset({"detector.anchor_ratios", "training.epochs"})), base)
    assert (plan.config.detector.anchor_ratios, plan.config.training.epochs) == ([3.0], 7)
    stays = {choice.key: choice for choice in plan.choices if choice.stays is not None}
    assert set(stays) == {"detector.anchor_ratios", "training.epochs"}
    assert stays["training.epochs"].value >= 12
    assert stays["detector.anchor_ratios"].value != [3.0]
    assert "as given; the rule would choose" in to_yaml(plan)


def test_points_are_proposed_where_no_anchors_cover_enough() -> None:
    tiny = spread(60, 3, 2, side=256)
    fitting = spread(60, 60, 12)
    names = [make_plan(known(objects), Config()).config.detector.name for objects in (tiny, fitting)]
    assert names == ["rotated_fcos", "rotated_retinanet"]


def test_another_detector_is_only_proposed_where_options_of_this_one_are_given() -> None:
    base = with_overrides(Config(), {"detector.anchor_ratios": [3.0]})
    plan = make_plan(known(spread(60, 3, 2, side=256), given=frozenset({"detector.anchor_ratios"})), base)
    (proposed,) = (choice for choice in plan.choices if choice.key == "detector.name")
    assert (plan.config.detector.name, proposed.value) == ("rotated_retinanet", "rotated_fcos")
    detector_options(plan.config.detector)


def test_points_are_not_proposed_where_they_cover_as_much() -> None:
    some = spread(5, 60, 12)
    some.boxes[:3, 2:4] = 1e-3
    plan = make_plan(known(some), Config())
    assert plan.config.detector.name == "rotated_retinanet"


class Own(RotatedRetinaNet):
    """A detector from outside, without some of the options for anchors."""

    def __init__(
        self,
        backbone: Any,
        num_classes: int,
        *,
        fpn_channels: int = 8,
        head_convs: int = 0,
        anchor_angles: Sequence[float] = (0.0,),
    ) -> None:
        super().__init__(
            backbone,
            num_classes,
            fpn_channels=fpn_channels,
            head_convs=head_convs,
            anchor_angles=anchor_angles,
        )


class Choosing(Own):
    """One whose objects choose their anchors by a rule of its own."""

    def match(self, anchors: Tensor, boxes: Tensor) -> Tensor:
        raise NotImplementedError


@pytest.mark.parametrize("name", ["Own", "Choosing"])
def test_options_that_a_detector_has_not_are_not_set_nor_is_its_own_rule_guessed(name: str) -> None:
    base = with_overrides(Config(), {"detector.name": f"{__name__}:{name}"})
    plan = make_plan(known(spread(40, 60, 12)), base)
    assert not detector_options(plan.config.detector)
    assert (plan.after is None) == (name == "Choosing")


@pytest.mark.parametrize("given", [{"positive_iou": 0.42}, {"negative_iou": 0.47}], ids=str)
def test_thresholds_stay_in_order(given: dict[str, float]) -> None:
    objects, base = spread(40, 60, 12), with_overrides(Config(), {"detector": given})
    keys = frozenset(f"detector.{key}" for key in given)
    detector_options(make_plan(known(objects, given=keys), base).config.detector)


@pytest.mark.parametrize(
    ("sizes", "long", "said"),
    [
        ((60, 9000), 20, ["images of very different sizes"]),
        ((300, 400), 20, []),
        ((300, 400), 1e4, ["objects of very different sizes"]),
    ],
)
def test_sizes_that_no_image_size_suits_are_said(
    sizes: tuple[int, int], long: float, said: list[str]
) -> None:
    objects = spread(4, 10, 5)
    objects.boxes[0, 2] = long
    found = unequal(replace(objects, sizes=torch.tensor([[side, 50] for side in sizes * 2])))
    assert [line.split(",")[0] for line in found] == said


def test_a_rule_can_be_exchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    def squares(facts: object, config: object) -> list[Choice]:
        return [Choice("detector.anchor_ratios", [1.0], "all are square", "mine")]

    monkeypatch.setitem(plan_module.RULES, "anchors", squares)
    plan = make_plan(known(spread(8, 30, 10)), Config())
    assert plan.config.detector.anchor_ratios == [1.0]
    assert "anchor_ratios: [1.0]  # all are square (mine)" in to_yaml(plan)


@pytest.mark.parametrize(
    "classes", [["ship"], ["no", "1e5", "null", "2024-01-01"], ["a: b", "#x", "ü", "[a]"]], ids=str
)
def test_the_file_is_the_configuration(classes: list[str], tmp_path: Path) -> None:
    base = with_overrides(Config(), {"data.classes": classes, "data.root": tmp_path})
    plan = make_plan(known(spread(8, 30, 10)), base)
    (tmp_path / "my.yaml").write_text(to_yaml(plan), encoding="utf-8")
    assert load_config(tmp_path / "my.yaml") == plan.config
    assert max(map(len, to_yaml(plan).splitlines())) <= max(110, len(str(tmp_path)) + 12)
