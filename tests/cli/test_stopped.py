"""A command that is sent a signal: where it ends, with which status, and what it leaves."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from dbf_ray import stopping
from dbf_ray.cli import train
from dbf_ray.cli.options import run_command
from dbf_ray.errors import ResourceError
from dbf_ray.tracking import read_epochs
from dbf_ray.training import loop


def send(number: int) -> None:
    os.kill(os.getpid(), number)


def told_after_steps(steps: int, number: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The process gets a signal within that optimizer step; which steps were made."""
    real, made = loop.train_step, list[int]()

    def step(*arguments: Any) -> Any:
        if len(made) == steps:
            send(number)
        done = real(*arguments)
        made.append(len(made))
        return done

    monkeypatch.setattr(loop, "train_step", step)
    return made


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_training_ends_after_its_step_and_goes_on_from_its_last_checkpoint(
    tiny: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
    status: int,
) -> None:
    arguments = [*tiny, "--training.epochs", "3", "--name", "a"]
    with monkeypatch.context() as patch:
        made = told_after_steps(3, number, patch)  # in its second epoch of two steps
        assert run_command(train.command, arguments) == status
    assert len(made) == 4
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"stopped by {number.name}; ")
    assert "the same command goes on" in last
    folder = tmp_path / "runs" / "a"
    assert json.loads((folder / "failure.json").read_text()) == {"reason": f"stopped by {number.name}"}
    assert run_command(train.command, arguments) == 0
    assert [record["epoch"] for record in read_epochs(folder)] == [0, 1, 2]
    assert not (folder / "failure.json").exists()


def test_mlflow_knows_that_somebody_ended_it(
    tiny: list[str], uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def status() -> str:
        client = MlflowClient(uri)
        (experiment,) = [one for one in client.search_experiments() if one.name != "Default"]
        (found,) = client.search_runs([experiment.experiment_id])
        return str(found.info.status)

    arguments = [*tiny, "--tracking.mlflow", "true", "--tracking.uri", uri, "--name", "a"]
    with monkeypatch.context() as patch:
        told_after_steps(0, signal.SIGTERM, patch)
        assert run_command(train.command, arguments) == 143
    assert status() == "KILLED"
    assert run_command(train.command, arguments) == 0
    assert status() == "FINISHED"


def test_a_second_signal_ends_a_training_within_its_step(
    tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(*arguments: Any) -> Any:
        send(signal.SIGTERM)
        assert stopping.asked() == signal.SIGTERM
        send(signal.SIGINT)
        pytest.fail("it goes on")

    monkeypatch.setattr(loop, "train_step", step)
    assert run_command(train.command, tiny) == 143


def test_an_evaluation_ends_with_its_batch(tiny: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    real, seen = loop.Evaluator.update, []

    def update(*arguments: Any) -> None:
        seen.append(arguments)
        send(signal.SIGTERM)
        real(*arguments)

    monkeypatch.setattr(loop.Evaluator, "update", update)
    assert run_command(train.command, [*tiny, "--evaluation.batch_size", "1"]) == 143
    assert len(seen) == 1


def test_any_other_command_ends_where_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    def command(arguments: object) -> None:
        send(signal.SIGTERM)
        pytest.fail("it goes on")

    assert run_command(command) == 143
    assert capsys.readouterr().err.startswith("stopped by SIGTERM; ")


def test_what_the_signal_broke_beside_is_no_error_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    def command(arguments: object) -> None:
        with stopping.holding():
            send(signal.SIGTERM)
        raise ResourceError("Ray ended")

    assert run_command(command) == 143
    assert "Ray ended" not in capsys.readouterr().err


def test_handlers_are_put_back_and_a_library_cannot_keep_them() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)

    def command(arguments: object) -> None:
        signal.signal(signal.SIGTERM, lambda *_: None)  # as a library does
        stopping.heed_again()
        send(signal.SIGTERM)
        pytest.fail("it goes on")

    assert run_command(command) == 143
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    stopping.heed_again()
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    assert stopping.asked() is None
