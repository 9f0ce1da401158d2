"""The trade-off of a study as one interactive page: the same plain data as the PNG, drawn by plotly. Needs no
network.
"""

from __future__ import annotations

import html

import plotly.graph_objects as go

from dbf_ray.reports.objectives import Objectives, in_figures, title
from dbf_ray.reports.plots import ParetoData, ParetoPoint, heading, limits, subtitle
from dbf_ray.reports.style import FRONT, GRID, INK, MUTED, REGION, pale, policy_styles
from dbf_ray.reports.uncertainty import add_uncertainty

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ margin: 0; padding: 22px 28px; height: 100vh; box-sizing: border-box; display: flex;
  flex-direction: column; font-family: {font}; color: {ink}; background: white; }}
h1 {{ font-size: 20px; margin: 0 0 4px; }}
p {{ font-size: 14px; margin: 0 0 4px; max-width: 110ch; line-height: 1.45; }}
.muted {{ color: {muted}; }}
.plot {{ flex: 1; min-height: 380px; }}
</style>
</head>
<body>
<h1>{heading}</h1>
<p class="muted">{subtitle}</p>
{answer}
<div class="plot">{plot}</div>
</body>
</html>
"""


def pareto_html(data: ParetoData) -> str:
    """The page as text; plotly's script is part of it, so the file can be opened anywhere."""
    plot = _figure(data).to_html(
        include_plotlyjs=True,
        full_html=False,
        config={"displaylogo": False, "responsive": True},
        default_height="100%",
        div_id="pareto",
    )
    answer = f"<p><b>Recommended:</b> {html.escape(data.answer)}</p>" if data.answer else ""
    return _PAGE.format(
        title=html.escape(data.study),
        heading=html.escape(heading(data)),
        subtitle=html.escape(subtitle(data)),
        answer=answer,
        plot=plot,
        font=_FONT,
        ink=INK,
        muted=MUTED,
    )


def _figure(data: ParetoData) -> go.Figure:
    figure = go.Figure()
    if data.region:
        x, y = zip(*data.region, strict=True)
        area = {
            "fill": "toself",
            "mode": "lines",
            "line": {"width": 0},
            "fillcolor": REGION,
            "hoverinfo": "skip",
        }
        figure.add_scatter(x=x, y=y, name="hypervolume", legendrank=1002, **area)
    if data.front:
        x, y = zip(*data.front, strict=True)
        figure.add_scatter(
            x=x,
            y=y,
            mode="lines",
            line={"color": FRONT, "width": 2},
            name="front",
            hoverinfo="skip",
            legendrank=1001,
        )
    add_uncertainty(figure, data.uncertainty)
    if data.reference:
        cross = {"symbol": "cross-thin", "size": 10, "line": {"color": MUTED, "width": 1.8}}
        (floor, budget), (of, by) = data.reference, data.objectives.names()
        hover = f"reference point<br>{of}: {in_figures(of, floor, 4)}<br>{by}: {in_figures(by, budget, 4)}"
        text = {"hovertext": hover, "hoverinfo": "text"}
        figure.add_scatter(
            x=[budget],
            y=[floor],
            mode="markers",
            marker=cross,
            name="reference point",
            legendrank=1003,
            **text,
        )
    styles = policy_styles(point.policy for point in data.points)
    crowded = _crowded(data)
    for on_front in (False, True):
        for rank, (policy, (color, _, symbol)) in enumerate(styles.items()):
            points = [point for point in data.points if point.policy == policy and point.on_front == on_front]
            if points:
                _add_points(figure, points, color, symbol, 2 * rank + (not on_front), crowded)
    for knee in (point for point in data.points if point.is_knee):
        ring = {"size": 25, "color": "rgba(0,0,0,0)", "line": {"color": INK, "width": 1.6}}
        place = {"x": [knee.cost], "y": [knee.accuracy]}
        figure.add_scatter(
            **place, mode="markers", marker=ring, name="recommended", hoverinfo="skip", legendrank=1004
        )
    _style(figure, data.objectives)
    if data.points:
        x_range, y_range = limits(data)
        figure.update_layout(xaxis_range=x_range, yaxis_range=y_range)
    else:
        figure.add_annotation(
            text="no finished trial yet",
            showarrow=False,
            x=0.5,
            y=0.5,
            xref="paper",
            yref="paper",
            font={"color": MUTED},
        )
    return figure


def _add_points(
    figure: go.Figure, points: list[ParetoPoint], color: str, symbol: str, rank: int, crowded: set[int]
) -> None:
    """One policy's front points, or its dominated ones: these are pale and tell their setting only under the
    pointer (baselines: hollow).
    """
    on_front, is_baseline = points[0].on_front, points[0].is_baseline
    strong = on_front or is_baseline
    fill = color if on_front else ("white" if is_baseline else pale(color))
    edge = {"color": color if is_baseline else "white", "width": 2 if is_baseline else 1}
    figure.add_scatter(
        x=[point.cost for point in points],
        y=[point.accuracy for point in points],
        mode="markers+text" if strong else "markers",
        name=html.escape(points[0].policy) + ("" if on_front else " (dominated)"),
        marker={"color": fill, "symbol": symbol, "size": 13 if strong else 10, "line": edge},
        text=[f"<b>{html.escape(point.label)}</b>" for point in points] if strong else None,
        textfont={"color": color},
        textposition=["bottom right" if point.number in crowded else "top left" for point in points],
        hovertext=["<br>".join(map(html.escape, point.details)) for point in points],
        hoverinfo="text",
        legendrank=rank,
        cliponaxis=False,
    )


def _crowded(data: ParetoData) -> set[int]:
    """Numbers of labelled points whose usual place for the label, at their upper left, is another labelled
    point's.
    """
    shown = [point for point in data.points if point.on_front or point.is_baseline]
    if not shown:
        return set()
    (left, right), (low, high) = limits(data)

    def near(point: ParetoPoint, other: ParetoPoint) -> bool:
        before, under = (
            (point.cost - other.cost) / (right - left),
            (point.accuracy - other.accuracy) / (high - low),
        )
        return other.number != point.number and 0 <= before < 0.08 and abs(under) < 0.06

    return {point.number for point in shown if any(near(point, other) for other in shown)}


def _style(figure: go.Figure, objectives: Objectives) -> None:
    axis = {
        "gridcolor": GRID,
        "zeroline": False,
        "linecolor": "#b4bcc5",
        "ticks": "outside",
        "tickcolor": "#b4bcc5",
    }
    figure.update_layout(
        template="none",
        font={"family": _FONT, "color": INK, "size": 13},
        xaxis=axis | {"title": {"text": title(objectives.cost), "font": {"size": 14}, "standoff": 14}},
        yaxis=axis | {"title": {"text": title(objectives.accuracy), "font": {"size": 14}, "standoff": 14}},
        margin={"l": 84, "r": 20, "t": 40, "b": 60},
        hoverlabel={"bgcolor": "white", "font": {"color": INK}, "bordercolor": MUTED},
        plot_bgcolor="white",
        autosize=True,
    )
