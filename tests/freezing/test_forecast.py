"""Expected hits of a feature cache: against known figures, and against simulated runs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbf_ray.data.loaders import MicroBatchSampler
from dbf_ray.data.transforms import FLIPS, draw_orientation
from dbf_ray.freezing import make_policy
from dbf_ray.freezing.forecast import Span, expected_hit_rate, forecast, spans


@pytest.mark.parametrize(("rho", "rate"), [(10, 0.59), (5, 0.32), (3, 0.125)])
def test_four_orientations_drawn_each_epoch(rho: int, rate: float) -> None:
    assert expected_hit_rate([rho - 1], [[0.25] * 4]) == pytest.approx(rate, abs=0.005)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=8))
def test_one_orientation_per_span_misses_in_its_first_epoch_alone(lengths: list[int]) -> None:
    assert expected_hit_rate(lengths, [[1.0]] * len(lengths)) == pytest.approx(
        1 - len(lengths) / sum(lengths)
    )


def test_spans_end_where_the_prefix_changes() -> None:
    assert spans([0, 4, 4, 2, 0, 4]) == [Span(4, 2), Span(2, 1), Span(4, 1)]
    assert spans([0, 0]) == []


@pytest.mark.parametrize(
    ("always", "ranks", "batch"), [(0, 1, 8), (1, 1, 8), (0, 2, 8), (0, 1, 128), (0, 2, 100)]
)
@pytest.mark.parametrize("way", ["epoch", "span"])
def test_simulated_runs_hit_and_keep_as_much_as_expected(
    way: str, always: int, ranks: int, batch: int
) -> None:
    """The real order, orientations and shares of ranks, with a set for a cache; with large batches an epoch
    has not all images.
    """
    epochs, images = 20, 240
    prefixes = [max(n, always) for n in make_policy("step", rho=5).decisions(epochs, 4, 0)]
    told = forecast(
        prefixes,
        always_frozen=always,
        images=images,
        share=images // batch * batch / images,
        orientations=1 + len(FLIPS),
        padded_sizes=[1.0],
        orientation_per=way,
        entry_bytes=[0, 10, 10, 10, 10],
        budget_bytes=1 << 30,
        ranks=ranks,
        shared=False,
    )
    hits = visits = 0
    kept: list[set[tuple[int, str]]] = [set() for _ in range(ranks)]
    shown = most = 0
    for epoch, prefix in enumerate(prefixes):
        begins = epoch == 0 or prefix != prefixes[epoch - 1]
        if begins:
            kept = [set() for _ in range(ranks)]
        if begins or prefix <= always or way == "epoch":
            shown = epoch
        for rank in range(ranks):
            sampler = MicroBatchSampler(
                images, batch_size=batch, accumulation=1, rank=rank, world_size=ranks, seed=0
            )
            sampler.epoch = epoch
            for _, index, *_ in (pair for micro in sampler for pair in micro):
                if prefix > 0:
                    found = (index, draw_orientation(FLIPS, 0, shown, index))
                    visits += 1
                    hits += found in kept[rank]
                    kept[rank].add(found)
        most = max(most, *map(len, kept))
    assert hits / visits == pytest.approx(told.hit_rates[way], abs=0.02)
    assert 10 * most == pytest.approx(told.needed_bytes, rel=0.08)


def test_room_for_half_is_half_the_hits_and_is_said() -> None:
    told = forecast(
        [0, *[4] * 9],
        always_frozen=0,
        images=100,
        orientations=4,
        padded_sizes=[0.5, 0.5],
        orientation_per="span",
        entry_bytes=[0, 0, 0, 0, 1000],
        budget_bytes=50_000,
        ranks=1,
        shared=True,
    )
    assert told.needed_bytes == pytest.approx(200_000, rel=0.01)
    assert told.hit_rate == pytest.approx(told.hit_rates["span"] / 4, rel=0.01)
    text = str(told)
    assert "raise `cache_gb`" in text
    assert "2 padded sizes" in text
    assert (
        f"{told.hit_rates['epoch']:.0%} with `orientation_per` epoch, {told.hit_rates['span']:.0%} with "
        "`orientation_per` span" in text
    )
