"""Autocast within a detector: boxes, overlaps and losses are computed in float32, whatever the network runs
in, and what runs without gradients leaves nothing in autocast's cache of weights.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch


def no_autocast(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """A context without autocast on ``device``; nothing where the device knows none (meta)."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return contextlib.nullcontext()


def uncached_autocast(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """The autocast in force on ``device``, if any, without its cache of low-precision weights.

    A copy from before an optimizer step must not serve a use after it, nor a copy made without gradients a
    trained use of the same weight: older versions of torch then leave the weight without a gradient.
    """
    kind = device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.autocast(kind, dtype=torch.get_autocast_dtype(kind), cache_enabled=False)
    return contextlib.nullcontext()
