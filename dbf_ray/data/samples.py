"""What a sample is, what a data set offers, and parts of data sets.

An image is a uint8 tensor [3, H, W] in RGB. Its target is a dict:

=============  ==============================================================================================
boxes          ``tv_tensors.BoundingBoxes`` [n, 5] float32, format CXCYWHR (pixels, degrees), canonical
labels         int64 [n], 0-based positions in the data set's ``classes``
difficult      bool [n]; evaluation ignores these objects, training uses them
image_id       str, stable: the file's path below the folder of images without suffix, or the scene's name
scale          float, only in views: the factor by which the image was resized
orientation    str, only in training views: which of a fixed set; with image_id it names what is seen
seed           int, only in training views: fixes what a detector samples from the image in this epoch
=============  ==============================================================================================
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NotRequired, Protocol, TypedDict

import torch
from torch import Tensor
from torchvision import tv_tensors

from dbf_ray.errors import DataError
from dbf_ray.geometry import canonicalize


class Target(TypedDict):
    """The objects of one image; see the module's docstring for shapes and units."""

    boxes: tv_tensors.BoundingBoxes
    labels: Tensor
    difficult: Tensor
    image_id: str
    scale: NotRequired[float]
    orientation: NotRequired[str]
    seed: NotRequired[int]


Sample = tuple[Tensor, Target]


class Dataset(Protocol):
    """A data set: ``load`` is raw (no resizing, no augmentation) and deterministic.

    Where the sizes (height, width) of its images are known without decoding them, they are in an attribute
    ``sizes``, see :func:`sizes_of`; where images are files, these are in ``files``, by which
    :func:`signature` tells changed images.
    """

    classes: list[str]
    image_ids: list[str]

    def __len__(self) -> int: ...

    def load(self, index: int) -> Sample:
        """Image uint8 [3, H, W] and target of one index in [0, len)."""


def wrap_boxes(boxes: Tensor, size: tuple[int, int]) -> tv_tensors.BoundingBoxes:
    """Boxes [n, 5] in canonical form, as tv_tensors on a canvas of ``size`` (height, width)."""
    canonical = canonicalize(boxes.as_subclass(Tensor).to(torch.float32).reshape(-1, 5))
    return tv_tensors.BoundingBoxes(
        canonical, format=tv_tensors.BoundingBoxFormat.CXCYWHR, canvas_size=size, clamping_mode=None
    )


def make_target(
    boxes: Tensor, labels: Sequence[int], difficult: Sequence[bool], image_id: str, size: tuple[int, int]
) -> Target:
    """Build a target from boxes [n, 5], labels and flags of length n, and the image's ``size`` (height,
    width).
    """
    return Target(
        boxes=wrap_boxes(boxes, size),
        labels=torch.tensor(labels, dtype=torch.int64),
        difficult=torch.tensor(difficult, dtype=torch.bool),
        image_id=image_id,
    )


class Subset:
    """Some images of a data set, in the given order."""

    def __init__(self, dataset: Dataset, indices: Sequence[int]) -> None:
        self.dataset = dataset
        self.indices = list(indices)
        self.classes = dataset.classes
        self.image_ids = [dataset.image_ids[index] for index in self.indices]
        sizes = sizes_of(dataset)
        self.sizes = None if sizes is None else [sizes[index] for index in self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def load(self, index: int) -> Sample:
        """Image and target of one index in [0, len)."""
        return self.dataset.load(self.indices[index])


def sizes_of(dataset: Dataset) -> list[tuple[int, int]] | None:
    """(height, width) of each image as stored, None where a data set does not tell."""
    return getattr(dataset, "sizes", None)


def _of_file(file: Path | str) -> tuple[str, int, int] | None:
    try:
        found = Path(file).stat()
    except OSError:  # gone; whoever reads it says so
        return None
    return Path(file).name, found.st_size, found.st_mtime_ns


def signature(dataset: Dataset) -> str:
    """A hash of what a data set's images are, as far as it can be told without decoding them: names, and
    files with their sizes and times.
    """
    files = [_of_file(file) for file in getattr(dataset, "files", [])]
    within = [signature(dataset.dataset), dataset.indices] if isinstance(dataset, Subset) else []
    return hashlib.sha256(
        repr([type(dataset).__name__, dataset.image_ids, files, within]).encode()
    ).hexdigest()


def scene_of(image_id: str) -> str:
    """The scene that an image belongs to: patches are named SCENE__..., in the folder of their scene; any
    other image is a scene of its own.
    """
    folder, slash, name = image_id.rpartition("/")
    return folder + slash + name.split("__", 1)[0]


def split_selection(dataset: Dataset, fraction: float, seed: int, fold: int = 0) -> tuple[Subset, Subset]:
    """Hold out about ``fraction`` of the images to select on; the rest is left to train on.

    Whole scenes are held out (all patches of one large image together), chosen by a hash of (seed, scene):
    the choice depends neither on the order of the images nor, for most of them, on which others there are.
    Folds 0, 1, ... take the scenes one after another in the order of their hashes: no scene is in two folds,
    and each is in one as long as there are folds.

    Raises:
        DataError: the fraction is outside (0, 1), there are fewer than two scenes, or none is left for the
            fold.
    """
    if not 0 < fraction < 1:
        raise DataError(
            f"the held-out share must be between 0 and 1, got {fraction}; set `fraction` to 0.2 or so"
        )
    scenes: dict[str, list[int]] = {}
    for index, image_id in enumerate(dataset.image_ids):
        scenes.setdefault(scene_of(image_id), []).append(index)
    if len(scenes) < 2:
        raise DataError(
            f"holding out images needs at least 2 scenes, got {len(scenes)}; add images or set `fraction` to "
            "0"
        )
    ranked = sorted(scenes, key=lambda scene: (_digest(f"{seed}/{scene}"), scene))
    held = _fold([len(scenes[scene]) for scene in ranked], fraction * len(dataset), fold)
    if not held:
        raise DataError(
            f"folds of {fraction} of the images must be numbered from 0 and hold a scene each, got fold "
            f"{fold}: none of {len(ranked)} scenes is left for it; lower `fold`"
        )
    chosen = {index for place in held for index in scenes[ranked[place]]}
    kept = [index for index in range(len(dataset)) if index not in chosen]
    return Subset(dataset, kept), Subset(dataset, sorted(chosen))


def _digest(text: str) -> bytes:
    # names of files need not be text
    return hashlib.sha256(text.encode(errors="surrogateescape")).digest()


def _fold(sizes: Sequence[int], wanted: float, fold: int) -> list[int]:
    """Which of the scenes with ``sizes`` images are in a fold of ``wanted`` images: those whose middle image,
    all counted through, is.

    The first scene is in fold 0, however large it is, and no fold has all scenes.
    """
    middles = [
        before + size / 2 for before, size in zip(itertools.accumulate([0, *sizes[:-1]]), sizes, strict=True)
    ]
    inside = [
        place
        for place, middle in enumerate(middles)
        if place and fold * wanted < middle <= (fold + 1) * wanted
    ]
    return ([0, *inside] if fold == 0 else inside)[: len(sizes) - 1]
