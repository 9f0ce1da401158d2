"""A new run that begins with the weights of another run's checkpoint (``dbf train --resume-from``)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dbf_ray.build import prepare
from dbf_ray.cli import train
from dbf_ray.cli.options import run_command
from dbf_ray.config import Config
from dbf_ray.errors import ConfigError, WeightsError
from dbf_ray.run import find_resume, run, run_directory
from dbf_ray.training.checkpoint import list_checkpoints, load_checkpoint
from dbf_ray.training.manifest import digest_of, seal
from tests.tiny import TINY, as_options


@pytest.fixture
def begun(tiny: Callable[..., Config]) -> Path:
    """The last checkpoint of a finished run of two epochs."""
    config = tiny(name="first", training__epochs=2)
    run(config, quiet=True)
    return list_checkpoints(run_directory(config) / "checkpoints")[-1]


def test_another_configuration_begins_with_the_weights_and_says_so(
    tiny: Callable[..., Config], begun: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = begun.parents[2]
    changes = {"name": "second", "runs_dir": runs, "training.epochs": 1, "training.lr": 1e-12}
    known = {key: value for key, value in TINY.items() if not key.startswith("search.")}
    options = as_options({**known, **changes, "training.weight_decay": 0, "training.optimizer": "sgd"})
    status = run_command(train.command, [*options, "--resume-from", str(begun)])
    assert status == 0, capsys.readouterr().err
    summary = json.loads((runs / "second" / "summary.json").read_text())
    assert summary["began_with"] == {
        "run": "first",
        "epoch": 2,
        "checkpoint": str(begun),
        "sha256": digest_of(begun),
    }
    (last,) = list_checkpoints(runs / "second" / "checkpoints")
    (before, _), (after, record) = load_checkpoint(begun), load_checkpoint(last)
    assert record["facts"]["began_with"] == summary["began_with"]
    assert [epoch["epoch"] for epoch in record["epochs"]] == [0], "a run of its own"
    assert summary["forked_from"] is None
    for name, tensor in before["model"].items():
        if tensor.is_floating_point() and "running" not in name:
            torch.testing.assert_close(after["model"][name], tensor, rtol=0, atol=1e-6)


def test_a_run_that_began_so_is_resumed_by_the_same_command_alone(
    tiny: Callable[..., Config], begun: Path
) -> None:
    config = tiny(name="second", detector__weights_checkpoint=str(begun), training__epochs=2)
    run(config, quiet=True, on_epoch=lambda record, checkpoint: False)
    assert find_resume(config, run_directory(config)) is not None
    with pytest.raises(ConfigError, match=r"differs in detector\.weights_checkpoint"):
        find_resume(tiny(name="second", training__epochs=2), run_directory(config))


def test_weights_that_do_not_fit_are_refused_by_name_before_anything_is_written(
    tiny: Callable[..., Config], begun: Path
) -> None:
    changes = {"name": "second", "detector__weights_checkpoint": str(begun)}
    with pytest.raises(WeightsError, match=r"do not fit rotated_retinanet on narrow: size mismatch for \w+"):
        prepare(tiny(**changes, detector__fpn_channels=16))
    with pytest.raises(WeightsError, match=r"do not fit .*: (Missing|Unexpected) key.*head"):
        prepare(tiny(**changes, detector__name="rotated_fcos"))
    record = json.loads((begun / "record.json").read_text())
    (begun / "record.json").write_text(json.dumps({**record, "classes": ["other"]}))
    seal(begun)
    with pytest.raises(WeightsError, match=r"detector.weights_checkpoint must have the classes of this run"):
        prepare(tiny(**changes))
    with pytest.raises(WeightsError, match="not a checkpoint: it is not there"):
        prepare(tiny(name="second", detector__weights_checkpoint="nowhere/epoch-00001"))
    assert not (begun.parents[2] / "second").exists()
