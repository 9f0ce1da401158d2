"""What a checkpoint says it was trained with."""

from __future__ import annotations

from pathlib import Path

from dbf_ray.config import Config, make_config
from dbf_ray.errors import ConfigError, WeightsError
from dbf_ray.training.checkpoint import read_record


def stored_config(checkpoint: Path) -> Config:
    """The configuration in a checkpoint's record.

    Raises:
        WeightsError: the record cannot be read, or holds none that this version understands.
    """
    record = read_record(checkpoint)
    try:
        return make_config(record["config"], f"checkpoint {checkpoint}")
    except (KeyError, TypeError, ConfigError) as error:
        raise WeightsError(
            f"checkpoint {checkpoint} must hold a configuration that this version understands: {error}"
        ) from error
