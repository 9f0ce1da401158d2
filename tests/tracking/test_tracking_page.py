"""docs/tracking.md lists what is logged."""

from __future__ import annotations

import re
from pathlib import Path

from dbf_ray.tracking.metrics import METRICS

PAGE = Path(__file__).parents[2] / "docs" / "tracking.md"


def test_the_page_lists_every_metric_with_unit_and_meaning():
    rows = re.findall(r"^\| `([^`]+/[^`]+)` \| ([^|]+) \| ([^|]+) \|$", PAGE.read_text(), re.MULTILINE)
    assert rows == [tuple(metric) for metric in METRICS]
    assert all(metric.unit and metric.meaning for metric in METRICS)
