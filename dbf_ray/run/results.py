"""Evaluations and predictions as runs of their own in MLflow."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dbf_ray.config import Config
from dbf_ray.errors import DbfRayError
from dbf_ray.files import write_json
from dbf_ray.run.naming import mlflow_target
from dbf_ray.tracking import MlflowTarget

Done = Callable[[Mapping[str, float], str], None]
"""Takes metrics by their names in MLflow, and what was found in words."""


@contextlib.contextmanager
def result_run(
    config: Config,
    kind: str,
    checkpoint: Path,
    directory: Path,
    of: str,
    params: Mapping[str, Any],
    datasets: Callable[[], list[dict[str, Any]]] = list,
) -> Iterator[Done]:
    """What is done in the block is a run, if ``config.tracking`` says so; it fails with the block.

    Args:
        config: of the checkpoint.
        kind: evaluation or prediction.
        checkpoint: what does it.
        directory: the run's folder, made if missing; where that cannot be, there is a warning and no run.
        of: what is looked at, for the name.
        params: the run's.
        datasets: as :func:`dbf_ray.data.described.described` gives them; asked for at the end.
    """
    trained = checkpoint.parent.parent.name if checkpoint.parent.name == "checkpoints" else ""
    name = " · ".join(part for part in (kind, trained, checkpoint.name, of) if part)
    tags = {"dbf_ray.checkpoint": str(checkpoint.absolute()), "dbf_ray.run": trained}
    run = _begun(mlflow_target(config), directory, name, kind, tags, params)
    if run is None:
        yield lambda metrics, note: None
        return

    def done(metrics: Mapping[str, float], note: str) -> None:
        if kind == "evaluation":
            write_json(directory / "summary.json", {"checkpoint": str(checkpoint), **params, **metrics})
        run.finish(metrics, note, datasets())

    try:
        yield done
    except BaseException as error:
        reason = str(error) if isinstance(error, DbfRayError) else f"{type(error).__name__}: {error}"
        run.fail(reason, isinstance(error, KeyboardInterrupt | SystemExit))
        raise


def evaluation_folder(config: Config, checkpoint: Path, split: str) -> Path:
    """A new folder for an evaluation, in that of the run that trained the checkpoint."""
    inside = checkpoint.parent.name == "checkpoints"
    root = checkpoint.parent.parent if inside else config.runs_dir
    stamp = f"{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 1_000_000_000 // 1_000_000:03d}"
    return root / "evaluations" / f"{checkpoint.name}-{split}-{stamp}"


def _begun(
    target: MlflowTarget | None,
    directory: Path,
    name: str,
    kind: str,
    tags: dict[str, str],
    params: Mapping[str, Any],
) -> Any:
    if target is None:
        return None
    try:
        from dbf_ray.tracking.mlflow import MlflowResult

        run = MlflowResult(
            directory, MlflowTarget(target.uri, target.experiment, name, kind, tags={**target.tags, **tags})
        )
        run.start(params)
    except (ImportError, OSError) as error:
        warnings.warn(f"this {kind} is not in MLflow: {error}", stacklevel=4)
        return None
    return run
