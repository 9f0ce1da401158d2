"""How busy a machine is: means over an epoch, of each node one set of figures, under MLflow's own names.

MLflow's monitor is not used: its thread writes to the store every ten seconds by itself, so a store that is
away ends it for ever and a resumed run has steps twice, and it sees the node of rank 0 alone. Once an epoch
into the record costs a millisecond, and is delivered as everything else.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil
import torch

MB = 1e6
UTILIZATION = 1  # NVML_GPU_UTILIZATION_SAMPLES
Figures = dict[str, float]


class SystemMeter:
    """Looks at this process's machine and device; the first epoch begins now.

    Args:
        folder: on the disk that is looked at.
        device: of this rank.
    """

    def __init__(self, folder: Path, device: torch.device | str = "cpu") -> None:
        self._folder, self._gpu = folder, _Gpu(torch.device(device))
        psutil.cpu_percent()
        self._network = _network()

    def take(self) -> tuple[str, Figures]:
        """The node's name, and its figures since the last call (percent, MB)."""
        memory, (received, sent) = psutil.virtual_memory(), _network()
        before, self._network = self._network, (received, sent)
        figures = {
            "cpu_utilization_percentage": psutil.cpu_percent(),
            "system_memory_usage_percentage": memory.percent,
            "system_memory_usage_megabytes": memory.used / MB,
            "disk_usage_percentage": psutil.disk_usage(str(self._folder)).percent,
            "network_receive_megabytes": (received - before[0]) / MB,
            "network_transmit_megabytes": (sent - before[1]) / MB,
        }
        return socket.gethostname(), figures | self._gpu.take()


def by_node(ranks: Iterable[tuple[str, Figures]]) -> dict[str, Figures]:
    """The figures of all ranks, one set for each node: ``node_0`` is that of rank 0, whatever its name."""
    nodes: dict[str, Figures] = {}
    for name, figures in ranks:
        nodes[name] = nodes.get(name, {}) | figures
    return {f"node_{number}": figures for number, figures in enumerate(nodes.values())}


def _network() -> tuple[int, int]:
    """Bytes received and sent since the machine was started; 0 where nobody counts."""
    count = psutil.net_io_counters()
    return (0, 0) if count is None else (count.bytes_recv, count.bytes_sent)


class _Gpu:
    """One NVIDIA device through the optional ``pynvml``; nothing where that does not answer."""

    def __init__(self, device: torch.device) -> None:
        self._nvml: Any = None
        self._since = 0
        if device.type == "cuda" and torch.cuda.is_available():
            try:
                import pynvml

                pynvml.nvmlInit()
                uuid = torch.cuda.get_device_properties(device).uuid
                self._handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
                self._name = f"gpu_{pynvml.nvmlDeviceGetIndex(self._handle)}"
                self._nvml = pynvml
            except Exception:  # optional figures: any refusal of driver or library means that there are none
                self._nvml = None

    def take(self) -> Figures:
        """Utilization since the last call, as far as the driver's samples reach, and memory now (percent)."""
        if self._nvml is None:
            return {}
        figures = {}
        try:
            memory = self._nvml.nvmlDeviceGetMemoryInfo(self._handle)
            figures[f"{self._name}_memory_usage_percentage"] = 100.0 * memory.used / memory.total
            _, samples = self._nvml.nvmlDeviceGetSamples(self._handle, UTILIZATION, self._since)
            self._since = max(sample.timeStamp for sample in samples)
            busy = [sample.sampleValue.uiVal for sample in samples]
            figures[f"{self._name}_utilization_percentage"] = sum(busy) / len(busy)
        except Exception:  # as above
            pass
        return figures
