"""The rotated RetinaNet: shapes, the reference's assignment, losses over split batches, learning."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dbf_ray.detectors import Detector, make_detector
from dbf_ray.detectors.anchors import RotatedAnchors
from dbf_ray.detectors.assigners import BACKGROUND, IGNORED, assign_max_iou
from dbf_ray.detectors.fpn import FPN
from dbf_ray.detectors.retinanet import OCTAVE_SCALES
from dbf_ray.errors import ConfigError, DataError
from dbf_ray.geometry import box_iou_rotated


def small(num_classes: int = 2, **options: object) -> Detector:
    torch.manual_seed(0)
    return make_detector(
        "rotated_retinanet",
        backbone="resnet18",
        num_classes=num_classes,
        fpn_channels=16,
        head_convs=1,
        **options,
    )


def target(*boxes: tuple[float, ...], label: int = 0) -> dict[str, Tensor]:
    return {"boxes": torch.tensor(boxes).reshape(-1, 5), "labels": torch.full((len(boxes),), label)}


def test_anchors_and_assignment_equal_the_reference(shared: Path) -> None:
    data = json.loads((shared / "reference" / "roi_ops_and_assignment.json").read_text())[
        "assign_retina_128px"
    ]
    anchors = RotatedAnchors([8, 16, 32, 64, 128], 4.0, OCTAVE_SCALES, (1.0, 2.0, 0.5), (0.0,))
    levels = anchors([(16, 16), (8, 8), (4, 4), (2, 2), (1, 1)])
    assert sum(map(len, levels)) == data["n_anchors"]
    objects = torch.tensor(data["gts"])
    objects[:, 4] = -torch.rad2deg(objects[:, 4])
    for level, first in zip(levels, data["first_9_anchors_per_level"], strict=True):
        wanted = torch.tensor(first)
        assert (box_iou_rotated(level[:9], wanted).diagonal() > 0.9999).all()
    assigned = assign_max_iou(torch.cat(levels), objects)
    expected = torch.full((data["n_anchors"],), BACKGROUND)
    expected[data["pos_idx"]] = torch.tensor(data["pos_gt"])
    expected[data["ignore_idx"]] = IGNORED
    assert torch.equal(assigned, expected)


def test_training_gives_losses_and_eval_gives_canonical_detections() -> None:
    detector = small(score_threshold=0.0, topk_candidates=20)
    images = [torch.randint(0, 256, (3, 60, 90), dtype=torch.uint8), torch.rand(3, 64, 40)]
    losses = detector(images, [target((30, 30, 40, 10, 20)), target()])
    assert isinstance(losses, dict)
    assert set(losses) == {"classification", "regression"}
    assert all(
        loss.ndim == 0 and loss.dtype == torch.float32 and torch.isfinite(loss) for loss in losses.values()
    )
    detector.eval()
    for found in detector(images):
        assert found["boxes"].shape == (len(found["scores"]), 5)
        assert (found["scores"].diff() <= 0).all()
        assert (found["boxes"][:, 2] >= found["boxes"][:, 3]).all()
        assert found["labels"].min() >= 0
        assert found["labels"].max() < 2


def test_a_batch_without_objects_gives_every_trained_parameter_a_gradient() -> None:
    detector = small()
    losses = detector([torch.rand(3, 64, 64)], [target()])
    sum(losses.values()).backward()
    unused = [name for name, parameter in detector.named_parameters() if parameter.grad is None]
    assert unused == []


def test_bf16_losses_are_float32_and_near() -> None:
    detector = small()
    arguments = ([torch.rand(3, 64, 64)], [target((30, 30, 40, 10, 20))])
    exact = detector(*arguments)
    with torch.autocast("cpu", torch.bfloat16):
        rough = detector(*arguments)
    for name, loss in exact.items():
        assert rough[name].dtype == torch.float32
        torch.testing.assert_close(rough[name], loss, rtol=0.05, atol=0.02)


def test_bf16_gradients_are_right_on_maps_one_pixel_wide() -> None:
    torch.manual_seed(0)
    # the extra levels see 2 x 2, then 1 x 1
    pyramid, features = (
        FPN([8, 8, 8], 8),
        [torch.randn(2, 8, s, s) for s in (8, 4, 2)],
    )
    gradients = []
    for rough in (False, True, True):
        pyramid.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=rough):
            sum(x.float().square().sum() for x in pyramid(features)).backward()
        gradients.append([p.grad.clone() for p in pyramid.parameters()])
    exact, first, second = gradients
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    for a, b in zip(exact, first, strict=True):
        assert (a - b).norm() <= 0.05 * a.norm()


def test_an_object_at_the_border_keeps_an_anchor_of_its_own() -> None:
    detector = small(num_classes=1)
    # The only anchors that overlap this object well lie on cells beyond the image's own padding, where
    # nothing is trained.
    batch = detector.prepare(
        [torch.rand(3, 64, 64), torch.rand(3, 128, 128)], [target((62, 62, 30, 30, 0)), target()]
    )
    assert batch.normalizers.item() >= 1
    assert (batch.assignment.labels[0] == IGNORED).any()


def test_frozen_stages_and_norms_stay_in_eval_mode() -> None:
    detector = small(norm_eval=False)
    detector.backbone.num_frozen = 2
    detector.train()
    stages = detector.backbone.stages
    assert not any(module.training for stage in stages[:2] for module in stage.modules())
    assert all(module.training for stage in stages[2:] for module in stage.modules())
    outputs = detector.backbone(torch.rand(2, 3, 64, 64))
    assert [output.requires_grad for output in outputs] == [False, False, True, True]


def test_it_overfits_two_images() -> None:
    torch.manual_seed(1)
    detector = small(
        num_classes=1,
        norm_eval=False,
        anchor_angles=(-60.0, -30.0, 0.0, 30.0, 60.0, 90.0),
        anchor_ratios=(3.0,),
    )
    images = [torch.rand(3, 96, 96) * 0.2 for _ in range(2)]
    targets = [target((40, 50, 48, 16, 30)), target((60, 40, 40, 14, -70))]
    for image, t in zip(images, targets, strict=True):
        y, x = torch.meshgrid(torch.arange(96.0), torch.arange(96.0), indexing="ij")
        cx, cy, w, h, angle = t["boxes"][0]
        a = torch.deg2rad(angle)
        along, across = (x - cx) * a.cos() - (y - cy) * a.sin(), (x - cx) * a.sin() + (y - cy) * a.cos()
        image[:, (along.abs() < w / 2) & (across.abs() < h / 2)] += 0.7
    optimizer = torch.optim.AdamW(detector.parameters(), lr=2e-3)
    for _ in range(80):
        optimizer.zero_grad()
        sum(detector(images, targets).values()).backward()
        optimizer.step()
    detector.eval()
    for found, t in zip(detector(images), targets, strict=True):
        assert box_iou_rotated(found["boxes"][:1], t["boxes"]).item() > 0.6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "yolo"}, "unknown detector 'yolo'; known: rotated_retinanet"),
        ({"backbone": "vgg"}, "unknown backbone 'vgg'; known: mobilenet_v2"),
        ({"anchor_angle": 3}, "unknown option `anchor_angle`.*anchor_angles"),
        ({"frozen_stages": 9}, r"`frozen_stages` must be in 0..4 for resnet18, got 9"),
        ({"num_classes": 0}, "num_classes must be >= 1, got 0"),
        ({"anchor_ratios": []}, "`anchor_ratios` must be a non-empty list"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_detector(**({"name": "rotated_retinanet", "backbone": "resnet18", "num_classes": 1} | arguments))


def test_bad_targets_are_refused() -> None:
    detector = small()
    image = [torch.rand(3, 64, 64)]
    with pytest.raises(DataError, match="needs targets"):
        detector(image)
    with pytest.raises(DataError, match=r"labels must be in 0..1, got \[5\]"):
        detector(image, [target((30, 30, 40, 10, 20), label=5)])
    with pytest.raises(DataError, match="one dict for each image, got 2 for 1"):
        detector(image, [target(), target()])
