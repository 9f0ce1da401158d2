"""What people read of a run: its name, and in a few words what it is and what was found (Markdown)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

SYMBOLS = {"rho": "ρ"}
FIGURES = (  # of a summary: key, words, unit it is divided by, digits
    ("map50", "map50", 1.0, "{:.3f}"),
    ("merged/map50", "map50 on whole images", 1.0, "{:.3f}"),
    ("accuracy", "accuracy", 1.0, "{:.4g}"),
    ("compute_ratio", "FLOPs of full fine-tuning", 0.01, "{:.0f} %"),
    ("device_seconds", "training steps", 1.0, "{:.0f} s"),
    ("peak_memory_bytes", "peak memory", 1e6, "{:.0f} MB"),
    ("energy_joules", "energy", 1e3, "{:.1f} kJ"),
)
LONGEST = 200  # signs of a name


def setting_name(policy: str, parameters: Mapping[str, Any], varied: Mapping[str, Any] | None = None) -> str:
    """A setting in short: ``step ρ=5``; ``varied``: what else is not as in the study's base, by its key."""
    parts = [policy, *(f"{SYMBOLS.get(name, name)}={_value(value)}" for name, value in parameters.items())]
    others = [
        f"{key.rpartition('.')[2]}={_value(value)}"
        for key, value in (varied or {}).items()
        if key != "seed" and not key.startswith("freezing.")
    ]
    return " ".join([*parts, *others])[:LONGEST]


def readable_name(
    setting: str,
    detector: str,
    backbone: str,
    seed: int,
    name: str | None = None,
    function: str | None = None,
) -> str:
    """``step ρ=5 · retinanet-mobilenet_v2 · seed 0``, after a ``name`` that a person gave; of one's own
    training ``function`` that instead of detector and backbone.
    """
    what = function or f"{detector.removeprefix('rotated_')}-{backbone}"
    return " · ".join([*([name] if name else []), setting, what, f"seed {seed}"])


def run_note(
    name: str, summary: Mapping[str, Any] | None, tags: Mapping[str, str], command: str | None = None
) -> str:
    """What a training is and has found, with the command that trains it again."""
    what = [f"**{name}**"]
    if study := tags.get("dbf_ray.study"):
        role = tags.get("dbf_ray.role")
        what.append(f"trial {tags.get('dbf_ray.trial')} of study {study}" + (f" ({role})" if role else ""))
    if origin := tags.get("dbf_ray.forked_from"):
        what.append(f"begins where {origin} was after epoch {tags.get('dbf_ray.fork_epoch')}")
    lines = ["; ".join(what) + "."]
    if summary is not None:
        lines += ["", ", ".join(_figures(summary)) + f", after {summary.get('epochs')} epochs."]
    if command:
        lines += ["", "```", command, "```"]
    return "\n".join(lines)


def study_note(result: Mapping[str, Any]) -> str:
    """What a study has found so far: its answer, the command line of what it recommends, its front."""
    answer = result.get("answer") or {}
    text = answer.get("text") or "No trial is complete yet."
    lines = [text]
    if command := answer.get("command"):
        lines += ["", "```", command, "```"]
    accuracy, cost = objectives(result)
    front = [row for row in result["trials"] if row["number"] in result["front"]]
    if front:
        lines += ["", f"| front: trial | setting | {accuracy} | {cost} |", "|---|---|---|---|"]
    for row in sorted(front, key=lambda row: row.get(cost) or 0.0):
        value, between = row.get("accuracy_mean", row.get(accuracy)), interval_text(row)
        shown = f"{value:.3f}" if isinstance(value, float) else str(value)
        name = setting_name(row["policy"], row.get("parameters") or {}, row.get("overrides"))
        lines.append(f"| {row['number']} | {name} | {shown}{between} | {_number(row.get(cost))} |")
    return "\n".join(lines)


def objectives(result: Mapping[str, Any]) -> tuple[str, str]:
    """Names of a study's accuracy and cost."""
    accuracy, cost = result["objectives"]
    return accuracy, cost


def interval_text(row: Mapping[str, Any]) -> str:
    """`` (0.412 to 0.455)``; empty where it is not known."""
    between: Sequence[float] | None = row.get("accuracy_interval")
    return f" ({between[0]:.3f} to {between[1]:.3f})" if between else ""


def _figures(summary: Mapping[str, Any]) -> list[str]:
    return [
        f"{words} {form.format(summary[key] / unit)}"
        for key, words, unit, form in FIGURES
        if isinstance(summary.get(key), int | float)
    ]


def _value(value: Any) -> str:
    return json.dumps(value, separators=(",", ":")) if isinstance(value, list | dict) else str(value)


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else str(value)
