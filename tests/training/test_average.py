"""The moving average of weights against a slow one, written out."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from dbf_ray.detectors import make_detector
from dbf_ray.freezing import Freezer
from dbf_ray.training.average import WeightAverage


def detector() -> Any:
    torch.manual_seed(0)
    return make_detector(
        "rotated_retinanet", backbone="resnet18", num_classes=2, fpn_channels=8, head_convs=0, norm_eval=False
    )


def stir(model: Any) -> None:
    with torch.no_grad():
        for tensor in [*(p for p in model.parameters() if p.requires_grad), *model.buffers()]:
            tensor += torch.randn_like(tensor) if tensor.is_floating_point() else 3


@pytest.mark.parametrize("decay", [0.5, 0.97])
def test_it_equals_the_sum_written_out(decay: float) -> None:
    model = detector()
    average, history = WeightAverage(model, decay), []
    for _ in range(6):
        stir(model)
        average.update(model)
        history.append({name: tensor.detach().clone() for name, tensor in model.state_dict().items()})
    expected: dict[str, Tensor] = {name: tensor.double() for name, tensor in history[0].items()}
    for t, weights in enumerate(history[1:], start=1):
        keep = min(decay, (1 + t) / (10 + t))
        expected = {name: keep * expected[name] + (1 - keep) * weights[name].double() for name in expected}
    for name, tensor in average.detector.state_dict().items():
        if tensor.is_floating_point():
            assert torch.allclose(tensor.double(), expected[name], atol=1e-5), name
        else:
            assert torch.equal(tensor, history[-1][name]), name  # a count of batches


def test_it_goes_on_moving_towards_frozen_weights_and_touches_no_weight() -> None:
    model = detector()
    average = WeightAverage(model, 0.5)
    for _ in range(2):
        stir(model)
        average.update(model)
    Freezer(model.backbone).apply(4)
    distances = []
    before = copy.deepcopy(model.state_dict())
    for _ in range(3):
        average.update(model)
        pairs = zip(average.detector.backbone.parameters(), model.backbone.parameters(), strict=True)
        distances.append(sum(float((a - b).abs().sum()) for a, b in pairs))
    assert distances[0] > distances[1] > distances[2] > 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(p.requires_grad for p in average.detector.parameters())


def test_a_checkpoint_keeps_weights_buffers_and_the_count() -> None:
    model = detector()
    one, two = WeightAverage(model, 0.97), WeightAverage(detector(), 0.97)
    for round_number in range(5):
        stir(model)
        one.update(model)
        if round_number == 2:
            two.load_state_dict(copy.deepcopy(one.state_dict()))
        if round_number > 2:
            two.update(model)
    assert all(
        torch.equal(a, b)
        for a, b in zip(one.detector.state_dict().values(), two.detector.state_dict().values(), strict=True)
    )
    assert one.state_dict()["updates"] == two.state_dict()["updates"] == 5
