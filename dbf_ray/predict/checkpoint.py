"""A checkpoint on images: what it was trained on decides how they are looked at, unless somebody says
otherwise.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dbf_ray.config import with_overrides
from dbf_ray.detectors import Detector
from dbf_ray.errors import WeightsError
from dbf_ray.evaluate import config_of, load_detector
from dbf_ray.evaluation.submission import paths_note, text_names
from dbf_ray.locks import only_writer
from dbf_ray.predict.folder import OutFolder
from dbf_ray.predict.images import find_images
from dbf_ray.predict.job import Detect, Task, predict_files
from dbf_ray.predict.options import FORMATS, Options
from dbf_ray.predict.outputs import shown_names
from dbf_ray.predict.windows import Tiling
from dbf_ray.progress import print_line
from dbf_ray.run.results import Result
from dbf_ray.training.checkpoint import read_record, whole_checkpoint
from dbf_ray.training.loop import autocast
from dbf_ray.training.manifest import digest_of

COUNTS = ("images", "failed", "windows", "detections", "seconds", "windows_per_second")


def predict(
    checkpoint: Path,
    images: Path,
    out: Path,
    options: Options | None = None,
    say: Callable[[str], None] | None = None,
    tracking: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Detect objects in an image, or in all images of a folder and its sub-folders, and write them to
    ``out``.

    Everything is checked before the folder is touched. See :mod:`.folder` for what is written,
    :func:`.job.predict_files` for what is returned.

    Args:
        checkpoint: a folder like runs/NAME/checkpoints/epoch-00012; where it is torn, the newest whole one of
            an earlier epoch beside it is taken, with a warning.
        images: an image, or a folder of images.
        out: a new folder, or one in which the same prediction was begun.
        options: None for the defaults.
        say: takes a line for a person; None: they go to stderr.
        tracking: keys to change of the checkpoint's (``tracking.mlflow``, ...), with their values.

    Raises:
        WeightsError: the checkpoint cannot be read.
        DataError: there are no images.
        ConfigError: ``out`` is for another prediction, or an option does not fit.
        ResourceError: another process is predicting there, or a batch does not fit into memory.
    """
    options = options or Options()
    files, left_out = find_images(images, out)
    checkpoint = whole_checkpoint(checkpoint)
    task, origin = make_task(checkpoint, options)
    if "dota" in options.formats:
        text_names(task.classes)
        shown_names(list(files))
    folder = OutFolder(out, settings_of(checkpoint, images, options, task))
    folder.check()
    folder.check_names(files)
    with only_writer(out, "predicting", "give another --out"):
        folder.begin()
        tell, tiling = say or print_line, task.tiling
        if left_out:
            tell(left_out)
        tell(
            f"{len(files)} images; windows of {tiling.window} px ({origin}) that share {tiling.overlap} px, "
            f"resized to {tiling.image_size} px (x {tiling.scale:.3g})"
        )
        if "dota" in options.formats and (note := paths_note(list(files))):
            tell(note)
        config = with_overrides(config_of(checkpoint), dict(tracking or {}))
        params = {"images": str(images), "window": tiling.window, "overlap": tiling.overlap}
        with Result(config, "prediction", checkpoint, out, images.name, params) as result:
            result.begin()
            found = predict_files(task, files, folder, tell)
            counts = {**found, "failed": len(found["failed"])}
            result.done(
                {f"predict/{name}": float(counts[name]) for name in COUNTS},
                f"{found['detections']:,} detections in {found['images']} images, in {out.absolute()}.",
            )
        return {**found, "checkpoint": str(checkpoint)}


def make_task(checkpoint: Path, options: Options) -> tuple[Task, str]:
    """How a whole checkpoint looks at images, and where the size of its windows is known from.

    Raises:
        WeightsError: the checkpoint cannot be read.
        ConfigError: an option does not fit.
    """
    config = config_of(checkpoint)
    if options.window is not None:
        window, origin = options.window, "as given"
    else:
        window, origin = trained_window(checkpoint), "the long side of the images it was trained on"
    tiling = Tiling(window, options.overlap_of(window), config.data.image_size)
    detector, classes = load_detector(checkpoint, config)
    task = Task(
        detect=network(detector, config.training.precision, options.score),
        classes=classes,
        tiling=tiling,
        batch=options.batch or config.evaluation.batch_size,
        score=options.score,
        nms=options.nms,
        overlay_size=options.overlay_size,
        overlay_score=options.overlay_score,
    )
    return task, origin


def trained_window(checkpoint: Path) -> int:
    """Pixels of an original image that training showed in ``data.image_size``.

    Raises:
        WeightsError: the checkpoint's record cannot be read, or holds something else there.
    """
    window = read_record(checkpoint).get("window")
    if not isinstance(window, int) or isinstance(window, bool) or window < 1:
        raise WeightsError(
            f"checkpoint {checkpoint}: window in record.json must be a number of pixels >= 1, got "
            f"{window!r}; give --window"
        )
    return window


def network(detector: Detector, precision: str, score: float | None = None) -> Detect:
    """A detector in eval mode as a function, in the precision it was trained in; its threshold is lowered to
    ``score`` where that is less.
    """
    threshold: Any = detector.score_threshold
    detector.score_threshold = threshold if score is None else min(threshold, score)

    @torch.no_grad()
    def detect(images: list[Tensor]) -> list[Mapping[str, Tensor]]:
        with autocast(detector.mean.device, precision):
            found = detector(images)
        assert isinstance(found, list), "a detector in eval mode gives detections"
        return list(found)

    return detect


def settings_of(checkpoint: Path, images: Path, options: Options, task: Task) -> dict[str, Any]:
    """All that the results depend on, as ``predict.json`` holds it."""
    return {
        "checkpoint": str(checkpoint.resolve()),
        "checkpoint_sha256": digest_of(checkpoint),
        "images": str(images.resolve()),
        "classes": list(task.classes),
        **dataclasses.asdict(task.tiling),
        "batch": task.batch,
        "score": task.score,
        "nms": task.nms,
        "formats": [name for name in FORMATS if name in options.formats],
        "overlay_size": task.overlay_size,
        "overlay_score": task.overlay_score,
    }
