"""What a study found, as plain data, and the files that hold it.

:func:`study_result` turns trials into the content of ``pareto.json``; :func:`write_study` writes that beside
a CSV table and two plots.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dbf_ray.errors import ConfigError
from dbf_ray.files import write_bytes
from dbf_ray.reports.interactive import pareto_html
from dbf_ray.reports.objectives import USUAL, Objectives, Point, in_figures, noun
from dbf_ray.reports.pareto import Reference, knee_point, pareto_front, reference_of, share_of_ideal
from dbf_ray.reports.plots import pareto_data, pareto_png
from dbf_ray.reports.trials import is_baseline, is_complete, setting
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

    Returns:
        study, objectives, reference (its worst corner), ideal (its best one), hypervolume (by
        :func:`.share_of_ideal`), hypervolume_gain (over what the baselines span alone), front (trial
        numbers, ascending), knee (trial number or None), answer (the recommended setting and, in words, what
        it saves and costs; empty without a complete trial), epochs_trained (by all trials, those that failed
        too), epochs_shared (that trials have from others), own (what the trained ones cost), trials.

    Raises:
        ConfigError: a trial lacks a key that every trial must have, a number comes twice, or the reference is
            not usable.
    """
    rows = _rows(trials)
    complete = [row for row in rows if is_complete(row, objectives)]
    baselines = [row for row in complete if is_baseline(row)]
    points, spanned = _points(complete, objectives), _points(baselines, objectives)
    if reference is None and spanned:
        reference = reference_of(spanned)
    volume = gain = None
    if reference is not None:
        volume = share_of_ideal(points, reference)
        gain = volume - share_of_ideal(spanned, reference)
    knee = complete[knee_point(points)] if complete else None
    return {
        "study": study,
        "objectives": objectives.directions(),
        "reference": None if reference is None else list(reference.worst),
        "ideal": None if reference is None else list(reference.ideal),
        "hypervolume": volume,
        "hypervolume_gain": gain,
        "front": [complete[index]["number"] for index in pareto_front(points)],
        "knee": knee["number"] if knee else None,
        "answer": _answer(knee, complete, objectives) if knee else {},
        **_spent(rows),
        "trials": rows,
    }


def write_study(result: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write ``pareto.json``, ``trials.csv``, ``pareto.html`` and ``pareto.png`` into ``folder`` (made if
    missing).

    All is drawn before anything is written, and each file is replaced as a whole: a reader never sees half of
    one, and a failure leaves the earlier files.
    """
    data = pareto_data(result)
    contents = {
        "pareto.json": (json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode(),
        "trials.csv": trials_csv(result).encode(),
        "pareto.html": pareto_html(data).encode(),
        "pareto.png": pareto_png(data),
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


def _spent(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Epochs that trials have trained themselves, those that they have from others, and what the former
    cost.
    """
    trained = sum(row.get("epochs_trained") or 0 for row in rows)
    own = [row.get("own") or {} for row in rows]
    return {
        "epochs_trained": trained,
        "epochs_shared": sum(row.get("epochs") or 0 for row in rows) - trained,
        "own": {name: sum(costs.get(name) or 0 for costs in own) for name in OWN_COSTS},
    }


def _answer(
    knee: Mapping[str, Any], complete: Sequence[Mapping[str, Any]], objectives: Objectives
) -> dict[str, Any]:
    answer = {key: knee[key] for key in ("number", "policy", "parameters", "rho", *objectives.names())}
    if knee.get("val_map50") is not None:
        answer["val_map50"] = knee["val_map50"]
    full = next((trial for trial in complete if trial["policy"] == "full"), None)
    return answer | {"text": _in_words(knee, full, objectives)}


def _in_words(knee: Mapping[str, Any], full: Mapping[str, Any] | None, objectives: Objectives) -> str:
    """What the recommended setting saves against full fine-tuning, and what it costs."""
    name, (of, by) = f"{setting(knee)} (trial {knee['number']})", objectives.names()
    accuracy, cost = in_figures(of, knee[of]), in_figures(by, knee[by])
    if full is None:
        return f"{name}: {of} {accuracy} at {by} {cost}; no complete run of full to compare with."
    if knee["policy"] == "full":
        return (
            f"{name}: no setting tried stands out on the way from cheap to accurate, so full fine-tuning is "
            f"the one to keep: {of} {accuracy}."
        )
    saved = 1 - knee[by] / full[by]
    change = knee[of] - full[of]
    effect = (
        f"the same {of}"
        if abs(change) < 5e-4
        else f"{abs(change):.3f} {'more' if change > 0 else 'less'} {of}"
    )
    text = (
        f"{name}: {100 * abs(saved):.0f} % {'less' if saved >= 0 else 'more'} {noun(by)} than full "
        f"fine-tuning ({by} {cost}) for {effect} ({accuracy} against {in_figures(of, full[of])})"
    )
    seconds, full_seconds = knee.get("device_seconds"), full.get("device_seconds")
    if seconds and full_seconds and by != "device_seconds":
        text += f"; measured: {seconds:.0f} s of training against {full_seconds:.0f} s"
    if knee.get("val_map50") is not None and full.get("val_map50") is not None:
        text += (
            f"; on val, which the search did not see: map50 {knee['val_map50']:.3f} against "
            f"{full['val_map50']:.3f}"
        )
    return text + "."


def _points(trials: Iterable[Mapping[str, Any]], objectives: Objectives) -> list[Point]:
    return [point for point in map(objectives.point, trials) if point is not None]


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value
