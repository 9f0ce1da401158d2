"""Which detections matched which objects in each image of an evaluation: small enough to keep, and enough for
the average precision on any choice of these images.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dbf_ray.evaluation.average_precision import class_ap, mean
from dbf_ray.evaluation.matching import ROUNDING, ClassMatches, plain
from dbf_ray.files import write_bytes

MATCHES = "matches.npz"  # in a run's folder
IOU_THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
"""0.50, 0.55, ..., 0.95: the thresholds that map50_95 averages over."""
_AT_ONCE = 4_000_000  # numbers of a table of draws and detections


@dataclass(frozen=True)
class Matches:
    """Detections of the classes that have objects: one class after the other, in each the best score first
    (ties: image order, then order within the image), as average precision takes them.

    Attributes:
        names: of the I images.
        classes: names of the C classes.
        objects: [C, I] objects of each class and image, difficult ones left out.
        labels, images, scores: [n] class, image and score of a detection.
        iou: [n] its largest IoU with an object of its image and class, 0 where there is none.
        claimed: [n] number of that object, counted over all images, -1 where there is none.
        difficult: [n] whether that object is difficult; the detection then counts neither way.
    """

    names: NDArray[np.str_]
    classes: NDArray[np.str_]
    objects: NDArray[np.int32]
    labels: NDArray[np.int16]
    images: NDArray[np.int32]
    scores: NDArray[np.float32]
    iou: NDArray[np.float32]
    claimed: NDArray[np.int32]
    difficult: NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        found: Mapping[int, ClassMatches],
        names: Sequence[str],
        classes: Sequence[str],
        objects: Sequence[Mapping[str, Any]],
    ) -> Matches:
        """Of what :func:`.matching.match_classes` found in the images ``names`` with these objects."""
        counts = np.zeros((len(classes), len(names)), np.int32)
        for image, there in enumerate(objects):
            labels = plain(there["labels"]).numpy().reshape(-1)
            difficult = plain(there["difficult"]).numpy().reshape(-1).astype(bool)
            np.add.at(counts[:, image], labels[~difficult].astype(np.int64), 1)

        every = [found[label] for label in sorted(found)]

        def joined(part: str) -> NDArray[Any]:
            return np.concatenate([np.zeros(0), *(getattr(one, part) for one in every)])

        return cls(
            names=np.array(names, dtype=np.str_),
            classes=np.array(classes, dtype=np.str_),
            objects=counts,
            labels=np.repeat(np.array(sorted(found), np.int16), [len(one.iou) for one in every]),
            images=joined("images").astype(np.int32),
            scores=joined("scores").astype(np.float32),
            iou=joined("iou").astype(np.float32),
            claimed=joined("claimed").astype(np.int32),
            difficult=joined("difficult").astype(np.bool_),
        )

    def of_class(self, label: int) -> ClassMatches:
        """As :func:`.matching.match_classes` gives them."""
        mine = self.labels == label
        return ClassMatches(
            self.iou[mine].astype(np.float64),
            self.claimed[mine].astype(np.int64),
            self.difficult[mine],
            int(self.objects[label].sum()),
            self.images[mine].astype(np.int64),
            self.scores[mine],
        )

    def metric(self, name: str) -> float:
        """map50, map75, map50_95 or ap50/CLASS of these images, to the bit as the evaluator computes it.

        Raises:
            KeyError: another name.
        """
        thresholds, labels = self._means(name)
        found = {label: self.of_class(label) for label in labels}
        return mean(
            [
                mean([class_ap(matches, threshold, "voc12") for matches in found.values()])
                for threshold in thresholds
            ]
        )

    def resampled(self, name: str, counts: NDArray[np.int64]) -> NDArray[np.float64]:
        """The same metric, where each image is there ``counts`` times: [draws, I] whole numbers. Copies of an
        image are images of their own.

        Returns:
            [draws]; of a draw the classes count that have objects in it; NaN where none has.
        """
        thresholds, labels = self._means(name)
        found = [(self.of_class(label), counts @ self.objects[label]) for label in labels]
        values = [
            [_resampled_ap(matches, threshold, counts, objects) for matches, objects in found]
            for threshold in thresholds
        ]
        table = np.array(values, np.float64).reshape(len(thresholds), len(labels), len(counts))
        known = (~np.isnan(table)).sum(1)
        return (np.nansum(table, 1) / np.where(known, known, np.nan)).mean(0)

    def _means(self, name: str) -> tuple[tuple[float, ...], list[int]]:
        """IoU thresholds and classes that a metric is the mean over."""
        there = [int(label) for label in np.flatnonzero(self.objects.sum(1))]
        if name.startswith("ap50/"):
            label = self.classes.tolist().index(name.removeprefix("ap50/"))
            return (0.5,), [label] if label in there else []
        return {"map50": (0.5,), "map75": (0.75,), "map50_95": IOU_THRESHOLDS}[name], there


def _resampled_ap(
    matches: ClassMatches, threshold: float, counts: NDArray[np.int64], objects: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Average precision (area) of a class for each draw.

    Between two true positives precision only falls, and of copies of one the last is the highest point: so
    the envelope is known from the true positives alone, each as often as its image is there.
    """
    hit = matches.iou >= threshold - ROUNDING
    counted = ~(hit & matches.difficult)
    candidates = np.flatnonzero(hit & counted)
    first = np.sort(candidates[np.unique(matches.claimed[candidates], return_index=True)[1]])
    if not len(first):
        return np.where(objects > 0, 0.0, np.nan)
    kept = np.flatnonzero(counted[: first[-1] + 1])
    images, places = matches.images[kept], np.searchsorted(kept, first)
    result, step = [], max(1, _AT_ONCE // len(kept))
    for begin in range(0, len(counts), step):
        times = counts[begin : begin + step, images]
        found, all_ = times[:, places], np.cumsum(times, axis=1)[:, places]
        precision = np.cumsum(found, axis=1) / np.maximum(all_, 1)
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        result.append((found * envelope).sum(1))
    return np.concatenate(result) / np.where(objects > 0, objects, np.nan)


def image_counts(groups: Sequence[str], draws: int, seed: int = 0) -> NDArray[np.int64]:
    """How often each image is in each draw, [draws, images]: whole groups of images (the patches of a scene)
    are drawn with replacement, as many as there are. The same for the same groups.
    """
    kinds, place = np.unique(np.array(groups, dtype=np.str_), return_inverse=True)
    drawn = np.random.default_rng(seed).multinomial(len(kinds), np.full(len(kinds), 1 / len(kinds)), draws)
    return np.asarray(drawn[:, place], np.int64)


def write_matches(file: Path, matches: Mapping[str, Matches]) -> None:
    """Write matches by prefix ("" or "merged/") into one compressed file, as a whole."""
    arrays = {
        f"{prefix}{part.name}": getattr(one, part.name)
        for prefix, one in matches.items()
        for part in fields(Matches)
    }
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    write_bytes(file, stream.getvalue())


def read_matches(file: Path, prefix: str = "") -> Matches | None:
    """What :func:`write_matches` wrote under a prefix; None where it is not there or cannot be read."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return Matches(**{part.name: arrays[f"{prefix}{part.name}"] for part in fields(Matches)})
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
