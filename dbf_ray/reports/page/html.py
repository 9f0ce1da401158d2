"""The page as one HTML file: a template, its style, plotly's script once, the data, and what draws them."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from string import Template
from typing import Any

from plotly.offline import get_plotlyjs

from dbf_ray.reports.page.data import Source, page_data
from dbf_ray.values import finite, plain_text

PARTS = {
    "shorter": "Train shorter instead?",
    "knee": "Where the trade turns",
    "within": "Cheapest that loses next to nothing",
    "chance": "What chance leaves open",
}
MADE_BY = '<meta name="generator" content="dbf_ray">'
SCRIPTS = ("figures.js", "page.js")  # one after the other


def study_page(sources: Sequence[Source]) -> str:
    """The page of one study, or of several beside each other.

    Raises:
        ConfigError: see :func:`.page_data`.
    """
    return page_html(page_data(sources))


def page_html(data: Mapping[str, Any], plotly: str | None = None) -> str:
    """The page as text.

    Args:
        data: by :func:`.page_data`.
        plotly: the script that draws; None: the whole library's, so that the page needs no network.
    """
    place = files("dbf_ray.reports.page")
    return Template((place / "page.html").read_text(encoding="utf-8")).substitute(
        made_by=MADE_BY,
        title=_text(data["title"]),
        noun=_text(data["noun"]),
        accuracy=_text(data["axes"]["accuracy"]["name"]),
        subtitles="\n".join(map(_subtitle, data["studies"])),
        answers="\n".join(_answer(study, len(data["studies"]) > 1) for study in data["studies"]),
        comparable=_text(data["comparable"]),
        style=(place / "page.css").read_text(encoding="utf-8"),
        plotly=get_plotlyjs() if plotly is None else plotly,
        data=_json(data),
        script="\n".join((place / name).read_text(encoding="utf-8") for name in SCRIPTS),
    )


def _json(data: Mapping[str, Any]) -> str:
    """As JSON that can stand in a ``<script>``: nothing in it ends that."""
    text = json.dumps(finite(data), ensure_ascii=False, separators=(",", ":"))
    return plain_text(text).replace("<", "\\u003c")


def _text(text: Any) -> str:
    return html.escape(plain_text(str(text)))


def _subtitle(study: Mapping[str, Any]) -> str:
    running = study["running"]
    note = f" · {running} running or interrupted; while a search runs, load the page again" if running else ""
    return f'<p class="muted">{_text(study["name"])}: {_text(study["subtitle"])}{note}</p>'


def _answer(study: Mapping[str, Any], several: bool) -> str:
    """What a study found, in words and figures; it is there without any script."""
    figures = "".join(
        f"<div><dt>{_text(name)}</dt><dd>{_text(value)}</dd></div>" for name, value in study["figures"]
    )
    parts = "".join(f"<li><b>{PARTS[about]}</b> {_text(part)}</li>" for about, part in study["parts"].items())
    heading = f"<h3>{_text(study['name'])}</h3>" if several else ""
    said = f"<ul>{parts}</ul>" if parts else '<p class="muted">No finished trial yet.</p>'
    command = study["command"]
    copy = (
        f'<p class="command"><code>{_text(command)}</code> <button type="button" '
        f'data-copy="{_text(command)}" aria-label="copy the command that trains it">copy</button></p>'
        if command
        else ""
    )
    return f'{heading}<dl class="figures">{figures}</dl>{said}{copy}'
