"""Energy of an NVIDIA device, where NVML answers."""

from __future__ import annotations

from typing import Any

import torch


class EnergyMeter:
    """Joules that the device has used, the whole board, whoever used it.

    ``pynvml`` is optional and loaded here only; without it, without CUDA, or on a device that keeps no energy
    counter, the answer is None.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._nvml: Any = None
        self._handle: Any = None
        if torch.device(device).type == "cuda" and torch.cuda.is_available():
            try:
                import pynvml

                pynvml.nvmlInit()
                uuid = torch.cuda.get_device_properties(torch.device(device)).uuid
                handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
                pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
                self._nvml, self._handle = pynvml, handle
            except Exception:  # optional figure: any refusal of driver or library means that there is none
                self._nvml = None

    def joules(self) -> float | None:
        """Joules since the driver was loaded; only differences mean something. None where nothing answers."""
        if self._nvml is None:
            return None
        try:
            return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1000
        except Exception:  # as above
            return None
