from __future__ import annotations

import builtins
import mmap
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from dbf_ray.cost import energy as energy_module
from dbf_ray.cost import memory as memory_module
from dbf_ray.cost.energy import EnergyMeter
from dbf_ray.cost.memory import PeakMemory

BLOCK = 40_000_000  # numbers; 160 MB


def new_pages() -> mmap.mmap:
    """4 * BLOCK bytes that are resident and new to this process: what a tensor takes may be a hole that the
    allocator has kept since earlier tests.
    """
    pages = mmap.mmap(-1, 4 * BLOCK)
    np.frombuffer(pages, dtype=np.uint8).fill(1)
    return pages


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's clear_refs")
def test_the_peak_between_two_looks_is_seen_and_forgotten() -> None:
    memory = PeakMemory()
    if not memory.exact:
        pytest.skip("this machine does not let a process reset its high-water mark")
    quiet = memory.take()
    new_pages().close()
    seen = memory.take()
    assert seen - quiet > 0.9 * 4 * BLOCK
    assert memory.take() < seen - 0.9 * 4 * BLOCK


def test_without_a_resettable_mark_the_present_size_is_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(memory_module, "CLEAR", str(tmp_path / "none" / "clear_refs"))
    memory = PeakMemory()
    assert not memory.exact
    quiet = memory.take()
    held = new_pages()
    assert memory.take() - quiet > 0.9 * 4 * BLOCK
    held.close()
    assert memory.take() - quiet < 0.1 * 4 * BLOCK


def test_a_status_without_the_mark_is_no_mark(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("Name: python\nVmRSS: 10 kB\n")
    monkeypatch.setattr(memory_module, "STATUS", str(status))
    assert memory_module._high_water() is None
    status.write_text("VmPeak:\t 20 kB\nVmHWM:\t    7 kB\nVmRSS: 10 kB\n")
    assert memory_module._high_water() == 7 * 1024
    memory = PeakMemory()
    status.unlink()
    assert memory.take() > 10_000_000  # the mark has gone meanwhile: fall back
    assert not memory.exact


def test_no_energy_without_a_device_or_library(monkeypatch: pytest.MonkeyPatch) -> None:
    assert EnergyMeter("cpu").joules() is None
    monkeypatch.setattr(energy_module.torch.cuda, "is_available", lambda: True)
    original = builtins.__import__

    def no_nvml(name: str, *args: Any) -> Any:
        if name == "pynvml":
            raise ImportError(name)
        return original(name, *args)

    monkeypatch.setattr(builtins, "__import__", no_nvml)
    assert EnergyMeter("cuda").joules() is None


def test_energy_is_read_in_joules_from_the_device_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    answers: list[Any] = [5_000, 12_500, RuntimeError("gone")]

    def consumption(handle: str) -> int:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    fake = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: asked.append(uuid) or "handle",  # type: ignore[func-returns-value]
        nvmlDeviceGetTotalEnergyConsumption=consumption,
    )
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.setattr(energy_module.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        energy_module.torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="ab-cd")
    )
    meter = EnergyMeter("cuda:1")
    assert asked == ["GPU-ab-cd"]
    assert meter.joules() == 12.5
    assert meter.joules() is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_peak_on_a_device_is_that_of_its_tensors() -> None:
    memory = PeakMemory("cuda")
    memory.take()
    held = torch.ones(BLOCK, device="cuda")
    del held
    assert memory.take() >= 4 * BLOCK
    assert memory.take() < 4 * BLOCK
