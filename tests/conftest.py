"""Fixtures that every part of the test suite may use."""

from __future__ import annotations

import gc
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from dbf_ray.detectors import BACKBONES
from tests.chromium import browser  # noqa: F401
from tests.detectors.narrow import NARROW

os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.1")
# Ray gives way to every other process, here to the other tests, so that its own would take minutes.
os.environ.setdefault("RAY_worker_niceness", "0")
# tests are small: a second thread gains little, and on a busy machine each waits for the other
torch.set_num_threads(1)

# How many examples a property is tried with where its test does not say: few in the default tier, and the
# same ones each time, so that a change is judged by itself. The slow tier draws new ones.
settings.register_profile("few", max_examples=30, deadline=None, derandomize=True)
settings.register_profile("many", max_examples=100, deadline=None)
_STATUS = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    settings.load_profile("few" if "not slow" in config.option.markexpr else "many")


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


@pytest.fixture(scope="module")
def narrow() -> Iterator[None]:
    """The narrow backbone of tests/tiny.py is known to a file's tests."""
    with pytest.MonkeyPatch.context() as patch:
        for key, row in NARROW.items():
            patch.setitem(BACKBONES, key, row)
        yield


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated MLflow store in an sqlite file (it takes seconds to make one), to be copied."""
    from mlflow import MlflowClient

    file = tmp_path_factory.mktemp("mlflow") / "empty.db"
    MlflowClient(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def uri(empty_database: Path, tmp_path: Path) -> str:
    """An empty MLflow store in the test's own folder."""
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"


@pytest.fixture(autouse=True)
def _one_seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def two_cpus() -> None:
    """A Ray with two CPUs, whatever the machine has: one for all tests with mark ``ray``."""
    import ray

    os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"
    if not ray.is_initialized():
        ray.init(
            address="local",
            num_cpus=2,
            include_dashboard=False,
            object_store_memory=128 * 1024**2,
            log_to_driver=False,
        )


# What takes longest begins first, or the last minutes of a run have one process at work: all tests with mark
# ray, then these files.
FIRST = (
    "ray",
    "tests/training/test_policy_runs.py",
    "tests/training/test_frozen_prefix.py",
    "tests/benchmarks/test_low_precision.py",
    "tests/detectors/test_compile.py",
    "tests/training/test_run.py",
    "tests/training/test_effective_batch.py",
)


def group_of(item: pytest.Item) -> str:
    """Under pytest-xdist a group's tests share a process, and so what they set up: those of a file; and all
    that need a Ray, which come one by one.
    """
    return "ray" if item.get_closest_marker("ray") else item.nodeid.split("::")[0]


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    rank = {group: place for place, group in enumerate(FIRST)}
    items.sort(key=lambda item: rank.get(group_of(item), len(rank)))
    for item in items:
        if item.config.pluginmanager.hasplugin("xdist"):
            item.add_marker(pytest.mark.xdist_group(group_of(item)))


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """The last test that needs the Ray of ``two_cpus`` ends it."""
    if item.get_closest_marker("ray") and not (nextitem and nextitem.get_closest_marker("ray")):
        import ray

        gc.collect()  # handles go while there is what they are handles of
        ray.shutdown()


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
