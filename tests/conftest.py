"""Fixtures that every part of the test suite may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.1")


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with reference figures, real images and weights beside the checkout; tests that need it skip where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("needs the folder of reference figures and real images beside the checkout, which is not here")
    return folder


@pytest.fixture(autouse=True)
def _one_seed() -> None:
    torch.manual_seed(0)
