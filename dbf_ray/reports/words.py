"""The answer of a study in words: what to take, what that saves and costs, and what chance leaves open."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dbf_ray.reports.answer import CONFIDENCE, SECONDS, Judged, is_noisy
from dbf_ray.reports.objectives import in_figures, noun
from dbf_ray.reports.statistics import interval
from dbf_ray.reports.trials import is_control, mean_of, setting

AXES = {"compute_ratio": "FLOPs", SECONDS: "seconds"}
MOST = 5  # schedules that a sentence names


def answer_of(judged: Judged) -> dict[str, Any]:
    """``answer`` of pareto.json: the recommended setting (the probable knee, else the cheapest that loses
    next to nothing), if there is one, its ``parts``, by what each is about, and these as one text; empty
    without a complete trial.
    """
    if not judged.rows:
        return {}
    found = {
        "shorter": _shorter(judged),
        "knee": _knee(judged),
        "within": _within(judged),
        "chance": _chance(judged),
    }
    parts = {about: part for about, part in found.items() if part}
    said = {"parts": parts, "text": " ".join(parts.values())}
    place = judged.knee if judged.knee is not None else judged.pick
    if place is None:
        return {"number": None, **said}
    row, objectives = judged.rows[place], judged.objectives
    names = ("number", "policy", "parameters", "rho", *objectives.names(), "val_map50", "command")
    return {name: row[name] for name in names if row.get(name) is not None or name == "rho"} | said


def named(row: Mapping[str, Any]) -> str:
    """A setting with its trial."""
    return f"{setting(row)} (trial {row['number']})"


def percent(share: float) -> str:
    """A probability, never 0 or 100 %: so many draws can't tell."""
    return f"{min(99, max(1, round(100 * share)))} %"


def above_in_words(row: Mapping[str, Any]) -> str:
    """Whether a schedule beats shorter full trainings, by FLOPs and by seconds; empty where that is not
    known.
    """
    above = row.get("above_shorter") or {}
    parts = [
        f"{percent(found['probability'])} by {AXES.get(axis, axis)} ({found['gain']:+.3f})"
        for axis, found in above.items()
    ]
    return ", ".join(parts)


def _knee(judged: Judged) -> str:
    if judged.knee is None:
        assert judged.likeliest is not None
        row = judged.rows[judged.likeliest]
        likely = f"the likeliest, {named(row)}, is it in {percent(row['knee_probability'])} of draws"
        return f"The knee is not resolvable with these images and seeds: {likely}; {_more(judged, 'knee')}."
    return _saves(judged, judged.knee)


def _saves(judged: Judged, place: int) -> str:
    """What a setting saves against full fine-tuning, and what it costs."""
    row, (of, by) = judged.rows[place], judged.objectives.names()
    mean, cost = judged.draws.center, judged.draws.costs
    if judged.full is None:
        return (
            f"{named(row)}: {of} {mean[place]:.3f} at {by} {in_figures(by, cost[place])}; no complete run of "
            "full to compare with."
        )
    if place == judged.full:
        return (
            f"{named(row)}: no setting tried stands out on the way from cheap to accurate, so full "
            f"fine-tuning is the one to keep: {of} {mean[place]:.3f}."
        )
    full = judged.rows[judged.full]
    saved, change = 1 - cost[place] / cost[judged.full], mean[place] - mean[judged.full]
    effect = f"{abs(change):.3f} {'more' if change > 0 else 'less'} {of}"
    less = "less" if saved >= 0 else "more"
    name = named(row)
    text = (
        f"{name}: {100 * abs(saved):.0f} % {less} {noun(by)} than full fine-tuning ({by} "
        f"{in_figures(by, cost[place])}) for {f'the same {of}' if abs(change) < 5e-4 else effect} "
        f"({mean[place]:.3f} against {mean[judged.full]:.3f}{_difference(judged, place, judged.full)})"
    )
    seconds, full_seconds = mean_of(row, SECONDS), mean_of(full, SECONDS)
    if seconds > 0 and full_seconds > 0 and by != SECONDS:
        text += f"; measured: {seconds:.0f} s of training against {full_seconds:.0f} s"
    if row.get("val_map50") is not None and full.get("val_map50") is not None:
        on_val, full_on_val = mean_of(row, "val_map50"), mean_of(full, "val_map50")
        text += f"; on val, which the search did not see: map50 {on_val:.3f} against {full_on_val:.3f}"
    return text + "."


def _difference(judged: Judged, one: int, other: int) -> str:
    """The interval of a difference, and whether it is more than chance; nothing where chance is not known."""
    if not is_noisy(judged.draws):
        return ""
    values = judged.draws.values
    low, high = interval(values[one] - values[other])
    inside = ", inside the noise" if low <= 0 <= high else ""
    return f"; difference {low:+.3f} to {high:+.3f} with 90 %{inside}"


def _within(judged: Judged) -> str:
    limit = f"{judged.tolerance:g} {judged.objectives.accuracy} against the best"
    if is_noisy(judged.draws):
        limit += f" with {100 * CONFIDENCE:.0f} %"
    if judged.pick is None:
        return (
            f"Which is the cheapest that loses less than {limit} is not resolvable with these images and "
            f"seeds; {_more(judged, 'within')}."
        )
    row, by = judged.rows[judged.pick], judged.objectives.cost
    cost = judged.draws.costs[judged.pick]
    return f"The cheapest that loses less than {limit}: {named(row)}, {by} {in_figures(by, cost)}."


def _more(judged: Judged, what: str) -> str:
    """What would be needed to tell."""
    factors = (judged.found.get("needed") or {}).get(what) or {}
    ways = {"images": "times as many images", "seeds": "times as many seeds", "both": "times as many of both"}
    known = [f"{factor} {ways[way]}" for way, factor in factors.items() if factor is not None]
    if not known:
        return "far more of both would be needed"
    return f"about {' or '.join(known)} would be needed (estimated from the measured variances)"


def schedules_on_front(judged: Judged) -> list[int]:
    """Places of the schedules on the front, observed or by posterior mean: not full, nor its shorter runs."""
    on_front = {*judged.found["front_posterior"], *judged.found.get("front", ())}
    return [
        place
        for place, row in enumerate(judged.rows)
        if row["number"] in on_front and row["policy"] != "full" and not is_control(row)
    ]


def _shorter(judged: Judged) -> str:
    """Whether a shorter full training would do as well as the schedules on the front."""
    if not judged.found["controls"]:
        return ""
    cost = judged.objectives.cost
    schedules, known = schedules_on_front(judged), _beating(judged, cost)
    by = AXES.get(cost, cost)
    told = [place for place in schedules if judged.rows[place].get("above_shorter")]
    shown = sorted(told, key=lambda place: -known.get(place, 0.0))[:MOST]
    lines = "; ".join(
        f"{setting(judged.rows[place])} {above_in_words(judged.rows[place])}"
        for place in told
        if place in shown
    ) + (f"; of {len(told) - MOST} more see the table" if len(told) > MOST else "")
    said = (
        f" (probability of lying above full trainings cut short, and by how much: {lines})" if lines else ""
    )
    if not schedules:
        return "Train shorter instead: no schedule is on the front beside full trainings cut short."
    if not known:
        text = "Whether to train shorter instead is not known: the front is cheaper than the shortest control"
    elif max(known.values()) <= 1 - CONFIDENCE:
        text = f"Train shorter instead: by {by} no schedule beats a full training cut short"
    elif max(known.values()) < CONFIDENCE:
        text = f"By {by} no schedule is told from a full training cut short"
    else:
        text = f"Better than a full training cut short, by {by}: {_surely(judged, known)}"
    seconds = _beating(judged, SECONDS) if cost != SECONDS else {}
    if sure := _surely(judged, seconds):
        text += f"; better by seconds: {sure}"
    return f"{text}{said}."


def _beating(judged: Judged, axis: str) -> dict[int, float]:
    """How probably schedules on the front beat a full training cut short, of those of which it is known."""
    above = {place: judged.rows[place].get("above_shorter") or {} for place in schedules_on_front(judged)}
    return {place: found[axis]["probability"] for place, found in above.items() if axis in found}


def _surely(judged: Judged, known: Mapping[int, float]) -> str:
    """Names of those that do with CONFIDENCE."""
    sure = [setting(judged.rows[place]) for place, share in known.items() if share >= CONFIDENCE]
    return ", ".join(sure[:MOST]) + (f" and {len(sure) - MOST} more" if len(sure) > MOST else "")


def _chance(judged: Judged) -> str:
    """What of chance is not in these figures."""
    draws = judged.draws
    if not is_noisy(draws):
        return "One seed, and nothing known of single images: differences may be chance."
    if draws.seed_sd is None:
        return (
            "One seed: intervals and probabilities are over images alone, chance of training is not in them."
        )
    if not draws.images_known:
        return "Of some trials nothing is known of single images: theirs is chance of training alone."
    return ""
