"""Near-duplicates: altered copies are found, different images are not; each step against a slow one of its
own.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dbf_ray.data import SyntheticDataset
from dbf_ray.data.check import near_duplicates as module
from dbf_ray.data.check.near_duplicates import (
    ALIKE,
    COARSE,
    SYMMETRIES,
    Pair,
    aligned_correlation,
    near_duplicates,
    thumbnail,
    turned,
)
from tests.data.check.planted_faults import ALTERED, brighter, cropped, everything, half, jpeg

T = Image.Transpose
PILLOW = [None, T.ROTATE_90, T.ROTATE_180, T.ROTATE_270]  # counter-clockwise
# of all 96,950 pairs
CLOSEST = {
    "train": ("100000655", "100000754", "100000982"),
    "val": ("100001337", "100001646", "100001637"),
}


def grey(picture: Image.Image) -> np.ndarray:
    return thumbnail(np.asarray(picture.convert("L")))


@pytest.fixture(scope="module")
def scenes() -> list[Image.Image]:
    dataset = SyntheticDataset("train", 30, 160)
    return [Image.fromarray(dataset.load(index)[0].permute(1, 2, 0).numpy()) for index in range(30)]


@pytest.fixture(scope="module")
def thumbnails(scenes: list[Image.Image]) -> np.ndarray:
    return np.stack([grey(scene) for scene in scenes])


def slow_coarse(image: np.ndarray) -> np.ndarray:
    """A 16 x 16 thumbnail less its plane by least squares, with norm 1: pixel by pixel."""
    padded = np.pad(image.astype(float), 1, "edge")
    kernel = np.outer([1, 2, 1], [1, 2, 1]) / 16
    smooth = np.array([[(padded[y : y + 3, x : x + 3] * kernel).sum() for x in range(64)] for y in range(64)])
    small = np.array(
        [[smooth[4 * y : 4 * y + 4, 4 * x : 4 * x + 4].mean() for x in range(16)] for y in range(16)]
    )
    y, x = np.mgrid[:16, :16]
    terms = np.stack([np.ones(256), x.ravel(), y.ravel()], 1)
    flat = small.ravel() - terms @ np.linalg.lstsq(terms, small.ravel(), rcond=None)[0]
    return (flat / np.linalg.norm(flat)).reshape(16, 16)


def test_thumbnails_are_means_whatever_the_shape() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (128, 320), dtype=np.uint8)
    means = image.reshape(64, 2, 64, 5).mean((1, 3))
    np.testing.assert_allclose(thumbnail(image), means, atol=1)
    assert thumbnail(rng.integers(0, 255, (3, 5), dtype=np.uint8)).shape == (64, 64)


def test_symmetries_are_those_of_pillow() -> None:
    image = np.random.default_rng(0).integers(0, 255, (8, 8), dtype=np.uint8)
    pictures = [Image.fromarray(image), Image.fromarray(image).transpose(T.FLIP_LEFT_RIGHT)]
    for index, name in enumerate(SYMMETRIES):
        base, turn = pictures[index // 4], PILLOW[index % 4]
        np.testing.assert_array_equal(
            turned(image, index), np.asarray(base if turn is None else base.transpose(turn))
        )
        assert ("mirrored" in name, f"{90 * (index % 4)}" in name) == (index >= 4, index % 4 > 0)
    assert len({turned(image, index).tobytes() for index in range(8)}) == 8


def test_candidates_are_those_of_a_slow_search(
    thumbnails: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = thumbnails[:12], thumbnails[12:]
    monkeypatch.setattr(module, "COARSE", 0.3)
    monkeypatch.setattr(module, "CHUNK", 5)
    found = set(module._candidates(first, second))
    left, right = ([slow_coarse(image) for image in part] for part in (first, second))
    contrast = [[np.std(image) > 10 for image in part] for part in (first, second)]
    assert all(contrast[0] + contrast[1])
    scores = {
        (i, j, s): float((a * turned(b, s)).sum())
        for i, a in enumerate(left)
        for j, b in enumerate(right)
        for s in range(len(SYMMETRIES))
    }
    assert {key for key, score in scores.items() if score >= 0.3 + 1e-4} <= found
    assert found <= {key for key, score in scores.items() if score >= 0.3 - 1e-4}
    assert 10 < len(found) < len(scores) / 2


@pytest.mark.parametrize("name", ALTERED)
def test_altered_copies_are_found(scenes: list[Image.Image], thumbnails: np.ndarray, name: str) -> None:
    copies = np.stack([grey(ALTERED[name](scene)) for scene in scenes])
    pairs = near_duplicates(thumbnails, copies)
    assert [(pair.first, pair.second) for pair in pairs] == [(index, index) for index in range(len(scenes))]
    assert min(pair.correlation for pair in pairs) > ALIKE + 0.015
    # The second is turned to fit the first: back from 90 degrees is 270.
    expected = {
        "mirrored": "mirrored",
        "turned": "turned by 270 degrees",
        "all at once": "turned by 270 degrees",
    }.get(name, "")
    # an image may be nearly symmetric
    assert sum(pair.symmetry == expected for pair in pairs) >= len(pairs) - 1


def test_different_images_are_not_alike(thumbnails: np.ndarray) -> None:
    assert near_duplicates(thumbnails[::2], thumbnails[1::2]) == []
    other = SyntheticDataset("val", 60, 96)
    more = np.stack([thumbnail(other.load(index)[0].float().mean(0).byte().numpy()) for index in range(60)])
    assert near_duplicates(thumbnails, more) == []


def test_real_neighbours_are_apart_and_altered_copies_close(shared: Path) -> None:
    """The margin between the closest real pairs and the farthest altered copy, with the threshold between
    them.
    """
    files = {split: sorted((shared / "data" / "hrsc2016" / split / "images").iterdir()) for split in CLOSEST}
    chosen = {
        split: [file for n, file in enumerate(part) if n % 4 == 0 or file.stem in CLOSEST[split]]
        for split, part in files.items()
    }
    pictures = {split: [Image.open(file).convert("RGB") for file in part] for split, part in chosen.items()}
    train, val = (np.stack([grey(picture) for picture in pictures[split]]) for split in ("train", "val"))
    assert near_duplicates(train, val) == []
    closest = max(
        aligned_correlation(train[i], turned(val[j], s)) for i, j, s in module._candidates(train, val)
    )
    assert 0.88 < closest < ALIKE - 0.03
    some = range(0, len(train), 4)
    for change in (jpeg, half, brighter, cropped, everything):
        copies = np.stack([grey(change(pictures["train"][index])) for index in some])
        pairs = near_duplicates(train[some], copies)
        assert [(pair.first, pair.second) for pair in pairs] == [(index, index) for index in range(len(some))]
        assert min(pair.correlation for pair in pairs) > ALIKE + 0.015


def test_water_and_one_colour_match_nothing() -> None:
    rng = np.random.default_rng(0)
    water = np.stack(
        [thumbnail((60 + rng.normal(0, 6, (256, 256))).clip(0, 255).astype(np.uint8)) for _ in range(6)]
    )
    plain = np.full((2, 64, 64), 7, np.uint8)
    # a gradient is light, not a picture
    slope = np.tile(np.linspace(20, 200, 64).astype(np.uint8), (2, 64, 1))
    images = np.concatenate([water, plain, slope])
    assert near_duplicates(images, images.copy()) == []


def test_no_images_have_no_pairs(thumbnails: np.ndarray) -> None:
    nothing = np.zeros((0, 64, 64), np.uint8)
    assert near_duplicates(nothing, thumbnails) == []
    assert near_duplicates(thumbnails, nothing) == []


@pytest.mark.parametrize("crop", [(0.02, 0.0, 1.0, 1.0), (0.03, 0.03, 0.97, 0.97), (0.0, 0.04, 1.0, 0.98)])
def test_alignment_finds_the_crop(scenes: list[Image.Image], crop: tuple[float, float, float, float]) -> None:
    """Against Pillow's resampling at the true crop, an independent way to undo it."""
    for scene in scenes[:8]:
        box = tuple(round(share * side) for share, side in zip(crop, scene.size * 2, strict=True))
        exact = [value / side for value, side in zip(box, scene.size * 2, strict=True)]
        whole, part = grey(scene), grey(scene.crop(box))
        warped = np.asarray(
            Image.fromarray(whole).resize(
                (64, 64), Image.Resampling.BILINEAR, box=tuple(64 * value for value in exact)
            ),
            dtype=float,
        )
        at_truth = np.corrcoef(warped.ravel(), part.ravel())[0, 1]
        before = np.corrcoef(whole.ravel(), part.ravel())[0, 1]
        found = aligned_correlation(part, whole)
        assert found > before
        assert found > at_truth - 0.01


@settings(max_examples=30, deadline=None)
@given(gain=st.floats(0.5, 1.5), offset=st.floats(-30, 30), seed=st.integers(0, 1000))
def test_correlation_does_not_change_with_light(gain: float, offset: float, seed: int) -> None:
    image = np.random.default_rng(seed).integers(80, 180, (64, 64)).astype(np.uint8)
    light = (128 + gain * (image - 130.0) + offset + np.linspace(-20, 20, 64)).round()
    assert light.min() >= 0
    assert light.max() <= 255
    assert aligned_correlation(image, light.astype(np.uint8)) == pytest.approx(1, abs=1e-3)
    noise = np.random.default_rng(seed + 5000).integers(0, 255, (64, 64)).astype(np.uint8)
    assert abs(aligned_correlation(image, noise)) < 0.3


def test_of_several_symmetries_the_best_is_told() -> None:
    rng = np.random.default_rng(3)
    half_image = rng.integers(0, 255, (64, 32), dtype=np.uint8)
    image = np.concatenate([half_image, half_image[:, ::-1]], 1)[None]  # its own mirror image
    (pair,) = near_duplicates(image, image)
    assert isinstance(pair, Pair)
    assert (pair.first, pair.second, pair.symmetry) == (0, 0, "")
    assert pair.correlation == pytest.approx(1)
    assert COARSE < ALIKE < 1
