"""What the oriented operations cost beside the plain way, and which share of a detector's step they are. Ways are interleaved in one process.

python -m benchmarks.rotated_ops --rounds 5 --json
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou

from dbf_ray.detectors import make_detector
from dbf_ray.detectors.anchors import RotatedAnchors, level_shapes
from dbf_ray.detectors.retinanet import OCTAVE_SCALES, RotatedRetinaNet
from dbf_ray.freezing import Freezer
from dbf_ray.geometry import batched_nms_rotated, box_iou_rotated, nms_rotated, roi_align_rotated
from dbf_ray.run import machine, versions
from jobs.command_line import main, make_parser, parse, print_json

Ways = dict[str, Callable[[], Any]]
Case = Callable[[torch.Generator, bool], tuple[dict[str, Any], Ways]]


def scattered(count: int, size: float, low: float, high: float, generator: torch.Generator) -> Tensor:
    """Boxes [count, 5] anywhere in a square of ``size`` pixels, with sides from ``low`` to ``high``, evenly on a logarithmic scale."""
    centers = torch.rand(count, 2, generator=generator) * size
    sides = low * (high / low) ** torch.rand(count, 2, generator=generator)
    return torch.cat([centers, sides, torch.rand(count, 1, generator=generator) * 180 - 90], -1)


def clustered(count: int, objects: int, size: float, generator: torch.Generator) -> Tensor:
    """Boxes as a detector gives them: many around each of some objects."""
    base = scattered(objects, size, 10, 100, generator)[torch.randint(objects, (count,), generator=generator)]
    return base + torch.randn(count, 5, generator=generator) * torch.tensor([3.0, 3, 2, 2, 4])


def greedy_over_matrix(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Suppression over torchvision's matrix of all overlaps."""
    order = torch.argsort(scores, descending=True, stable=True)
    over = (box_iou(boxes[order], boxes[order], fmt="cxcywhr") >= threshold).numpy()
    alive = np.ones(len(order), dtype=bool)
    kept = []
    for position in range(len(order)):
        if alive[position]:
            kept.append(position)
            alive &= ~over[position]
    return order[torch.tensor(kept)]


def iou_of_anchors(generator: torch.Generator, quick: bool) -> tuple[dict[str, Any], Ways]:
    """RetinaNet's anchors of a 1024 px image with 300 objects."""
    side = 256 if quick else 1024
    anchors = RotatedAnchors([8, 16, 32, 64, 128], 4.0, OCTAVE_SCALES, (1.0, 2.0, 0.5), (0.0,))
    a = torch.cat(anchors(level_shapes((side, side), anchors.strides)))
    b = scattered(300, side, 8, 200, generator)
    error = float((box_iou_rotated(a, b) - box_iou(a, b, fmt="cxcywhr")).abs().max())
    facts = {"case": f"IoU of {len(a)} anchors and {len(b)} objects", "largest_difference": error}
    return facts, {"ours": lambda: box_iou_rotated(a, b), "torchvision dense": lambda: box_iou(a, b, fmt="cxcywhr")}


def nms(count: int, size: int, objects: int = 0) -> Case:
    """Suppression within one class at IoU 0.1."""

    def case(generator: torch.Generator, quick: bool) -> tuple[dict[str, Any], Ways]:
        number = min(count, 1000) if quick else count
        boxes = clustered(number, objects, size, generator) if objects else scattered(number, size, 8, 100, generator)
        scores = torch.rand(number, generator=generator)
        kept, witness = nms_rotated(boxes, scores, 0.1), greedy_over_matrix(boxes, scores, 0.1)
        kind = f" around {objects} objects" if objects else ""
        facts = {"case": f"NMS of {number} boxes{kind} in {size} px, one class", "kept": len(kept), "same": torch.equal(kept, witness)}
        return facts, {
            "ours": lambda: nms_rotated(boxes, scores, 0.1),
            "greedy over dense matrix": lambda: greedy_over_matrix(boxes, scores, 0.1),
        }

    return case


def nms_of_classes(generator: torch.Generator, quick: bool) -> tuple[dict[str, Any], Ways]:
    """Fifteen classes at once, against one after the other over matrices."""
    number = 300 if quick else 2000
    boxes, labels = clustered(15 * number, 1500, 1024, generator), torch.arange(15).repeat(number)
    scores = torch.rand(len(boxes), generator=generator)

    def one_by_one() -> Tensor:
        parts = [torch.nonzero(labels == label).squeeze(-1) for label in range(15)]
        return torch.cat([part[greedy_over_matrix(boxes[part], scores[part], 0.1)] for part in parts])

    kept = batched_nms_rotated(boxes, scores, labels, 0.1)
    facts = {"case": f"NMS of 15 x {number} boxes in 1024 px", "kept": len(kept), "same": set(kept.tolist()) == set(one_by_one().tolist())}
    return facts, {"ours": lambda: batched_nms_rotated(boxes, scores, labels, 0.1), "greedy over dense matrices": one_by_one}


def roi_align(generator: torch.Generator, quick: bool) -> tuple[dict[str, Any], Ways]:
    """512 oriented regions on a 128 x 128 map of 256 channels, forward and backward, against samples by ``grid_sample``."""
    count, channels = (64, 32) if quick else (512, 256)
    features = torch.randn(1, channels, 128, 128, generator=generator).requires_grad_()
    rois = torch.cat([torch.zeros(count, 1), scattered(count, 512, 16, 112, generator)], -1)

    def sampled() -> Tensor:
        steps = (torch.arange(14) + 0.5) / 14 - 0.5
        a = torch.deg2rad(rois[:, 5])[:, None, None]
        x, y = steps[None, None] * rois[:, 3, None, None] / 4, steps[None, :, None] * rois[:, 4, None, None] / 4
        px = rois[:, 1, None, None] / 4 - 0.5 + x * a.cos() + y * a.sin()
        py = rois[:, 2, None, None] / 4 - 0.5 - x * a.sin() + y * a.cos()
        grid = torch.stack([px, py], -1).reshape(1, -1, 14, 2) / 127 * 2 - 1
        found = torch.nn.functional.grid_sample(features, grid, padding_mode="border", align_corners=True)
        return torch.nn.functional.avg_pool2d(found.reshape(channels, count, 14, 14).transpose(0, 1), 2)

    def ours() -> Tensor:
        return roi_align_rotated(features, rois, 7, 0.25, 2)

    def stepping(way: Callable[[], Tensor]) -> Callable[[], None]:
        return lambda: way().sum().backward()

    facts = {"case": f"rotated RoI align of {count} regions, {channels} channels, forward and backward"}
    return facts, {"ours": stepping(ours), "grid_sample": stepping(sampled)}


def retinanet(quick: bool) -> RotatedRetinaNet:
    """The reference's RetinaNet on a ResNet-50; a small one for a quick look."""
    torch.manual_seed(0)
    small: dict[str, Any] = {"backbone": "resnet18", "fpn_channels": 32} if quick else {"backbone": "resnet50", "frozen_stages": 1}
    detector = make_detector("rotated_retinanet", num_classes=15, **small)
    assert isinstance(detector, RotatedRetinaNet)
    Freezer(detector.backbone).apply(0)
    return detector


def assignment_share(generator: torch.Generator, quick: bool) -> tuple[dict[str, Any], Ways]:
    """Target assignment as part of a training step on two images of 512 px with 20 objects each."""
    detector, side = retinanet(quick).train(), 128 if quick else 512
    images = [torch.rand(3, side, side, generator=generator) for _ in range(2)]
    targets = [{"boxes": scattered(20, side, 10, 100, generator), "labels": torch.arange(20) % 15, "seed": 0} for _ in range(2)]
    sizes = [(side, side)] * 2
    optimizer = torch.optim.SGD(detector.parameters(), lr=1e-4, momentum=0.9)

    def step() -> None:
        losses = detector(images, targets)
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    facts = {
        "case": f"target assignment in a training step, {detector.backbone.num_stages} stages trained, 2 x {side} px, 20 objects an image"
    }
    return facts, {"assignment": lambda: detector.assign(targets, sizes, (side, side)), "training step": step}


def postprocessing_share(generator: torch.Generator, quick: bool) -> tuple[dict[str, Any], Ways]:
    """Decoding and suppression as part of inference on two images, with as many candidates as a trained detector has."""
    detector, side = retinanet(quick).eval(), 128 if quick else 512
    with torch.no_grad():
        batch = detector.prepare([torch.rand(3, side, side, generator=generator) for _ in range(2)])
        outputs = detector.dense_outputs(batch.images)
        for logits in outputs[: len(outputs) // 2]:  # around the prior of 0.01 a few per thousand come above the threshold
            logits += torch.randn(logits.shape, generator=generator) * 0.55
        found = detector.detections_from(outputs, batch)

    @torch.no_grad()
    def postprocess() -> None:
        detector.detections_from(outputs, batch)

    @torch.no_grad()
    def infer() -> None:
        detector.dense_outputs(batch.images)
        detector.detections_from(outputs, batch)

    facts = {"case": f"post-processing in inference, 2 x {side} px", "detections": [len(one["boxes"]) for one in found]}
    return facts, {"post-processing": postprocess, "inference step": infer}


CASES: list[Case] = [
    iou_of_anchors,
    nms(2000, 1024),
    nms(10000, 2048),
    nms(2000, 1024, objects=100),
    nms(10000, 2048, objects=300),
    nms_of_classes,
    roi_align,
    assignment_share,
    postprocessing_share,
]


def measure(ways: Ways, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of ``rounds`` calls of each way, in turn, after one that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            begun = time.perf_counter()
            way()
            if number:
                times[name].append(1000 * (time.perf_counter() - begun))
    return times


def row_of(case: Case, rounds: int, quick: bool) -> dict[str, Any]:
    """One row: what was measured, milliseconds of each way (minimum and all), and the first way's share of the second."""
    facts, ways = case(torch.Generator().manual_seed(0), quick)
    times = measure(ways, rounds)
    first, second = (min(ms) for ms in times.values())
    return {
        **facts,
        "ms": {name: min(ms) for name, ms in times.items()},
        "all_ms": times,
        "share": first / second,
        "times_faster": second / first,
    }


def command(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure and print a table."""
    parser = make_parser("benchmarks.rotated_ops", __doc__ or "")
    parser.add_argument("--rounds", type=int, default=5, help="calls timed of each way (default: 5)")
    parser.add_argument("--quick", action="store_true", help="small sizes, for a look whether it works")
    options, _ = parse(parser, arguments)
    rows = []
    for case in CASES:
        row = row_of(case, max(1, options.rounds), options.quick)
        rows.append(row)
        (first, a), (second, b) = row["ms"].items()
        print(
            f"{row['case']}: {first} {a:.1f} ms, {second} {b:.1f} ms, share {row['share']:.4f} ({row['times_faster']:.1f} times)",
            flush=True,
        )
    result = {"rows": rows, "rounds": options.rounds, "machine": machine(), "versions": versions()}
    if options.json:
        print_json(result)
    return result


if __name__ == "__main__":
    sys.exit(main(command))
