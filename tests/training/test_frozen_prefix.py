"""Trainings with cache and engine: the same weights bit for bit, and what the ledger says of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from PIL import Image

import dbf_ray.run
from dbf_ray.build import build_training, prepare
from dbf_ray.build_frozen import make_cache
from dbf_ray.config import Config
from dbf_ray.cost import FlopTable
from dbf_ray.data import TrainView
from dbf_ray.errors import ConfigError, ResourceError
from dbf_ray.run import find_resume, run, run_directory
from dbf_ray.tracking import read_epochs
from dbf_ray.training.checkpoint import list_checkpoints, load_checkpoint
from dbf_ray.training.loop import LoopState, evaluate, run_epoch, train_step
from tests.detectors.narrow import NARROW
from tests.training.policy_runs import differences, in_pieces, make_cheap, setting

STEP = {"freezing.policy": "step", "freezing.rho": 3}
FLOAT32 = {"freezing.cache_dtype": "float32"}


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Config]]:
    """Makes a small run in the test's own folder."""
    from dbf_ray.detectors import BACKBONES

    for key, value in NARROW.items():
        monkeypatch.setitem(BACKBONES, key, value)
    monkeypatch.setattr(dbf_ray.run, "draw", lambda *_: [])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield lambda name, **changes: setting(tmp_path, name, **{**({} if "freezing.policy" in changes else STEP), **changes})
    torch.set_num_threads(threads)


def trained(config: Config) -> dict[str, Any]:
    """The last checkpoint's weights and optimizer of a whole run, and its losses."""
    run(config, quiet=True)
    state, _ = load_checkpoint(list_checkpoints(run_directory(config) / "checkpoints")[-1])
    losses = [epoch["loss"] for epoch in read_epochs(run_directory(config))]
    return {"model": state["model"], "optimizer": state["optimizer"], "losses": losses}


def hits_of(config: Config) -> list[int]:
    return [epoch["cache_hits"] for epoch in read_epochs(run_directory(config))]


SETTINGS: dict[str, dict[str, Any]] = {
    "views by epoch": {},
    "views by stretch": {"data.view_per": "stretch"},
    "no engine": {"freezing.engine": False, "data.view_per": "stretch"},
    "part of the backbone": {"freezing.policy": "gradual_unfreeze", "freezing.every": 2, "data.view_per": "stretch"},
    "train-mode norms": {"detector.norm_eval": False, "data.view_per": "stretch"},
    "autocast": {"training.precision": "bf16", "data.view_per": "stretch"},
    "bf16 engine": {"freezing.engine_precision": "bf16", "data.view_per": "stretch"},
    "micro-batches": {"training.accumulation": 2, "data.view_per": "stretch"},
    "two stages": {
        **{"detector.name": "oriented_rcnn", "detector.roi_channels": 16, "detector.rpn_samples": 16, "detector.roi_samples": 16},
        **{"data.view_per": "stretch", "detector.frozen_stages": 1},
    },
    "layer norms on outputs": {
        "detector.backbone": "swin_t",
        "freezing.policy": "frozen",
        "training.epochs": 2,
        "data.view_per": "stretch",
    },
    "a real network": {"detector.backbone": "resnet18", "data.view_per": "stretch", "training.channels_last": False},
}


@pytest.mark.filterwarnings("ignore:.*has to emulate")
@pytest.mark.parametrize(
    ("name", "cache"),
    [*((name, "ram") for name in SETTINGS), *((name, "disk") for name in ("views by epoch", "autocast", "part of the backbone"))],
)
def test_a_float32_cache_changes_no_bit(make: Callable[..., Config], name: str, cache: str) -> None:
    changes = SETTINGS[name]
    plain, cached = make("plain", **changes), make("cached", **changes, **FLOAT32, **{"freezing.cache": cache})
    assert not differences(trained(plain), trained(cached))
    assert sum(hits_of(plain)) == 0
    assert sum(hits_of(cached)) > 0
    assert not (run_directory(cached) / "features").exists()


def test_images_of_different_shapes_change_no_bit(make: Callable[..., Config], tmp_path: Path) -> None:
    """A step's canvas depends on its images, so an image's features are kept for each canvas."""
    sizes = [(24, 64), (64, 24), (24, 64), (64, 64)]
    for index in range(12):
        for split in ("train", "val"):
            folder = tmp_path / "data" / split
            for kind in ("images", "labelTxt"):
                (folder / kind).mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(index).integers(0, 256, (*sizes[index % 4], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "images" / f"{index}.png")
            (folder / "labelTxt" / f"{index}.txt").write_text("4 4 20 4 20 12 4 12 ship 0\n")
    common = {
        "data.name": "dota",
        "data.root": str(tmp_path / "data"),
        "data.view_per": "stretch",
        "freezing.rho": 6,
        "training.batch_size": 2,
    }
    plain, cached = make("plain", **common), make("cached", **common, **FLOAT32, **{"freezing.cache": "ram"})
    assert not differences(trained(plain), trained(cached))
    told = prepare(cached).forecast
    assert told is not None
    assert told.canvases > 1
    rows = read_epochs(run_directory(cached))[1:]
    rate = sum(row["cache_hits"] for row in rows) / sum(row["cache_hits"] + row["cache_misses"] for row in rows)
    assert rate == pytest.approx(told.hit_rate, abs=0.15)
    square = prepare(make("square", **common, **{"freezing.cache": "ram", "data.canvas": "square"})).forecast
    assert square is not None
    assert square.canvases == 1
    assert square.hit_rates["stretch"] == pytest.approx(0.8)


def test_one_view_per_stretch_hits_in_all_but_its_first_epoch(make: Callable[..., Config]) -> None:
    config = make("run", **{"freezing.cache": "ram", "data.view_per": "stretch"})
    summary = run(config, quiet=True)
    rows = read_epochs(run_directory(config))
    assert [(row["cache_hits"], row["cache_misses"]) for row in rows] == [(0, 0), (0, 8), (8, 0), (0, 0), (0, 8), (8, 0)]
    assert summary["expected_hit_rate"] == 0.5
    table = FlopTable(prepare(config).detector)
    frozen = table(64, 64, 4) * 8
    assert rows[1]["executed_flops"] == frozen
    assert rows[2]["executed_flops"] == frozen - 8 * table.prefix_forward(64, 64, 4) == frozen - 8 * table.backbone_forward(64, 64)
    features = 2 * sum(part.numel() for part in prepare(config).detector.backbone(torch.zeros(1, 3, 64, 64))[1:])
    assert rows[2]["cache_bytes"] == 8 * features
    assert rows[3]["cache_bytes"] == 0  # the backbone moves, so nothing is kept
    assert (summary["cache_hits"], summary["cache_misses"], summary["cache_bytes"]) == (16, 16, 8 * features)
    assert summary["cache_seconds_saved"] == pytest.approx(sum(row["cache_seconds_saved"] for row in rows))
    assert 0 <= rows[2]["data_wait_share"] == pytest.approx(rows[2]["data_wait_seconds"] / rows[2]["device_seconds"])


class Clock:
    """Stands still but where it is told."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def after(self, seconds: float, function: Callable[..., Any], each: bool = False) -> Callable[..., Any]:
        """The function, which takes so many seconds now, or so many for each of what it is called with."""

        def timed(given: Any, *more: Any) -> Any:
            self.now += seconds * (len(given) if each else 1)
            return function(given, *more)

        return timed


def test_seconds_saved_are_those_of_the_prefix_less_those_of_the_cache(
    make: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    training = build_training(prepare(make("run", **{"freezing.policy": "frozen", "freezing.cache": "ram"})), quiet=True)
    frozen, clock, told = training.frozen, Clock(), []
    assert frozen is not None
    assert frozen.cache is not None
    monkeypatch.setattr("dbf_ray.training.frozen.time", clock)
    monkeypatch.setattr(frozen, "_run", clock.after(3.0, frozen._run, each=True))
    monkeypatch.setattr(frozen.cache, "get", clock.after(0.25, frozen.cache.get))
    monkeypatch.setattr(frozen.cache, "put", clock.after(0.5, frozen.cache.put))
    monkeypatch.setattr(training.ledger, "cache_holds", lambda _, seconds: told.append(seconds))
    training.scheduler.before_step(0)
    batches = [training.detector.prepare(*micro_batch) for micro_batch in training.train_loader.epoch(0)][:2]
    each = len(batches[0].images)
    for known in (0, 1, 2):  # of the batches; the first one ever warms up and is not timed
        for batch in batches:
            frozen(batch)
        frozen.end_epoch()
        if known == 0:
            frozen.cache.drop()
            frozen.cache.begin(frozen._generation)
            frozen(batches[0])
            frozen.end_epoch()
    none, half_filled, half_known, all_known = told
    assert none == pytest.approx(-2 * each * (0.25 + 0.5))
    assert half_filled == pytest.approx(-each * (0.25 + 0.5))
    assert half_known == pytest.approx(each * 3.0 - 2 * each * 0.25 - each * 0.5)
    assert all_known == pytest.approx(2 * each * (3.0 - 0.25))


def test_waiting_for_data_is_told_to_the_ledger(make: Callable[..., Config], monkeypatch: pytest.MonkeyPatch) -> None:
    training = build_training(prepare(make("run", **{"training.accumulation": 2})), quiet=True)
    clock, epoch = Clock(), training.train_loader.epoch

    def slow(*arguments: Any) -> Iterator[Any]:
        for micro_batch in epoch(*arguments):
            clock.now += 2.0
            yield micro_batch

    monkeypatch.setattr("dbf_ray.training.loop.time", clock)
    monkeypatch.setattr(training.train_loader, "epoch", slow)
    monkeypatch.setattr("dbf_ray.training.loop.train_step", clock.after(100.0, train_step))
    record = run_epoch(training, LoopState())
    assert record["steps"] > 1
    assert record["data_wait_seconds"] == pytest.approx(2 * 2.0 * record["steps"])


def test_a_full_cache_hits_less_and_trains_the_same(make: Callable[..., Config]) -> None:
    common = {**FLOAT32, "data.view_per": "stretch"}
    plain = make("plain", **common)
    cached = make("cached", **common, **{"freezing.cache": "ram", "freezing.cache_gb": 2e-5})
    assert not differences(trained(plain), trained(cached))
    rows = read_epochs(run_directory(cached))
    assert 0 < rows[2]["cache_hits"] < 8
    assert all(row["cache_bytes"] <= 20_000 for row in rows)


def test_a_disk_cache_survives_a_crash(make: Callable[..., Config]) -> None:
    common = {**FLOAT32, "data.view_per": "stretch", "freezing.rho": 6}
    plain, cached = make("plain", **common), make("cached", **common, **{"freezing.cache": "disk"})
    folder = run_directory(cached)

    def crash(record: dict[str, Any], _: Path | None) -> bool:
        if record["epoch"] == 2:
            raise KeyboardInterrupt
        return True

    with pytest.raises(KeyboardInterrupt):
        run(cached, quiet=True, on_epoch=crash)
    kept = list((folder / "features").rglob("*.features"))
    assert len(kept) == 8
    kept[0].write_bytes(kept[0].read_bytes()[:-3])
    run(cached, quiet=True, resume=find_resume(cached, folder))
    assert hits_of(cached)[3:] == [7, 8, 8]
    assert all(row["cache_seconds_saved"] > -0.05 for row in read_epochs(folder))
    wanted = trained(plain)
    state, _ = load_checkpoint(list_checkpoints(folder / "checkpoints")[-1])
    assert not differences({key: wanted[key] for key in ("model", "optimizer")}, {key: state[key] for key in ("model", "optimizer")})
    assert not (folder / "features").exists()


def test_a_run_in_pieces_finds_what_it_kept_and_ends_in_the_same_bits(make: Callable[..., Config]) -> None:
    common = {"data.view_per": "stretch", "freezing.cache": "disk"}
    straight, pieces = make("straight", **common), make("pieces", **common)
    wanted = trained(straight)
    in_pieces(pieces)
    assert hits_of(pieces) == hits_of(straight) == [0, 0, 8, 0, 0, 8]
    state, _ = load_checkpoint(list_checkpoints(run_directory(pieces) / "checkpoints")[-1])
    assert not differences({key: wanted[key] for key in ("model", "optimizer")}, {key: state[key] for key in ("model", "optimizer")})
    assert not (run_directory(pieces) / "features").exists()


@pytest.mark.parametrize("dtype", ["bf16", "float16"])
def test_what_is_found_in_the_cache_decides_nothing(make: Callable[..., Config], dtype: str) -> None:
    """Features that are computed are rounded as kept ones are: room for few or for all, the training is the same."""
    common = {"freezing.cache": "ram", "freezing.cache_dtype": dtype, "data.view_per": "stretch"}
    little, much = make("little", **common, **{"freezing.cache_gb": 1e-5}), make("much", **common)
    assert not differences(trained(little), trained(much))
    assert sum(hits_of(little)) < sum(hits_of(much))
    assert differences(trained(make("exact", **{**common, **FLOAT32})), trained(make("again", **common)))


def test_features_of_other_images_of_the_same_names_are_not_used(make: Callable[..., Config], tmp_path: Path) -> None:
    for root in ("one", "two"):
        for index in range(8):
            for split in ("train", "val"):
                folder = tmp_path / root / split
                for kind in ("images", "labelTxt"):
                    (folder / kind).mkdir(parents=True, exist_ok=True)
                pixels = np.random.default_rng(index + 100 * (root == "two")).integers(0, 256, (64, 64, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / "images" / f"{index}.png")
                (folder / "labelTxt" / f"{index}.txt").write_text("4 4 20 4 20 12 4 12 ship 0\n")
    common = {"data.name": "dota", "freezing.policy": "frozen", "data.view_per": "stretch", "training.epochs": 2}
    cached = {**common, "freezing.cache": "disk"}

    def crash(*_: Any) -> bool:
        raise KeyboardInterrupt

    first = make("same", **{**cached, "data.root": str(tmp_path / "one")})
    with pytest.raises(KeyboardInterrupt):
        run(first, quiet=True, on_epoch=crash)
    kept = len(list(run_directory(first).rglob("*.features")))
    assert kept == 8
    second = make("same", **{**cached, "data.root": str(tmp_path / "two")})
    run(second, quiet=True)
    assert hits_of(second) == [0, 8]


def test_features_for_a_detector_that_reads_others_are_not_used(make: Callable[..., Config]) -> None:
    """A two-stage detector reads a finer map than RetinaNet; the same weights and images, and a folder that a killed run left."""
    common = {"freezing.policy": "frozen", "freezing.cache": "disk", "data.view_per": "stretch", "training.epochs": 2}

    def crash(*_: Any) -> bool:
        raise KeyboardInterrupt

    first = make("same", **common)
    with pytest.raises(KeyboardInterrupt):
        run(first, quiet=True, on_epoch=crash)
    two_stages = {"detector.name": "oriented_rcnn", "detector.roi_channels": 16, "detector.rpn_samples": 16, "detector.roi_samples": 16}
    second = make("same", **common, **two_stages)
    run(second, quiet=True)
    assert hits_of(second) == [0, 8]


def test_features_that_were_rounded_in_other_stages_are_not_used(make: Callable[..., Config], monkeypatch: pytest.MonkeyPatch) -> None:
    """A newer version may run other stages in float32: on a disk it finds what a killed run of the older one left."""
    from dbf_ray.detectors import backbones

    common = {"freezing.policy": "frozen", "freezing.cache": "disk", "data.view_per": "stretch", "training.epochs": 2}

    def crash(*_: Any) -> bool:
        raise KeyboardInterrupt

    for float32_stages, hits in ((0, [8, 8]), (1, [0, 8])):
        config = make("same", **common, **{"freezing.engine_precision": "bf16"})
        monkeypatch.setitem(backbones.FLOAT32_STAGES, config.detector.backbone, 0)
        with pytest.raises(KeyboardInterrupt):
            run(config, quiet=True, on_epoch=crash)
        monkeypatch.setitem(backbones.FLOAT32_STAGES, config.detector.backbone, float32_stages)
        run(config, quiet=True)
        assert hits_of(config) == hits


def test_weights_that_move_under_a_frozen_prefix_are_seen(make: Callable[..., Config]) -> None:
    config = make("run", **{"freezing.policy": "frozen", "freezing.cache": "ram", **FLOAT32})
    training = build_training(prepare(config), quiet=True)
    frozen, detector = training.frozen, training.detector
    assert frozen is not None
    training.scheduler.before_step(0)
    batch = detector.prepare(*next(training.train_loader.epoch(0)))

    def last() -> torch.Tensor:
        found = frozen(batch).frozen
        assert found is not None
        assert found[3] is not None
        return found[3]

    first, again = last(), last()
    assert torch.equal(first, again)
    weight = next(detector.backbone.stages[0].parameters())
    old = weight.detach().clone()
    with torch.no_grad():
        weight.mul_(1.5)
    moved = last()
    plain = detector.backbone.frozen_features(batch.images)[3]
    assert plain is not None
    assert torch.allclose(moved, plain, atol=1e-5)
    assert not torch.allclose(moved, first, atol=1e-3)
    with torch.no_grad():
        weight.copy_(old)
    assert torch.equal(last(), first)


@pytest.mark.parametrize("engine", [True, False])
def test_features_depend_on_normalisation_and_on_what_is_no_tensor(make: Callable[..., Config], engine: bool) -> None:
    """Under the same weights, in a cache on disk that a killed run left."""
    config = make("run", **{"freezing.policy": "frozen", "freezing.cache": "disk", "freezing.engine": engine, **FLOAT32})
    found = []
    for change in ("none", "mean", "eps", "none"):
        training = build_training(prepare(config), features=run_directory(config) / "features", quiet=True)
        assert training.frozen is not None
        training.scheduler.before_step(0)
        if change == "mean":
            training.detector.mean.mul_(0.5)
        if change == "eps":
            norm = next(module for module in training.detector.backbone.stages[0].modules() if isinstance(module, torch.nn.BatchNorm2d))
            norm.eps = 1.0
        batch = training.detector.prepare(*next(training.train_loader.epoch(0)))
        for _ in range(2):
            features = training.frozen(batch).frozen
        assert features is not None
        assert features[3] is not None
        exact = training.detector.backbone.frozen_features(batch.images)[3]
        assert exact is not None
        assert torch.allclose(features[3], exact, atol=1e-5)
        found.append(features[3])
    assert torch.equal(found[0], found[3])
    assert all(not torch.allclose(other, found[0], atol=1e-4) for other in found[1:3])


def test_the_engine_is_gone_when_the_backbone_is_trained_and_evaluation_runs_without_it(make: Callable[..., Config]) -> None:
    training = build_training(prepare(make("run")), quiet=True)
    frozen = training.frozen
    assert frozen is not None
    batch = training.detector.prepare(*next(training.train_loader.epoch(0)))
    training.scheduler.freezer.apply(4)
    assert frozen(batch).frozen is not None
    assert frozen.engine is not None
    frozen.engine._stages = []
    assert evaluate(training.detector, training.eval_loader, training.classes)
    training.scheduler.freezer.apply(0)
    assert frozen(batch) is batch
    assert frozen.engine is None


def test_the_engine_trains_to_nearly_the_same_losses(make: Callable[..., Config]) -> None:
    common = {"detector.backbone": "resnet18", "detector.norm_eval": False}
    plain, fast = make("plain", **common, **{"freezing.engine": False}), make("fast", **common)
    assert trained(fast)["losses"] == pytest.approx(trained(plain)["losses"], rel=1e-3)


def test_augmentation_without_end_switches_the_cache_off(make: Callable[..., Config]) -> None:
    config = make("run", **{"freezing.cache": "ram"})
    view = TrainView(prepare(config).train_set, 64)
    assert make_cache(config, view, None) is not None

    class Rotating(TrainView):
        views = None

    with pytest.warns(UserWarning, match=r"freezing\.cache ram is switched off: images are augmented in ways that have no end"):
        assert make_cache(config, Rotating(view.dataset, 64), None) is None


def test_impossible_caches_are_refused(make: Callable[..., Config]) -> None:
    with pytest.raises(
        ResourceError, match=r"kept in memory must be less than the machine's .* got 1000000\.0 GB of features .* each of 1 workers"
    ):
        prepare(make("run", **{"freezing.cache": "ram", "freezing.cache_gb": 1e6}))
    total = psutil.virtual_memory().total / 1e9
    half = {"freezing.cache": "ram", "freezing.cache_gb": 0.6 * total}
    assert prepare(make("run", **half))
    with pytest.raises(ResourceError, match="each of 2 workers"):
        prepare(make("run", **half, **{"cluster.workers": 2}))
    assert prepare(make("run", **{"data.decoded_gb": 1e6}))  # more than there is to keep
    with pytest.raises(ConfigError, match=r"freezing\.cache disk needs a folder"):
        build_training(prepare(make("run", **{"freezing.cache": "disk"})), quiet=True)
    with pytest.raises(ConfigError, match=r"freezing\.cache.*'ram'"):
        make("run", **{"freezing.cache": "tape"})
    assert make("run", **{"freezing.cache": False}).freezing.cache == "off"  # as YAML 1.1 reads off


def test_two_runs_share_a_cache_folder_without_touching_each_other(make: Callable[..., Config], tmp_path: Path) -> None:
    folder = tmp_path / "scratch"
    common = {"freezing.cache": "disk", "freezing.cache_dir": str(folder), "data.view_per": "stretch"}
    seen: list[int] = []

    def inner(record: dict[str, Any], _: Path | None) -> bool:
        if record["epoch"] == 1:
            run(make("two", **common), quiet=True)
            seen.append(len(list(folder.rglob("*.features"))))
        return True

    one = make("one", **common)
    run(one, quiet=True, on_epoch=inner)
    assert seen == [8]
    assert hits_of(one) == [0, 0, 8, 0, 0, 8]
    assert not list(folder.rglob("*.features"))


def rank_main(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    make_cheap()
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    found: dict[str, Any] = {}
    for name, cache in (("off", "off"), ("ram", "ram"), ("disk", "disk")):
        changes = {**STEP, **FLOAT32, "freezing.cache": cache, "data.view_per": "stretch", "freezing.rho": 6, "cluster.workers": 2}
        config = setting(Path(folder), name, **changes)
        summary = run(config, quiet=True)
        if rank == 0:
            state, _ = load_checkpoint(list_checkpoints(run_directory(config) / "checkpoints")[-1])
            found[name] = {"model": state["model"], "summary": summary, "hits": hits_of(config)}
    if rank == 0:
        torch.save({name: row["model"] for name, row in found.items()}, f"{folder}/models.pt")
        (Path(folder) / "rows.json").write_text(json.dumps({n: [r["hits"], r["summary"]["expected_hit_rate"]] for n, r in found.items()}))
    dist.destroy_process_group()


def test_two_ranks_read_each_others_shards_and_change_no_bit(tmp_path: Path) -> None:
    mp.start_processes(rank_main, args=(str(tmp_path),), nprocs=2, start_method="spawn")
    models = torch.load(tmp_path / "models.pt")
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert not differences(models["off"], models["ram"])
    assert not differences(models["off"], models["disk"])
    assert rows["off"] == [[0] * 6, None]
    assert rows["disk"] == [[0, 0, 8, 8, 8, 8], pytest.approx(0.8)]
    assert 0 < sum(rows["ram"][0]) < 32
    assert rows["ram"][1] == pytest.approx(1 - 2 * (1 - 0.5**5) / 5)
