"""XML label files whose elements know their lines, for the formats that are written in XML."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from dbf_ray.data.readers.base import Problem, parse_corners, quoted, require_regular
from dbf_ray.data.readers.rotations import box_corners


@dataclass(frozen=True)
class XmlFile:
    """A label file: its root element, and the line of each element, from 1."""

    file: Path
    root: Element
    lines: dict[Element, int]

    def problem(self, kind: str, message: str, element: Element) -> Problem:
        """A problem at the line of an element."""
        return Problem(kind, self.file, message, self.lines[element])

    def numbers(self, parent: Element, tags: Sequence[str]) -> tuple[float, ...] | Problem:
        """The numbers that a parent's children hold, finite and not beyond any image, or what is wrong with
        them.
        """
        texts = [parent.findtext(tag) for tag in tags]
        if missing := [tag for tag, text in zip(tags, texts, strict=True) if text is None]:
            return self.problem(
                "syntax",
                f"<{parent.tag}> must hold {', '.join(tags)}, it lacks {', '.join(missing)}; add them",
                parent,
            )
        fields = [text.strip() for text in texts if text is not None]
        shown = quoted(" ".join(f"{tag}={text}" for tag, text in zip(tags, fields, strict=True)))
        return parse_corners(fields, self.file, self.lines[parent], shown)

    def turned_box(self, parent: Element, tags: Sequence[str]) -> tuple[float, ...] | Problem:
        """Corners (x1, y1, ..., x4, y4) of a box that a parent's children hold, or what is wrong with it.

        Args:
            parent: the element of the box.
            tags: of its centre's x and y, width, height (pixels), and angle (radians, clockwise as seen in
                the image).
        """
        box = self.numbers(parent, tags)
        if isinstance(box, Problem):
            return box
        if abs(box[4]) > 2 * math.pi:
            message = (
                f"<{tags[4]}> must be in radians, within a full turn of {2 * math.pi:.4f}, got {box[4]:g}; "
                "convert the angle"
            )
            return self.problem("coordinate", message, parent)
        if min(box[2:4]) < 0:
            message = f"<{tags[2]}> and <{tags[3]}> must be positive, got {box[2]:g} and {box[3]:g}"
            return self.problem("coordinate", f"{message}; correct them", parent)
        return box_corners(*box)

    def flag(self, parent: Element, tag: str) -> bool | Problem:
        """Whether a child says 1; False where it says 0 or nothing, or is missing."""
        child = parent.find(tag)
        text = "" if child is None else (child.text or "").strip()
        if child is None or text in ("", "0", "1"):
            return text == "1"
        return self.problem("syntax", f"<{tag}> must be 0 or 1, got {quoted(text)}; correct it", child)


def read_xml(file: Path, root_tag: str) -> XmlFile | Problem:
    """A label file, or why it cannot be read. One that declares entities of its own is refused: these could
    blow up, or name other files.
    """
    try:
        require_regular(file)
        data = file.read_bytes()
    except FileNotFoundError:
        message = (
            "every image needs a label file, this one is missing; add it (without objects if there are none)"
        )
        return Problem("missing_labels", file, message)
    except OSError as error:
        return Problem(
            "syntax",
            file,
            f"label files must be readable, got: {error.strerror or error}; check the file and its "
            "permissions",
        )
    try:
        root, lines = _parse(data)
    except expat.ExpatError as error:
        reason = expat.ErrorString(error.code)
        message = (
            f"label files must be well-formed XML, got: {reason} at column {error.offset + 1}; correct or "
            "export the file again"
        )
        return Problem("syntax", file, message, error.lineno)
    except _OwnEntityError as error:
        message = f"label files must not declare entities of their own, got {error}; write its text out"
        return Problem("syntax", file, message, error.line)
    except (ValueError, LookupError) as error:  # an encoding that Python or expat does not know
        return Problem(
            "syntax",
            file,
            f"label files must be XML in UTF-8, got: {quoted(str(error))}; save the file as UTF-8",
        )
    if root.tag != root_tag:
        message = (
            f"label files of this format must hold <{root_tag}>, got <{root.tag}>; name the format that it "
            "is, or export the file again"
        )
        return Problem("syntax", file, message, lines[root])
    return XmlFile(file, root, lines)


class _OwnEntityError(Exception):
    """A file declares an entity."""

    def __init__(self, name: str, line: int) -> None:
        super().__init__(quoted(name))
        self.line = line


def _parse(data: bytes) -> tuple[Element, dict[Element, int]]:
    parser, builder, lines = expat.ParserCreate(), TreeBuilder(), {}

    def start(tag: str, attributes: dict[str, str]) -> None:
        lines[builder.start(tag, attributes)] = parser.CurrentLineNumber

    def declared(name: str, *_: object) -> None:
        raise _OwnEntityError(name, parser.CurrentLineNumber)

    parser.EntityDeclHandler = declared
    parser.StartElementHandler = start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.buffer_text = True
    try:
        # where it is UTF-8, whatever encoding the declaration names
        text: str | bytes = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data
    parser.Parse(text, True)
    return builder.close(), lines
