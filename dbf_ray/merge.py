"""Detections of patches as detections of the images these were cut from: files in, files out, and how good they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from dbf_ray.data.labelled import LabelledDataset
from dbf_ray.data.readers import READERS, recognise
from dbf_ray.data.split import WHOLE
from dbf_ray.errors import ConfigError, DataError
from dbf_ray.evaluation import Evaluator
from dbf_ray.evaluation.merge import NMS_THRESHOLD, Found, merge_patches
from dbf_ray.evaluation.submission import read_task1, write_task1


def merge_files(source: Path, out: Path, classes: Sequence[str] | None = None, nms_threshold: float = NMS_THRESHOLD) -> dict[str, Any]:
    """Merge the Task 1 files of patches in ``source`` into those of images in ``out``, with the archive that DOTA's server takes.

    Returns:
        images, patches, detections before and after, and the classes.

    Raises:
        DataError: the files cannot be read, or ``out`` is ``source``.
        ConfigError: the threshold is not in (0, 1].
    """
    if not 0 < nms_threshold <= 1:
        raise ConfigError(f"the IoU from which detections are one object must be in (0, 1], got {nms_threshold}; give one like 0.1")
    if out.resolve() == source.resolve():
        raise DataError(f"merged files must go to another folder than the patches', got {out}; give another OUT")
    patches, names = read_task1(source, classes)
    merged = merge_patches(patches, nms_threshold)
    write_task1(merged, names, out)
    return {
        "patches": len(patches),
        "images": len(merged),
        "detections_of_patches": sum(len(found.scores) for found in patches.values()),
        "detections": sum(len(found.scores) for found in merged.values()),
        "classes": names,
        "out": str(out),
    }


def judge_files(source: Path, root: Path, split: str, format_name: str | None = None) -> dict[str, float]:
    """Metrics ``merged/...`` of the Task 1 files in ``source`` on the uncut images of a split of ``root``.

    Raises:
        DataError: files or data cannot be read, or a file's class is none of the data's.
    """
    reader = READERS[format_name or recognise(root)]
    dataset = LabelledDataset(reader, root, split if reader.splits(root) else WHOLE, classes_from=split)
    images, names = read_task1(source)
    if unknown := sorted(set(names) - set(dataset.classes)):
        raise DataError(
            f"{source}: classes must be among {', '.join(dataset.classes)}, got {', '.join(unknown)}; give the labels of these images"
        )
    images, _ = read_task1(source, dataset.classes)
    evaluator = Evaluator(len(dataset.classes), dataset.classes)
    nothing = Found(torch.zeros(0, 5), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    for index, image_id in enumerate(dataset.image_ids):
        evaluator.update([images.get(image_id, nothing)._asdict()], [dataset.target(index)])
    return {f"merged/{name}": value for name, value in evaluator.compute().items()}
