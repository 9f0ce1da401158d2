from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from dbf_ray.detectors.backbones import StagedBackbone
from dbf_ray.errors import ConfigError
from dbf_ray.freezing import budget, check_backbone, effective_prefix


def three_stages(**options: Any) -> StagedBackbone:
    return StagedBackbone(
        [nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)) for _ in range(3)], [3] * 3, [1] * 3, **options
    )


def test_a_backbone_without_stages_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"must have \.stages, a non-empty nn\.ModuleList .* Linear\.stages is NoneType"
    ):
        check_backbone(nn.Linear(2, 2))
    with pytest.raises(ConfigError, match=r"non-empty nn\.ModuleList"):
        check_backbone(StagedBackbone([], [], []))


@pytest.mark.parametrize(
    ("attribute", "value"),
    [("num_frozen", 4), ("num_frozen", None), ("always_frozen", -1), ("always_frozen", 1.0)],
)
def test_attributes_out_of_range_are_refused(attribute: str, value: Any) -> None:
    backbone = three_stages()
    setattr(backbone, attribute, value)
    with pytest.raises(
        ConfigError, match=rf"backbone StagedBackbone: {attribute} must be an integer in 0\.\.3, got {value}"
    ):
        check_backbone(backbone)


def test_a_wrong_number_of_stages_is_refused() -> None:
    class Miscounted(StagedBackbone):
        num_stages = 2  # type: ignore[assignment]

    with pytest.raises(ConfigError, match="num_stages must be the number of stages, 3, got 2"):
        check_backbone(Miscounted([nn.Linear(2, 2) for _ in range(3)], [2] * 3, [1] * 3))


def test_parameters_outside_of_the_stages_or_shared_by_two_are_refused() -> None:
    backbone = three_stages()
    backbone.norm = nn.LayerNorm(3)
    with pytest.raises(
        ConfigError, match=r"outside of all stages: norm\.weight, norm\.bias; move them into the stage"
    ):
        check_backbone(backbone)
    shared = three_stages()
    shared.stages[2][0].weight = shared.stages[0][0].weight
    with pytest.raises(ConfigError, match=r"0\.weight of stage 3 is shared with stage 1"):
        check_backbone(shared)


def test_effective_prefix_is_the_larger_one() -> None:
    assert [[effective_prefix(n, 3, always) for n in range(4)] for always in range(4)] == [
        [0, 1, 2, 3],
        [1, 1, 2, 3],
        [2, 2, 2, 3],
        [3, 3, 3, 3],
    ]
    for n, always in ((4, 0), (-1, 0), (0, 4), (True, 0), (1.0, 0)):
        with pytest.raises(ConfigError, match=r"must be an integer in 0\.\.3, got"):
            effective_prefix(n, 3, always)  # type: ignore[arg-type]


def test_budget_counts_epochs_that_train_some_of_the_backbone() -> None:
    assert budget([0, 4, 4, 0, 3], 4) == 3
    assert budget([0, 1, 0], 4, always_frozen=4) == 0
    assert budget([], 4) == 0
    with pytest.raises(ConfigError, match=r"num_frozen must be an integer in 0\.\.4, got 5"):
        budget([0, 5], 4)


def test_the_lazy_names_of_the_package() -> None:
    import dbf_ray.freezing as package

    assert {name for name in package.__all__ if getattr(package, name, None) is None} == set()
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = package.nothing
