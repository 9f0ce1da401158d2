"""Micro-batches that grow where stages are frozen: within the limit, and the same training."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dbf_ray.build import build_training, prepare
from dbf_ray.config import Config
from dbf_ray.cost.live_bytes import LiveBytes, nbytes
from dbf_ray.errors import ResourceError
from dbf_ray.run import notes_of, run, run_directory
from dbf_ray.tracking import read_epochs
from dbf_ray.training.loop import train_step
from dbf_ray.training.micro_batches import fewest, merged


@given(accumulation=st.sampled_from([1, 2, 3, 4, 6, 12]), images=st.integers(1, 3), data=st.data())
def test_merging_keeps_the_order_and_every_image(accumulation: int, images: int, data: st.DataObject) -> None:
    count = data.draw(st.sampled_from([n for n in range(1, accumulation + 1) if accumulation % n == 0]))
    parts = [([f"i{k}.{j}" for j in range(images)], [f"t{k}.{j}" for j in range(images)]) for k in range(accumulation)]
    found = merged(parts, count)
    assert len(found) == count
    assert {len(group) for group, _ in found} == {images * accumulation // count}
    assert [i for group, _ in found for i in group] == [i for group, _ in parts for i in group]
    assert [t for _, group in found for t in group] == [t for _, group in parts for t in group]


@given(accumulation=st.integers(1, 12), images=st.integers(1, 4), limit=st.integers(1, 80))
def test_as_few_as_fit(accumulation: int, images: int, limit: int) -> None:
    def needed(count: int) -> int:
        return 10 + 2 * count

    everything = range(1, accumulation + 1)
    if needed(images) > limit:
        with pytest.raises(
            ResourceError, match=r"images in a micro-batch it needs .*raise training\.accumulation or training\.micro_batch_gb"
        ):
            fewest(accumulation, images, everything, needed, limit)
        return
    count = fewest(accumulation, images, everything, needed, limit)
    assert accumulation % count == 0
    assert needed(images * accumulation // count) <= limit
    assert all(needed(images * accumulation // n) > limit for n in range(1, count) if accumulation % n == 0)
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
    return tiny(**{"training__accumulation": 4, "freezing__policy": "step", "freezing__rho": 2, "training__lr": 1e-4, **changes})


def test_frozen_epochs_use_larger_micro_batches_and_train_the_same(tiny: Callable[..., Config]) -> None:
    plain = settings(tiny, name="plain")
    table, weights = prepare(plain).table, nbytes(prepare(plain).detector.state_dict().values())
    full_of_two, frozen_of_eight = (table.network_bytes(96, 96, n, images) for n, images in ((0, 2), (4, 8)))
    assert frozen_of_eight < table.network_bytes(96, 96, 0, 4)
    backbone = nbytes(prepare(plain).detector.backbone.state_dict().values())
    limit = 3 * weights + max(full_of_two, frozen_of_eight + backbone) + 1
    large = settings(tiny, name="large", training__micro_batch_gb=limit / 1e9)
    plan = prepare(large)
    assert plan.micro_batches is not None
    assert (plan.micro_batches[0], plan.micro_batches[4]) == (4, 1)
    assert notes_of(plan) == [
        f"micro-batches of a step within {limit / 1e9:g} GB: "
        + ", ".join(f"{count} with {n} stages frozen" for n, count in enumerate(plan.micro_batches))
    ]
    run(plain, quiet=True)
    run(large, quiet=True)
    losses = [[epoch["loss"] for epoch in read_epochs(run_directory(config))] for config in (plain, large)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_train_mode_norms_keep_their_batches(tiny: Callable[..., Config]) -> None:
    """Statistics of a larger micro-batch would be others."""
    settled = {"freezing__policy": "step", "freezing__rho": 2, "training__accumulation": 4, "training__micro_batch_gb": 8.0}
    assert prepare(tiny(**settled)).micro_batches == [1, 4, 4, 4, 1]  # prefixes 1 to 3 do not occur
    assert prepare(tiny(**settled, detector__norm_eval=False)).micro_batches == [4, 4, 4, 4, 1]


def test_too_little_memory_is_refused(tiny: Callable[..., Config]) -> None:
    with pytest.raises(ResourceError, match=r"a step must fit into training\.micro_batch_gb = 0\.001, with 2 images"):
        prepare(settings(tiny, training__micro_batch_gb=0.001))


@pytest.mark.parametrize("prefix", [0, 4])
def test_a_step_needs_about_what_was_said(tiny: Callable[..., Config], prefix: int) -> None:
    """Counted on the meta device, and in a real step, which has losses too."""
    config = tiny(freezing__engine=False)
    plan = prepare(config)
    training = build_training(plan, quiet=True)
    training.scheduler.before_step(0)
    training.scheduler.freezer.apply(prefix)
    batch = training.detector.prepare(*next(training.train_loader.epoch(0)))
    train_step(training, [batch])
    with LiveBytes() as live:
        train_step(training, [batch])
    said = plan.table.network_bytes(96, 96, prefix, 8)
    if prefix == 0:
        assert said == pytest.approx(live.peak, rel=0.35)
    else:  # as on a GPU; a CPU takes one image at a time through what is frozen
        assert live.peak < said
