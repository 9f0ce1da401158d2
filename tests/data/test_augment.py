"""Random augmentations: boxes move with the image, everything comes from the stream, and no feature is kept
of what comes but once.
"""

from __future__ import annotations

import colorsys
import dataclasses
import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from dbf_ray.data import Dataset, Sample, SyntheticDataset, Target, TrainView, make_target, train_loader
from dbf_ray.data.augment import FILL, Augmentation, augment, draw_colour, recolour, rescale, rotate
from dbf_ray.data.seeds import AUGMENT, Stream
from dbf_ray.data.transforms import ORIENTATIONS, flip
from dbf_ray.errors import ConfigError
from dbf_ray.geometry import box_iou_rotated_aligned

SIZES = [(160, 240), (240, 160), (200, 200), (121, 301)]
ALL: dict[str, Any] = {
    "rotate": 180.0,
    "scales": [0.5, 1.5],
    "brightness": 0.3,
    "contrast": 0.3,
    "saturation": 0.3,
    "hue": 0.1,
}
ALWAYS = Augmentation(**{**ALL, "rotate_probability": 1.0})
TURNED_AND_SCALED = dataclasses.replace(ALWAYS, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0)


def render(boxes: Tensor, height: int, width: int, fine: int = 4) -> np.ndarray:
    """How much of each pixel [height, width] the boxes cover, 0..1, from fine x fine points in it and the
    definition of the convention.
    """
    mask = np.zeros((height * fine, width * fine), bool)
    y, x = ((np.arange(side * fine, dtype=np.float32) + 0.5) / fine for side in (height, width))
    y = y[:, None]
    for cx, cy, w, h, angle in boxes.tolist():
        cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        mask |= (abs((x - cx) * cos - (y - cy) * sin) <= w / 2) & (
            abs((x - cx) * sin + (y - cy) * cos) <= h / 2
        )
    return mask.reshape(height, fine, width, fine).mean((1, 3))


def overlap(one: np.ndarray, two: np.ndarray) -> float:
    """IoU of two masks of shares."""
    return float(np.minimum(one, two).sum() / np.maximum(one, two).sum())


def sample(boxes: list[tuple[float, ...]], size: tuple[int, int], labels: list[int] | None = None) -> Sample:
    """A picture of the boxes, white on black, of class 0 and so on, every second one difficult."""
    numbers = labels or list(range(len(boxes)))
    target = make_target(
        torch.tensor(boxes).reshape(-1, 5), numbers, [n % 2 == 1 for n in numbers], "x", size
    )
    target["scale"] = 1.0
    mask = torch.from_numpy(render(target["boxes"], *size))
    return mask.mul(255).round().to(torch.uint8).expand(3, -1, -1).contiguous(), target


def sensible(size: tuple[int, int]) -> st.SearchStrategy[tuple[float, ...]]:
    """Boxes of 60 to 110 px whose centres are in the image."""
    side, angle = st.floats(60, 110, width=32), st.floats(-400, 400, width=32)
    return st.tuples(st.floats(0, size[1], width=32), st.floats(0, size[0], width=32), side, side, angle)


def assert_canonical(target: Target, image: Tensor) -> None:
    boxes = target["boxes"]
    assert bool((boxes[:, 2] >= boxes[:, 3]).all())
    assert bool(((boxes[:, 4] >= -90) & (boxes[:, 4] < 90)).all())
    assert boxes.canvas_size == tuple(image.shape[-2:])
    assert (boxes.dtype, image.dtype) == (torch.float32, torch.uint8)


CHANGES: dict[str, Callable[[Tensor, Target, Stream], Sample]] = {
    **{name: lambda image, target, _, name=name: flip(image, target, name) for name in ORIENTATIONS},
    "rotate": Augmentation(rotate=180, rotate_probability=1.0),
    "rotate a little": Augmentation(rotate=10, rotate_probability=1.0),
    "scales": Augmentation(scales=(0.6, 2.0)),
    "one of three scales": Augmentation(scales=(0.6, 0.75, 1.3)),
    "turned and scaled": TURNED_AND_SCALED,
}


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("change", CHANGES)
@settings(max_examples=6, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**31 - 1))
def test_box_masks_move_with_the_image(
    change: str, size: tuple[int, int], data: st.DataObject, seed: int
) -> None:
    image, target = sample([data.draw(sensible(size))], size)
    moved, changed = CHANGES[change](image, target, Stream(seed))
    assert_canonical(changed, moved)
    if len(changed["boxes"]):
        white, _ = CHANGES[change](torch.full_like(image, 255), target, Stream(seed))
        there = (white[0] == 255).numpy()  # of a box that was cut no more than that is in the image
        assert (
            overlap(moved[0].numpy() / 255 * there, render(changed["boxes"], *moved.shape[-2:]) * there)
            >= 0.95
        )
    assert image.shape[-2:] == size  # neither argument was changed
    assert torch.equal(image, sample([tuple(target["boxes"][0].tolist())], size)[0])


@settings(max_examples=15, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**31 - 1))
def test_colour_leaves_boxes_alone_and_draws_apart(data: st.DataObject, seed: int) -> None:
    image, target = sample(data.draw(st.lists(sensible((160, 240)), max_size=3)), (160, 240))
    plain_image, plain = augment(image, target, TURNED_AND_SCALED, Stream(seed))
    coloured_image, coloured = augment(image, target, ALWAYS, Stream(seed))
    assert coloured_image.shape == plain_image.shape
    assert torch.equal(coloured["boxes"], plain["boxes"])
    assert_canonical(coloured, coloured_image)
    only_image, only = augment(
        image, target, dataclasses.replace(ALWAYS, rotate=0.0, scales=None), Stream(seed)
    )
    assert torch.equal(only["boxes"], target["boxes"])
    assert only_image.shape == image.shape


def turned_slowly(image: Tensor, degrees: float) -> np.ndarray:
    """Pixel by pixel: where does this pixel's centre come from, and what is between the four pixels there?
    Outside is the mean colour.
    """
    pixels, (_, height, width) = image.numpy().astype(float), image.shape
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    result = np.zeros_like(pixels)
    for row in range(height):
        for column in range(width):
            dx, dy = column + 0.5 - width / 2, row + 0.5 - height / 2
            x, y = width / 2 + dx * cos - dy * sin - 0.5, height / 2 + dx * sin + dy * cos - 0.5
            left, top = math.floor(x), math.floor(y)
            for r, c in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
                weight = (1 - abs(x - c)) * (1 - abs(y - r))
                inside = 0 <= r < height and 0 <= c < width
                result[:, row, column] += weight * (pixels[:, r, c] if inside else np.array(FILL))
    return result


@pytest.mark.parametrize("degrees", [0.0, 17.0, -33.3, 90.0, 123.4, 180.0, -179.0])
@pytest.mark.parametrize("size", [(20, 31), (31, 20), (24, 24)], ids=str)
def test_rotation_beside_a_slow_one(size: tuple[int, int], degrees: float) -> None:
    image = torch.randint(0, 256, (3, *size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    boxes = [(12.0, 9.0, 10.0, 4.0, 20.0), (4.0, 15.0, 9.0, 3.0, -80.0)]
    found, target = rotate(image, sample(boxes, size)[1], degrees)
    assert np.abs(found.numpy() - turned_slowly(image, degrees)).max() < 0.51  # rounded once
    back = complex(math.cos(math.radians(degrees)), -math.sin(math.radians(degrees)))
    for cx, cy, w, h, angle in target["boxes"].tolist():
        from_middle = complex(cx - size[1] / 2, size[0] / 2 - cy) * back  # y points up in it
        center = (from_middle.real + size[1] / 2, size[0] / 2 - from_middle.imag)
        original = min(boxes, key=lambda box: math.dist(box[:2], center))
        assert center == pytest.approx(original[:2], abs=1e-4)
        assert (w, h) == original[2:4]
        assert (angle - degrees - original[4] + 90) % 180 - 90 == pytest.approx(0, abs=1e-4)


def test_no_seam_runs_between_image_and_filling() -> None:
    image = torch.tensor(FILL).to(torch.uint8).view(3, 1, 1).expand(3, 60, 90)
    target = sample([], (60, 90))[1]
    assert torch.equal(rotate(image, target, 30.0)[0], image)
    theirs = functional.rotate(image, 30.0, interpolation=InterpolationMode.BILINEAR, fill=list(FILL))
    assert int(theirs[0].min()) < 100  # torchvision's own filling: why it is not used


def test_torchvisions_boxes_agree_if_nothing_clamps_and_only_then() -> None:
    boxes = torch.rand(300, 5, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [300.0, 200, 80, 40, 180]
    )
    target = make_target(boxes + torch.tensor([0.0, 0, 8, 4, -90]), [0] * 300, [False] * 300, "x", (200, 300))

    def overlaps(mode: str | None) -> Tensor:
        theirs = tv_tensors.BoundingBoxes(
            target["boxes"].clone(), format="CXCYWHR", canvas_size=(200, 300), clamping_mode=mode
        )
        turned = functional.rotate(theirs, 33.0).as_subclass(Tensor)
        return box_iou_rotated_aligned(turned[torch.tensor(kept)], torch.Tensor(ours["boxes"]))

    target["labels"] = torch.arange(300)
    ours = rotate(torch.zeros(3, 200, 300, dtype=torch.uint8), target, 33.0)[1]
    kept = ours["labels"].tolist()
    assert 150 < len(kept) < 300
    assert bool((overlaps(None) > 0.999).all())
    for mode in ("soft", "hard"):
        assert int((overlaps(mode) < 0.9).sum()) > 20  # those that reach past the border


def test_objects_whose_centre_leaves_the_image_are_dropped_with_label_and_flag() -> None:
    boxes = [
        (150.0, 100.0, 40.0, 20.0, 0.0),
        (290.0, 100.0, 30.0, 8.0, 0.0),
        (150.0, 30.0, 30.0, 8.0, 0.0),
        (10.0, 100.0, 30.0, 8.0, 5.0),
    ]
    image, target = sample(boxes, (200, 300), [3, 4, 5, 6])
    turned_image, turned = rotate(image, target, 90.0)
    assert turned_image.shape == image.shape
    # 140 px beside the centre of an image that is 100 px to either side of it
    assert turned["labels"].tolist() == [
        3,
        5,
    ]
    assert turned["difficult"].tolist() == [True, True]
    assert turned["boxes"][:, :2].tolist() == [[150.0, 100.0], [80.0, 100.0]]
    nothing = rotate(*sample(boxes[1:2], (200, 300)), 90.0)[1]
    assert (nothing["boxes"].shape, nothing["labels"].shape, nothing["difficult"].shape) == (
        (0, 5),
        (0,),
        (0,),
    )
    outside = rotate(*sample([(-3.0, 100.0, 40.0, 20.0, 0.0)], (200, 300)), 1.0)[1]
    assert len(outside["boxes"]) == 0


@settings(max_examples=20, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**31 - 1))
def test_labels_and_flags_stay_with_their_boxes(data: st.DataObject, seed: int) -> None:
    """Each box has sides that only it has, so that it is known again."""
    count = data.draw(st.integers(0, 8))
    centers = data.draw(
        st.lists(st.tuples(st.floats(0, 300), st.floats(0, 200)), min_size=count, max_size=count)
    )
    boxes = [(x, y, 40.0 + 4 * number, 8.0, 0.0) for number, (x, y) in enumerate(centers)]
    image, target = sample(boxes, (200, 300))
    _, changed = augment(image, target, ALWAYS, Stream(seed))
    numbers = [round((w / changed["scale"] - 40) / 4) for _, _, w, _, _ in changed["boxes"].tolist()]
    assert changed["labels"].tolist() == numbers
    assert changed["difficult"].tolist() == [number % 2 == 1 for number in numbers]
    assert numbers == sorted(numbers)


def test_an_image_without_objects_is_augmented_too() -> None:
    image = torch.randint(0, 256, (3, 60, 90), dtype=torch.uint8)
    changed_image, changed = augment(image, sample([], (60, 90))[1], ALWAYS, Stream(1))
    assert_canonical(changed, changed_image)
    assert changed_image.shape != image.shape
    assert changed["boxes"].shape == (0, 5)


def test_scales_multiply() -> None:
    image, target = sample([(60.0, 40.0, 50.0, 20.0, 30.0)], (80, 120))
    target["scale"] = 0.25
    small, scaled = rescale(image, target, 0.5)
    assert small.shape == (3, 40, 60)
    assert scaled["scale"] == 0.125
    torch.testing.assert_close(torch.Tensor(scaled["boxes"]), torch.tensor([[30.0, 20, 25, 10, 30]]))
    assert rescale(image, target, 0.0001)[0].shape == (3, 1, 2)
    factors = Counter(
        augment(image, target, Augmentation(scales=(0.5, 1.0, 1.25)), Stream(n))[0].shape[-1]
        for n in range(600)
    )
    assert set(factors) == {60, 120, 150}
    assert all(abs(count - 200) < 50 for count in factors.values())  # standard deviation 12
    widths = [
        augment(image, target, Augmentation(scales=(0.5, 1.5)), Stream(n))[0].shape[-1] for n in range(300)
    ]
    assert 60 <= min(widths) < 66 < 174 < max(widths) <= 180
    assert np.mean(widths) == pytest.approx(120, abs=8)  # standard deviation 2


def test_rotations_are_spread_and_as_frequent_as_asked() -> None:
    image, target = sample([(45.0, 30.0, 30.0, 10.0, 0.0)], (60, 90))
    angles = [
        augment(image, target, Augmentation(rotate=40, rotate_probability=0.25), Stream(n))[1]["boxes"][
            0, 4
        ].item()
        for n in range(800)
    ]
    turned = [angle for angle in angles if angle]
    assert abs(len(turned) - 200) < 50  # standard deviation 12
    assert -40 <= min(turned) < -36 < 36 < max(turned) <= 40
    assert abs(float(np.mean(turned))) < 8  # standard deviation 1.6
    assert not any(
        augment(image, target, Augmentation(rotate=40, rotate_probability=0.0), Stream(n))[1]["boxes"][0, 4]
        for n in range(20)
    )


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
def test_colours_beside_their_definitions(name: str) -> None:
    image = torch.randint(0, 256, (3, 6, 7), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
    values = []
    for seed in range(20):
        [(function, value)] = draw_colour(Augmentation(**{name: 0.4}), Stream(seed))
        values.append(value)
        changed = recolour(image, [(function, value)])
        grey = (0.2989 * image[0] + 0.587 * image[1] + 0.114 * image[2]).double() / 255
        for row, column in ((0, 0), (3, 4), (5, 6)):
            red, green, blue = (image[:, row, column].double() / 255).tolist()
            if name == "hue":
                hue, saturation, brightness = colorsys.rgb_to_hsv(red, green, blue)
                wanted = colorsys.hsv_to_rgb((hue + value) % 1, saturation, brightness)
            else:
                pivot = {
                    "brightness": 0.0,
                    "contrast": float(grey.mean()),
                    "saturation": float(grey[row, column]),
                }[name]
                wanted = tuple(
                    min(1.0, max(0.0, pivot + value * (part - pivot))) for part in (red, green, blue)
                )
            assert changed[:, row, column].tolist() == pytest.approx(
                [255 * part for part in wanted], abs=0.51
            )
    middle = 0.0 if name == "hue" else 1.0
    assert middle - 0.4 <= min(values) < middle - 0.2 < middle + 0.2 < max(values) <= middle + 0.4


def test_colour_changes_come_in_every_order() -> None:
    orders = {tuple(function.__name__ for function, _ in draw_colour(ALWAYS, Stream(n))) for n in range(300)}
    assert len(orders) == 24
    assert draw_colour(TURNED_AND_SCALED, Stream(0)) == []


def test_uniform_numbers() -> None:
    # Computed once; a change that moves them changes every augmentation.
    stream = Stream(AUGMENT, 0, 1, 2)
    assert [stream.uniform(-1, 1) for _ in range(3)] == [
        0.6606037163471306,
        0.3350144727337716,
        -0.6813406633345087,
    ]
    values = [stream.uniform(2, 5) for _ in range(20000)]
    assert 2 <= min(values) < 2.001 < 4.999 < max(values) <= 5
    # standard deviation 53
    assert np.histogram(values, 6, (2, 5))[0] == pytest.approx(np.full(6, 20000 / 6), abs=220)


@pytest.fixture(scope="module")
def scenes() -> Dataset:
    return SyntheticDataset("train", 12, 96)


def same(one: Any, two: Any) -> None:
    assert torch.equal(one[0], two[0])
    assert one[1].keys() == two[1].keys()
    for key in ("boxes", "labels", "difficult"):
        assert torch.equal(one[1][key], two[1][key])
    for key in ("image_id", "scale", "seed"):
        assert one[1][key] == two[1][key]


def test_training_views_are_augmented_after_the_flip_and_name_no_view(scenes: Dataset) -> None:
    plain, view = TrainView(scenes, 64, seed=5), TrainView(scenes, 64, seed=5, augmentation=ALWAYS)
    assert view.orientations is None
    for epoch, index in ((0, 0), (3, 7)):
        image, target = plain[epoch, index]
        expected: Any = augment(image, target, ALWAYS, Stream(AUGMENT, 5, epoch, index))
        without_orientation = (
            expected[0],
            {key: value for key, value in expected[1].items() if key != "orientation"},
        )
        same(view[epoch, index], without_orientation)
        assert "orientation" in target
        assert "orientation" not in view[epoch, index][1]
        assert view[epoch, index][1]["scale"] == pytest.approx(max(view[epoch, index][0].shape) / 96)
    same(view[4, 3, 4], view[4, 3])
    # another epoch is another augmentation, whatever its orientation
    assert not torch.equal(view[4, 3, 1][0], view[5, 3, 1][0])


@pytest.mark.parametrize(
    "change", [{"rotate": 5.0}, {"scales": (0.9, 1.1)}, {"brightness": 0.1}, {"hue": 0.1}], ids=str
)
def test_whatever_is_changed_leaves_no_fixed_set(scenes: Dataset, change: dict[str, Any]) -> None:
    view = TrainView(scenes, 64, augmentation=Augmentation(**change))
    assert view.orientations is None
    assert "orientation" not in view[0, 0][1]
    assert list(Augmentation(**change).switched_on) == list(change)


@pytest.mark.parametrize(
    "nothing",
    [{}, {"rotate": 9.0, "rotate_probability": 0.0}, {"scales": (1.0, 1.0)}, {"rotate_probability": 1.0}],
    ids=str,
)
def test_an_augmentation_that_changes_nothing_is_none(scenes: Dataset, nothing: dict[str, Any]) -> None:
    view = TrainView(scenes, 64, augmentation=Augmentation(**nothing))
    assert view.orientations == TrainView(scenes, 64).orientations
    same(view[2, 3], TrainView(scenes, 64)[2, 3])
    image, target = view[2, 3]
    same(augment(image, target, Augmentation(**nothing), Stream(7)), (image, target))


def test_samples_depend_on_seed_epoch_and_index_alone(scenes: Dataset) -> None:
    first = [
        TrainView(scenes, 64, seed=1, augmentation=ALWAYS)[epoch, index]
        for epoch in (0, 1)
        for index in range(4)
    ]
    torch.manual_seed(9)
    np.random.seed(3)
    view = TrainView(scenes, 64, seed=1, augmentation=ALWAYS)
    for number in (7, 2, 0, 5):  # in any order, as after a resume
        same(first[number], view[number // 4, number % 4])
    assert len({image.float().mean().item() for image, _ in first}) == 8
    assert not torch.equal(TrainView(scenes, 64, seed=2, augmentation=ALWAYS)[0, 0][0], first[0][0])


def test_every_world_size_and_loading_process_sees_the_same_samples(scenes: Dataset) -> None:
    view = TrainView(scenes, 64, seed=1, augmentation=ALWAYS)

    def epoch_of(**feeding: Any) -> dict[str, Sample]:
        loader = train_loader(view, batch_size=12, seed=1, **feeding)
        return {
            target["image_id"]: (image, target)
            for batch in loader.epoch(2)
            for image, target in zip(*batch, strict=True)
        }

    alone = epoch_of()
    assert len(alone) == 12
    others = [
        epoch_of(rank=0, world_size=2) | epoch_of(rank=1, world_size=2),
        epoch_of(accumulation=3),
        epoch_of(workers=2),
    ]
    for found in others:
        assert found.keys() == alone.keys()
        for image_id, seen in alone.items():
            same(seen, found[image_id])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"rotate": -1.0},
            r"`rotate` must be in 0\.\.180 degrees, got -1\.0; 0 switches it off",
        ),
        ({"rotate": 181.0}, r"`rotate` must be in 0\.\.180 degrees, got 181"),
        ({"rotate_probability": 1.5}, r"`rotate_probability` must be in 0\.\.1, got 1\.5"),
        ({"brightness": float("nan")}, r"`brightness` must be in 0\.\.1, got nan"),
        ({"hue": 0.6}, r"`hue` must be in 0\.\.0\.5, got 0\.6"),
        (
            {"scales": (1.5, 0.5)},
            r"`scales` must be \[low, high\] .*, got \[1\.5, 0\.5\]; \[0\.5, 1\.5\] is usual, null switches "
            r"it off",
        ),
        ({"scales": (1.0,)}, r"got \[1\.0\]"),
        ({"scales": (0.0, 1.0)}, r"got \[0\.0, 1\.0\]"),
        ({"scales": (1.0, float("inf"))}, r"got \[1\.0, inf\]"),
    ],
)
def test_what_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Augmentation(**values)


def test_images_stay_of_a_sane_size() -> None:
    assert Augmentation(scales=(0.5, 1.5)).long_sides(384) == (192, 576)
    assert Augmentation(scales=(2.0, 0.5, 1.0)).long_sides(100) == (50, 200)
    assert Augmentation().long_sides(384) == (384, 384)
    with pytest.raises(
        ConfigError,
        match=r"must leave .* between 32 and 8192 pixels, got \[0\.1, 1\.0\] x `image_size` 96 = 10 to "
        r"96; change",
    ):
        Augmentation(scales=(0.1, 1.0)).long_sides(96)
    with pytest.raises(ConfigError, match="= 4096 to 12288"):
        Augmentation(scales=(1.0, 3.0)).long_sides(4096)
