"""From a checkpoint to a version in MLflow's model registry."""

from __future__ import annotations

import base64
import io
import json
import tempfile
import warnings
from pathlib import Path
from typing import Any

from PIL import Image

from dbf_ray.config import Config, at
from dbf_ray.data import make_dataset
from dbf_ray.errors import ConfigError, DbfRayError, ResourceError
from dbf_ray.export.card import model_card
from dbf_ray.export.weights import write_weights
from dbf_ray.run import tracking_uri
from dbf_ray.tracking import read_summary
from dbf_ray.training.checkpoint import whole_checkpoint
from dbf_ray.training.manifest import digest_of

EXAMPLE_SIZE = 96  # pixels


@at("tracking")
def check_register(config: Config) -> None:
    """Refuse a name that ``config`` cannot register a model under; nothing where it asks for none. A store
    that cannot be asked is a warning: it may be there at the end.

    Raises:
        ConfigError: it is no name, another project's model has it, or MLflow is off.
        ResourceError: MLflow is not installed.
    """
    name = config.tracking.registered_model_name
    if name is None:
        return
    if not config.tracking.mlflow:
        raise ConfigError(
            f"`registered_model_name` needs MLflow, got {name!r} with `mlflow` false; leave one out"
        )
    try:
        from dbf_ray.tracking.model import check_name
    except ImportError as error:
        raise ResourceError(
            f"`registered_model_name` needs MLflow, which cannot be imported ({error}); pip install mlflow"
        ) from error
    if (doubt := check_name(tracking_uri(config), name)) is not None:
        warnings.warn(f"{doubt}; it is tried again at the end", stacklevel=3)


def register_checkpoint(checkpoint: Path, config: Config, name: str) -> dict[str, Any]:
    """Register a checkpoint's detector.

    Args:
        checkpoint: a folder like runs/NAME/checkpoints/epoch-00012.
        config: says where MLflow is.
        name: of the registered model.

    Returns:
        ``model`` (``models:/NAME/VERSION``), ``version``, ``new`` (False: this checkpoint is that version
        already), ``uri`` without credentials.

    Raises:
        ConfigError: the name is another project's.
        WeightsError: the checkpoint cannot be read.
        ResourceError: the store cannot be used.
    """
    from dbf_ray.tracking.model import register_model
    from dbf_ray.uris import public

    uri = tracking_uri(config)
    checkpoint = whole_checkpoint(checkpoint)
    with tempfile.TemporaryDirectory() as folder, at("tracking"):
        parts = _parts(checkpoint, Path(folder) / "checkpoint", name)
        try:
            version, new = register_model(
                uri,
                name,
                parts,
                experiment=config.tracking.experiment,
                run_id=_run_id(checkpoint, public(uri)),
            )
        except DbfRayError:
            raise
        except Exception as error:
            from dbf_ray.tracking.store import in_a_line

            raise ResourceError(
                f"MLflow at {public(uri)} cannot register the model ({in_a_line(error, uri)}); "
                f"{_later(checkpoint, name)} does it once it is there"
            ) from error
    return {"model": f"models:/{name}/{version}", "version": version, "new": new, "uri": public(uri)}


def register_at_end(checkpoint: str | Path | None, config: Config) -> dict[str, Any] | None:
    """Register what was trained, as ``tracking.registered_model_name`` says. A training that is done does not
    fail for it: what goes wrong is a warning that names the command to do it later.
    """
    name = config.tracking.registered_model_name
    if name is None:
        return None
    if checkpoint is None:
        warnings.warn(f"there is no checkpoint to register as {name!r}", stacklevel=2)
        return None
    try:
        return register_checkpoint(Path(checkpoint), config, name)
    except Exception as error:
        later = _later(Path(checkpoint), name)
        text = str(error) if isinstance(error, DbfRayError) else f"{type(error).__name__}: {error}"
        hint = "" if later in text else f"; {later} does it later"
        warnings.warn(f"not registered: {text}{hint}", stacklevel=2)
        return None


def _later(checkpoint: Path, name: str) -> str:
    return f"dbf export --checkpoint {checkpoint} --register {name}"


def _parts(checkpoint: Path, folder: Path, name: str) -> Any:
    from dbf_ray.predict.table import COLUMNS, TablePredictor  # with what draws predictions
    from dbf_ray.tracking.model import ModelParts

    record = write_weights(checkpoint, folder)
    facts = record.get("facts") or {}
    summary = read_summary(checkpoint.parent.parent) or {}
    if summary.get("epochs") != len(record.get("epochs") or ()):  # of a longer training than the checkpoint's
        summary = {}
    return ModelParts(
        checkpoint=folder,
        predictor=f"{TablePredictor.__module__}:{TablePredictor.__qualname__}",
        columns={name: "string" if name in ("image", "label") else "double" for name in COLUMNS},
        example=([_example()], TablePredictor(folder).defaults),
        card=model_card(name, record, summary),
        digest=digest_of(checkpoint),
        tags={
            "detector": str(record["config"]["detector"]["name"]),
            "backbone": str(record["config"]["detector"]["backbone"]),
            "policy": str(facts.get("policy")),
            "run": str(facts.get("name")),
            "map50": str(summary.get("map50", "")),
        },
    )


def _example() -> str:
    """A small generated scene as a PNG file in base64."""
    pixels, _ = make_dataset("synthetic", "val", images=1, image_size=EXAMPLE_SIZE).load(0)
    stream = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(stream, "PNG", optimize=True)
    return base64.b64encode(stream.getvalue()).decode()


def _run_id(checkpoint: Path, uri: str) -> str | None:
    """The MLflow run of a checkpoint's run folder, if it is in this store."""
    try:
        known = json.loads((checkpoint.resolve().parent.parent / "mlflow.json").read_text(encoding="utf-8"))
        return str(known["run_id"]) if known["uri"] == uri and known["run_id"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
