"""The report of a data set's check as one page that needs no network: problems, statistics and samples."""

from __future__ import annotations

import base64
import collections
import html
from collections.abc import Mapping
from typing import Any

from dbf_ray.reports.style import GRID, INK, MUTED

MOST_ROWS = 500  # of one kind of problem on the page
_COLORS = {"error": "#c0392b", "warning": "#b8860b"}
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ margin: 0 auto; padding: 22px 28px; max-width: 1500px;
  font-family: system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif;
  color: {ink}; background: white; font-size: 14px; line-height: 1.45; }}
h1 {{ font-size: 20px; margin: 0 0 4px; }}
h2 {{ font-size: 16px; margin: 28px 0 8px; }}
p {{ margin: 0 0 4px; }}
.muted {{ color: {muted}; }}
table {{ border-collapse: collapse; width: 100%; }}
th, td {{ text-align: left; vertical-align: top; padding: 4px 10px 4px 0;
  border-bottom: 1px solid {grid}; overflow-wrap: anywhere; }}
th {{ color: {muted}; font-weight: normal; }}
td.number {{ white-space: nowrap; }}
summary {{ cursor: pointer; padding: 5px 0; }}
img {{ max-width: 100%; }}
figure {{ margin: 0; }}
figcaption {{ overflow-wrap: anywhere; }}
.wide {{ overflow-x: auto; }}
.wide img {{ min-width: 720px; }}
.pair, .scenes {{ display: grid; gap: 14px;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 370px), 1fr)); }}
.scenes {{ grid-template-columns: repeat(auto-fill, minmax(min(100%, 270px), 1fr)); }}
.mark {{ display: inline-block; width: 11px; height: 11px; border: 3px solid; margin: 0 5px 0 12px;
  vertical-align: -3px; }}
@media (max-width: 600px) {{ body {{ padding: 14px; }} }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>{verdict}</p>
{notes}
<h2>Problems</h2>
{problems}
<h2>Statistics</h2>
{statistics}
{coverage}
<h2>Samples</h2>
{samples}
</body>
</html>
"""


def data_page(
    report: Mapping[str, Any],
    meanings: Mapping[str, str],
    statistics: bytes,
    samples: bytes | None,
    coverage: str = "",
) -> str:
    """The page as text.

    Args:
        report: ``root``, ``format``, ``errors``, ``warnings``, ``images``, ``objects``, ``notes``;
            ``problems``: each with ``kind``, ``severity``, ``file``, ``line`` and ``message``.
        meanings: what each kind of problem means.
        statistics: PNG.
        samples: PNG; None: there is nothing to draw.
        coverage: that part of the page, see :mod:`.coverage_page`.
    """
    color = _COLORS["error"] if report["errors"] else "#1e8449"
    verdict = f"<b style='color:{color}'>{html.escape(summary(report))}</b>"
    return _PAGE.format(
        title=html.escape(f"Check of {report['root']} ({report['format']})"),
        verdict=verdict,
        notes="".join(f"<p class='muted'>{html.escape(note)}</p>" for note in report["notes"]),
        problems=_problems(report, meanings) or "<p>none</p>",
        statistics=_wide(embedded(statistics, "statistics")),
        coverage=coverage,
        samples="<p class='muted'>no image has objects</p>"
        if samples is None
        else _wide(embedded(samples, "samples")),
        ink=INK,
        muted=MUTED,
        grid=GRID,
    )


def summary(report: Mapping[str, Any]) -> str:
    """One line: how much there is, and how much is wrong."""
    errors, warnings = report["errors"], report["warnings"]
    found = (
        f"{errors} error{'s' * (errors != 1)}, {warnings} warning{'s' * (warnings != 1)}"
        if errors + warnings
        else "no problems"
    )
    return f"{found} in {report['images']} images with {report['objects']} objects"


def _problems(report: Mapping[str, Any], meanings: Mapping[str, str]) -> str:
    """A table for each kind, errors first; the first one is open."""
    kinds: dict[str, list[Mapping[str, Any]]] = collections.defaultdict(list)
    for problem in report["problems"]:
        kinds[problem["kind"]].append(problem)
    parts: list[str] = []
    for kind, rows in sorted(kinds.items(), key=lambda pair: (pair[1][0]["severity"], pair[0])):
        severity = rows[0]["severity"]
        head = f"<b style='color:{_COLORS[severity]}'>{html.escape(kind)}</b> ({severity}), {len(rows)}"
        meaning = f" <span class='muted'>· {html.escape(meanings.get(kind, ''))}</span>"
        more = (
            f"<p class='muted'>and {len(rows) - MOST_ROWS} more, see problems.txt</p>"
            if len(rows) > MOST_ROWS
            else ""
        )
        body = "".join(_row(problem) for problem in rows[:MOST_ROWS])
        table = f"<table><tr><th>file</th><th>line</th><th>what is wrong</th></tr>{body}</table>{more}"
        parts.append(
            f"<details{'' if parts else ' open'}><summary>{head}{meaning}</summary>{table}</details>"
        )
    return "\n".join(parts)


def _row(problem: Mapping[str, Any]) -> str:
    line = "" if problem["line"] is None else problem["line"]
    return (
        f"<tr><td>{html.escape(problem['file'])}</td><td "
        f"class='number'>{line}</td><td>{html.escape(problem['message'])}</td></tr>"
    )


def _wide(picture: str) -> str:
    """Where a screen is too narrow for it, it scrolls."""
    return f"<div class='wide'>{picture}</div>"


def embedded(picture: bytes, name: str, kind: str = "png") -> str:
    """A picture as part of a page."""
    return (
        f"<img alt='{html.escape(name, quote=True)}' "
        f"src='data:image/{kind};base64,{base64.b64encode(picture).decode()}'>"
    )
