"""Evaluations and predictions as runs of their own in MLflow."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from dbf_ray.config import Config
from dbf_ray.data import Dataset
from dbf_ray.data.described import described
from dbf_ray.errors import DbfRayError
from dbf_ray.files import write_json
from dbf_ray.run.naming import mlflow_target
from dbf_ray.tracking.metrics import scores


class Result:
    """An evaluation or a prediction as a run of its own. Until it begins nothing is written.

    Args:
        config: of the checkpoint.
        kind: evaluation or prediction.
        checkpoint: what does it.
        directory: the run's folder, made if missing; where that cannot be, there is a warning and no run.
        of: what is looked at, for the name.
        params: the run's.
    """

    def __init__(
        self,
        config: Config,
        kind: str,
        checkpoint: Path,
        directory: Path,
        of: str,
        params: Mapping[str, Any],
    ) -> None:
        self._target, self._kind, self._checkpoint = mlflow_target(config), kind, checkpoint
        self._directory, self._params = directory, params
        self._of = checkpoint.parent.parent.name if checkpoint.parent.name == "checkpoints" else ""
        self._name = " · ".join(part for part in (kind, self._of, checkpoint.name, of) if part)
        self._run: Any = None

    def begin(self) -> None:
        """The input has been checked; the work begins."""
        if self._target is None:
            return
        tags = {"dbf_ray.checkpoint": str(self._checkpoint.absolute()), "dbf_ray.run": self._of}
        target = replace(
            self._target, run_name=self._name, kind=self._kind, tags={**self._target.tags, **tags}
        )
        try:
            from dbf_ray.tracking.mlflow import MlflowResult

            run = MlflowResult(self._directory, target)
            run.start(self._params)
        except (ImportError, OSError) as error:
            warnings.warn(f"this {self._kind} is not in MLflow: {error}", stacklevel=3)
        else:
            self._run = run

    def done(
        self, metrics: Mapping[str, float], note: str, datasets: Callable[[], list[dict[str, Any]]] = list
    ) -> None:
        """It is done: ``metrics`` by their names in MLflow, what was found in words, and on which data."""
        if self._run is None:
            return
        if self._kind == "evaluation":
            record = {"checkpoint": str(self._checkpoint), **self._params, **metrics}
            write_json(self._directory / "summary.json", record)
        self._run.finish(metrics, note, datasets())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None and self._run is not None:
            reason = str(error) if isinstance(error, DbfRayError) else f"{type(error).__name__}: {error}"
            self._run.fail(reason, isinstance(error, KeyboardInterrupt | SystemExit))


def evaluated(
    config: Config,
    checkpoint: Path,
    split: str,
    metrics_of: Callable[[Callable[[Dataset], None]], dict[str, float]],
) -> dict[str, float]:
    """An evaluation on ``split``, as a run of its own.

    Args:
        config: what data and detector are.
        checkpoint: the folder or file that is evaluated.
        split: val or train.
        metrics_of: does it; what it gets is to be called with the data set before the first image.

    Returns:
        What ``metrics_of`` gives.
    """
    seen: list[Dataset] = []
    params = {"split": split, "data": config.data.name}
    folder = _evaluation_folder(config, checkpoint, split)
    with Result(config, "evaluation", checkpoint, folder, split, params) as result:

        def told(dataset: Dataset) -> None:
            seen.append(dataset)
            result.begin()

        metrics = metrics_of(told)
        result.done(
            scores(metrics, split),
            f"map50 {metrics['map50']:.3f} on {split}, of {checkpoint}.",
            lambda: [described(one, config.data.name, config.data.root, split) for one in seen],
        )
    return metrics


def _evaluation_folder(config: Config, checkpoint: Path, split: str) -> Path:
    """A new folder for an evaluation, in that of the run that trained the checkpoint, if one did."""
    inside = checkpoint.parent.name == "checkpoints"
    root = checkpoint.parent.parent if inside else config.runs_dir
    stamp = f"{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 1_000_000_000 // 1_000_000:03d}"
    return root / "evaluations" / f"{checkpoint.name}-{split}-{stamp}"
