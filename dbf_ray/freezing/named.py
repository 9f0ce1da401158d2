"""Leading parts of any module, by name, with the switch that a :class:`dbf_ray.freezing.Freezer` turns.

The module stays what it is: no class, no forward, no key of its ``state_dict`` changes. While a part is
frozen, its modules carry a ``train`` of their own that keeps them in eval mode; it goes where they go (DDP, a
deep copy, a pickle) and holds whichever module above them ``train()`` is called on.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from functools import partial

from torch import nn

from dbf_ray.errors import ConfigError
from dbf_ray.freezing.order import check_order
from dbf_ray.freezing.policies.base import require_int


class NamedStages:
    """The stages of ``module``; meets :class:`dbf_ray.freezing.stages.Staged`, but need not hold every
    parameter.

    Args:
        module: any module.
        stages: K entries in forward order, each the name of a submodule, or several. Also that of a single
            parameter (a ViT's ``class_token``).
        always_frozen: leading stages that are never trained, 0..K.

    Raises:
        ConfigError: a name is unknown, named twice, or known to be called before one of an earlier stage; a
            stage has no parameters, or shares one with another; another freezer has frozen a stage.
    """

    def __init__(
        self, module: nn.Module, stages: Sequence[str | Sequence[str]], always_frozen: int = 0
    ) -> None:
        if isinstance(stages, str) or not stages:
            raise ConfigError(
                f"stages must be a list of names of submodules, in forward order, got {stages!r}"
            )
        names: list[list[str]] = [
            [*entry] if isinstance(entry, list | tuple) else [entry]  # type: ignore[list-item]
            for entry in stages
        ]
        require_int("always_frozen", always_frozen, low=0, high=len(names), owner="freezer")
        _check_names(module, names)
        self.module, self.num_frozen, self.always_frozen = module, 0, always_frozen
        self.stages = nn.ModuleList(nn.ModuleList(_part(module, name) for name in stage) for stage in names)
        self._check_parameters(names)
        self._check_free(names)
        check_order(module, names)
        self._in_eval = [m for m in self.stages.modules() if not m.training] if module.training else []

    @property
    def num_stages(self) -> int:
        """K."""
        return len(self.stages)

    @property
    def training(self) -> bool:
        """As the module's."""
        return self.module.training

    def parameters(self) -> Iterator[nn.Parameter]:
        """All of the module's, of stages or not."""
        return self.module.parameters()

    def train(self, mode: bool = True) -> None:
        """Hold the first ``num_frozen`` stages in eval mode from now on; set those that were held to ``mode``
        again, but what was in eval mode by itself when this was made.
        """
        for number, stage in enumerate(self.stages):
            if number < self.num_frozen:
                for module in stage.modules():
                    vars(module).setdefault("train", partial(_stay_in_eval, module))
                stage.eval()
            elif held := [module for module in stage.modules() if _is_held(module)]:
                for module in held:
                    del module.train
                stage.train(mode)
        for module in self._in_eval:
            module.training = False

    def _check_parameters(self, names: list[list[str]]) -> None:
        owner: dict[int, tuple[int, str]] = {}
        for number, (stage, parts) in enumerate(zip(names, self.stages, strict=True), start=1):
            if next(parts.parameters(), None) is None:
                raise ConfigError(
                    f"each stage must have parameters, stage {number} ({', '.join(stage)}) has none; name it "
                    "together with the module before or after it"
                )
            for name in stage:
                for key, parameter in _part(self.module, name).named_parameters():
                    first, where = owner.setdefault(id(parameter), (number, name))
                    if first != number:
                        raise ConfigError(
                            f"each parameter must belong to one stage; {key} of {name} (stage {number}) is "
                            f"shared with {where} (stage {first}); put both into one stage"
                        )

    def _check_free(self, names: list[list[str]]) -> None:
        for stage, parts in zip(names, self.stages, strict=True):
            if any(map(_is_held, parts.modules())):
                raise ConfigError(
                    f"a freezer must be made on unfrozen stages, {', '.join(stage)} is frozen by another; "
                    "use that one, or apply(0) with it first; of a copy, or of a model that was saved so, "
                    "load the state_dict into a module made anew"
                )


def _stay_in_eval(module: nn.Module, mode: bool = True) -> nn.Module:
    """In the place of ``module.train`` while it is frozen."""
    return type(module).train(module, False)


def _is_held(module: nn.Module) -> bool:
    return getattr(vars(module).get("train"), "func", None) is _stay_in_eval


def _part(module: nn.Module, name: str) -> nn.Module:
    owner, _, key = name.rpartition(".")
    part = getattr(module.get_submodule(owner), key)
    return nn.ParameterList([part]) if isinstance(part, nn.Parameter) else part


def _check_names(module: nn.Module, stages: list[list[str]]) -> None:
    known = [name for name, _ in module.named_modules(remove_duplicate=False) if name]
    known += [name for name, _ in module.named_parameters(remove_duplicate=False)]
    stage_of: dict[str, int] = {}
    for number, stage in enumerate(stages, start=1):
        for name in stage:
            if name not in known:
                close = difflib.get_close_matches(str(name), known, n=1)
                children = ", ".join(dict(module.named_children()))
                hint = f"did you mean {close[0]!r}?" if close else f"its children are {children}"
                raise ConfigError(
                    f"a stage must name submodules of the {type(module).__name__}, which has no {name!r} "
                    f"(stage {number}); {hint}"
                )
            for other, where in stage_of.items():
                outer, inner = sorted((name, other), key=len)
                if inner == outer or inner.startswith(f"{outer}."):
                    within = "" if inner == outer else f", as {inner!r} is within {outer!r}"
                    raise ConfigError(
                        f"each module must be named once, {name!r} of stage {number} is named twice{within} "
                        f"(stage {where}); leave one of them out"
                    )
            stage_of[name] = number
