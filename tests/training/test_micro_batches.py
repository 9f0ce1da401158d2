"""Micro-batches that grow where stages are frozen: within the limit, and the same training."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st

from dbf_ray.build import build_training, prepare
from dbf_ray.build.frozen import step_memory
from dbf_ray.config import Config, with_overrides
from dbf_ray.cost.live_bytes import LiveBytes, nbytes
from dbf_ray.errors import ResourceError
from dbf_ray.run import run, run_directory
from dbf_ray.run.runner import notes_of
from dbf_ray.tracking import read_epochs
from dbf_ray.training.loop import Training, common_pad_to, train_step
from dbf_ray.training.micro_batches import fewest, merged
from dbf_ray.training.step_memory import StepMemory


@given(accumulation=st.sampled_from([1, 2, 3, 4, 6, 12]), images=st.integers(1, 3), data=st.data())
def test_merging_keeps_the_order_and_every_image(accumulation: int, images: int, data: st.DataObject) -> None:
    count = data.draw(st.sampled_from([n for n in range(1, accumulation + 1) if accumulation % n == 0]))
    parts = [
        ([f"i{k}.{j}" for j in range(images)], [f"t{k}.{j}" for j in range(images)])
        for k in range(accumulation)
    ]
    found = merged(parts, count)
    assert len(found) == count
    assert {len(group) for group, _ in found} == {images * accumulation // count}
    assert [i for group, _ in found for i in group] == [i for group, _ in parts for i in group]
    assert [t for _, group in found for t in group] == [t for _, group in parts for t in group]


@given(accumulation=st.integers(1, 12), images=st.integers(1, 4), limit=st.integers(1, 80))
def test_as_few_as_fit(accumulation: int, images: int, limit: int) -> None:
    def needed(size: int, count: int) -> int:
        assert size * count == images * accumulation
        return 10 + 2 * size

    everything = range(1, accumulation + 1)
    if needed(images, accumulation) > limit:
        with pytest.raises(
            ResourceError,
            match=r"images in a micro-batch it needs .*raise `accumulation` or "
            r"`micro_batch_gb`",
        ):
            fewest(accumulation, images, everything, needed, limit)
        return
    count = fewest(accumulation, images, everything, needed, limit)
    assert accumulation % count == 0
    assert needed(images * accumulation // count, count) <= limit
    assert all(
        needed(images * accumulation // n, n) > limit for n in range(1, count) if accumulation % n == 0
    )
    assert fewest(accumulation, images, [accumulation], needed, limit) == accumulation


def test_live_bytes_by_hand() -> None:
    a = torch.zeros(1000)  # from before: does not count
    with LiveBytes() as live:
        b = a + 1
        view = b[10:20].view(2, 5)
        c = b * 2
        assert (live.now, live.peak) == (8000, 8000)
        del b, c
        assert live.now == 4000  # the view holds b's memory
        del view
        assert (live.now, live.peak) == (0, 8000)
        live.peak = live.now
        d = torch.ones(10, dtype=torch.float64, device="meta")
        assert (live.now, live.peak) == (80, 80)
        del d
    with LiveBytes([a, a.view(10, 100)]) as live:
        assert live.now == 4000
    assert nbytes([a, a[:5], torch.zeros(2)]) == 4008


def settings(tiny: Callable[..., Config], **changes: object) -> Config:
    return tiny(
        **{
            "training__accumulation": 4,
            "freezing__policy": "step",
            "freezing__rho": 2,
            "training__lr": 1e-4,
            **changes,
        }
    )


def test_frozen_epochs_use_larger_micro_batches_and_train_the_same(tiny: Callable[..., Config]) -> None:
    plain = settings(tiny, name="plain", **SMALL)
    needed = needed_by(plain)
    limit = max(needed(0, 2, 4), needed(4, 8, 1))
    assert limit < needed(0, 4, 2)
    large = settings(tiny, name="large", **SMALL, training__micro_batch_gb=limit / 1e9)
    spec = prepare(large)
    assert spec.micro_batches is not None
    assert (spec.micro_batches[0], spec.micro_batches[4]) == (4, 1)
    assert notes_of(spec) == [
        f"micro-batches of a step within {limit / 1e9:g} GB: "
        + ", ".join(f"{count} with {n} stages frozen" for n, count in enumerate(spec.micro_batches))
    ]
    run(plain, quiet=True)
    run(large, quiet=True)
    losses = [[epoch["loss"] for epoch in read_epochs(run_directory(config))] for config in (plain, large)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_train_mode_norms_keep_their_batches(tiny: Callable[..., Config]) -> None:
    """Statistics of a larger micro-batch would be others."""
    settled = {
        "freezing__policy": "step",
        "freezing__rho": 2,
        "training__accumulation": 4,
        "training__micro_batch_gb": 8.0,
    }
    assert prepare(tiny(**settled)).micro_batches == [1, 4, 4, 4, 1]  # prefixes 1 to 3 do not occur
    assert prepare(tiny(**settled, detector__norm_eval=False)).micro_batches == [4, 4, 4, 4, 1]


def test_too_little_memory_is_refused(tiny: Callable[..., Config]) -> None:
    with pytest.raises(
        ResourceError, match=r"a step must fit into training\.micro_batch_gb = 0\.001, with 2 images"
    ):
        prepare(settings(tiny, training__micro_batch_gb=0.001))


SMALL = {
    "detector__backbone": "mobilenet_v3_small",
    "detector__fpn_channels": 32,
}  # weights that do not hide the rest
TWO_STAGES = {"detector__roi_channels": 64}


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("rotated_retinanet", {}),
        ("rotated_fcos", {}),
        ("rotated_faster_rcnn", TWO_STAGES),
        ("oriented_rcnn", TWO_STAGES),
        (
            "rotated_retinanet",
            {"training__optimizer": "sgd", "training__ema": 0.9, "detector__frozen_stages": 1},
        ),
    ],
)
def test_a_step_needs_no_more_than_was_said_and_not_much_less(
    tiny: Callable[..., Config], name: str, changes: dict[str, object]
) -> None:
    """All tensors of whole steps, the preparation of every micro-batch, losses and weights too, against the
    limit that would just allow them.
    """
    common = {**SMALL, "detector__name": name, "data__canvas": "square", **changes}
    needed = needed_by(tiny(**common))
    for accumulation in (1, 4):
        training = build_training(prepare(tiny(**common, training__accumulation=accumulation)), quiet=True)
        for prefix in (0, 1, 2, 4):
            said = needed(prefix, 8 // accumulation, accumulation)
            known, peak = alive_in_a_step(training, prefix)
            assert known < peak <= said, (accumulation, prefix)
            assert said < 1.4 * peak, (accumulation, prefix)
        assert training.frozen is not None
        assert training.frozen.engine is not None


@pytest.mark.parametrize("norm_eval", [False, "sync"])
def test_norms_that_are_trained_are_not_run_on_one_image(
    tiny: Callable[..., Config], norm_eval: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 32 pixels a map has one: no statistics. And counting calls for no other rank, which may count at
    another time or not at all.
    """
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda *_: 2)
    monkeypatch.setattr(dist, "all_reduce", None)
    config = tiny(**SMALL, data__image_size=32, detector__norm_eval=norm_eval, training__micro_batch_gb=8.0)
    assert prepare(config).micro_batches == [1] * 5


def test_counting_changes_neither_the_detector_nor_random_numbers(tiny: Callable[..., Config]) -> None:
    spec = prepare(tiny(**SMALL, detector__norm_eval=False))
    before, seeded = (
        {key: value.clone() for key, value in spec.detector.state_dict().items()},
        torch.get_rng_state(),
    )
    mode = [
        (module.training, *(p.requires_grad for p in module.parameters(False)))
        for module in spec.detector.modules()
    ]
    with torch.no_grad():
        first, again = (
            step_memory(spec.config, spec.detector, spec.table, spec.images.largest) for _ in range(2)
        )
    assert first(0, 8, 1) == again(0, 8, 1)
    assert torch.equal(torch.get_rng_state(), seeded)
    assert all(torch.equal(value, before[key]) for key, value in spec.detector.state_dict().items())
    assert mode == [
        (module.training, *(p.requires_grad for p in module.parameters(False)))
        for module in spec.detector.modules()
    ]


def test_copies_of_the_weights_count(tiny: Callable[..., Config]) -> None:
    spec = prepare(tiny(**SMALL))
    weights = nbytes(spec.detector.state_dict().values())
    backbone = nbytes(spec.detector.backbone.state_dict().values())

    def needed(prefix: int, **changes: object) -> int:
        options = {
            "most_images": 8,
            "kept": 1,
            "engine": False,
            "replicated": False,
            "low_precision": False,
            **changes,
        }
        return StepMemory(spec.detector, spec.table, 96, **options)(prefix, 8, 1)  # type: ignore[arg-type]

    plain = needed(0), needed(4)
    assert (needed(0, kept=3) - plain[0], needed(4, kept=3) - plain[1]) == (2 * weights, 2 * weights)
    assert (needed(0, engine=True) - plain[0], needed(4, engine=True) - plain[1]) == (0, backbone)
    assert (needed(0, replicated=True) - plain[0], needed(4, replicated=True) - plain[1]) == (
        weights,
        weights - backbone,
    )
    assert needed(0, low_precision=True) - plain[0] == pytest.approx(weights / 2, abs=1)


def test_norms_that_autocast_leaves_in_float32_count(tiny: Callable[..., Config]) -> None:
    spec = prepare(tiny(**SMALL, detector__name="rotated_fcos", training__precision="bf16"))
    assert any(isinstance(module, torch.nn.GroupNorm) for module in spec.detector.modules())
    needed = step_memory(spec.config, spec.detector, spec.table, spec.images.largest)
    exact = step_memory(
        with_overrides(spec.config, {"training.precision": "float32"}),
        spec.detector,
        spec.table,
        spec.images.largest,
    )
    trained = nbytes(spec.detector.state_dict().values())
    network = spec.table.network_bytes(96, 96, 0, 8)
    assert needed(0, 8, 1) - exact(0, 8, 1) >= round(trained / 2 + network / 4) - 2


def needed_by(config: Config) -> StepMemory:
    spec = prepare(config)
    return step_memory(config, spec.detector, spec.table, spec.images.largest)


def alive_in_a_step(training: Training, prefix: int) -> tuple[int, int]:
    """Bytes of tensors that are there between steps, and the most in a step; the optimizer's are those of a
    trained step.
    """
    loader = training.train_loader
    for frozen in (0, prefix):
        training.scheduler.freezer.apply(frozen)
        training.ddp.rebuild()
        micro_batches = list(loader.epoch(0))[: training.accumulation]
        pad_to = common_pad_to(
            [image for images, _ in micro_batches for image in images], torch.device("cpu")
        )
        train_step(
            training,
            [training.detector.prepare(images, targets, pad_to) for images, targets in micro_batches],
        )
    kept = [
        value
        for state in training.optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    ]
    kept += [
        *training.detector.state_dict().values(),
        *(image for images, _ in micro_batches for image in images),
    ]
    if training.average is not None:
        kept += training.average.detector.state_dict().values()
    if training.frozen is not None and training.frozen.engine is not None:
        kept += [tensor for stage in training.frozen.engine._stages for tensor in stage.state_dict().values()]
    with LiveBytes(kept) as live:
        known = live.now
        train_step(
            training,
            [training.detector.prepare(images, targets, pad_to) for images, targets in micro_batches],
        )
    return known, live.peak
