"""What Ray's own processes log stays in Ray's logs: a person sees the training's lines and no others."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import ray
from ray._private import worker

RAYLET = "raylet"


def quiet_logging(level: int = logging.ERROR) -> None:
    """Ray's loggers say nothing below ``level``: those that are named as Ray's packages are, and those that
    have the path of a file for a name, as that of each report in Ray Train 2.60.
    """
    folder = str(Path(ray.__file__).parent)
    by_path = [module.__file__ for name, module in [*sys.modules.items()] if name.startswith("ray.train.v2.")]
    for name in ("ray", "ray.train", "ray.tune", *by_path):
        if name is not None and (name.startswith(folder) or name.startswith("ray")):
            logging.getLogger(name).setLevel(level)
    # a trial that is lost: a search says so itself
    logging.getLogger("ray.tune").setLevel(max(level, logging.CRITICAL))


@contextlib.contextmanager
def quiet_raylet() -> Iterator[None]:
    """Within, the driver does not print what the cluster's nodes tell it (``(raylet) A worker died``, a page
    of guesses): what is lost, and what is waited for, the commands say themselves.
    """
    real = worker.print_to_stdstream

    def printed(data: dict[str, Any], *arguments: Any, **named: Any) -> None:
        if data.get("pid") != RAYLET:
            real(data, *arguments, **named)

    with patch.object(worker, "print_to_stdstream", printed):
        yield
