"""Classes that are none: what is not in the list of classes or, where no list is given, what looks like a
slip.
"""

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
NEXT_STEP = "correct it, or name all classes"

Verdict = tuple[str, str]  # kind of problem, and what is wrong
Rule = Callable[[str], Verdict | None]  # of a class name


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


def unknown_classes(
    splits: Mapping[str, Sequence[ImageRecord]], classes: Sequence[str] | None
) -> list[Problem]:
    """A problem for each object whose class is not among ``classes`` or, if that is None, seems to be no
    class of the data set.

    Without a list these are taken to be slips: a name that is spelled as a more frequent one but for case,
    separators or, if it is rare, one letter; and one in a single image that is not in the public list which
    half of the objects' names are in. Other rare names of these sorts are worth a warning. A class of another
    split that no training split has is unknown as well.

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
    return _judged(list(train.values()), [slips]) + _judged(
        others, [_of_train(sorted(known)), slips] if known else [slips]
    )


def is_train(split: str) -> bool:
    """Whether a split is one to train on, by its name."""
    return split.startswith("train")


def public_list(counts: Counts) -> str | None:
    """Name of the public list of classes that at least half of all objects are in: of the best, the
    shortest.
    """
    covered = {
        key: sum(counts.objects[name] for name in names)
        for key, names in CLASS_LISTS.items()
        if len(names) > 1
    }
    best = max(covered, key=lambda key: (covered[key], -len(CLASS_LISTS[key])))
    return best if 2 * covered[best] >= counts.objects.total() > 0 else None


def likeness(name: str, other: str) -> float:
    """How alike two names are, 0 to 1, whatever their case and separators; 0 for names that differ in a
    number, as types do.
    """
    if re.findall(r"\d+", name) != re.findall(r"\d+", other):
        return 0.0
    return difflib.SequenceMatcher(None, _plain(name), _plain(other)).ratio()


def _of_list(classes: Sequence[str]) -> Rule:
    known = set(classes)

    def rule(name: str) -> Verdict | None:
        message = f"classes must be among {_listed(classes)}, got {name!r}{_hint(name, classes)}; {NEXT_STEP}"
        return None if name in known else ("unknown_class", message)

    return rule


def _of_train(classes: Sequence[str]) -> Rule:
    known = set(classes)

    def rule(name: str) -> Verdict | None:
        if name in known:
            return None
        message = (
            f"classes must be among those of the training split ({_listed(classes)}), got "
            f"{name!r}{_hint(name, classes)}; {NEXT_STEP}"
        )
        return "unknown_class", message

    return rule


def _slips(counts: Counts) -> Rule:
    assumed = public_list(counts)
    classes = CLASS_LISTS[assumed] if assumed is not None else []
    spelled = _misspelled(counts)

    def rule(name: str) -> Verdict | None:
        if name in classes:
            return None
        if assumed is None or not counts.is_rare(name):
            return spelled(name)
        what = f"most objects are of the classes of {assumed}, {name!r} ({counts.described(name)}) is not"
        once = counts.images[name] <= 1 or any(slip(name, other) for other in classes)
        return "misspelled_class" if once else "rare_class", f"{what}{_hint(name, classes)}; {NEXT_STEP}"

    return rule


def _misspelled(counts: Counts) -> Rule:
    def rule(name: str) -> Verdict | None:
        others = [other for other in counts.objects if counts.objects[other] > counts.objects[name]]
        close = max(others, key=lambda other: likeness(name, other), default=None)
        if close is None or likeness(name, close) < (CLOSE if counts.is_rare(name) else 1):
            return None
        message = (
            f"classes must be spelled alike, got {name!r} ({counts.described(name)}) beside {close!r} "
            f"({counts.described(close)}); {NEXT_STEP}"
        )
        return "misspelled_class" if slip(name, close) else "rare_class", message

    return rule


def slip(name: str, other: str) -> bool:
    """Whether two names are the same but for case, separators and one letter that is wrong, missing, too
    much, or exchanged with the next.
    """
    one, two = (_plain(text) for text in (name, other))
    if likeness(name, other) < CLOSE or abs(len(one) - len(two)) > 1:
        return likeness(name, other) == 1
    start = next(
        (place for place, pair in enumerate(zip(one, two, strict=False)) if pair[0] != pair[1]),
        min(len(one), len(two)),
    )
    a, b = one[start:], two[start:]
    exchanged = len(a) > 1 and len(b) > 1 and (a[0], a[1]) == (b[1], b[0]) and a[2:] == b[2:]
    return a[1:] == b[1:] or a[1:] == b or a == b[1:] or exchanged


def _plain(name: str) -> str:
    """A name without case and separators."""
    return re.sub(r"[\W_]+", "", name.casefold())


def _judged(records: Sequence[ImageRecord], rules: Sequence[Rule]) -> list[Problem]:
    """A problem for each object that one of the rules is against, told by the first."""
    verdicts: dict[str, Verdict | None] = {}
    problems = []
    for record in records:
        for row, name in enumerate(record.objects.names):
            if name not in verdicts:
                verdicts[name] = next(
                    (verdict for rule in rules if (verdict := rule(name)) is not None), None
                )
            if (found := verdicts[name]) is not None:
                kind, message = found
                place = place_of(record.objects, row, record.item)
                problems.append(
                    Problem(kind, label_file(record.item), place + message, record.objects.lines[row])
                )
    return problems


def _hint(name: str, classes: Sequence[str]) -> str:
    close = max(classes, key=lambda other: likeness(name, other))
    return f", did you mean {close!r}?" if likeness(name, close) >= CLOSE - 0.2 else ""


def _listed(classes: Sequence[str], most: int = 20) -> str:
    return ", ".join(classes[:most]) + (f" and {len(classes) - most} more" if len(classes) > most else "")
