"""Signals: what adaptive policies decide by, measured while a block of optimizer steps is trained. The same
value on every rank.

A signal is measured only where a policy asks for it. What it costs is in the ledger: its time in the seconds
of the steps, forward passes of the backbone in ``executed_flops``. A new signal is a class and a row in
:data:`SIGNALS`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dbf_ray.cost import Ledger
from dbf_ray.detectors import Detector
from dbf_ray.detectors.precision import no_autocast
from dbf_ray.freezing.cka import linear_cka
from dbf_ray.freezing.stages import stage_parameters
from dbf_ray.training.ddp import broadcast_object, gather_objects, rank, world_size

GRID = 4  # features are averaged over the cells of a GRID x GRID grid


@dataclass(frozen=True)
class Sources:
    """What signals may look at.

    Attributes:
        detector: its backbone's stages and features.
        ledger: adds up what a signal costs.
        probe_images: makes the fixed images [3, H_i, W_i] whose features are compared; the same on all ranks.
        probe_pad_to: (height, width) in pixels that they are padded to.
        probe_batch: of how many images a forward pass takes.
    """

    detector: Detector
    ledger: Ledger
    probe_images: Callable[[], Sequence[Tensor]]
    probe_pad_to: tuple[int, int]
    probe_batch: int = 4


class Signal(ABC):
    """One signal. All methods are called on every rank, between two optimizer steps.

    Attributes:
        complete_at_end: its value can be taken after the block's last step; else only after the evaluation
            that may follow.
    """

    complete_at_end = True

    def __init__(self, sources: Sources) -> None:
        self.sources = sources

    def begin(self, frozen: int, frozen_before: int) -> None:
        """A block begins with the first ``frozen`` stages frozen; before it there were ``frozen_before``, K
        before the first block.
        """

    def on_gradients(self) -> None:
        """Gradients of a step are complete, and not clipped yet."""

    def on_optimizer_step(self) -> None:
        """The optimizer has made a step."""

    def on_evaluation(self, metrics: dict[str, float]) -> None:
        """The detector was evaluated."""

    @abstractmethod
    def value(self) -> Any:
        """The block's value as plain JSON-able data, equal on all ranks; None if the block gave none. A
        collective.
        """

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint within a block must keep."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo of :meth:`state_dict`."""


class GradientNorms(Signal):
    """For each stage the mean over the block's steps of its gradient's Euclidean norm, after averaging over
    ranks and before clipping; None for frozen stages; None altogether where every stage is. (AutoFreeze sums
    gradients up before it takes the norm; a mean of norms keeps no gradient.)
    """

    def __init__(self, sources: Sources) -> None:
        super().__init__(sources)
        self._stages = stage_parameters(sources.detector.backbone)
        self._sums: list[Tensor | None] = [None] * len(self._stages)
        self._steps = 0

    def begin(self, frozen: int, frozen_before: int) -> None:
        """Start anew."""
        self._sums, self._steps = [None] * len(self._stages), 0

    def on_gradients(self) -> None:
        """Add a step's norms, without waiting for the device."""
        self._steps += 1
        for index, stage in enumerate(self._stages):
            gradients = [p.grad for p in stage if p.grad is not None]
            if gradients:
                norm, known = torch.nn.utils.get_total_norm(gradients).double(), self._sums[index]
                self._sums[index] = norm if known is None else known + norm

    def value(self) -> list[float | None] | None:
        """Means over steps and ranks."""
        mine = [None if total is None else float(total) / self._steps for total in self._sums]
        rows = gather_objects(mine)
        means = [None if None in column else sum(column) / len(rows) for column in zip(*rows, strict=True)]
        return None if all(mean is None for mean in means) else means

    def state_dict(self) -> dict[str, Any]:
        """Sums so far."""
        return {"sums": list(self._sums), "steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Sums so far."""
        self._sums, self._steps = list(state["sums"]), state["steps"]


class EffectivePerturbation(Signal):
    """P = norm(sum of updates) / sum of norms, 0..1, over the block's optimizer steps and all trained
    backbone parameters; None where none is.

    Keeps two copies of these parameters while it is measured.
    """

    def __init__(self, sources: Sources) -> None:
        super().__init__(sources)
        self._all = [p for stage in stage_parameters(sources.detector.backbone) for p in stage]
        self._trained: list[nn.Parameter] = []
        self._start: list[Tensor] = []
        self._last: list[Tensor] = []
        self._path: Tensor | None = None

    def begin(self, frozen: int, frozen_before: int) -> None:
        """Remember where the parameters are."""
        self._trained = [p for p in self._all if p.requires_grad]
        self._start = [p.detach().clone() for p in self._trained]
        self._last = [p.clone() for p in self._start]
        self._path = None

    @torch.no_grad()
    def on_optimizer_step(self) -> None:
        """Add the step's length, without waiting for the device."""
        if not self._trained:
            return
        length = torch.nn.utils.get_total_norm(
            [p - last for p, last in zip(self._trained, self._last, strict=True)]
        ).double()
        self._path = length if self._path is None else self._path + length
        for p, last in zip(self._trained, self._last, strict=True):
            last.copy_(p)

    @torch.no_grad()
    def value(self) -> float | None:
        """Net way over way; 0 where nothing moved."""
        result = None
        if self._path is not None:
            way = float(self._path)
            net = float(
                torch.nn.utils.get_total_norm(
                    [p - start for p, start in zip(self._trained, self._start, strict=True)]
                )
            )
            result = min(1.0, net / way) if way > 0 else 0.0
        self._trained, self._start, self._last, self._path = [], [], [], None
        return broadcast_object(result)

    def state_dict(self) -> dict[str, Any]:
        """Where the block started, and the way so far. The last step's parameters are the checkpoint's
        own.
        """
        return {"start": self._start, "path": self._path}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Call it when the stages are frozen as they were."""
        self._start, self._path = list(state["start"]), state["path"]
        self._trained = [p for p in self._all if p.requires_grad] if self._start else []
        self._last = [p.detach().clone() for p in self._trained]


class FeatureDrift(Signal):
    """D = 1 - linear CKA, 0..1, of the last stage's features now and at the last unfreezing; None after a
    block whose backbone was frozen.

    Examples are the cells of a 4 x 4 grid over the padded pad_to, whose features are averaged, of each probe
    image; in eval mode and float32. Each rank computes a share of the images.
    """

    def __init__(self, sources: Sources) -> None:
        super().__init__(sources)
        self._num_stages = len(sources.detector.backbone.stages)
        self._reference: Tensor | None = None
        self._measures = False

    def begin(self, frozen: int, frozen_before: int) -> None:
        """Take the reference features when the backbone is unfrozen."""
        self._measures = frozen < self._num_stages
        if self._measures and (frozen_before >= self._num_stages or self._reference is None):
            self._reference = self._features()

    def value(self) -> float | None:
        """1 - CKA against the reference."""
        if not self._measures or self._reference is None:
            return None
        return broadcast_object(1 - linear_cka(self._reference, self._features()))

    def state_dict(self) -> dict[str, Any]:
        """The reference features [n, C] on the CPU."""
        return {"reference": self._reference, "measures": self._measures}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See :meth:`state_dict`."""
        reference = state["reference"]
        self._reference, self._measures = None if reference is None else reference.cpu(), state["measures"]

    @torch.no_grad()
    def _features(self) -> Tensor:
        """[images x 16, C] float32 on the CPU, of all ranks' shares, in an order that does not depend on the
        number of ranks.
        """
        detector = self.sources.detector
        mode = detector.training
        detector.eval()
        images = list(self.sources.probe_images())[rank() :: world_size()]
        parts = []
        with no_autocast(detector.mean.device):
            for first in range(0, len(images), self.sources.probe_batch):
                batch = detector.prepare(
                    images[first : first + self.sources.probe_batch], pad_to=self.sources.probe_pad_to
                )
                maps = detector.backbone(batch.images)[-1]
                parts.append(
                    nn.functional.adaptive_avg_pool2d(maps, GRID)
                    .flatten(2)
                    .transpose(1, 2)
                    .flatten(0, 1)
                    .float()
                    .cpu()
                )
                self.sources.ledger.add_probe(len(batch.images), batch.padded)
        detector.train(mode)
        shares = [list(part) for part in gather_objects(torch.cat(parts).split(GRID**2) if parts else [])]
        count = sum(map(len, shares))
        # in the order of the images
        return torch.cat([shares[index % len(shares)][index // len(shares)] for index in range(count)])


class Score(Signal):
    """map50 of the block's last evaluation, None if there was none in it."""

    complete_at_end = False

    def __init__(self, sources: Sources) -> None:
        super().__init__(sources)
        self._score: float | None = None

    def begin(self, frozen: int, frozen_before: int) -> None:
        """Start anew."""
        self._score = None

    def on_evaluation(self, metrics: dict[str, float]) -> None:
        """Remember map50."""
        self._score = metrics["map50"]

    def value(self) -> float | None:
        """Rank 0's; metrics are gathered, so all ranks have the same."""
        return broadcast_object(self._score)

    def state_dict(self) -> dict[str, Any]:
        """The score."""
        return {"score": self._score}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The score."""
        self._score = state["score"]


SIGNALS: dict[str, type[Signal]] = {
    "gradient_norms": GradientNorms,
    "effective_perturbation": EffectivePerturbation,
    "feature_drift": FeatureDrift,
    "map50": Score,
}
