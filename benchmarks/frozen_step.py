"""What a training step costs when the backbone is trained, and in each way that it can be frozen: time,
FLOPs, memory.

Ways: full (trained); official (DBF's own code: the backbone runs as if it were trained and its outputs are
detached); frozen (no_grad, eval mode, image by image on a CPU); engine (batch norms folded, channels-last);
cached (features from memory, in bf16). They take turns in one process.

A step is everything from images on the host to new weights: normalising, assignment, forward, backward,
clipping, SGD. peak_bytes is what it adds to the process's resident memory at most (on a GPU: to the allocated
tensors); held_bytes the most tensors alive at one time in the forward pass. b is the backbone's share of
forward FLOPs; ceiling the highest speed-up that counting FLOPs allows, with the forward pass kept and with it
cached; both by DETECTOR/BACKBONE as given.

python -m benchmarks.frozen_step --json                     512 px, batch 2, everything, on a CPU half an hour
python -m benchmarks.frozen_step --backbones mobilenet_v2:64x2 resnet18:64x2 \\
    --detectors rotated_retinanet --size 384 --batch 4
python -m benchmarks.frozen_step --size 1024 --batch 8 --precision bf16     on a GPU
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dbf_ray.cli.options import make_parser, print_json, run_command
from dbf_ray.cost import FlopTable, Ledger
from dbf_ray.cost.live_bytes import LiveBytes
from dbf_ray.cost.memory import PeakMemory
from dbf_ray.detectors import DETECTORS, Batch, Detector, make_detector
from dbf_ray.detectors.backbones import FrozenFeatures
from dbf_ray.errors import ConfigError
from dbf_ray.freezing import Freezer
from dbf_ray.freezing.cache import RamCache
from dbf_ray.run.summary import machine, versions
from dbf_ray.training.frozen import EngineOptions, FrozenPrefix
from dbf_ray.training.loop import autocast
from dbf_ray.training.optim import make_optimizer, parameter_groups

WAYS = ("full", "official", "frozen", "engine", "cached")
BACKBONES = ("resnet50", "swin_t", "mobilenet_v2:64x2")
OBJECTS = 12  # of an image


@dataclass
class Stepper:
    """One detector with what trains it; :meth:`step` trains it in any way."""

    detector: Detector
    optimizer: torch.optim.Optimizer
    freezer: Freezer
    engine: FrozenPrefix
    cached: FrozenPrefix
    images: list[Tensor]
    targets: list[dict[str, Any]]
    precision: str

    def begin(self, way: str) -> None:
        """Freeze or unfreeze for a way."""
        self.freezer.apply(self.freezer.num_stages if way in ("frozen", "engine", "cached") else 0)
        self.detector.train()

    def forward(self, way: str) -> Tensor:
        """The sum of the losses."""
        detector, backbone = self.detector, self.detector.backbone
        batch = detector.prepare(self.images, self.targets)
        with autocast(detector.mean.device, self.precision):
            if way == "official":
                return self._official(batch)
            if way in ("engine", "cached"):
                batch = (self.engine if way == "engine" else self.cached)(batch)
            assert backbone.num_frozen == (0 if way == "full" else backbone.num_stages)
            return torch.stack(list(detector(batch, batch.normalizers).values())).sum()

    def _official(self, batch: Batch) -> Tensor:
        """The backbone with gradients, its outputs detached: what it keeps for a backward pass lives until
        the neck is done.
        """
        backbone = self.detector.backbone
        maps = backbone(batch.images)
        given = replace(batch, frozen=FrozenFeatures(tuple(part.detach() for part in maps), None))
        backbone.num_frozen = backbone.num_stages
        hook = self.detector.neck.register_forward_hook(lambda *_: maps.clear())
        try:
            losses = self.detector(given, batch.normalizers)
        finally:
            hook.remove()
            backbone.num_frozen = 0
        return torch.stack(list(losses.values())).sum()

    def update(self, loss: Tensor) -> None:
        """Backward, clipping, and a step of the optimizer."""
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.detector.parameters(), 35.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def step(self, way: str) -> None:
        """One step, waited for."""
        self.update(self.forward(way))
        wait(self)


def make_stepper(options: argparse.Namespace, name: str, backbone: str, width: dict[str, Any]) -> Stepper:
    """A detector of 15 classes with random weights, random images, objects and a filled cache."""
    torch.manual_seed(0)
    device, size = torch.device(options.device), options.size
    detector = (
        make_detector(name, backbone=backbone, num_classes=15, **width)
        .to(device)
        .to(memory_format=torch.channels_last)
    )
    images = [torch.randint(0, 256, (3, size, size), dtype=torch.uint8) for _ in range(options.batch)]
    targets = []
    for index in range(options.batch):
        middles, sides, angles = (
            torch.rand(OBJECTS, 2) * size,
            torch.rand(OBJECTS, 2) * size / 8 + 12,
            torch.rand(OBJECTS, 1) * 180 - 90,
        )
        boxes = torch.cat([middles, sides, angles], 1)
        targets.append(
            {
                "boxes": boxes,
                "labels": torch.randint(0, 15, (OBJECTS,)),
                "seed": index,
                "image_id": str(index),
                "orientation": "identity",
            }
        )
    dtype = torch.bfloat16 if options.precision == "bf16" else torch.float32
    ledger = Ledger(lambda *_: 0, device=device)
    engine = EngineOptions(dtype, options.compile_engine)
    freezer = Freezer(detector.backbone)
    stages = [list(stage.parameters()) for stage in detector.backbone.stages]
    return Stepper(
        detector,
        make_optimizer("sgd", parameter_groups(detector, stages, 1e-4), 1e-4),
        freezer,
        FrozenPrefix(detector, ledger, engine),
        FrozenPrefix(detector, ledger, engine, RamCache(1 << 34)),
        images,
        targets,
        options.precision,
    )


def measure(stepper: Stepper, rounds: int, ways: Sequence[str] = WAYS) -> dict[str, dict[str, float]]:
    """Milliseconds and bytes of each way. The first round of all warms up; memory is looked at in a round of
    its own.
    """
    times: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(rounds + 1):
        for way in ways:
            stepper.begin(way)
            if way in ("engine", "cached"):
                ready(stepper, way)
            wait(stepper)
            begun = time.perf_counter()
            stepper.step(way)
            if number:
                times[way].append(1000 * (time.perf_counter() - begun))
    found = {}
    give_back_at(1 << 20)
    for way in ways:
        stepper.begin(way)
        ready(stepper, way)
        found[way] = {
            "step_ms": statistics.median(times[way]),
            "step_ms_min": min(times[way]),
            "peak_bytes": growth(lambda way=way: stepper.step(way), stepper.detector.mean.device),  # type: ignore[misc]
            **live_bytes(stepper, way),
        }
    give_back_at(1 << 25)
    return found


def give_back_at(size: int) -> None:
    """Have the C library give memory of at least ``size`` bytes back as soon as it is free, so that what is
    resident is what is in use.

    glibc raises this limit (M_MMAP_THRESHOLD) by itself up to 32 MB and keeps what is below for later:
    faster, but then growth shows less, or more, than a step needs. So it is low where memory is looked at,
    and high where steps are timed.
    """
    try:
        ctypes.CDLL("libc.so.6").mallopt(-3, size)
    except (OSError, AttributeError):
        return


def wait(stepper: Stepper) -> None:
    """Until the device has done all that it was given."""
    if stepper.detector.mean.is_cuda:
        torch.cuda.synchronize()


def ready(stepper: Stepper, way: str) -> None:
    """Make the engine, or fill the cache, before a step is timed: it happens once in a frozen span."""
    if way in ("engine", "cached"):
        with torch.no_grad(), autocast(stepper.detector.mean.device, stepper.precision):
            batch = stepper.detector.prepare(stepper.images, stepper.targets)
            (stepper.engine if way == "engine" else stepper.cached)(batch)


def growth(run: Callable[[], None], device: torch.device) -> int:
    """Bytes that memory grows by at most while something runs, after what earlier work left has been given
    back.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize()
    else:
        trim()
    memory = PeakMemory(device)
    memory.take()  # what was before; from now on anew
    before = torch.cuda.memory_allocated(device) if device.type == "cuda" else memory.take()
    run()
    return max(0, memory.take() - before)


def trim() -> None:
    """Have the C library give free memory back, where it can."""
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        return


def live_bytes(stepper: Stepper, way: str) -> dict[str, int]:
    """The most bytes of tensors alive in the forward pass, and in the whole step."""
    with LiveBytes() as live:
        loss = stepper.forward(way)
        held = live.peak
        stepper.update(loss)
    return {"held_bytes": held, "live_bytes": live.peak}


def flops_of(table: FlopTable, size: int, batch: int) -> dict[str, int]:
    """FLOPs of a step in each way."""
    full, frozen = table.step(size, size, 0), table.step(size, size, table.num_stages)
    official = full.forward + frozen.backward
    each = {"full": full.total, "official": official, "frozen": frozen.total, "engine": frozen.total}
    each["cached"] = frozen.total - table.backbone_forward(size, size)
    return {way: batch * flops for way, flops in each.items()}


def parse_backbone(text: str) -> tuple[str, dict[str, int]]:
    """``mobilenet_v2:64x2`` is a backbone with a pyramid and head of 64 channels and 2 convolutions;
    ``resnet50`` one with the detector's own.
    """
    name, _, width = text.partition(":")
    if not width:
        return name, {}
    channels, _, convs = width.partition("x")
    if not (channels.isdecimal() and convs.isdecimal()):
        raise ConfigError(f"a backbone must be NAME or NAME:CHANNELSxCONVS, got {text!r}")
    return name, {"fpn_channels": int(channels), "head_convs": int(convs)}


def command(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure and print tables."""
    parser = make_parser("python -m benchmarks.frozen_step", __doc__ or "", sections=None)
    parser.add_argument(
        "--detectors",
        nargs="+",
        default=list(DETECTORS),
        metavar="NAME",
        help="which detectors (default: all)",
    )
    parser.add_argument(
        "--backbones",
        nargs="+",
        default=list(BACKBONES),
        metavar="NAME",
        help=f"NAME or NAME:CHANNELSxCONVS ({BACKBONES})",
    )
    parser.add_argument(
        "--ways",
        nargs="+",
        default=list(WAYS),
        choices=WAYS,
        help="which ways; on a CPU peak_bytes is also of what others left (default: all)",
    )
    parser.add_argument(
        "--size", type=int, default=512, help="side of the square images in pixels (default: 512)"
    )
    parser.add_argument("--batch", type=int, default=2, help="images in a step (default: 2)")
    parser.add_argument("--rounds", type=int, default=4, help="steps timed in each way (default: 4)")
    parser.add_argument(
        "--precision",
        choices=("float32", "bf16"),
        default="float32",
        help="of the network (default: float32)",
    )
    parser.add_argument(
        "--device",
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="default: a GPU where there is one",
    )
    parser.add_argument(
        "--threads", type=int, default=torch.get_num_threads(), help="on a CPU (default: %(default)s)"
    )
    parser.add_argument(
        "--compile-engine",
        action="store_true",
        help="run the engine by torch.compile (held_bytes are of one that is not)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="one small detector at 256 px, in less than a minute"
    )
    options = parser.parse_args(arguments)
    if options.quick:
        options.detectors, options.backbones, options.size, options.rounds = (
            ["rotated_retinanet"],
            ["mobilenet_v2:64x2"],
            256,
            2,
        )
    torch.set_num_threads(options.threads)
    ways = [way for way in WAYS if way in options.ways]
    rows: list[dict[str, Any]] = []
    shares: dict[str, float] = {}
    ceilings: dict[str, dict[str, float]] = {}
    for detector in options.detectors:
        for text in options.backbones:
            backbone, width = parse_backbone(text)
            stepper = make_stepper(options, detector, backbone, width)
            table = FlopTable(stepper.detector)
            b = table.backbone_share(options.size, options.size)
            name, flops = f"{detector}/{text}", flops_of(table, options.size, options.batch)
            shares[name] = b
            ceilings[name] = {"no_grad": 3 / (3 - 2 * b), "cached": 1 / (1 - b)}
            found = measure(stepper, max(1, options.rounds), ways)
            rows += [
                {"detector": detector, "backbone": text, "way": way, "flops": flops[way], **found[way]}
                for way in ways
            ]
            print_rows(rows[-len(ways) :], b, ceilings[name])
            del stepper, table
            gc.collect()
    settings = {
        key: getattr(options, key)
        for key in ("size", "batch", "rounds", "precision", "device", "threads", "compile_engine")
    }
    result = {
        "rows": rows,
        "b": shares,
        "ceiling": ceilings,
        **settings,
        "machine": machine(),
        "versions": versions(),
    }
    if options.json:
        print_json(result)
    return result


def print_rows(rows: list[dict[str, Any]], b: float, ceiling: dict[str, float]) -> None:
    """A table of one detector and backbone, with ratios where it has the way "full"."""
    full = rows[0] if rows[0]["way"] == "full" else dict.fromkeys(("step_ms_min", "flops"), math.nan)
    limits = f"by FLOPs at most {ceiling['no_grad']:.2f} times as fast, {ceiling['cached']:.2f} cached"
    print(f"{rows[0]['detector']}, {rows[0]['backbone']}: b {b:.3f}, {limits}")
    print("  way       step ms     min  of full  of full by FLOPs  GFLOP  peak MB  held MB")
    for row in rows:
        print(
            f"  {row['way']:8} {row['step_ms']:8.0f} {row['step_ms_min']:7.0f} "
            f"{row['step_ms_min'] / full['step_ms_min']:8.3f} {row['flops'] / full['flops']:17.3f} "
            f"{row['flops'] / 1e9:6.0f} {row['peak_bytes'] / 1e6:8.0f} {row['held_bytes'] / 1e6:8.0f}",
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(run_command(command))
