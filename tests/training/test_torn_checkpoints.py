"""A torn checkpoint is never gone on from, and never the reason that a whole one beside it is not found."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from dbf_ray.config import Config
from dbf_ray.errors import WeightsError
from dbf_ray.run import find_resume, run, run_directory
from dbf_ray.tracking import read_epochs, read_summary
from dbf_ray.training.checkpoint import (
    list_checkpoints,
    load_checkpoint,
    newest_whole,
    save_checkpoint,
    whole_checkpoint,
)
from dbf_ray.training.manifest import fault_of, seal
from tests.tiny import on_ranks
from tests.training.damage import DAMAGES, flipped, made


class Killed(BaseException):
    """Stands for the death of the process."""


@pytest.mark.parametrize("case", DAMAGES)
def test_the_newest_whole_one_is_found(tmp_path: Path, case: str) -> None:
    first, second, third = made(tmp_path, 1, 2, 3)
    damage, fault = DAMAGES[case]
    damage(third)
    with pytest.warns(UserWarning, match=rf"epoch-00003 \({fault}.*from epoch-00002"):
        assert newest_whole(tmp_path) == second
    with pytest.warns(UserWarning, match=rf"{third} is torn \({fault}.*{second} is used"):
        assert whole_checkpoint(third) == second
    assert whole_checkpoint(first) == first
    damage(second)
    with pytest.warns(UserWarning, match=r"epoch-00003 \(.*; epoch-00002 \(.*from epoch-00001"):
        assert newest_whole(tmp_path) == first
    damage(first)
    with pytest.raises(WeightsError, match=rf"not one is: epoch-00003 \({fault}.*epoch-00001 \({fault}"):
        newest_whole(tmp_path)
    with pytest.raises(WeightsError, match=rf"{third} must be whole, {fault}.*; give one of another run"):
        whole_checkpoint(third)


def test_a_checkpoint_that_is_named_gives_way_to_no_later_one(tmp_path: Path) -> None:
    first, second = made(tmp_path, 1, 2)
    flipped("checkpoint.pt")(first)
    with pytest.raises(WeightsError, match=rf"none before it is; give {second}, which is whole") as error:
        whole_checkpoint(first)
    assert "\n" not in str(error.value)
    assert whole_checkpoint(second) == second  # the step that the message names
    with pytest.raises(WeightsError, match=rf"epoch-00009 is not a checkpoint: .*; give {second}, which is"):
        whole_checkpoint(tmp_path / "epoch-00009")
    with pytest.raises(WeightsError, match=r"is not a checkpoint: it is a file; give a folder like"):
        whole_checkpoint(second / "checkpoint.pt")
    best = Path(shutil.copytree(first, tmp_path / "final"))  # whose epoch nobody knows
    with pytest.raises(WeightsError, match=rf"final must be whole.*give {second}"):
        whole_checkpoint(best)


def test_a_link_to_a_torn_checkpoint_and_a_copy_of_ray_are_known(tmp_path: Path) -> None:
    first, second = made(tmp_path, 1, 2)
    flipped("checkpoint.pt")(second)
    (tmp_path / "latest").symlink_to(second)
    with pytest.warns(UserWarning, match="is used instead"):
        assert whole_checkpoint(tmp_path / "latest") == first
    rays = [tmp_path / "ray" / f"checkpoint_2026-11-30_12-00-0{second}.1" for second in range(2)]
    for path, copy in zip((first, second), rays, strict=True):
        shutil.copytree(path, copy)
    with pytest.warns(UserWarning, match="is used instead"):
        assert whole_checkpoint(rays[1]) == rays[0]


@pytest.mark.parametrize("keep", [1, 2])
def test_what_is_removed_is_never_the_last_whole_one(tmp_path: Path, keep: int) -> None:
    """Torn ones of later epochs had counted as the newest."""
    made(tmp_path, 1, 2, 3, 4, 5)
    for epoch in (3, 4, 5):
        flipped("checkpoint.pt")(tmp_path / f"epoch-{epoch:05d}")
    for epoch in (3, 4):  # resumed from 2
        save_checkpoint(tmp_path, epoch, {"epoch": epoch}, {}, keep)
        assert fault_of(tmp_path / f"epoch-{epoch:05d}") is None
        assert len(list_checkpoints(tmp_path)) == keep
        assert [path for path in list_checkpoints(tmp_path) if fault_of(path) is not None] == []
    assert newest_whole(tmp_path) == tmp_path / "epoch-00004"


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
def test_death_while_an_epoch_is_replaced_leaves_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, done: bool
) -> None:
    """A worker group that starts anew trains an epoch again whose checkpoint is there; with one kept, it is
    the only one.
    """
    save_checkpoint(tmp_path, 3, {"epoch": 3, "attempt": 1}, {}, keep=1)
    rename, calls = Path.rename, []

    def die(path: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) - 1 == number and not done:
            raise Killed
        moved = rename(path, target)
        if len(calls) - 1 == number:
            raise Killed
        return moved

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", die)
        try:
            save_checkpoint(tmp_path, 3, {"epoch": 3, "attempt": 2}, {}, keep=1)
        except Killed:
            assert len(calls) == number + 1
    found = newest_whole(tmp_path)
    assert found is not None
    assert load_checkpoint(found)[0]["epoch"] == 3
    save_checkpoint(tmp_path, 3, {"epoch": 3, "attempt": 3}, {}, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-00003"]
    assert load_checkpoint(tmp_path / "epoch-00003")[0]["attempt"] == 3


def test_a_removal_that_is_cut_off_leaves_no_half_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(path: Path, **_: Any) -> None:
        if (path / "checkpoint.pt").exists():
            (path / "checkpoint.pt").unlink()
            raise Killed

    made(tmp_path, 1, 2, keep=2)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", half)
        with pytest.raises(Killed):
            made(tmp_path, 3, keep=2)
    assert sorted(path.name for path in tmp_path.glob("epoch*")) == ["epoch-00002", "epoch-00003"]
    assert newest_whole(tmp_path) == tmp_path / "epoch-00003"


def test_the_manifest_is_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    def watch(source: str | Path, target: str | Path) -> None:
        seen.append(sorted(path.name for path in Path(source).parent.iterdir() if path.suffix != ".partial"))
        os.rename(source, target)

    monkeypatch.setattr("dbf_ray.files.os.replace", watch)
    made(tmp_path, 1)
    assert seen == [["checkpoint.pt", "record.json"]]


def test_a_run_goes_on_from_the_newest_whole_checkpoint(tiny: Callable[..., Config]) -> None:
    """What it had done after that is trained again, is there once, and is counted twice."""
    straight = tiny(name="straight", evaluation__every=1)
    whole = run(straight, quiet=True)
    config = tiny(name="torn", evaluation__every=1, training__keep_checkpoints=3)
    folder = run_directory(config)
    run(config, quiet=True, on_epoch=lambda record, _: record["epoch"] < 2)
    for epoch in (2, 3):
        flipped("checkpoint.pt")(folder / "checkpoints" / f"epoch-{epoch:05d}")
    with pytest.warns(UserWarning, match="going on from epoch-00001, the newest whole one"):
        resume = find_resume(config, folder)
    summary = run(config, quiet=True, resume=resume)
    epochs = read_epochs(folder)
    assert len((folder / "epochs.jsonl").read_text().splitlines()) == 4
    assert [(e["epoch"], e["attempt"]) for e in epochs] == [(0, 1), (1, 2), (2, 2), (3, 2)]
    for key in ("loss", "map50"):
        assert [e[key] for e in epochs] == [e[key] for e in read_epochs(run_directory(straight))]
    assert summary["executed_flops"] == sum(e["executed_flops"] for e in [*epochs, *epochs[1:3]])
    assert whole["executed_flops"] < summary["executed_flops"]
    tensors = [load_checkpoint(Path(one["checkpoint"]))[0]["model"] for one in (whole, summary)]
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])
    assert [path.name for path in list_checkpoints(folder / "checkpoints")] == [
        "epoch-00002",
        "epoch-00003",
        "epoch-00004",
    ]


def test_a_run_without_a_whole_checkpoint_is_refused_and_its_message_helps(
    tiny: Callable[..., Config],
) -> None:
    config = tiny(name="all", training__epochs=2)
    folder = run_directory(config)
    run(config, quiet=True, on_epoch=lambda *_: False)
    flipped("record.json")(folder / "checkpoints" / "epoch-00001")
    before = sorted(folder.rglob("*"))
    with pytest.raises(
        WeightsError, match=r"'all' in .* cannot be resumed: .*epoch-00001 \(.*another --name"
    ):
        find_resume(config, folder)
    assert sorted(folder.rglob("*")) == before
    try:
        find_resume(config, folder)
    except WeightsError as error:
        (named,) = re.findall(r"; remove (\S+) to", str(error))
    shutil.rmtree(named)
    assert find_resume(config, folder) is None
    run(config, quiet=True)
    assert [e["epoch"] for e in read_epochs(folder)] == [0, 1]
    assert (read_summary(folder) or {})["attempts"] == 1


def test_a_newest_checkpoint_that_cannot_be_read_can_be_removed(tiny: Callable[..., Config]) -> None:
    config = tiny(name="hostile", training__epochs=3)
    run(config, quiet=True, on_epoch=lambda record, _: record["epoch"] < 1)
    folder = run_directory(config)
    newest = list_checkpoints(folder / "checkpoints")[-1]
    (newest / "checkpoint.pt").write_bytes(b"none")
    seal(newest)
    with pytest.raises(
        WeightsError, match=rf"cannot read checkpoint {newest}: .*, or remove it to go on from one before"
    ):
        run(config, quiet=True, resume=find_resume(config, folder))
    shutil.rmtree(newest)
    run(config, quiet=True, resume=find_resume(config, folder))
    assert [record["epoch"] for record in read_epochs(folder)] == [0, 1, 2]


def test_a_record_that_somebody_changed_is_sealed_anew(tmp_path: Path) -> None:
    (path,) = made(tmp_path, 1)
    (path / "record.json").write_text(json.dumps({"epochs": [], "mine": 1}))
    assert fault_of(path) is not None
    seal(path)
    assert fault_of(path) is None


def choose(rank: int, folder: str) -> None:
    """Each rank has a run's folder of its own, as on machines of which one has a bad disk."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    config = Config(runs_dir=Path(folder))
    found = find_resume(config, Path(folder, f"rank-{rank}"))
    refused = ""
    try:
        find_resume(config, Path(folder, "bad" if rank == 0 else "rank-1"))
    except WeightsError as error:
        refused = str(error)
    Path(folder, f"found-{rank}").write_text(f"{found}\n{refused}")
    dist.destroy_process_group()


def test_rank_0_chooses_for_all(tmp_path: Path) -> None:
    from dbf_ray.config import to_dict

    record = {"config": to_dict(Config(runs_dir=tmp_path)), "epochs": []}
    for name in ("rank-0", "rank-1", "bad"):
        for epoch in (1, 2):
            save_checkpoint(tmp_path / name / "checkpoints", epoch, {}, record)
    flipped("checkpoint.pt")(tmp_path / "rank-0" / "checkpoints" / "epoch-00002")
    for epoch in (1, 2):
        flipped("checkpoint.pt")(tmp_path / "bad" / "checkpoints" / f"epoch-{epoch:05d}")
    on_ranks(choose, str(tmp_path))
    answers = [(tmp_path / f"found-{rank}").read_text() for rank in range(2)]
    assert answers[0] == answers[1]
    found, refused = answers[0].splitlines()
    assert found == str(tmp_path / "rank-0" / "checkpoints" / "epoch-00001")
    assert "'bad'" in refused
