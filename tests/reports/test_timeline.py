"""The plain data of a schedule's picture, and that what is drawn shows it."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from dbf_ray.reports.timeline import FROZEN, TRAINED, timeline, timeline_png


def count(png: bytes, color: str) -> int:
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).reshape(-1, 3)
    return int((pixels == [int(color[i : i + 2], 16) for i in (1, 3, 5)]).all(1).sum())


def test_costs_are_over_those_of_a_fully_trained_epoch() -> None:
    data = timeline([0, 2, 1], [8.0, 6.0, 4.0])
    assert data.frozen == (0, 2, 1)
    assert data.num_stages == 2
    assert data.costs == (1.0, 0.5, 0.75)


@pytest.mark.parametrize("frozen", [[0, 4, 4, 4] * 3, [0, 1, 2, 3, 4]])
def test_the_picture_has_a_cell_for_each_epoch_and_stage(frozen: list[int]) -> None:
    png = timeline_png(timeline(frozen, [1.0, 0.9, 0.8, 0.7, 0.6]), "a schedule", width=6, dpi=100)
    assert Image.open(io.BytesIO(png)).size == (600, 380)
    cells = 5 * len(frozen)
    share = count(png, TRAINED) / (count(png, TRAINED) + count(png, FROZEN))
    assert share == pytest.approx(1 - sum(frozen) / cells, abs=0.04)


def test_a_schedule_that_freezes_nothing_shows_nothing_frozen_but_the_legend() -> None:
    png = timeline_png(timeline([0, 0], [1.0, 0.5]), "full", width=6, dpi=100)
    assert count(png, FROZEN) < 1000 < count(png, TRAINED)
