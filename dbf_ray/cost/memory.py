"""Peak memory between two moments, for a few microseconds a look."""

from __future__ import annotations

import psutil
import torch

STATUS, CLEAR = "/proc/self/status", "/proc/self/clear_refs"


class PeakMemory:
    """The largest memory in use since the last look.

    On CUDA: bytes of tensors on the device (``max_memory_allocated``; the allocator's reserve and the context
    are not in it). On a CPU: bytes of this process that were resident (VmHWM; interpreter and libraries are
    in it), where Linux lets the high-water mark be reset. Elsewhere only the resident size at the moment of
    the look, so that a peak between looks is missed; ``exact`` is then False.

    Both marks are the process's own: nobody else should reset them meanwhile.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._cuda = torch.device(device) if torch.device(device).type == "cuda" else None
        self._process = psutil.Process()
        self.exact = self._cuda is not None or _reset_high_water()

    def take(self) -> int:
        """Bytes at the peak since the last call (or since this was made); starts anew from now."""
        if self._cuda is not None:
            peak = torch.cuda.max_memory_allocated(self._cuda)
            torch.cuda.reset_peak_memory_stats(self._cuda)
            return int(peak)
        high = _high_water() if self.exact else None
        if high is None or not _reset_high_water():
            self.exact = False
            return int(self._process.memory_info().rss)
        return high


def _high_water() -> int | None:
    try:
        with open(STATUS, "rb", buffering=0) as file:
            text = file.read()
        start = text.index(b"VmHWM:") + 6
        return int(text[start : text.index(b"kB", start)]) * 1024
    except (OSError, ValueError):
        return None


def _reset_high_water() -> bool:
    """proc(5): 5 written to clear_refs sets the high-water mark to the present resident size."""
    try:
        with open(CLEAR, "wb", buffering=0) as file:
            file.write(b"5")
    except OSError:
        return False
    return _high_water() is not None
