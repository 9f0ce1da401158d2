"""From configuration to objects: what a spec knows before training, and what is refused before it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import tests.tiny
from dbf_ray.build import RunSpec, build_training, prepare
from dbf_ray.build.data import choose_device, loader_workers
from dbf_ray.build.frozen import padded_size_shares
from dbf_ray.build.images import image_settings
from dbf_ray.config import Config, load_config
from dbf_ray.data import TrainView
from dbf_ray.data.augment import Augmentation
from dbf_ray.data.transforms import ORIENTATIONS
from dbf_ray.detectors.backbones.engine import PrefixEngine
from dbf_ray.errors import ConfigError, DataError, DbfRayError, ResourceError
from dbf_ray.run import find_resume, run, run_directory
from dbf_ray.tracking import read_epochs
from dbf_ray.training.checkpoint import list_checkpoints, load_checkpoint

TINY: dict[str, Any] = {
    **tests.tiny.TINY,
    "data.val_images": 3,
    "training.epochs": 6,
    "training.device": "cpu",
}
pytestmark = pytest.mark.usefixtures("narrow")


def tiny(**changes: Any) -> Config:
    return load_config(None, {**TINY, **{key.replace("__", "."): value for key, value in changes.items()}})


@pytest.fixture(scope="module")
def spec() -> RunSpec:
    return prepare(tiny(freezing__policy="step", freezing__rho=4))


def test_a_plan_knows_timeline_and_cost(spec: RunSpec) -> None:
    assert spec.num_stages == 4
    assert spec.frozen_prefixes == [0, 4, 4, 4, 0, 4]
    assert spec.budget == 2
    flops = spec.flops_per_prefix
    assert len(flops) == 5
    assert flops == sorted(flops, reverse=True)
    assert spec.compute_ratio == pytest.approx((2 * flops[0] + 4 * flops[4]) / (6 * flops[0]))
    # Training costs three forwards; a frozen backbone only its own forward, and the gradients that reach it
    # are not needed.
    saved = 1 - flops[4] / flops[0]
    assert saved == pytest.approx(2 / 3 * spec.backbone_share, abs=0.05)
    assert spec.eval_split == "val"
    assert (len(spec.train_set), len(spec.eval_set)) == (8, 3)


def test_stages_that_are_always_frozen_are_in_the_timeline_and_in_the_reference() -> None:
    spec = prepare(tiny(detector__frozen_stages=2, freezing__policy="step", freezing__rho=2))
    assert spec.frozen_prefixes == [2, 4, 2, 4, 2, 4]
    flops = spec.flops_per_prefix
    assert spec.compute_ratio == pytest.approx((flops[2] + flops[4]) / (2 * flops[2]))
    assert prepare(tiny(detector__frozen_stages=2)).compute_ratio == 1.0


def test_a_part_of_train_can_be_held_out_to_select_on() -> None:
    spec = prepare(tiny(data__selection_fraction=0.5, training__batch_size=2))
    assert spec.eval_split == "selection"
    assert len(spec.train_set) + len(spec.eval_set) == 8
    assert not set(spec.train_set.image_ids) & set(spec.eval_set.image_ids)


def test_the_seed_alone_makes_the_weights() -> None:
    torch.manual_seed(1)
    one = prepare(tiny(seed=3)).detector.state_dict()
    torch.manual_seed(2)
    two = prepare(tiny(seed=3)).detector.state_dict()
    other = prepare(tiny(seed=4)).detector.state_dict()
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)


def test_training_gets_what_was_configured() -> None:
    changes = {
        "training__optimizer": "sgd",
        "training__momentum": 0.5,
        "training__lr": 0.25,
        "training__backbone_lr_factor": 0.1,
    }
    spec = prepare(
        tiny(**changes, training__schedule="cosine", training__accumulation=2, training__clip_norm=None)
    )
    training = build_training(spec, quiet=True)
    assert isinstance(training.optimizer, torch.optim.SGD)
    groups = training.optimizer.param_groups
    assert {group["momentum"] for group in groups} == {0.5}
    assert {(group["stage"] < 0, group["factor"]) for group in groups} == {(True, 1.0), (False, 0.1)}
    optimized = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(optimized) == sorted(id(parameter) for parameter in spec.detector.parameters())
    rate = training.learning_rate
    assert (rate.base, rate.schedule, rate.epochs) == (0.25, "cosine", 6)
    assert (training.accumulation, training.clip_norm, training.train_loader.steps_per_epoch) == (2, None, 2)


def test_detector_options_get_their_types() -> None:
    spec = prepare(
        tiny(
            detector__score_threshold="0.2", detector__anchor_angles=[0, 45], detector__detections_per_image=7
        )
    )
    detector: Any = spec.detector
    assert (detector.score_threshold, detector.detections_per_image) == (0.2, 7)
    assert detector.anchors.per_cell == 3 * 3 * 2


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        (
            {"detector__score_threshold": "high"},
            ConfigError,
            "detector.score_threshold of rotated_retinanet: .* got 'high'",
        ),
        (
            {"detector__anchor_ratios": 2.0},
            ConfigError,
            r"detector.anchor_ratios of .* written \[a, b\], got 2.0",
        ),
        ({"detector__topk_candidates": 2.5}, ConfigError, "detector.topk_candidates .* got 2.5"),
        ({"training__batch_size": 9}, DataError, "batch of 9 images, got 8"),
        ({"data__selection_fraction": 0.9}, DataError, "batch of 4 images, got 1"),
        ({"data__classes": ["ship"]}, DataError, "leave data.classes out"),
        (
            {"freezing__policy": "step", "freezing__rho": True},
            ConfigError,
            "rho must be an integer >= 1, got True",
        ),
    ],
)
def test_what_is_refused(changes: dict[str, Any], kind: type[DbfRayError], message: str) -> None:
    with pytest.raises(kind, match=message):
        prepare(tiny(**changes))


def test_policy_and_options_are_checked_before_the_data_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: Any, **__: Any) -> None:
        raise AssertionError("the data were read")

    monkeypatch.setattr("dbf_ray.build.data.make_dataset", read)
    for changes in ({"freezing__policy": "stpe"}, {"detector__name": "yolo"}, {"detector__anchors": 1}):
        with pytest.raises(ConfigError):
            prepare(tiny(**changes))


def cuda(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    def there_are(count: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    return there_are


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    there_are = cuda(monkeypatch)
    there_are(0)
    assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(ResourceError, match="cuda, but torch sees no CUDA device; set it to cpu or auto"):
        choose_device("cuda")
    there_are(2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose_device("auto") == torch.device("cuda", 1)
    assert choose_device("cpu") == torch.device("cpu")


def test_the_backbones_share_is_a_fraction(spec: RunSpec) -> None:
    assert 0 < spec.backbone_share < 1
    assert math.isfinite(spec.cost_of([4]))


@pytest.mark.parametrize(
    ("configured", "device", "cpus", "gpus", "processes"),
    [
        (None, "cpu", 16, 0, 0),
        (3, "cpu", 16, 0, 3),
        (None, "cuda", 16, 1, 8),
        (None, "cuda", 16, 4, 3),
        (None, "cuda", 2, 2, 1),
        (0, "cuda", 16, 1, 0),
    ],
)
def test_loading_processes(
    configured: int | None, device: str, cpus: int, gpus: int, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None on a CPU, which they would share; for a GPU its share of the CPUs."""
    monkeypatch.setattr("dbf_ray.build.data.usable_cpus", lambda: cpus)
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    assert loader_workers(configured, torch.device(device)) == processes


def test_the_loader_is_fed_as_configured() -> None:
    config = tiny(data__loader_workers=2, data__prefetch=5, data__decoded_gb=0.001, training__device="auto")
    training = build_training(prepare(config), quiet=True)
    for loader in (training.train_loader, training.eval_loader):
        inner = loader._loader  # type: ignore[attr-defined]
        assert (inner.num_workers, inner.prefetch_factor, inner.pin_memory) == (
            2,
            5,
            training.device.type == "cuda",
        )
        store = inner.dataset.view._resized
        assert store.budget_used <= 1e6
    assert training.train_loader._loader.dataset.view._resized.kept > 0  # type: ignore[attr-defined]


ALL = {
    **{
        "data__flips": ["horizontal", "rotate90", "transpose"],
        "data__augment__rotate": 180,
        "data__augment__rotate_probability": 0.7,
    },
    **{"data__augment__scales": [0.5, 1.5], "data__augment__brightness": 0.3, "data__augment__contrast": 0.3},
    **{"data__augment__saturation": 0.3, "data__augment__hue": 0.1},
}


def test_one_augmented_epoch_is_trained_and_a_resumed_one_is_the_same(tmp_path: Path, spec: RunSpec) -> None:
    common = {
        "training__epochs": 2,
        "evaluation__every": 2,
        "training__threads": 1,
        "runs_dir": str(tmp_path),
        **ALL,
    }
    straight, halves = tiny(name="straight", **common), tiny(name="halves", **common)
    run(straight, quiet=True)
    records = read_epochs(run_directory(straight))
    assert [math.isfinite(record["loss"]) for record in records] == [True, True]
    assert 0 <= records[-1]["map50"] <= 1
    # larger padded_sizes than the nominal one
    assert sum(record["executed_flops"] for record in records) > 16 * spec.flops_per_prefix[0]
    assert run(halves, quiet=True, on_epoch=lambda record, _: False)["stopped_early"]
    with pytest.raises(ConfigError, match=r"differs in data\.augment\.rotate \(180\.0, now 90\.0\)"):
        find_resume(tiny(name="halves", **{**common, "data__augment__rotate": 90}), run_directory(halves))
    run(halves, quiet=True, resume=find_resume(halves, run_directory(halves)))
    one, two = (
        load_checkpoint(list_checkpoints(run_directory(c) / "checkpoints")[-1])[0]["model"]
        for c in (straight, halves)
    )
    assert all(torch.equal(one[key], two[key]) for key in one)


def training_view(config: Config) -> TrainView:
    loader: Any = build_training(prepare(config), quiet=True).train_loader
    view = loader._loader.dataset.view
    assert isinstance(view, TrainView)
    return view


def test_the_loader_augments_as_configured() -> None:
    view = training_view(tiny(**ALL))
    assert view.augmentation == Augmentation(180.0, 0.7, (0.5, 1.5), 0.3, 0.3, 0.3, 0.1)
    assert view.flips == ("horizontal", "rotate90", "transpose")
    plain = training_view(tiny())
    assert plain.augmentation is None
    assert plain.orientations == ("identity", "horizontal", "vertical", "diagonal")


@pytest.mark.parametrize("cache", ["ram", "disk"])
def test_augmentation_switches_the_cache_off_and_says_by_which_option(cache: str, tmp_path: Path) -> None:
    step = {"freezing__policy": "step", "freezing__rho": 3, "freezing__cache": cache}
    config = tiny(
        **step, data__augment__rotate=30, data__augment__scales=[0.5, 1], data__augment__contrast=0.2
    )
    spec = prepare(config)
    assert spec.forecast is None
    with pytest.warns(UserWarning, match=r"freezing\.cache .* switched off") as warned:
        training = build_training(spec, quiet=True, features=tmp_path / "features")
    [text] = [str(warning.message) for warning in warned if "freezing.cache" in str(warning.message)]
    assert "(data.augment.rotate 30.0, data.augment.scales [0.5, 1.0], data.augment.contrast 0.2)" in text
    assert (
        "leave data.augment.rotate, data.augment.scales, data.augment.contrast out and use the orientations "
        "of data.flips alone" in text
    )
    assert training.frozen is not None  # the engine still runs frozen stages
    assert training.frozen.cache is None
    training.scheduler.freezer.apply(4)
    batch = training.detector.prepare(*next(training.train_loader.epoch(0)))
    assert batch.orientations is None
    assert training.frozen(batch).frozen is not None
    assert not (tmp_path / "features").exists()
    # nothing is kept, whatever it may be
    assert prepare(tiny(**step, data__augment__rotate=30, freezing__cache_gb=1e6)).forecast is None


def test_quarter_turns_are_orientations_that_a_cache_keeps() -> None:
    orientations = {
        "data__flips": [name for name in ORIENTATIONS if name != "identity"],
        "freezing__policy": "step",
        "freezing__rho": 6,
    }
    spec = prepare(tiny(freezing__cache="ram", **orientations))
    assert spec.forecast is not None
    assert spec.forecast.hit_rates["epoch"] == pytest.approx(1 - 8 * (1 - (7 / 8) ** 5) / 5)
    training = build_training(spec, quiet=True)
    training.scheduler.freezer.apply(4)
    batch = training.detector.prepare(*next(training.train_loader.epoch(1)))
    assert batch.orientations is not None
    assert training.frozen is not None
    assert training.frozen(batch).frozen is not None
    assert training.frozen.cache is not None
    assert training.frozen.cache.bytes > 0


def test_quarter_turns_swap_the_sides_of_the_padded_size() -> None:
    class Wide:
        """Known to be wide, and never loaded."""

        classes, image_ids, sizes = ["ship"], [str(n) for n in range(8)], [(32, 64)] * 8

        def __len__(self) -> int:
            return 8

        def load(self, index: int) -> Any:
            raise AssertionError("a forecast decodes nothing")

    def shares(*flips: str) -> list[float]:
        images = image_settings(tiny(data__flips=list(flips)).data, compiled=False)
        return padded_size_shares(Wide(), images, batch_size=1, seed=0, epochs=40)

    assert shares("horizontal", "vertical", "diagonal") == [1.0]
    assert sorted(shares("rotate90")) == pytest.approx([0.5, 0.5], abs=0.1)
    assert sorted(shares("rotate90", "rotate270", "transverse")) == pytest.approx([0.25, 0.75], abs=0.1)


def test_larger_scales_count_in_memory_and_in_the_one_padded_size() -> None:
    large = {"data__augment__scales": [0.5, 2.0]}
    wide, plain = (image_settings(tiny(**changes).data, compiled=False) for changes in (large, {}))
    assert (wide.square, wide.largest, plain.largest) == (64, 128, 64)
    assert (wide.least_pad_to, plain.least_pad_to) == ((0, 0), (0, 0))
    assert image_settings(tiny(**large).data, compiled=True).least_pad_to == (128, 128)
    less = image_settings(tiny(data__augment__scales=[0.5, 0.75]).data, compiled=False)
    assert less.largest == 64  # images are evaluated at their full size
    limit = {"training__micro_batch_gb": 0.25, "training__accumulation": 2}
    first, scaled = prepare(tiny(**limit)), prepare(tiny(**limit, **large, data__pad_to="square"))
    for spec, side in ((first, 64), (scaled, 128)):
        merging = build_training(spec, quiet=True).micro_batches
        assert merging is not None
        assert (merging.limit, merging.side) == (250_000_000, side)
    assert scaled.detector.least_pad_to == (128, 128)
    assert scaled.flops == first.flops  # the nominal cost is that of data.image_size


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"data__augment__scales": [1.5, 0.5]},
            r"data\.augment\.scales must be \[low, high\] .* got \[1\.5, 0\.5\]",
        ),
        (
            {"data__augment__scales": [0.1, 1.0]},
            r"data\.augment\.scales must leave .* got \[0\.1, 1\.0\] x data\.image_size 64 = 6 to 64",
        ),
    ],
)
def test_augmentation_is_checked_before_the_data_are_read(
    changes: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dbf_ray.build.data.make_dataset", None)
    with pytest.raises(ConfigError, match=message):
        prepare(tiny(**changes))


def test_kept_features_belong_to_the_arithmetic_that_gave_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another precision, or another revision of the engine, rounds otherwise; stages without an engine have
    no revision.
    """

    def facts(**changes: Any) -> tuple[object, ...]:
        config = tiny(freezing__policy="step", freezing__rho=3, freezing__cache="ram", **changes)
        frozen = build_training(prepare(config), quiet=True).frozen
        assert frozen is not None
        return frozen.facts

    def ways() -> list[tuple[object, ...]]:
        return [
            facts(),
            facts(freezing__engine_precision="bf16"),
            facts(freezing__cache_dtype="float32"),
            facts(freezing__engine=False),
        ]

    before = ways()
    assert len(set(before)) == 4
    assert ways() == before
    monkeypatch.setattr(PrefixEngine, "revision", PrefixEngine.revision + 1)
    assert [now == then for now, then in zip(ways(), before, strict=True)] == [False, False, False, True]
