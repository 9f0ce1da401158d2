"""Detectors on a GPU: the losses and gradients of the CPU."""

from __future__ import annotations

import pytest
import torch

from dbf_ray.detectors import DETECTORS, make_detector
from dbf_ray.geometry import batched_nms_rotated, box_iou_rotated


@pytest.mark.gpu
@pytest.mark.parametrize("name", DETECTORS)
def test_losses_and_detections_are_those_of_the_cpu(name: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device, there is none")
    torch.manual_seed(0)
    detector = make_detector(name, backbone="resnet18", num_classes=2, fpn_channels=32, head_convs=1)
    images = [torch.rand(3, 96, 128), torch.rand(3, 128, 96)]
    boxes = torch.tensor([[60.0, 50, 50, 20, 30], [30, 70, 30, 12, -60]])
    targets = [
        {"boxes": boxes, "labels": torch.tensor([0, 1]), "seed": 1},
        {"boxes": boxes[:0], "labels": torch.zeros(0).long(), "seed": 2},
    ]
    wanted = detector(images, targets)
    torch.stack(list(wanted.values())).sum().backward()
    gradient = torch.stack([p.grad.norm() for p in detector.parameters()]).norm()
    detector.zero_grad()
    moved = detector.cuda()
    found = moved(images, targets)
    torch.stack(list(found.values())).sum().backward()
    for key, value in wanted.items():
        assert found[key].item() == pytest.approx(value.item(), rel=1e-3)
    assert torch.stack([p.grad.norm() for p in moved.parameters()]).norm().item() == pytest.approx(
        gradient.item(), rel=1e-2
    )
    with torch.autocast("cuda", torch.bfloat16):
        assert all(bool(loss.isfinite()) for loss in moved(images, targets).values())
    for one in moved.eval()(images):
        assert one["boxes"].is_cuda
        assert bool(one["boxes"].isfinite().all())


@pytest.mark.gpu
def test_geometry_on_a_gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device, there is none")
    boxes = torch.cat(
        [torch.rand(300, 2) * 200, torch.rand(300, 2) * 40 + 4, torch.rand(300, 1) * 180 - 90], -1
    )
    scores, labels = torch.rand(300), torch.arange(300) % 3
    torch.testing.assert_close(
        box_iou_rotated(boxes.cuda(), boxes.cuda()).cpu(), box_iou_rotated(boxes, boxes), atol=1e-6, rtol=0
    )
    kept = batched_nms_rotated(boxes.cuda(), scores.cuda(), labels.cuda(), 0.1)
    assert torch.equal(kept.cpu(), batched_nms_rotated(boxes, scores, labels, 0.1))
