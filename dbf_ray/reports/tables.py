"""The closing table of a study, as aligned text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dbf_ray.reports.answer import SECONDS
from dbf_ray.reports.objectives import in_figures, objectives_of
from dbf_ray.reports.trials import brief, is_complete, is_control, mean_accuracy, parameters

HEADER = ("policy", "ρ", "{accuracy}", "90 %", "on front", "{cost}", "device seconds", "beats shorter", "")
TEXT_COLUMNS, OPTIONAL = (0, len(HEADER) - 1), (3, 4, 6, 7)


def header(result: Mapping[str, Any]) -> tuple[str, ...]:
    """The columns' names."""
    accuracy, cost = objectives_of(result).names()
    return tuple(name.format(accuracy=accuracy, cost=cost) for name in HEADER)


def study_rows(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """One row of text cells for each trial, in the columns of :func:`header`: dearest first, what did not
    complete last.

    ``90 %`` is the interval of the accuracy, ``on front`` the probability of being on the front, ``beats
    shorter`` that of lying above full trainings cut short: by the study's cost, by seconds.

    Args:
        result: the content of ``pareto.json``.
    """
    objectives = objectives_of(result)
    done = sorted(
        (trial for trial in result["trials"] if is_complete(trial, objectives)),
        key=lambda trial: (-trial[objectives.cost], -mean_accuracy(trial, objectives.accuracy)),
    )
    rest = [trial for trial in result["trials"] if not is_complete(trial, objectives)]
    return [_row(trial, result, standing(trial, result)) for trial in done] + [
        _row(trial, result, standing(trial, result)) for trial in rest
    ]


def text_table(result: Mapping[str, Any]) -> str:
    """The table as aligned text, with a rule under the header; ends without a line break. Columns of which
    nothing is known are left out.
    """
    found = study_rows(result)
    rows = [header(result), *found]
    known = [
        column
        for column in range(len(HEADER))
        if column not in OPTIONAL or any(row[column] != "-" for row in found)
    ]
    widths = {column: max(len(row[column]) for row in rows) for column in known}
    lines = [
        "  ".join(
            row[column].ljust(widths[column]) if column in TEXT_COLUMNS else row[column].rjust(widths[column])
            for column in known
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "-" * max(len(line) for line in lines), *lines[1:]])


def _row(trial: Mapping[str, Any], result: Mapping[str, Any], standing: str) -> tuple[str, ...]:
    accuracy, cost = objectives_of(result).names()
    known = parameters(trial)
    rho = known.pop("rho", None)
    policy = " ".join([str(trial["policy"]), *(f"{key}={brief(value)}" for key, value in known.items())])
    if is_control(trial):
        policy += f", {trial['epochs']} epochs"
    low, high = trial.get("accuracy_interval") or (None, None)
    shown = low is not None and high > low
    return (
        policy,
        brief(rho) if rho is not None else "-",
        in_figures(accuracy, trial.get("accuracy_mean", trial.get(accuracy)), 4),
        f"{low:.3f}-{high:.3f}" if shown else "-",
        f"{trial['front_probability']:.2f}" if shown else "-",
        in_figures(cost, trial.get(cost), 4),
        "-" if cost == SECONDS else _seconds(trial.get(SECONDS)),
        _above(trial, cost),
        standing,
    )


def _above(trial: Mapping[str, Any], cost: str) -> str:
    above = trial.get("above_shorter") or {}
    axes = dict.fromkeys((cost, SECONDS))
    cells = [f"{above[axis]['probability']:.2f}" if axis in above else "?" for axis in axes]
    return ", ".join(cells) if above else "-"


def standing(trial: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    """Where a trial stands, in a word or two: on the front, dominated, recommended; or that it failed."""
    if not is_complete(trial, objectives_of(result)):
        state = str(trial["state"]).lower()
        return {"fail": "failed", "complete": "failed: no finite result"}.get(state, state)
    number, words = trial["number"], []
    if number in result["front"]:
        words.append("front")
    elif number in result.get("front_posterior", ()):
        words.append("front by posterior")
    else:
        words.append("dominated")
    if number == result.get("answer", {}).get("number"):
        words.append("recommended")
    return ", ".join(words)


def _seconds(value: float | None) -> str:
    return f"{value:.1f}" if value is not None else "-"
