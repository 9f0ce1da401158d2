"""Whole runs: the record they leave, resuming bit for bit, stopping on a loss that is not finite."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from dbf_ray.build import prepare
from dbf_ray.config import Config, load_config
from dbf_ray.errors import ConfigError, ResourceError, TrainingError, WeightsError
from dbf_ray.locks import only_writer
from dbf_ray.run import find_resume, run, run_directory, run_name
from dbf_ray.tracking import read_epochs
from dbf_ray.training.checkpoint import list_checkpoints, load_checkpoint
from dbf_ray.training.manifest import seal

EPOCH_KEYS = {
    *(
        "epoch",
        "frozen_stages",
        "steps",
        "lr",
        "loss",
        "losses",
        "map50",
        "executed_flops",
        "device_seconds",
        "wall_seconds",
    ),
    *("data_wait_seconds", "images_per_second", "peak_memory_bytes", "allreduce_bytes", "attempt"),
}
SUMMARY_KEYS = {
    *(
        "name",
        "policy",
        "parameters",
        "rho",
        "seed",
        "epochs",
        "num_stages",
        "frozen_prefixes",
        "budget",
        "map50",
        "map50_best",
    ),
    *(
        "map50_voc07",
        "map75",
        "map50_95",
        "compute_ratio",
        "executed_flops",
        "device_seconds",
        "wall_seconds",
        "peak_memory_bytes",
    ),
    *(
        "mean_memory_bytes",
        "allreduce_bytes",
        "backbone_share",
        "world_size",
        "machine",
        "versions",
        "checkpoint",
    ),
}


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(checkpoint)[0]["model"]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_a_run_leaves_its_whole_record(tiny: Callable[..., Config]) -> None:
    config = tiny(freezing__policy="step", freezing__rho=2)
    summary = run(config, quiet=True)
    folder = run_directory(config)
    epochs = read_epochs(folder)
    assert [e["epoch"] for e in epochs] == [0, 1, 2, 3]
    assert [e["frozen_stages"] for e in epochs] == [0, 4, 0, 4]
    assert all(e.keys() >= EPOCH_KEYS for e in epochs)
    assert [e["map50"] is None for e in epochs] == [True, False, True, False]
    written = json.loads((folder / "summary.json").read_text())
    assert written.keys() >= SUMMARY_KEYS
    assert (written["rho"], written["budget"], written["frozen_prefixes"]) == (2, 2, [0, 4, 0, 4])
    assert written["compute_ratio"] == pytest.approx(prepare(config).compute_ratio)
    assert written["compute_ratio"] == summary["compute_ratio"] < 1
    assert written["executed_flops"] == sum(e["executed_flops"] for e in epochs)
    assert Path(written["checkpoint"]).is_dir()
    assert load_config(folder / "config.yaml") == config


SAMPLING = {  # draws anchors, regions and, in its backbone, which blocks to drop
    **{
        "detector__name": "oriented_rcnn",
        "detector__backbone": "dropping",
        "detector__roi_channels": 16,
    },
    **{"detector__rpn_samples": 16, "detector__roi_samples": 16},
}


@pytest.mark.parametrize(
    "detector", [{"detector__norm_eval": True}, {"detector__norm_eval": False}, SAMPLING], ids=str
)
def test_resuming_is_bit_identical_across_a_frozen_epoch(
    tiny: Callable[..., Config], detector: dict[str, Any]
) -> None:
    settings = {"freezing__policy": "step", "freezing__rho": 3, "training__optimizer": "sgd", **detector}
    straight = tiny(name="straight", **settings)
    run(straight, quiet=True)
    halves = tiny(name="halves", **settings)
    folder = run_directory(halves)
    first = run(halves, quiet=True, on_epoch=lambda record, _: record["epoch"] < 1)
    assert first["stopped_early"]
    resume = find_resume(halves, folder)
    assert resume is not None
    run(halves, quiet=True, resume=resume)
    one, two = (list_checkpoints(run_directory(config) / "checkpoints")[-1] for config in (straight, halves))
    assert same(weights(one), weights(two))
    for key in ("loss", "map50", "frozen_stages", "lr"):
        assert [e[key] for e in read_epochs(run_directory(straight))] == [e[key] for e in read_epochs(folder)]


def test_runs_are_named_by_what_varies() -> None:
    def name(**freezing: Any) -> str:
        return run_name(load_config(None, {f"freezing.{key}": value for key, value in freezing.items()}))

    assert name(policy="step", rho=3).startswith("step-rho3-")
    assert name(policy="epochs", epochs=[0, 4, 9]).startswith("epochs-epochs0_4_9-")
    assert name(policy="budget", limit=0.8, inner={"name": "step", "rho": 2}).startswith(
        "budget-inner-namestep-rho2-limit0.8-"
    )
    assert name(policy="budget", limit=0.8, inner={"rho": 2, "name": "step"}) == name(
        policy="budget", limit=0.8, inner={"name": "step", "rho": 2}
    )
    assert "-every500steps-" in name(policy="step", rho=3, interval={"unit": "steps", "every": 500})
    long = [name(policy="epochs", epochs=list(range(first, 100))) for first in (0, 1)]
    assert long[0] != long[1]
    assert all(len(text) < 100 for text in long)


def test_a_killed_run_goes_on_bit_identically(tiny: Callable[..., Config], tmp_path: Path) -> None:
    settings = {"freezing__policy": "step", "freezing__rho": 3, "training__optimizer": "adamw"}
    straight = tiny(name="straight", **settings)
    run(straight, quiet=True)
    killed = tiny(name="killed", **settings)
    file = tmp_path / "killed.yaml"
    file.write_text(yaml.safe_dump(killed.model_dump(mode="json")))
    # The third epoch is under way when the process kills itself, without a chance to clean up.
    code = f"""
        import os, signal
        from pathlib import Path
        import dbf_ray.training.loop as loop
        from dbf_ray.config import load_config
        from dbf_ray.run.runner import run
        from tests.tiny import add_narrow
        add_narrow()
        steps = 0
        original = loop.train_step
        def step(*args):
            global steps
            steps += 1
            if steps == 6:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args)
        loop.train_step = step
        run(load_config(Path({str(file)!r})), quiet=True)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    folder = run_directory(killed)
    assert [e["epoch"] for e in read_epochs(folder)] == [0, 1]
    run(killed, quiet=True, resume=find_resume(killed, folder))
    one, two = (list_checkpoints(run_directory(config) / "checkpoints")[-1] for config in (straight, killed))
    assert same(weights(one), weights(two))
    epochs = read_epochs(folder)
    assert [e["epoch"] for e in epochs] == [0, 1, 2, 3]
    assert [e["attempt"] for e in epochs] == [1, 1, 2, 2]


def test_a_loss_that_is_not_finite_stops_the_run(tiny: Callable[..., Config]) -> None:
    config = tiny(
        training__optimizer="sgd",
        training__lr=1e12,
        training__warmup_steps=0,
        training__clip_norm=None,
        training__batch_size=2,
    )
    with pytest.raises(
        TrainingError,
        match=r"classification.* in epoch 0, step \d of 4.*Lower training.lr.*detector.weights_checkpoint",
    ):
        run(config, quiet=True)
    folder = run_directory(config)
    assert list_checkpoints(folder / "checkpoints") == []
    assert "finite" in json.loads((folder / "failure.json").read_text())["reason"]


def test_the_last_good_checkpoint_survives_a_bad_epoch(
    tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    import dbf_ray.training.loop as loop

    config = tiny()
    original, calls = loop.train_step, []

    def step(*args):  # type: ignore[no-untyped-def]
        calls.append(1)
        losses = original(*args)
        return {name: loss * float("nan") for name, loss in losses.items()} if len(calls) == 4 else losses

    monkeypatch.setattr(loop, "train_step", step)
    with pytest.raises(TrainingError, match="epoch 1, step 1 of 2"):
        run(config, quiet=True)
    checkpoints = list_checkpoints(run_directory(config) / "checkpoints")
    assert [c.name for c in checkpoints] == ["epoch-00001"]
    assert all(torch.isfinite(tensor).all() for tensor in weights(checkpoints[-1]).values())


def test_a_gradient_that_is_not_finite_never_reaches_a_checkpoint(
    tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    import dbf_ray.training.loop as loop

    config = tiny(training__epochs=3)
    original, calls = torch.nn.utils.clip_grad_norm_, []

    def clip(parameters, limit):  # type: ignore[no-untyped-def]
        calls.append(1)
        parameters = list(parameters)
        if len(calls) == 4:  # the last step of the second epoch; its losses are finite
            next(p for p in parameters if p.grad is not None).grad[0] = float("inf")
        return original(parameters, limit)

    monkeypatch.setattr(loop.torch.nn.utils, "clip_grad_norm_", clip)
    with pytest.raises(TrainingError, match="gradient_norm inf in epoch 1, step 1 of 2"):
        run(config, quiet=True)
    (newest,) = list_checkpoints(run_directory(config) / "checkpoints")
    assert newest.name == "epoch-00001"
    assert all(
        torch.isfinite(tensor).all() for tensor in weights(newest).values() if tensor.is_floating_point()
    )
    monkeypatch.undo()
    assert run(config, quiet=True, resume=find_resume(config, run_directory(config)))["epochs"] == 3


def test_weights_that_overflow_in_the_last_step_never_reach_a_checkpoint(
    tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(training__epochs=2)
    original, calls = torch.optim.AdamW.step, []

    def step(self, *args):  # type: ignore[no-untyped-def]
        calls.append(1)
        original(self, *args)
        if len(calls) == 4:
            self.param_groups[0]["params"][0].data[0] = float("nan")

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    with pytest.raises(
        TrainingError, match=r"every weight must be finite, .* is not after the last step of epoch 1"
    ):
        run(config, quiet=True)
    assert [c.name for c in list_checkpoints(run_directory(config) / "checkpoints")] == ["epoch-00001"]


def test_a_finished_run_stays_finished_without_its_checkpoints(tiny: Callable[..., Config]) -> None:
    config = tiny(name="kept", training__epochs=1)
    run(config, quiet=True)
    shutil.rmtree(run_directory(config) / "checkpoints")
    with pytest.raises(ConfigError, match="is finished"):
        find_resume(config, run_directory(config))


def test_two_processes_cannot_train_in_one_folder(
    tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dbf_ray.run.runner.LOCK_PATIENCE", 0.0)
    config = tiny(training__epochs=1)
    with (
        only_writer(run_directory(config), "training", ""),
        pytest.raises(
            ResourceError, match=r"another process is training in .*; wait for it, or give another --name"
        ),
    ):
        run(config, quiet=True)


def test_a_checkpoint_that_its_writer_removes_while_it_is_read_is_told_as_that(
    tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run_directory(tiny())
    gone = folder / "checkpoints" / "epoch-00003"
    monkeypatch.setattr("dbf_ray.run.resume.newest_whole", lambda _: gone)  # whole when it was looked at
    with (
        only_writer(folder, "training", ""),
        pytest.raises(
            ResourceError, match=r"another process is training in .*; wait for it, or give another"
        ),
    ):
        find_resume(tiny(), folder)
    with pytest.raises(WeightsError, match="epoch-00003 is not a checkpoint"):
        find_resume(tiny(), folder)


def test_a_finished_or_different_run_is_not_taken_up(tiny: Callable[..., Config]) -> None:
    config = tiny(name="taken", training__epochs=1)
    run(config, quiet=True)
    with pytest.raises(ConfigError, match=r"'taken'.* is finished.*another --name"):
        find_resume(config, run_directory(config))
    (run_directory(config) / "summary.json").unlink()
    with pytest.raises(ConfigError, match=r"differs in training.lr \(0.001, now 0.5\)"):
        find_resume(tiny(name="taken", training__epochs=1, training__lr=0.5), run_directory(config))


def test_a_run_of_an_older_version_goes_on(tiny: Callable[..., Config]) -> None:
    """Its configuration lacks what came later, and says what is a default now."""
    config = tiny(name="old", training__epochs=1)
    run(config, quiet=True)
    folder = run_directory(config)
    (folder / "summary.json").unlink()
    (newest,) = list_checkpoints(folder / "checkpoints")
    record = json.loads((newest / "record.json").read_text())
    del record["config"]["detector"]["weights_mmrotate"]
    (newest / "record.json").write_text(json.dumps(record))
    seal(newest)
    assert find_resume(config, folder) == newest


def test_broken_checkpoints_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"not a checkpoint: record.json is missing"):
        load_checkpoint(tmp_path)
    (tmp_path / "record.json").write_text("{}")
    (tmp_path / "checkpoint.pt").write_bytes(b"torn")
    with pytest.raises(WeightsError, match="cannot read checkpoint"):
        load_checkpoint(tmp_path)


def test_runs_on_the_same_seed_are_equal_and_on_another_differ(tiny: Callable[..., Config]) -> None:
    losses = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        config = tiny(name=name, seed=seed, training__epochs=1)
        run(config, quiet=True)
        losses.append(read_epochs(run_directory(config))[0]["loss"])
    assert losses[0] == losses[1] != losses[2]
