"""The closing table of a study, as aligned text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dbf_ray.reports.trials import brief, is_complete, parameters

HEADER = ("policy", "ρ", "map50", "map50_best", "compute_ratio", "device seconds", "")


def study_rows(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """One row of text cells for each trial, in the columns of ``HEADER``: dearest first, what did not
    complete last.

    Args:
        result: the content of ``pareto.json``.
    """
    done = sorted(
        (trial for trial in result["trials"] if is_complete(trial)),
        key=lambda trial: (-trial["compute_ratio"], -trial["map50"]),
    )
    rest = [trial for trial in result["trials"] if not is_complete(trial)]
    return [_row(trial, _standing(trial, result)) for trial in done] + [
        _row(trial, _failure(trial)) for trial in rest
    ]


def text_table(result: Mapping[str, Any]) -> str:
    """The table as aligned text, with a rule under the header; ends without a line break."""
    rows = [HEADER, *study_rows(result)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    lines = [
        "  ".join(
            cell.ljust(width) if column in (0, len(HEADER) - 1) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "-" * max(len(line) for line in lines), *lines[1:]])


def _row(trial: Mapping[str, Any], standing: str) -> tuple[str, ...]:
    known = parameters(trial)
    rho = known.pop("rho", None)
    policy = " ".join([str(trial["policy"]), *(f"{key}={brief(value)}" for key, value in known.items())])
    return (
        policy,
        brief(rho) if rho is not None else "-",
        _fraction(trial.get("map50")),
        _fraction(trial.get("map50_best")),
        _fraction(trial.get("compute_ratio")),
        f"{trial['device_seconds']:.1f}" if trial.get("device_seconds") is not None else "-",
        standing,
    )


def _standing(trial: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    if trial["number"] == result["knee"]:
        return "front, recommended"
    return "front" if trial["number"] in result["front"] else "dominated"


def _failure(trial: Mapping[str, Any]) -> str:
    state = str(trial["state"]).lower()
    return {"fail": "failed", "complete": "failed: no finite result"}.get(state, state)


def _fraction(value: float | None) -> str:
    return f"{value:.4f}" if value is not None else "-"
