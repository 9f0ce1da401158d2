"""What a study found, as plain data, and the files that hold it.

:func:`study_result` turns trials into the content of ``pareto.json``; :func:`write_study` writes that beside
a CSV table and two plots.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from dbf_ray.errors import ConfigError
from dbf_ray.files import write_bytes
from dbf_ray.reports.answer import TOLERANCE, Resampled, judge
from dbf_ray.reports.objectives import USUAL, Objectives
from dbf_ray.reports.page import Epochs, Source, study_page
from dbf_ray.reports.pareto import Reference, pareto_front, reference_of, share_of_ideal
from dbf_ray.reports.plots import pareto_data, pareto_png
from dbf_ray.reports.statistics import front_of
from dbf_ray.reports.trials import is_baseline, is_complete, is_control
from dbf_ray.reports.words import answer_of
from dbf_ray.values import finite

TRIAL_KEYS = (
    "number",
    "state",
    "policy",
    "parameters",
    "rho",
    "map50",
    "compute_ratio",
    "map50_best",
    "seed",
    "run",
)
OWN_COSTS = ("executed_flops", "device_seconds", "wall_seconds")  # that a study adds up


def study_result(
    study: str,
    trials: Sequence[Mapping[str, Any]],
    reference: Reference | None = None,
    objectives: Objectives = USUAL,
    *,
    resampled: Resampled | None = None,
    tolerance: float = TOLERANCE,
) -> dict[str, Any]:
    """The content of ``pareto.json``: plain values that JSON can hold, NaN as None.

    Args:
        study: the study's name.
        trials: in any order, with the keys of ``TRIAL_KEYS`` as far as known (``number``, ``state`` and
            ``policy`` always); others, such as ``device_seconds``, are kept. Only those of state COMPLETE
            with both objectives finite count.
        reference: as stored once the baselines were complete; by default that of the baselines that are.
            Without any it stays None, and so do the hypervolumes.
        objectives: by which trials are compared.
        resampled: of trials and their seeds, accuracies on resampled images (:mod:`.answer`).
        tolerance: a loss of accuracy that does not matter.

    Returns:
        study, objectives, reference (its worst corner), ideal (its best one), hypervolume (by
        :func:`.share_of_ideal`), hypervolume_gain (over what the baselines span alone), front (trial
        numbers, ascending; all these by means over seeds), what :mod:`.answer` finds (front_posterior, knee,
        within, controls, noise), answer (the recommended setting and, in words, what it saves and costs;
        empty without a complete trial), history (as each trial completed: trials, how many had by then;
        epochs_trained, by all that had ended; hypervolume of them; time, in seconds since 1970),
        epochs_trained (by all trials, those that failed too), epochs_shared (that trials have from others),
        own (what the trained ones cost), trials.

    Raises:
        ConfigError: a trial lacks a key that every trial must have, a number comes twice, or the reference is
            not usable.
    """
    rows = _rows(trials)
    complete = [row for row in rows if is_complete(row, objectives)]
    judged = judge(complete, objectives, resampled or {}, tolerance)
    means, costs = judged.draws.center, judged.draws.costs
    points = list(zip(means.tolist(), costs.tolist(), strict=True))
    spanned = [
        point for point, row in zip(points, complete, strict=True) if is_baseline(row) and not is_control(row)
    ]
    if reference is None and spanned:
        reference = reference_of(spanned)
    volume = gain = None
    if reference is not None:
        volume = share_of_ideal(points, reference)
        gain = volume - share_of_ideal(spanned, reference)
    front = [complete[place]["number"] for place in front_of(means, costs)]
    judged.found["front"] = front
    return {
        "study": study,
        "objectives": objectives.directions(),
        "reference": None if reference is None else list(reference.worst),
        "ideal": None if reference is None else list(reference.ideal),
        "hypervolume": volume,
        "hypervolume_gain": gain,
        "front": front,
        **judged.found,
        "answer": answer_of(judged),
        "history": _history(rows, complete, points, reference),
        **_spent(rows),
        "trials": rows,
    }


def write_study(result: Mapping[str, Any], folder: Path, epochs: Epochs | None = None) -> list[Path]:
    """Write ``pareto.json``, ``trials.csv``, ``pareto.html`` (with ``epochs`` of its runs) and ``pareto.png``
    into ``folder`` (made if missing).

    All is drawn before anything is written, and each file is replaced as a whole: a reader never sees half of
    one, and a failure leaves the earlier files.
    """
    contents = {
        "pareto.json": (json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode(),
        "trials.csv": trials_csv(result).encode(),
        "pareto.html": study_page([Source(result, epochs or {})]).encode(),
        "pareto.png": pareto_png(pareto_data(result)),
    }
    folder = Path(folder)
    for name, content in contents.items():
        write_bytes(folder / name, content)
    return [folder / name for name in contents]


def trials_csv(result: Mapping[str, Any]) -> str:
    """The trials as CSV, one line each: ``TRIAL_KEYS``, then other keys by alphabet, then whether the trial
    is on the front.
    """
    extra = sorted({key for trial in result["trials"] for key in trial} - set(TRIAL_KEYS))
    front = set(result["front"])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*TRIAL_KEYS, *extra, "on_front"])
    for trial in result["trials"]:
        cells = [trial.get(key) for key in (*TRIAL_KEYS, *extra)]
        writer.writerow([_cell(value) for value in cells] + [str(trial["number"] in front).lower()])
    return text.getvalue()


def _rows(trials: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    rows: dict[int, dict[str, Any]] = {}
    for trial in trials:
        missing = [key for key in ("number", "state", "policy") if trial.get(key) is None]
        if missing:
            raise ConfigError(
                f"every trial needs number, state and policy, got one without {', '.join(missing)}: "
                f"{dict(trial)!r}"
            )
        if trial["number"] in rows:
            raise ConfigError(
                f"trial numbers must be unique, got {trial['number']} twice; give each trial once"
            )
        row = {key: trial.get(key) for key in TRIAL_KEYS} | dict(trial)
        rows[trial["number"]] = finite(row | {"parameters": row["parameters"] or {}})
    return [rows[number] for number in sorted(rows)]


def _history(
    rows: Sequence[Mapping[str, Any]],
    complete: Sequence[Mapping[str, Any]],
    points: Sequence[tuple[float, float]],
    reference: Reference | None,
) -> list[dict[str, Any]]:
    """How the hypervolume grew with what was spent, by what is known of the trials now; further seeds come
    on top. A row that does not say when it ended counts as later than those that do.
    """
    known = {row["number"]: point for row, point in zip(complete, points, strict=True)}
    found: list[dict[str, Any]] = []
    front: list[tuple[float, float]] = []  # of those so far: what others add is nothing
    volume = None if reference is None else 0.0
    spent = done = 0
    for row in sorted(rows, key=lambda row: (row.get("completed") or "~", row["number"])):
        if row["number"] not in known and not row.get("completed"):
            continue  # still running
        spent += row.get("epochs_trained") or 0
        if row["number"] in known:
            done += 1
            accuracy, cost = point = known[row["number"]]
            if not any(other[0] >= accuracy and other[1] <= cost for other in front):
                points = [*front, point]
                front = [points[place] for place in pareto_front(points)]
                volume = None if reference is None else share_of_ideal(front, reference)
            ended = row.get("completed")
            time = None if ended is None else datetime.fromisoformat(ended).timestamp()
            found.append({"trials": done, "epochs_trained": spent, "hypervolume": volume, "time": time})
    return found


def _spent(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Epochs that trials have trained themselves, those that they have from others, and what the former
    cost.
    """
    runs = [run for row in rows for run in (row, *(row.get("seeds") or ()))]
    trained = sum(run.get("epochs_trained") or 0 for run in runs)
    own = [run.get("own") or {} for run in runs]
    return {
        "epochs_trained": trained,
        "epochs_shared": sum(run.get("epochs") or 0 for run in runs) - trained,
        "own": {name: sum(costs.get(name) or 0 for costs in own) for name in OWN_COSTS},
    }


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value
