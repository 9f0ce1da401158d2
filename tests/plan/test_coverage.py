"""What a detector can match, against its whole assignment and against slow loops of our own."""

from __future__ import annotations

import math
from functools import cache, partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely import Polygon
from torch import Tensor

from dbf_ray.data.samples import make_target
from dbf_ray.data.transforms import ORIENTATIONS, flip
from dbf_ray.detectors import make_detector, padded_size
from dbf_ray.detectors.anchors import level_shapes
from dbf_ray.detectors.assigners import assign_by_iou, assign_points
from dbf_ray.detectors.rpn import upright_iou, within
from dbf_ray.geometry import boxes_to_corners, circumscribed
from dbf_ray.plan.coverage import coverage
from dbf_ray.plan.objects import Objects, drawn, objects_of, oriented, scaled, views

NARROW = {"backbone": "mobilenet_v2", "num_classes": 2, "fpn_channels": 8, "head_convs": 0}
SIZE = (96, 160)
FEWER = settings(max_examples=settings().max_examples // 5)  # loops over all cells take long


def some(seed: int, count: int = 12, longest: float = 120.0, images: int = 2) -> Objects:
    stream = torch.Generator().manual_seed(seed)
    boxes = torch.rand(count, 5, generator=stream, dtype=torch.float64)
    boxes = boxes * torch.tensor([SIZE[1], SIZE[0], longest, longest / 3, 180.0]) + torch.tensor(
        [0, 0, 2, 2, -90]
    )
    return Objects(
        boxes=boxes,
        labels=torch.arange(count) % 2,
        difficult=torch.zeros(count, dtype=torch.bool),
        image=torch.sort(torch.arange(count) % images).values,
        sizes=torch.tensor([SIZE] * images),
        classes=["a", "b"],
    )


@cache
def detector_of(name: str) -> Any:
    return make_detector(name, **NARROW)


def found(name: str, objects: Objects, **options: Any) -> Any:
    detector = make_detector(name, **NARROW, **options) if options else detector_of(name)
    return coverage(detector, [objects], torch.arange(len(objects)))


def overlap(one: Tensor, other: Tensor) -> float:
    shapes = [Polygon(boxes_to_corners(box[None])[0].reshape(4, 2).tolist()) for box in (one, other)]
    shared = shapes[0].intersection(shapes[1]).area
    return float(shared / (shapes[0].area + shapes[1].area - shared))


def test_an_object_is_covered_by_an_anchor_of_enough_overlap() -> None:
    objects = some(0)
    covered = found("rotated_retinanet", objects, anchor_ratios=[1.0, 3.0], anchor_angles=[0.0, 45.0])
    for number, box in enumerate(objects.boxes):
        best = 0.0
        for stride in (8, 16, 32, 64, 128):
            for x in range(0, SIZE[1], stride):
                for y in range(0, SIZE[0], stride):
                    if abs(x - box[0]) + abs(y - box[1]) > box[2] + 8 * stride:
                        continue
                    for scale in (1, 2 ** (1 / 3), 2 ** (2 / 3)):
                        for ratio in (1, 3):
                            sides = [4 * stride * scale * ratio**0.5, 4 * stride * scale / ratio**0.5]
                            areas = sorted([sides[0] * sides[1], float(box[2] * box[3])])
                            if areas[0] < 0.4 * areas[1]:  # one inside of the other shares less
                                continue
                            for angle in (0, 45):
                                best = max(best, overlap(torch.tensor([x, y, *sides, angle]).double(), box))
        assert covered.strength[0, number] == pytest.approx(best if best >= 0.4 else 0, abs=1e-4)
        assert covered.matched[0, number] == (best >= 0.5)


@FEWER
@given(seed=st.integers(0, 10**6), longest=st.sampled_from([12.0, 60.0, 200.0]))
def test_anchors_of_a_proposal_network_are_counted_after_the_whole_assignment(
    seed: int, longest: float
) -> None:
    objects = some(seed, 6, longest)
    covered = found("oriented_rcnn", objects)
    for image in range(2):
        own = torch.nonzero(objects.image == image).squeeze(-1)
        around = circumscribed(objects.boxes[own]).tolist()
        table = []  # of every anchor that lies on the image, its overlap with each object
        for stride in (4, 8, 16, 32, 64):
            for y in range(0, SIZE[0], stride):
                for x in range(0, SIZE[1], stride):
                    for ratio in (2, 1, 0.5):
                        w, h = 8 * stride * ratio**0.5, 8 * stride / ratio**0.5
                        box = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
                        if box[0] >= 0 and box[1] >= 0 and box[2] < SIZE[1] and box[3] < SIZE[0]:
                            table.append([upright(box, other) for other in around])
        iou = torch.tensor(table).reshape(-1, len(own))
        if not len(iou):
            continue
        top, best = iou.max(1)
        taken = torch.where(top >= 0.7, best, -1)
        for number in range(len(own)):
            if iou[:, number].max() >= 0.3:
                taken[iou[:, number] >= iou[:, number].max() - 1e-6] = number
        wanted = torch.bincount(taken[taken >= 0], minlength=len(own)) > 0
        assert covered.matched[0, own].tolist() == wanted.tolist()


def upright(one: tuple[float, ...], other: list[float]) -> float:
    x = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    y = max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return x * y / (sum(areas) - x * y)


@FEWER
@given(seed=st.integers(0, 10**6), longest=st.sampled_from([12.0, 60.0, 200.0]))
def test_points_are_counted_by_object(seed: int, longest: float) -> None:
    objects = some(seed, 6, longest)
    covered = found("rotated_fcos", objects)
    counts = [0] * len(objects)
    for image in range(2):
        own = [k for k in range(len(objects)) if objects.image[k] == image]
        own.sort(key=lambda k: float(objects.boxes[k, 2] * objects.boxes[k, 3]))
        limits = [-1, 64, 128, 256, 512, math.inf]
        for level, stride in enumerate((8, 16, 32, 64, 128)):
            for y in range(math.ceil(SIZE[0] / stride)):
                for x in range(math.ceil(SIZE[1] / stride)):
                    for k in own:  # the smallest first
                        cx, cy, w, h, angle = objects.boxes[k].tolist()
                        dx, dy = (x + 0.5) * stride - cx, (y + 0.5) * stride - cy
                        cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
                        u, v = abs(dx * cos - dy * sin), abs(dx * sin + dy * cos)
                        furthest = max(w / 2 + u, h / 2 + v)
                        near = u < 1.5 * stride and v < 1.5 * stride and u < w / 2 and v < h / 2
                        if near and limits[level] <= furthest <= limits[level + 1]:
                            counts[k] += 1
                            break
    assert covered.strength[0].tolist() == counts


@FEWER
@given(seed=st.integers(0, 10**6), longest=st.sampled_from([8.0, 30.0, 200.0]), part=st.integers(1, 60))
def test_many_images_at_once_are_as_each_by_the_detector_itself(seed: int, longest: float, part: int) -> None:
    objects = some(seed, 60, longest, images=5)
    chosen = torch.randperm(60, generator=torch.Generator().manual_seed(seed))[:part]
    fcos, rcnn = detector_of("rotated_fcos"), detector_of("oriented_rcnn")
    wanted = torch.zeros(2, 60)
    for image in range(5):
        own = torch.nonzero(objects.image == image).squeeze(-1)
        boxes = objects.boxes[own].float()
        shapes = level_shapes(padded_size([SIZE]), fcos.strides)
        points = assign_points(shapes, fcos.strides, boxes, fcos.ranges, fcos.center_radius)
        anchors = torch.cat(rcnn.rpn.anchors(level_shapes(padded_size([SIZE]), rcnn.rpn.anchors.strides)))
        anchors = anchors[within(anchors, SIZE)]
        taken = assign_by_iou(partial(upright_iou, anchors), len(anchors), boxes, 0.7, 0.3, 0.3)
        for row, found in enumerate((points, taken)):
            wanted[row, own] = torch.bincount(found[found >= 0], minlength=len(own)).float()
    for row, detector in enumerate((fcos, rcnn)):
        found = coverage(detector, [objects], chosen)
        assert found is not None
        assert torch.equal(found.strength[0], wanted[row, chosen])


def test_no_objects_are_no_trouble() -> None:
    nothing = some(0).pick(torch.zeros(0, dtype=torch.int64))
    for name in ("rotated_retinanet", "rotated_fcos", "oriented_rcnn"):
        covered = found(name, nothing)
        assert covered.matched.shape == (1, 0)
        assert math.isnan(covered.share())


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_an_orientation_in_closed_form_is_what_a_training_sees(orientation: str) -> None:
    objects = some(3, images=1)
    target = make_target(objects.boxes.float(), [0] * 12, [False] * 12, "a", SIZE)
    image, seen = flip(torch.zeros(3, *SIZE, dtype=torch.uint8), target, orientation)
    turned = oriented(objects, orientation)
    assert tuple(turned.sizes[0].tolist()) == tuple(image.shape[-2:])
    same = [overlap(one, other) for one, other in zip(turned.boxes, seen["boxes"].double(), strict=True)]
    assert min(same) > 0.999


def test_views_are_orientations_at_the_ends_of_the_scales() -> None:
    objects = some(4)
    shown = list(views(objects, 320, ["horizontal", "rotate90"], [0.5, 1.0, 2.0]))
    assert [tuple(view.sizes[0].tolist()) for view in shown] == [
        *[(96, 160), (96, 160), (160, 96)],
        *[(384, 640), (384, 640), (640, 384)],
    ]
    torch.testing.assert_close(scaled(objects, 320, 0.5).boxes, objects.boxes)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=60), st.integers(1, 40))
def test_objects_are_drawn_alike_from_all_classes(labels: list[int], most: int) -> None:
    count = len(labels)
    objects = Objects(
        torch.zeros(count, 5),
        torch.tensor(labels),
        torch.zeros(count),
        torch.zeros(count),
        torch.ones(1, 2),
        ["a", "b", "c"],
    )
    chosen = drawn(objects, 0, most)
    assert len(set(chosen.tolist())) == len(chosen) == min(most, count)
    got = [sum(labels[k] == label for k in chosen.tolist()) for label in range(3)]
    for label in range(3):  # who has fewer than another has given all
        assert got[label] == labels.count(label) or got[label] >= max(got) - 1
    assert torch.equal(chosen, drawn(objects, 0, most))


def test_objects_of_generated_scenes_are_those_of_their_targets() -> None:
    from dbf_ray.data import make_dataset

    dataset = make_dataset("synthetic", "train", images=3, image_size=64)
    objects = objects_of(dataset)
    assert objects.image.bincount(minlength=3).tolist() == [
        len(dataset.load(k)[1]["labels"]) for k in range(3)
    ]
    assert objects.sizes.tolist() == [[64, 64]] * 3
