from __future__ import annotations

import hashlib
from collections import Counter
from functools import cache

import numpy as np
import pytest
import torch

from dbf_ray.data import Sample, SyntheticDataset
from dbf_ray.data.scenes.drawing import Canvas, Pose, cosine, sine
from dbf_ray.data.scenes.objects import CLASSES, PAINTERS, Painter
from dbf_ray.data.seeds import Stream
from dbf_ray.errors import DataError
from dbf_ray.geometry import boxes_to_corners

SIZES = {
    "plane": (60, 52),
    "ship": (80, 18),
    "vehicle": (24, 10.5),
    "large_vehicle": (50, 13),
    "storage_tank": (40, 40),
    "harbor": (100, 16),
}


@cache
def scenes(split: str = "train", count: int = 60) -> list[Sample]:
    dataset = SyntheticDataset(split, count)
    return [dataset.load(index) for index in range(count)]


def digest(sample: Sample) -> str:
    image, target = sample
    parts = [image.numpy().tobytes(), torch.Tensor(target["boxes"]).numpy().astype("<f4").tobytes()]
    parts += [target["labels"].numpy().astype("<i8").tobytes(), target["difficult"].numpy().tobytes()]
    return hashlib.sha256(b"".join(parts)).hexdigest()


@pytest.mark.parametrize(
    ("split", "index", "size", "expected"),
    [
        ("train", 0, 384, "4788166960e48e66588ca13859adf863907039709c18d5be6d8cfe737ef87d21"),
        ("train", 7, 384, "271cdcccd25cf927f00f490898ed39e2957d8c3cfb29dd0c7e653721063a41da"),
        ("val", 1, 256, "b21b3d9c7fa35d500fb634c70e775d972e9d451547b2396fbe86a6aacbd4cf19"),
        ("val", 4, 640, "4c6f54e4b27fec20b76eea7348e37f6db60a2954ba4fcc0724166cc5bca39c9c"),
    ],
)
def test_pinned_scenes(split: str, index: int, size: int, expected: str) -> None:
    # Computed once; they must be the same on every machine and with every version of numpy and torch.
    assert digest(SyntheticDataset(split, index + 1, size).load(index)) == expected


def test_scenes_do_not_depend_on_what_was_drawn_before() -> None:
    dataset = SyntheticDataset("train", 100)
    again = SyntheticDataset("train", 7)
    np.random.seed(1)
    torch.manual_seed(5)
    assert digest(again.load(6)) == digest(dataset.load(6)) == digest(scenes()[6])


def test_train_and_val_share_no_scene() -> None:
    digests = {digest(sample) for split in ("train", "val") for sample in scenes(split, 20)}
    assert len(digests) == 40


def test_targets_are_well_formed() -> None:
    for index, (image, target) in enumerate(scenes()):
        boxes = torch.Tensor(target["boxes"])
        assert image.dtype == torch.uint8
        assert image.shape == (3, 384, 384)
        assert target["image_id"] == f"train-{index:05d}"
        assert len(boxes) == len(target["labels"]) == len(target["difficult"]) >= 1
        assert bool((boxes[:, 2] >= boxes[:, 3]).all())
        assert bool((boxes[:, 3] >= 5).all())
        assert bool(((boxes[:, 4] >= -90) & (boxes[:, 4] < 90)).all())
        assert bool(((target["labels"] >= 0) & (target["labels"] < len(CLASSES))).all())


def test_what_the_scenes_hold() -> None:
    labels, difficult, cut, alone, sides = Counter[str](), 0, 0, 0, []
    for _, target in scenes():
        boxes = torch.Tensor(target["boxes"])
        labels.update(CLASSES[label] for label in target["labels"].tolist())
        difficult += int(target["difficult"].sum())
        corners = boxes_to_corners(boxes)
        cut += int(((corners < 0) | (corners > 384)).any(-1).sum())
        sides += boxes[:, 2].tolist()
        distances = torch.cdist(boxes[:, :2], boxes[:, :2]) + torch.eye(len(boxes)) * 1e6
        alone += int((distances.amin(1) > 80).sum())
    total = sum(labels.values())
    assert set(labels) == set(CLASSES)
    assert min(labels.values()) > 0.03 * total
    assert 10 < total / 60 < 40
    assert 0.04 < difficult / total < 0.2
    assert cut > 0.03 * total
    assert alone > 10
    assert max(len(target["labels"]) for _, target in scenes()) >= 40  # dense rows
    assert np.mean([(16 <= side <= 120) for side in sides]) > 0.85


def test_objects_of_a_class_do_not_cover_each_other() -> None:
    for _, target in scenes():
        boxes, labels = torch.Tensor(target["boxes"]), target["labels"]
        same = labels[:, None] == labels[None, :]
        distances = torch.cdist(boxes[:, :2], boxes[:, :2])
        reach = (boxes[:, None, 3] + boxes[None, :, 3]) / 2
        close = same & (distances < 0.6 * reach) & ~torch.eye(len(boxes), dtype=torch.bool)
        assert not bool(close.any())


@pytest.mark.parametrize("angle", [0, 45, 133, 360, 611])
@pytest.mark.parametrize("name", CLASSES)
def test_boxes_are_tight(name: str, angle: int) -> None:
    """What a painter paints reaches the four sides of its box and hardly past them."""
    length, width = SIZES[name]
    for draw in range(4):
        canvas = Canvas(160, 160)
        canvas.pixels[:] = [[[255]], [[0]], [[255]]]
        painter = Painter(canvas, Stream(draw))
        painter.shade = 0.0  # shadows lie outside the box
        PAINTERS[name](painter, Pose(80.25, 79.5, angle), length, width)
        painted = (canvas.pixels - np.array([255, 0, 255], np.float32)[:, None, None]).__abs__().max(0) > 40
        y, x = np.nonzero(painted)
        dx, dy = x + 0.5 - 80.25, y + 0.5 - 79.5
        u, v = dx * cosine(angle) - dy * sine(angle), dx * sine(angle) + dy * cosine(angle)
        for values, half in ((u, length / 2), (v, width / 2)):
            assert values.max() == pytest.approx(half, abs=1.6)
            assert values.min() == pytest.approx(-half, abs=1.6)


def test_objects_stand_out_from_their_surroundings() -> None:
    """Within an object's inscribed disc brightness varies far more than within equal discs of ground with no
    object near.
    """
    inside, ground = [], []
    y, x = np.ogrid[:384, :384]
    for image, target in scenes()[:25]:
        grey = image.float().mean(0).numpy()
        boxes = torch.Tensor(target["boxes"])[~target["difficult"]]
        for cx, cy, _, h, _ in boxes.tolist():
            if 20 < cx < 364 and 20 < cy < 364:
                inside.append(grey[np.hypot(x + 0.5 - cx, y + 0.5 - cy) < h / 2].std())
        everything = torch.Tensor(target["boxes"])
        for cx, cy in torch.cartesian_prod(torch.arange(32.0, 384, 64), torch.arange(32.0, 384, 64)):
            if bool(
                (torch.hypot(everything[:, 0] - cx, everything[:, 1] - cy) > everything[:, 2] / 2 + 16).all()
            ):
                ground.append(grey[np.hypot(x - float(cx), y - float(cy)) < 8].std())
    assert len(inside) > 150
    assert len(ground) > 150
    assert np.quantile(inside, 0.25) > 1.5 * np.median(ground)


@pytest.mark.parametrize("size", [64, 200, 640])
def test_other_sizes(size: int) -> None:
    dataset = SyntheticDataset("val", 9, size)
    counts = []
    for index in range(9):
        image, target = dataset.load(index)
        assert image.shape == (3, size, size)
        assert target["boxes"].canvas_size == (size, size)
        assert len(target["labels"]) >= 1
        counts.append(len(target["labels"]))
    if size == 640:
        assert np.mean(counts) > 25


def test_bad_arguments() -> None:
    with pytest.raises(DataError, match=r"splits train, val, got 'test'"):
        SyntheticDataset("test")
    with pytest.raises(DataError, match=r"at least 1 image of at least 32 pixels, got 0 of 384"):
        SyntheticDataset("train", 0)
    with pytest.raises(IndexError):
        SyntheticDataset("train", 3).load(3)
