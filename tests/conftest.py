"""Fixtures that every part of the test suite may use."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.1")
torch.set_num_threads(
    1
)  # tests are small: a second thread gains little, and on a busy machine each waits for the other

_STATUS = pytest.StashKey[int]()


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with reference figures, real images and weights beside the checkout; tests that need it skip
    where it is absent.
    """
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(
            "needs the folder of reference figures and real images beside the checkout, which is not here"
        )
    return folder


@pytest.fixture(autouse=True)
def _one_seed() -> None:
    torch.manual_seed(0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Under pytest-xdist a file's tests share a process, and so what they set up; all that start a Ray share
    one, and so come one by one.
    """
    for item in items:
        item.add_marker(
            pytest.mark.xdist_group("ray" if item.get_closest_marker("ray") else item.nodeid.split("::")[0])
        )


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    session.config.stash[_STATUS] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave with pytest's own exit status at once where Ray was used in this process.

    Seen with ray 2.60: all tests had passed and the report was printed, then the interpreter's teardown
    crashed in a native thread, and the run counted as failed. Everything a test could say has been said by
    now.
    """
    if "ray" in sys.modules and _STATUS in config.stash:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(config.stash[_STATUS])
