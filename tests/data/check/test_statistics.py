"""What a check tells of a data set in numbers, and which samples it chooses to be drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dbf_ray.data.check import Report, check_dataset, choose_samples, statistics
from dbf_ray.data.check.statistics import ANGLE_EDGES, SIZE_EDGES, distribution
from dbf_ray.data.readers.dota import DotaReader
from tests.data.check.planted_faults import line, write_clean, write_one


def check(root: Path) -> Report:
    return check_dataset(root, DotaReader(), workers=0)


def test_statistics_count_what_is_there(tmp_path: Path) -> None:
    rows = [
        ([50.0, 50, 40, 10, 30], "ship", 0),
        ([150, 100, 64, 16, -90], "ship", 1),
        ([285, 100, 60, 30, 0], "plane", 0),
    ]
    report = check(write_one(tmp_path, rows))
    assert report.problems == []
    numbers = statistics(report.splits)
    assert numbers["splits"] == {
        "all": {"images": 1, "images_without_objects": 0, "objects": 3, "difficult": 1}
    }
    assert numbers["classes"] == {
        "ship": {"objects": 2, "images": 1, "difficult": 1, "splits": {"all": 2}},
        "plane": {"objects": 1, "images": 1, "difficult": 0, "splits": {"all": 1}},
    }
    assert numbers["past_border"] == {"objects": 1, "share": pytest.approx(1 / 3)}
    assert numbers["size"]["quantiles"]["0"] == pytest.approx(20)
    assert numbers["size"]["mean"] == pytest.approx((20 + 32 + 1800**0.5) / 3)
    assert numbers["long_side"]["quantiles"]["1"] == pytest.approx(64)
    assert numbers["aspect_ratio"]["quantiles"]["0.5"] == pytest.approx(4)
    assert numbers["angle"]["quantiles"] == pytest.approx(
        {"0": -90, "0.05": -81, "0.25": -45, "0.5": 0, "0.75": 15, "0.95": 27, "1": 30}, abs=1e-6
    )
    assert numbers["objects_per_image"]["histogram"]["counts"][2] == 1
    assert numbers["image_sizes"] == [[300, 200, 1]]


def test_histograms_hold_everything() -> None:
    values = [0.01, 1.0, 5.0, 4095.9, 4096.0, 1e6]
    found = distribution(values, SIZE_EDGES)
    assert sum(found["histogram"]["counts"]) == len(values)
    assert found["histogram"]["counts"][0] == 2
    assert found["histogram"]["counts"][-1] == 3
    assert sum(distribution([-90.0, 89.99, 0.0], ANGLE_EDGES)["histogram"]["counts"]) == 3
    empty = distribution([], SIZE_EDGES)
    assert empty["mean"] is None
    assert set(empty["quantiles"].values()) == {None}
    assert sum(empty["histogram"]["counts"]) == 0


def test_samples_show_every_class_and_are_spread(tmp_path: Path) -> None:
    root = write_clean(tmp_path / "data")
    line("40 40 90 40 90 60 40 60 helicopter 0")(root, 30)
    line("20 40 60 40 60 60 20 60 helicopter 0")(root, 31)
    records = check(root).records
    samples = choose_samples(records, 10)
    assert len(samples) == 10
    shown = {name for sample in samples for name in sample.record.objects.names}
    assert shown == {name for record in records for name in record.objects.names}
    order = [id(record) for record in records]
    indices = [order.index(id(sample.record)) for sample in samples]
    assert indices == sorted(set(indices))
    assert max(np.diff([0, *indices, len(records)])) < 16
    assert choose_samples(records, 0) == []
    assert len(choose_samples(records, 1000)) == sum(len(record.objects) > 0 for record in records)


def test_of_a_large_image_the_part_with_the_object_is_shown(tmp_path: Path) -> None:
    report = check(write_one(tmp_path, [([1900.0, 60, 40, 10, 0], "ship", 0)], (100, 2000)))
    (sample,) = choose_samples(report.records, 3)
    assert sample.window == (976, 0, 1024, 100)
    assert sample.is_part
    assert sample.read().shape == (100, 1024, 3)
    np.testing.assert_allclose(sample.corners(), [[904, 55, 944, 55, 944, 65, 904, 65]])
    np.testing.assert_array_equal(
        sample.read(), np.asarray(Image.open(tmp_path / "images" / "one.png"))[:, 976:]
    )
