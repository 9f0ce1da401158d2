"""Pictures of a run, in ``pictures/`` of its folder: its timeline, how it learned, what it found.

They are drawn from what is there anyway: records, and what an evaluation has found. No image goes through the
network for them, and no random number is drawn, so a training ends in the same bits with them and without. A
picture that cannot be drawn is a warning.
"""

from __future__ import annotations

import io
import json
import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dbf_ray.build import RunSpec
from dbf_ray.data import EvalView
from dbf_ray.evaluation import Evaluator
from dbf_ray.evaluation.average_precision import class_ap, curve
from dbf_ray.evaluation.confusion import best_f1, confusion
from dbf_ray.evaluation.matches import MATCHES, read_matches, write_matches
from dbf_ray.files import write_bytes, write_json
from dbf_ray.geometry import boxes_to_corners

PICTURES = "pictures"
CONFUSION = "confusion.json"  # in the run's folder
SHEET = 10  # images whose detections are drawn
SHEETS = 5  # about so many in a run, unless somebody says otherwise
CELL = 288  # pixels of an image's long side in a sheet
CAPTIONS = 8  # detections in an image up to which each gets its class and score
_NAME = re.compile(r"epoch-(\d{5})\.jpg")


@dataclass(frozen=True)
class Seen:
    """What an evaluation found in the images of a sheet, by name; drawn from ``score`` on, where F1 was
    best.
    """

    epoch: int
    score: float
    images: Mapping[str, Mapping[str, Mapping[str, NDArray[Any]]]]


class Pictures:
    """The pictures of the run in ``directory``; used on rank 0 alone.

    Args:
        directory: the run's folder.
        spec: the run.
        name: what it is called.
        every: epochs from one sheet of detections to the next; None: for about five in a run; 0: nothing is
            drawn of what was found.
    """

    def __init__(self, directory: Path, spec: RunSpec, name: str, every: int | None) -> None:
        self.directory, self.folder = directory, directory / PICTURES
        self.spec, self.name = spec, name
        self.every = math.ceil(spec.train.epochs / SHEETS) if every is None else every
        self._pending: Seen | None = None
        self._shown: dict[str, tuple[NDArray[np.uint8], float]] = {}

    def begin(self) -> None:
        """The timeline, where it is known."""
        if self.spec.frozen_prefixes is not None:
            horizon, frozen = self.spec.horizon, self.spec.frozen_prefixes
            epochs = horizon.block_steps * self.spec.train.epochs == horizon.all_steps
            unit = (
                "epoch (0-based)" if epochs else f"block of {horizon.block_steps} optimizer steps (0-based)"
            )
            self._timeline(frozen, unit)

    def evaluated(self, epoch: int, evaluator: Evaluator) -> None:
        """Note what an evaluation of ``epoch`` found: for the records in the last one, and for a sheet where
        one is due. Nothing is drawn yet.
        """
        matches = evaluator.matches[""]
        last = epoch + 1 == self.spec.train.epochs
        if last:
            write_matches(self.directory / MATCHES, evaluator.matches)
            score, _ = best_f1(matches)
            counts = confusion(evaluator.images, len(evaluator.classes), score)
            content = {"iou": 0.5, "score": score, "classes": evaluator.classes, "counts": counts.tolist()}
            write_json(self.directory / CONFUSION, content)
        if self.every and (last or self._due(epoch)):
            names = chosen(evaluator.images)
            images = {name: evaluator.images[name] for name in names}
            self._pending = Seen(epoch, best_f1(matches)[0], images)

    def after_epoch(self) -> None:
        """Draw the sheet of this epoch, if one is due."""
        if self._pending is not None:
            seen, self._pending = self._pending, None
            self._draw(f"detections/epoch-{seen.epoch:05d}.jpg", lambda: self._sheet(seen))

    def finish(self, records: Sequence[Mapping[str, Any]]) -> None:
        """The pictures of a run that is done, from its records."""
        if self.spec.frozen_prefixes is None:
            self._timeline([record["frozen_stages"] for record in records], "epoch (0-based)")
        self._draw("learning_curve.png", lambda: self._learning(records))
        if self.every and (self.directory / MATCHES).exists():
            self._draw("pr_curves.png", self._precision_recall)
        if self.every and (self.directory / CONFUSION).exists():
            self._draw("confusion.png", self._confusion)

    def _due(self, epoch: int) -> bool:
        """Whether so many epochs have gone since the last sheet: also of a run that was resumed."""
        names = (_NAME.fullmatch(file.name) for file in (self.folder / "detections").glob("*.jpg"))
        before = [int(found[1]) for found in names if found and int(found[1]) < epoch]
        return not before or epoch - max(before) >= self.every

    def _draw(self, name: str, draw: Callable[[], bytes]) -> None:
        file = self.folder / name
        try:
            write_bytes(file, draw())
        except ImportError:  # without matplotlib there are no pictures
            return
        except Exception as error:  # a picture must not cost the record
            warnings.warn(f"cannot draw {file}: {type(error).__name__}: {error}", stacklevel=3)

    def _timeline(self, frozen: Sequence[int], unit: str) -> None:
        def draw() -> bytes:
            from dbf_ray.reports.timeline import timeline, timeline_png

            data = timeline(frozen, [float(flops) for flops in self.spec.flops_per_prefix])
            return timeline_png(data, self.name, unit=unit, dpi=110)

        self._draw("timeline.png", draw)

    def _learning(self, records: Sequence[Mapping[str, Any]]) -> bytes:
        from dbf_ray.reports.curves import learning_curves, learning_png

        return learning_png(learning_curves({self.name: records}, self.spec.num_stages), dpi=110)

    def _precision_recall(self) -> bytes:
        from dbf_ray.reports.precision_recall import ClassCurve, precision_recall_png

        matches = read_matches(self.directory / MATCHES)
        if matches is None:
            raise ValueError(f"{MATCHES} cannot be read")
        found = {int(label): matches.of_class(int(label)) for label in np.flatnonzero(matches.objects.sum(1))}
        curves = [
            ClassCurve(str(matches.classes[label]), *curve(one, 0.5), class_ap(one, 0.5, "voc12"))
            for label, one in found.items()
        ]
        return precision_recall_png(curves, f"Precision and recall: {self.name}")

    def _confusion(self) -> bytes:
        from dbf_ray.reports.confusion import confusion_png

        found = json.loads((self.directory / CONFUSION).read_text(encoding="utf-8"))
        title = (
            f"Confusion: {self.name}\nscore from {found['score']:.2f} on, where F1 is best; rotated IoU 0.5"
        )
        return confusion_png(np.array(found["counts"]), found["classes"], title)

    def _sheet(self, seen: Seen) -> bytes:
        from dbf_ray.reports.scenes import draw_scene, headed, outlines, scene_grid

        pictures, titles, labels = [], [], set()
        for name, image in seen.images.items():
            pixels, shrunk = self._pixels(name)
            found, there = image["detections"], image["objects"]
            kept = found["scores"] >= seen.score
            labels |= {*there["labels"].tolist(), *found["labels"][kept].tolist()}
            pictures.append(
                draw_scene(
                    pixels,
                    outlines(
                        corners(found["boxes"][kept], shrunk), found["labels"][kept], found["scores"][kept]
                    ),
                    outlines(corners(there["boxes"], shrunk), there["labels"]),
                    self.spec.train_set.classes,
                    score_threshold=seen.score,
                    captions=int(kept.sum()) <= CAPTIONS,
                )
            )
            titles.append(f"{name[-22:]}: {len(there['labels'])} there, {int(kept.sum())} found")
        legend = [(self.spec.train_set.classes[label], label) for label in sorted(labels)]
        sheet = scene_grid(pictures, 5, titles)
        stream = io.BytesIO()
        text = f"epoch {seen.epoch}: score from {seen.score:.2f} on, where F1 is best; dashed: what is there"
        headed(sheet, text, legend).save(stream, "JPEG", quality=88)
        return stream.getvalue()

    def _pixels(self, name: str) -> tuple[NDArray[np.uint8], float]:
        """An image uint8 [h, w, 3] as large as it is shown, and its scale over what the network saw; read
        once.
        """
        from dbf_ray.reports.scenes import fitted

        if name not in self._shown:
            image, _ = EvalView(self.spec.eval_set, self.spec.images.size)[
                [str(one) for one in self.spec.eval_set.image_ids].index(name)
            ]
            self._shown[name] = fitted(image.permute(1, 2, 0).numpy(), CELL)
        return self._shown[name]


def chosen(images: Mapping[str, Mapping[str, Mapping[str, Any]]], count: int = SHEET) -> list[str]:
    """Names of ``count`` images, evenly spread over those with objects (over all, where there are fewer); the
    same for the same images.
    """
    names = sorted(name for name, image in images.items() if len(image["objects"]["labels"]))
    names = names if len(names) >= count else sorted(images)
    return [names[place * len(names) // count] for place in range(count)] if len(names) > count else names


def corners(boxes: NDArray[Any], scale: float) -> NDArray[np.float64]:
    """Corners [n, 8] of boxes [n, 5], times ``scale``."""
    points = boxes_to_corners(torch.from_numpy(np.asarray(boxes, np.float64).reshape(-1, 5)))
    return np.asarray(points.numpy() * scale)
