"""In which order a module calls its parts, as far as that can be known without running it."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from functools import cache, partial

import torch
from torch import fx, nn

from dbf_ray.errors import ConfigError


def check_order(module: nn.Module, stages: Sequence[Sequence[str]]) -> None:
    """Refuse stages that are known to be called in another order than they are named in.

    Known is what the ``forward`` of the module that holds two of them says when it is traced symbolically
    (``torch.fx``; nothing is computed). A copy is traced, which keeps what the forward notes down. One that
    cannot be copied or traced is believed.

    Raises:
        ConfigError: naming the two modules.
    """
    calls = cache(partial(_calls, module))
    for first, second in itertools.combinations(stages, 2):
        for before, after in itertools.product(first, second):
            caller = _caller(module, before, after)
            places = [_place(name.removeprefix(f"{caller}."), calls(caller)) for name in (before, after)]
            if None not in places and places[0] > places[1]:  # type: ignore[operator]
                kind = type(module.get_submodule(caller)).__name__
                raise ConfigError(
                    f"stages must be named in forward order, but {kind} calls {after!r} before {before!r}; "
                    "exchange them"
                )


def _caller(module: nn.Module, *names: str) -> str:
    """The innermost module that holds all of ``names`` and has a forward of its own."""
    levels = zip(*(name.split(".") for name in names), strict=False)
    path = [level[0] for level in itertools.takewhile(lambda level: len(set(level)) == 1, levels)]
    while path and type(module.get_submodule(".".join(path))) in (nn.ModuleList, nn.ModuleDict):
        path.pop()
    return ".".join(path)


def _calls(module: nn.Module, name: str) -> list[str]:
    """Names of the modules that the forward of submodule ``name`` calls, in order; empty where it cannot be
    copied or traced.
    """
    caller = module.get_submodule(name)
    try:
        twin = copy.deepcopy(caller, {id(p): p for p in caller.parameters()})  # all but the parameters
        with torch.random.fork_rng(devices=[]):
            graph = _Calls().trace(twin)
    except Exception:
        return []
    return [str(node.target) for node in graph.nodes if node.op == "call_module"]


def _place(name: str, calls: Sequence[str]) -> int | None:
    """Where ``name``, what holds it or what it holds is called first."""
    return next(
        (
            i
            for i, call in enumerate(calls)
            if f"{call}.".startswith(f"{name}.") or name.startswith(f"{call}.")
        ),
        None,
    )


class _Calls(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True
