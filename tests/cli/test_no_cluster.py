"""Every command that uses Ray, where the cluster does not answer or Ray does not start."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray

from dbf_ray.cli import demo, prepare_data, search, train
from dbf_ray.cluster.ray_runtime import Resources

Refused = Callable[..., str]
COMMANDS: dict[str, tuple[Any, list[str]]] = {
    "train": (train.command, ["{tiny}", "--cluster.use_ray", "true"]),
    "search": (search.command, ["{tiny}", "--space", "rho"]),
    "demo": (demo.command, []),
    "split": (
        prepare_data.command,
        ["split", "{root}", "{tmp}/out", "--size", "64", "--overlap", "8", "--ray"],
    ),
}


@pytest.fixture
def asked(tiny: list[str], root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The arguments of a command, called in an empty folder where no Ray is connected."""
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(demo, "fetch_weights", lambda: pytest.fail("fetched in vain"))
    monkeypatch.setattr("dbf_ray.cluster.ray_runtime.local_resources", lambda: Resources(2, 0, "here"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.chdir(tmp_path)

    def arguments(name: str) -> tuple[Any, list[str]]:
        command, words = COMMANDS[name]
        given = [part for word in words for part in (tiny if word == "{tiny}" else [word])]
        return command, [word.format(root=root, tmp=tmp_path) for word in given]

    return arguments


@pytest.mark.parametrize("way", ["environment", "option"])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_cluster_that_does_not_answer(
    asked: Any, name: str, way: str, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray was asked"))
    command, arguments = asked(name)
    option = "--address" if name == "split" else "--cluster.address"
    if way == "environment":
        monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
        option = "RAY_ADDRESS"
    else:
        arguments += [option, "127.0.0.1:1"]
    begun = time.monotonic()
    line = refused(command, arguments)
    assert time.monotonic() - begun < 15
    assert "cannot reach the Ray cluster at 127.0.0.1:1: " in line
    assert f"correct {option}, or " in line


@pytest.mark.parametrize("name", COMMANDS)
def test_a_folder_too_long_for_sockets(
    asked: Any, name: str, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray was asked"))
    monkeypatch.setenv("RAY_TMPDIR", "/tmp/" + "long" * 20)
    command, arguments = asked(name)
    assert "choose a shorter one: RAY_TMPDIR=/tmp" in refused(command, arguments)


@pytest.mark.parametrize("name", ["train", "search", "split"])
def test_a_ray_that_does_not_come_up_in_time(
    asked: Any, name: str, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(**_: Any) -> None:
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(ray, "init", busy)
    command, arguments = asked(name)
    line = refused(command, arguments)
    assert (
        "Ray cannot be started on this machine: The current node timed out during startup; where the" in line
    )
