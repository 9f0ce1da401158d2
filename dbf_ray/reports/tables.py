"""The closing table of a study, as aligned text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dbf_ray.reports.objectives import Objectives, in_figures, objectives_of
from dbf_ray.reports.trials import brief, is_complete, parameters


def header(objectives: Objectives) -> tuple[str, ...]:
    """Names of the columns: beside the two objectives best map50 and measured seconds."""
    seconds = () if objectives.cost == "device_seconds" else ("device seconds",)
    return ("policy", "ρ", objectives.accuracy, "map50_best", objectives.cost, *seconds, "")


def study_rows(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """One row of text cells for each trial, in the columns of :func:`header`: dearest first, what did not
    complete last.

    Args:
        result: the content of ``pareto.json``.
    """
    objectives = objectives_of(result)
    done = sorted(
        (trial for trial in result["trials"] if is_complete(trial, objectives)),
        key=lambda trial: (-trial[objectives.cost], -trial[objectives.accuracy]),
    )
    rest = [trial for trial in result["trials"] if not is_complete(trial, objectives)]
    return [_row(trial, _standing(trial, result), objectives) for trial in done] + [
        _row(trial, _failure(trial), objectives) for trial in rest
    ]


def text_table(result: Mapping[str, Any]) -> str:
    """The table as aligned text, with a rule under the header; ends without a line break."""
    rows = [header(objectives_of(result)), *study_rows(result)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if column in (0, len(rows[0]) - 1) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "-" * max(len(line) for line in lines), *lines[1:]])


def _row(trial: Mapping[str, Any], standing: str, objectives: Objectives) -> tuple[str, ...]:
    known = parameters(trial)
    rho = known.pop("rho", None)
    policy = " ".join([str(trial["policy"]), *(f"{key}={brief(value)}" for key, value in known.items())])
    return (
        policy,
        brief(rho) if rho is not None else "-",
        in_figures(objectives.accuracy, trial.get(objectives.accuracy), 4),
        in_figures("map50_best", trial.get("map50_best"), 4),
        in_figures(objectives.cost, trial.get(objectives.cost), 4),
        *(() if objectives.cost == "device_seconds" else (_seconds(trial.get("device_seconds")),)),
        standing,
    )


def _standing(trial: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    if trial["number"] == result["knee"]:
        return "front, recommended"
    return "front" if trial["number"] in result["front"] else "dominated"


def _failure(trial: Mapping[str, Any]) -> str:
    state = str(trial["state"]).lower()
    return {"fail": "failed", "complete": "failed: no finite result"}.get(state, state)


def _seconds(value: float | None) -> str:
    return f"{value:.1f}" if value is not None else "-"
