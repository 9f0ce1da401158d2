"""Which parameters of a run go to a comparison UI, and under which names: few, numeric where they can be, and
stable.

A UI that shows a hundred runs side by side is only readable if every run has the same short list. Everything
else is in config.yaml, which is stored as an artifact.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dbf_ray.config import FreezingConfig

# Parameter name -> place in the configuration.
PARAMETERS = {
    "policy": "freezing.policy",
    "seed": "seed",
    "epochs": "training.epochs",
    "lr": "training.lr",
    "batch_size": "training.batch_size",
    "optimizer": "training.optimizer",
    "weight_decay": "training.weight_decay",
    "backbone_lr_factor": "training.backbone_lr_factor",
    "precision": "training.precision",
    "image_size": "data.image_size",
    "data": "data.name",
    "detector": "detector.name",
    "backbone": "detector.backbone",
    "fpn_channels": "detector.fpn_channels",
    "head_convs": "detector.head_convs",
    "always_frozen_stages": "detector.frozen_stages",
    "norm_eval": "detector.norm_eval",
    "workers": "cluster.workers",
    "ema": "training.ema",
    "interval_unit": "freezing.interval.unit",
    "interval_every": "freezing.interval.every",
    "thaw_momentum": "freezing.momentum",
    "rewarm_steps": "freezing.rewarm_steps",
    "rewarm_after": "freezing.rewarm_after",
    "engine": "freezing.engine",
    "cache": "freezing.cache",
    "orientation_per": "data.orientation_per",
}
FACTS = ("rho", "num_stages", "budget", "backbone_share", "world_size")
# names that a policy's parameter must not hide; rho is the policy's own
TAKEN = {*PARAMETERS, *FACTS} - {"rho"}
LONGEST = 240  # signs of a parameter that a table can show


def parameters_of(config: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, str]:
    """The parameters to log, as text: the listed ones, the policy's own (``rho``, ``phase``) and facts known
    before training.
    """
    named = {name: _at(config, place) for name, place in PARAMETERS.items()}
    freezing = config.get("freezing") or {}
    own = {name: value for name, value in freezing.items() if name not in FreezingConfig.model_fields}
    named.update({f"policy_{name}" if name in TAKEN else name: value for name, value in own.items()})
    named.update({name: facts[name] for name in FACTS if facts.get(name) is not None})
    return {name: _as_text(value) for name, value in named.items() if value is not None}


def _as_text(value: Any) -> str:
    """A parameter as text that a table can show."""
    text = json.dumps(value) if isinstance(value, list | dict) else str(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def _at(tree: Mapping[str, Any], place: str) -> Any:
    node: Any = tree
    for part in place.split("."):
        if not isinstance(node, Mapping):
            return None
        node = node.get(part)
    return node
