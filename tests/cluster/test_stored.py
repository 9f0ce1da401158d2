"""A run in a storage: folders, and S3 as moto serves it."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dbf_ray import remote
from dbf_ray.api import evaluate_checkpoint
from dbf_ray.cluster.stored import fetch_run, put_record
from dbf_ray.cluster.train import stored_at
from dbf_ray.config import Config
from dbf_ray.errors import ResourceError
from dbf_ray.tracking import read_epochs
from dbf_ray.training.checkpoint import list_checkpoints, save_checkpoint
from tests.faults.place import ROOT, TRAINING, until
from tests.tiny import as_options, tiny_config
from tests.tracking.servers import names_in, s3


@pytest.fixture(scope="module")
def bucket() -> Iterator[dict[str, str]]:
    """A bucket ``stored``; the environment in which pyarrow finds it."""
    pytest.importorskip("moto")
    with s3("stored") as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.setenv("AWS_ENDPOINT_URL", environment["MLFLOW_S3_ENDPOINT_URL"])
        yield environment


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a run's part of the storage is."""
    if request.param == "folder":
        return str(tmp_path / "storage" / "run")
    request.getfixturevalue("bucket")
    return f"s3://stored/{tmp_path.name}/run"


def reported(place: str, tmp_path: Path, epochs: int, time: str, torn: bool = False) -> None:
    """A checkpoint as Ray Train keeps it."""
    folder = tmp_path / "worker"
    shutil.rmtree(folder, ignore_errors=True)
    made = save_checkpoint(folder, epochs, {"epoch": epochs}, {"epochs": [{}] * epochs})
    files = sorted(made.iterdir(), key=lambda file: file.name == "manifest.json")
    if torn:
        files = [file for file in files if file.name != "checkpoint.pt"]
    remote.put(files, remote.joined(place, f"checkpoint_{time}"))


def test_a_new_machine_takes_the_newest_whole_checkpoint(place: str, tmp_path: Path) -> None:
    for epochs, time, torn in [(1, "10-00", False), (2, "10-05", False), (3, "10-10", True)]:
        reported(place, tmp_path, epochs, time, torn)
    run = tmp_path / "run"
    found = fetch_run(place, run)
    assert found == run / "checkpoints" / "epoch-00002"
    assert list_checkpoints(run / "checkpoints") == [found]
    assert [file.name for file in run.iterdir()] == ["checkpoints"]


def test_a_run_that_has_its_own_takes_nothing(place: str, tmp_path: Path) -> None:
    reported(place, tmp_path, 4, "10-00")
    own = save_checkpoint(tmp_path / "run" / "checkpoints", 1, {"epoch": 1}, {"epochs": [{}]})
    assert fetch_run(place, tmp_path / "run") is None
    assert list_checkpoints(tmp_path / "run" / "checkpoints") == [own]


def test_where_nothing_is_nothing_is_taken_or_written(place: str, tmp_path: Path) -> None:
    assert fetch_run(place, tmp_path / "run") is None
    assert not (tmp_path / "run").exists()


def test_the_record_of_a_finished_run_is_there_too(place: str, tmp_path: Path) -> None:
    reported(place, tmp_path, 2, "10-00")
    done = tmp_path / "done"
    done.mkdir()
    for name in ("config.yaml", "epochs.jsonl", "other"):
        (done / name).write_text(name)
    (done / "summary.json").write_text(json.dumps({"map50": 0.5}))
    put_record(place, done)
    assert fetch_run(place, tmp_path / "run") is not None
    names = {file.name for file in (tmp_path / "run").iterdir()}
    assert names == {"checkpoints", "config.yaml", "epochs.jsonl", "summary.json"}


def test_a_storage_that_is_away_fails_no_finished_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.warns(UserWarning, match="the run's record is in .* alone: .* can be written"):
        put_record(str(tmp_path / "file" / "run"), tmp_path)


def test_a_checkpoint_is_evaluated_where_it_is(bucket: dict[str, str], tmp_path: Path, narrow: None) -> None:
    from dbf_ray.run import run

    config = tiny_config(training__epochs=1)
    summary = run(config, directory=tmp_path / "run", quiet=True)
    here = Path(summary["checkpoint"])
    uri = f"s3://stored/{tmp_path.name}/ones/epoch-00001"
    remote.put(here.iterdir(), uri)
    found = evaluate_checkpoint(uri, tracking={"mlflow": False})
    assert found["checkpoint"] == uri
    assert found["map50"] == pytest.approx(summary["map50"], nan_ok=True)


@pytest.mark.usefixtures("bucket")
def test_a_checkpoint_that_is_not_there_is_one_line() -> None:
    with pytest.raises(ResourceError, match="s3://stored/none must be a folder that can be read: it is not"):
        remote.at_hand("s3://stored/none")


def test_options_of_a_uri_stay_behind() -> None:
    joined = remote.joined("s3://bucket/a/?endpoint_override=localhost:9000", "b")
    assert joined == "s3://bucket/a/b?endpoint_override=localhost:9000"
    config = Config.model_validate({"cluster": {"storage": "s3://bucket/a"}})
    assert stored_at(config, Path("/runs/mine")) == "s3://bucket/a/mine"
    assert stored_at(config, Path("/x/studies/s/trials/3")) == "s3://bucket/a/s-trials-3"


def test_what_was_put_is_there(bucket: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    remote.put([tmp_path / "a.txt"], "s3://stored/put")
    assert "put/a.txt" in names_in("stored", bucket)
    assert remote.folders_in("s3://stored") == sorted(remote.folders_in("s3://stored"))


@pytest.mark.slow
def test_a_training_goes_on_where_its_machine_is_lost(bucket: dict[str, str], tmp_path: Path) -> None:
    runs, storage = tmp_path / "runs", f"s3://stored/{tmp_path.name}"
    command = [sys.executable, "-m", "jobs.train", *as_options(TRAINING | {"training.epochs": 5})]
    command += ["--name", "far", "--runs_dir", str(runs), "--cluster.storage", storage]
    command += ["--cluster.use_ray", "true", "--tracking.mlflow", "false"]

    def started() -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    first = started()
    until(lambda: len(read_epochs(runs / "far")) >= 2)
    first.send_signal(signal.SIGTERM)
    assert first.wait(120) == 143, first.stdout and first.stdout.read()
    done = len(read_epochs(runs / "far"))
    shutil.rmtree(runs)
    second = started()
    said = second.communicate(timeout=300)[0].decode()
    assert second.returncode == 0, said
    assert f"resuming after {done} of 5 epochs" in said
    assert [record["epoch"] for record in read_epochs(runs / "far")] == list(range(5))
    shutil.rmtree(runs)
    third = started()
    assert "is finished" in third.communicate(timeout=120)[0].decode()
    assert third.returncode == 2
    kept = [name for name in remote.folders_in(f"{storage}/far") if name.startswith("checkpoint_")]
    assert len(kept) == 2
    assert read_epochs(runs / "far")[-1]["epoch"] == 4
