"""Files that are whole or not there, plain values, and how many CPUs there are."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from dbf_ray.files import whole_file, write_json, write_text
from dbf_ray.machine import usable_cpus
from dbf_ray.values import finite, flat


def test_a_file_is_replaced_as_a_whole_and_everybody_may_read_it(tmp_path: Path) -> None:
    file = tmp_path / "made" / "record.json"
    write_json(file, {"loss": float("nan"), "box": np.float32(0.5)})
    assert file.read_text() == '{\n  "loss": null,\n  "box": 0.5\n}\n'
    write_text(file, "naïve\n")
    assert file.read_bytes() == "naïve\n".encode()
    assert file.stat().st_mode & 0o777 == 0o644
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("moment", ["chmod", "fsync", "replace"])
def test_an_error_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    write_text(tmp_path / "file", "old")

    def full(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path if moment == "chmod" else os, moment, full)
    with pytest.raises(OSError, match="disk full"):
        write_text(tmp_path / "file", "new")

    def interrupted() -> None:
        with whole_file(tmp_path / "file") as partial:
            partial.write_text("ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("file", "old")]


def test_two_writers_of_a_file_do_not_share_their_half_of_it(tmp_path: Path) -> None:
    with whole_file(tmp_path / "file") as one, whole_file(tmp_path / "file") as other:
        one.write_text("one")
        other.write_text("other")
    assert [entry.read_text() for entry in tmp_path.iterdir()] == ["one"]


def test_values_are_plain_and_named_by_the_keys_that_lead_to_them() -> None:
    found = finite({1: (np.float64("inf"), np.int64(3)), "set": {True}, "path": Path("a"), "none": None})
    assert found == {"1": [None, 3], "set": [True], "path": "a", "none": None}
    assert [type(item) for item in (finite(np.float64(0.5)), found["1"][1])] == [float, int]
    assert flat({"a": {"b": {"e": 1}, "c": {}}, "d": [2]}, "/") == {"a/b/e": 1, "a/c": {}, "d": [2]}
    assert flat({"a": {"b": {"e": 1}}}, whole=["a.b"]) == {"a.b": {"e": 1}}


@pytest.mark.parametrize(("quota", "cpus"), [("max 100000", 8), ("250000 100000", 2), ("50000 100000", 1)])
def test_cpus_are_those_of_the_affinity_within_the_quota(
    monkeypatch: pytest.MonkeyPatch, quota: str, cpus: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: quota)
    assert usable_cpus() == cpus
