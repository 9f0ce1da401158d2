"""Collects detections image by image, joins them over ranks, and computes the metrics of a record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch.distributed as dist
from numpy.typing import NDArray

from dbf_ray.errors import ConfigError, DataError
from dbf_ray.evaluation.average_precision import check, class_ap, mean
from dbf_ray.evaluation.matches import IOU_THRESHOLDS, Matches
from dbf_ray.evaluation.matching import match_classes, plain
from dbf_ray.evaluation.merge import NMS_THRESHOLD, as_found, merge_patches

Image = dict[str, dict[str, NDArray[Any]]]


class Evaluator:
    """Metrics of one pass over a data set, independent of the order of the images and of how they were shared
    among ranks.

    Use: ``update`` with every batch, ``gather`` once (on every rank), ``compute``. Boxes of detections and
    targets must be in the same pixels, of the original image or of a resized one: IoU does not see the scale.
    """

    def __init__(
        self, num_classes: int, classes: Sequence[str], iou_thresholds: Iterable[float] = IOU_THRESHOLDS
    ) -> None:
        self.iou_thresholds = tuple(iou_thresholds)
        if len(classes) != num_classes:
            raise ConfigError(
                f"there must be one name for each class, got {len(classes)} names for {num_classes} classes: "
                f"{list(classes)}"
            )
        if not self.iou_thresholds:
            raise ConfigError(
                "iou_thresholds must name at least one threshold, got none; the default is 0.50, 0.55, ..., "
                "0.95"
            )
        for threshold in self.iou_thresholds:
            check(threshold, "voc12")
        self.classes = list(classes)
        self.matches: dict[str, Matches] = {}
        """Of ``compute``, under "", and of ``compute_merged``, under "merged/"."""
        self._images: dict[str, Image] = {}
        self._scales: dict[str, float] = {}
        self._gathered = False

    def __len__(self) -> int:
        """Images seen so far: this rank's, and after ``gather`` those of all ranks."""
        return len(self._images)

    @property
    def images(self) -> Mapping[str, Image]:
        """What was seen so far, by image: ``detections`` (boxes, scores, labels) and ``objects`` (boxes,
        labels, difficult), as arrays.
        """
        return self._images

    def update(self, detections: Sequence[Mapping[str, Any]], targets: Sequence[Mapping[str, Any]]) -> None:
        """Add a batch.

        Args:
            detections: per image boxes [n, 5], scores [n], labels [n], on any device.
            targets: per image boxes [m, 5], labels [m], difficult [m] and image_id, a name that no other
                image has; and ``scale``, by which the image was resized, if it was.

        Raises:
            DataError: the lists differ in length, an image comes twice, or a label is out of range.
        """
        if len(detections) != len(targets):
            raise DataError(
                f"there must be one entry of detections for each target, got {len(detections)} for "
                f"{len(targets)} targets"
            )
        for found, target in zip(detections, targets, strict=True):
            image_id = str(target["image_id"])
            if image_id in self._images:
                raise DataError(
                    f"image {image_id!r} was evaluated twice; evaluation needs each image once, check the "
                    "loader's sharding"
                )
            image = {
                "detections": {
                    key: plain(found[key]).numpy().copy() for key in ("boxes", "scores", "labels")
                },
                "objects": {
                    key: plain(target[key]).numpy().copy() for key in ("boxes", "labels", "difficult")
                },
            }
            for part, arrays in image.items():
                self._check_labels(arrays["labels"], f"{part} of image {image_id!r}")
            self._images[image_id] = image
            self._scales[image_id] = float(target.get("scale", 1.0))
            self._gathered = False

    def gather(self) -> None:
        """Give every rank the images of all ranks; must be called on every rank. Does nothing without a
        process group.

        Raises:
            DataError: two ranks evaluated the same image (raised on every rank).
        """
        if (
            self._gathered
            or not (dist.is_available() and dist.is_initialized())
            or dist.get_world_size() == 1
        ):
            return
        parts: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(parts, (self._images, self._scales))
        merged: dict[str, Image] = {}
        for rank, (part, scales) in enumerate(parts):
            twice = merged.keys() & part.keys()
            if twice:
                raise DataError(
                    f"image {min(twice)!r} was evaluated on rank {rank} and on one before it ({len(twice)} "
                    "such images); evaluation needs each image once, check the loader's sharding"
                )
            merged.update(part)
            self._scales.update(scales)
        self._images, self._gathered = merged, True

    def compute(self) -> dict[str, float]:
        """The metrics over all images seen, as fractions in [0, 1].

        Returns:
            map50, map50_voc07, map75, map50_95 (mean over ``iou_thresholds``) and ap50/<class> of every
            class; by the area under the curve (VOC2012) except map50_voc07. NaN where there are no objects
            (other than difficult ones) to find, and only there.
        """
        names = sorted(self._images)
        images = [self._images[image_id] for image_id in names]
        objects = [image["objects"] for image in images]
        matches = match_classes([image["detections"] for image in images], objects)
        self.matches[""] = Matches.of(matches, names, self.classes, objects)

        def per_class(threshold: float, method: str = "voc12") -> dict[int, float]:
            return {label: class_ap(found, threshold, method) for label, found in matches.items()}

        ap50 = per_class(0.5)
        result = {
            "map50": mean(list(ap50.values())),
            "map50_voc07": mean(list(per_class(0.5, "voc07").values())),
            "map75": mean(list(per_class(0.75).values())),
            "map50_95": mean(
                [mean(list(per_class(threshold).values())) for threshold in self.iou_thresholds]
            ),
        }
        return result | {
            f"ap50/{name}": ap50.get(label, float("nan")) for label, name in enumerate(self.classes)
        }

    def compute_merged(
        self, originals: Mapping[str, Mapping[str, Any]], nms_threshold: float = NMS_THRESHOLD
    ) -> dict[str, float]:
        """The metrics on the images that the images seen are patches of, detections merged; named
        ``merged/map50`` and so on.

        Args:
            originals: objects by image, boxes [n, 5] in its pixels, labels [n] and difficult [n]: of all
                images that patches were seen of.
            nms_threshold: see :func:`.merge.merge_patches`.
        """
        patches = {
            name: as_found(
                image["detections"]["boxes"],
                image["detections"]["scores"],
                image["detections"]["labels"],
                self._scales[name],
            )
            for name, image in self._images.items()
        }
        merged = merge_patches(patches, nms_threshold)
        whole = Evaluator(len(self.classes), self.classes, self.iou_thresholds)
        nothing = as_found(np.zeros((0, 5)), np.zeros(0), np.zeros(0), 1.0)
        for name, objects in originals.items():
            whole.update([merged.get(name, nothing)._asdict()], [{**objects, "image_id": name}])
        metrics = whole.compute()
        self.matches["merged/"] = whole.matches[""]
        return {f"merged/{name}": value for name, value in metrics.items()}

    def _check_labels(self, labels: NDArray[Any], place: str) -> None:
        wrong = labels[(labels < 0) | (labels >= len(self.classes))]
        if wrong.size:
            known = f"0 to {len(self.classes) - 1}" if len(self.classes) > 1 else "0"
            raise DataError(f"labels must be {known}, got {int(np.asarray(wrong).flat[0])} ({place})")
