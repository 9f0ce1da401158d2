"""What a training says of a data set that a check has looked at."""

from __future__ import annotations

from pathlib import Path

from dbf_ray.data.labelled import LabelledDataset
from dbf_ray.data.readers import Reader
from dbf_ray.errors import DataError


def refused(root: Path, reader: Reader) -> str:
    """Why a training refuses the splits train and val of a folder; empty where it takes them."""
    try:
        train = LabelledDataset(reader, root)
        LabelledDataset(reader, root, "val", train.classes)
    except DataError as error:
        return str(error)
    return ""
