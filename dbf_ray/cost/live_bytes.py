"""Bytes of tensors that are alive at one time, counted exactly, on any device and without one."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class LiveBytes(TorchDispatchMode):
    """Within it, every tensor that an operator makes is counted until its memory is freed.

    Memory that is shared (views, slices) counts once. What an operator uses inside, and what the allocator
    keeps, is not seen; tensors from before count only if they are given. Made in the way of torch's own
    ``torch.distributed._tools.mem_tracker``.

    Args:
        known: tensors that are alive already and shall count.

    Attributes:
        now: bytes alive.
        peak: the most so far, or since :meth:`take`.
    """

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._alive: dict[int, weakref.ref[Any]] = {}
        for tensor in known:
            self._see(tensor)

    def take(self) -> int:
        """The peak; it begins anew from now."""
        peak, self.peak = self.peak, self.now
        return peak

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_iter(result):
            if isinstance(value, Tensor):
                self._see(value)
        return result

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = id(storage), storage.nbytes()
        if key in self._alive or size == 0:
            return

        def freed(_: Any) -> None:
            if self._alive.pop(key, None) is not None:
                self.now -= size

        self._alive[key] = weakref.ref(storage, freed)
        self.now += size
        self.peak = max(self.peak, self.now)
