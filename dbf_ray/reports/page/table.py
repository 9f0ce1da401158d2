"""The page's table: its columns, and what each says of a trial, as text and as what it is sorted by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from dbf_ray.reports.answer import SECONDS
from dbf_ray.reports.objectives import Objectives, in_figures
from dbf_ray.reports.tables import standing
from dbf_ray.reports.trials import brief, is_baseline, is_control, mean_of, parameters, setting
from dbf_ray.reports.uncertainty import interval_of

Row = Mapping[str, Any]
Result = Mapping[str, Any]
Cell = tuple[str, float | str | None]
"""What stands there, and what it counts as; None where nothing is known."""

NOTHING: Cell = ("–", None)


class Column(NamedTuple):
    """A column: its key, by which rows are filtered, its heading, what it says, and its cells."""

    key: str
    title: str
    about: str
    cell: Callable[[Row, Result], Cell]


def columns(objectives: Objectives) -> list[Column]:
    """All that there are, in order."""
    of, by = objectives.names()
    found = [
        Column("setting", "setting", "policy with its parameters, and what else differs", _setting),
        Column("standing", "standing", "on the front, dominated, recommended, failed", _standing),
        Column(of, of, "mean over seeds", lambda row, _: _figure(of, row.get("accuracy_mean"))),
        Column("interval", "90 %", "interval of the accuracy", _interval),
        Column("front", "on front", "probability of being on the front", _share("front_probability")),
        Column(by, by, "what the study compares by", lambda row, _: _figure(by, mean_of(row, by))),
        Column("seconds", "seconds", "measured seconds of training steps", _seconds),
        Column("shorter", "beats shorter", "probability of lying above full trainings cut short", _above(by)),
        Column("val_map50", "val map50", "on val, which the search did not see", _val),
        Column("rho", "ρ", "period of the policy", _rho),
        Column("seeds", "seeds", "how many were trained", _seeds),
        Column("epochs", "epochs", "that it trained itself / all", _epochs),
        Column("trial", "trial", "its number and folder", lambda row, _: (str(row["number"]), row["number"])),
    ]
    return [column for column in found if column.key != "seconds" or by != SECONDS]


def known(found: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> list[int]:
    """Places of the columns of which anything is known."""
    return [place for place in range(len(found)) if any(row[place] != NOTHING for row in rows)]


def full_name(row: Row) -> str:
    """A setting with everything that its space has drawn: ``step(rho=4), backbone_lr_factor=0.1``."""
    own = {"policy", "seed", *parameters(row)}
    also = [
        f"{key.rpartition('.')[2]}={brief(value)}"
        for key, value in (row.get("overrides") or {}).items()
        if key.removeprefix("freezing.") not in own and not is_control(row)
    ]
    return ", ".join([setting(row), *also])


def _setting(row: Row, _: Result) -> Cell:
    return full_name(row), full_name(row)


def _standing(row: Row, result: Result) -> Cell:
    said = standing(row, result)
    said += ", control" if is_control(row) else ", baseline" if is_baseline(row) else ""
    return said, said


def _interval(row: Row, _: Result) -> Cell:
    found = interval_of(row)
    return NOTHING if found is None else (f"{found[0]:.3f} – {found[1]:.3f}", found[0])


def _share(name: str) -> Callable[[Row, Result], Cell]:
    def cell(row: Row, _: Result) -> Cell:
        return NOTHING if interval_of(row) is None else (f"{row[name]:.2f}", row[name])

    return cell


def _above(axis: str) -> Callable[[Row, Result], Cell]:
    def cell(row: Row, _: Result) -> Cell:
        found = (row.get("above_shorter") or {}).get(axis)
        return NOTHING if found is None else (f"{found['probability']:.2f}", found["probability"])

    return cell


def _seconds(row: Row, _: Result) -> Cell:
    value = mean_of(row, SECONDS)
    return (f"{value:.1f}", value) if value == value else NOTHING


def _val(row: Row, _: Result) -> Cell:
    return _figure("map50", None if row.get("val_map50") is None else mean_of(row, "val_map50"))


def _rho(row: Row, _: Result) -> Cell:
    rho = parameters(row).get("rho")
    return NOTHING if rho is None else (brief(rho), rho)


def _seeds(row: Row, result: Result) -> Cell:
    count = 1 + sum(run.get("state") == "COMPLETE" for run in row.get("seeds") or ())
    return str(count), count


def _epochs(row: Row, _: Result) -> Cell:
    trained, all_of_them = row.get("epochs_trained"), row.get("epochs")
    return NOTHING if trained is None else (f"{trained} / {all_of_them or trained}", trained)


def _figure(name: str, value: float | None) -> Cell:
    return NOTHING if value is None or value != value else (in_figures(name, value, 4), value)
