"""A freezing policy in transformers' Trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from dbf_ray.freezing import Policy, policy_from_dict, policy_to_dict
from dbf_ray.integrations.staged import StagedTraining, require_find_unused


class FreezingCallback(StagedTraining, TrainerCallback, ExportableState):
    """Freezes stages of the Trainer's model; arguments and errors as of
    :class:`dbf_ray.integrations.staged.StagedTraining`. Checkpoints keep where it stands.

    On several ranks ``TrainingArguments`` must have ``ddp_find_unused_parameters=True``.

    Example:
        >>> freezing = FreezingCallback(make_policy("step", rho=4), ["bert.embeddings", "bert.encoder"])
        >>> Trainer(model, TrainingArguments(), train_dataset=data, callbacks=[freezing]).train()
    """

    def __init__(
        self, policy: Policy | Mapping[str, Any], stages: Sequence[str | Sequence[str]], **options: Any
    ) -> None:
        super().__init__(
            policy if isinstance(policy, Policy) else policy_from_dict(policy), stages, **options
        )

    def on_train_begin(  # noqa: D102
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module,
        optimizer: Optimizer,
        **others: Any,
    ) -> None:
        able = args.ddp_find_unused_parameters is True and not args.fsdp and not args.deepspeed
        require_find_unused(args.world_size, able, "TrainingArguments(ddp_find_unused_parameters=True)")
        kept = state.stateful_callbacks.get(type(self).__name__) if state.global_step else None
        inner = getattr(optimizer, "optimizer", optimizer)  # in accelerate's wrapper
        resumed = kept["attributes"]["resumed"] if kept else {}
        self.start(model, state.num_train_epochs, [inner], resumed, args.world_size)
        state.stateful_callbacks[type(self).__name__] = self.state()

    def on_epoch_begin(  # noqa: D102
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any
    ) -> None:
        self.begin(int(state.epoch or 0))

    def on_evaluate(  # noqa: D102
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, float],
        **others: Any,
    ) -> None:
        self.measure(metrics)

    def on_train_end(  # noqa: D102
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any
    ) -> None:
        self.end()

    def state(self) -> dict[str, Any]:
        """Kept in ``trainer_state.json``."""
        made_of = {"policy": policy_to_dict(self.policy), "stages": self.stages, "signals": self.signals}
        return {"args": {**made_of, **self.options}, "attributes": {"resumed": self.saved()}}
