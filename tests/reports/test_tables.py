"""The closing table as text."""

from __future__ import annotations

from typing import Any

from dbf_ray.reports import study_result
from dbf_ray.reports.tables import study_rows, text_table

Trials = list[dict[str, Any]]


def test_text_table(trials: Trials) -> None:
    assert text_table(study_result("s", trials[:6])).splitlines() == [
        "policy  ρ   map50  compute_ratio  device seconds",
        "--------------------------------------------------------------------------",
        "full    -  0.6400         1.0000           300.0  front",
        "step    2  0.6300         0.8000           240.0  front",
        "step    8  0.5000         0.7500           225.0  dominated",
        "step    4  0.6000         0.7000           210.0  front, recommended",
        "frozen  -  0.3000         0.6000           180.0  front",
        "step    6       -         0.6600           198.0  failed: no finite result",
    ]


def test_failed_and_other_parameters(trials: Trials) -> None:
    trials[2] |= {"parameters": {"rho": 2, "phase": 1, "share": 0.123456}, "device_seconds": None}
    rows = study_rows(study_result("s", trials))
    assert rows[1] == ("step phase=1 share=0.1235", "2", "0.6300", "-", "-", "0.8000", "-", "-", "front")
    assert rows[-1][-1] == "failed"
    trials[6]["state"] = "PRUNED"
    assert study_rows(study_result("s", trials))[-1][-1] == "pruned"


def test_empty_study() -> None:
    assert len(text_table(study_result("s", [])).splitlines()) == 2
