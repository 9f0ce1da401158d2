"""Real trainings in transformers' Trainer, on a tiny model of our own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dbf_ray.errors import ConfigError
from dbf_ray.freezing import make_policy
from tests.integrations.watch import STAGES, Tiny, Watch, check_alike, data, free_port, join_ranks, keep
from tests.tiny import on_ranks

transformers = pytest.importorskip("transformers")

from dbf_ray.integrations.transformers import FreezingCallback  # noqa: E402

pytestmark = [pytest.mark.filterwarnings("ignore")]


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = Tiny()

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.net(images)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


class Watching(transformers.TrainerCallback):  # type: ignore[misc, name-defined]
    """After the freezing callback."""

    def __init__(self) -> None:
        self.watch = Watch()

    def on_step_begin(
        self, args: Any, state: Any, control: Any, model: Any, optimizer: Any, **_: Any
    ) -> None:
        model.train()
        self.watch(int(state.epoch), model.net, optimizer.optimizer)


def trainer_of(folder: Path, epochs: int, *callbacks: Any, sets: Sequence[str] = (), **options: Any) -> Any:
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=epochs,
        per_device_train_batch_size=4,
        lr_scheduler_type="constant",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        **{"save_strategy": "no", **options},
    )
    rows = [{"images": image, "labels": label} for image, label in zip(*data(3), strict=True)]
    return transformers.Trainer(
        Model(),
        arguments,
        train_dataset=rows,
        eval_dataset=dict.fromkeys(sets, rows[:4]) or rows[:4],
        callbacks=list(callbacks),
        optimizer_cls_and_kwargs=(torch.optim.SGD, {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01}),
        compute_metrics=lambda _: {"map50": 0.5},
    )


def train(
    folder: Path, epochs: int, freezing: FreezingCallback, resume: str | None = None, **options: Any
) -> Any:
    watching = Watching()
    trainer = trainer_of(folder, epochs, freezing, watching, **options)
    trainer.train(resume_from_checkpoint=resume)
    return trainer.model.net, watching.watch


def freezing(
    name: str = "step", signals: dict[str, str] | None = None, **parameters: Any
) -> FreezingCallback:
    stages = [f"net.{stage}" for stage in STAGES]
    return FreezingCallback(make_policy(name, **(parameters or {"rho": 2})), stages, signals=signals)


def test_frozen_stages_stand_still_and_thawed_ones_are_stepped(tmp_path: Path) -> None:
    net, watch = train(tmp_path, 4, freezing())
    assert watch.trained == [2, 0, 2, 0]
    watch.check(net)
    assert all(p.requires_grad for p in net.parameters())  # handed back
    assert net.train().first.training


@pytest.mark.parametrize("restore", [True, False])
@pytest.mark.parametrize("step", [6, 8])
def test_a_resumed_run_trains_what_was_trained_and_finds_its_groups(
    tmp_path: Path, step: int, restore: bool
) -> None:
    saving = {
        "save_strategy": "steps",
        "save_steps": 1,
        "restore_callback_states_from_checkpoint": restore,
    }
    whole, watch = train(tmp_path, 4, freezing(), **saving)
    resumed, again = train(tmp_path, 4, freezing(), resume=str(tmp_path / f"checkpoint-{step}"), **saving)
    assert again.trained == watch.trained[2:] == [2, 0]
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_policy_hears_what_an_evaluation_gave_and_resumes_with_it(tmp_path: Path) -> None:
    options = {"eval_strategy": "epoch", "save_strategy": "epoch"}

    def plateau() -> FreezingCallback:
        return freezing("plateau", {"map50": "eval_map50"}, patience=2, min_delta=0.0)

    _, watch = train(tmp_path, 7, plateau(), **options)
    assert watch.trained == [2, 0, 0, 2, 0, 0, 2]
    _, again = train(tmp_path, 7, plateau(), resume=str(tmp_path / "checkpoint-9"), **options)
    assert again.trained == watch.trained[3:]
    with pytest.raises(ConfigError, match="signals must name metrics of the evaluation, which has no 'map'"):
        train(tmp_path, 2, freezing("plateau", {"map50": "map"}, patience=1, min_delta=0.0), **options)


def test_evaluations_beside_the_training_and_of_several_sets_are_no_errors(tmp_path: Path) -> None:
    plateau = freezing("plateau", {"map50": "eval_b_map50"}, patience=2, min_delta=0.0)
    watching = Watching()
    trainer = trainer_of(tmp_path, 4, plateau, watching, sets=("a", "b"), eval_strategy="epoch")
    for _ in range(2):
        assert "test_b_map50" in trainer.evaluate(metric_key_prefix="test")
        trainer.train()
    assert watching.watch.trained == [2, 0, 0, 2] * 2


class Interrupt(transformers.TrainerCallback):  # type: ignore[misc, name-defined]
    """Once, in a frozen epoch."""

    done = False

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.epoch > 1 and not self.done:
            self.done = True
            raise KeyboardInterrupt


def test_training_starts_anew_after_an_interruption(tmp_path: Path) -> None:
    watching = Watching()
    trainer = trainer_of(tmp_path, 2, freezing(), watching, Interrupt())
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert not all(p.requires_grad for p in trainer.model.parameters())
    trainer.train()
    assert watching.watch.trained == [2, 0, 2, 0]
    watching.watch.check(trainer.model.net)
    assert all(p.requires_grad for p in trainer.model.parameters())


def test_several_ranks_do_not_train_what_an_interruption_left_frozen() -> None:
    model, callback = Model(), freezing()
    callback.start(model, 2, [], {}, ranks=2)
    callback.begin(0)
    callback.start(model, 2, [], {}, ranks=2)  # nothing is frozen yet
    for epoch in range(2):
        callback.begin(epoch)
    for _ in range(2):
        with pytest.raises(
            ConfigError, match=r"left 2 stages frozen; call end\(\) of this callback, then make"
        ):
            callback.start(model, 2, [], {}, ranks=2)
    callback.end()
    callback.start(model, 2, [], {}, ranks=2)


def test_a_ddp_that_does_not_find_unused_parameters_is_refused(tmp_path: Path) -> None:
    class TwoRanks(transformers.TrainingArguments):  # type: ignore[misc, name-defined]
        world_size = 2

    arguments = TwoRanks(output_dir=str(tmp_path), use_cpu=True)
    with pytest.raises(ConfigError, match=r"set TrainingArguments\(ddp_find_unused_parameters=True\)"):
        freezing().on_train_begin(arguments, transformers.TrainerState(), None, model=Model(), optimizer=None)


def rank_worker(rank: int, folder: Path, port: int) -> None:
    join_ranks(rank, port)
    pair = {"ddp_find_unused_parameters": True, "save_strategy": "steps", "save_steps": 1}
    net, watch = train(folder, 4, freezing(), **pair)
    assert watch.trained == [2, 0, 2, 0]
    if rank == 0:  # whose norm statistics DDP gives to the others
        watch.check(net)
    keep(folder, f"whole{rank}", net)
    net, watch = train(folder, 4, freezing(), resume=str(folder / "checkpoint-3"), **pair)
    assert watch.trained == [0, 2, 0]  # from within a frozen epoch
    keep(folder, f"resumed{rank}", net)


def test_two_ranks_stay_alike_and_resume_in_a_frozen_epoch(tmp_path: Path) -> None:
    on_ranks(rank_worker, tmp_path, free_port())
    check_alike(tmp_path, ["whole0", "whole1", "resumed0", "resumed1"])
