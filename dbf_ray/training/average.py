"""An exponential moving average of a detector's weights, to evaluate instead of the weights themselves."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from dbf_ray.detectors import Detector


class WeightAverage:
    """Polyak averaging of all parameters and buffers, frozen ones too: they go on moving towards where they
    were frozen.

    After t >= 1 updates the average keeps min(decay, (1 + t) / (10 + t)) of itself (the ramp of TensorFlow's
    ``ExponentialMovingAverage`` with ``num_updates``), so that a short training is not an average of its
    beginning. The first update copies.

    Args:
        detector: copied; the copy is what :attr:`detector` gives.
        decay: 0 < decay < 1.
    """

    def __init__(self, detector: Detector, decay: float) -> None:
        self.decay = decay
        # AveragedModel's own count comes as a tensor on the device, and asking it would wait for the device
        self._updates = 0
        self._averaged = AveragedModel(detector, multi_avg_fn=self._mix, use_buffers=True)
        self._averaged.requires_grad_(False)

    @property
    def detector(self) -> Detector:
        """The average, a detector of its own."""
        return self._averaged.module  # type: ignore[return-value]

    def update(self, detector: nn.Module) -> None:
        """Take a step's weights in."""
        self._averaged.update_parameters(detector)
        self._updates += 1

    def state_dict(self) -> dict[str, Any]:
        """Weights by the detector's names, and the number of updates."""
        return {"model": self.detector.state_dict(), "updates": self._updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo of :meth:`state_dict`."""
        self.detector.load_state_dict(state["model"])
        self._updates = state["updates"]
        self._averaged.n_averaged.fill_(self._updates)

    @torch.no_grad()
    def _mix(
        self,
        averages: tuple[Tensor, ...] | list[Tensor],
        values: tuple[Tensor, ...] | list[Tensor],
        _: Tensor | int,
    ) -> None:
        keep = min(self.decay, (1 + self._updates) / (10 + self._updates))
        if averages[0].is_floating_point():
            torch._foreach_lerp_(list(averages), list(values), 1 - keep)
        else:  # counts of batches
            for average, value in zip(averages, values, strict=True):
                average.copy_(value)
