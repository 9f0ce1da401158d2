"""Freezing under DDP on two gloo ranks: the ranks run ddp_worker.py once, the tests read what it saw."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import nn

from dbf_ray.training.ddp import (
    DynamicDDP,
    _checksums,
    all_reduce_sum,
    broadcast_object,
    equalize_norm_buffers,
    gather_objects,
    rank,
    world_size,
)
from tests.tiny import on_ranks
from tests.training import ddp_worker

MODES = [
    *(f"{norm}-{optimizer}" for norm in ("True", "False", "sync") for optimizer in ("sgd", "adamw")),
    "True-sgd-accumulated",
    "True-adamw-channels_last",
]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict[str, Any]]]:
    """What each rank saw, by world size; a world of one is this process."""
    folder = tmp_path_factory.mktemp("ranks")
    on_ranks(ddp_worker.main, str(folder))
    pair = [json.loads((folder / f"{r}.json").read_text()) for r in range(2)]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return {2: pair, 1: [json.loads(json.dumps(ddp_worker.every_mode()))]}
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return f"rounds-{request.param}"


def epochs_of_all_ranks(seen: dict[int, list[dict[str, Any]]], mode: str) -> list[dict[str, Any]]:
    epochs = [epoch for row in seen[2] for epoch in row[mode]["epochs"]]
    assert len(epochs) == 20
    return epochs


def test_ranks_are_identical_after_every_epoch(seen: dict[int, list[dict[str, Any]]], mode: str) -> None:
    assert [e["differ_between_ranks"] for e in epochs_of_all_ranks(seen, mode)] == [[]] * 20
    assert seen[2][0][mode]["weights"] == seen[2][1][mode]["weights"]


def test_frozen_parameters_and_norm_buffers_do_not_move_by_a_bit(
    seen: dict[int, list[dict[str, Any]]], mode: str
) -> None:
    for epoch in epochs_of_all_ranks(seen, mode):
        # convolution, norm weight and bias, three norm buffers
        assert epoch["frozen_tensors"] == 6 * epoch["prefix"]
        assert epoch["frozen_moved"] == []
        assert epoch["trained_still"] == []  # everything else did move


def test_norm_buffers_move_as_the_norm_mode_says(seen: dict[int, list[dict[str, Any]]], mode: str) -> None:
    for epoch in epochs_of_all_ranks(seen, mode):
        moved = 0 if "True" in mode else 3 * (3 - epoch["prefix"])
        assert len(epoch["buffers_moved"]) == moved
        # else equalising would prove nothing
        assert epoch["buffers_differed_before_equalizing"] == ("False" in mode and moved > 0)


def test_optimizer_state_is_kept_through_frozen_epochs(
    seen: dict[int, list[dict[str, Any]]], mode: str
) -> None:
    for epoch in epochs_of_all_ranks(seen, mode):
        assert epoch["states_lost"] == []
        assert epoch["frozen_states_moved"] == []


def test_steps_all_reduce_exactly_the_bytes_of_the_trained_parameters(
    seen: dict[int, list[dict[str, Any]]], mode: str
) -> None:
    for epoch in epochs_of_all_ranks(seen, mode):
        assert epoch["bytes"] == 3 * epoch["trained_bytes"]
    sizes = {e["prefix"]: e["trained_bytes"] for e in epochs_of_all_ranks(seen, mode)}
    assert sizes[0] > sizes[1] > sizes[2] > sizes[3] > 0


def test_only_a_changed_trained_set_is_rebuilt(seen: dict[int, list[dict[str, Any]]], mode: str) -> None:
    for row in seen[2]:
        assert [e["changed"] for e in row[mode]["epochs"]] == [
            False,
            True,
            True,
            True,
            True,
            False,
            True,
            True,
            True,
            True,
        ]
        assert row[mode]["rebuilds"] == 9


def test_two_ranks_train_as_one_process_on_the_whole_batch(
    seen: dict[int, list[dict[str, Any]]], mode: str
) -> None:
    two, one = seen[2][0][mode]["weights"], seen[1][0][mode]["weights"]
    worst = max(float((torch.tensor(two[name]) - torch.tensor(one[name])).abs().max()) for name in one)
    if "False" in mode:
        assert worst > 1e-4  # statistics of half the batch are others: the check can tell
    else:
        assert worst < 2e-5


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (
            "trained_set",
            ["what is trained", "backbone.stages.1.0.weight: trained on rank 0, absent on rank 1"],
        ),
        ("buffer", ["values of parameters and buffers", "backbone.stages.0.1.running_mean: checksum"]),
        ("parameter", ["values of parameters and buffers", "boxes.weight: checksum"]),
        (
            "shape",
            [
                "the model's shape",
                "weight: ((2, 2), 'torch.float32') on rank 0, ((2, 3), 'torch.float32') on rank 1",
            ],
        ),
    ],
)
def test_a_rank_that_differs_stops_all_ranks_and_is_named(
    seen: dict[int, list[dict[str, Any]]], case: str, words: list[str]
) -> None:
    first, second = (row["disagreements"][case] for row in seen[2])
    assert first == second
    assert "rank 1 differs from rank 0" in first
    assert all(word in first for word in words)
    assert "\n" not in first


def test_agreeing_ranks_rebuild_and_a_stale_wrapper_is_refused(seen: dict[int, list[dict[str, Any]]]) -> None:
    for row in seen[2]:
        assert row["disagreements"]["agreed"] == ""
        assert "call rebuild()" in row["disagreements"]["stale_call"]


def test_the_first_rebuild_copies_rank_zeros_state(seen: dict[int, list[dict[str, Any]]]) -> None:
    for row in seen[2]:
        assert row["first_build"]["apart"] == 2
        assert row["first_build"]["after"] == row["first_build"]["rank0_before"]


def test_many_rebuilds_leave_no_old_wrapper(seen: dict[int, list[dict[str, Any]]]) -> None:
    for row in seen[2]:
        assert row["many_rebuilds"] == {"alive": 1, "ddp_objects": [1, 1], "rebuilds": 60}


def test_norm_buffers_that_agree_keep_their_bits_and_others_get_the_mean(
    seen: dict[int, list[dict[str, Any]]],
) -> None:
    for world, mean in ((1, 1.0), (2, 1.5)):
        assert [row["equal_values"] for row in seen[world]] == [
            {"kept": True, "mean_of_others": [mean]}
        ] * world


@pytest.mark.parametrize("world", [1, 2])
def test_sync_batch_norm_equals_batch_norm_on_all_images(
    seen: dict[int, list[dict[str, Any]]], world: int
) -> None:
    for row in seen[world]:
        assert set(row["sync_norm"]) == {"affine", "plain", "cumulative"}
        for errors in row["sync_norm"].values():
            assert {"out", "input_grad", "mean", "var", "eval"} <= set(errors)
            assert max(errors.values()) < 5e-6, errors


def test_ranks_keep_their_own_norm_buffers_within_an_epoch(seen: dict[int, list[dict[str, Any]]]) -> None:
    assert [row["own_buffers"] for row in seen[2]] == [{"as_alone": True}] * 2


def test_collectives(seen: dict[int, list[dict[str, Any]]]) -> None:
    for number, row in enumerate(seen[2]):
        assert (row["rank"], row["world"]) == (number, 2)
        assert row["broadcast"] == {"from": 0}
        assert row["sum"] == [3]
        assert row["gathered"] == [2**70, 2**70 + 1]


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool, torch.uint8]
)
@pytest.mark.parametrize("shape", [(), (1,), (3,), (4, 5), (0,)])
def test_checksums_tell_tensors_apart_that_differ_in_one_bit(
    dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    module = nn.Module()
    module.register_buffer("whole", torch.zeros(7, dtype=dtype))
    module.register_buffer("seen", torch.zeros(shape, dtype=dtype))
    module.register_buffer("part", torch.zeros(9, dtype=dtype)[1:4])  # starts in the middle of eight bytes
    before = _checksums(module)
    assert _checksums(module) == before
    for name in ("seen", "part"):
        tensor = module.get_buffer(name)
        if tensor.numel():
            tensor.view(-1)[-1] = 1
            after = _checksums(module)
            assert [key for key in after if after[key] != before[key]] == [name]
            before = after


def test_without_a_process_group_everything_is_local() -> None:
    assert (rank(), world_size()) == (0, 1)
    value = torch.tensor([3.0])
    assert all_reduce_sum(value) is value
    assert broadcast_object("x") == "x"
    assert gather_objects(5) == [5]
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    ddp = DynamicDDP(model)
    ddp.rebuild()
    with ddp.no_sync():
        out = ddp(torch.ones(2, 3, 4, 4))
    torch.testing.assert_close(out, model(torch.ones(2, 3, 4, 4)))
    before = model[1].running_mean.clone()
    equalize_norm_buffers(model)
    assert torch.equal(before, model[1].running_mean)
    assert ddp.allreduce_bytes == 0
