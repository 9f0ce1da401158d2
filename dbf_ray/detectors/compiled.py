"""``torch.compile`` for what is tensors in, tensors out in a detector, kept while stages are frozen and
unfrozen.

Why not plainly ``torch.compile(detector.dense_outputs)``. Dynamo keeps its graphs with the function's code
object, which all detectors of a process share. A graph is good for one frozen prefix (which parameters
require a gradient), one mode and one shape of images; beyond ``recompile_limit`` = 8 graphs dynamo goes back
to eager without an error: three prefixes, trained and evaluated, at two sizes are enough. Here each pair of
prefix and mode has a code object of its own, made once, kept by the detector and gone with it, and running
out of graphs is an error.

Shapes are static: with symbolic sizes a graph serves all, but tracing takes 3 times as long for a ResNet-18
and 25 times for a Swin-T (its windows depend on the size). So let all images be padded to one size; see
``Detector.least_pad_to``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import FunctionType
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dbf_ray.detectors.backbones import FrozenFeatures
from dbf_ray.errors import ResourceError, TrainingError

Backend = str | Callable[..., Any]
Outputs = Callable[["Compilable", Tensor, FrozenFeatures | None], list[Tensor]]
Kind = tuple[int, bool, bool]  # frozen prefix, training, whether the prefix's features are given


class Compilable(Protocol):
    """What has outputs to compile; :class:`.base.Detector` does."""

    training: bool
    backbone: Any

    def dense_outputs(self, images: Tensor, frozen: FrozenFeatures | None = None) -> list[Tensor]:
        """Tensors in, tensors out."""


class CompiledOutputs:
    """A detector's ``dense_outputs``, compiled once for each frozen prefix, mode and whether the prefix's
    features are given, at the first use.

    It holds no detector and is no module: parameters, their names and what wraps them stay as they are.

    Args:
        backend: of ``torch.compile``.
    """

    def __init__(self, backend: Backend = "inductor") -> None:
        self._backend = backend
        self._functions: dict[Kind, Outputs] = {}
        self._largest: dict[Kind, int] = {}

    def __call__(
        self, detector: Compilable, images: Tensor, frozen: FrozenFeatures | None = None
    ) -> list[Tensor]:
        """What ``detector.dense_outputs(images, frozen)`` gives for images [B, 3, H, W].

        In eval mode a batch is filled up with blank images to the largest seen, so that an evaluation's last
        one needs no graph of its own.

        Raises:
            TrainingError: the images come in too many shapes.
        """
        key = detector.backbone.num_frozen, detector.training, frozen is not None
        if key not in self._functions:
            self._functions[key] = self._compile(*key)
        count = len(images)
        self._largest[key] = max(count, self._largest.get(key, 0))
        if not detector.training and frozen is None and count < self._largest[key]:
            images = F.pad(images, (0, 0, 0, 0, 0, 0, 0, self._largest[key] - count))
        try:
            outputs = self._functions[key](detector, images, frozen)
        except torch._dynamo.exc.FailOnRecompileLimitHit as error:
            raise TrainingError(
                f"a compiled detector must see few shapes of images, {tuple(images.shape)} is one too many "
                f"with {key[0]} stages frozen; pad all images to one size (least_pad_to), or do not compile "
                "it"
            ) from error
        return outputs if len(images) == count else [output[:count] for output in outputs]

    def _compile(self, prefix: int, training: bool, given: bool) -> Outputs:
        name = f"dense_outputs_{'trained' if training else 'evaluated'}_{prefix}_frozen{'_given' * given}"
        function = FunctionType(
            _dense_outputs.__code__.replace(co_name=name), _dense_outputs.__globals__, name
        )
        return torch.compile(function, backend=self._backend, fullgraph=True, dynamic=False)


def _dense_outputs(detector: Compilable, images: Tensor, frozen: FrozenFeatures | None) -> list[Tensor]:
    return detector.dense_outputs(images, frozen)


@functools.cache
def check_compiler(device_type: str, backend: Backend = "inductor") -> None:
    """Compile and run one line on a device, as a training would, so that what is missing is known before.
    Once in a process.

    Raises:
        ResourceError: it does not work here.
    """
    try:
        with torch.enable_grad():
            values = torch.ones(64, device=device_type, requires_grad=True)
            torch.compile(_one_line, backend=backend, fullgraph=True, dynamic=False)(values).backward()
    except Exception as error:
        needs = "a C++ compiler (g++ or clang) and Python's headers" + (
            " and triton" if device_type == "cuda" else ""
        )
        reason = " ".join(str(error).split())[:300]
        raise ResourceError(
            f"`compile` true needs torch.compile to work on {device_type}, it does not here: "
            f"{reason or type(error).__name__}; it takes {needs}, and a Python that torch "
            f"{torch.__version__} compiles for. Install what is missing, or set `compile` false (and "
            "`engine_compile` false)"
        ) from error


def _one_line(values: Tensor) -> Tensor:
    return (values.sin() + nn.functional.relu(values)).sum()
