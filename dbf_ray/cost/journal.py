"""Work in progress, written down now and then, so that what a killed attempt had spent is not forgotten.

A checkpoint knows the cost of whole epochs up to itself. The journal beside it knows the rest: one JSON line
every few seconds, each holding what the epoch under way has cost so far in this attempt. The last line of an
(attempt, epoch) pair counts.
"""

from __future__ import annotations

import json
import time
import warnings
from pathlib import Path
from typing import Any

Key = tuple[int, int]


class Journal:
    """An append-only file of spent work. A file that cannot be written is given up with a warning; it never
    stops a training.

    Args:
        path: the file; its folder is made when it is first written.
        every: seconds between two lines of one epoch.
    """

    def __init__(self, path: Path, every: float = 5.0) -> None:
        self.path, self.every = path, every
        self._last = float("-inf")
        self._usable = True

    def clear(self) -> None:
        """Forget an earlier run that used the same file."""
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            self._give_up(error)

    def due(self) -> bool:
        """Whether it is time for another line."""
        return self._usable and time.monotonic() - self._last >= self.every

    def write(self, attempt: int, epoch: int, spent: dict[str, Any]) -> None:
        """Append what ``epoch`` has cost so far in ``attempt``."""
        if not self._usable:
            return
        self._last = time.monotonic()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"attempt": attempt, "epoch": epoch, "spent": spent}) + "\n")
        except OSError as error:
            self._give_up(error)

    def read(self) -> dict[Key, dict[str, Any]]:
        """The last word on each (attempt, epoch); empty without a file. Torn lines, as a kill leaves them,
        are passed over.
        """
        try:
            lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return {}
        found: dict[Key, dict[str, Any]] = {}
        for line in lines:
            try:
                entry = json.loads(line)
                found[int(entry["attempt"]), int(entry["epoch"])] = dict(entry["spent"])
            except (ValueError, KeyError, TypeError):
                continue
        return found

    def _give_up(self, error: OSError) -> None:
        self._usable = False
        warnings.warn(
            f"the cost journal {self.path} cannot be written ({error}); a restart will not count the work it "
            "repeats",
            stacklevel=3,
        )
