"""Pictures of a run: which there are and when, and that a training does not notice them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from dbf_ray.run import find_resume, run
from dbf_ray.run.pictures import chosen
from dbf_ray.tracking import read_epochs
from tests.tiny import add_narrow, on_ranks, tiny_config

pytestmark = pytest.mark.usefixtures("narrow")
MEASURED = ("time", "so_far", "system", "seconds", "bytes", "share", "joules", "images_per_second")
WHOLE = ["confusion.png", "learning_curve.png", "pr_curves.png", "timeline.png"]


def trained(place: Path, pictures_every: int | None, **changes: Any) -> Path:
    config = tiny_config(
        evaluation__pictures_every=pictures_every, runs_dir=str(place), name="run", **changes
    )
    run(config, quiet=True, coverage=False)
    return place / "run"


def drawn(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder / "pictures")) for file in (folder / "pictures").rglob("*.*"))


def sheets(*epochs: int) -> list[str]:
    return [f"detections/epoch-{epoch:05d}.jpg" for epoch in epochs]


@pytest.mark.parametrize(
    ("every", "changes", "epochs"),
    [
        (None, {"training__epochs": 4}, (0, 1, 2, 3)),
        (3, {"training__epochs": 6}, (0, 3, 5)),
        (1, {"training__epochs": 5, "evaluation__every": 2}, (1, 3, 4)),
        (None, {"training__epochs": 1}, (0,)),
    ],
)
def test_a_run_leaves_its_pictures(
    every: int | None, changes: dict[str, Any], epochs: tuple[int, ...], tmp_path: Path
) -> None:
    folder = trained(tmp_path, every, **changes)
    assert drawn(folder) == sorted([*WHOLE, *sheets(*epochs)])
    found = json.loads((folder / "confusion.json").read_text())
    counts = np.array(found["counts"])
    assert counts.shape == (len(found["classes"]) + 1,) * 2
    assert counts[:-1].sum() > 0  # each object is in its row, found or missed
    assert found["iou"] == 0.5


def test_with_0_nothing_is_drawn_of_what_was_found(tmp_path: Path) -> None:
    folder = trained(tmp_path, 0, training__epochs=2)
    assert drawn(folder) == ["learning_curve.png", "timeline.png"]
    assert (folder / "matches.npz").exists()


def test_a_policy_that_decides_while_it_trains_has_its_timeline_at_the_end(tmp_path: Path) -> None:
    adaptive = {"freezing__patience": 1, "freezing__min_delta": 0.0}
    folder = trained(tmp_path / "done", 0, freezing__policy="plateau", training__epochs=1, **adaptive)
    assert "timeline.png" in drawn(folder)

    def stop(record: dict[str, Any], checkpoint: Path | None) -> bool:
        raise KeyboardInterrupt

    for policy, changes, there in (("plateau", adaptive, []), ("full", {}, ["timeline.png"])):
        config = tiny_config(freezing__policy=policy, runs_dir=str(tmp_path), name=policy, **changes)
        with pytest.raises(KeyboardInterrupt):
            run(config, quiet=True, coverage=False, on_epoch=stop)
        assert drawn(tmp_path / policy) == there


def test_blocks_of_steps_have_a_timeline_too(tmp_path: Path) -> None:
    changes = {"freezing__policy": "step", "freezing__rho": 2, "freezing__interval__unit": "steps"}
    folder = trained(tmp_path, 0, training__epochs=2, freezing__interval__every=1, **changes)
    assert "timeline.png" in drawn(folder)


def test_a_resumed_run_draws_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    def stop(record: dict[str, Any], checkpoint: Path | None) -> bool:
        if record["epoch"] == 2:
            raise KeyboardInterrupt
        return True

    config = tiny_config(evaluation__pictures_every=2, training__epochs=6, runs_dir=str(tmp_path), name="run")
    with pytest.raises(KeyboardInterrupt):
        run(config, quiet=True, coverage=False, on_epoch=stop)
    assert drawn(tmp_path / "run") == [*sheets(0, 2), "timeline.png"]
    resume = find_resume(config, tmp_path / "run")
    run(config, quiet=True, coverage=False, resume=resume)
    assert drawn(tmp_path / "run") == sorted([*WHOLE, *sheets(0, 2, 4, 5)])


def outcome(folder: Path) -> tuple[Any, ...]:
    """All that a training ends in but what was measured: records, weights, optimizer and random states."""
    records = [
        {key: value for key, value in record.items() if not any(word in key for word in MEASURED)}
        for record in read_epochs(folder)
    ]
    (checkpoint,) = [max((folder / "checkpoints").iterdir())]
    state = torch.load(checkpoint / "checkpoint.pt", weights_only=True)
    return records, state["model"], state["optimizer"], state["random"], (folder / "matches.npz").read_bytes()


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b or (a != a and b != b))


@pytest.mark.parametrize("name", ["rotated_retinanet", "oriented_rcnn"])
def test_a_training_does_not_notice_them(name: str, tmp_path: Path) -> None:
    changes = {"detector__name": name, "freezing__policy": "step", "freezing__rho": 2, "training__epochs": 3}
    outcomes = []
    for every in (0, 1):
        random.seed(0)
        torch.manual_seed(0)
        outcomes.append(outcome(trained(tmp_path / str(every), every, **changes)))
    assert len(drawn(tmp_path / "1" / "run")) == 7
    assert same(*outcomes)


def test_what_cannot_be_drawn_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> bytes:
        raise RuntimeError("no fonts")

    for place in ("scenes.draw_scene", "confusion.confusion_png", "timeline.timeline_png"):
        monkeypatch.setattr(f"dbf_ray.reports.{place}", broken)
    with pytest.warns(UserWarning, match=r"cannot draw .*: RuntimeError: no fonts") as caught:
        folder = trained(tmp_path, 1, training__epochs=1)
    assert len(caught) == 3
    assert drawn(folder) == ["learning_curve.png", "pr_curves.png"]
    assert (folder / "summary.json").exists()


def test_ten_images_that_stay_the_same() -> None:
    def images(count: int, with_objects: int) -> dict[str, Any]:
        return {
            f"{n:03d}": {"objects": {"labels": np.zeros(int(n % (count // with_objects) == 0))}}
            for n in random.sample(range(count), count)
        }

    few = chosen(images(100, 20))
    assert few == chosen(images(100, 20)) == [f"{n:03d}" for n in range(0, 100, 10)]
    assert len(set(chosen(images(40, 4)))) == 10  # too few have objects
    assert chosen(images(3, 1)) == ["000", "001", "002"]


def draw_on_rank(rank: int, place: str) -> None:
    add_narrow()
    dist.init_process_group("gloo", init_method=f"file://{place}/ranks", rank=rank, world_size=2)
    config = tiny_config(
        evaluation__pictures_every=1, training__epochs=2, cluster__workers=2, runs_dir=place, name="run"
    )
    run(config, quiet=True, coverage=False)
    dist.destroy_process_group()


def test_of_two_ranks_one_draws_what_both_found(tmp_path: Path) -> None:
    on_ranks(draw_on_rank, str(tmp_path))
    assert drawn(tmp_path / "run") == sorted([*WHOLE, *sheets(0, 1)])
    alone = trained(tmp_path / "alone", 1, training__epochs=2)

    def objects(folder: Path) -> int:
        return int(np.array(json.loads((folder / "confusion.json").read_text())["counts"])[:-1].sum())

    assert objects(tmp_path / "run") == objects(alone)
