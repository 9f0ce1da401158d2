"""bf16 autocast and channels-last memory in every detector: what is float32 stays so, and the numbers are
near.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

import dbf_ray
from dbf_ray.detectors import DETECTORS, Detector, make_detector
from dbf_ray.detectors.two_stage import TwoStageDetector

PACKAGE, VISION = Path(dbf_ray.__file__).parent, Path(torchvision.__file__).parent
ONE_STAGE = {"encode", "decode", "sigmoid_focal_loss", "batched_nms_rotated", "box_iou_rotated"}
TWO_STAGE = {
    "encode",
    "decode",
    "binary_cross_entropy",
    "cross_entropy",
    "l1_loss",
    "batched_nms_rotated",
    "batched_nms",
    "box_iou",
}
IN_FLOAT32 = {
    "rotated_retinanet": ONE_STAGE | {"l1_loss", "assign_max_iou"},
    "rotated_fcos": {*ONE_STAGE, "rotated_iou_loss", "binary_cross_entropy", "assign_points"}
    - {"box_iou_rotated"}
    | {"box_iou_rotated_aligned"},
    "rotated_faster_rcnn": TWO_STAGE | {"roi_align", "assign_by_iou"},
    "oriented_rcnn": TWO_STAGE | {"roi_align_rotated", "box_iou_rotated"},
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=DETECTORS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def small(name: str, **options: Any) -> Detector:
    """With everything sampled, so that a score that is rounded otherwise does not change what is drawn."""
    torch.manual_seed(0)
    if issubclass(DETECTORS[name], TwoStageDetector):
        options = {"roi_channels": 32, "rpn_samples": None, "roi_samples": None, **options}
    return make_detector(name, backbone="resnet18", num_classes=2, fpn_channels=16, head_convs=1, **options)


def images() -> list[Tensor]:
    generator = torch.Generator().manual_seed(7)
    return [torch.rand(3, 64, 64, generator=generator), torch.rand(3, 40, 60, generator=generator)]


def targets() -> list[dict[str, Any]]:
    boxes = torch.tensor([[30.0, 25.0, 40.0, 16.0, 20.0], [50.0, 50.0, 20.0, 12.0, -50.0]])
    return [
        {"boxes": boxes, "labels": torch.tensor([0, 1]), "seed": 7},
        {"boxes": boxes[:1], "labels": torch.tensor([1]), "seed": 8},
    ]


def bf16(enabled: bool = True) -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, enabled=enabled)


def gradients(detector: Detector, losses: Any) -> dict[str, Tensor]:
    detector.zero_grad()
    torch.stack(list(losses.values())).sum().backward()
    assert [name for name, p in detector.named_parameters() if p.grad is None] == []
    return {name: p.grad.clone() for name, p in detector.named_parameters() if p.grad is not None}


def apart(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Norm of the difference over the norm, of all gradients together."""
    difference = torch.cat([(found[key] - expected[key]).flatten() for key in expected])
    return float(difference.norm() / torch.cat([value.flatten() for value in expected.values()]).norm())


def round_as_bf16(detector: Detector) -> Detector:
    """A float32 detector whose layers have weights, inputs and outputs rounded to bf16; gradients pass as if
    they were not.
    """

    def rounded(x: Tensor) -> Tensor:
        return x + (x.detach().bfloat16().float() - x.detach())

    for key, module in detector.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and not key.startswith("neck.extra"):
            module.weight.data = module.weight.data.bfloat16().float()
            module.register_forward_pre_hook(lambda module, inputs: (rounded(inputs[0]),))
            module.register_forward_hook(lambda module, inputs, output: rounded(output))
    return detector


def test_losses_and_gradients_are_those_of_float32_but_for_rounding(name: str) -> None:
    """How far rounding moves gradients (random weights, 1 to 40 %) says a detector without autocast that
    rounds by itself.
    """
    detector, rounding = small(name), round_as_bf16(small(name))
    exact = detector(images(), targets())
    expected = gradients(detector, exact)
    with bf16():
        rough = detector(images(), targets())
    found = gradients(detector, rough)
    for key, loss in exact.items():
        assert rough[key].dtype == torch.float32
        torch.testing.assert_close(rough[key], loss, rtol=0.02, atol=0)
    assert all(
        bool(gradient.isfinite().all()) and gradient.dtype == torch.float32 for gradient in found.values()
    )
    allowed = 3 * apart(gradients(rounding, rounding(images(), targets())), expected)
    assert 0 < apart(found, expected) < allowed


@contextlib.contextmanager
def calls_seen() -> Iterator[list[tuple[str, str, bool]]]:
    """(file, function, whether autocast is on) of every Python call."""
    seen: list[tuple[str, str, bool]] = []

    def note(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            seen.append((frame.f_code.co_filename, frame.f_code.co_name, torch.is_autocast_enabled("cpu")))

    sys.setprofile(note)
    try:
        yield seen
    finally:
        sys.setprofile(None)


def test_boxes_overlaps_pooling_and_losses_are_outside_of_autocast(name: str) -> None:
    detector = small(name, score_threshold=0.0, detections_per_image=50)
    parts = ("losses", "assigners", "samplers", "postprocess", "anchors", "regions")
    float32 = [
        *map(str, (PACKAGE / "geometry").glob("*.py")),
        *(str(PACKAGE / "detectors" / f"{part}.py") for part in parts),
    ]
    float32 += [str(VISION / "ops" / f"{part}.py") for part in ("boxes", "roi_align")]
    with bf16(), calls_seen() as seen:
        detector(images(), targets())
        detector.eval()(images())
    outside = {function for file, function, on in seen if file in float32 and not on}
    assert {(file, function) for file, function, on in seen if file in float32 and on} == set()
    assert IN_FLOAT32[name] <= outside, IN_FLOAT32[name] - outside
    heads = [
        on
        for file, function, on in seen
        if file == str(PACKAGE / "detectors" / "heads.py") and function == "forward"
    ]
    assert heads == [True, True]


def test_the_network_itself_runs_in_bf16(name: str) -> None:
    detector = small(name)
    seen: dict[str, torch.dtype] = {}
    for key, module in detector.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(
                lambda module, inputs, output, key=key: seen.update({key: output.dtype})
            )
    with bf16():
        detector(images()[:1], targets()[:1])
    assert {key for key, dtype in seen.items() if dtype == torch.float32} == {
        key for key in seen if key.startswith("neck.extra")
    }
    assert len(seen) > 30


def test_detections_are_float32(name: str) -> None:
    detector = small(name, score_threshold=0.0, detections_per_image=50).eval()
    with bf16():
        found = detector(images())
    assert all(len(one["scores"]) for one in found)
    assert {(one["boxes"].dtype, one["scores"].dtype) for one in found} == {(torch.float32, torch.float32)}


def test_detections_in_one_autocast_leave_nothing_to_training(name: str) -> None:
    """autocast keeps copies of weights until it ends: one made for detections must neither cost a gradient
    nor serve after the weights have moved.
    """
    fresh, used = small(name), small(name)
    with torch.no_grad():
        for p in fresh.parameters():
            p.mul_(0.9)
    with bf16():
        expected = fresh(images()[:1], targets()[:1])
    with bf16():
        used.eval()(images()[:1])
        with torch.no_grad():
            for p in used.parameters():
                p.mul_(0.9)
        losses = used.train()(images()[:1], targets()[:1])
    assert {key: loss.item() for key, loss in losses.items()} == {
        key: loss.item() for key, loss in expected.items()
    }
    expected_gradients, found = gradients(fresh, expected), gradients(used, losses)
    assert all(torch.equal(found[key], gradient) for key, gradient in expected_gradients.items())


def test_channels_last_memory_changes_nothing(name: str) -> None:
    plain, last = small(name), small(name).to(memory_format=torch.channels_last)
    expected, losses = plain(images(), targets()), last(images(), targets())
    for key, loss in expected.items():
        torch.testing.assert_close(losses[key], loss, rtol=1e-5, atol=0)
    assert apart(gradients(last, losses), gradients(plain, expected)) < 1e-3
    with bf16():
        rough = last(images(), targets())
    for key, loss in expected.items():
        torch.testing.assert_close(rough[key], loss, rtol=0.02, atol=0)
