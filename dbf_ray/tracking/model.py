"""A detector as an MLflow model, and its name in the registry: saved, logged and registered with an explicit
client; MLflow's global state is never touched.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import mlflow
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput
from mlflow.models import Model
from mlflow.types import ColSpec, Schema
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

from dbf_ray.errors import ConfigError
from dbf_ray.tracking import served
from dbf_ray.tracking.store import Store, in_a_line, is_absent
from dbf_ray.tracking.urls import sqlite_file
from dbf_ray.uris import public

OURS = "dbf_ray.model"  # tag of registered models that this project made
DIGEST = "dbf_ray.checkpoint_sha256"  # tag of a version
ARTIFACT = "model"  # what a logged model is called
REQUIREMENTS = ("dbf-ray", "torch", "torchvision", "mlflow", "numpy", "pillow")


@dataclass(frozen=True)
class ModelParts:
    """What a model is made of.

    Attributes:
        checkpoint: folder of weights and configuration.
        predictor: ``package.module:Name``, see :class:`.served.DetectorModel`.
        columns: of the table that it gives, each with MLflow's type ("string", "double").
        example: images, and parameters with their defaults.
        card: Markdown: what it is, what it was trained on, what it cost, how good it is, where it ends.
        digest: of the checkpoint.
        tags: of the version.
    """

    checkpoint: Path
    predictor: str
    columns: Mapping[str, str]
    example: tuple[Sequence[Any], Mapping[str, Any]]
    card: str
    digest: str
    tags: Mapping[str, str]


def check_name(uri: str, name: str) -> str | None:
    """Refuse a name that a model cannot be registered under; it makes no store.

    Returns:
        A line for the person, where the store could not be asked; None where all is well.

    Raises:
        ConfigError: it is no name, or another project's model has it.
    """
    if not name.strip() or set(name) & set('/:"') or name in (".", ".."):
        raise ConfigError(
            f"`registered_model_name` must be a name without '/', ':' and '\"', got {name!r}; as my-detector"
        )
    file = sqlite_file(uri)
    if file is not None and not file.exists():
        return None
    try:
        _check_owner(Store(uri).client, name)
    except ConfigError:
        raise
    except Exception as error:
        return (
            f"whether the name {name!r} is free could not be asked of MLflow at {public(uri)} "
            f"({in_a_line(error, uri)})"
        )
    return None


def register_model(
    uri: str, name: str, parts: ModelParts, *, experiment: str, run_id: str | None
) -> tuple[str, bool]:
    """Log a model and give it the next version under a name.

    Args:
        uri: of the store, and of its registry.
        name: of the registered model; made if there is none.
        parts: the model.
        experiment: that the model belongs to, where ``run_id`` is None or not in the store.
        run_id: of the training.

    Returns:
        The version, and whether it is new: the same checkpoint is registered once.

    Raises:
        ConfigError: another project's model has the name.
        Exception: whatever MLflow raises where the store cannot be used.
    """
    store = Store(uri)
    client = store.client
    if not _check_owner(client, name):
        client.create_registered_model(
            name,
            {OURS: "detector"},
            "An oriented detector, trained with dynamic backbone freezing (dbf_ray).",
        )
    for version in client.search_model_versions(f'name="{name}"'):
        if version.tags.get(DIGEST) == parts.digest:
            return str(version.version), False
    run = None if run_id is None else store.run(run_id)
    experiment_id = run.info.experiment_id if run is not None else store.experiment(experiment)
    known = run.info.run_id if run is not None else None
    model = client.create_logged_model(
        experiment_id, ARTIFACT, known, dict(parts.tags), model_type="oriented detector"
    )
    try:
        with tempfile.TemporaryDirectory() as folder:
            save_model(Path(folder) / "model", parts, model.model_id)
            client.log_model_artifacts(model.model_id, str(Path(folder) / "model"))
        client.finalize_logged_model(model.model_id, "READY")
    except BaseException:
        with contextlib.suppress(Exception):
            client.finalize_logged_model(model.model_id, "FAILED")
        raise
    if known is not None:
        client.log_outputs(known, [LoggedModelOutput(model.model_id, 0)])
    # of a model without a run a database's store would ask MLflow's global one
    asks = known is not None or urlsplit(uri).scheme in ("http", "https")
    made = client.create_model_version(
        name,
        model.artifact_location,
        known,
        {DIGEST: parts.digest, **parts.tags},
        description=parts.card,
        model_id=model.model_id if asks else None,
    )
    versions = json.dumps([{"name": name, "version": made.version}])
    client.set_logged_model_tags(model.model_id, {MLFLOW_MODEL_VERSIONS: versions})
    return str(made.version), True


def save_model(folder: Path, parts: ModelParts, model_id: str | None = None) -> None:
    """Write a model in MLflow's format; its example is predicted once, so it can be loaded."""
    with _quiet():
        mlflow.pyfunc.save_model(
            str(folder),
            python_model=served.__file__,
            artifacts={"checkpoint": str(parts.checkpoint)},
            model_config={"predictor": parts.predictor, "columns": list(parts.columns)},
            input_example=(list(parts.example[0]), dict(parts.example[1])),
            pip_requirements=[
                f"{package}=={importlib.metadata.version(package)}" for package in REQUIREMENTS
            ],
        )
        written = Model.load(str(folder))
        assert written.signature is not None, "MLflow makes one of the type hints"
        # type hints tell what goes in; of what comes out they only tell that it is a table
        written.signature.outputs = Schema([ColSpec(kind, name) for name, kind in parts.columns.items()])
        written.model_id = model_id
        written.save(str(folder / "MLmodel"))
    (folder / "README.md").write_text(parts.card, encoding="utf-8")


def _check_owner(client: MlflowClient, name: str) -> bool:
    """Whether there is a registered model of this name, which is then this project's.

    Raises:
        ConfigError: it is another's.
    """
    try:
        found = client.get_registered_model(name)
    except Exception as error:
        if is_absent(error):
            return False
        raise
    if OURS not in found.tags:
        ours = sorted(each.name for each in client.search_registered_models() if OURS in each.tags)
        there = (
            f"models of this project are {', '.join(ours[:5])}" if ours else "none of them is this project's"
        )
        raise ConfigError(
            f"`registered_model_name` must be a new name or one that this project registered, {name!r} is a "
            f"registered model that it did not make ({there}); give another"
        )
    return True


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what MLflow says of a model while it saves it: progress bars, and how it reads type hints."""
    loggers = [logging.getLogger(name) for name in ("mlflow", "mlflow.models", "mlflow.pyfunc")]
    before = [logger.level for logger in loggers]
    bar, key = os.environ.get("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"), "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"
    os.environ[key] = "false"
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(record=True):  # kept and dropped: MLflow sets filters of its own
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
        if bar is None:
            del os.environ[key]
        else:
            os.environ[key] = bar
