"""The comparison of two commits' trainings tells the same bits from others, and calls keys as a commit does.
Nothing is trained here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import loss_compare
from benchmarks.loss_compare import CONFIGURATIONS, RENAMED, check, differences, spelled
from dbf_ray.cli.options import make_parser
from dbf_ray.cli.train import SECTIONS
from dbf_ray.config import load_config

Records = list[dict[str, Any]]
Model = dict[str, torch.Tensor]


def run_folder(
    folder: Path, change: Callable[[Records, Model], object] = lambda records, model: None
) -> Path:
    """A finished run of three epochs, changed before it is written."""
    records: Records = [
        {
            "epoch": e,
            "losses": {"cls": 0.1 * (e + 1), "box": 0.3},
            "loss": 0.7,
            "gradient_norm": 1.5,
            "map50": None,
            "seconds": id(folder),
        }
        for e in range(3)
    ]
    model = {
        "stem.weight": torch.arange(24.0).view(2, 3, 2, 2),
        "stem.nan": torch.full((2,), math.nan),
        "steps": torch.tensor(12),
    }
    change(records, model)
    checkpoint = folder / "checkpoints" / "epoch-00003"
    checkpoint.mkdir(parents=True)
    torch.save({"model": model, "epoch": 3}, checkpoint / "checkpoint.pt")
    (folder / "epochs.jsonl").write_text(
        "".join(json.dumps(record) + "\n" for record in records), encoding="utf-8"
    )
    (folder / "summary.json").write_text("{}", encoding="utf-8")
    return folder


def last_bit(records: Records, _: Model) -> None:
    records[1]["losses"]["cls"] = math.nextafter(records[1]["losses"]["cls"], 1)
    records[2]["loss"] = 5.0


def one_weight(_: Records, model: Model) -> None:
    model["stem.weight"][0, 1, 0, 0] += 0.5


def minus_zero(_: Records, model: Model) -> None:
    model["stem.weight"][0, 0, 0, 0] = -0.0


def both(records: Records, model: Model) -> None:
    records[0]["map50"] = 0.25
    model["steps"] += 1


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (last_bit, ["epoch 1: cls was 0.2, is 0.20000000000000004"]),
        (one_weight, ["weight stem.weight differs by up to 0.5 (1 of 3 differ)"]),
        (minus_zero, ["weight stem.weight differs by up to 0 (1 of 3 differ)"]),
        (both, ["epoch 0: map50 was None, is 0.25", "weight steps differs by up to 1 (1 of 3 differ)"]),
        (lambda records, model: records.pop(1), ["epoch 1: cls was 0.2, is missing"]),
        (
            lambda records, model: model.pop("steps"),
            ["weight steps was torch.int64 [], is missing (1 of 3 differ)"],
        ),
        (
            lambda records, model: model.update({"stem.weight": model["stem.weight"].half()}),
            [
                "weight stem.weight was torch.float32 [2, 3, 2, 2], is torch.float16 [2, 3, 2, 2] (1 of 3 "
                "differ)"
            ],
        ),
    ],
)
def test_what_differs_is_named(
    change: Callable[[Records, Model], object], expected: list[str], tmp_path: Path
) -> None:
    base, head = run_folder(tmp_path / "base"), run_folder(tmp_path / "head", change)
    assert differences(base, head) == expected
    assert len(differences(head, base)) == len(expected)


def test_runs_of_the_same_bits_do_not_differ(tmp_path: Path) -> None:
    def otherwise_in_memory(_: Records, model: Model) -> None:
        model["stem.weight"] = model["stem.weight"].contiguous(memory_format=torch.channels_last)

    assert (
        differences(run_folder(tmp_path / "base"), run_folder(tmp_path / "head", otherwise_in_memory)) == []
    )


def test_the_exit_status_says_whether_anything_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for revision in ("old", "new", "broken"):
        run_folder(
            tmp_path / revision / "gradnorm",
            last_bit if revision == "broken" else lambda records, model: None,
        )
    monkeypatch.setattr(loss_compare, "commit_of", lambda revision: revision)
    monkeypatch.setattr(loss_compare, "train_at", lambda revision, *_: tmp_path / revision)
    result = check(["old", "new", "--only", "gradnorm", "--keep", str(tmp_path / "kept")])
    assert result["same"]
    assert capsys.readouterr().out.split() == ["gradnorm", "same", "bits"]
    assert differences(tmp_path / "kept" / "base" / "gradnorm", tmp_path / "kept" / "head" / "gradnorm") == []
    with pytest.raises(SystemExit) as left:
        check(["old", "broken", "--only", "gradnorm", "--json"])
    assert left.value.code == 1
    assert not json.loads(capsys.readouterr().out.splitlines()[-1])["same"]


def test_keys_are_called_as_a_commit_knows_them() -> None:
    now = {"data.pad_to": "square", "data.orientation_per": "span", "freezing.rho": "2"}
    before = {"data.canvas": "square", "data.view_per": "stretch", "freezing.rho": "2"}
    assert spelled(now, list(now)) == now
    assert spelled(now, ["data.canvas", "data.view_per"]) == before
    assert spelled({**now, "data.orientation_per": "epoch"}, []) == {**before, "data.view_per": "epoch"}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_configurations_are_valid_as_this_checkout_calls_their_keys(name: str) -> None:
    text = make_parser("dbf train", "", sections=SECTIONS).format_help()
    known = [key for pair in RENAMED.items() for key in (pair[0], pair[1][0]) if f"--{key} " in text]
    config = load_config(None, spelled(CONFIGURATIONS[name], known))
    assert config.freezing.engine
    assert config.freezing.cache == ("ram" if name in ("retinanet", "oriented_rcnn") else "off")
