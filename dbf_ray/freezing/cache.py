"""Features of a frozen prefix, kept so that it need not be run again.

While a prefix is frozen its features are a fixed function of the image, the orientation it is seen in and the
shape it is padded to: these three are the key. The features of one prefix in one state are a *fingerprint*;
when the prefix changes or its weights move, another one begins and all that is kept is dropped.

Each rank has a *shard*, with a hard limit in bytes. A full shard takes nothing new and
throws nothing out: every image comes once an epoch, in random order, so each kept entry is as likely to be
wanted next as any that could take its place, while the least recently used one, which usual caches evict, is
the one that is wanted soonest.

What cannot be kept, written or read is a miss, never an error.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dbf_ray.files import whole_file

STORED = {"bf16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
SUFFIX = ".features"


@dataclass(frozen=True)
class Key:
    """Which features: of image ``image_id`` in ``orientation``, padded to ``size`` (height, width) in
    pixels.
    """

    image_id: str
    orientation: str
    size: tuple[int, int]

    @property
    def digest(self) -> str:
        """A name that no other key has, the same on every machine."""
        return hashlib.sha256(json.dumps([self.image_id, self.orientation, *self.size]).encode()).hexdigest()[
            :40
        ]


class FeatureCache(ABC):
    """One rank's shard.

    Args:
        budget: bytes that it may hold at most.
        dtype: in which features are stored; a key of :data:`STORED`. float16 clips what is beyond its range.
    """

    def __init__(self, budget: int, dtype: str = "bf16") -> None:
        self.budget, self.dtype = budget, STORED[dtype]
        self.bytes = 0
        self.fingerprint: str | None = None
        self._empty = False  # for sure: an earlier process may have left something

    def begin(self, fingerprint: str) -> None:
        """From now on features are of this fingerprint; those of any other are dropped."""
        if fingerprint != self.fingerprint:
            self.fingerprint, self._empty = fingerprint, False
            self.bytes = self._keep_only(fingerprint)

    def drop(self) -> None:
        """Drop all features: nothing is frozen now."""
        if not self._empty:
            self.fingerprint, self.bytes, self._empty = None, self._keep_only(None), True

    def as_kept(self, part: Tensor) -> Tensor:
        """Features as they would come out of the cache, in their own dtype: so training does not depend on
        which are found in it.
        """
        return rounded(part, self.dtype).to(part.dtype)

    def put(self, key: Key, maps: list[Tensor]) -> bool:
        """Keep one image's features [C, H, W] if there is room; returns whether they are kept."""
        needed = sum(part.numel() for part in maps) * self.dtype.itemsize + self._overhead
        if self.bytes + needed > self.budget:
            return False
        written = self._write(key, [rounded(part, self.dtype).to("cpu", copy=True) for part in maps])
        self.bytes += written
        return written > 0

    @abstractmethod
    def get(self, key: Key) -> list[Tensor] | None:
        """An image's features in the stored dtype, on the CPU, not to be written to; None where they are not
        kept.
        """

    @abstractmethod
    def close(self) -> None:
        """Forget everything; nothing is left behind."""

    _overhead = 0

    @abstractmethod
    def _keep_only(self, fingerprint: str | None) -> int:
        """Drop all others, of none all; returns the bytes kept of this one."""

    @abstractmethod
    def _write(self, key: Key, maps: list[Tensor]) -> int:
        """Keep maps of the stored dtype; returns the bytes that this takes more, 0 if it failed."""


class RamCache(FeatureCache):
    """In this process's memory. It ends with the process, and other ranks cannot read it."""

    def __init__(self, budget: int, dtype: str = "bf16") -> None:
        super().__init__(budget, dtype)
        self._entries: dict[Key, list[Tensor]] = {}

    def get(self, key: Key) -> list[Tensor] | None:
        """See :meth:`FeatureCache.get`."""
        return self._entries.get(key)

    def close(self) -> None:
        """See :meth:`FeatureCache.close`."""
        self.drop()

    def _keep_only(self, fingerprint: str | None) -> int:
        self._entries.clear()
        return 0

    def _write(self, key: Key, maps: list[Tensor]) -> int:
        if key in self._entries:
            return 0
        self._entries[key] = maps
        return nbytes(maps)


class DiskCache(FeatureCache):
    """Files under ``folder/rank-NNN/FINGERPRINT/``, one for each key, read by all ranks that see the folder
    and written by one.

    A file is written under another name and renamed, and carries a checksum: one that a crash has torn is a
    miss, and is removed. Shards survive the process. Those that an earlier start with more ranks has left
    behind are shared out among the ranks there are now.

    Args:
        folder: of all ranks.
        budget, dtype: as of :class:`FeatureCache`; the budget is this rank's.
        rank, ranks: which of how many.
    """

    _overhead = 512  # a file's first line at most

    def __init__(self, folder: Path, budget: int, dtype: str = "bf16", rank: int = 0, ranks: int = 1) -> None:
        super().__init__(budget, dtype)
        self.folder, self.rank, self.ranks = folder, rank, ranks
        self.own = folder / f"rank-{rank:03d}"
        self._shards: list[Path] = []
        self._counted: dict[Path, int] = {}  # bytes of each file that counts towards the budget
        self._usable = True

    def get(self, key: Key) -> list[Tensor] | None:
        """See :meth:`FeatureCache.get`."""
        for shard in self._shards:
            file = shard / (key.digest + SUFFIX)
            try:
                return unpack(file.read_bytes(), self.dtype)
            except FileNotFoundError:
                continue
            except ValueError:
                self._remove_torn(file)
            except OSError:
                continue
        return None

    def close(self) -> None:
        """See :meth:`FeatureCache.close`."""
        for shard in self._mine():
            shutil.rmtree(shard, ignore_errors=True)
        # several ranks may get here at once
        if not any(entry.name.startswith("rank-") for entry in entries(self.folder)):
            shutil.rmtree(self.folder, ignore_errors=True)
        self.bytes, self.fingerprint, self._shards, self._counted = 0, None, [], {}

    def _keep_only(self, fingerprint: str | None) -> int:
        self._shards = []
        for shard in self._mine():
            for other in entries(shard):
                if other.name != fingerprint:
                    shutil.rmtree(other, ignore_errors=True)
        left = [file for shard in self._mine() for kept in entries(shard) for file in entries(kept)]
        # could not be removed
        self._counted = {file: size_of(file) for file in left if file.parent.name != fingerprint}
        held = sum(self._counted.values())
        if fingerprint is None:
            return held
        for file in sorted(file for file in left if file.parent.name == fingerprint):
            size = size_of(file)
            if (file.suffix == SUFFIX and held + size <= self.budget) or not remove(file):
                self._counted[file] = size
                held += size
        self._usable = True
        try:
            (self.own / fingerprint).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self._give_up(error)
        others = [self.folder / f"rank-{other:03d}" for other in range(self.ranks) if other != self.rank]
        left = [shard for shard in sorted(entries(self.folder)) if shard not in (self.own, *others)]
        self._shards = [shard / fingerprint for shard in (self.own, *others, *left)]
        return held

    def _write(self, key: Key, maps: list[Tensor]) -> int:
        if not self._usable:
            return 0
        file = self.own / str(self.fingerprint) / (key.digest + SUFFIX)
        try:
            if file.exists():
                return 0
            data = pack(maps)
            with whole_file(file, durable=False) as partial:  # a torn one is seen by its checksum
                partial.write_bytes(data)
        except OSError as error:
            self._give_up(error)
            return 0
        self._counted[file] = len(data)
        return len(data)

    def _mine(self) -> Iterator[Path]:
        """This rank's shard, and its part of those that no rank has now."""
        for shard in sorted(entries(self.folder)):
            number = shard.name.removeprefix("rank-")
            if (
                number.isdecimal()
                and int(number) % self.ranks == self.rank
                and (int(number) == self.rank or int(number) >= self.ranks)
            ):
                yield shard

    def _remove_torn(self, file: Path) -> None:
        if remove(file):
            self.bytes -= self._counted.pop(file, 0)  # its size by now may be another

    def _give_up(self, error: OSError) -> None:
        self._usable = False
        warnings.warn(
            f"the feature cache cannot write to {self.own} ({error.strerror or error}); what it holds is "
            "used, nothing is added",
            stacklevel=4,
        )


def rounded(part: Tensor, dtype: torch.dtype) -> Tensor:
    """``part`` in ``dtype``; what is beyond float16 is clipped, after it was rounded: other types may not
    have the limit itself.
    """
    if dtype != torch.float16:
        return part.to(dtype)
    limit = torch.finfo(dtype).max
    return part.to(dtype).clamp(-limit, limit)


def pack(maps: list[Tensor]) -> bytes:
    """list[Tensor] as bytes: a checksum, a line of JSON with their shapes and memory orders, their values."""
    plain = [in_memory_order(part) for part in maps]
    head = json.dumps([[list(part.shape), last] for part, last in plain]).encode()
    values = b"".join(part.flatten().view(torch.uint8).numpy().tobytes() for part, _ in plain)
    return b"%08x" % zlib.crc32(values, zlib.crc32(head)) + head + b"\n" + values


def unpack(data: bytes, dtype: torch.dtype) -> list[Tensor]:
    """Undo of :func:`pack`.

    Raises:
        ValueError: the bytes are not whole.
    """
    head, _, body = data[8:].partition(b"\n")
    if data[:8] != b"%08x" % zlib.crc32(body, zlib.crc32(head)):
        raise ValueError("the checksum is wrong")
    values = torch.frombuffer(bytearray(body), dtype=dtype) if body else torch.empty(0, dtype=dtype)
    maps: list[Tensor] = []
    start = 0
    for shape, last in json.loads(head):
        count = torch.Size(shape).numel()
        part = values[start : start + count].view(shape)
        maps.append(part.permute(2, 0, 1) if last else part)
        start += count
    return maps


def in_memory_order(part: Tensor) -> tuple[Tensor, bool]:
    """A contiguous tensor with a map's values, [H, W, C] and True for one in channels-last memory, else [C,
    H, W] and False.
    """
    last = part.permute(1, 2, 0)
    if last.is_contiguous() and not part.is_contiguous():
        return last, True
    return part.contiguous(), False


def nbytes(maps: Iterable[Tensor]) -> int:
    """Bytes of the maps' values."""
    return sum(part.numel() * part.element_size() for part in maps)


def entries(folder: Path) -> list[Path]:
    """What is in a folder; nothing where there is none."""
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def remove(file: Path) -> bool:
    """Remove a file; whether that could be done."""
    try:
        file.unlink()
    except OSError:
        return False
    return True


def size_of(file: Path) -> int:
    """Bytes of a file, 0 where it is gone."""
    try:
        return file.stat().st_size
    except OSError:
        return 0


def fingerprint_of(state: Sequence[Tensor], *facts: object) -> str:
    """A fingerprint's name: a hash of the tensors' bits and of whatever else features depend on."""
    found = hashlib.sha256(repr(facts).encode())
    for tensor in state:
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:24]
