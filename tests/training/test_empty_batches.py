"""Images and whole batches without objects train, on two ranks too, in every detector: ranks stay identical
and nothing hangs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from dbf_ray.detectors import DETECTORS, make_detector
from dbf_ray.freezing import Freezer
from dbf_ray.training.ddp import DynamicDDP, all_reduce_sum, world_size
from tests.tiny import add_narrow, on_ranks

EMPTY, FULL = 0, 1
# what each rank's image holds
STEPS = {
    "one rank empty": (FULL, EMPTY),
    "both empty": (EMPTY, EMPTY),
    "none empty": (FULL, FULL),
}


# the last has a norm that no level reads
CASES = [
    *((name, "narrow") for name in DETECTORS),
    ("rotated_retinanet", "shallow_convnext"),
]


def train(name: str, backbone: str, rank: int) -> dict[str, Any]:
    """Three steps with all trained, three with the backbone frozen."""
    torch.manual_seed(0)
    options = {"roi_channels": 16} if "rcnn" in name else {}
    detector = make_detector(name, backbone=backbone, num_classes=2, fpn_channels=8, head_convs=0, **options)
    freezer, ddp = Freezer(detector.backbone), DynamicDDP(detector)
    optimizer = torch.optim.SGD(detector.parameters(), lr=1e-3)
    seen = []
    for prefix in (0, 4):
        freezer.apply(prefix)
        ddp.rebuild()
        detector.train()
        for kind, contents in STEPS.items():
            boxes = torch.tensor([[30.0, 30, 40, 20, 25]])[: contents[rank]]
            target = {"boxes": boxes, "labels": torch.zeros(len(boxes), dtype=torch.int64), "seed": 5}
            batch = detector.prepare([torch.rand(3, 64, 64)], [target])
            normalizers = detector.at_least(all_reduce_sum(batch.normalizers)) / world_size()
            losses = ddp(batch, normalizers)
            torch.stack(list(losses.values())).sum().backward()
            trained = [p for p in detector.parameters() if p.requires_grad]
            seen.append(
                (prefix, kind, all(p.grad is not None and bool(p.grad.isfinite().all()) for p in trained))
            )
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    return {"seen": seen, "weights": detector.state_dict()}


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    add_narrow()
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    torch.save([train(name, backbone, rank) for name, backbone in CASES], f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


def test_batches_without_objects_train_on_two_ranks(tmp_path: Path) -> None:
    on_ranks(worker, str(tmp_path))
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
    for case, ours, other in zip(CASES, *ranks, strict=True):
        for rank in (ours, other):
            assert len(rank["seen"]) == 2 * len(STEPS)
            assert [step for step in rank["seen"] if not step[2]] == [], case
        assert all(torch.equal(tensor, other["weights"][key]) for key, tensor in ours["weights"].items()), (
            case
        )
