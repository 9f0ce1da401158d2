"""Decoded and resized images in memory, so that each is decoded once in a training instead of once an
epoch.
"""

from __future__ import annotations

import mmap
import pickle
from typing import Any

import numpy as np
import torch

from dbf_ray.data.samples import Dataset, Sample
from dbf_ray.data.transforms import resize

# room for one image's objects; an image with more of them (some hundreds) is decoded each time
TARGET_BYTES = 1 << 16


def slot_bytes(image_size: int) -> int:
    """Bytes that one image and its objects may take in a store, whole pages."""
    return -(-(3 * image_size * image_size + TARGET_BYTES) // mmap.PAGESIZE) * mmap.PAGESIZE


class DecodedImages:
    """Samples of a data set, resized, of which the first ``budget`` bytes' worth are kept once they have been
    asked for.

    They lie in anonymous shared memory: processes that are forked from this one, as those that load images
    are, fill and read the same store, which takes no more than what was written to. Elsewhere (a process that
    is spawned) nothing is kept.

    Args:
        dataset: whose samples.
        image_size: long side in pixels that they are resized to.
        budget: bytes; images are kept in the order of their indices, as many as there is room for.
    """

    def __init__(self, dataset: Dataset, image_size: int, budget: int = 0) -> None:
        self.dataset, self.image_size = dataset, image_size
        self._pixels, self._slot = 3 * image_size * image_size, slot_bytes(image_size)
        self.kept = min(len(dataset), max(0, budget) // self._slot)
        self._memory = mmap.mmap(-1, self.kept * self._slot) if self.kept else None
        self._sizes = (
            np.frombuffer(mmap.mmap(-1, 4 * 4 * self.kept), np.int32).reshape(-1, 4) if self.kept else None
        )

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def budget_used(self) -> int:
        """Bytes that the store may come to."""
        return self.kept * self._slot

    def __getitem__(self, index: int) -> Sample:
        """Image uint8 [3, h, w] and target of ``index``, resized.

        Raises:
            DataError: the image cannot be decoded.
        """
        if self._memory is None or self._sizes is None or index >= self.kept:
            return resize(*self.dataset.load(index), self.image_size)
        done, height, width, length = self._sizes[index].tolist()
        start = index * self._slot
        if done:
            pixels = torch.frombuffer(
                self._memory, dtype=torch.uint8, count=3 * height * width, offset=start
            ).clone()
            first = start + self._pixels
            return pixels.view(3, height, width), pickle.loads(self._memory[first : first + length])
        image, target = resize(*self.dataset.load(index), self.image_size)
        data = pickle.dumps(target)
        if len(data) <= TARGET_BYTES:
            raw = image.contiguous().numpy().tobytes()
            self._memory[start : start + len(raw)] = raw
            self._memory[start + self._pixels : start + self._pixels + len(data)] = data
            self._sizes[index, 1:] = (*image.shape[-2:], len(data))
            self._sizes[index, 0] = 1  # last: another process may be reading
        return image, target

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "kept": 0, "_memory": None, "_sizes": None}
