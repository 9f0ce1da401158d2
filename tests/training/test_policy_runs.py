"""Every policy in a real training: stopped after each epoch and resumed from the checkpoint alone it leaves
the same bits, and it costs what was said before.
"""

from __future__ import annotations

import json
import logging
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from dbf_ray.build import build_training, prepare
from dbf_ray.cost import FlopTable
from dbf_ray.detectors import Detector
from dbf_ray.detectors.compiled import CompiledOutputs
from dbf_ray.freezing import POLICIES
from dbf_ray.run import run_directory
from dbf_ray.run.pictures import Pictures
from dbf_ray.tracking import read_epochs, read_summary
from dbf_ray.training.checkpoint import list_checkpoints, load_checkpoint
from dbf_ray.training.ddp import gather_objects
from dbf_ray.training.loop import GRADIENT_NORM, LoopState, run_epoch, train_step
from tests.tiny import on_ranks
from tests.training.policy_runs import (
    BLOCKS,
    EPOCHS,
    IN_BLOCKS,
    SETTINGS,
    THAWING,
    costs,
    differences,
    in_pieces,
    left,
    make_cheap,
    setting,
    whole,
)


@pytest.fixture(autouse=True)
def _cheap(narrow: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pictures, "_draw", lambda *_: None)


def test_every_policy_is_trained_here() -> None:
    assert list(SETTINGS) == list(POLICIES)


@pytest.mark.parametrize("name", [*SETTINGS, *IN_BLOCKS])
def test_in_pieces_it_is_bit_for_bit_the_same_and_costs_what_was_said(name: str, tmp_path: Path) -> None:
    changes = {**SETTINGS, **IN_BLOCKS}[name]
    straight, pieces = (
        setting(tmp_path, "straight", **changes, **THAWING),
        setting(tmp_path, "pieces", **changes, **THAWING),
    )
    summary = whole(straight)
    in_pieces(pieces)
    assert differences(left(straight), left(pieces)) == []
    spec = prepare(straight, costs())
    if spec.frozen_prefixes is not None:
        assert summary["frozen_prefixes"] == spec.frozen_prefixes
        assert summary["compute_ratio"] == pytest.approx(spec.compute_ratio, rel=1e-9)
        assert summary["analytic_ratio"] == pytest.approx(spec.analytic_ratio, rel=1e-9)
        assert summary["budget"] == spec.budget
    prefixes = summary["frozen_prefixes"]
    assert len(prefixes) == spec.horizon.epochs == (4 if name in IN_BLOCKS else EPOCHS)
    if spec.policy.needs_signals:
        assert len(set(prefixes)) > 1, "a setting that never freezes or never thaws says little"
    check_costs(straight, spec, summary)


def check_costs(config: Any, spec: Any, summary: dict[str, Any]) -> None:
    """The run's figures against sums over its prefixes and steps, written out."""
    table, steps = (
        FlopTable(spec.detector),
        [spec.horizon.steps(block) for block in range(spec.horizon.epochs)],
    )
    images = config.training.batch_size
    per_image = [table(64, 64, n) for n in range(5)]
    spent = sum(per_image[n] * count for n, count in zip(summary["frozen_prefixes"], steps, strict=True))
    assert summary["compute_ratio"] == pytest.approx(spent / (per_image[0] * sum(steps)), rel=1e-9)
    looks = summary["executed_flops"] - images * spent
    assert looks % table.backbone_forward(64, 64) == 0
    if "feature_drift" in spec.policy.needs_signals:
        trained = [n < 4 for n in summary["frozen_prefixes"]]
        begun = sum(now and not before for now, before in zip(trained, [False, *trained], strict=False))
        measured = sum(trained[:-1])  # after the last block nobody decides
        # all eight training images are probes
        assert looks == (begun + measured) * 8 * table.backbone_forward(64, 64)
    else:
        assert looks == 0
    rows = read_epochs(run_directory(config))
    assert sum(sum(row["steps_per_prefix"].values()) for row in rows) == sum(steps) == 12


def test_blocks_of_steps_freeze_within_an_epoch(tmp_path: Path) -> None:
    config = setting(tmp_path, "blocks", **SETTINGS["step"], **BLOCKS)
    summary = whole(config)
    assert summary["frozen_prefixes"] == [0, 4, 4, 0]  # blocks of steps 0-2, 3-5, 6-8, 9-11
    rows = read_epochs(run_directory(config))
    assert [row["steps_per_prefix"] for row in rows] == [
        {"0": 2},
        {"0": 1, "4": 1},
        {"4": 2},
        {"4": 2},
        {"0": 1, "4": 1},
        {"0": 2},
    ]
    assert summary["budget"] == 2
    short = setting(
        tmp_path, "short", **SETTINGS["step"], **{"freezing.interval": {"unit": "steps", "every": 5}}
    )
    assert prepare(short).horizon.epochs == 3
    assert [prepare(short).horizon.steps(block) for block in range(3)] == [5, 5, 2]
    assert whole(short)["compute_ratio"] == pytest.approx(prepare(short).compute_ratio, rel=1e-9)
    pairs = setting(
        tmp_path, "pairs", **SETTINGS["step"], **{"freezing.interval": {"unit": "epochs", "every": 2}}
    )
    assert prepare(pairs).frozen_prefixes == [0, 4, 4]
    assert [row["frozen_stages"] for row in (whole(pairs), read_epochs(run_directory(pairs)))[1]] == [
        0,
        0,
        4,
        4,
        4,
        4,
    ]


def test_the_average_is_what_is_evaluated(tmp_path: Path) -> None:
    plain, averaged = setting(tmp_path, "plain"), setting(tmp_path, "averaged", **{"training.ema": 0.9})
    whole(plain)
    whole(averaged)
    one, two = left(plain), left(averaged)
    assert differences(one["model"], two["model"]) == []  # an average changes nothing of the training
    assert two["ema"]["updates"] == 12
    assert differences(two["ema"]["model"], two["model"]) != []
    from dbf_ray.evaluate import load_detector

    folder = Path(str((read_summary(run_directory(averaged)) or {})["checkpoint"]))
    assert differences(dict(load_detector(folder, averaged)[0].state_dict()), dict(two["ema"]["model"])) == []


COMBINATIONS = [
    {"training.optimizer": "sgd"},
    {"training.optimizer": "adamw", "training.accumulation": 2, "training.clip_norm": 0.01},
    {"training.optimizer": "sgd", "training.precision": "bf16", "training.accumulation": 2},
    {
        "training.optimizer": "adamw",
        "training.precision": "bf16",
        "detector.norm_eval": "sync",
        "training.ema": 0.5,
    },
]


@pytest.mark.parametrize(
    "combination", COMBINATIONS, ids=lambda combination: "-".join(map(str, combination.values()))
)
def test_frozen_stages_stand_still_whatever_trains_the_rest(
    combination: dict[str, Any], tmp_path: Path
) -> None:
    """Prefixes 0, 4, 3, 4, 2, 4: what an epoch froze has the bits it had before, and everything else has
    moved.
    """
    rule = {"freezing.policy": "tests.training.policy_runs:Ladder"}
    config = setting(
        tmp_path,
        "run",
        **rule,
        **{"training.keep_checkpoints": EPOCHS, "data.train_images": 8},
        **combination,
    )
    summary = whole(config)
    assert summary["frozen_prefixes"] == [0, 4, 3, 4, 2, 4]
    states = [
        load_checkpoint(folder)[0]["model"]
        for folder in list_checkpoints(run_directory(config) / "checkpoints")
    ]
    for prefix, before, after in zip(summary["frozen_prefixes"][1:], states, states[1:], strict=False):
        frozen = {
            name for name in after if name.startswith(tuple(f"backbone.stages.{k}." for k in range(prefix)))
        }
        moved = {name for name in after if not torch.equal(before[name], after[name])}
        assert moved & frozen == set()
        assert {name for name in after if name.endswith("weight")} - frozen <= moved
    pieces = setting(
        tmp_path,
        "pieces",
        **rule,
        **{"training.keep_checkpoints": EPOCHS, "data.train_images": 8},
        **combination,
    )
    in_pieces(pieces)
    assert differences(left(config), left(pieces)) == []


# What is resumed on two ranks in the default tier: what decides by signals, and what changes rates.
RESUMED = {"step", "lr_scale", "gradnorm", "aimd", "drift", "plateau", "budget", "drift in blocks"}


def worker(rank: int, folder: str, resumed: set[str], length: int) -> None:
    torch.set_num_threads(1)
    make_cheap()
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    rows = {}
    for name in (*SETTINGS, *IN_BLOCKS):
        changes = {**SETTINGS, **IN_BLOCKS}[name]
        two = {"cluster.workers": 2, **changes, **THAWING}
        straight, pieces = (setting(Path(folder), f"{name} {kind}", **two) for kind in ("straight", "pieces"))
        summaries = gather_objects(whole(straight)["frozen_prefixes"])
        if name in resumed:
            in_pieces(pieces, length)
        if rank == 0:
            spec = prepare(straight, costs())
            said = [spec.compute_ratio, (read_summary(run_directory(straight)) or {})["compute_ratio"]]
            trained = [
                sum(p.numel() * 4 for s in list(spec.detector.backbone.stages)[n:] for p in s.parameters())
                for n in range(5)
            ]
            rest = sum(p.numel() * 4 for p in spec.detector.parameters()) - trained[0]
            steps = [spec.horizon.steps(block) for block in range(spec.horizon.epochs)]
            expected = sum((trained[n] + rest) * count for n, count in zip(summaries[0], steps, strict=True))
            moved = sum(row["allreduce_bytes"] for row in read_epochs(run_directory(straight)))
            rows[name] = {
                "differences": differences(left(straight), left(pieces)) if name in resumed else [],
                "said": said,
                "bytes": [moved, expected],
            }
            rows[name] |= {"prefixes": summaries}
    shared = features()
    if rank == 0:
        torch.save(shared, Path(folder, "features.pt"))
        Path(folder, "rows.json").write_text(json.dumps(rows))
    dist.destroy_process_group()


@pytest.mark.parametrize(
    ("resumed", "length"),
    [
        pytest.param(RESUMED, 2, id="some resumed"),
        pytest.param({*SETTINGS, *IN_BLOCKS}, 1, id="all resumed after each epoch", marks=pytest.mark.slow),
    ],
)
def test_on_two_ranks_too(resumed: set[str], length: int, tmp_path: Path) -> None:
    on_ranks(worker, str(tmp_path), resumed, length)
    rows = json.loads((tmp_path / "rows.json").read_text())
    # A reference that two ranks took serves one rank after a resume.
    assert torch.allclose(torch.load(tmp_path / "features.pt"), features(), atol=1e-6)
    assert len(rows) == len(POLICIES) + len(IN_BLOCKS)
    for name, row in rows.items():
        assert row["differences"] == [], name
        assert row["prefixes"][0] == row["prefixes"][1], name
        assert row["bytes"][0] == row["bytes"][1] > 0, name
        assert row["said"][0] is None or math.isclose(*row["said"], rel_tol=1e-9), name


def features() -> torch.Tensor:
    """Probe features of a fresh run, on all ranks there are."""
    spec = prepare(setting(Path("unused"), "features", **SETTINGS["drift"]))
    training = build_training(spec, quiet=True)
    return training.scheduler.signals["feature_drift"]._features()  # type: ignore[attr-defined, no-any-return]


def test_only_policies_know_their_names() -> None:
    """Nothing in the detectors or the training loop mentions a policy."""
    root = Path(__file__).parents[2] / "dbf_ray"
    files = [
        *sorted((root / "detectors").rglob("*.py")),
        root / "training" / "loop.py",
        root / "training" / "scheduler.py",
    ]
    assert len(files) > 20
    for file in files:
        text = file.read_text()
        assert "freezing.policies" not in text, file
        for name in set(POLICIES) - {
            "full",
            "frozen",
            "step",
            "epochs",
            "front",
            "back",
            "budget",
            "drift",
            "plateau",
            "cosine",
        }:
            assert not re.search(rf"\b{name}\b", text), (file, name)
        for name in POLICIES:
            assert f'"{name}"' not in text, (file, name)


def test_learning_rates_of_stages_reach_the_optimizer(tmp_path: Path) -> None:
    config = setting(
        tmp_path,
        "rates",
        **SETTINGS["layer_decay"],
        **{"training.warmup_steps": 0, "training.schedule": "constant"},
    )
    training = build_training(prepare(config), quiet=True)
    run_epoch(training, LoopState())
    rates = {group["stage"]: group["lr"] for group in training.optimizer.param_groups}
    assert rates == pytest.approx({-1: 1e-3, 0: 1e-3 / 8, 1: 1e-3 / 4, 2: 1e-3 / 2, 3: 1e-3})


@pytest.mark.parametrize("prefix", [0, 2, 4])
def test_clipping_knows_trained_parameters_only(
    prefix: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The norm in the record is that of the trained parameters, and theirs is what is clipped."""
    config = setting(tmp_path, "clip", **{"training.clip_norm": 0.01, "data.train_images": 4})
    training = build_training(prepare(config), quiet=True)
    trained = [
        p
        for k, stage in enumerate(training.detector.backbone.stages)
        if k >= prefix
        for p in stage.parameters()
    ]
    trained += [p for name, p in training.detector.named_parameters() if not name.startswith("backbone.")]
    norms: list[float] = []

    def norm() -> float:
        return math.sqrt(sum(float(p.grad.double().square().sum()) for p in trained if p.grad is not None))

    monkeypatch.setattr(training.scheduler, "on_gradients", lambda: norms.append(norm()))
    monkeypatch.setattr(training.scheduler, "on_optimizer_step", lambda: None)
    step = training.optimizer.step
    monkeypatch.setattr(training.optimizer, "step", lambda: (norms.append(norm()), step())[1])
    training.scheduler.freezer.apply(prefix)
    training.scheduler.ddp.rebuild()
    training.detector.train()
    images, targets = next(iter(training.train_loader.epoch(0)))
    losses = train_step(training, [training.detector.prepare(images, targets)])
    assert norms[0] > 0.01
    assert norms[1] == pytest.approx(0.01, rel=1e-3)
    assert float(losses[GRADIENT_NORM]) == pytest.approx(norms[0], rel=1e-4)


def test_a_compiled_training_with_an_average_is_that_of_an_eager_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Detector and average are both compiled, by a backend that runs graphs as they are, and both run
    compiled.
    """
    graphs: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Any:
        graphs.append(len(inputs))
        return graph.forward

    compiled: list[Detector] = []

    def compile_eagerly(detector: Detector) -> None:
        compiled.append(detector)
        detector._compiled = CompiledOutputs(backend)

    monkeypatch.setattr(Detector, "compile", compile_eagerly)
    monkeypatch.setattr("dbf_ray.build.training.check_compiler", lambda *_: None)
    # under pytest dynamo would log every tensor it sees
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "handlers", [])
    kept = {"training.ema": 0.9, "training.channels_last": False}
    eager, fast = (
        setting(
            tmp_path,
            f"{on}",
            **SETTINGS["step"],
            **kept,
            **{"training.compile": on, "freezing.engine_compile": False},
        )
        for on in (False, True)
    )
    whole(eager)
    assert compiled == []
    whole(fast)
    assert len({id(detector) for detector in compiled}) == 2
    # the detector trained with two prefixes, and its average, which nobody freezes, evaluated
    assert len(graphs) == 3
    one, two = left(eager), left(fast)
    assert differences(one["model"], two["model"]) == []
    assert differences(one["ema"], two["ema"]) == []
    assert differences(one["epochs"], two["epochs"]) == []
