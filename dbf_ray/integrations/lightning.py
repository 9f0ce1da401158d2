"""A freezing policy in Lightning's Trainer."""

from __future__ import annotations

from typing import Any

from torch.nn.parallel import DistributedDataParallel

from dbf_ray.integrations.staged import StagedTraining, require_find_unused

try:
    from pytorch_lightning import Callback, LightningModule, Trainer
except ModuleNotFoundError:
    from lightning.pytorch import Callback, LightningModule, Trainer


class FreezingCallback(StagedTraining, Callback):
    """Freezes stages of the LightningModule; arguments and errors as of
    :class:`dbf_ray.integrations.staged.StagedTraining`.

    Let ``configure_optimizers`` take all parameters: freezing changes neither them nor their groups. On
    several ranks the strategy must be ``"ddp_find_unused_parameters_true"``.

    Example:
        >>> freezing = FreezingCallback(make_policy("step", rho=4), stages=["model.layer1", "model.layer2"])
        >>> Trainer(max_epochs=12, callbacks=[freezing]).fit(module, loader)
    """

    _loaded: dict[str, Any] = {}  # noqa: RUF012 (replaced, never changed)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: D102
        ddp = trainer.strategy.model
        able = (
            isinstance(ddp, DistributedDataParallel) and ddp.find_unused_parameters and not ddp.static_graph
        )
        require_find_unused(trainer.world_size, able, 'Trainer(strategy="ddp_find_unused_parameters_true")')
        self.start(pl_module, trainer.max_epochs, trainer.optimizers, self._loaded, trainer.world_size)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning does not begin an epoch anew in which it resumes."""
        self.begin(trainer.current_epoch)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: D102
        self.begin(trainer.current_epoch)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: D102
        if not trainer.sanity_checking:
            self.measure(trainer.callback_metrics)

    def state_dict(self) -> dict[str, Any]:  # noqa: D102
        return self.saved()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Before the fit starts, or after a trial run of a learning-rate finder."""
        self._loaded = state_dict
        if self.schedule is not None and state_dict:
            self.schedule.load_state_dict(state_dict)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:  # noqa: D102
        self.end()
        self._loaded = {}

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:  # noqa: D102
        self.end()
