from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional

from dbf_ray.data import Dataset, EvalView, Target, TrainView, make_target
from dbf_ray.data.transforms import FLIPS, ORIENTATIONS, draw_orientation, flip, orientation_size, resize
from dbf_ray.errors import ConfigError
from dbf_ray.geometry import box_iou_rotated_aligned

HEIGHT, WIDTH = 60, 90
RAGGED = 1.5  # pixels by which the edge of a picture of whole pixels may stray when it is interpolated
INVERSE = {"rotate90": "rotate270", "rotate270": "rotate90"}  # every other orientation is its own

box = st.tuples(
    st.floats(-10, 100, width=32),
    st.floats(-10, 70, width=32),
    st.floats(2, 60, width=32),
    st.floats(2, 60, width=32),
    st.floats(-400, 400, width=32),
)


def render(boxes: Tensor, height: int, width: int, grow: float = 0.0) -> np.ndarray:
    """Which pixel centres the boxes cover, each side moved out by ``grow`` pixels, straight from the
    definition of the convention.
    """
    mask = np.zeros((height, width), bool)
    y, x = np.mgrid[:height, :width] + 0.5
    for cx, cy, w, h, angle in boxes.tolist():
        cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        mask |= (abs((x - cx) * cos - (y - cy) * sin) <= w / 2 + grow) & (
            abs((x - cx) * sin + (y - cy) * cos) <= h / 2 + grow
        )
    return mask


def sample(boxes: list[tuple[float, ...]], height: int = HEIGHT, width: int = WIDTH) -> tuple[Tensor, Target]:
    target = make_target(
        torch.tensor(boxes).reshape(-1, 5), [0] * len(boxes), [False] * len(boxes), "x", (height, width)
    )
    image = (
        torch.from_numpy(render(target["boxes"], height, width))
        .to(torch.uint8)
        .mul(255)
        .expand(3, -1, -1)
        .contiguous()
    )
    return image, target


def assert_canonical(boxes: Tensor) -> None:
    assert bool((boxes[:, 2] >= boxes[:, 3]).all())
    assert bool(((boxes[:, 4] >= -90) & (boxes[:, 4] < 90)).all())


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@settings(max_examples=40, deadline=None)
@given(boxes=st.lists(box, max_size=3))
def test_boxes_move_with_the_image(orientation: str, boxes: list[tuple[float, ...]]) -> None:
    image, target = flip(*sample(boxes), orientation)
    height, width = image.shape[-2:]
    assert (height, width) == orientation_size((HEIGHT, WIDTH), orientation) == target["boxes"].canvas_size
    assert_canonical(target["boxes"])
    mask = image[0].numpy() > 0
    assert not (mask & ~render(target["boxes"], height, width, 0.001)).any()
    assert not (~mask & render(target["boxes"], height, width, -0.001)).any()


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@settings(max_examples=40, deadline=None)
@given(boxes=st.lists(box, min_size=1, max_size=4))
def test_each_orientation_has_an_inverse(orientation: str, boxes: list[tuple[float, ...]]) -> None:
    image, target = sample(boxes)
    back_image, back = flip(*flip(image, target, orientation), INVERSE.get(orientation, orientation))
    assert torch.equal(back_image, image)
    assert back["boxes"].canvas_size == (HEIGHT, WIDTH)
    assert_canonical(back["boxes"])
    before, after = (torch.Tensor(item["boxes"]) for item in (target, back))
    torch.testing.assert_close(after[:, :4], before[:, :4], rtol=0, atol=1e-4)
    turn = (after[:, 4] - before[:, 4]).abs()
    assert bool((torch.minimum(turn, 180 - turn) < 1e-3).all())


PILLOWS = {
    "horizontal": Image.Transpose.FLIP_LEFT_RIGHT,
    "vertical": Image.Transpose.FLIP_TOP_BOTTOM,
    "diagonal": Image.Transpose.ROTATE_180,
    "rotate90": Image.Transpose.ROTATE_90,
    "rotate270": Image.Transpose.ROTATE_270,
    "transpose": Image.Transpose.TRANSPOSE,
    "transverse": Image.Transpose.TRANSVERSE,
}


def test_orientations_are_pillows_and_all_different() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    seen = {
        "identity": pixels,
        **{
            orientation: np.asarray(Image.fromarray(pixels).transpose(method))
            for orientation, method in PILLOWS.items()
        },
    }
    assert seen.keys() == ORIENTATIONS.keys()
    assert len({array.tobytes() + bytes(array.shape) for array in seen.values()}) == 8
    for orientation, expected in seen.items():
        image, target = flip(torch.from_numpy(pixels).permute(2, 0, 1), sample([], 5, 7)[1], orientation)
        assert image.dtype == torch.uint8
        assert (image.permute(1, 2, 0).numpy() == expected).all()
        assert target["boxes"].shape == (0, 5)
        assert target["boxes"].canvas_size == expected.shape[:2]


@pytest.mark.parametrize("angle", [-90.0, -45.0, 0.0, 45.0, 89.99999, 30.0])
@pytest.mark.parametrize(
    ("orientation", "center", "turned"),
    [
        ("identity", (30, 20), lambda angle: angle),
        ("horizontal", (WIDTH - 30, 20), lambda angle: -angle),
        ("vertical", (30, HEIGHT - 20), lambda angle: -angle),
        ("diagonal", (WIDTH - 30, HEIGHT - 20), lambda angle: angle),
        ("rotate90", (20, WIDTH - 30), lambda angle: angle + 90),
        ("rotate270", (HEIGHT - 20, 30), lambda angle: angle - 90),
        ("transpose", (20, 30), lambda angle: -90 - angle),
        ("transverse", (HEIGHT - 20, WIDTH - 30), lambda angle: 90 - angle),
    ],
)
def test_known_angles(
    orientation: str, center: tuple[int, int], turned: Callable[[float], float], angle: float
) -> None:
    _, target = flip(*sample([(30.0, 20.0, 12.0, 4.0, angle)]), orientation)
    [[cx, cy, w, h, found]] = target["boxes"].tolist()
    assert (cx, cy) == center
    assert (w, h) == (12, 4)
    assert -90 <= found < 90
    assert (found - turned(angle) + 90) % 180 - 90 == pytest.approx(0, abs=1e-4)


def test_torchvisions_quarter_turn_agrees_but_for_rounding_and_the_canvas_of_no_boxes() -> None:
    boxes = torch.rand(200, 5, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [90.0, 60, 60, 60, 360]
    )
    boxes[:, 2:4] += 2
    _, target = sample(boxes.tolist())
    ours = torch.Tensor(flip(torch.zeros(3, HEIGHT, WIDTH), target, "rotate90")[1]["boxes"])
    theirs = functional.rotate(target["boxes"], 90, expand=True)
    assert theirs.canvas_size == (WIDTH, HEIGHT)
    assert bool((box_iou_rotated_aligned(ours, torch.Tensor(theirs)) > 0.999).all())
    assert torch.equal(ours[:, 2:4], torch.Tensor(target["boxes"])[:, 2:4])
    # of an image that is [WIDTH, HEIGHT] now
    assert functional.rotate(sample([])[1]["boxes"], 90, expand=True).canvas_size == (
        HEIGHT,
        WIDTH,
    )


def test_other_keys_travel_along() -> None:
    image, target = sample([(30.0, 20.0, 12.0, 4.0, 10.0)])
    _, flipped = flip(*resize(image, target, 45), "diagonal")
    assert flipped["image_id"] == "x"
    assert flipped["scale"] == 0.5
    assert flipped["labels"].tolist() == [0]
    assert "scale" not in target
    assert target["boxes"].tolist()[0][:2] == [30, 20]


@settings(max_examples=40, deadline=None)
@given(boxes=st.lists(box, min_size=1, max_size=3), size=st.integers(45, 200))
def test_resize_moves_boxes_with_the_image(boxes: list[tuple[float, ...]], size: int) -> None:
    image, target = sample(boxes)
    small, scaled = resize(image, target, size)
    height, width = small.shape[-2:]
    assert max(height, width) == size
    assert abs(height - HEIGHT * size / WIDTH) <= 0.5
    assert scaled["boxes"].canvas_size == (height, width)
    assert scaled["scale"] == size / WIDTH
    back = torch.Tensor(scaled["boxes"]) / torch.tensor([scaled["scale"]] * 4 + [1.0])
    assert bool((box_iou_rotated_aligned(back, torch.Tensor(target["boxes"])) > 0.999).all())
    mask = small[0].numpy() > 127
    assert not (~mask & render(scaled["boxes"], height, width, -RAGGED * max(1, scaled["scale"]))).any()
    assert not (mask & ~render(scaled["boxes"], height, width, RAGGED * max(1, scaled["scale"]))).any()


def test_box_past_the_border_keeps_its_shape() -> None:
    _, target = resize(*sample([(2.0, 2.0, 60.0, 20.0, 30.0)]), 180)
    torch.testing.assert_close(torch.Tensor(target["boxes"]), torch.tensor([[4.0, 4.0, 120.0, 40.0, 30.0]]))


def test_image_of_the_right_size_is_untouched() -> None:
    image, target = sample([(30.0, 20.0, 12.0, 4.0, 10.0)])
    same, scaled = resize(image, target, WIDTH)
    assert same is image
    assert scaled["scale"] == 1.0


def test_orientations_depend_on_seed_epoch_and_index_only() -> None:
    def draw() -> list[str]:
        return [
            draw_orientation(FLIPS, seed, epoch, index)
            for seed in range(2)
            for epoch in range(3)
            for index in range(40)
        ]

    first = draw()
    torch.manual_seed(123)
    np.random.seed(5)
    assert draw() == first
    assert len({tuple(first[start : start + 40]) for start in range(0, 240, 40)}) == 6


def test_orientations_are_equally_likely() -> None:
    counts = Counter(draw_orientation(FLIPS, 0, epoch, index) for epoch in range(40) for index in range(100))
    assert set(counts) == {"identity", *FLIPS}
    assert all(abs(count - 1000) < 120 for count in counts.values())  # standard deviation 27
    everything = [orientation for orientation in ORIENTATIONS if orientation != "identity"]
    counts = Counter(
        draw_orientation(everything, 0, epoch, index) for epoch in range(40) for index in range(100)
    )
    assert set(counts) == set(ORIENTATIONS)
    assert all(abs(count - 500) < 90 for count in counts.values())  # standard deviation 21
    assert {draw_orientation(["vertical"], 0, 0, index) for index in range(50)} == {"identity", "vertical"}
    assert {draw_orientation([], 0, 0, index) for index in range(5)} == {"identity"}


def test_train_view_shows_the_drawn_view_and_eval_view_none(counting: Callable[[int], Dataset]) -> None:
    dataset = counting(12)
    view, plain = TrainView(dataset, 96, seed=7), EvalView(dataset, 96)
    assert len(view) == len(plain) == 12
    for epoch, index in [(0, 0), (0, 5), (3, 5), (4, 11)]:
        image, target = view[epoch, index]
        expected = flip(*plain[index], draw_orientation(FLIPS, 7, epoch, index))
        assert bool((image == expected[0]).all())
        assert target["boxes"].tolist() == expected[1]["boxes"].tolist()
        assert target["scale"] == 2.0
        assert image.shape == (3, 64, 96)


def test_the_orientations_are_a_fixed_set(counting: Callable[[int], Dataset]) -> None:
    assert TrainView(counting(2), 96).orientations == ("identity", "horizontal", "vertical", "diagonal")
    view = TrainView(counting(40), 96, ["rotate90", "transverse"], seed=2)
    assert view.orientations == ("identity", "rotate90", "transverse")
    samples = [view[1, index] for index in range(40)]
    assert {target["orientation"] for _, target in samples} == {"identity", "rotate90", "transverse"}
    for image, target in samples:
        assert (
            image.shape[-2:]
            == orientation_size((64, 96), target["orientation"])
            == target["boxes"].canvas_size
        )
        assert target["scale"] == 2.0


def test_training_views_carry_a_seed_of_seed_epoch_and_index(counting: Callable[[int], Dataset]) -> None:
    dataset = counting(3)
    seeds = {
        (s, e, i): TrainView(dataset, 64, seed=s)[e, i][1]["seed"]
        for s in (1, 2)
        for e in (0, 1)
        for i in (0, 1, 2)
    }
    assert len(set(seeds.values())) == len(seeds)
    assert all(0 <= seed < 2**31 for seed in seeds.values())
    assert TrainView(dataset, 64, seed=1)[1, 2][1]["seed"] == seeds[1, 1, 2]
    assert "seed" not in EvalView(dataset, 64)[0][1]


def test_unknown_flip(counting: Callable[[int], Dataset]) -> None:
    with pytest.raises(
        ConfigError, match=r"`flips` must be among horizontal, .* transpose, transverse, got 'sideways'"
    ):
        TrainView(counting(2), 64, ["sideways"])
    with pytest.raises(ConfigError, match="sideways"):
        flip(*sample([]), "sideways")
