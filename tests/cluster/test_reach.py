"""Clusters that do not answer, and a Ray that does not start: one line, in seconds, and nothing written."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest
import ray
from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc
from ray.core.generated.gcs_pb2 import GcsNodeInfo

from dbf_ray.cluster import ray_runtime, reach
from dbf_ray.cluster.ray_runtime import connected_ray
from dbf_ray.cluster.reach import cluster_address, require_ray
from dbf_ray.errors import ResourceError


@pytest.fixture(autouse=True)
def _no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """No Ray is connected, and starting or joining one is a failure."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray was asked"))


def refused(address: str | None = None) -> str:
    begun = time.monotonic()
    with pytest.raises(ResourceError) as error, connected_ray(address):
        pytest.fail("never here")
    assert time.monotonic() - begun < 15
    line = str(error.value)
    assert "\n" not in line
    return line


@pytest.fixture
def silent() -> Iterator[int]:
    """A port where something listens and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def http() -> Iterator[int]:
    """A port where a web server answers, as Ray's dashboard does."""
    server = HTTPServer(("0.0.0.0", 0), BaseHTTPRequestHandler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()


OURS = b"n" * 28


class Head(gcs_service_pb2_grpc.NodeInfoGcsServiceServicer):
    """The answer of a cluster's head, or a refusal."""

    def __init__(self, version: str, refusal: grpc.StatusCode | None = None) -> None:
        self._version, self._refusal = version, refusal

    def CheckAlive(self, request: Any, context: grpc.ServicerContext) -> Any:
        if self._refusal:
            context.abort(self._refusal, "InvalidAuthToken")
        return gcs_service_pb2.CheckAliveReply(ray_version=self._version)

    def GetAllNodeInfo(self, request: Any, context: grpc.ServicerContext) -> Any:
        asked = [selector.node_id for selector in request.node_selectors]
        nodes = [GcsNodeInfo(node_id=OURS, state=GcsNodeInfo.ALIVE)] if OURS in asked else []
        return gcs_service_pb2.GetAllNodeInfoReply(node_info_list=nodes)


@pytest.fixture
def head() -> Iterator[Any]:
    """Starts a head; its port."""
    servers = []

    def start(*arguments: Any) -> int:
        servers.append(server := grpc.server(futures.ThreadPoolExecutor(1)))
        if arguments:
            gcs_service_pb2_grpc.add_NodeInfoGcsServiceServicer_to_server(Head(*arguments), server)
        port = server.add_insecure_port("0.0.0.0:0")
        server.start()
        return port

    yield start
    for server in servers:
        server.stop(None)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("127.0.0.1:1", "refused"),
        ("ray://127.0.0.1:1", "refused"),
        ("no-such-host.invalid:6379", "no-such-host"),
        ("ray://no-such-host.invalid:10001", "no-such-host"),
        ("10.0.0.1", "Invalid address format"),
        ("10.0.0.1:99999", "a port is 1 to 65535"),
        ("http://127.0.0.1:8265", "jobs are submitted to"),
        ("auto", "Could not find any running Ray instance"),
        ("ray://", "HOST:PORT must follow ray://"),
        ("ray://127.0.0.1:99999", "HOST:PORT must follow ray://"),
    ],
)
def test_an_address_where_no_cluster_is(
    address: str,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(reach.services, "find_gcs_addresses", lambda: frozenset())
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))  # no address of an earlier cluster
    given = refused(address)
    assert given.startswith(f"cannot reach the Ray cluster at {address}: ")
    assert words in given
    assert given.endswith("correct --cluster.address, or leave it out for a Ray on this machine")
    monkeypatch.setenv("RAY_ADDRESS", address)
    by_environment = refused()
    assert capfd.readouterr().err == ""  # nor a word of gRPC's own
    assert words in by_environment
    assert by_environment.endswith("correct RAY_ADDRESS, or unset it for a Ray on this machine")


def test_an_earlier_cluster_that_is_gone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """``ray start`` notes its address in a file, which outlives the cluster."""
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:1")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setattr(reach.services, "find_gcs_addresses", lambda: frozenset())
    assert "refused" in refused("auto")


def test_a_port_where_something_else_listens(
    silent: int, http: int, head: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reach, "SECONDS", 1.0)
    assert "no answer in 1 s" in refused(f"ray://127.0.0.1:{silent}")
    assert "it is no server for ray://" in refused(f"ray://127.0.0.1:{head(ray.__version__)}")
    assert "not the head of a Ray cluster" in refused(f"127.0.0.1:{http}")
    assert "not the head of a Ray cluster" in refused(f"127.0.0.1:{head()}")


def test_a_head_of_another_version(head: Any) -> None:
    assert f"it has Ray 2.9.3, and this is Ray {ray.__version__}" in refused(f"127.0.0.1:{head('2.9.3')}")


def test_a_head_that_wants_another_token(head: Any) -> None:
    line = refused(f"127.0.0.1:{head(ray.__version__, grpc.StatusCode.UNAUTHENTICATED)}")
    assert "it wants a token; set RAY_AUTH_MODE" in line


def test_a_machine_that_is_no_node_of_the_cluster(head: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"127.0.0.1:{head(ray.__version__)}"
    for nodes in (set(), {"00" * 28}):  # none here, and one of another cluster
        monkeypatch.setattr(reach.services, "find_node_ids", lambda nodes=nodes: nodes)
        assert "no node of it runs on this machine" in refused(address)
    monkeypatch.setattr(reach.services, "find_node_ids", lambda: {OURS.hex()})
    require_ray(address)


def test_a_proxy_is_not_asked(head: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setattr(reach.services, "find_node_ids", lambda: {OURS.hex()})
    require_ray(f"127.0.0.1:{head(ray.__version__)}")


@pytest.mark.parametrize("nothing", ["", " ", "local"])
def test_no_address_is_a_ray_on_this_machine(nothing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", nothing)
    assert cluster_address() is None
    require_ray()


ERRORS = [
    Exception(
        "The current node timed out during startup. This could happen because some of the raylet failed"
    ),
    RuntimeError("Failed to start GCS.  Last 0 lines of error files:\n\n"),
    TimeoutError("Timed out after 30 seconds while waiting for node to startup."),
    ConnectionError("Failed to connect to Ray cluster at 1.2.3.4:6379"),
    ValueError("The object store memory is too small"),
    OSError(28, "No space left on device"),
    PermissionError(13, "Permission denied", "/tmp/ray/session_1"),
    FileExistsError(17, "No usable temporary filename found"),
    AssertionError(),
    KeyError("node_id"),
    ray.exceptions.AuthenticationError("InvalidAuthToken: token mismatch"),
    RuntimeError("Version mismatch: The cluster was started with: Ray: 2.9.3"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("joins", [False, True], ids=["starts", "joins"])
def test_whatever_ray_raises_is_one_line_with_what_to_do(
    error: Exception,
    joins: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def init(**_: Any) -> None:
        logging.getLogger("ray._private.node").error("a line of Ray's log")
        raise error

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray_runtime, "require_ray", lambda *_: None)
    if joins:
        line = refused("10.0.0.1:6379")
        assert line.startswith("cannot reach the Ray cluster at 10.0.0.1:6379: ")
    else:
        line = refused()
        assert line.startswith("Ray cannot be started on this machine: ")
        assert ("RAY_TMPDIR=/tmp" in line) == (type(error) in (OSError, PermissionError, FileExistsError))
    assert (" ".join(str(error).split())[:60].rstrip(".") or "AssertionError") in line
    assert "; " in line
    assert capsys.readouterr().err == ""


def test_a_cluster_that_goes_while_it_is_used_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "init", lambda **_: None)
    monkeypatch.setattr(ray, "nodes", list)
    with pytest.raises(ResourceError, match=r"Ray ended: .*; what is done is kept"), connected_ray():
        raise ray.exceptions.ActorDiedError


def test_a_folder_too_long_for_sockets_is_refused_and_the_next_step_works(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    long = tmp_path / ("a" * 60) / ("b" * 40)
    long.mkdir(parents=True)
    for name in ("TMPDIR", "RAY_TMPDIR"):
        monkeypatch.setenv(name, str(long))
        line = refused()
        assert f"got {long}/ray (by {name}" in line
        assert line.endswith("choose a shorter one: RAY_TMPDIR=/tmp")
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    require_ray()
    monkeypatch.setattr(reach, "get_default_ray_temp_dir", lambda: "/" + "a" * 200)
    assert int(refused().split("at most ")[1].split(" ")[0]) > 30


def test_a_folder_that_is_not_absolute_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's processes, which have other working directories, would not find it, and Ray waits for them."""
    for name in ("TMPDIR", "RAY_TMPDIR"):
        for folder in ("", "tmp", "./tmp"):
            monkeypatch.setenv(name, folder)
            assert f"must be absolute, got {folder!r} (by {name})" in refused()
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    require_ray()
