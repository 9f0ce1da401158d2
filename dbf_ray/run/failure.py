"""How a run that fails says so, also where its disk is full."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

from dbf_ray.errors import DbfRayError
from dbf_ray.files import write_json
from dbf_ray.stopping import Stopped
from dbf_ray.tracking import Tracker
from dbf_ray.tracking.jsonl import FAILURE


def tell_failure(error: BaseException, trackers: Sequence[Tracker], directory: Path) -> None:
    """Tell every tracker why the run in ``directory`` ends, and whether somebody ended it.

    One that cannot write does not keep it from the others; where the run's folder has no room, failure.json
    is written to the folder for temporary files.
    """
    reason = str(error) if isinstance(error, DbfRayError | Stopped) else f"{type(error).__name__}: {error}"
    killed = isinstance(error, KeyboardInterrupt | SystemExit)
    for tracker in trackers:
        try:
            tracker.fail(reason, killed)
        except OSError as full:
            _elsewhere(reason, full, directory)


def _elsewhere(reason: str, full: OSError, directory: Path) -> None:
    place = Path(tempfile.gettempdir()) / f"dbf_ray-{directory.name}-{FAILURE}"
    why = full.strerror or full
    try:
        write_json(place, {"reason": reason, "run": str(directory)})
    except OSError as error:
        place_too = error.strerror or error
        warnings.warn(
            f"{FAILURE} could not be written to {directory} ({why}), nor to {place} ({place_too})",
            stacklevel=3,
        )
        return
    warnings.warn(f"{FAILURE} could not be written to {directory} ({why}); it is {place}", stacklevel=3)
