"""What whoever asks for a plan has said already, and what else it is laid over."""

from __future__ import annotations

from typing import Any

import torch

from dbf_ray.config import Config


def given_keys(config: Config) -> frozenset[str]:
    """Dotted keys that were set when ``config`` was made."""
    found: set[str] = set()

    def look(model: Any, prefix: str) -> None:
        for name in model.model_fields_set:
            value = getattr(model, name)
            if hasattr(value, "model_fields_set"):
                look(value, f"{prefix}{name}.")
            else:
                found.add(f"{prefix}{name}")

    look(config, "")
    return frozenset(found)


def on_gpu(config: Config) -> bool:
    """Whether the configured device is a GPU."""
    device = config.training.device
    return device == "cuda" or (device == "auto" and torch.cuda.is_available())


def usual_base(config: Config) -> str:
    """The shipped configuration that a plan is laid over."""
    return "base_gpu" if on_gpu(config) else "base_cpu"
