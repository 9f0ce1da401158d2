"""What a feature cache will do in a run, as far as it can be known before. Pure Python.

A *span* is a row of epochs in which the same stages are frozen, so that their features stand still.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """So many ``epochs`` in a row with the first ``prefix`` stages frozen."""

    prefix: int
    epochs: int


def spans(prefixes: Sequence[int]) -> list[Span]:
    """The spans of epochs with these frozen prefixes, those with nothing frozen left out."""
    runs = [(prefix, len(list(run))) for prefix, run in itertools.groupby(prefixes)]
    return [Span(prefix, epochs) for prefix, epochs in runs if prefix > 0]


def expected_misses(epochs: int, outcomes: Sequence[float]) -> float:
    """The expected number of different keys that an image comes under in so many epochs, each of which is
    computed once.

    Args:
        epochs: L, in each of which the image comes once, or not at all.
        outcomes: chances p_k of the keys that it may come under in an epoch, independently of other epochs,
            summing to the chance that it comes.

    Returns:
        sum_k 1 - (1 - p_k)^L.
    """
    return sum(1 - (1 - p) ** epochs for p in outcomes)


def expected_hit_rate(
    lengths: Sequence[int], outcomes: Sequence[Sequence[float]], share: float = 1.0
) -> float:
    """The expected share of frozen images that a cache with enough room serves, for spans of these
    ``lengths`` in epochs.

    Args:
        lengths: of each span.
        outcomes: of each span, as :func:`expected_misses` takes them. One orientation an image per span:
            (1,); four orientations drawn anew in each epoch: (1/4, 1/4, 1/4, 1/4). These sum to ``share``.
        share: chance that an image comes in an epoch; less than 1 where an incomplete batch is dropped, which
            has others each time.
    """
    visits = share * sum(lengths)
    return 1 - sum(map(expected_misses, lengths, outcomes)) / visits if visits else 0.0


@dataclass(frozen=True)
class Forecast:
    """Expected hit rates of a run's frozen images, for each way of drawing orientations, and what would have
    to be kept.

    Attributes:
        hit_rates: by ``orientation_per``.
        orientation_per: the one that is configured.
        needed_bytes: the most that a rank would keep with it, if there were room.
        budget_bytes: what a rank may keep.
        padded_sizes: how many padded sizes an image comes in.
        rank_share: chance that a rank finds what was computed in an earlier epoch, 1 where ranks read each
            other's shards.
    """

    hit_rates: dict[str, float]
    orientation_per: str
    needed_bytes: int
    budget_bytes: int
    padded_sizes: int
    rank_share: float

    @property
    def hit_rate(self) -> float:
        """That of the configured way, within the budget: of more features than there is room for, the first
        ones are kept.
        """
        return self.hit_rates[self.orientation_per] * min(1.0, self.budget_bytes / max(1, self.needed_bytes))

    def __str__(self) -> str:
        rates = ", ".join(f"{rate:.0%} with `orientation_per` {way}" for way, rate in self.hit_rates.items())
        text = f"feature cache: expected hits of frozen images {rates}; {self.orientation_per} is set"
        text += f"; {self.needed_bytes / 1e9:.2f} GB of {self.budget_bytes / 1e9:.2f} GB a worker"
        if self.needed_bytes > self.budget_bytes:
            text += (
                f", so {self.hit_rate:.0%} with this room: raise `cache_gb`, or store in fewer bytes "
                "(`cache_dtype`)"
            )
        if self.padded_sizes > 1:
            text += (
                f"; images come in {self.padded_sizes} padded sizes, of which each has features of its own: "
                "`pad_to` square has one"
            )
        if self.rank_share < 1:
            text += "; workers do not see each other's memory: `cache` disk is shared"
        return text


def forecast(
    prefixes: Sequence[int],
    *,
    always_frozen: int,
    images: int,
    share: float = 1.0,
    orientations: int,
    padded_sizes: Sequence[float],
    orientation_per: str,
    entry_bytes: Sequence[int],
    budget_bytes: int,
    ranks: int,
    shared: bool,
) -> Forecast:
    """Expected hits of a run.

    Args:
        prefixes: effective frozen prefix of each epoch.
        always_frozen: stages that are frozen whatever a policy says; where no more are, orientations are
            drawn in each epoch.
        images: in the training set.
        share: of them that come in an epoch, others each time.
        orientations: in which an image may be seen, all with equal chance.
        padded_sizes: chances of the sizes that an image is padded to.
        orientation_per: "epoch" or "span".
        entry_bytes: of one image's stored features for each prefix 0..K.
        budget_bytes: of one rank.
        ranks: W; an image comes to any of them with equal chance.
        shared: ranks read what others have kept.
    """
    among = 1 if shared else ranks
    drawn = [share * p / (orientations * among) for p in padded_sizes for _ in range(orientations * among)]
    fixed = [share * p / among for p in padded_sizes for _ in range(among)]
    rows = spans(prefixes)
    rates: dict[str, float] = {}
    needed: dict[str, float] = {}
    for way in ("epoch", "span"):
        outcomes = [fixed if way == "span" and row.prefix > always_frozen else drawn for row in rows]
        rates[way] = expected_hit_rate([row.epochs for row in rows], outcomes, share)
        kept = [
            expected_misses(row.epochs, chances) * entry_bytes[row.prefix]
            for row, chances in zip(rows, outcomes, strict=True)
        ]
        needed[way] = max(kept, default=0.0)
    total = round(needed[orientation_per] * images / ranks)
    return Forecast(rates, orientation_per, total, budget_bytes, len(padded_sizes), 1 / among)
