"""``dbf search`` and ``dbf demo`` without Ray: options, refusals, and what is printed in the
end.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dbf_ray.cli import demo, search
from dbf_ray.cli.options import run_command
from dbf_ray.cluster.ray_runtime import Resources
from dbf_ray.reports import study_result

Refused = Callable[..., str]
ROOT = Path(__file__).resolve().parents[2]
RHO = ROOT / "search_spaces" / "rho.py"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, on two CPUs; starting Ray is a failure."""
    import ray

    def started(*_: object, **__: object) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", started)
    monkeypatch.setattr(
        "dbf_ray.cluster.ray_runtime.local_resources", lambda: Resources(2, 0, "this machine")
    )


BAD = {
    "no space": ([], ["--space", "required", "--help"]),
    "missing space": (
        ["--space", "nowhere.py"],
        ["nowhere.py does not exist", "existing .py file"],
    ),
    "trials": (["--space", str(RHO), "--trials", "0"], ["--trials", "integer >= 1", "got '0'"]),
    "trials in words": (
        ["--space", str(RHO), "--trials", "many"],
        ["--trials", "integer >= 1", "got 'many'"],
    ),
    "concurrent": (["--space", str(RHO), "--concurrent", "-1"], ["--concurrent", "integer >= 1", "got '-1'"]),
    "study": (["--space", str(RHO), "--study", "a/b"], ["study's name", "got 'a/b'"]),
    "long study": (["--space", str(RHO), "--study", "a" * 256], ["study's name", "255", "got 256"]),
    "unknown option": (
        ["--space", str(RHO), "--trails", "3"],
        ["unknown option --trails", "did you mean --trials?"],
    ),
    "sampler": (["--space", str(RHO), "--sampler", "gird"], ["search.sampler", "'grid'", "got 'gird'"]),
    "sampler of another space": (
        ["--space", "adaptive", "--sampler", "cost"],
        ["adaptive.py: the sampler cost must know", "give --search.sampler tpe"],
    ),
    "epochs": (["--space", str(RHO), "--epochs", "0"], ["search.epochs", "got 0"]),
    "few epochs": (
        ["--space", str(RHO), "--epochs", "1"],
        ["search.epochs must be at least", "baselines", "got 1; give --epochs"],
    ),
    "ceiling": (
        ["--space", str(RHO), "--max-compute-ratio", "0.1"],
        ["no setting of the space is left", "search.max_compute_ratio", "got 0.1; give --max-compute-ratio"],
    ),
    "known": (["--space", str(RHO), "--known", "nowhere"], ["search.known", "nowhere", "studies/NAME"]),
    "key out of range": (["--space", str(RHO), "--search.trials", "0"], ["search.trials", "got 0"]),
    "a trial that cannot fit": (
        ["--space", str(RHO), "--cluster.workers", "2", "--cluster.cpus_per_worker", "2"],
        ["2 workers with 2 CPUs each need 4 CPUs", "this machine has 2", "lower --cluster.workers"],
    ),
    "missing data": (["--space", str(RHO), "--data.root", "nowhere"], ["nowhere is not there"]),
    "small data": (["--space", str(RHO), "--training.batch_size", "16"], ["batch of 16 images", "got 8"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case: str, tiny: list[str], refused: Refused) -> None:
    options, wanted = BAD[case]
    line = refused(search.command, [*tiny, *options])
    for words in wanted:
        assert words in line


def test_a_baseline_that_cannot_be(tiny: list[str], tmp_path: Path, refused: Refused) -> None:
    space = tmp_path / "space.py"
    space.write_text(
        "BASELINES = [{'freezing.policy': 'step', 'freezing.rho': 0}]\n\ndef space(trial):\n    return "
        "BASELINES[0]\n"
    )
    line = refused(search.command, [*tiny, "--space", str(space)])
    assert "rho must be an integer >= 1, got 0" in line


def trial(number: int, policy: str, map50: float, ratio: float) -> dict[str, Any]:
    empty: dict[str, Any] = {
        "parameters": {},
        "rho": None,
        "map50_best": map50,
        "seed": 0,
        "run": f"trials/{number}",
    }
    return {
        "number": number,
        "state": "complete",
        "policy": policy,
        "map50": map50,
        "compute_ratio": ratio,
        **empty,
    }


@pytest.fixture
def searched(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Replaces the search; collects what it was asked for."""
    asked: list[dict[str, Any]] = []

    def instead(config: Any, space: Path, **options: Any) -> dict[str, Any]:
        asked.append({"config": config, "space": space, **options})
        return study_result(
            options["study_name"], [trial(0, "full", 0.7, 1.0), trial(1, "frozen", 0.4, 0.5)], None
        )

    monkeypatch.setattr("dbf_ray.search.search", instead)
    return asked


def test_short_options_are_keys(tiny: list[str], searched: list[dict[str, Any]]) -> None:
    options = ["--sampler", "cost", "--epochs", "99", "--hours", "1.5", "--max-compute-ratio", "0.7"]
    assert run_command(search.command, [*tiny, "--space", str(RHO), *options, "--known", "studies/x"]) == 0
    asked = searched[0]["config"].search
    assert (asked.sampler, asked.epochs, asked.hours) == ("cost", 99, 1.5)
    assert (asked.max_compute_ratio, asked.known, asked.trials) == (0.7, Path("studies/x"), None)


def test_what_is_asked_for_and_printed(
    tiny: list[str], searched: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        *tiny,
        "--space",
        str(RHO),
        "--trials",
        "7",
        "--concurrent",
        "2",
        "--tracking.mlflow",
        "true",
        "--json",
    ]
    assert run_command(search.command, arguments) == 0
    (asked,) = searched
    assert (asked["space"], asked["study_name"], asked["trials"], asked["concurrent"]) == (
        RHO,
        "rho-dota",
        7,
        2,
    )
    assert asked["config"].training.epochs == 1
    printed = capsys.readouterr().out.splitlines()
    assert json.loads(printed[-1])["front"] == [0, 1]
    text = "\n".join(printed[:-1])
    for words in (
        "full",
        "frozen",
        "0.7",
        "front",
        "studies/rho-dota/pareto.html",
        "-m mlflow ui --backend-store-uri sqlite:///mlflow.db",
    ):
        assert words in text


def test_without_mlflow_nothing_is_said_of_it(
    tiny: list[str], searched: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(search.command, [*tiny, "--space", str(RHO), "--study", "mine"]) == 0
    assert searched[0]["study_name"] == "mine"
    assert "mlflow" not in capsys.readouterr().out


def test_a_dry_run_says_what_it_would_train_and_leaves_nothing(
    tiny: list[str], searched: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = set(tmp_path.rglob("*"))
    options = ["--space", "rho", "--training.epochs", "4", "--search.controls", "[]", "--dry-run", "--json"]
    assert run_command(search.command, [*tiny, *options]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == (
        "study rho-dota: 5 trials to do, of a space with 5 settings: 20 epochs, of which about 14 are to be "
        "trained"
    )
    found = json.loads(printed[-1])
    assert found["epochs_trained"] == 14
    assert found["seconds"] > 0
    assert found["memory_bytes"] > 10**5
    assert "time: about " in printed[2]
    assert 10**5 < found["checkpoint_bytes"] < 10**8
    assert searched == []
    assert set(tmp_path.rglob("*")) == before
    assert run_command(search.command, [*tiny, *options, "--study", "a/b"]) == 2


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Replaces the fetching of weights; collects the calls."""
    calls: list[int] = []
    monkeypatch.setattr(demo, "fetch_weights", lambda: calls.append(1))
    return calls


def test_the_demo_fetches_weights_and_searches(
    searched: list[dict[str, Any]], fetched: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert run_command(demo.command, ["--trials", "8"]) == 0
    assert len(fetched) == len(searched) == 1
    assert (searched[0]["study_name"], searched[0]["trials"], searched[0]["config"].data.name) == (
        "demo",
        8,
        "synthetic",
    )


def test_the_demo_fetches_nothing_in_vain(
    searched: list[dict[str, Any]], fetched: list[int], monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    monkeypatch.chdir(ROOT)
    assert "did you mean --trials?" in refused(demo.command, ["--trails", "8"])
    with pytest.raises(SystemExit):
        demo.command(["--help"])
    assert run_command(demo.command, ["--detector.weights_backbone", "null"]) == 0
    assert fetched == []
