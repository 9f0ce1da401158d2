"""What a study has found, as its files say it: pareto.json, tables and plots."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dbf_ray.config import Config
from dbf_ray.evaluation.matches import MATCHES
from dbf_ray.reports import study_result, write_study
from dbf_ray.search.evidence import Evidence
from dbf_ray.search.repeats import Repeats
from dbf_ray.search.rows import keep_reference, kept_reference
from dbf_ray.search.study import Study
from dbf_ray.search.validation import val_map50
from dbf_ray.tracking.studies import read_runs

FILES_EVERY = 15.0  # seconds between two writings of tables and plots while trials run,
WRITING_SHARE = 0.05  # or more: of the time this may take
MEASURED = (
    *("map50", "map75", "map50_95", "compute_ratio", "device_seconds", "wall_seconds", "executed_flops"),
    *("peak_memory_bytes", "allreduce_bytes"),
)


class Outcome:
    """The files of the study in ``folder``.

    Args:
        study: what it knows.
        config: what its trials share.
        folder: where it is.
        repeats: of its trials.
        controls: keys of the settings that are shorter full trainings.
    """

    def __init__(
        self, study: Study, config: Config, folder: Path, repeats: Repeats, controls: frozenset[str]
    ) -> None:
        self.study, self.config, self.folder = study, config, folder
        self.repeats, self.controls = repeats, controls
        self.objectives = study.objectives
        self._evidence = Evidence(self.objectives.accuracy)
        self._written, self._pause = 0.0, FILES_EVERY

    def result(self) -> dict[str, Any]:
        """The content of pareto.json. The reference is fixed once all baselines are done, and kept for each
        pair of objectives.
        """
        study, objectives = self.study.optuna, self.study.objectives
        fixed = kept_reference(study, objectives)
        rows = self.rows()
        result = study_result(
            self.folder.name,
            rows,
            fixed,
            objectives,
            resampled=self._evidence.of(rows),
            tolerance=self.config.search.tolerance,
        )
        if fixed is None and result["reference"] is not None and self.study.baselines_done():
            keep_reference(study, objectives, result)
        return result

    def rows(self) -> list[dict[str, Any]]:
        """The trials, each with its role, repeats, val figures, and the command that trains it."""
        baselines, controls = self.study.baselines(), self.study.begun_of(self.controls)
        names = tuple(dict.fromkeys((*MEASURED, *self.objectives.names())))
        rows = self.study.rows(self.folder / "trials")
        for row in rows:
            number = row["number"]
            row["role"] = (
                "control" if number in controls else "baseline" if number in baselines else "setting"
            )
            row["seeds"] = self.repeats.entries(row, names)
            for run in (row, *row["seeds"]):
                file = Path(run["run"]) / MATCHES
                run["matches"] = str(file) if file.exists() else None
                if (value := val_map50(Path(run["run"]))) is not None:
                    run["val_map50"] = value
            row["command"] = self.command(row)
        return rows

    def command(self, row: Mapping[str, Any]) -> str:
        """The command line that trains a trial's setting once more."""
        changed = [
            f"--{key} {shlex.quote(value if isinstance(value, str) else json.dumps(value))}"
            for key, value in row["overrides"].items()
        ]
        config, name = shlex.quote(str(self.folder / "config.yaml")), f"{self.folder.name}-{row['number']}"
        return " ".join(["dbf train --config", config, *changed, "--name", shlex.quote(name)])

    def write(self) -> dict[str, Any]:
        """Write the files; returns the content of pareto.json."""
        begun = time.monotonic()
        result = self.result()
        write_study(result, self.folder, read_runs(result, self.folder))
        self._written = time.monotonic()
        self._pause = max(FILES_EVERY, (self._written - begun) / WRITING_SHARE)
        return result

    def now_and_then(self) -> dict[str, Any]:
        """The content of pareto.json; the files are written if they have not been for a while."""
        return self.write() if time.monotonic() - self._written > self._pause else self.result()
