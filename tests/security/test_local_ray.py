"""A local Ray, started in a shell that switches tokens off, is nobody else's."""

from __future__ import annotations

import os
from pathlib import Path

import grpc
import psutil
import pytest

from dbf_ray.cluster import connected_ray
from dbf_ray.cluster.local_ray import remove_session, session_folder


@pytest.mark.ray
def test_a_local_ray_listens_here_alone_and_wants_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray
    from ray.core.generated.gcs_service_pb2 import GetAllNodeInfoRequest
    from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    ray.shutdown()  # that of other tests; they start another
    with connected_ray():
        session = session_folder()
        assert session is not None
        assert (session / "logs").is_dir()

        @ray.remote
        def secret() -> str:
            return os.environ["RAY_AUTH_TOKEN"]

        token = ray.get(secret.remote())
        here = psutil.Process()
        open_at = {
            (process.name(), connection.laddr.ip)
            for process in (here, *here.children(recursive=True))
            for connection in process.net_connections()
            if connection.status == psutil.CONN_LISTEN
        }
        assert {"raylet", "gcs_server"} <= {name for name, _ in open_at}
        assert {place for _, place in open_at} <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}
        address = ray.get_runtime_context().gcs_address
        with grpc.insecure_channel(address) as channel:
            ask = NodeInfoGcsServiceStub(channel).GetAllNodeInfo
            with pytest.raises(grpc.RpcError) as refused:
                ask(GetAllNodeInfoRequest(), timeout=20)
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED  # type: ignore[attr-defined]
            known = (("authorization", f"Bearer {token}"),)
            assert len(ask(GetAllNodeInfoRequest(), timeout=20, metadata=known).node_info_list) == 1
    assert os.environ["RAY_AUTH_MODE"] == "disabled"
    assert "RAY_AUTH_TOKEN" not in os.environ
    assert not (session / "logs" / "raylet.out").exists()  # nothing went wrong: nobody looks for logs


def test_a_session_takes_the_link_to_it_along_and_no_other(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name / "logs").mkdir(parents=True)
    latest = tmp_path / "session_latest"
    latest.symlink_to(tmp_path / "new")
    remove_session(tmp_path / "old")
    assert latest.exists()
    remove_session(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []
    remove_session(None)
