"""Micro-batches: the parts of an effective batch that pass through the network one after the other, larger
where more of it is frozen.

How far they can be merged is measured. The first step with so many stages frozen is trained as configured;
then a forward and backward pass over its images is rehearsed as configured, and once more merged as far as
the first measurement allows. What is rehearsed has no consequences: no update and no all-reduce, no gradients
left, no random number drawn, nothing looked up in the feature cache or kept there, and nothing in the ledger
but its time. So it is also where memory may run out: then all ranks try a smaller merge.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _NormBase
from torch.utils._pytree import tree_iter

from dbf_ray.cost.live_bytes import LiveBytes
from dbf_ray.cost.memory import PeakMemory
from dbf_ray.detectors import Batch
from dbf_ray.training.ddp import all_reduce_max, rank, world_size

if TYPE_CHECKING:
    from dbf_ray.training.loop import Training

MicroBatch = tuple[list[Any], list[Any]]
Backward = Callable[["Training", Batch, Tensor, Callable[..., Any]], Any]
OUT_OF_MEMORY = 1 << 60  # bytes, more than any limit


def merged(micro_batches: Sequence[MicroBatch], count: int) -> list[MicroBatch]:
    """The images and targets of a step's micro-batches in ``count`` larger ones, a divisor of their number,
    in the same order.
    """
    size = len(micro_batches) // count
    groups = [micro_batches[first : first + size] for first in range(0, len(micro_batches), size)]
    return [
        ([i for images, _ in group for i in images], [t for _, targets in group for t in targets])
        for group in groups
    ]


def fitting(accumulation: int, fixed: int, grown: int, limit: int) -> list[int]:
    """Into how many micro-batches, fewer than ``accumulation`` and a divisor of it, a step can be merged
    within ``limit`` bytes; fewest first.

    A micro-batch as configured takes ``grown`` bytes over ``fixed`` ones; merged ones take as much more as
    they have more images.
    """
    fewer = [count for count in range(1, accumulation) if accumulation % count == 0]
    return [count for count in fewer if fixed + grown * (accumulation // count) <= limit]


class MicroBatches:
    """Into how many micro-batches the steps of a training are merged, the same on all ranks.

    Nothing is merged where batch norms are trained: their statistics are a micro-batch's.

    Args:
        limit: bytes of tensors that a step should stay within on each device.
        side: of the largest square that images may be padded to, in pixels; so large they are rehearsed.

    Attributes:
        counts: what was chosen so far, for each number of frozen stages.
    """

    def __init__(self, limit: int, side: int) -> None:
        self.limit, self.side = limit, side
        self.counts: dict[int, int] = {}

    def choose(self, training: Training, parts: Sequence[MicroBatch], backward: Backward) -> None:
        """Choose for the frozen stages in force, after the first step with them. A collective.

        Args:
            training: between two steps.
            parts: micro-batches of the step as configured.
            backward: as :func:`.loop.backward`.
        """
        prefix, configured = training.scheduler.num_frozen, len(parts)
        chosen = self.counts[prefix] = configured
        where = f"{configured} micro-batches a step with {prefix} stages frozen"
        if any(isinstance(module, _NormBase) and module.training for module in training.detector.modules()):
            training.progress.note(f"{where} stay as they are, since batch norms are trained")
            return
        fixed, grown, peak = self._measure(training, parts, backward)
        if peak > self.limit and rank() == 0:
            needed = "more than there is" if peak >= OUT_OF_MEMORY else f"{peak / 1e9:.2f} GB"
            warnings.warn(
                f"a micro-batch of {len(parts[0][0])} images needs {needed} with {prefix} stages frozen, the "
                f"limit is {self.limit / 1e9:g} GB; accumulate over more and smaller micro-batches",
                stacklevel=2,
            )
        for count in fitting(configured, fixed, grown, self.limit):
            *_, large = self._measure(training, merged(parts, count), backward)
            if large <= self.limit:
                chosen, peak = count, large
                break
        self.counts[prefix] = chosen
        merges = (
            f"are merged to {chosen}: {peak / 1e9:.2f} GB at most"
            if chosen < configured
            else "stay as they are"
        )
        training.progress.note(f"{where} {merges}")

    def _measure(self, training: Training, parts: Sequence[MicroBatch], backward: Backward) -> list[int]:
        """What :func:`rehearse` gives, each the largest of all ranks."""
        measured = (0, OUT_OF_MEMORY, OUT_OF_MEMORY)
        with contextlib.suppress(torch.OutOfMemoryError):
            measured = rehearse(training, parts, self.side, backward)
        training.detector.zero_grad(set_to_none=True)
        if OUT_OF_MEMORY in measured:
            torch.cuda.empty_cache()
        PeakMemory(training.device).take()  # the ledger's mark begins anew
        return all_reduce_max(torch.tensor(measured, device=training.device)).tolist()

    def record(self) -> dict[str, int]:
        """The choices, for an epoch's record."""
        return {str(prefix): count for prefix, count in sorted(self.counts.items())}

    def state_dict(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        return {"limit": self.limit, "world_size": world_size(), "counts": dict(self.counts)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo of :meth:`state_dict`; with another limit or number of ranks all is chosen anew."""
        if (state["limit"], state["world_size"]) == (self.limit, world_size()):
            self.counts = dict(state["counts"])


def rehearse(
    training: Training, parts: Sequence[MicroBatch], side: int, backward: Backward
) -> tuple[int, int, int]:
    """Prepare all of a step's micro-batches, padded to ``side`` x ``side`` pixels, and run the first two
    forward and backward, the second with the gradients of the first there, as in a step.

    Returns:
        Bytes of tensors on the device before the last pass, the most beyond them in it, and the most of all.
        On a GPU the allocator's; on a CPU those of tensors that Python sees, without what operators use
        inside, features in a cache and decoded images.

    Raises:
        torch.OutOfMemoryError: the device has no more.
    """
    detector, frozen, device = training.detector, training.frozen, training.device
    engine = None if frozen is None else frozen.engine
    most_images = 0 if engine is None else engine.largest
    peaks, before = [], 0
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []), counted(training) as take:
            batches = [detector.prepare(images, targets, (side, side)) for images, targets in parts]
            for batch in batches[:2]:
                before, peak = take()
                peaks.append(peak)
                uncached = replace(batch, orientations=None)
                backward(training, uncached, detector.at_least(batch.normalizers), detector)
            _, peak = take()
    finally:
        if engine is not None:
            engine.largest = most_images
    return before, peak - before, max(*peaks, peak)


@contextlib.contextmanager
def counted(training: Training) -> Iterator[Callable[[], tuple[int, int]]]:
    """Within it, a function that gives the bytes of tensors on the training's device now, and the most since
    the last call.
    """
    device = training.device
    if device.type == "cuda":
        memory = PeakMemory(device)
        memory.take()
        yield lambda: (torch.cuda.memory_allocated(device), memory.take())
        return
    engine = None if training.frozen is None else training.frozen.engine
    parts = (training.optimizer, training.scheduler, training.detector, training.eval_detector)
    known = [*tree_iter([part.state_dict() for part in parts]), *([] if engine is None else engine.tensors())]
    trained = [p for p in training.detector.parameters() if p.requires_grad]
    reduced = sum(p.nbytes for p in trained) if world_size() > 1 else 0  # DDP's own copy of gradients
    # what is compiled cannot be looked into
    with (
        torch.compiler.set_stance("force_eager"),
        LiveBytes(tensor for tensor in known if isinstance(tensor, Tensor)) as live,
    ):
        yield lambda: (live.now + reduced, live.take() + reduced)
