"""Reader of HRSC2016's format: lists in ImageSets/, one XML file an image.

An object is ``<HRSC_Object>`` with ``<Class_ID>``, ``<difficult>`` and a box ``mbox_cx``, ``mbox_cy``,
``mbox_w``, ``mbox_h`` in pixels and ``mbox_ang`` in radians, *clockwise* as seen in the image: our angle is
-degrees. Class_ID is 1000000 with two digits for the type of ship; which number is which type is MMRotate's
table (``mmrotate/datasets/hrsc.py``). Data: Liu et al., A high resolution optical satellite image dataset for
ship recognition and some new baselines, 2017.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element

from dbf_ray.data.class_lists import CLASS_LISTS
from dbf_ray.data.readers.base import Item, LabelledObject, Labels, Listing, Problem, no_split, quoted
from dbf_ray.data.readers.image_lists import label_folder_or_none, list_file, list_names, listed
from dbf_ray.data.readers.xml_lines import XmlFile, read_xml

HOLDERS = ("FullDataSet", "Train", "Test", ".")
"""Folders that may hold AllImages/ and Annotations/; an image is taken from the first of them that has it."""
BOX = ("mbox_cx", "mbox_cy", "mbox_w", "mbox_h", "mbox_ang")
_NUMBERS = [number for number in range(1, 34) if number not in (21, 23)]
TYPES = {
    f"1000000{number:02d}": name for number, name in zip(_NUMBERS, CLASS_LISTS["hrsc2016-types"], strict=True)
}
"""Type of ship by Class_ID."""


class HrscReader:
    """HRSC2016; ``types``: tell its 31 types of ships apart, else every object is a "ship"."""

    layout = (
        "ImageSets/train.txt (or others) and FullDataSet/ (or Train/ and Test/) with AllImages/ and "
        "Annotations/"
    )

    def __init__(self, types: bool = False) -> None:
        self.types = types
        self.classes: Sequence[str] | None = CLASS_LISTS["hrsc2016-types" if types else "hrsc2016"]

    def recognises(self, root: Path) -> bool:
        """See :class:`.Reader`; types are for those who name them."""
        return not self.types and bool(self.splits(root)) and bool(_places(root))

    def splits(self, root: Path) -> list[str]:
        """See :class:`.Reader`; the lists that are there."""
        return list_names(root / "ImageSets")

    def class_names(self, root: Path) -> list[str] | None:
        """None: the format declares no classes."""
        return None

    def listing(self, root: Path, split: str) -> Listing:
        """See :class:`.Reader`; images without Annotations/ are a test set."""
        file = list_file(root / "ImageSets", split)
        places = _places(root)
        if file is None or not places:
            raise no_split(root, split, self.splits(root) if places else [], self.layout)
        listing = listed(file, places)
        if listing.items and all(item.labels is None for item in listing.items):
            listing.unlabelled = places[0][0].parent / "Annotations"
        return listing

    def read(self, item: Item) -> Labels:
        """See :class:`.Reader`."""
        if item.labels is None:
            return Labels()
        xml = read_xml(item.labels, "HRSC_Image")
        if isinstance(xml, Problem):
            return Labels(problems=[xml])
        labels = Labels()
        for element in xml.root.iterfind("HRSC_Objects/HRSC_Object"):
            found = self._object(xml, element)
            if isinstance(found, Problem):
                labels.problems.append(found)
            else:
                labels.objects.append(found)
        return labels

    def _object(self, xml: XmlFile, element: Element) -> LabelledObject | Problem:
        number = (element.findtext("Class_ID") or "").strip()
        if self.types and number not in TYPES:
            rule = "<Class_ID> must be one of the 31 types, 100000001 to 100000033 without 21 and 23"
            message = (
                f"{rule}, got {quoted(number)}; correct it, or read the data as hrsc, where every object is "
                "a ship"
            )
            return xml.problem("unknown_class", message, element)
        difficult = xml.flag(element, "difficult")
        if isinstance(difficult, Problem):
            return difficult
        corners = xml.turned_box(element, BOX)
        if isinstance(corners, Problem):
            return corners
        return LabelledObject(corners, TYPES[number] if self.types else "ship", difficult, xml.lines[element])


def _places(root: Path) -> list[tuple[Path, Path | None]]:
    """Folders of images that are there, each with its folder of label files."""
    holders = [root / name for name in HOLDERS]
    return [
        (holder / "AllImages", label_folder_or_none(holder / "Annotations"))
        for holder in holders
        if os.path.isdir(holder / "AllImages")
    ]
