"""Operations on oriented boxes beside what torchvision offers, and their share of a detector's step.

Variants of a case take turns, so that a busy machine hits all alike.

python -m benchmarks.rotated_ops --json
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import box_iou

from dbf_ray.cli.options import make_parser, print_json, run_command
from dbf_ray.detectors import make_detector
from dbf_ray.detectors.retinanet import RotatedRetinaNet
from dbf_ray.freezing import Freezer
from dbf_ray.geometry import batched_nms_rotated, box_iou_rotated, overlapping_pairs, roi_align_rotated
from dbf_ray.geometry.boxes import axes
from dbf_ray.run.summary import machine, versions

Row = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """What all cases share: rounds to time, and whether sizes are cut for a quick look."""

    rounds: int
    quick: bool

    def count(self, full: int) -> int:
        """A number of boxes, a tenth of it for a quick look."""
        return max(1, full // 10) if self.quick else full


def take_turns(
    variants: dict[str, Callable[[], Any]], rounds: int
) -> tuple[dict[str, float], dict[str, Any]]:
    """Least milliseconds of each variant over ``rounds``, and what each gave last."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    results: dict[str, Any] = {}
    for _ in range(rounds):
        for name, run in variants.items():
            results.pop(name, None)
            begun = time.perf_counter()
            results[name] = run()
            times[name].append(1000 * (time.perf_counter() - begun))
    return {name: min(values) for name, values in times.items()}, results


def row(case: str, times: dict[str, float], reference: str, **more: Any) -> Row:
    """A case's result: milliseconds of each variant, and how many times faster than ``reference`` it is."""
    ratios = {name: times[reference] / ms for name, ms in times.items() if name != reference}
    return {"case": case, "ms": times, "reference": reference, "times_faster": ratios, **more}


# ---- inputs


def scattered(count: int, width: float, height: float, seed: int) -> Tensor:
    """Boxes [count, 5] of objects as aerial scenes have them: longer sides of 10 to 120 pixels, any angle,
    everywhere.
    """
    u = torch.rand(count, 5, generator=torch.Generator().manual_seed(seed))
    longer = 10 * 12 ** u[:, 2]
    return torch.stack(
        [u[:, 0] * width, u[:, 1] * height, longer, longer * (0.15 + 0.85 * u[:, 3]), u[:, 4] * 180 - 90], 1
    )


def clustered(count: int, objects: int, size: float, seed: int) -> Tensor:
    """Boxes [count, 5] that lie on ``objects`` objects, as a detector's do."""
    generator = torch.Generator().manual_seed(seed)
    boxes = scattered(objects, size, size, seed)[torch.randint(objects, (count,), generator=generator)]
    noise = torch.randn(count, 5, generator=generator)
    center = boxes[:, :2] + 0.1 * noise[:, :2] * boxes[:, 2:4].amin(1, keepdim=True)
    return torch.cat(
        [center, boxes[:, 2:4] * torch.exp(0.1 * noise[:, 2:4]), boxes[:, 4:] + 4 * noise[:, 4:]], 1
    )


def retinanet_anchors(width: int, height: int) -> Tensor:
    """Anchors [N, 5] of RetinaNet: five levels, three octaves, three ratios, all at angle 0."""
    levels = []
    for stride in (8, 16, 32, 64, 128):
        y, x = torch.meshgrid(
            torch.arange(height // stride) * float(stride),
            torch.arange(width // stride) * float(stride),
            indexing="ij",
        )
        sizes = [(4 * stride * 2 ** (octave / 3), ratio) for octave in range(3) for ratio in (0.5, 1.0, 2.0)]
        sides = torch.tensor(
            [[size / math.sqrt(ratio), size * math.sqrt(ratio), 0.0] for size, ratio in sizes]
        )
        centers = torch.stack([x, y], -1).reshape(-1, 1, 2).expand(-1, 9, -1)
        levels.append(torch.cat([centers, sides.expand(len(centers), -1, -1)], -1).reshape(-1, 5))
    return torch.cat(levels)


# ---- cases: functions from settings to a row


def iou_of_anchors(settings: Settings) -> Row:
    """All anchors of a 1024 x 768 image with 300 objects."""
    anchors, boxes = retinanet_anchors(1024, 768), scattered(settings.count(300), 1024, 768, seed=0)
    variants = {
        "torchvision box_iou": lambda: box_iou(anchors, boxes, fmt="cxcywhr"),
        "box_iou_rotated": lambda: box_iou_rotated(anchors, boxes),
        "overlapping_pairs": lambda: overlapping_pairs(anchors, boxes),
    }
    times, results = take_turns(variants, settings.rounds)
    off = (results["torchvision box_iou"] - results["box_iou_rotated"]).abs()
    return row(
        "iou of anchors",
        times,
        "torchvision box_iou",
        anchors=len(anchors),
        boxes=len(boxes),
        touching_pairs=len(results["overlapping_pairs"][0]),
        pairs_off_by_1e_5=int((off > 1e-5).sum()),
        largest_difference=float(off.max()),
    )


def greedy_over_matrix(boxes: Tensor, scores: Tensor, labels: Tensor, threshold: float) -> Tensor:
    """Suppression over torchvision's full matrix of each class."""
    kept = []
    for label in labels.unique().tolist():
        members = torch.nonzero(labels == label).squeeze(-1)
        members = members[torch.argsort(scores[members], descending=True, stable=True)]
        below = box_iou(boxes[members], boxes[members], fmt="cxcywhr") < threshold
        alive = torch.ones(len(members), dtype=torch.bool)
        for i in range(len(members)):
            if alive[i]:
                alive[i + 1 :] &= below[i, i + 1 :]
        kept.append(members[alive])
    found = torch.cat(kept)
    return found[torch.argsort(scores[found], descending=True, stable=True)]


def suppression(name: str, boxes: Tensor, classes: int, rounds: int, threshold: float = 0.1) -> Row:
    """A row for boxes with random scores in ``classes`` classes."""
    generator = torch.Generator().manual_seed(1)
    scores, labels = (
        torch.rand(len(boxes), generator=generator),
        torch.randint(classes, (len(boxes),), generator=generator),
    )
    variants = {
        "greedy over torchvision's matrix": lambda: greedy_over_matrix(boxes, scores, labels, threshold),
        "batched_nms_rotated": lambda: batched_nms_rotated(boxes, scores, labels, threshold),
    }
    times, results = take_turns(variants, rounds)
    reference, ours = (set(kept.tolist()) for kept in results.values())
    return row(
        name,
        times,
        next(iter(variants)),
        boxes=len(boxes),
        kept=len(ours),
        kept_by_one_only=len(reference ^ ours),
    )


def nms_2000_scattered(settings: Settings) -> Row:
    return suppression(
        "nms, scattered, 1024 px", scattered(settings.count(2000), 1024, 1024, 2), 1, settings.rounds
    )


def nms_2000_clustered(settings: Settings) -> Row:
    return suppression(
        "nms, on 50 objects, 1024 px", clustered(settings.count(2000), 50, 1024, 3), 1, settings.rounds
    )


def nms_10000_scattered(settings: Settings) -> Row:
    return suppression(
        "nms, scattered, 2048 px", scattered(settings.count(10000), 2048, 2048, 4), 1, min(2, settings.rounds)
    )


def nms_10000_clustered(settings: Settings) -> Row:
    return suppression(
        "nms, on 100 objects, 2048 px",
        clustered(settings.count(10000), 100, 2048, 5),
        1,
        min(2, settings.rounds),
    )


def nms_15_classes(settings: Settings) -> Row:
    return suppression(
        "nms, 15 classes, on 300 objects, 2048 px",
        clustered(settings.count(30000), 300, 2048, 6),
        15,
        min(2, settings.rounds),
    )


def by_grid_sample(features: Tensor, rois: Tensor, size: int, scale: float, samples: int) -> Tensor:
    """Rotated RoIAlign through ``grid_sample``, image by image."""
    steps = (torch.arange(size * samples) + 0.5) / (size * samples) - 0.5
    u, v = axes(rois[:, 1:])
    offsets = (
        u[:, None, None] * (rois[:, 3, None, None] * steps)[..., None]
        + v[:, None, None] * (rois[:, 4, None, None] * steps[:, None])[..., None]
    )
    points = (rois[:, None, None, 1:3] + offsets) * scale  # [n, rows, columns, 2]
    extent = points.new_tensor([features.shape[3], features.shape[2]])
    inside = ((points >= -0.5) & (points <= extent + 0.5)).all(-1)
    result = features.new_empty(len(rois), features.shape[1], size, size)
    for image in range(len(features)):
        members = torch.nonzero(rois[:, 0] == image).squeeze(-1)
        if not len(members):
            continue
        grid = (2 * points[members] / extent - 1).flatten(1, 2)[None]
        sampled = F.grid_sample(
            features[image : image + 1], grid, padding_mode="border", align_corners=False
        )[0]
        # [C, n, rows, columns]
        sampled = sampled.unflatten(2, (size * samples, size * samples)) * inside[members]
        result = result.index_copy(0, members, F.avg_pool2d(sampled, samples).transpose(0, 1))
    return result


def roi_align(settings: Settings) -> Row:
    """512 regions of two images on four levels, 256 channels, 7 x 7 bins of 2 x 2 samples, forward and
    backward.
    """
    count, channels = settings.count(512), 32 if settings.quick else 256
    generator = torch.Generator().manual_seed(7)
    rois = torch.cat(
        [torch.randint(2, (count, 1), generator=generator).float(), scattered(count, 512, 512, 8)], 1
    )
    rois[:, 3:5] *= 5
    strides = (4, 8, 16, 32)
    level = torch.log2((rois[:, 3] * rois[:, 4]).sqrt() / 56).floor().clamp(0, 3)
    maps = [
        torch.randn(2, channels, 512 // stride, 512 // stride, generator=generator, requires_grad=True)
        for stride in strides
    ]

    def both_ways(align: Callable[..., Tensor]) -> list[Tensor]:
        outputs = [
            align(features, rois[level == i], 7, 1 / stride, 2)
            for i, (features, stride) in enumerate(zip(maps, strides, strict=True))
        ]
        # grid_sample's is not, where a level has no region
        trained = [output for output in outputs if output.requires_grad]
        grads = torch.autograd.grad(
            trained, maps, [torch.ones_like(output) for output in trained], materialize_grads=True
        )
        return [tensor.detach() for tensor in (*outputs, *grads)]

    variants = {
        "grid_sample": lambda: both_ways(by_grid_sample),
        "roi_align_rotated": lambda: both_ways(roi_align_rotated),
    }
    times, results = take_turns(variants, settings.rounds)
    off = torch.cat([(a - b).abs().flatten() for a, b in zip(*results.values(), strict=True)]).max()
    saved = {name: saved_bytes(run) / 2**20 for name, run in variants.items()}
    return row(
        "rotated RoIAlign",
        times,
        "grid_sample",
        rois=count,
        channels=channels,
        saved_mb=saved,
        largest_difference=float(off),
    )


def saved_bytes(run: Callable[[], Any]) -> int:
    """Bytes of tensors that ``run`` keeps for its backward pass."""
    sizes: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        run()
    return sum(sizes.values())


# ---- shares of a detector's step


def retinanet(settings: Settings) -> tuple[RotatedRetinaNet, list[Tensor]]:
    """The reference's RetinaNet with ResNet-50 and two images of 512 px; a small one for a quick look."""
    torch.manual_seed(0)
    small: dict[str, Any] = {"backbone": "resnet18", "fpn_channels": 32}
    detector = make_detector(
        "rotated_retinanet",
        num_classes=15,
        **(small if settings.quick else {"backbone": "resnet50", "frozen_stages": 1}),
    )
    assert isinstance(detector, RotatedRetinaNet)
    Freezer(detector.backbone).apply(0)
    side = 128 if settings.quick else 512
    return detector, [torch.rand(3, side, side) for _ in range(2)]


def assignment_share(settings: Settings) -> Row:
    """Target assignment as part of a training step, 20 objects an image."""
    detector, images = retinanet(settings)
    side = images[0].shape[-1]
    targets = [
        {"boxes": scattered(20, side, side, seed), "labels": torch.arange(20) % 15, "seed": 0}
        for seed in (1, 2)
    ]
    optimizer = torch.optim.SGD(detector.train().parameters(), lr=1e-4, momentum=0.9)

    def step() -> None:
        losses = detector(images, targets)
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    ways: dict[str, Callable[[], Any]] = {
        "training step": step,
        "assignment": lambda: detector.assign(targets, [(side, side)] * 2, (side, side)),
    }
    times, _ = take_turns(ways, settings.rounds)
    share = times["assignment"] / times["training step"]
    return row(
        f"target assignment in a training step, 2 x {side} px, 20 objects an image",
        times,
        "training step",
        share=share,
    )


def postprocessing_share(settings: Settings) -> Row:
    """Decoding and suppression as part of inference, with as many candidates as a trained detector gives in a
    crowded image.
    """
    detector, images = retinanet(settings)
    batch = detector.eval().prepare(images)
    with torch.no_grad():
        outputs = detector.dense_outputs(batch.images)
        for logits in outputs[
            : len(outputs) // 2
        ]:  # around the prior of 0.01, a few per thousand come above the threshold of 0.05
            logits += torch.randn(logits.shape) * 0.55

    @torch.no_grad()
    def infer() -> None:
        detector.dense_outputs(batch.images)
        detector.detections_from(outputs, batch)

    infer()
    ways: dict[str, Callable[[], Any]] = {
        "inference step": infer,
        "post-processing": lambda: detector.detections_from(outputs, batch),
    }
    times, results = take_turns(ways, settings.rounds)
    found = [len(one["boxes"]) for one in results["post-processing"]]
    share = times["post-processing"] / times["inference step"]
    side = images[0].shape[-1]
    return row(
        f"post-processing in inference, 2 x {side} px", times, "inference step", share=share, detections=found
    )


CASES: list[Callable[[Settings], Row]] = [
    iou_of_anchors,
    nms_2000_scattered,
    nms_2000_clustered,
    nms_10000_scattered,
    nms_10000_clustered,
    nms_15_classes,
    roi_align,
    assignment_share,
    postprocessing_share,
]


def command(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure all cases and print a table."""
    parser: argparse.ArgumentParser = make_parser("python -m benchmarks.rotated_ops", __doc__ or "")
    parser.add_argument(
        "--quick", action="store_true", help="a tenth of the boxes, for a look at whether it works"
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=5,
        help="rounds timed; the least time counts (default: 5; cases of seconds: at most 2)",
    )
    parser.add_argument("--threads", type=int, help="torch's threads (default: as torch chooses)")
    options = parser.parse_args(arguments)
    if options.threads is not None:
        torch.set_num_threads(max(1, options.threads))
    settings = Settings(rounds=max(1, options.rounds), quick=options.quick)
    rows = []
    for case in CASES:
        rows.append(case(settings))
        print(describe(rows[-1]), flush=True)
    result = {
        "rows": rows,
        "rounds": settings.rounds,
        "quick": settings.quick,
        "machine": machine(),
        "versions": versions(),
    }
    if options.json:
        print_json(result)
    return result


def describe(result: Row) -> str:
    """Lines for a person."""
    lines = [result["case"]]
    for name, ms in result.get("ms", {}).items():
        faster = result["times_faster"].get(name)
        lines.append(f"  {name:<34}{ms:>11.1f} ms" + (f"{faster:>9.1f} times faster" if faster else ""))
    rest = {
        key: value for key, value in result.items() if key not in ("case", "ms", "reference", "times_faster")
    }
    return "\n".join([*lines, f"  {rest}"])


if __name__ == "__main__":
    sys.exit(run_command(command))
