"""What a study has found, as its files say it: pareto.json, tables and plots."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from dbf_ray.reports import study_result, write_study
from dbf_ray.reports.pareto import Reference
from dbf_ray.search.study import Study
from dbf_ray.search.validation import val_map50

FILES_EVERY = 15.0  # seconds between two writings of tables and plots while trials run


class Outcome:
    """The files of the study in ``folder``."""

    def __init__(self, study: Study, folder: Path) -> None:
        self.study, self.folder = study, folder
        self._written = 0.0

    def result(self) -> dict[str, Any]:
        """The content of pareto.json. The reference is fixed once all baselines are done, and kept for each
        pair of objectives.
        """
        study, objectives = self.study.optuna, self.study.objectives
        kept = study.user_attrs.get("references", {})
        fixed = kept.get(" ".join(objectives.names()))
        rows = self.study.rows(self.folder / "trials")
        for row in rows:
            if (value := val_map50(Path(row["run"]))) is not None:
                row["val_map50"] = value
        reference = None if fixed is None else Reference(*map(tuple, fixed))
        result = study_result(self.folder.name, rows, reference, objectives)
        if fixed is None and result["reference"] is not None and self.study.baselines_done():
            fixed = {" ".join(objectives.names()): [result["reference"], result["ideal"]]}
            study.set_user_attr("references", kept | fixed)
        return result

    def write(self) -> dict[str, Any]:
        """Write the files; returns the content of pareto.json."""
        result = self.result()
        write_study(result, self.folder)
        self._written = time.monotonic()
        return result

    def now_and_then(self) -> dict[str, Any]:
        """The content of pareto.json; the files are written if they have not been for a while."""
        return self.write() if time.monotonic() - self._written > FILES_EVERY else self.result()

    def files(self, space_file: Path) -> list[Path]:
        """The study's files that there are."""
        names = ("pareto.json", "pareto.html", "pareto.png", "trials.csv", "config.yaml")
        return [self.folder / name for name in names if (self.folder / name).exists()] + [space_file]
