"""Trainings with cache and engine: the same weights bit for bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import torch.distributed as dist

from dbf_ray.build import build_training, prepare
from dbf_ray.build.frozen import make_cache
from dbf_ray.config import Config
from dbf_ray.data import TrainView
from dbf_ray.errors import ConfigError, ResourceError
from dbf_ray.run import find_resume, run, run_directory
from dbf_ray.tracking import read_epochs
from dbf_ray.training.checkpoint import list_checkpoints, load_checkpoint
from dbf_ray.training.loop import evaluate
from tests.tiny import on_ranks
from tests.training.frozen_runs import FLOAT32, STEP, hits_of, killed_after, trained, write_noise
from tests.training.policy_runs import differences, in_pieces, make_cheap, setting

SETTINGS: dict[str, dict[str, Any]] = {
    "orientations by epoch": {},
    "orientations by span": {"data.orientation_per": "span"},
    "no engine": {"freezing.engine": False, "data.orientation_per": "span"},
    "part of the backbone": {
        "freezing.policy": "gradual_unfreeze",
        "freezing.every": 2,
        "data.orientation_per": "span",
    },
    "train-mode norms": {"detector.norm_eval": False, "data.orientation_per": "span"},
    "autocast": {"training.precision": "bf16", "data.orientation_per": "span"},
    "bf16 engine": {"freezing.engine_precision": "bf16", "data.orientation_per": "span"},
    "micro-batches": {"training.accumulation": 2, "data.orientation_per": "span"},
    "two stages": {
        **{
            "detector.name": "oriented_rcnn",
            "detector.roi_channels": 16,
            "detector.rpn_samples": 16,
            "detector.roi_samples": 16,
        },
        **{"data.orientation_per": "span", "detector.frozen_stages": 1},
    },
    "layer norms on outputs": {
        "detector.backbone": "shallow_convnext",
        "freezing.policy": "frozen",
        "training.epochs": 2,
        "data.orientation_per": "span",
    },
    "a real network": {
        "detector.backbone": "resnet18",
        "training.epochs": 4,
        "data.orientation_per": "span",
        "training.channels_last": False,
    },
}


@pytest.mark.filterwarnings("ignore:.*has to emulate")
@pytest.mark.parametrize(
    ("name", "cache"),
    [
        *((name, "ram") for name in SETTINGS),
        *((name, "disk") for name in ("orientations by epoch", "autocast", "part of the backbone")),
    ],
)
def test_a_float32_cache_changes_no_bit(narrow_run: Callable[..., Config], name: str, cache: str) -> None:
    changes = SETTINGS[name]
    plain, cached = (
        narrow_run("plain", **changes),
        narrow_run("cached", **changes, **FLOAT32, **{"freezing.cache": cache}),
    )
    assert not differences(trained(plain), trained(cached))
    assert sum(hits_of(plain)) == 0
    assert sum(hits_of(cached)) > 0
    assert not (run_directory(cached) / "features").exists()


def test_images_of_different_shapes_change_no_bit(narrow_run: Callable[..., Config], tmp_path: Path) -> None:
    """A step's pad_to depends on its images, so an image's features are kept for each pad_to."""
    write_noise(tmp_path / "data", [(24, 64), (64, 24), (24, 64), (64, 64)] * 3)
    common = {
        "data.name": "dota",
        "data.root": str(tmp_path / "data"),
        "data.orientation_per": "span",
        "freezing.rho": 6,
        "training.batch_size": 2,
    }
    plain, cached = (
        narrow_run("plain", **common),
        narrow_run("cached", **common, **FLOAT32, **{"freezing.cache": "ram"}),
    )
    assert not differences(trained(plain), trained(cached))
    told = prepare(cached).forecast
    assert told is not None
    assert told.padded_sizes > 1
    rows = read_epochs(run_directory(cached))[1:]
    rate = sum(row["cache_hits"] for row in rows) / sum(
        row["cache_hits"] + row["cache_misses"] for row in rows
    )
    assert rate == pytest.approx(told.hit_rate, abs=0.15)
    square = prepare(
        narrow_run("square", **common, **{"freezing.cache": "ram", "data.pad_to": "square"})
    ).forecast
    assert square is not None
    assert square.padded_sizes == 1
    assert square.hit_rates["span"] == pytest.approx(0.8)


def test_a_full_cache_hits_less_and_trains_the_same(narrow_run: Callable[..., Config]) -> None:
    common = {**FLOAT32, "data.orientation_per": "span"}
    plain = narrow_run("plain", **common)
    cached = narrow_run("cached", **common, **{"freezing.cache": "ram", "freezing.cache_gb": 2e-5})
    assert not differences(trained(plain), trained(cached))
    rows = read_epochs(run_directory(cached))
    assert 0 < rows[2]["cache_hits"] < 8
    assert all(row["cache_bytes"] <= 20_000 for row in rows)


def test_a_disk_cache_survives_a_crash(narrow_run: Callable[..., Config]) -> None:
    common = {**FLOAT32, "data.orientation_per": "span", "freezing.rho": 6}
    plain, cached = (
        narrow_run("plain", **common),
        narrow_run("cached", **common, **{"freezing.cache": "disk"}),
    )
    folder = run_directory(cached)

    killed_after(cached, 2)
    kept = list((folder / "features").rglob("*.features"))
    assert len(kept) == 8
    kept[0].write_bytes(kept[0].read_bytes()[:-3])
    run(cached, quiet=True, resume=find_resume(cached, folder))
    assert hits_of(cached)[3:] == [7, 8, 8]
    assert all(row["cache_seconds_saved"] > -0.05 for row in read_epochs(folder))
    wanted = trained(plain)
    state, _ = load_checkpoint(list_checkpoints(folder / "checkpoints")[-1])
    assert not differences(
        {key: wanted[key] for key in ("model", "optimizer")},
        {key: state[key] for key in ("model", "optimizer")},
    )
    assert not (folder / "features").exists()


def test_a_run_in_pieces_finds_what_it_kept_and_ends_in_the_same_bits(
    narrow_run: Callable[..., Config],
) -> None:
    common = {"data.orientation_per": "span", "freezing.cache": "disk"}
    straight, pieces = narrow_run("straight", **common), narrow_run("pieces", **common)
    wanted = trained(straight)
    in_pieces(pieces)
    assert hits_of(pieces) == hits_of(straight) == [0, 0, 8, 0, 0, 8]
    state, _ = load_checkpoint(list_checkpoints(run_directory(pieces) / "checkpoints")[-1])
    assert not differences(
        {key: wanted[key] for key in ("model", "optimizer")},
        {key: state[key] for key in ("model", "optimizer")},
    )
    assert not (run_directory(pieces) / "features").exists()


@pytest.mark.parametrize("dtype", ["bf16", "float16"])
def test_what_is_found_in_the_cache_decides_nothing(narrow_run: Callable[..., Config], dtype: str) -> None:
    """Features that are computed are rounded as kept ones are: room for few or for all, the training is the
    same.
    """
    common = {"freezing.cache": "ram", "freezing.cache_dtype": dtype, "data.orientation_per": "span"}
    little, much = narrow_run("little", **common, **{"freezing.cache_gb": 1e-5}), narrow_run("much", **common)
    assert not differences(trained(little), trained(much))
    assert sum(hits_of(little)) < sum(hits_of(much))
    assert differences(
        trained(narrow_run("exact", **{**common, **FLOAT32})), trained(narrow_run("again", **common))
    )


def test_the_engine_is_gone_when_the_backbone_is_trained_and_evaluation_runs_without_it(
    narrow_run: Callable[..., Config],
) -> None:
    training = build_training(prepare(narrow_run("run")), quiet=True)
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


def test_the_engine_trains_to_nearly_the_same_losses(narrow_run: Callable[..., Config]) -> None:
    common = {"detector.backbone": "resnet18", "detector.norm_eval": False, "training.epochs": 3}
    plain, fast = narrow_run("plain", **common, **{"freezing.engine": False}), narrow_run("fast", **common)
    assert trained(fast)["losses"] == pytest.approx(trained(plain)["losses"], rel=1e-3)


def test_augmentation_without_end_switches_the_cache_off(narrow_run: Callable[..., Config]) -> None:
    config = narrow_run("run", **{"freezing.cache": "ram"})
    spec = prepare(config)
    view = TrainView(spec.train_set, 64)
    assert make_cache(spec.frozen, view, None) is not None

    class Rotating(TrainView):
        orientations = None

    with pytest.warns(
        UserWarning,
        match=r"freezing\.cache ram is switched off: images are augmented in ways that have no end",
    ):
        assert make_cache(spec.frozen, Rotating(view.dataset, 64), None) is None


def test_impossible_caches_are_refused(narrow_run: Callable[..., Config]) -> None:
    with pytest.raises(
        ResourceError,
        match=r"kept in memory must be less than the machine's .* got 1000000\.0 GB of features .* each of "
        r"1 workers",
    ):
        prepare(narrow_run("run", **{"freezing.cache": "ram", "freezing.cache_gb": 1e6}))
    total = psutil.virtual_memory().total / 1e9
    half = {"freezing.cache": "ram", "freezing.cache_gb": 0.6 * total}
    assert prepare(narrow_run("run", **half))
    with pytest.raises(ResourceError, match="each of 2 workers"):
        prepare(narrow_run("run", **half, **{"cluster.workers": 2}))
    assert prepare(narrow_run("run", **{"data.decoded_gb": 1e6}))  # more than there is to keep
    with pytest.raises(ConfigError, match=r"freezing\.cache disk needs a folder"):
        build_training(prepare(narrow_run("run", **{"freezing.cache": "disk"})), quiet=True)
    with pytest.raises(ConfigError, match=r"freezing\.cache.*'ram'"):
        narrow_run("run", **{"freezing.cache": "tape"})
    assert narrow_run("run", **{"freezing.cache": False}).freezing.cache == "off"  # as YAML 1.1 reads off


def test_two_runs_share_a_cache_folder_without_touching_each_other(
    narrow_run: Callable[..., Config], tmp_path: Path
) -> None:
    folder = tmp_path / "scratch"
    common = {"freezing.cache": "disk", "freezing.cache_dir": str(folder), "data.orientation_per": "span"}
    seen: list[int] = []

    def inner(record: dict[str, Any], _: Path | None) -> bool:
        if record["epoch"] == 1:
            run(narrow_run("two", **common), quiet=True)
            seen.append(len(list(folder.rglob("*.features"))))
        return True

    one = narrow_run("one", **common)
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
        changes = {
            **STEP,
            **FLOAT32,
            "freezing.cache": cache,
            "data.orientation_per": "span",
            "freezing.rho": 6,
            "cluster.workers": 2,
        }
        config = setting(Path(folder), name, **changes)
        summary = run(config, quiet=True)
        if rank == 0:
            state, _ = load_checkpoint(list_checkpoints(run_directory(config) / "checkpoints")[-1])
            found[name] = {"model": state["model"], "summary": summary, "hits": hits_of(config)}
    if rank == 0:
        torch.save({name: row["model"] for name, row in found.items()}, f"{folder}/models.pt")
        (Path(folder) / "rows.json").write_text(
            json.dumps({n: [r["hits"], r["summary"]["expected_hit_rate"]] for n, r in found.items()})
        )
    dist.destroy_process_group()


def test_two_ranks_read_each_others_shards_and_change_no_bit(tmp_path: Path) -> None:
    on_ranks(rank_main, str(tmp_path))
    models = torch.load(tmp_path / "models.pt")
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert not differences(models["off"], models["ram"])
    assert not differences(models["off"], models["disk"])
    assert rows["off"] == [[0] * 6, None]
    assert rows["disk"] == [[0, 0, 8, 8, 8, 8], pytest.approx(0.8)]
    assert 0 < sum(rows["ram"][0]) < 32
    assert rows["ram"][1] == pytest.approx(1 - 2 * (1 - 0.5**5) / 5)
