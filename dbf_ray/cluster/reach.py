"""Whether there can be a Ray at all, found out in seconds and before anything is written.

Ray itself asks a cluster that is not there for minutes, in log lines of its own.
"""

from __future__ import annotations

import logging
import os

import grpc
import ray
from ray._common.utils import get_default_ray_temp_dir
from ray._private import services
from ray._private.grpc_utils import init_grpc_channel
from ray._private.ray_constants import GLOBAL_GRPC_OPTIONS
from ray._raylet import NodeID
from ray.core.generated.gcs_pb2 import GcsNodeInfo
from ray.core.generated.gcs_service_pb2 import CheckAliveRequest, GetAllNodeInfoRequest
from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub

from dbf_ray.cluster.address import cluster_address
from dbf_ray.errors import ResourceError

SECONDS = 10.0  # for a cluster to answer
SOCKET_BYTES = 107  # of a socket's path, by the kernel
TOKEN = "set RAY_AUTH_MODE here as where the cluster was started, and its token (RAY_AUTH_TOKEN_PATH)"
NO_NODE = "no node of it runs on this machine (ray start --address HOST:PORT here, or submit a job)"
SUBMIT = "a program joins at HOST:PORT (port 6379 as a rule), jobs are submitted to http://HOST:8265"


def require_ray(address: str | None = None, option: str = "--cluster.address") -> None:
    """Refuse a cluster that does not answer, and a local Ray that cannot start.

    Args:
        address: see :func:`cluster_address`.
        option: how it was given, for the message.

    Raises:
        ResourceError: with what to do.
    """
    if ray.is_initialized():
        return
    joined = cluster_address(address)
    if joined is None:
        _room_for_sockets()
    elif reason := _no_answer(joined):
        raise ResourceError(
            f"cannot reach the Ray cluster at {joined}: {reason}; {next_step(address, option)}"
        )


def next_step(address: str | None, option: str) -> str:
    """What to do where a cluster cannot be joined."""
    return (
        f"correct {option}, or leave it out for a Ray on this machine"
        if address
        else "correct RAY_ADDRESS, or unset it for a Ray on this machine"
    )


def why_no_ray(error: Exception, address: str | None, option: str) -> str:
    """What to say, in one line, when Ray could not be joined or started for ``error``."""
    reason = in_short(error)
    if joined := cluster_address(address):
        if isinstance(error, ray.exceptions.AuthenticationError):
            return f"cannot reach the Ray cluster at {joined}: {reason}; {TOKEN}"
        if "ersion mismatch" in reason:
            return f"cannot reach the Ray cluster at {joined}: {reason}; install the same versions here"
        return f"cannot reach the Ray cluster at {joined}: {reason}; {next_step(address, option)}"
    if isinstance(error, OSError) and not isinstance(error, ConnectionError | TimeoutError):
        return (
            f"Ray cannot be started on this machine: {reason}; make room in {get_default_ray_temp_dir()}, or "
            "choose another folder that can be written: RAY_TMPDIR=/tmp"
        )
    return (
        f"Ray cannot be started on this machine: {reason}; where the machine is busy, try again once it is "
        f"less so; Ray's own logs are in {get_default_ray_temp_dir()}/session_latest/logs"
    )


def in_short(error: BaseException) -> str:
    """An error's message in one line of at most 300 signs, its class where it has none."""
    return " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__


def _room_for_sockets() -> None:
    folder = get_default_ray_temp_dir()
    chosen = next((name for name in ("RAY_TMPDIR", "TMPDIR") if name in os.environ), "the system")
    if not os.path.isabs(folder):
        raise ResourceError(
            "the path of Ray's folder for temporary files must be absolute, got "
            f"{os.environ.get(chosen)!r} (by {chosen}); give such a one: RAY_TMPDIR=/tmp"
        )
    below = f"/session_2000-01-01_00-00-00_000000_{os.getpid()}/sockets/plasma_store"
    if len(os.fsencode(folder + below)) > SOCKET_BYTES:
        raise ResourceError(
            "the path of Ray's folder for temporary files must have at most "
            f"{SOCKET_BYTES - len(below)} bytes, so that sockets fit in it, got {folder} (by {chosen}, "
            f"{len(os.fsencode(folder))} bytes); choose a shorter one: RAY_TMPDIR=/tmp"
        )


def _no_answer(address: str) -> str | None:
    """Why a program cannot join at ``address``, None if it can."""
    scheme, mark, target = address.rpartition("://")
    if mark and scheme != "ray":
        return SUBMIT
    try:
        target = _with_port(target) if mark else _resolved(address)
        return _as_head_says(target, client=bool(mark))
    except (ValueError, OSError) as error:  # ConnectionError: "auto", and there is none
        return in_short(error).split(". ")[0]
    except grpc.RpcError as error:
        return _why(error, client=bool(mark), auto=address == "auto")


def _with_port(target: str) -> str:
    """What follows ``ray://``, if it can be a server's: else gRPC writes a log of its own."""
    host, _, port = target.rpartition(":")
    if not host or not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise ValueError("HOST:PORT must follow ray:// (port 10001 as a rule)")
    return target


def _resolved(address: str) -> str:
    """HOST:PORT, as Ray finds it."""
    log = logging.getLogger("ray")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)  # a traceback for a name that is not known
    try:
        resolved = str(services.canonicalize_bootstrap_address(address))
    finally:
        log.setLevel(level)
    if not 0 < int(resolved.rpartition(":")[2]) < 65536:
        raise ValueError("a port is 1 to 65535")
    return resolved


def _as_head_says(target: str, *, client: bool) -> str | None:
    """Why a program cannot join, None if it can, by what the head node's GCS answers."""
    channel = init_grpc_channel(target, GLOBAL_GRPC_OPTIONS)
    try:
        head = NodeInfoGcsServiceStub(channel)
        version = head.CheckAlive(CheckAliveRequest(), timeout=SECONDS).ray_version
        if client:
            return f"it is no server for ray:// (port 10001 as a rule); {SUBMIT}"
        if version and version != ray.__version__:
            return f"it has Ray {version}, and this is Ray {ray.__version__}: install the same"
        return None if _has_node_here(head) else NO_NODE
    finally:
        channel.close()


def _has_node_here(head: NodeInfoGcsServiceStub) -> bool:
    """Whether a node of the cluster runs on this machine: a program joins through it, and Ray waits a minute
    for one.
    """
    here = [NodeID.from_hex(node).binary() for node in services.find_node_ids()]
    if not here:
        return False
    selected = [GetAllNodeInfoRequest.NodeSelector(node_id=node) for node in here]
    nodes = head.GetAllNodeInfo(GetAllNodeInfoRequest(node_selectors=selected), timeout=SECONDS)
    return any(node.state == GcsNodeInfo.ALIVE for node in nodes.node_info_list)


def _why(error: grpc.RpcError, *, client: bool, auto: bool) -> str | None:
    code, details = error.code(), " ".join(str(error.details()).split())
    if code is grpc.StatusCode.UNAUTHENTICATED:
        # with "auto" Ray looks for a token itself
        return None if auto or client else f"it wants a token; {TOKEN}"
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return None if client else f"what answers there is not the head of a Ray cluster; {SUBMIT}"
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"no answer in {SECONDS:.0f} s"
    if "HTTP/2" in details or "http1" in details:
        return f"what answers there is not the head of a Ray cluster; {SUBMIT}"
    return details.rpartition("last error: ")[2].removeprefix("UNKNOWN: ")[:200] or str(code)
