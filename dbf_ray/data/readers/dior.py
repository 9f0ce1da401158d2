"""Reader of DIOR-R's format, PASCAL VOC's with oriented boxes: lists in ImageSets/Main, one XML file an
image.

An object is ``<object>`` with ``<name>``, ``<difficult>`` and a quadrilateral in pixels, ``<robndbox>``,
whose corners are named for where they are before it is turned: x_left_top, y_left_top, x_right_top and so on.
roLabelImg's ``<robndbox>`` has cx, cy, w, h and an angle in radians, clockwise. A plain ``<bndbox>`` (xmin,
ymin, xmax, ymax) is an upright box, turned where a rotation stands beside it that is understood
(:mod:`.rotations`). Names of DIOR-R's classes are taken in lower case, as MMRotate does; others as they are.
What no list names is not read. Data: Cheng et al., Anchor-free oriented proposal generator for object
detection, 2022, https://gcheng-nwpu.github.io. roLabelImg: https://github.com/cgvict/roLabelImg.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree.ElementTree import Element

from dbf_ray.data.class_lists import CLASS_LISTS, one_word
from dbf_ray.data.readers.base import Item, LabelledObject, Labels, Listing, Problem, no_split
from dbf_ray.data.readers.image_lists import label_folder_or_none, list_file, list_names, listed
from dbf_ray.data.readers.rotations import NAMING, VALUES, not_understood, rotations, turned
from dbf_ray.data.readers.xml_lines import XmlFile, read_xml
from dbf_ray.errors import DataError

IMAGE_FOLDERS = ("JPEGImages-trainval", "JPEGImages-test", "JPEGImages")
ORIENTED = "Oriented Bounding Boxes"
"""Folder of label files below Annotations/, beside those with upright boxes; where it is missing they lie in
Annotations/ itself.
"""
CORNERS = tuple(
    f"{axis}_{corner}" for corner in ("left_top", "right_top", "right_bottom", "left_bottom") for axis in "xy"
)
SIDES = ("xmin", "ymin", "xmax", "ymax")
ROLABELIMG = ("cx", "cy", "w", "h", "angle")
CVAT = "attributes.rotation"  # <attributes><attribute><name>rotation</name><value>45.0</value>


class DiorReader:
    """DIOR-R, and any data in the format of PASCAL VOC."""

    layout = (
        f"ImageSets/Main/train.txt (or others), Annotations/ (or Annotations/{ORIENTED}/) and JPEGImages/ "
        "(or as DIOR-R names them)"
    )
    classes: Sequence[str] | None = CLASS_LISTS["dior-r"]

    def recognises(self, root: Path) -> bool:
        """See :class:`.Reader`."""
        return bool(self.splits(root)) and os.path.isdir(root / "Annotations")

    def splits(self, root: Path) -> list[str]:
        """See :class:`.Reader`; the lists that are there."""
        return list_names(root / "ImageSets" / "Main")

    def class_names(self, root: Path) -> list[str] | None:
        """None: the format declares no classes."""
        return None

    def listing(self, root: Path, split: str) -> Listing:
        """See :class:`.Reader`; a folder without Annotations/ is a test set."""
        file = list_file(root / "ImageSets" / "Main", split)
        if file is None:
            raise no_split(root, split, self.splits(root), self.layout)
        folders = [root / name for name in IMAGE_FOLDERS if os.path.isdir(root / name)]
        if not folders:
            raise DataError(
                f"{root} must hold images in one of {', '.join(IMAGE_FOLDERS)}, none is there; give another "
                "folder as `root`"
            )
        annotations = root / "Annotations"
        labels = label_folder_or_none(annotations / ORIENTED) or label_folder_or_none(annotations)
        listing = listed(file, [(folder, labels) for folder in folders])
        listing.unlabelled = annotations if labels is None else None
        return listing

    def read(self, item: Item) -> Labels:
        """See :class:`.Reader`."""
        if item.labels is None:
            return Labels()
        xml = read_xml(item.labels, "annotation")
        if isinstance(xml, Problem):
            return Labels(problems=[xml])
        labels = Labels()
        for element in xml.root.iterfind("object"):
            found = parse_object(xml, element)
            if isinstance(found, Problem):
                labels.problems.append(found)
            else:
                labels.objects.append(found)
        return labels


def parse_object(xml: XmlFile, element: Element) -> LabelledObject | Problem:
    """One <object>, or what is wrong with it."""
    name = one_word(element.findtext("name") or "")
    if not name:
        return xml.problem(
            "syntax", "<object> must have a <name>, got none; name its class or remove it", element
        )
    difficult = xml.flag(element, "difficult")
    if isinstance(difficult, Problem):
        return difficult
    corners = _corners(xml, element)
    if isinstance(corners, Problem):
        return corners
    known = name.lower() if name.lower() in CLASS_LISTS["dior-r"] else name
    return LabelledObject(corners, known, difficult, xml.lines[element])


def _corners(xml: XmlFile, element: Element) -> tuple[float, ...] | Problem:
    box = element.find("robndbox")
    if box is not None:
        return xml.turned_box(box, ROLABELIMG) if box.find("angle") is not None else xml.numbers(box, CORNERS)
    box = element.find("bndbox")
    if box is None:
        return xml.problem(
            "syntax",
            "<object> must have a <robndbox> or a <bndbox>, got none; add its box or remove it",
            element,
        )
    sides = xml.numbers(box, SIDES)
    if isinstance(sides, Problem):
        return sides
    left, top, right, bottom = sides
    corners = (left, top, right, top, right, bottom, left, bottom)
    beside = rotations(_entries(element), CVAT)
    if not beside:
        return corners
    if len(beside) == 1 and beside[0].known:
        found = turned(corners, beside[0])
    else:
        found = not_understood(beside[0], "corners in a <robndbox>")
    return xml.problem("syntax", found, element) if isinstance(found, str) else found


def _entries(element: Element, place: str = "") -> Iterator[tuple[str, str]]:
    """Names and texts of what an element holds, inner ones joined by dots; a part's are not the object's."""
    yield from ((f"{place}{key}", value) for key, value in element.attrib.items())
    for child in element:
        name, text = child.findtext("name"), child.findtext("value", "")
        if child.tag == "attribute" and name is not None:
            yield f"{place}{name}", " ".join(text.split())
            continue
        yield f"{place}{child.tag}", " ".join(" ".join(child.itertext()).split())
        named = [found for key in NAMING if (found := child.get(key) or child.findtext(key))]
        values = [found for key in VALUES if (found := child.get(key) or child.findtext(key))]
        yield from ((f"{place}{child.tag}: {one}", (values or [child.text or ""])[0]) for one in named)
        if child.tag != "part":
            yield from _entries(child, f"{place}{child.tag}.")
