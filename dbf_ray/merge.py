"""Detections of patches as detections of the images these were cut from: files in, files out, and how good
they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from dbf_ray.data.contents import nothing_counts
from dbf_ray.data.labelled import read_split, to_boxes
from dbf_ray.data.patches.split import WHOLE
from dbf_ray.data.readers import find_reader, recognise
from dbf_ray.data.readers.base import knowing
from dbf_ray.errors import ConfigError, DataError
from dbf_ray.evaluation import Evaluator
from dbf_ray.evaluation.merge import NMS_THRESHOLD, Detections, merge_patches
from dbf_ray.evaluation.submission import image_text, read_task1, task1_source, text_names, write_task1


@dataclass(frozen=True)
class Merged:
    """Detections by image, and what they were made of.

    Attributes:
        images: detections by image.
        classes: names in label order.
        patches: how many patches had detections.
        detections: how many these had.
    """

    images: dict[str, Detections]
    classes: list[str]
    patches: int
    detections: int


@dataclass(frozen=True)
class Metrics:
    """Metrics ``merged/...``, how many images the labels and the detections have in common, or one of them
    alone, and why no object counts, if none does.
    """

    metrics: dict[str, float]
    both: int
    only_labels: int
    only_detections: list[str]
    nothing_counts: str | None = None


def merge_files(
    source: Path, out: Path, classes: Sequence[str] | None = None, nms_threshold: float = NMS_THRESHOLD
) -> Merged:
    """Merge the Task 1 files of patches in ``source`` into those of images in ``out``, with the archive that
    DOTA's server takes.

    Args:
        source: folder or zip of them, or a folder that dbf predict has written.
        out: folder; Task 1 files of an earlier merge in it are replaced.
        classes: in label order; None: those that the files are named by.
        nms_threshold: see :func:`.merge_patches`.

    Raises:
        DataError: the files cannot be read, or ``out`` is where they are.
        ConfigError: the threshold is not in (0, 1].
    """
    if not 0 < nms_threshold <= 1:
        raise ConfigError(
            f"the IoU from which detections are one object must be in (0, 1], got {nms_threshold}; give one "
            "like 0.1"
        )
    if out.resolve() in (source.resolve(), task1_source(source).resolve()):
        raise DataError(
            f"merged files must go to another folder than the patches', got {out}; give another OUT"
        )
    patches, names = read_task1(source, classes)
    merged = merge_patches(patches, nms_threshold)
    write_task1(merged, names, out)
    return Merged(merged, names, len(patches), sum(len(found.scores) for found in patches.values()))


def judge(merged: Merged, root: Path, split: str, format_name: str | None = None) -> Metrics:
    """How good merged detections are on the uncut images of a split of ``root``; their labels are read, the
    images are not.

    Classes are those of the detections and of the labels together: one without objects is left out of the
    means, one without detections has AP 0.

    Raises:
        DataError: labels cannot be read, or there are detections and all of them are of other images.
    """
    reader = knowing(find_reader(format_name or recognise(root)), merged.classes)
    pairs = read_split(reader, root, split if reader.splits(root) else WHOLE)
    labelled = sorted({one.name for _, labels in pairs for one in labels.objects})
    as_text = dict(zip(labelled, text_names(labelled), strict=True))
    classes = [*merged.classes, *sorted(set(as_text.values()) - set(merged.classes))]
    evaluator = Evaluator(len(classes), classes)
    found_by_name = matched(merged.images, [item.name for item, _ in pairs])
    nothing = Detections(torch.zeros(0, 5), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    names = {item.name for item, _ in pairs}
    if found_by_name and not names & found_by_name.keys():
        shown = f"{min(found_by_name)}, say, is none"
        raise DataError(
            f"detections must be of images of {root}, {split}; {shown}; give the labels of these images, or "
            "another --split"
        )
    for item, labels in pairs:
        target = {
            "boxes": to_boxes(labels.objects, item.labels or item.image),
            "labels": torch.tensor(
                [classes.index(as_text[one.name]) for one in labels.objects], dtype=torch.int64
            ),
            "difficult": torch.tensor([one.difficult for one in labels.objects], dtype=torch.bool),
            "image_id": item.name,
        }
        evaluator.update([found_by_name.get(item.name, nothing)._asdict()], [target])
    metrics = {f"merged/{name}": value for name, value in evaluator.compute().items()}
    common = names & found_by_name.keys()
    reason = nothing_counts([one.difficult for one in labels.objects] for _, labels in pairs)
    return Metrics(metrics, len(common), len(names - common), sorted(found_by_name.keys() - common), reason)


def matched(found: Mapping[str, Detections], names: Sequence[str]) -> dict[str, Detections]:
    """Detections by the names of the images that they are of; those of other images keep the names that they
    have in text files.

    A name in text files may be the last parts of an image's path, or have more folders before it: whoever
    wrote them may have seen a part of the images, or others too.

    Raises:
        DataError: a name may be that of several images, or two are of one.
    """
    given = {name: text for name in names if (text := image_text(name)) in found}
    exact = set(given.values())
    images: dict[str, list[str]] = {}
    for name in (name for name in names if name not in given):
        for tail in _tails(image_text(name)):
            images.setdefault(tail, []).append(name)
    for text in sorted(found.keys() - exact):
        owners = next((images[tail] for tail in _tails(text) if tail in images), [text])
        if len(owners) > 1:
            raise DataError(
                f"detections must tell their images apart, {text} may be of {owners[0]} or {owners[1]}; "
                "detect in the folder that holds both, so that they are named by their paths"
            )
        if (other := given.setdefault(owners[0], text)) != text:
            raise DataError(
                f"detections of an image must have one name, {other} and {text} may both be of {owners[0]}; "
                "detect in the folder of these images alone"
            )
    return {name: found[text] for name, text in given.items()}


def _tails(name: str) -> list[str]:
    """A name, and what is left of it without its first folders."""
    parts = name.split("/")
    return ["/".join(parts[first:]) for first in range(len(parts))]


def counts_of(merged: Merged) -> Mapping[str, int]:
    """Patches and images with detections, and how many detections these had before and after."""
    return {
        "patches": merged.patches,
        "images": len(merged.images),
        "detections_of_patches": merged.detections,
        "detections": sum(len(found.scores) for found in merged.images.values()),
    }
