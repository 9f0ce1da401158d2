"""What goes into an exported detector and what comes out of it: read from the file's own metadata, in numpy
and Pillow alone.

The file itself takes images that are prepared and gives every candidate; what lies before and behind is here,
and the same as in :mod:`dbf_ray.detectors`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dbf_ray.errors import DataError
from dbf_ray.export.suppression import suppress_rotated

KEY = "dbf_ray"  # of the metadata that is read here, JSON
Floats = NDArray[np.float32]


class Prepared(NamedTuple):
    """An image as the file takes it.

    Attributes:
        pixels: float32 [1, 3, S, S], normalised, padded at the right and the bottom.
        size: (height, width) in pixels before padding.
        scale: by which the image was resized.
    """

    pixels: Floats
    size: tuple[int, int]
    scale: float


class Found(NamedTuple):
    """What was found in an image, best first.

    Attributes:
        boxes: [n, 5] (cx, cy, w, h, angle in degrees), pixels of the image before it was resized, canonical.
        scores: [n] in [0, 1].
        labels: [n], see :attr:`Exported.classes`.
    """

    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    labels: NDArray[np.int64]


class Exported:
    """How to use a detector in an ONNX file.

    Args:
        metadata: the file's own: ``session.get_modelmeta().custom_metadata_map``.

    Attributes:
        classes: names by label.
        image_size: long side that an image is resized to, in pixels.
        side: S of the square that it is padded to.
        score_threshold, nms_threshold: the detector's own.

    Raises:
        DataError: the file is not one that ``dbf export`` wrote.

    Example:
        >>> session = onnxruntime.InferenceSession("model.onnx")
        >>> model = Exported(session.get_modelmeta().custom_metadata_map)
        >>> prepared = model.prepare(np.asarray(Image.open("scene.png").convert("RGB")))
        >>> found = model.detections(session.run(None, {"images": prepared.pixels}), prepared)
    """

    def __init__(self, metadata: Mapping[str, str]) -> None:
        try:
            about: dict[str, Any] = json.loads(metadata[KEY])
            self.classes: list[str] = list(about["classes"])
            self.image_size, self.side = int(about["image_size"]), int(about["side"])
            self.score_threshold = float(about["score_threshold"])
            self.nms_threshold = float(about["nms_threshold"])
            self._mean, self._std = (np.array(about[name], np.float32) for name in ("mean", "std"))
            self._levels = [int(count) for count in about["candidates_per_level"]]
            self._topk, self._limit = int(about["topk_candidates"]), int(about["detections_per_image"])
            self._keep_centers_inside = bool(about["keep_centers_inside"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"the metadata of an exported detector must have {KEY!r}, JSON that dbf export wrote, "
                f"got {sorted(metadata)}; export the checkpoint again"
            ) from error

    def prepare(self, image: NDArray[np.uint8]) -> Prepared:
        """Resize, normalise and pad an image uint8 [H, W, 3], RGB.

        Raises:
            DataError: it is of another shape or type.
        """
        if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape or image.dtype != np.uint8:
            raise DataError(f"an image must be uint8 [H, W, 3], RGB, got {image.dtype} {list(image.shape)}")
        scale = self.image_size / max(image.shape[:2])
        height, width = (max(1, round(side * scale)) for side in image.shape[:2])
        resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
        pixels = np.zeros((1, 3, self.side, self.side), np.float32)
        values = np.asarray(resized, np.float32).transpose(2, 0, 1) / 255
        pixels[0, :, :height, :width] = (values - self._mean[:, None, None]) / self._std[:, None, None]
        return Prepared(pixels, (height, width), scale)

    def detections(
        self,
        outputs: list[NDArray[Any]],
        prepared: Prepared,
        *,
        score: float | None = None,
        index: int = 0,
    ) -> Found:
        """Drop low scores, suppress within each class, and keep the best, as the detector itself does.

        Args:
            outputs: what the session gave: boxes [B, N, 5], scores [B, N, C] and, of FCOS, factors [B, N]
                that scores are multiplied with after the threshold (centerness).
            prepared: the image.
            score: detections up to it are dropped; None: the detector's own threshold.
            index: which of the B images it was.
        """
        boxes, scores, *more = (np.asarray(output[index]) for output in outputs)
        factors = more[0] if more else np.ones(len(boxes), np.float32)
        chosen = self._best((scores * factors[:, None]).max(1))
        boxes, scores, factors = boxes[chosen].astype(np.float64), scores[chosen], factors[chosen]
        if self._keep_centers_inside:
            height, width = prepared.size
            boxes[:, 0], boxes[:, 1] = boxes[:, 0].clip(0, width - 1), boxes[:, 1].clip(0, height - 1)
        threshold = self.score_threshold if score is None else score
        place, label = np.nonzero(scores > np.float32(threshold))
        value = scores[place, label] * factors[place]
        kept = suppress_rotated(boxes[place], value, label, self.nms_threshold)[: self._limit]
        found = boxes[place[kept]]
        found[:, :4] /= prepared.scale
        return Found(found, value[kept].astype(np.float64), label[kept].astype(np.int64))

    def _best(self, ranking: Floats) -> NDArray[np.int64]:
        """The places that are looked at: of each level the ``topk_candidates`` with the highest scores."""
        ends = np.cumsum(self._levels)
        levels = [np.arange(end - count, end) for end, count in zip(ends, self._levels, strict=True)]
        return np.concatenate(
            [
                level
                if len(level) <= self._topk
                else level[np.argsort(-ranking[level], kind="stable")[: self._topk]]
                for level in levels
            ]
        )
