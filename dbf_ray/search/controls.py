"""The control that a schedule has to beat: full fine-tuning for fewer epochs, at the same cost."""

from __future__ import annotations

from typing import Any

from dbf_ray.config import Config


def control_overrides(config: Config, share: float) -> dict[str, Any] | None:
    """Overrides that train policy ``full`` for ``share`` of the epochs, with warm-up and milestones shortened
    alike (a cosine ends where the training does); None where no shorter training is left.
    """
    train = config.training
    epochs = max(1, round(share * train.epochs))
    if epochs >= train.epochs:
        return None
    short = epochs / train.epochs
    overrides: dict[str, Any] = {"freezing.policy": "full", "training.epochs": epochs}
    if train.warmup_steps:
        overrides["training.warmup_steps"] = round(short * train.warmup_steps)
    if train.schedule == "step":
        milestones = sorted({round(short * milestone) for milestone in train.milestones})
        overrides["training.milestones"] = [milestone for milestone in milestones if milestone >= 1]
    return overrides


def controls_of(config: Config) -> list[dict[str, Any]]:
    """Overrides of all controls that ``search.controls`` asks for, longest first, each once."""
    shares = sorted(config.search.controls, reverse=True)
    made = [control_overrides(config, share) for share in shares]
    return [one for place, one in enumerate(made) if one is not None and one not in made[:place]]
