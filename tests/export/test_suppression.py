"""Numpy's overlap and suppression against torch's, and the package without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dbf_ray.errors import DataError
from dbf_ray.export import rotated_iou, suppress_rotated
from dbf_ray.geometry import batched_nms_rotated, box_iou_rotated_aligned, nms_rotated

ROOT = Path(__file__).resolve().parents[2]


def boxes(count: int, seed: int, spread: float = 60.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(count, 5, generator=generator, dtype=torch.float64)
    return values * torch.tensor([spread, spread, 30.0, 20.0, 360.0]) - torch.tensor([0, 0, 0, 0, 180.0])


@given(st.integers(0, 10_000))
def test_overlaps_are_those_of_torch(seed: int) -> None:
    a, b = boxes(50, seed, 20), boxes(50, seed + 1, 20)
    b[:10, 4] = a[:10, 4]  # parallel
    b[10:15] = a[10:15]
    a[15, 2] = 0
    wanted = box_iou_rotated_aligned(a, b).numpy()
    assert rotated_iou(a.numpy(), b.numpy()) == pytest.approx(wanted, abs=1e-12)
    assert wanted.max() == pytest.approx(1)


@pytest.mark.parametrize("count", [0, 1, 700])
@pytest.mark.parametrize("threshold", [0.1, 0.5, 1.0])
def test_what_is_kept_is_what_torch_keeps(count: int, threshold: float) -> None:
    found, scores = boxes(count, count), torch.rand(count).mul(50).round()  # many equal ones
    found[count // 2 :] = found[: count - count // 2]
    labels = torch.randint(0, 3, (count,))
    kept = suppress_rotated(found.numpy(), scores.numpy(), labels.numpy(), threshold)
    assert kept.tolist() == batched_nms_rotated(found, scores, labels, threshold).tolist()
    alone = suppress_rotated(found.numpy(), scores.numpy(), np.zeros(count), threshold)
    assert alone.tolist() == nms_rotated(found, scores, threshold).tolist()


def test_what_does_not_fit_is_refused() -> None:
    two = np.ones((2, 5))
    for arguments, words in (
        ((np.ones((2, 4)), [1, 2], [0, 0], 0.5), r"boxes must have shape \[N, 5\]"),
        ((two, [1], [0, 0], 0.5), r"must have shape \[2\], one for each box, got \(1,\)"),
        ((two, [1, 2], [0, 0], 0.0), r"iou_threshold must be in \(0, 1\], got 0.0"),
    ):
        with pytest.raises(DataError, match=words):
            suppress_rotated(*arguments)
    with pytest.raises(DataError, match="boxes must come in pairs"):
        rotated_iou(two, two[:1])


def test_what_an_exported_detector_needs_is_numpy_and_pillow() -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'torchvision', 'mlflow', 'onnx', 'shapely'): sys.modules[name] = None\n"
        "from dbf_ray.export import Exported, suppress_rotated\n"
        "assert suppress_rotated([[5, 5, 4, 2, 0], [5, 5, 4, 2, 9]], [1, 2], [0, 0], .5).tolist() == [1]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
