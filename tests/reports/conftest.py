"""A small study, as the search hands it over."""

from __future__ import annotations

import math
from typing import Any

import pytest


def trial(
    number: int, policy: str, rho: int | None, map50: float, compute_ratio: float, **more: Any
) -> dict[str, Any]:
    row = {
        "number": number,
        "state": "COMPLETE",
        "policy": policy,
        "parameters": {} if rho is None else {"rho": rho},
        "rho": rho,
        "map50": map50,
        "compute_ratio": compute_ratio,
        "map50_best": map50 + 0.01,
        "seed": 0,
        "run": f"runs/trial_{number}",
        "device_seconds": 300 * compute_ratio,
    }
    return row | more


@pytest.fixture
def trials() -> list[dict[str, Any]]:
    return [
        trial(0, "full", None, 0.64, 1.0),
        trial(1, "frozen", None, 0.30, 0.60),
        trial(2, "step", 2, 0.63, 0.80),
        trial(3, "step", 4, 0.60, 0.70),
        trial(4, "step", 8, 0.50, 0.75),
        trial(5, "step", 6, math.nan, 0.66),
        trial(6, "step", 12, 0.9, 0.61, state="FAIL"),
    ]
