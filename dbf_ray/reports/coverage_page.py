"""The part of a data set's report that shows what a detector can match of it."""

from __future__ import annotations

import html
import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from PIL import Image

from dbf_ray.reports.coverage import coverage_png, shapes_png
from dbf_ray.reports.data_page import embedded
from dbf_ray.reports.style import CLASSES

NEVER, SOMETIMES, ALWAYS = 0, 3, 1  # labels whose colours, see style.CLASSES, say what is matched
_JPEG_QUALITY = 88


class Scene(NamedTuple):
    """An image with its objects marked, what it is, and how many of its objects are matched in no view and in
    some only.
    """

    picture: Image.Image
    title: str
    never: int
    sometimes: int
    objects: int


def coverage_section(
    coverage: Mapping[str, Any], shapes: Mapping[str, Mapping[str, Any]], scenes: Sequence[Scene]
) -> str:
    """HTML.

    Args:
        coverage: ``detector``, ``options``, ``split``, ``image_size``, ``views``, ``objects``, ``looked_at``,
            ``before`` and ``after``.
        shapes: by whose anchors they are, see :func:`.coverage.shapes_png`.
        scenes: the worst first.
    """
    size = coverage["image_size"]
    anchors = "".join(
        _figure(embedded(shapes_png(shown, title, size), f"sides of objects, anchors: {title}"))
        for title, shown in shapes.items()
    )
    bars = _figure(embedded(coverage_png(coverage["before"], coverage["after"]), "coverage by class"))
    return (
        f"<h2>Coverage</h2>\n{_what(coverage)}{_marks(shapes)}\n<div class='pair'>{anchors}{bars}</div>\n"
        f"{_numbers(coverage)}\n<h3>Images with objects that are not matched</h3>\n{_scenes(scenes)}"
    )


def _what(coverage: Mapping[str, Any]) -> str:
    options = ", ".join(f"{key} {value}" for key, value in coverage["options"].items()) or "its own defaults"
    some = coverage["looked_at"] < coverage["objects"]
    drawn = f" {coverage['looked_at']} of them are looked at, as many of each class." if some else ""
    total, views = coverage["objects"], coverage["views"]
    text = (
        f"What {coverage['detector']} can match of {total} object{'s' * (total != 1)} ({coverage['split']}), "
        f"images resized to {coverage['image_size']} px, in {views} view{'s' * (views != 1)}.{drawn} "
        f"As set: {options}."
    )
    return f"<p>{html.escape(text)}</p>"


def _marks(shapes: Mapping[str, Mapping[str, Any]]) -> str:
    if any(shown["limits"] for shown in shapes.values()):
        text = "Each dot is an object; dashed lines: the long sides from which the next level takes over."
    else:
        text = "Each dot is an object; hollow marks are anchors, one for each scale and ratio of a level."
    return f"<p class='muted'>{text}</p>"


def _figure(picture: str) -> str:
    return f"<figure>{picture}</figure>"


def _numbers(coverage: Mapping[str, Any]) -> str:
    """All shares as a table, folded."""
    before, after = coverage["before"], coverage["after"]
    keys = [key for key in after["all"] if key != "objects"]
    names = [key.replace("_", " ") for key in keys]
    head = "".join(
        f"<th>{html.escape(text)}</th>"
        for text in ("", "objects", *names, *(f"default: {name}" for name in names))
    )
    groups = [(name, before[name], after[name]) for name in ("all", "difficult")]
    for part in ("classes", "sizes"):
        groups += [(name, before[part][name], row) for name, row in after[part].items()]
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td class='number'>{new['objects']}</td>"
        + "".join(f"<td class='number'>{_percent(row[key])}</td>" for row in (new, old) for key in keys)
        + "</tr>"
        for name, old, new in groups
        if new["objects"]
    )
    return (
        "<details><summary>All numbers</summary><div class='wide'><table>"
        f"<tr>{head}</tr>{rows}</table></div></details>"
    )


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _scenes(scenes: Sequence[Scene]) -> str:
    if not scenes:
        return "<p class='muted'>none: of the objects looked at, each is matched in every view</p>"
    legend = "".join(
        "<span style='white-space:nowrap'><span class='mark' "
        f"style='border-color:{CLASSES[label]}'></span>{text}</span>"
        for label, text in (
            (NEVER, "matched in no view"),
            (SOMETIMES, "in some views only"),
            (ALWAYS, "in all"),
        )
    )
    figures = "".join(
        f"<figure>{embedded(_jpeg(scene.picture), scene.title, 'jpeg')}<figcaption>"
        f"{html.escape(scene.title)}<br><span class='muted'>{scene.never} of {scene.objects} objects in no "
        f"view, {scene.sometimes} in some only</span></figcaption></figure>"
        for scene in scenes
    )
    return f"<p>{legend}</p><div class='scenes'>{figures}</div>"


def _jpeg(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, format="JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue()
