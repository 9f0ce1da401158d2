"""Real trainings in Lightning's Trainer, and what callbacks of this kind get wrong in its tracker."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from dbf_ray.errors import ConfigError
from dbf_ray.freezing import make_policy
from tests.integrations.watch import STAGES, Tiny, Watch, check_alike, data, free_port, join_ranks, keep
from tests.tiny import on_ranks

pl = pytest.importorskip("pytorch_lightning")

from dbf_ray.integrations.lightning import FreezingCallback  # noqa: E402

pytestmark = [pytest.mark.filterwarnings("ignore")]


class Module(pl.LightningModule):  # type: ignore[misc, name-defined]
    def __init__(self, lr: float = 0.05) -> None:
        super().__init__()
        self.model, self.lr, self.watch = Tiny(), lr, Watch()

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        self.watch(self.trainer.current_epoch, self.model, self.optimizers().optimizer)
        return nn.functional.cross_entropy(self.model(batch[0]), batch[1])

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        self.log("val_map50", float(self.trainer.current_epoch))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9, weight_decay=0.01)


def trainer(folder: Path, epochs: int, *callbacks: Any, **options: Any) -> Any:
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
    quiet["enable_checkpointing"] = any(isinstance(c, pl.callbacks.ModelCheckpoint) for c in callbacks)
    return pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        default_root_dir=folder,
        callbacks=list(callbacks),
        **{**quiet, "limit_val_batches": 0, **options},
    )


def freezing(
    name: str = "step", signals: dict[str, str] | None = None, **parameters: Any
) -> FreezingCallback:
    stages = [f"model.{stage}" for stage in STAGES]
    return FreezingCallback(make_policy(name, **(parameters or {"rho": 2})), stages, signals)


def loader(batches: int = 3) -> DataLoader[tuple[Tensor, ...]]:
    return DataLoader(TensorDataset(*data(batches)), batch_size=4)


def test_frozen_stages_stand_still_and_thawed_ones_are_stepped(tmp_path: Path) -> None:
    module = Module()
    trainer(tmp_path, 4, freezing()).fit(module, loader())
    assert module.watch.trained == [2, 0, 2, 0]
    module.watch.check(module.model)
    assert all(p.requires_grad for p in module.parameters())  # handed back
    assert module.model.first.train().training


@pytest.mark.parametrize(
    ("every", "kept", "epoch"),
    [
        ({"every_n_epochs": 1}, "epoch=1-step=6", 2),
        ({"every_n_train_steps": 1}, "epoch=1-step=4", 1),  # within a frozen epoch
        ({"every_n_train_steps": 1}, "epoch=1-step=6", 2),
        ({"every_n_train_steps": 1}, "epoch=2-step=8", 2),  # within one after an unfreeze
    ],
)
def test_a_resumed_run_trains_what_was_trained_and_finds_its_groups(
    tmp_path: Path, every: dict[str, int], kept: str, epoch: int
) -> None:
    keep = pl.callbacks.ModelCheckpoint(dirpath=tmp_path, filename="{epoch}-{step}", save_top_k=-1, **every)
    whole, resumed = Module(), Module()
    trainer(tmp_path, 4, freezing(), keep).fit(whole, loader())
    trainer(tmp_path, 4, freezing()).fit(resumed, loader(), ckpt_path=str(tmp_path / f"{kept}.ckpt"))
    assert resumed.watch.trained == whole.watch.trained[epoch:]
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_a_policy_hears_what_validation_logged_and_nothing_where_there_was_none(tmp_path: Path) -> None:
    module, plateau = Module(), freezing("plateau", {"map50": "val_map50"}, patience=1, min_delta=0.0)
    heard = []
    decide = type(plateau.policy).decide

    class Heard(type(plateau.policy)):  # type: ignore[misc]
        name = "plateau"

        def decide(self, t: int, horizon: Any, signals: Any, state: Any) -> Any:
            heard.append(signals["map50"])
            return decide(self, t, horizon, signals, state)

    plateau.policy = Heard(patience=1, min_delta=0.0)
    options = {"limit_val_batches": 1.0, "check_val_every_n_epoch": 2, "num_sanity_val_steps": 1}
    trainer(tmp_path, 5, plateau, **options).fit(module, loader(), loader(1))
    assert heard == [None, None, 1.0, None, 3.0]
    wrong = freezing("plateau", {"map50": "map"}, patience=1, min_delta=0.0)
    validating = trainer(tmp_path, 2, wrong, limit_val_batches=1.0)
    with pytest.raises(ConfigError, match="signals must name metrics of the evaluation, which has no 'map'"):
        validating.fit(Module(), loader(), loader(1))


def test_a_learning_rate_finder_leaves_the_schedule_where_it_was(tmp_path: Path) -> None:
    plain, searched = Module(), Module()
    trainer(tmp_path, 3, freezing()).fit(plain, loader())
    find = pl.callbacks.LearningRateFinder(num_training_steps=7, update_attr=False, early_stop_threshold=None)
    trainer(tmp_path, 3, find, freezing()).fit(searched, loader())
    assert searched.watch.trained[-3:] == plain.watch.trained == [2, 0, 2]
    for name, value in plain.model.state_dict().items():
        assert torch.equal(value, searched.model.state_dict()[name]), name


def test_one_callback_serves_fit_after_fit(tmp_path: Path) -> None:
    module, callback = Module(), freezing()
    for _ in range(2):
        trainer(tmp_path, 2, callback).fit(module, loader())
    assert module.watch.trained == [2, 0, 2, 0]
    with pytest.raises(RuntimeError, match="stop"):
        trainer(tmp_path, 2, callback, Stop()).fit(module, loader())
    assert all(p.requires_grad for p in module.parameters())


class Stop(pl.Callback):  # type: ignore[misc, name-defined]
    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        if trainer.current_epoch == 1:
            raise RuntimeError("stop")


def test_an_optimizer_that_lacks_a_parameter_is_refused(tmp_path: Path) -> None:
    class Lacking(Module):
        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.model.head.parameters(), lr=0.1)

    with pytest.raises(ConfigError, match="of stage 1 3 of 3 are in none"):
        trainer(tmp_path, 2, freezing()).fit(Lacking(), loader())


def test_several_optimizers_have_all_parameters_together(tmp_path: Path) -> None:
    class Pair(Module):
        automatic_optimization = False
        parts = (["first", "second"], ["head"])

        def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
            self.frozen = not self.model.first[0].weight.requires_grad

        def configure_optimizers(self) -> list[torch.optim.Optimizer]:
            parts = [[getattr(self.model, name) for name in names] for names in self.parts]
            return [torch.optim.SGD(nn.ModuleList(part).parameters(), lr=0.1) for part in parts]

    class Lacking(Pair):
        parts = (["first"], ["head"])

    module = Pair()
    trainer(tmp_path, 2, freezing()).fit(module, loader(1))
    assert module.frozen
    with pytest.raises(ConfigError, match="of stage 2 3 of 3 are in none"):
        trainer(tmp_path, 2, freezing()).fit(Lacking(), loader(1))


def test_a_ddp_that_does_not_find_unused_parameters_is_refused() -> None:
    pair = SimpleNamespace(world_size=2, strategy=SimpleNamespace(model=Module()), optimizers=[])
    with pytest.raises(
        ConfigError, match=r'on 2 ranks .* set Trainer\(strategy="ddp_find_unused_parameters_true"'
    ):
        freezing().on_fit_start(pair, Module())


def rank_worker(rank: int, folder: Path, port: int) -> None:
    join_ranks(rank, port)
    pair = {"devices": 2, "strategy": "ddp_find_unused_parameters_true", "use_distributed_sampler": False}
    rows = TensorDataset(*data(4))  # a rank's batches are alike: Lightning resumes at an epoch's first
    own = DataLoader(rows, batch_size=4, sampler=DistributedSampler(rows, 2, rank, shuffle=False))
    saved = pl.callbacks.ModelCheckpoint(
        dirpath=folder, filename="{step}", save_top_k=-1, every_n_train_steps=1
    )
    whole, resumed = Module(), Module()
    trainer(folder, 4, freezing(), saved, **pair).fit(whole, own)
    assert whole.watch.trained == [2, 0, 2, 0]
    if rank == 0:  # whose norm statistics DDP gives to the others
        whole.watch.check(whole.model)
    keep(folder, f"whole{rank}", whole.model)
    trainer(folder, 4, freezing(), **pair).fit(resumed, own, ckpt_path=str(folder / "step=3.ckpt"))
    assert resumed.watch.trained == [0, 2, 0]  # from within a frozen epoch
    keep(folder, f"resumed{rank}", resumed.model)


def test_two_ranks_stay_alike_and_resume_in_a_frozen_epoch(tmp_path: Path) -> None:
    on_ranks(rank_worker, tmp_path, free_port())
    check_alike(tmp_path, ["whole0", "whole1", "resumed0", "resumed1"])
