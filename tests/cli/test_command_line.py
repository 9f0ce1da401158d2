"""Options made from the configuration: help that teaches, values of every kind, errors on one line."""

from __future__ import annotations

import inspect
import json
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from dbf_ray.cli import demo, evaluate, fetch_weights, predict, prepare_data, search, train
from dbf_ray.cli.options import make_parser, parse, print_json, run_command
from dbf_ray.config import Config, load_config
from dbf_ray.data import DATASETS
from dbf_ray.detectors import BACKBONES, DETECTORS
from dbf_ray.errors import ConfigError, DataError
from dbf_ray.freezing.policies import POLICIES

COMMANDS: dict[str, Any] = {
    "train": train,
    "search": search,
    "evaluate": evaluate,
    "predict": predict,
    "fetch-weights": fetch_weights,
    "demo": demo,
}
ROOT = Path(__file__).resolve().parents[2]
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


def help_of(module: Any, capsys: pytest.CaptureFixture[str], *before: str, **prog: str) -> str:
    with pytest.raises(SystemExit) as exit_status:
        module.command([*before, "--help"], **prog)
    assert exit_status.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_there_and_brief_in_its_usage(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(COMMANDS[name], capsys)
    assert text.startswith(f"usage: dbf {name} ")
    assert len(text.split("\n\n")[0].splitlines()) <= (4 if name == "predict" else 3)
    assert "--json" in text
    assert "python -m" not in text
    assert not re.search(r"``|:class:|:func:", text)


SUBCOMMANDS = {"check": ("check",), "split": ("split",), "merge": ("merge",), "prepare-data": ()}


@pytest.mark.parametrize("name", [*COMMANDS, *SUBCOMMANDS])
def test_help_shows_commands_as_they_are_called(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module, before = COMMANDS.get(name, prepare_data), SUBCOMMANDS.get(name, ())
    here = module.__name__.split(".")[-1]
    typed = help_of(module, capsys, *before, prog=f"python -m jobs.{here}")
    assert typed.startswith(f"usage: python -m jobs.{here} ")
    assert not re.search(r"\bdbf [a-z]", typed)
    installed = help_of(module, capsys, *before, prog=f"dbf {here.replace('_', '-')}")
    assert "jobs." not in installed
    named = re.findall(r"python -m jobs\.(\w+)", typed)
    assert {name.replace("_", "-") for name in named} == set(re.findall(r"\bdbf ([a-z-]+)", installed))
    for command in set(named):
        assert (ROOT / "jobs" / f"{command}.py").is_file()


@pytest.mark.parametrize("module", [train, search], ids=["train", "search"])
def test_help_names_every_key_and_every_member_with_its_parameters(
    module: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    text = help_of(module, capsys)
    for key in keys():
        assert key.startswith("search.") or f"--{key} " in text, key
    for member in [*DATASETS, *DETECTORS, *BACKBONES, *POLICIES]:
        assert re.search(rf"\b{member}\b", text), member
    plain = " ".join(text.split())
    for name, policy in POLICIES.items():
        parameters = rf"\({', '.join(rf'{key}(=[^,)]+)?' for key in policy.model_fields)}\)"
        assert re.search(rf" {name}{parameters if policy.model_fields else ''}: \w", plain), name
    assert " step(rho, phase=0): The backbone is trained in epochs phase, phase + rho," in plain
    assert " dota: images/ and labelTxt/, or" in plain
    for name, detector in DETECTORS.items():
        options = [
            p.name
            for p in inspect.signature(detector.__init__).parameters.values()
            if p.kind is p.KEYWORD_ONLY and p.name not in ("fpn_channels", "head_convs")
        ]
        pairs = ", ".join(rf"{option}=[^ ]+" for option in options)
        assert re.search(rf" {name}: [^:]*Options: {pairs}\.", plain), name
    assert " positive_iou=0.5, " in plain
    for key in ("freezing.policy", "detector.name", "detector.backbone", "data.name"):
        assert re.search(
            rf"--{key} TEXT [^()]*(\(synthetic\))?[^()]*or a dotted path package\.module:Name ", plain
        ), key
    assert "freezing.interval.unit" in keys()
    orientations = "[horizontal,vertical,diagonal,rotate90,rotate270,transpose,transverse]"
    for shown in ("sgd|adamw", "constant|step|cosine", "true|false|sync", orientations, "(default: [8, 11])"):
        assert shown in text


@pytest.mark.parametrize("module", [train, search], ids=["train", "search"])
def test_the_examples_in_the_help_are_accepted(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Accepted(Exception):  # noqa: N818
        pass

    def loaded(file: str | None, overrides: dict[str, Any]) -> None:
        load_config(file, overrides)
        raise Accepted

    monkeypatch.setattr(module, "load_config", loaded)
    name = module.__name__.split(".")[-1]
    examples = re.findall(rf"dbf {name} (.*)", module.EPILOG.replace("\\\n", " "))
    assert examples
    for example in examples:
        with pytest.raises(Accepted):
            module.command(shlex.split(example))


def overrides_of(*arguments: str) -> dict[str, str]:
    return parse(make_parser("python -m jobs.train", "", "", SECTIONS), arguments)[1]


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
        parse(make_parser("dbf other", ""), ["--detector.anchor_angles", "[0]"])


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
        (KeyboardInterrupt(), 130, "stopped by SIGINT; what is done is kept"),
    ],
)
def test_errors_become_one_line_and_a_status(
    error: BaseException, status: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(command_that(error), []) == status
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(line)
    assert printed.err.count("\n") == 1


def test_a_programming_error_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run_command(command_that(ZeroDivisionError()), [])


def test_printed_json_is_strict(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": float("nan"), "b": [float("inf"), (1, {"c": -float("inf")})], "d": 0.5})
    assert json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(name)) == {
        "a": None,
        "b": [None, [1, {"c": None}]],
        "d": 0.5,
    }
