"""Options made from the configuration: help that teaches, values of every kind, errors on one line."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import shlex
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from pydantic import BaseModel

from dbf_ray.config import Config, load_config
from dbf_ray.data import DATASETS
from dbf_ray.detectors import BACKBONES, DETECTORS
from dbf_ray.errors import ConfigError, DataError
from dbf_ray.freezing.policies import POLICIES
from jobs import demo, evaluate, fetch_weights, search, train
from jobs.command_line import main, make_parser, parse, print_json

COMMANDS: dict[str, Any] = {
    module.__name__: module for module in (train, search, evaluate, fetch_weights, demo)
}
SECTIONS = ("", *(name for name, value in Config() if isinstance(value, BaseModel)))


def keys(model: type[BaseModel] = Config, prefix: str = "") -> list[str]:
    """Every key of the configuration, dotted."""
    found = []
    for name, field in model.model_fields.items():
        if inspect.isclass(field.annotation) and issubclass(field.annotation, BaseModel):
            found += keys(field.annotation, f"{prefix}{name}.")
        else:
            found.append(f"{prefix}{name}")
    return found


def help_of(module: Any, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as exit_status:
        module.command(["--help"])
    assert exit_status.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_there_and_brief_in_its_usage(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(COMMANDS[name], capsys)
    assert text.startswith(f"usage: python -m {name} ")
    assert len(text.split("\n\n")[0].splitlines()) <= 3
    assert "--json" in text
    assert not re.search(r"``|:class:|:func:", text)


@pytest.mark.parametrize("module", [train, search], ids=["train", "search"])
def test_help_names_every_key_and_every_member_with_its_parameters(
    module: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    text = help_of(module, capsys)
    for key in keys():
        assert key.startswith("search.") or f"--{key} " in text, key
    for member in [*DATASETS, *DETECTORS, *BACKBONES, *POLICIES]:
        assert re.search(rf"\b{member}\b", text), member
    options = {
        p.name
        for d in DETECTORS.values()
        for p in inspect.signature(d.__init__).parameters.values()
        if p.kind is p.KEYWORD_ONLY
    }
    members: list[Any] = [policy for policy in POLICIES.values() if dataclasses.is_dataclass(policy)]
    parameters = {field.name for policy in members for field in dataclasses.fields(policy)}
    assert parameters >= {"rho", "phase", "inner", "max_rho"}
    assert "freezing.interval.unit" in keys()
    for name in options | parameters:
        assert re.search(rf"\b{name}\b", text), name
    views = "[horizontal,vertical,diagonal,rotate90,rotate270,transpose,transverse]"
    for shown in ("sgd|adamw", "constant|step|cosine", "true|false|sync", views, "(default: [8, 11])"):
        assert shown in text


@pytest.mark.parametrize("module", [train, search], ids=["train", "search"])
def test_the_examples_in_the_help_are_accepted(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Accepted(Exception):  # noqa: N818
        pass

    def loaded(file: object, overrides: dict[str, Any]) -> None:
        load_config(None, overrides)
        raise Accepted

    monkeypatch.setattr(module, "load_config", loaded)
    examples = re.findall(rf"python -m {module.__name__} (.*)", module.EPILOG.replace("\\\n", " "))
    assert examples
    for example in examples:
        with pytest.raises(Accepted):
            module.command(shlex.split(example))


def overrides_of(*arguments: str) -> dict[str, str]:
    return parse(make_parser("jobs.train", "", "", SECTIONS), arguments)[1]


def test_options_become_overrides() -> None:
    given = (
        "--name",
        "a",
        "--training.lr=1e-3",
        "--freezing.policy",
        "step",
        "--freezing.rho",
        "4",
        "--freezing.phase=-1",
        "--json",
    )
    expected = {
        "name": "a",
        "training.lr": "1e-3",
        "freezing.policy": "step",
        "freezing.rho": "4",
        "freezing.phase": "-1",
    }
    assert overrides_of(*given) == expected
    assert overrides_of() == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeed", "1"], "unknown option --seeed; did you mean --seed?"),
        (["--epochs", "1"], "unknown option --epochs; did you mean --training.epochs?"),
        (["--freezing", "step"], "unknown option --freezing"),
        (["--data.canvas", "square"], "unknown option --data.canvas; it is called --data.pad_to now"),
        (["--freezing.rho", "--json"], "option --freezing.rho needs a value, got none"),
        (["--config"], "argument --config: expected one argument; python -m jobs.train --help"),
        (["-x"], "unknown option -x"),
    ],
)
def test_options_that_are_not_understood(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        overrides_of(*arguments)


def test_a_command_without_configuration_has_no_free_keys() -> None:
    with pytest.raises(ConfigError, match=r"unknown option --detector.anchor_angles"):
        parse(make_parser("jobs.other", ""), ["--detector.anchor_angles", "[0]"])


def command_that(error: BaseException) -> Callable[[Sequence[str] | None], None]:
    def command(arguments: Sequence[str] | None) -> None:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (DataError("a rule,\n  got this"), 2, "error: a rule, got this"),
        (
            OSError(28, "No space left on device", "/runs/x"),
            2,
            "error: /runs/x: No space left on device; check",
        ),
        (KeyboardInterrupt(), 130, "stopped; what is done is kept"),
    ],
)
def test_errors_become_one_line_and_a_status(
    error: BaseException, status: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command_that(error), []) == status
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(line)
    assert printed.err.count("\n") == 1


def test_a_programming_error_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        main(command_that(ZeroDivisionError()), [])


def test_printed_json_is_strict(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": float("nan"), "b": [float("inf"), (1, {"c": -float("inf")})], "d": 0.5})
    assert json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(name)) == {
        "a": None,
        "b": [None, [1, {"c": None}]],
        "d": 0.5,
    }
