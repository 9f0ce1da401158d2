"""Where objects are found, in images of any size, and that an interruption anywhere changes nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dbf_ray.errors import ResourceError
from dbf_ray.predict.job import predict_files
from tests.predict.conftest import (
    boxes_in,
    boxes_of,
    content,
    draw,
    find_rectangles,
    make_folder,
    make_task,
    save,
    scattered,
)

Pictures = Callable[[Mapping[str, tuple[int, int]]], dict[str, Path]]


def quiet(line: str) -> None:
    """Nobody listens."""


@pytest.mark.parametrize(
    ("size", "window", "overlap"),
    [
        ((64, 64), 64, 16),
        ((200, 300), 64, 16),
        ((300, 129), 64, 20),
        ((50, 40), 64, 16),
        ((64, 65), 64, 16),
        ((40, 500), 64, 63),
        ((200, 200), 100, 11),
    ],
)
def test_every_object_is_found_once_where_it_is(
    tmp_path: Path, size: tuple[int, int], window: int, overlap: int
) -> None:
    rectangles = scattered(size)
    files = {"a": save(tmp_path / "a.png", draw(size, rectangles))}
    result = predict_files(make_task(window, overlap), files, make_folder(tmp_path / "out"), quiet)
    assert result["detections"] == len(rectangles) > 3
    assert boxes_in(tmp_path / "out" / "labels" / "a.txt") == boxes_of(rectangles)


@pytest.mark.parametrize("factor", [2, 3, 0.5])
def test_boxes_come_back_from_the_size_that_the_network_sees(tmp_path: Path, factor: float) -> None:
    """Also in an image smaller than the window: it is scaled by the same factor."""
    for size in ((160, 224), (48, 60)):
        rectangles = [
            (2 * x, 2 * y, 12, 6, label) for x, y, _, _, label in scattered((size[0] // 2, size[1] // 2))
        ]
        files = {"a": save(tmp_path / f"{size}" / "a.png", draw(size, rectangles))}
        seen: list[tuple[int, ...]] = []

        def detect(images: list[Tensor], seen: list[tuple[int, ...]] = seen) -> list[Mapping[str, Tensor]]:
            seen.extend(tuple(image.shape[1:]) for image in images)
            return find_rectangles(images)

        task = make_task(64, 32, round(64 * factor), detect=detect)
        predict_files(task, files, make_folder(tmp_path / f"{size}" / "out"), quiet)
        found, wanted = boxes_in(tmp_path / f"{size}" / "out" / "labels" / "a.txt"), boxes_of(rectangles)
        assert set(seen) == {tuple(round(min(side, 64) * factor) for side in size)}
        assert [box[8] for box in found] == [box[8] for box in wanted]
        assert np.array([box[:8] for box in found]) == pytest.approx(
            np.array([box[:8] for box in wanted]), abs=1
        )


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (200, 1), (3, 64), (65, 2)])
@pytest.mark.parametrize("image_size", [64, 16])
def test_slivers_are_looked_at_too(tmp_path: Path, size: tuple[int, int], image_size: int) -> None:
    files = {"a": save(tmp_path / "a.png", np.full((*size, 3), 9, np.uint8))}
    result = predict_files(make_task(image_size=image_size), files, make_folder(tmp_path / "out"), quiet)
    assert (result["images"], result["detections"], result["failed"]) == (1, 0, [])
    assert (tmp_path / "out" / "labels" / "a.txt").read_text() == ""
    assert (tmp_path / "out" / "overlays" / "a.jpg").stat().st_size > 0


@pytest.mark.parametrize("kind", ["grey", "deep"])
def test_grey_and_16_bit_images(tmp_path: Path, kind: str) -> None:
    rectangles = [(x, y, w, h, 0) for x, y, w, h, _ in scattered((100, 150))]
    pixels = draw((100, 150), rectangles)[..., 0]
    files = {"a": save(tmp_path / "a.png", pixels if kind == "grey" else pixels.astype(np.uint16) * 8)}
    predict_files(make_task(), files, make_folder(tmp_path / "out"), quiet)
    # grey is bright in the channels of both classes
    assert boxes_in(tmp_path / "out" / "labels" / "a.txt") == boxes_of(
        [(*box[:4], label) for box in rectangles for label in (0, 1)]
    )


def test_low_scores_are_dropped_and_boxes_that_are_no_numbers_or_have_no_area(tmp_path: Path) -> None:
    boxes = torch.tensor(
        [
            *([20.0, 20, 8, 4, 0], [40, 20, 8, 4, 0], [torch.inf, 20, 8, 4, 0], [50, 50, 8, 4, 0]),
            *([30, 30, 0, 4, 0], [30, 40, 8, 0, 0]),
        ]
    )

    def detect(images: list[Tensor]) -> list[Mapping[str, Tensor]]:
        return [
            {
                "boxes": boxes,
                "scores": torch.tensor([0.9, 0.6, 0.5, 0.3, 0.95, 0.95]),
                "labels": torch.zeros(6, dtype=torch.int64),
            }
        ] * len(images)

    files = {"a": save(tmp_path / "a.png", draw((64, 64), []))}
    for score, count in ((None, 3), (0.3, 2), (0.7, 1)):
        result = predict_files(
            make_task(detect=detect, score=score), files, make_folder(tmp_path / f"{score}"), quiet
        )
        assert result["detections"] == count


def test_an_image_of_one_window_keeps_what_the_network_gave(tmp_path: Path) -> None:
    """Suppression between windows has nothing to do there; in several windows the same boxes suppress each
    other.
    """
    pair = torch.tensor([[30.0, 30, 10, 6, 0], [32.0, 30, 10, 6, 0]])

    def detect(images: list[Tensor]) -> list[Mapping[str, Tensor]]:
        return [
            {"boxes": pair, "scores": torch.tensor([0.9, 0.8]), "labels": torch.zeros(2, dtype=torch.int64)}
        ] * len(images)

    files = {
        "a": save(tmp_path / "a.png", draw((64, 64), [])),
        "b": save(tmp_path / "b.png", draw((64, 128), [])),
    }
    folder = make_folder(tmp_path / "out")
    predict_files(make_task(64, 0, detect=detect), files, folder, quiet)
    assert [len(boxes_in(folder.file("dota", name))) for name in "ab"] == [2, 2]


def test_batches_hold_windows_of_several_images_of_one_size(pictures: Pictures, tmp_path: Path) -> None:
    batches: list[list[tuple[int, ...]]] = []

    def detect(images: list[Tensor]) -> list[Mapping[str, Tensor]]:
        batches.append([tuple(image.shape[1:]) for image in images])
        return find_rectangles(images)

    files = pictures(
        {
            "a": (64, 64),
            "b": (64, 64),
            "c": (64, 64),
            "d": (100, 100),
            "e": (50, 64),
            "f": (64, 50),
            "g": (64, 50),
        }
    )
    result = predict_files(make_task(detect=detect, batch=2), files, make_folder(tmp_path / "out"), quiet)
    assert [len(batch) for batch in batches] == [2, 1, 2, 2, 1, 2]
    assert all(len(set(batch)) == 1 for batch in batches)
    assert result["windows"] == 10
    for seed, (name, size) in enumerate(
        {"a": (64, 64), "b": (64, 64), "c": (64, 64), "d": (100, 100), "e": (50, 64)}.items()
    ):
        assert boxes_in(tmp_path / "out" / "labels" / f"{name}.txt") == boxes_of(scattered(size, seed))


SIZES = {"a": (64, 64), "b": (64, 64), "c": (150, 200), "d": (64, 60), "sub/e": (90, 130), "sub/f": (64, 64)}


class BreakOffError(Exception):
    pass


class Network:
    """Finds rectangles, with scores that depend on the whole batch; breaks off when it has been called
    ``stop`` times.
    """

    def __init__(self) -> None:
        self.calls, self.stop = 0, None

    def __call__(self, images: list[Tensor]) -> list[Mapping[str, Tensor]]:
        if self.calls == self.stop:
            raise BreakOffError
        self.calls += 1
        company = float(torch.stack([image.float().mean() for image in images]).sum())
        return [{**found, "scores": found["scores"] + company * 1e-4} for found in find_rectangles(images)]


@pytest.mark.parametrize("every", [0.0, 1e9])
def test_interrupted_anywhere_it_ends_in_the_same_bytes(
    pictures: Pictures, tmp_path: Path, every: float
) -> None:
    """The network's answer depends on the company that a window has, as rounding does."""
    files, network = pictures(SIZES), Network()
    task = make_task(detect=network, every=every, batch=3)
    predict_files(task, files, make_folder(tmp_path / "whole"), quiet)
    whole, batches = content(tmp_path / "whole"), network.calls
    assert batches > 8
    for stop in range(batches):
        root = tmp_path / f"{stop}"
        network.calls, network.stop = 0, stop
        with pytest.raises(BreakOffError):
            predict_files(task, files, make_folder(root), quiet)
        assert "Task1/submission.zip" not in content(root)
        network.calls, network.stop = 0, None
        assert predict_files(task, files, make_folder(root), quiet)["images"] == len(SIZES)
        assert content(root) == whole
        assert every or network.calls <= batches - stop + 1, (
            "no more than one batch is looked at again, for the company it was in"
        )


def test_interrupted_between_any_two_files_it_ends_in_the_same_bytes(
    pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, replace = pictures({"a": (64, 64), "b": (150, 200), "c": (64, 64)}), os.replace
    left = 10**6

    def replace_some(source: str | Path, target: str | Path) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise BreakOffError
        replace(source, target)

    monkeypatch.setattr(os, "replace", replace_some)
    predict_files(make_task(detect=Network(), batch=3), files, make_folder(tmp_path / "whole"), quiet)
    whole, steps = content(tmp_path / "whole"), 10**6 - left
    assert steps > 20
    for stop in range(steps):
        left = stop
        with pytest.raises(BreakOffError):
            predict_files(
                make_task(detect=Network(), batch=3), files, make_folder(tmp_path / f"{stop}"), quiet
            )
        left = 10**6
        predict_files(make_task(detect=Network(), batch=3), files, make_folder(tmp_path / f"{stop}"), quiet)
        assert content(tmp_path / f"{stop}") == whole


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.predict.conftest import find_rectangles, make_folder, make_task
from dbf_ray.predict.job import predict_files
calls = 0
def detect(images):
    global calls
    calls += 1
    if calls == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return find_rectangles(images)
root, out = Path(sys.argv[1]), Path(sys.argv[2])
files = {name: root / f"{name}.png" for name in sys.argv[3:]}
predict_files(make_task(detect=detect, batch=3), files, make_folder(out))
"""


def test_killed_in_the_middle_of_an_image_it_goes_on_there(pictures: Pictures, tmp_path: Path) -> None:
    files, out = pictures(SIZES), tmp_path / "out"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    process = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "images"), str(out), *files],
        env=environment,
        capture_output=True,
        check=False,
    )
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()
    assert sorted(file.stem for file in (out / "done").iterdir()) == ["a", "b"]
    assert list((out / "partial" / "c.parts").glob("*.npz"))
    (out / "partial" / "c.parts" / ".99999999-99999999.npz.77").write_bytes(b"torn")
    calls: list[int] = []

    def detect(images: list[Tensor]) -> list[Mapping[str, Tensor]]:
        calls.append(len(images))
        return find_rectangles(images)

    result = predict_files(make_task(detect=detect, batch=3), files, make_folder(out), quiet)
    assert result["skipped"] == 2
    assert sum(calls) == 6 + 1 + 6 + 1, "six of the twelve windows of c were noted"
    predict_files(make_task(batch=3), files, make_folder(tmp_path / "whole"), quiet)
    assert content(out) == content(tmp_path / "whole")


def test_complete_images_are_skipped_until_they_change(pictures: Pictures, tmp_path: Path) -> None:
    files, out = pictures({"a": (64, 64), "b": (100, 100)}), tmp_path / "out"
    first = predict_files(make_task(), files, make_folder(out), quiet)
    again = predict_files(make_task(), files, make_folder(out), quiet)
    assert (again["skipped"], again["windows"], again["detections"]) == (2, 0, first["detections"])
    (out / "geojson" / "a.geojson").unlink()
    save(files["b"], draw((100, 100), []))
    third = predict_files(make_task(), files, make_folder(out), quiet)
    assert (third["skipped"], third["windows"]) == (0, 5)
    assert boxes_in(out / "labels" / "b.txt") == []
    assert "b " not in (out / "Task1" / "Task1_ship.txt").read_text()


def test_images_that_cannot_be_read_stop_nothing(pictures: Pictures, tmp_path: Path) -> None:
    files, out, lines = (
        pictures({"a": (64, 64), "b": (200, 200), "c": (64, 64), "d": (64, 64)}),
        tmp_path / "out",
        [],
    )
    predict_files(make_task(), files, make_folder(out), quiet)
    whole = content(out)
    good = files["b"].read_bytes()
    files["b"].write_bytes(good[: len(good) // 2] + good[-12:])  # its header and its end are whole
    files["c"].write_text("no image")
    files |= {"gone": tmp_path / "gone.png"}
    result = predict_files(make_task(), files, make_folder(out), lines.append)
    assert [failure["image"] for failure in result["failed"]] == ["c", "gone", "b"]
    assert len(lines) == 3
    assert all(line.startswith("error: ") for line in lines)
    assert (result["images"], result["skipped"]) == (5, 2)
    assert {name for name in content(out) if "/b." in name or "/c." in name} == set()
    assert all(content(out)[name] == whole[name] for name in whole if "/a." in name or "/d." in name)

    files["b"].write_bytes(good)
    del files["gone"], files["c"]
    assert predict_files(make_task(), files, make_folder(out), quiet)["failed"] == []
    assert content(out)["labels/b.txt"] == whole["labels/b.txt"]


def test_a_batch_that_is_too_large_for_the_device(pictures: Pictures, tmp_path: Path) -> None:
    def detect(images: list[Tensor]) -> list[Mapping[str, Tensor]]:
        raise torch.OutOfMemoryError("tried to allocate 20 GiB")

    with pytest.raises(ResourceError, match=r"4 windows do not: tried to allocate 20 GiB; lower batch"):
        predict_files(
            make_task(detect=detect), pictures({"a": (100, 200)}), make_folder(tmp_path / "out"), quiet
        )


def test_no_more_than_the_chosen_formats_are_written(pictures: Pictures, tmp_path: Path) -> None:
    files = pictures({"a": (100, 100)})
    for formats in (["dota"], ["geojson"], ["overlay"]):
        predict_files(make_task(), files, make_folder(tmp_path / formats[0], formats), quiet)
        names = {name.split("/")[0] for name in content(tmp_path / formats[0])} - {"done", "predict.json"}
        assert (
            names
            == {"dota": {"labels", "Task1"}, "geojson": {"geojson"}, "overlay": {"overlays"}}[formats[0]]
        )
    overlay = content(tmp_path / "overlay")["overlays/a.jpg"]
    assert json.loads((tmp_path / "geojson" / "done" / "a.json").read_text())["windows"] == 4
    assert overlay[:2] == b"\xff\xd8"
