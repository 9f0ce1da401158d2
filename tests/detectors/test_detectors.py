"""What every detector must do: one exam for the whole table."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch

from dbf_ray.cost import FlopTable
from dbf_ray.detectors import DETECTORS, Detector, make_detector
from dbf_ray.detectors.two_stage import TwoStageDetector
from dbf_ray.errors import ConfigError, DataError
from dbf_ray.geometry import box_iou_rotated, canonicalize
from tests.cost.prefixes import per_prefix

LOSSES = {
    "rotated_retinanet": {"classification", "regression"},
    "rotated_fcos": {"classification", "regression", "centerness"},
    "rotated_faster_rcnn": {"rpn_classification", "rpn_regression", "classification", "regression"},
    "oriented_rcnn": {"rpn_classification", "rpn_regression", "classification", "regression"},
}


def small(name: str, num_classes: int = 2, **options: Any) -> Detector:
    torch.manual_seed(0)
    if issubclass(DETECTORS[name], TwoStageDetector):
        options = {"roi_channels": 32, **options}
    return make_detector(
        name, backbone="resnet18", num_classes=num_classes, fpn_channels=16, head_convs=1, **options
    )


def target(*boxes: tuple[float, ...], label: int = 0, width: int = 5, seed: int = 7) -> dict[str, Any]:
    return {
        "boxes": torch.tensor(boxes).reshape(-1, width),
        "labels": torch.full((len(boxes),), label),
        "seed": seed,
    }


@pytest.fixture(params=DETECTORS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_the_table_and_the_exam_name_the_same_detectors() -> None:
    assert set(LOSSES) == set(DETECTORS)


def test_training_gives_losses_and_eval_gives_canonical_detections(name: str) -> None:
    detector = small(name, score_threshold=0.0, detections_per_image=50)
    images = [torch.randint(0, 256, (3, 60, 90), dtype=torch.uint8), torch.rand(3, 64, 40)]
    losses = detector(images, [target((30, 30, 40, 10, 20)), target()])
    assert set(losses) == LOSSES[name]
    assert all(
        loss.ndim == 0 and loss.dtype == torch.float32 and torch.isfinite(loss) for loss in losses.values()
    )
    assert all(loss > 0 for loss in losses.values())
    detector.eval()
    found = detector(images)
    assert sum(len(one["scores"]) for one in found) > 0
    for one in found:
        assert one["boxes"].shape == (len(one["scores"]), 5)
        assert (one["scores"].diff() <= 0).all()
        torch.testing.assert_close(canonicalize(one["boxes"]), one["boxes"], atol=1e-4, rtol=0)
        assert ((one["labels"] >= 0) & (one["labels"] < 2)).all()
        assert len(one["scores"]) <= 50


@pytest.mark.parametrize("objects", [0, 1])
def test_every_parameter_gets_a_finite_gradient_with_and_without_objects(name: str, objects: int) -> None:
    detector = small(name)
    found = [target((30, 30, 40, 20, 20))] if objects else [target()]
    losses = detector([torch.rand(3, 64, 64)], found)
    torch.stack(list(losses.values())).sum().backward()
    assert [
        n for n, p in detector.named_parameters() if p.grad is None or not bool(p.grad.isfinite().all())
    ] == []


@pytest.mark.parametrize("backbone", ["swin_t", "convnext_tiny"])
@pytest.mark.parametrize("detector", ["rotated_retinanet", "rotated_fcos"])
def test_norms_of_outputs_that_no_level_reads_get_a_gradient_too(detector: str, backbone: str) -> None:
    """One-stage detectors leave the first stage's output alone; DDP would wait for its norm for ever."""
    built = make_detector(detector, backbone=backbone, num_classes=2, fpn_channels=16, head_convs=1).train()
    losses = built([torch.rand(3, 64, 64)], [target((30, 30, 40, 20, 20))])
    torch.stack(list(losses.values())).sum().backward()
    assert [n for n, p in built.named_parameters() if p.grad is None] == []
    assert all(float(p.grad.abs().sum()) == 0 for p in built.backbone.output_parameters(1))


def test_norms_are_still_from_the_start(name: str) -> None:
    detector = small(name)
    before = {n: b.clone() for n, b in detector.named_buffers()}
    detector([torch.rand(3, 64, 64)], [target((30, 30, 40, 20, 20))])
    assert all(torch.equal(b, before[n]) for n, b in detector.named_buffers())


def test_a_diverged_detector_says_so_by_its_losses(name: str) -> None:
    detector = small(name)
    with torch.no_grad():
        detector.neck.output[0].weight.fill_(math.nan)
    losses = detector([torch.rand(3, 64, 64)], [target((30, 30, 40, 20, 20))])
    assert not bool(torch.stack(list(losses.values())).sum().isfinite())
    (found,) = detector.eval()([torch.rand(3, 64, 64)])
    assert bool(found["boxes"].isfinite().all())


def test_regions_lie_on_the_image(name: str) -> None:
    detector = small(name).eval()
    if not isinstance(detector, TwoStageDetector):
        pytest.skip("a one-stage detector has no regions")
    _, logits, deltas = detector._dense(detector.prepare([torch.rand(3, 96, 100)], pad_to=(256, 256)).images)
    (found,) = detector.rpn.propose(logits, deltas, [(96, 100)], (256, 256))
    assert len(found) > 0
    outer = detector.coder.upright(found)
    centers = (outer[:, :2] + outer[:, 2:]) / 2
    assert (centers < 128 + 8).all()


def test_regions_without_an_area_stay_and_do_no_harm(name: str) -> None:
    """Deltas that move half of the anchors past the border, or shrink them to nothing."""
    detector = small(name, score_threshold=0.0, **({"roi_samples": None} if "rcnn" in name else {}))
    if not isinstance(detector, TwoStageDetector):
        pytest.skip("a one-stage detector has no regions")
    image, pad = torch.rand(3, 64, 64), (64, 64)
    _, logits, deltas = detector._dense(detector.prepare([image]).images)
    before = len(detector.rpn.propose(logits, deltas, [pad], pad)[0])
    for level in deltas:
        level[:, ::2, 0] = 50.0  # of a width to the right
        level[:, ::2, 2:4] = -1e4
    detector.rpn.forward = lambda _: (logits, deltas)
    (found,) = detector.rpn.propose(logits, deltas, [pad], pad)
    flat = detector.coder.scale(found) <= 0
    if name == "rotated_faster_rcnn":  # oriented regions are not clipped
        assert 0 < int(flat.sum()) < len(found) <= before + int(flat.sum())
    losses = detector([image], [target((30, 30, 40, 20, 20))])
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    assert all(bool(p.grad.isfinite().all()) for p in detector.head.parameters() if p.grad is not None)
    drawn = detector.draw([found], detector._checked([target((30, 30, 40, 20, 20))], 1, image.device))
    empty = detector.coder.scale(drawn.regions) <= 0
    assert int(empty.sum()) == int(flat.sum())
    assert (drawn.labels[empty] == detector.num_classes).all()  # background
    (seen,) = detector.eval()([image])
    assert bool(seen["boxes"].isfinite().all())


def test_horizontal_objects_are_the_same_at_angle_0(name: str) -> None:
    image = [torch.rand(3, 64, 64)]
    upright = small(name)(image, [target((10.0, 20.0, 50.0, 40.0), width=4)])
    oriented = small(name)(image, [target((30.0, 30.0, 40.0, 20.0, 0.0))])
    assert {n: v.item() for n, v in upright.items()} == {n: v.item() for n, v in oriented.items()}


def test_an_unknown_name_of_the_same_box_changes_nothing(name: str) -> None:
    image = [torch.rand(3, 64, 64)]
    one = small(name)(image, [target((30.0, 30.0, 40.0, 16.0, 30.0))])
    two = small(name)(image, [target((30.0, 30.0, 16.0, 40.0, 120.0))])
    for key, value in one.items():
        assert two[key].item() == pytest.approx(value.item(), rel=1e-5)


def test_what_is_sampled_depends_on_the_image_s_seed_alone(name: str) -> None:
    image = [torch.rand(3, 96, 96)]
    options = {"rpn_samples": 8, "roi_samples": 8} if issubclass(DETECTORS[name], TwoStageDetector) else {}
    detector = small(name, **options)
    values = []
    for seed, noise in ((1, 0), (1, 1), (2, 2)):
        torch.manual_seed(noise)
        values.append(
            {n: v.item() for n, v in detector(image, [target((40, 40, 40, 20, 20), seed=seed)]).items()}
        )
    assert values[0] == values[1]
    assert (values[0] != values[2]) == bool(options)


def test_bad_targets_are_refused(name: str) -> None:
    detector = small(name)
    image = [torch.rand(3, 64, 64)]
    with pytest.raises(DataError, match="needs targets"):
        detector(image)
    with pytest.raises(DataError, match=r"labels must be in 0..1, got \[5\]"):
        detector(image, [target((30, 30, 40, 10, 20), label=5)])
    with pytest.raises(DataError, match="one dict for each image, got 2 for 1"):
        detector(image, [target(), target()])
    with pytest.raises(DataError, match=r"targets\[0\]: boxes must be \[n, 5\].*or \[n, 4\].*got \(1, 3\)"):
        detector(image, [target((1, 2, 3), width=3)])
    with pytest.raises(
        DataError,
        match=r"targets\[0\]: boxes must be finite and have sides > 0, got \[30, 30, 40, 0, 20\] at 1",
    ):
        detector(image, [target((30, 30, 40, 10, 20), (30, 30, 40, 0, 20))])
    with pytest.raises(DataError, match="sides > 0"):
        detector(image, [target((50, 10, 20, 40), width=4)])
    with pytest.raises(DataError, match="must be finite"):
        detector(image, [target((30, math.nan, 40, 10, 20))])
    with pytest.raises(DataError, match=r"labels must be integers, got torch.float32"):
        detector(image, [{**target((30, 30, 40, 10, 20)), "labels": torch.tensor([0.5])}])
    with pytest.raises(DataError, match="must have been prepared with targets"):
        detector(detector.prepare(image))
    with pytest.raises(
        DataError, match=r"multiples of 32 that hold all images, \(64, 64\) or more here, got \(65, 65\)"
    ):
        detector.prepare(image, pad_to=(65, 65))


def test_labels_of_any_integer_type_and_none_at_all(name: str) -> None:
    detector = small(name)
    objects = {**target((30, 30, 40, 20, 20)), "labels": torch.tensor([1], dtype=torch.int32)}
    nothing = {"boxes": torch.zeros(0, 5), "labels": torch.tensor([])}
    losses = detector([torch.rand(3, 64, 64)] * 2, [objects, nothing])
    assert all(bool(loss.isfinite()) for loss in losses.values())


def test_flops_fall_with_the_frozen_prefix(name: str) -> None:
    table = FlopTable(small(name))
    flops = per_prefix(table, 128, 128)
    assert all(a > b for a, b in itertools.pairwise(flops))
    assert 0 < table.backbone_share(128, 128) < 1


def test_the_cost_of_a_second_stage_is_that_of_its_quota() -> None:
    """512 regions an image through fully connected layers: 2 FLOPs a weight forward, twice that backward."""
    wide, narrow = (small("oriented_rcnn", roi_channels=width) for width in (48, 32))
    weights = [sum(p.numel() for p in d.head.parameters() if p.ndim == 2) for d in (wide, narrow)]
    step, other = (FlopTable(d).step(96, 96, 4) for d in (wide, narrow))
    assert step.forward - other.forward == 2 * 512 * (weights[0] - weights[1])
    assert step.backward - other.backward == 4 * 512 * (weights[0] - weights[1])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "rotated_fcos",
            {"regress_limits": [64.0, 32.0, 256.0, 512.0]},
            r"`regress_limits` must be 4 rising distances.*got \[64",
        ),
        (
            "rotated_fcos",
            {"anchor_ratios": [1.0]},
            "unknown option `anchor_ratios` of rotated_fcos; known: regress_limits",
        ),
        ("oriented_rcnn", {"anchor_scales": []}, "`anchor_scales` must be a non-empty list"),
        ("rotated_retinanet", {"proposals": 10}, "unknown option `proposals` of rotated_retinanet"),
        (
            "oriented_rcnn",
            {"rpn_positive_fraction": -1.0},
            "`rpn_positive_fraction` must be in 0..1, got -1.0",
        ),
        ("oriented_rcnn", {"roi_samples": 0}, "`roi_samples` must be >= 2, got 0"),
        ("oriented_rcnn", {"roi_channels": 0}, "`roi_channels` must be >= 1, got 0"),
        ("rotated_fcos", {"center_radius": 0.0}, "`center_radius` must be above 0, got 0.0"),
        (
            "rotated_retinanet",
            {"positive_iou": 0.3},
            "`negative_iou` must not be above `positive_iou`, got 0.4 and 0.3",
        ),
        (
            "rotated_retinanet",
            {"detections_per_image": -1},
            "`detections_per_image` must be >= 1, got -1",
        ),
    ],
)
def test_bad_options_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small(name, **options)


def test_default_convolutions_of_the_dense_head() -> None:
    for name in DETECTORS:
        detector = make_detector(name, backbone="resnet18", num_classes=1, fpn_channels=16)
        convs = [
            m
            for n, m in detector.named_modules()
            if isinstance(m, torch.nn.Conv2d) and m.kernel_size == (3, 3) and "neck" not in n
        ]
        own = [m for m in convs if m.in_channels == 16 and m.out_channels == 16]
        assert len(own) == (1 if isinstance(detector, TwoStageDetector) else 8), name


@pytest.mark.slow
def test_fcos_overfits_an_image() -> None:
    """RetinaNet's turn is in test_retinanet.py; all four learn real images in test_overfit_real_images.py
    (slow).
    """
    torch.manual_seed(1)
    detector = small("rotated_fcos", num_classes=1, norm_eval=False)
    image = torch.rand(3, 96, 96) * 0.2
    wanted = target((40, 50, 48, 16, 30))
    y, x = torch.meshgrid(torch.arange(96.0), torch.arange(96.0), indexing="ij")
    cx, cy, w, h, angle = wanted["boxes"][0]
    a = torch.deg2rad(angle)
    along, across = (x - cx) * a.cos() - (y - cy) * a.sin(), (x - cx) * a.sin() + (y - cy) * a.cos()
    image[:, (along.abs() < w / 2) & (across.abs() < h / 2)] += 0.7
    optimizer = torch.optim.AdamW(detector.parameters(), lr=2e-3)
    for _ in range(60):
        optimizer.zero_grad()
        torch.stack(list(detector([image], [wanted]).values())).sum().backward()
        optimizer.step()
    detector.eval()
    (found,) = detector([image])
    assert len(found["boxes"]) > 0
    assert box_iou_rotated(found["boxes"][:1], wanted["boxes"]).item() > 0.6
