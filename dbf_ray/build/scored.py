"""Whether there is anything to learn from, and whether map50 can tell anything: both known before work
starts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from dbf_ray.config import Config, DataConfig
from dbf_ray.data import Dataset, Subset, split_selection
from dbf_ray.data.contents import classes_in, has_objects, why_nothing_counts
from dbf_ray.errors import DataError

if TYPE_CHECKING:
    from dbf_ray.build.spec import RunSpec

USUAL_SHARE = 0.2  # of the training images, held out to select on


def check_learnable(data: DataConfig, train_set: Dataset, whole: Dataset, seed: int) -> None:
    """Refuse to train on images without any object, unless that is allowed.

    Args:
        data: where they come from.
        train_set: what is trained on.
        whole: the split that it is of; more than ``train_set`` where a part is held out.
        seed: by which a part is held out.

    Raises:
        DataError: there is no object.
    """
    if data.allow_empty or has_objects(train_set):
        return
    which, steps = f"{_place(data, data.train_split)}: none of {len(whole)} images has an object", ""
    if has_objects(whole):
        which = (
            f"{_place(data, data.train_split)}: none of the {len(train_set)} images that "
            f"data.selection_fraction {data.selection_fraction} leaves to train on has an object"
        )
        steps = _another_fold(data, whole, seed)
    raise DataError(
        f"{which}, so there is nothing to learn; {steps}correct the labels (dbf prepare-data check says what "
        "is wrong with them), or give --data.allow_empty true"
    )


def why_unscored(data: DataConfig, train_set: Dataset, eval_set: Dataset, eval_split: str) -> str | None:
    """Why map50 can tell nothing of a training, None where it can; ``eval_split`` as in :class:`.RunSpec`."""
    if eval_split == "selection":
        place = f"what data.selection_fraction {data.selection_fraction} holds out of {data.train_split}"
    else:
        place = _place(data, data.train_split if eval_split == "train" else data.val_split)
    if reason := why_nothing_counts(eval_set):
        return f"map50 will be none, since in {place} {reason}"
    if data.root is None:  # generated scenes show every class sooner or later, and drawing them takes long
        return None
    wanted, learned = classes_in(eval_set, counted=True), classes_in(train_set)
    if learned and not wanted & learned:
        names = ", ".join(eval_set.classes[label] for label in sorted(wanted))
        return f"map50 can only be 0, since in {place} all objects are of classes not trained on ({names})"
    return None


def check_scored(config: Config, spec: RunSpec) -> None:
    """Refuse to compare trainings by a map50 that tells nothing; ``spec`` is made from ``config``.

    Raises:
        DataError: it does not; why, and what to do.
    """
    if spec.unscored is None:
        return
    data, whole = config.data, spec.train_set
    if isinstance(whole, Subset):
        steps = _another_fold(data, whole.dataset, config.seed)
    else:
        steps = _a_selection(data, whole, config.seed)
    raise DataError(
        f"a search compares trials by map50, but {spec.unscored}; {steps}correct the labels of these images"
    )


def _place(data: DataConfig, split: str) -> str:
    return f"{data.name if data.root is None else data.root} ({split})"


def _another_fold(data: DataConfig, whole: Dataset, seed: int) -> str:
    """The first fold that would do, as a step; empty if none would."""
    found = next(_usable_folds(whole, data.selection_fraction, seed, data), None)
    return "" if found is None else f"give --data.selection_fold {found}, or "


def _a_selection(data: DataConfig, train_set: Dataset, seed: int) -> str:
    """A part of train to hold out instead, as a step; empty if none would do."""
    found = next(_usable_folds(train_set, USUAL_SHARE, seed, data), None)
    fold = f" --data.selection_fold {found}" if found else ""
    return (
        ""
        if found is None
        else f"hold images of {data.train_split} out by --data.selection_fraction {USUAL_SHARE}{fold}, or "
    )


def _usable_folds(whole: Dataset, fraction: float, seed: int, data: DataConfig) -> Iterator[int]:
    for fold in range(round(1 / fraction)):
        try:
            kept, held = split_selection(whole, fraction, seed, fold)
        except DataError:  # none is left for this fold
            return
        if has_objects(kept) and why_unscored(data, kept, held, "selection") is None:
            yield fold
