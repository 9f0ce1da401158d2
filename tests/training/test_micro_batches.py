"""Micro-batches that grow where stages are frozen: within the limit as measured, and the same training."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils._pytree import tree_iter

from dbf_ray.build import build_training, prepare
from dbf_ray.config import Config
from dbf_ray.cost.live_bytes import LiveBytes
from dbf_ray.detectors import BACKBONES
from dbf_ray.detectors.backbones.engine import PrefixEngine
from dbf_ray.run import run, run_directory
from dbf_ray.tracking import read_epochs
from dbf_ray.training import micro_batches
from dbf_ray.training.checkpoint import list_checkpoints, load_checkpoint
from dbf_ray.training.loop import LoopState, Training, backward, run_epoch
from dbf_ray.training.micro_batches import MicroBatches, counted, fitting, merged, rehearse
from tests.detectors.narrow import Narrow, cut_narrow
from tests.tiny import on_ranks
from tests.training.policy_runs import SETTINGS, differences, in_pieces, left, make_cheap, setting, whole

# Parts of one image; every other epoch is trained in full.
FOUR = {"training.accumulation": 4, "training.epochs": 3, "freezing.policy": "step", "freezing.rho": 2}
LIMIT = {"training.micro_batch_gb": 1.0}


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


@pytest.mark.parametrize(
    ("accumulation", "fixed", "grown", "limit", "expected"),
    [
        (4, 100, 10, 140, [1, 2]),
        (4, 100, 10, 139, [2]),  # a part of four images would need 140
        (4, 100, 10, 119, []),
        (4, 100, 10, 109, []),  # not even as configured
        (6, 0, 1, 3, [2, 3]),
        (6, 0, 1, 2, [3]),
        (1, 0, 0, 1, []),
        (4, 0, micro_batches.OUT_OF_MEMORY, 1 << 50, []),
    ],
)
def test_as_few_as_fit(accumulation: int, fixed: int, grown: int, limit: int, expected: list[int]) -> None:
    assert fitting(accumulation, fixed, grown, limit) == expected


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
        assert live.take() == 8000
        d = torch.ones(10, dtype=torch.float64, device="meta")
        assert (live.now, live.peak) == (80, 80)
        del d
    with LiveBytes([a, a.view(10, 100)]) as live:
        assert live.now == 4000


class Fake:
    """What is measured instead: bytes by the number of parts; no number: memory runs out."""

    def __init__(self, *, fixed: int = 0, grown: int = 0, peaks: dict[int, int | None] | None = None) -> None:
        self.fixed, self.grown, self.peaks, self.asked = fixed, grown, peaks or {}, list[int]()

    def __call__(self, training: Training, parts: Sequence[Any], *_: Any) -> tuple[int, int, int]:
        self.asked.append(len(parts))
        peak = self.peaks.get(len(parts), self.fixed + self.grown)
        if peak is None:
            raise torch.OutOfMemoryError("a fake")
        return self.fixed, self.grown, peak


def chosen(fake: Fake, monkeypatch: pytest.MonkeyPatch, limit: int, notes: list[str] | None = None) -> int:
    """Of four parts, with two stages of a network without norms frozen."""
    training: Any = SimpleNamespace(
        scheduler=SimpleNamespace(num_frozen=2),
        detector=nn.Linear(1, 1),
        device=torch.device("cpu"),
        progress=SimpleNamespace(note=[].append if notes is None else notes.append),
    )
    monkeypatch.setattr(micro_batches, "rehearse", fake)
    found = MicroBatches(limit, 64)
    found.choose(training, [([n], [n]) for n in range(4)], backward)
    return found.counts[2]


def test_a_merge_must_hold_where_it_is_rehearsed(monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    fits = Fake(fixed=100, grown=10)
    assert chosen(fits, monkeypatch, 10**9, notes) == 1
    assert fits.asked == [4, 1]
    assert notes == ["4 micro-batches a step with 2 stages frozen are merged to 1: 0.00 GB at most"]
    assert chosen(fits, monkeypatch, 120) == 2  # as was estimated
    larger = Fake(fixed=100, grown=10, peaks={1: 141})
    assert chosen(larger, monkeypatch, 140) == 2  # one part needs more than was estimated
    assert larger.asked == [4, 1, 2]
    assert chosen(Fake(fixed=100, grown=10, peaks={1: None}), monkeypatch, 140) == 2
    assert chosen(Fake(fixed=100, grown=10, peaks={1: None, 2: None}), monkeypatch, 140) == 4


def test_what_does_not_fit_as_configured_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.warns(
        UserWarning, match=r"of 1 images needs 5\.00 GB with 2 stages frozen, the limit is 2 GB; accumulate"
    ):
        assert chosen(Fake(fixed=10**9, grown=4 * 10**9), monkeypatch, 2 * 10**9) == 4
    notes: list[str] = []
    with pytest.warns(UserWarning, match=r"needs more than there is with 2 stages"):
        assert chosen(Fake(peaks={4: None}), monkeypatch, 10, notes) == 4
    assert notes == ["4 micro-batches a step with 2 stages frozen stay as they are"]


def test_choices_are_kept_for_the_same_limit_and_ranks() -> None:
    first = MicroBatches(100, 64)
    first.counts = {0: 4, 4: 1}
    same, other, kept = MicroBatches(100, 64), MicroBatches(99, 64), first.state_dict()
    same.load_state_dict(kept)
    other.load_state_dict(kept)
    assert (same.counts, other.counts) == (first.counts, {})
    same.load_state_dict({**kept, "world_size": 2, "counts": {0: 2}})
    assert same.counts == first.counts


def parts_of(training: Training) -> list[Any]:
    return list(itertools.islice(training.train_loader.epoch(0), training.accumulation))


def measured(training: Training, prefix: int, count: int) -> int:
    """The most bytes with so much frozen and so many parts; the optimizer's are those of trained steps."""
    parts = parts_of(training)
    training.scheduler.freezer.apply(prefix)
    training.ddp.rebuild()
    training.detector.train()
    batch = training.detector.prepare(*parts[0])
    backward(training, batch, training.detector.at_least(batch.normalizers), training.ddp)
    training.optimizer.step()
    training.optimizer.zero_grad()
    return rehearse(training, merged(parts, count), 64, backward)[-1]


def test_what_is_measured_is_what_the_allocator_gives(narrow_run: Callable[..., Config]) -> None:
    """Against torch's profiler, which sees memory come and go and knows no tensor."""
    config = narrow_run("run", **FOUR, **{"detector.fpn_channels": 32, "freezing.engine": False})
    training = build_training(prepare(config), quiet=True)
    measured(training, 0, 4)
    training.detector.zero_grad()
    state = (training.detector.state_dict(), training.optimizer.state_dict())
    kept = sum(value.nbytes for value in tree_iter(state) if isinstance(value, torch.Tensor))
    assert kept > 2.9 * sum(p.nbytes for p in training.detector.parameters())  # AdamW keeps two of each
    for count in (4, 1):
        parts = merged(parts_of(training), count)
        with torch.profiler.profile(profile_memory=True) as profile:
            *_, peak = rehearse(training, parts, 64, backward)
            training.detector.zero_grad()
        events = profile.profiler.kineto_results.events()  # type: ignore[union-attr]
        allocated = max(itertools.accumulate(e.nbytes() for e in events if e.name() == "[memory]"))
        assert allocated > 10**6
        assert peak - kept == pytest.approx(allocated, rel=0.1), count


class Deep(Narrow):
    """Many maps in its first stage, which only a trained one keeps."""

    def __init__(self, weights: None = None) -> None:
        super().__init__()
        self.stages[0].insert(0, nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(20))))


def test_steps_are_merged_where_less_is_trained_and_train_the_same(
    narrow_run: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BACKBONES, "deep", (Deep, cut_narrow))
    deep = {**FOUR, "training.epochs": 2, "detector.backbone": "deep"}
    training = build_training(prepare(narrow_run("measured", **deep)), quiet=True)
    trained, frozen = measured(training, 0, 2), measured(training, 4, 1)
    assert frozen < measured(training, 0, 4)
    limit = (trained + frozen) // 2
    assert frozen < limit < trained
    plain = narrow_run("plain", **deep)
    large = narrow_run("large", **deep, **{"training.micro_batch_gb": limit / 1e9})
    run(plain, quiet=True)
    run(large, quiet=True)
    rows = [read_epochs(run_directory(config)) for config in (plain, large)]
    assert "micro_batches" not in rows[0][-1]
    assert rows[1][-1]["micro_batches"] == {"0": 4, "4": 1}
    for key in ("loss", "gradient_norm"):
        assert [row[key] for row in rows[1]] == pytest.approx([row[key] for row in rows[0]], rel=1e-4)
    assert [row["executed_flops"] for row in rows[1]] == [row["executed_flops"] for row in rows[0]]


def test_trained_norms_keep_their_batches(narrow_run: Callable[..., Config]) -> None:
    """Statistics of a larger micro-batch would be others."""
    config = narrow_run("run", **{**FOUR, "training.epochs": 2}, **LIMIT, **{"detector.norm_eval": False})
    run(config, quiet=True)
    assert read_epochs(run_directory(config))[-1]["micro_batches"] == {"0": 4, "4": 1}


class Noisy(Narrow):
    """Draws random numbers where it is trained."""

    def __init__(self, weights: None = None) -> None:
        super().__init__()
        for stage in self.stages:
            stage.append(nn.Dropout2d(0.2))


def test_what_is_rehearsed_has_no_consequences(
    narrow_run: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every merge is rehearsed, and then memory runs out: the same bits as without a limit."""
    monkeypatch.setitem(BACKBONES, "noisy", (Noisy, cut_narrow))
    rehearsed: list[tuple[int, int]] = []

    def fails(training: Training, parts: Sequence[Any], *rest: Any) -> tuple[int, int, int]:
        found = rehearse(training, parts, *rest)
        rehearsed.append((training.scheduler.num_frozen, len(parts)))
        if len(parts) < 4:
            raise torch.OutOfMemoryError("a fake")
        return found

    monkeypatch.setattr(micro_batches, "rehearse", fails)
    common = {
        **FOUR,
        "training.epochs": 4,
        "training.ema": 0.9,
        "detector.backbone": "noisy",
        **SETTINGS["gradnorm"],
        "freezing.cache": "ram",
    }
    common.pop("freezing.rho")
    plain, large = narrow_run("plain", **common), narrow_run("large", **common, **LIMIT)
    whole(plain)
    assert not rehearsed
    whole(large)
    rows = [read_epochs(run_directory(config)) for config in (plain, large)]
    prefixes = dict.fromkeys(row["frozen_stages"] for row in rows[1])
    assert len(prefixes) > 1
    assert rehearsed == [(prefix, count) for prefix in prefixes for count in (4, 1, 2)]
    assert differences(left(plain), left(large)) == []
    hits = [[(row["cache_hits"], row["cache_misses"]) for row in run_rows] for run_rows in rows]
    assert sum(misses for _, misses in hits[0]) > 0
    assert hits[0] == hits[1]


def test_a_resumed_run_merges_as_it_did(
    narrow_run: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def counting(training: Training, *rest: Any) -> tuple[int, int, int]:
        calls.append(training.scheduler.num_frozen)
        return rehearse(training, *rest)

    monkeypatch.setattr(micro_batches, "rehearse", counting)
    straight, pieces = (narrow_run(name, **FOUR, **LIMIT) for name in ("straight", "pieces"))
    whole(straight)
    assert calls == [0, 0, 4, 4]
    in_pieces(pieces)
    assert calls == 2 * [0, 0, 4, 4]  # nothing is measured again
    assert differences(left(straight), left(pieces)) == []
    state, _ = load_checkpoint(list_checkpoints(run_directory(pieces) / "checkpoints")[-1])
    assert state["micro_batches"] == {"limit": 10**9, "world_size": 1, "counts": {0: 1, 4: 1}}


def test_what_is_compiled_is_rehearsed_and_not_filled_up_to_it(narrow_run: Callable[..., Config]) -> None:
    training = build_training(prepare(narrow_run("run", **FOUR)), quiet=True)
    peak = measured(training, 4, 1)
    assert training.frozen is not None
    training.detector.compile("eager")
    training.frozen._engines[4] = engine = PrefixEngine(training.detector.backbone, backend="eager")
    engine.largest = 1
    assert measured(training, 4, 1) == pytest.approx(peak, rel=0.05)
    assert engine.largest == 1


def test_a_gpu_is_asked_for_its_allocators_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    peak = 0

    def reset(_: Any) -> None:
        nonlocal peak
        peak = 5

    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 5)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: peak)
    training: Any = SimpleNamespace(device=torch.device("cuda"))
    with counted(training) as take:
        peak = 7
        assert take() == (5, 7)
        assert take() == (5, 5)


def trained_weights(folder: str, name: str, **changes: Any) -> tuple[dict[int, int] | None, Any]:
    """Choices and weights after an epoch of two steps and one with everything frozen, of this rank."""
    size = {"training.batch_size": 8, "data.train_images": 16, "training.epochs": 2, "evaluation.every": 3}
    config = setting(Path(folder), name, **FOUR | size | changes | {"cluster.workers": 2})
    training, state = build_training(prepare(config), quiet=True), LoopState()
    for state.epoch in range(2):
        run_epoch(training, state)
    merging = training.micro_batches
    return None if merging is None else merging.counts, training.detector.state_dict()


def rank_worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    make_cheap()
    results = {"plain": trained_weights(folder, "plain")}
    # what rank 1 measures lets it merge to two parts, what rank 0 measures to one
    micro_batches.rehearse = Fake(fixed=0, grown=(2 + 2 * rank) * 10**8)
    results["differing"] = trained_weights(folder, "differing", **LIMIT)

    def fails(training: Training, parts: Sequence[Any], *rest: Any) -> tuple[int, int, int]:
        fails_here = rank == 1 and len(parts) < 4
        if fails_here and training.scheduler.num_frozen:  # before anything is run
            raise torch.OutOfMemoryError("a fake")
        found = rehearse(training, parts, *rest)
        if fails_here:  # with all gradients there
            raise torch.OutOfMemoryError("a fake")
        return found

    micro_batches.rehearse = fails
    results["failing"] = trained_weights(folder, "failing", **LIMIT)
    torch.save(results, f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


def test_ranks_choose_alike_and_stay_alike(tmp_path: Path) -> None:
    """Also where they measure otherwise, or memory runs out on one of them alone."""
    on_ranks(rank_worker, str(tmp_path))
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
    assert differences(ranks[0], ranks[1]) == []
    assert ranks[0]["plain"][0] is None
    assert ranks[0]["differing"][0] == {0: 2, 4: 2}
    assert ranks[0]["failing"][0] == {0: 4, 4: 4}
    assert differences(ranks[0]["failing"][1], ranks[0]["plain"][1]) == []
    assert differences(ranks[0]["differing"][1], ranks[0]["plain"][1])  # merged: rounded otherwise
