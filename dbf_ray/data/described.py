"""A data set in a few plain values, as trackers show it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dbf_ray.data.contents import flags_of
from dbf_ray.data.digest import data_digest
from dbf_ray.data.samples import Dataset, Subset


def described(dataset: Dataset, name: str, root: Path | None, split: str) -> dict[str, Any]:
    """``name``, ``digest``, ``source`` (its folder, or how it is made), ``split`` and ``counts`` (images,
    classes, and objects where they are known without decoding images).
    """
    whole = dataset
    while isinstance(whole, Subset):
        whole = whole.dataset
    counts = {"images": len(dataset), "classes": len(dataset.classes)}
    if root is not None and hasattr(whole, "flags"):  # drawing scenes takes long
        flags = [flags_of(dataset, index)[1] for index in range(len(dataset))]
        counts |= {"objects": sum(map(len, flags)), "difficult": sum(map(sum, flags))}
    return {
        "name": f"{name if root is None else root.resolve().name}/{split}",
        "digest": data_digest(dataset),
        "source": name if root is None else str(root),
        "split": split,
        "counts": counts,
    }
