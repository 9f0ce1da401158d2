"""What the page shows, as plain data that JSON can hold: out of the content of ``pareto.json`` and the epochs
of its runs, of one study or several.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from dbf_ray.errors import ConfigError
from dbf_ray.reports.answer import SECONDS
from dbf_ray.reports.objectives import Objectives, in_figures, noun, objectives_of, title
from dbf_ray.reports.page.runs import Epochs, folder_of, run_data, shared_in_words, stages_of
from dbf_ray.reports.page.table import NOTHING, Cell, Column, columns, full_name, known
from dbf_ray.reports.plots import ParetoData, pareto_data, subtitle
from dbf_ray.reports.style import AXIS, FRONT, GRID, INK, MUTED, REGION, RUNS, pale, policy_styles
from dbf_ray.reports.trials import is_baseline, is_complete, is_control, mean_accuracy, mean_of, short_label
from dbf_ray.reports.uncertainty import interval_of, span_of

Row = Mapping[str, Any]
Result = Mapping[str, Any]
COSTS = {
    "executed_flops": ("FLOPs that were executed", "FLOP"),
    "device_seconds": ("seconds of training steps", "s"),
    "peak_memory_bytes": ("peak memory of a worker", "B"),
    "allreduce_bytes": ("bytes sent by all-reduce", "B"),
    "energy_joules": ("energy of the devices", "J"),
}
PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
DOMINATED, HOLLOW = "dominated", "hollow"  # how a point off the front is marked


class Source(NamedTuple):
    """A study to show.

    Attributes:
        result: the content of its pareto.json.
        epochs: of its runs, as far as they are known.
        name: by which it is shown; None: its own.
    """

    result: Result
    epochs: Epochs
    name: str | None = None


def page_data(sources: Sequence[Source]) -> dict[str, Any]:
    """All that the page shows.

    Returns:
        studies (for each its answer, front, line of shorter trainings, history ...), rows (trials of all
        studies: place, intervals, cells of the table, costs, runs), columns, costs, axes, styles of policies,
        chosen (whose timelines are shown first).

    Raises:
        ConfigError: they are compared by different objectives, or two have the same name.
    """
    names = [source.name or str(source.result["study"]) for source in sources]
    objectives = _common(sources, names)
    found, cells = columns(objectives), []
    rows: list[dict[str, Any]] = []
    for place, source in enumerate(sources):
        stages = stages_of(source.result["trials"], source.epochs)
        firsts = _firsts(source.result, objectives)
        for trial in source.result["trials"]:
            row = _row(trial, source, objectives, stages)
            own = {"id": f"{place}/{trial['number']}", "study": place, "first": firsts.get(trial["number"])}
            rows.append(own | row)
            cells.append([column.cell(trial, source.result) for column in found])
    places = known(found, cells)
    shown = _table(found, cells, places, rows, names)
    return {
        "title": ", ".join(names),
        "noun": noun(objectives.cost),
        "axes": {
            "accuracy": {"name": objectives.accuracy, "title": title(objectives.accuracy)},
            "cost": {"name": objectives.cost, "title": title(objectives.cost)},
        },
        "studies": [
            _study(source, name, place)
            for place, (source, name) in enumerate(zip(sources, names, strict=True))
        ],
        "comparable": _comparable(sources),
        "rows": rows,
        "columns": shown,
        "costs": [
            {"key": key, "title": said, "unit": unit}
            for key, (said, unit) in COSTS.items()
            if any(row["costs"].get(key) is not None for row in rows)
        ],
        "policies": {
            policy: {"color": color, "pale": pale(color), "symbol": symbol}
            for policy, (color, _, symbol) in policy_styles(str(row["policy"]) for row in rows).items()
        },
        "palette": {
            "ink": INK,
            "muted": MUTED,
            "grid": GRID,
            "front": FRONT,
            "region": REGION,
            "bar": pale(INK),
            "line": AXIS,
            "frozen": pale(FRONT, 0.16),
            "runs": list(RUNS),
        },
        "chosen": [
            row["id"]
            for mark in ("recommended", "schedule", "full", "frozen")
            for row in rows
            if row["first"] == mark and row["runs"]
        ],
    }


def _common(sources: Sequence[Source], names: Sequence[str]) -> Objectives:
    kinds = {objectives_of(source.result) for source in sources}
    if len(kinds) > 1:
        said = ", ".join(
            f"{name} {' and '.join(objectives_of(source.result).names())}"
            for name, source in zip(names, sources, strict=True)
        )
        raise ConfigError(
            f"studies must be compared by the same accuracy and cost, got {said}; search them again with "
            "equal objectives, which trains nothing"
        )
    if len(set(names)) < len(names):
        raise ConfigError(f"studies must have different names, got {', '.join(names)}; give each once")
    return kinds.pop()


def _comparable(sources: Sequence[Source]) -> str:
    """A warning where the studies' hypervolumes are measured from different corners."""
    corners = {str([source.result["reference"], source.result["ideal"]]) for source in sources}
    return "" if len(corners) < 2 else "Their baselines differ, so these figures cannot be compared."


def _study(source: Source, name: str, place: int) -> dict[str, Any]:
    """One study, but for its trials."""
    result, data = source.result, pareto_data(source.result)
    answer, states = result["answer"], [str(trial["state"]) for trial in result["trials"]]
    volume, gain = result["hypervolume"], result.get("hypervolume_gain")
    return {
        "name": name,
        "color": RUNS[1:][place % (len(RUNS) - 1)],
        "subtitle": subtitle(data),
        "running": states.count("RUNNING"),
        "parts": answer.get("parts", {}),
        "command": answer.get("command"),
        "figures": _figures(result),
        **_lines(data),
        "history": [
            [entry["epochs_trained"], entry["hypervolume"], entry["trials"]] for entry in result["history"]
        ],
        "baselines": None if volume is None or gain is None else volume - gain,
    }


def _lines(data: ParetoData) -> dict[str, Any]:
    """What the scatter draws beside points: all as (cost, accuracy)."""
    return {
        "front": [list(corner) for corner in data.front],
        "believed": [list(corner) for corner in data.uncertainty.believed],
        "shorter": [list(corner) for corner in data.uncertainty.shorter],
        "region": [list(corner) for corner in data.region],
        "reference": None if data.reference is None else [data.reference[1], data.reference[0]],
    }


def _figures(result: Result) -> list[tuple[str, str]]:
    """The figures that stand beside the answer: of the recommended setting, then of the study."""
    objectives = objectives_of(result)
    of, by = objectives.names()
    rows = {trial["number"]: trial for trial in result["trials"]}
    found: list[tuple[str, str]] = []
    row = rows.get(result["answer"].get("number"))
    full = next((trial for trial in _own(result, objectives) if trial["policy"] == "full"), None)
    if row is not None:
        interval = interval_of(row)
        chance = "" if interval is None else f" (90 %: {interval[0]:.3f} – {interval[1]:.3f})"
        found = [
            ("recommended", f"{full_name(row)}, trial {row['number']}"),
            (of, f"{in_figures(of, mean_accuracy(row, of))}{chance}"),
            (by, in_figures(by, mean_of(row, by))),
        ]
        seconds = mean_of(row, SECONDS)
        if seconds == seconds and by != SECONDS:
            against = f", full {mean_of(full, SECONDS):.0f} s" if full is not None and full is not row else ""
            found.append(("training", f"{seconds:.0f} s{against}"))
    trained, shared = result["epochs_trained"], result["epochs_shared"]
    found.append(("epochs trained", f"{trained}, and {shared} shared" if shared else str(trained)))
    if result["hypervolume"] is not None:
        found.append(("hypervolume", f"{result['hypervolume']:.3f}"))
    return found


def _row(trial: Row, source: Source, objectives: Objectives, stages: int) -> dict[str, Any]:
    """A trial: where it stands, how it is marked, what it cost and how its runs went."""
    result, (of, by) = source.result, objectives.names()
    done, on_front = is_complete(trial, objectives), trial["number"] in result["front"]
    runs = [trial, *(trial.get("seeds") or ())]
    records = source.epochs.get(folder_of(trial), ())
    mark = "front" if on_front else HOLLOW if is_baseline(trial) and not is_control(trial) else DOMINATED
    return {
        "number": trial["number"],
        "name": full_name(trial),
        "label": short_label(trial) if done or not is_control(trial) else str(trial["policy"]),
        "policy": str(trial["policy"]),
        "x": mean_of(trial, by) if done else None,
        "y": mean_accuracy(trial, of) if done else None,
        "interval": interval_of(trial) if done else None,
        "span": span_of(trial, by) if done else None,
        "mark": mark,
        "baseline": is_baseline(trial) and not is_control(trial),
        "control": is_control(trial),
        "command": trial.get("command"),
        "failure": trial.get("failure"),
        "costs": {key: _cost(trial, key, unit) for key, (_, unit) in COSTS.items()} if done else {},
        "seeds": [[run.get("seed"), run[of]] for run in runs if run.get(of) is not None],
        "shared": shared_in_words(records, str(result["study"])),
        "runs": [
            run_data(run, source.epochs[folder_of(run)], of, trial.get("num_stages") or stages)
            for run in runs
            if source.epochs.get(folder_of(run))
        ],
    }


def _firsts(result: Result, objectives: Objectives) -> dict[int, str]:
    """Trials whose timelines are shown from the beginning, and why: the recommended one, the base's full and
    frozen, and where no schedule is recommended the one that is most probably on the front.
    """
    own = _own(result, objectives)
    found: dict[int, str] = {}
    for policy in ("frozen", "full"):
        alike = [trial["number"] for trial in own if trial["policy"] == policy]
        found |= dict.fromkeys(alike[:1], policy)
    schedules = [trial for trial in own if not is_baseline(trial)]
    number = result["answer"].get("number")
    if schedules and number not in {trial["number"] for trial in schedules}:
        best = max(schedules, key=lambda trial: (trial["front_probability"], trial["accuracy_mean"]))
        found[best["number"]] = "schedule"
    return found if number is None else found | {number: "recommended"}


def _own(result: Result, objectives: Objectives) -> list[Row]:
    """The complete trials of a study, shorter full trainings left out."""
    return [trial for trial in result["trials"] if is_complete(trial, objectives) and not is_control(trial)]


def _cost(trial: Row, key: str, unit: str) -> tuple[float, str] | None:
    """Mean over seeds, as number and as text."""
    value = mean_of(trial, key)
    if value != value:
        return None
    size, prefix = next(((size, prefix) for size, prefix in PREFIXES if value >= size), (1.0, ""))
    if unit == "s":
        size, prefix = 1.0, ""
    return value, f"{value / size:.3g} {prefix}{unit}" if value < 1e4 or prefix else f"{value:.0f} {unit}"


def _table(
    found: Sequence[Column],
    cells: Sequence[Sequence[Cell]],
    places: Sequence[int],
    rows: Sequence[dict[str, Any]],
    names: Sequence[str],
) -> list[dict[str, Any]]:
    """Give each row its ``cells``; returns the columns. Where there are several studies the first says
    which.
    """
    shown = [
        {
            "key": found[place].key,
            "title": found[place].title,
            "about": found[place].about,
            "numeric": all(isinstance(row[place][1], int | float) for row in cells if row[place] != NOTHING),
        }
        for place in places
    ]
    for row, own in zip(rows, cells, strict=True):
        row["cells"] = [own[place] for place in places]
        if len(names) > 1:
            row["cells"].insert(1, (names[row["study"]],) * 2)
    if len(names) > 1:
        shown.insert(1, {"key": "study", "title": "study", "about": "whose trial it is", "numeric": False})
    return shown
