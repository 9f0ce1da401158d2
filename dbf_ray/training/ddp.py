"""A DDP that may change what they train, and the few collectives that the loop needs.

``DistributedDataParallel`` fixes the set of trained parameters when it is made. Freezing afterwards makes it
fail or all-reduce in vain, and a parameter unfrozen afterwards is *silently* left out, so that the ranks
drift apart. Hence a new wrapper at every change, around the same module and under the same optimizer. All
functions are no-ops, or the identity, without a process group.
"""

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parallel import DistributedDataParallel

from dbf_ray.errors import DbfRayError, TrainingError

T = TypeVar("T")

# DDP's default overwrites other ranks' buffers with rank 0's in every forward, frozen ones too; newer torch
# has renamed the switch.
_OPTIONS = inspect.signature(DistributedDataParallel.__init__).parameters
_KEEP_BUFFERS: dict[str, Any] = {
    "forward_sync_buffers" if "forward_sync_buffers" in _OPTIONS else "broadcast_buffers": False
}


def world_size() -> int:
    """Number of data-parallel ranks, 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's rank, 0 without a process group."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def broadcast_object(obj: T, source: int = 0) -> T:
    """Rank ``source``'s object, on every rank. The object must be picklable; other ranks' arguments are
    ignored.
    """
    if world_size() == 1:
        return obj
    box: list[Any] = [obj if rank() == source else None]
    dist.broadcast_object_list(box, src=source)
    return box[0]


def decided(choose: Callable[[], T]) -> T:
    """What ``choose`` gives on rank 0, on every rank; a DbfRayError that it raises there too."""
    answer: Any = None
    if rank() == 0:
        try:
            answer = choose()
        except DbfRayError as error:
            answer = error
    answer = broadcast_object(answer)
    if isinstance(answer, DbfRayError):
        raise answer
    return answer


def gather_objects(obj: T) -> list[T]:
    """The objects of all ranks in rank order, on every rank. Exact for integers of any size."""
    if world_size() == 1:
        return [obj]
    rows: list[Any] = [None] * world_size()
    dist.all_gather_object(rows, obj)
    return rows


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """Sum of the ranks' tensors of one shape and dtype, in place; returns ``tensor``."""
    if world_size() > 1:
        dist.all_reduce(tensor, op=dist.ReduceOp.SUM)
    return tensor


def all_reduce_max(tensor: Tensor) -> Tensor:
    """Elementwise maximum of the ranks' tensors of one shape and dtype, in place; returns ``tensor``."""
    if world_size() > 1:
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return tensor


class DynamicDDP:
    """One copy of a module per rank, called like the module; gradients are averaged over ranks in
    ``backward``.

    Call :meth:`rebuild` once before the first call and after every change of the trained set. Gradients are
    divided by the world size (DDP's default), so a loss must be normalised by (total over the effective batch
    / world size). With one rank this is the plain module.

    Args:
        module: the module, already on its device. Its parameters and buffers must be the same objects for
            ever.
        device: where the collectives' small tensors live (nccl needs CUDA tensors); None: the CPU.
        alone: go through DDP also where there is one rank, in a process group of one; for tests of a backend.

    Attributes:
        allreduce_bytes: bytes of gradients that *this rank* has handed to all-reduce since it was made,
            counted in the communication hook, not computed; 0 with one rank.
        rebuilds: how often :meth:`rebuild` has run.
    """

    def __init__(
        self, module: nn.Module, device: torch.device | str | None = None, alone: bool = False
    ) -> None:
        self.module, self._alone = module, alone
        self.device = torch.device(device or "cpu")
        self.rebuilds = 0
        self._count = _ByteCount()
        self._wrapped: nn.Module | None = None
        self._trained: tuple[int, ...] = ()

    @property
    def allreduce_bytes(self) -> int:
        """Bytes of gradients this rank has handed to all-reduce so far."""
        return self._count.total

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the module's forward; with several ranks the following ``backward`` averages the gradients.

        Raises:
            TrainingError: with several ranks, the trained set is not the one of the last :meth:`rebuild`.
        """
        if not self._grouped():
            return self.module(*args, **kwargs)
        if self._wrapped is None or self._trained_ids() != self._trained:
            raise TrainingError(
                "the set of trained parameters is not the one that DDP was built for, so ranks would drift "
                "apart; call rebuild() on every rank after each change of what is frozen"
            )
        return self._wrapped(*args, **kwargs)

    def rebuild(self) -> None:
        """Wrap the module anew for the parameters that are trained now. A collective: every rank must call
        it.

        The first time rank 0's parameters and buffers are copied to all ranks. Later nothing is copied, only
        compared.

        Raises:
            TrainingError: on all ranks alike, if ranks differ in the names, shapes or dtypes of parameters,
                buffers and trained parameters, or (from the second time on) in the bits of any parameter or
                buffer. Names the first that differ.
        """
        self._wrapped = None  # nothing else refers to it, so the old reducer and its hooks go at once
        self._trained = self._trained_ids()
        if self._grouped():
            _compare_ranks("what is trained", _trained_names(self.module))
            _compare_ranks("the model's shape", _shapes(self.module))
            if self.rebuilds == 0:
                for tensor in _state(self.module).values():
                    dist.broadcast(tensor.data, src=0)
            _compare_ranks("the values of parameters and buffers", _checksums(self.module))
            if self._trained:
                self._wrapped = DistributedDataParallel(self.module, init_sync=False, **_KEEP_BUFFERS)
                self._wrapped.register_comm_hook(self._count, _counting_hook)
            else:
                self._wrapped = self.module
        self.rebuilds += 1

    @contextlib.contextmanager
    def no_sync(self) -> Iterator[None]:
        """Within it ``backward`` only adds to the local gradients: for all but the last micro-batch of a
        step.
        """
        if isinstance(self._wrapped, DistributedDataParallel):
            with self._wrapped.no_sync():
                yield
        else:
            yield

    def _grouped(self) -> bool:
        return world_size() > 1 or (self._alone and dist.is_initialized())

    def _trained_ids(self) -> tuple[int, ...]:
        return tuple(id(p) for p in self.module.parameters() if p.requires_grad)


def equalize_norm_buffers(module: nn.Module) -> None:
    """Make the running statistics of all norm layers equal on all ranks: the mean over ranks. A collective.

    Call it at each epoch's end, before evaluation, a checkpoint or a freeze. Where all ranks agree already,
    as on frozen norms, values keep their bits: sums are taken in float64, where W times a float32 number, and
    that divided by W, is exact for any W < 2**29.
    """
    norms = [m for m in module.modules() if isinstance(m, _NormBase)]
    buffers = [
        b
        for norm in norms
        for b in (norm.running_mean, norm.running_var, norm.num_batches_tracked)
        if b is not None
    ]
    if world_size() == 1 or not buffers:
        return
    mean = all_reduce_sum(torch.cat([b.detach().double().flatten() for b in buffers])) / world_size()
    with torch.no_grad():
        for buffer, part in zip(buffers, mean.split([b.numel() for b in buffers]), strict=True):
            buffer.copy_(part.view_as(buffer))


class _ByteCount:
    """What the communication hook counts into; knows nothing else, so that it keeps no copy alive."""

    def __init__(self) -> None:
        self.total = 0


def _counting_hook(count: _ByteCount, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:  # type: ignore[name-defined]
    buffer = bucket.buffer()
    count.total += buffer.numel() * buffer.element_size()
    work = dist.all_reduce(buffer.div_(world_size()), async_op=True)
    return work.get_future().then(lambda future: future.value()[0])


def _state(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _trained_names(module: nn.Module) -> dict[str, Any]:
    return {name: "trained" for name, p in module.named_parameters() if p.requires_grad}


def _shapes(module: nn.Module) -> dict[str, Any]:
    return {name: (tuple(t.shape), str(t.dtype)) for name, t in _state(module).items()}


def _checksums(module: nn.Module) -> dict[str, Any]:
    """A sum over each tensor's bits, taken as integers; one copy to the host for the whole module."""
    state = _state(module)
    sums = [_bits(tensor).sum(dtype=torch.int64) for tensor in state.values()]
    totals = torch.stack([s.to(sums[0].device) for s in sums]).tolist() if sums else []
    return {name: f"checksum {total}" for name, total in zip(state, totals, strict=True)}


def _bits(tensor: Tensor) -> Tensor:
    """The tensor's bits as the widest integers that they fill, [m]: eight bytes at a time sum up several
    times faster than four.
    """
    flat = tensor.detach().contiguous().flatten()
    size, start = flat.element_size() * flat.numel(), flat.element_size() * flat.storage_offset()
    wide = next(width for width in (8, 4, 2, 1) if size % width == 0 and start % width == 0)
    return flat.view({8: torch.int64, 4: torch.int32, 2: torch.int16, 1: torch.uint8}[wide])


def _compare_ranks(what: str, mine: dict[str, Any]) -> None:
    rows = gather_objects(mine)
    for number, row in enumerate(rows):
        names = [name for name in {**rows[0], **row} if rows[0].get(name) != row.get(name)]
        if names:
            shown = "; ".join(
                f"{name}: {rows[0].get(name, 'absent')} on rank 0, {row.get(name, 'absent')} on rank {number}"
                for name in names[:3]
            )
            more = f"; and {len(names) - 3} more" if len(names) > 3 else ""
            raise TrainingError(
                f"all ranks must agree on {what} before training goes on, but rank {number} differs from "
                f"rank 0 in {shown}{more}; a decision or a norm layer must have gone apart: decide by seed "
                "and epoch only, and equalise norm buffers at each epoch's end"
            )
