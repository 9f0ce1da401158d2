"""Classes that are none: what is not in the list of classes or, where no list is given, what looks like a slip."""

from __future__ import annotations

import collections
import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dbf_ray.data.check.look import ImageRecord
from dbf_ray.data.check.objects import label_file, place_of
from dbf_ray.data.class_lists import CLASS_LISTS
from dbf_ray.data.readers import Problem

RARE = 0.01  # share of all objects; rare is as well what is in one image only
CLOSE = 0.8  # least likeness (difflib's ratio) of a misspelled name
NEXT_STEP = "correct it, or name all classes with --classes"

Rule = Callable[[str], str | None]  # class name -> what is wrong with it


@dataclass
class Counts:
    """Objects and images of each class."""

    objects: collections.Counter[str]
    images: collections.Counter[str]

    @classmethod
    def of(cls, records: Sequence[ImageRecord]) -> Counts:
        """Those of some images."""
        objects: collections.Counter[str] = collections.Counter()
        images: collections.Counter[str] = collections.Counter()
        for record in records:
            objects.update(record.objects.names)
            images.update(set(record.objects.names))
        return cls(objects, images)

    def is_rare(self, name: str) -> bool:
        """Whether so few objects have the class that it may be a slip."""
        return self.images[name] <= 1 or self.objects[name] < RARE * self.objects.total()

    def described(self, name: str) -> str:
        """How many objects have the class."""
        count, images = self.objects[name], self.images[name]
        return f"{count} object{'s' * (count != 1)} in {images} image{'s' * (images != 1)}"


def unknown_classes(splits: Mapping[str, Sequence[ImageRecord]], classes: Sequence[str] | None) -> list[Problem]:
    """A problem for each object whose class is not among ``classes`` or, if that is None, seems to be no class of the data set.

    Without a list these are taken to be slips: a rare name that is not in the public list which half of the objects' names are in; where there
    is no such list, a rare name that is close to one that is not. A class of another split that no training split has is unknown as well.

    Args:
        splits: the images of each split by its name.
        classes: all class names.
    """
    records = {id(record): record for part in splits.values() for record in part}
    if classes is not None:
        return _judged(list(records.values()), [_of_list(classes)])
    slips = _slips(Counts.of(list(records.values())))
    train = {id(record): record for name, part in splits.items() if is_train(name) for record in part}
    known = Counts.of(list(train.values())).objects
    others = [record for key, record in records.items() if key not in train]
    return _judged(list(train.values()), [slips]) + _judged(others, [slips, _of_train(sorted(known))] if known else [slips])


def is_train(split: str) -> bool:
    """Whether a split is one to train on, by its name."""
    return split.startswith("train")


def public_list(counts: Counts) -> str | None:
    """Name of the public list of classes that at least half of all objects are in: of the best, the shortest."""
    covered = {key: sum(counts.objects[name] for name in names) for key, names in CLASS_LISTS.items()}
    best = max(covered, key=lambda key: (covered[key], -len(CLASS_LISTS[key])))
    return best if 2 * covered[best] >= counts.objects.total() > 0 else None


def likeness(name: str, other: str) -> float:
    """How alike two names are, 0 to 1, whatever their case and separators; 0 for names that differ in a number, as types do."""
    plain, same = (re.sub(r"[\W_]+", "", text.casefold()) for text in (name, other))
    if re.findall(r"\d+", name) != re.findall(r"\d+", other):
        return 0.0
    return difflib.SequenceMatcher(None, plain, same).ratio()


def _of_list(classes: Sequence[str]) -> Rule:
    known = set(classes)

    def rule(name: str) -> str | None:
        return None if name in known else f"classes must be among {_listed(classes)}, got {name!r}{_hint(name, classes)}; {NEXT_STEP}"

    return rule


def _of_train(classes: Sequence[str]) -> Rule:
    known = set(classes)

    def rule(name: str) -> str | None:
        if name in known:
            return None
        return f"classes must be among those of the training split ({_listed(classes)}), got {name!r}{_hint(name, classes)}; {NEXT_STEP}"

    return rule


def _slips(counts: Counts) -> Rule:
    assumed = public_list(counts)
    if assumed is None:
        return _misspelled(counts)
    classes = CLASS_LISTS[assumed]

    def rule(name: str) -> str | None:
        if name in classes or not counts.is_rare(name):
            return None
        what = f"most objects are of the classes of {assumed}, {name!r} ({counts.described(name)}) is not"
        return f"{what}{_hint(name, classes)}; {NEXT_STEP}"

    return rule


def _misspelled(counts: Counts) -> Rule:
    usual = [name for name in counts.objects if not counts.is_rare(name)]

    def rule(name: str) -> str | None:
        close = max(usual, key=lambda other: likeness(name, other), default=None)
        if close is None or not counts.is_rare(name) or likeness(name, close) < CLOSE:
            return None
        return f"classes must be spelled alike, got {name!r} ({counts.described(name)}) beside {close!r} ({counts.described(close)}); {NEXT_STEP}"

    return rule


def _judged(records: Sequence[ImageRecord], rules: Sequence[Rule]) -> list[Problem]:
    """A problem for each object that one of the rules is against, told by the first."""
    verdicts: dict[str, str | None] = {}
    problems = []
    for record in records:
        for row, name in enumerate(record.objects.names):
            if name not in verdicts:
                verdicts[name] = next((message for rule in rules if (message := rule(name)) is not None), None)
            if (message := verdicts[name]) is not None:
                place = place_of(record.objects, row, record.item)
                problems.append(Problem("unknown_class", label_file(record.item), place + message, record.objects.lines[row]))
    return problems


def _hint(name: str, classes: Sequence[str]) -> str:
    close = max(classes, key=lambda other: likeness(name, other))
    return f", did you mean {close!r}?" if likeness(name, close) >= CLOSE - 0.2 else ""


def _listed(classes: Sequence[str], most: int = 20) -> str:
    return ", ".join(classes[:most]) + (f" and {len(classes) - most} more" if len(classes) > most else "")
