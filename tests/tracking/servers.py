"""Real servers for tests: MLflow's, PostgreSQL, and a stand-in for S3. Each ends with its context."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

SECONDS = 60.0  # a server has to start


@contextmanager
def mlflow_server(
    folder: Path, backend: str, artifacts: str, environment: Mapping[str, str] | None = None
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """``mlflow server`` on a free port, as docs/tracking.md starts it; its URI and process.

    Args:
        folder: where its log is.
        backend: URI of the store of runs.
        artifacts: URI of the store of files.
        environment: beyond this process's.
    """
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--backend-store-uri", backend, "--artifacts-destination", artifacts]
    more = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    more |= environment or {}
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=folder, stdout=log, stderr=log, start_new_session=True, env=os.environ | more
        )
    try:
        address = f"http://127.0.0.1:{port}"
        _wait(lambda: _answers(f"{address}/health"), process, folder / "server.log")
        yield address, process
    finally:
        end(process)


@contextmanager
def postgres(programs: Path) -> Iterator[str]:
    """A PostgreSQL cluster in a temporary folder, on a free port; the URI of an empty database in it. It
    refuses to be root, and runs as the user ``postgres`` then.

    Args:
        programs: folder with initdb and pg_ctl.
    """
    with TemporaryDirectory() as folder:
        yield from _cluster(Path(folder), programs)


def _cluster(folder: Path, programs: Path) -> Iterator[str]:
    root, port = os.getuid() == 0, free_port()
    if root:
        user = pwd.getpwnam("postgres")
        os.chown(folder, user.pw_uid, user.pw_gid)
    become = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if root else []

    def call(program: str, *arguments: str) -> None:
        done = subprocess.run(
            [*become, str(programs / program), *arguments], cwd=folder, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr

    data = str(folder / "data")
    call("initdb", "-D", data, "-A", "trust", "-U", "mlflow", "--no-sync")
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    call("pg_ctl", "-D", data, "-l", str(folder / "log"), "-w", "-o", options, "start")
    try:
        yield f"postgresql+psycopg2://mlflow@127.0.0.1:{port}/postgres"
    finally:
        call("pg_ctl", "-D", data, "-m", "immediate", "stop")


@contextmanager
def s3(bucket: str) -> Iterator[dict[str, str]]:
    """moto's server with an empty bucket; what a client's environment needs to find it."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        environment = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
        environment |= {"AWS_DEFAULT_REGION": "us-east-1", "MLFLOW_S3_ENDPOINT_URL": f"http://{host}:{port}"}
        _client(environment).create_bucket(Bucket=bucket)
        yield environment
    finally:
        server.stop()


def names_in(bucket: str, environment: Mapping[str, str]) -> list[str]:
    """What lies in a bucket of :func:`s3`."""
    return [entry["Key"] for entry in _client(environment).list_objects_v2(Bucket=bucket).get("Contents", [])]


def _client(environment: Mapping[str, str]) -> Any:
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=environment["MLFLOW_S3_ENDPOINT_URL"],
        region_name=environment["AWS_DEFAULT_REGION"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
    )


def postgres_programs() -> Path | None:
    """The folder of PostgreSQL's programs (on Debian they are not on the path); None without."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda file: int(file.parts[-3]))
    on_path = shutil.which("initdb")
    program = found[-1] if found else on_path and Path(on_path)
    return program.parent if program else None


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def end(process: subprocess.Popen[bytes]) -> None:
    """End a server and its workers."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
    process.wait(20)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=1) as answer:
            return bool(answer.read())
    except OSError:
        return False


def _wait(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + SECONDS
    while not ready():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.1)
