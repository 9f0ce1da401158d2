"""A one-stage detector as an ONNX file: normalised images in, every candidate's box and scores out.

Which candidates are kept and which of them suppress each other is left to :class:`.exported.Exported`:
suppression of rotated boxes is no ONNX operator. A file is compared with the detector before it takes its
name.
"""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dbf_ray.config import Config
from dbf_ray.data import EvalView, make_dataset
from dbf_ray.detectors import Batch, Detector, padded_size
from dbf_ray.detectors.base import IMAGENET_MEAN, IMAGENET_STD, OneStageDetector
from dbf_ray.errors import ConfigError, ResourceError, TrainingError
from dbf_ray.evaluate import load_detector
from dbf_ray.export.exported import KEY
from dbf_ray.files import whole_file
from dbf_ray.geometry import RotatedBoxCoder, boxes_to_corners
from dbf_ray.training.manifest import digest_of

IMAGES = 10  # that a file is compared on
SCORE_TOLERANCE = 1e-4
BOX_TOLERANCE = 1e-3  # of a box's long side, of a pixel for smaller ones


class Difference(NamedTuple):
    """The largest between what a file gives and what its detector does: of a score, and of a box's corner in
    the box's long sides (in pixels, where that is less than one).
    """

    score: float
    box: float

    def __str__(self) -> str:
        return f"scores {self.score:.1e}, corners {self.box:.1e} of a box's long side"


class Candidates(nn.Module):
    """A one-stage detector up to its decoded boxes: images [B, 3, H, W], normalised, to boxes [B, N, 5],
    scores [B, N, C] and, where the detector has them, factors [B, N].
    """

    def __init__(self, detector: OneStageDetector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """All candidates, level by level."""
        count, padded = images.shape[0], (images.shape[-2], images.shape[-1])
        # as one image whose places are images x places: no loop over a number that is left open
        outputs = [output[None] for output in self.detector.dense_outputs(images)]
        batch = Batch(images, [padded], None, images.new_ones(1))
        (levels,) = self.detector.level_candidates(outputs, batch)
        places = torch.cat([level.places for level in levels])
        predicted = torch.cat([level.predicted for level in levels], 1)
        boxes = self.detector.coder.decode(
            places.expand(count, *places.shape).reshape(-1, places.shape[-1]), predicted.reshape(-1, 5)
        )
        factors = [level.factors for level in levels if level.factors is not None]
        scores = torch.cat([level.scores for level in levels], 1)
        return (
            boxes.reshape(count, -1, 5),
            scores,
            *([torch.cat(factors, 1)] if factors else []),
        )


def check_exporter() -> None:
    """Refuse before any work where the extra is not installed.

    Raises:
        ResourceError: naming what lacks.
    """
    for name in ("onnx", "onnxscript", "onnxruntime"):
        try:
            __import__(name)
        except ImportError as error:
            raise ResourceError(
                f"an export needs {name}, which cannot be imported ({error}); pip install 'dbf-ray[export]'"
            ) from error


def write_onnx(
    checkpoint: Path, config: Config, out: Path, image_size: int | None = None, batch: int | None = None
) -> dict[str, Any]:
    """Write a checkpoint's detector to ``out``, and compare the two on ten generated scenes.

    Args:
        checkpoint: a whole one.
        config: its own.
        out: the file; one that is there is replaced once the new one is compared.
        image_size: long side in pixels that images are resized to; None: as in training.
        batch: images at once; None: any number.

    Returns:
        ``out``, ``bytes``, ``inputs`` and ``outputs`` (shapes by name), ``difference_of_scores`` and
        ``difference_of_boxes`` (:class:`Difference`), ``metadata``.

    Raises:
        ConfigError: the detector has two stages, or a number is out of range.
        ResourceError: the extra ``export`` is not installed.
        TrainingError: the file does not give what the detector gives.
    """
    size = config.data.image_size if image_size is None else image_size
    if not 32 <= size <= 8192:
        raise ConfigError(f"--image-size must be in 32..8192 pixels, got {size}; leave it out for training's")
    if batch is not None and batch < 1:
        raise ConfigError(f"--batch must be >= 1 or dynamic, got {batch}; leave it out for dynamic")
    if out.is_dir():
        raise ConfigError(f"--out must be a file, {out} is a folder; give {out / 'model.onnx'}")
    check_exporter()
    detector, classes = load_detector(checkpoint, config)
    if not isinstance(detector, OneStageDetector):
        raise ConfigError(
            f"{config.detector.name} has two stages, of which the second looks at what the first proposes: "
            "that is no plain ONNX graph. Serve it from MLflow (--register NAME), predict with dbf predict, "
            "or train rotated_retinanet or rotated_fcos"
        )
    detector = detector.to(torch.device("cpu")).to(memory_format=torch.contiguous_format)
    detector.least_pad_to = (0, 0)
    candidates = Candidates(detector).eval()
    side = padded_size([(size, size)])[0]
    about = {**_about(detector, classes, size, side), "checkpoint_sha256": digest_of(checkpoint)}
    with whole_file(out) as partial:
        _export(candidates, side, batch, about["outputs"], partial)
        _add_metadata(partial, about)
        images = _scenes(detector, size, side)
        difference = compare(candidates, partial, images, batch)
        if not (difference.score <= SCORE_TOLERANCE and difference.box <= BOX_TOLERANCE):
            raise TrainingError(
                f"an export must give what the detector gives, on {len(images)} images it differs: "
                f"{difference} (at most {SCORE_TOLERANCE:g} and {BOX_TOLERANCE:g}); {out} is not written. Is "
                "the checkpoint a trained one? Say so in an issue, with its configuration"
            )
        inputs, outputs = _shapes(partial)
    return {
        "out": str(out),
        "bytes": out.stat().st_size,
        "inputs": inputs,
        "outputs": outputs,
        "difference_of_scores": difference.score,
        "difference_of_boxes": difference.box,
        "metadata": about,
    }


@torch.no_grad()
def compare(candidates: nn.Module, file: Path, images: Tensor, batch: int | None = None) -> Difference:
    """The largest difference over images [n, 3, S, S] between a file and the module it was made of, in
    batches of ``batch`` images; None: of one, then of three.

    A box has several names (w and h exchanged and a right angle, half a turn), and rounding may choose: so it
    is corners that are compared, from whichever of them on.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    score = box = 0.0
    first, rest = (images[:1], images[1:]) if batch is None else (images[:0], images)
    for part in filter(len, (first, *rest.split(batch or 3))):
        if batch is not None and len(part) < batch:  # a file of so many images takes no fewer
            part = torch.cat([part, images[:1].expand(batch - len(part), *images.shape[1:])])
        boxes, *others = candidates(part)
        got_boxes, *got_others = (
            torch.from_numpy(value) for value in session.run(None, {"images": part.numpy()})
        )
        for wanted, got in zip(others, got_others, strict=True):
            score = max(score, _largest(wanted - got))
        box = max(box, _apart(boxes.reshape(-1, 5), got_boxes.reshape(-1, 5)))
    return Difference(score, box)


def _apart(boxes: Tensor, others: Tensor) -> float:
    """The largest distance of corresponding corners of boxes [N, 5], in long sides."""
    corners, more = (boxes_to_corners(each.double()).unflatten(-1, (4, 2)) for each in (boxes, others))
    turned = torch.stack([(corners - more.roll(turn, 1)).norm(dim=-1).amax(-1) for turn in range(4)])
    return _largest(turned.amin(0) / boxes[:, 2:4].double().amax(-1).clamp(min=1))


def _largest(values: Tensor) -> float:
    """The largest absolute value, infinite where one is none."""
    return float(values.abs().nan_to_num(torch.inf).max()) if values.numel() else 0.0


def _about(detector: OneStageDetector, classes: list[str], size: int, side: int) -> dict[str, Any]:
    """What is to be known to use the file, see :class:`.exported.Exported`."""
    images = torch.zeros(1, 3, side, side)
    batch = Batch(images, [(side, side)], None, torch.ones(1))
    with torch.no_grad():
        (levels,) = detector.level_candidates(detector.dense_outputs(images), batch)
    return {
        "classes": classes,
        "image_size": size,
        "side": side,
        "mean": list(IMAGENET_MEAN),
        "std": list(IMAGENET_STD),
        "candidates_per_level": [len(level.scores) for level in levels],
        "topk_candidates": detector.topk_candidates,
        "score_threshold": detector.score_threshold,
        "nms_threshold": detector.nms_threshold,
        "detections_per_image": detector.detections_per_image,
        "outputs": ["boxes", "scores", *(["factors"] if levels[0].factors is not None else [])],
        # coders that move centres into the image need its size before padding, which the file does not know
        "keep_centers_inside": isinstance(detector.coder, RotatedBoxCoder),
        "boxes": "cx, cy, w, h in pixels of the input, angle in degrees, counter-clockwise; w >= h",
    }


def _export(candidates: Candidates, side: int, batch: int | None, outputs: list[str], file: Path) -> None:
    with torch.no_grad(), _silent():
        torch.onnx.export(
            candidates,
            (torch.zeros(batch or 2, 3, side, side),),
            str(file),
            input_names=["images"],
            output_names=outputs,
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}} if batch is None else None,
            dynamo=True,
            external_data=False,
            verbose=False,
        )


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without what the exporter says of its own inside."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    before = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, before, strict=True):
                logger.setLevel(level)


def _add_metadata(file: Path, about: dict[str, Any]) -> None:
    import onnx

    model = onnx.load(str(file))
    onnx.helper.set_model_props(model, {KEY: json.dumps(about)})
    onnx.checker.check_model(model)
    onnx.save(model, str(file))


def _shapes(file: Path) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return {i.name: list(i.shape) for i in session.get_inputs()}, {
        o.name: list(o.shape) for o in session.get_outputs()
    }


def _scenes(detector: Detector, size: int, side: int) -> Tensor:
    """Generated scenes [10, 3, S, S], as the detector prepares them."""
    view = EvalView(make_dataset("synthetic", "val", images=IMAGES), size)
    return detector.prepare([view[index][0] for index in range(IMAGES)], pad_to=(side, side)).images
