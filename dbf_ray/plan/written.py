"""A plan as a configuration file that says why, and as JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from dbf_ray.config import Config, to_dict
from dbf_ray.plan.choices import Choice
from dbf_ray.plan.coverage import Coverage
from dbf_ray.plan.plan import Plan
from dbf_ray.values import finite, flat

WIDTH = 110
SHOWN = (
    "data.name",
    "data.root",
    "data.train_split",
    "data.val_split",
    "data.classes",
    "detector.name",
    "detector.backbone",
    "training.batch_size",
    "training.optimizer",
    "training.precision",
)
"""Keys that are written also where they have the default's value."""


def to_yaml(plan: Plan) -> str:
    """The configuration: each key that is not the default's, those that a rule chose with figure and rule as
    a comment beside.
    """
    reasons = {choice.key: _reason(choice) for choice in plan.choices}
    kept = set(reasons) | set(SHOWN)
    defaults, values = flat(to_dict(Config())), flat(to_dict(plan.config))
    chosen = {key: value for key, value in values.items() if key in kept or value != defaults.get(key)}
    return "\n".join(_section(_tree(chosen), reasons)) + "\n"


def _tree(values: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *parents, leaf = key.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return tree


def _section(
    tree: Mapping[str, Any], reasons: Mapping[str, str], prefix: str = "", indent: str = ""
) -> list[str]:
    lines: list[str] = []
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and value:
            lines += [f"{indent}{name}:", *_section(value, reasons, f"{key}.", indent + "  ")]
            continue
        text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
        text = f"{name}: {text.removesuffix(chr(10)).removesuffix('...').strip()}"
        line = f"{indent}{text}"
        if key in reasons:
            beside = f"{line}  # {reasons[key]}"
            if len(beside) > WIDTH:
                comment = textwrap.wrap(reasons[key], WIDTH - len(indent) - 2)
                lines += [f"{indent}# {part}" for part in comment]
            else:
                line = beside
        lines.append(line)
    return lines


def _reason(choice: Choice) -> str:
    if choice.stays is None:
        return f"{choice.why} ({choice.rule})" if choice.why else choice.rule
    if choice.stays == choice.value:
        return f"as given, and as the rule would choose ({choice.rule})"
    why = f": {choice.why}" if choice.why else ""
    return f"as given; the rule would choose {choice.value}{why} ({choice.rule})"


def shares(
    found: Coverage | None, classes: Sequence[str], labels: Any, difficult: Any
) -> dict[str, Any] | None:
    """Coverage as JSON holds it: of all that count, of difficult objects, and by class."""
    if found is None:
        return None
    counted = ~difficult
    groups: Iterable[tuple[str, Any]] = [
        ("all", counted),
        ("difficult", difficult),
        *((f"class {name}", counted & (labels == label)) for label, name in enumerate(classes)),
    ]
    return finite(
        {name: {"objects": int(which.sum()), "covered": found.share(which)} for name, which in groups}
    )
