"""How accurate a study's trainings would have been on other images: from what each kept of its own."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dbf_ray.data.samples import scene_of
from dbf_ray.evaluation.matches import MATCHES, image_counts, read_matches
from dbf_ray.reports.answer import Resampled
from dbf_ray.reports.statistics import Floats

DRAWS = 1000


class Evidence:
    """Accuracies on resampled images. The images are the same for all trainings that were evaluated on the
    same ones; patches of a scene come together. Each training is looked at once.
    """

    def __init__(self, accuracy: str, draws: int = DRAWS) -> None:
        self._prefix = "merged/" if accuracy.startswith("merged/") else ""
        self._accuracy, self._name, self._draws = accuracy, accuracy.removeprefix("merged/"), draws
        self._known: dict[str, tuple[float, Floats | None]] = {}
        self._counts: dict[bytes, Any] = {}

    def of(self, rows: Iterable[Mapping[str, Any]]) -> Resampled:
        """By trial and seed, for all trainings that kept what their accuracy was made of."""
        found: dict[int, dict[int, Floats]] = {}
        for row in rows:
            for run in (row, *(row.get("seeds") or ())):
                value = run.get(self._accuracy)
                if value is not None and (drawn := self._drawn(Path(run["run"]), value)) is not None:
                    found.setdefault(row["number"], {})[run.get("seed") or 0] = drawn
        return found

    def _drawn(self, folder: Path, accuracy: float) -> Floats | None:
        known = self._known.get(str(folder))
        if known is None or known[0] != accuracy:
            known = self._known[str(folder)] = accuracy, self._compute(folder, accuracy)
        return known[1]

    def _compute(self, folder: Path, accuracy: float) -> Floats | None:
        matches = read_matches(folder / MATCHES, self._prefix)
        if matches is None or not math.isfinite(accuracy):
            return None
        try:
            if matches.metric(self._name) != accuracy:  # of another evaluation
                return None
        except (KeyError, ValueError):  # no figure of this detector's
            return None
        scenes = [scene_of(name) for name in matches.names.tolist()]
        names = "\n".join(scenes).encode()
        if names not in self._counts:
            self._counts[names] = image_counts(scenes, self._draws, zlib.crc32(names))
        drawn = matches.resampled(self._name, self._counts[names])
        return drawn if np.isfinite(drawn).all() else None
