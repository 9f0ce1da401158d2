"""Where a detector leaves autocast: boxes, overlaps and losses are computed in float32, whatever the network runs in."""

from __future__ import annotations

import contextlib
from typing import Any

import torch


def no_autocast(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """A context without autocast on ``device``; nothing where the device knows none (meta)."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return contextlib.nullcontext()
