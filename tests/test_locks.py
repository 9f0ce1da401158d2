"""A folder has one writer, whose lock ends with its process."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dbf_ray.errors import ResourceError
from dbf_ray.locks import only_writer

HOLD = """
import sys, time
from pathlib import Path
from dbf_ray.locks import only_writer
with only_writer(Path(sys.argv[1]), "training", "give another --name"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_writer_is_refused_until_the_first_is_done(tmp_path: Path) -> None:
    with (
        only_writer(tmp_path / "run", "training", "give another --name"),
        pytest.raises(
            ResourceError,
            match=r"another process is training in .*run; wait for it, or give another --name",
        ),
        only_writer(tmp_path / "run", "training", "give another --name"),
    ):
        pass
    with only_writer(tmp_path / "run", "training", "give another --name"):
        pass


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True) as held:
        assert held.stdout is not None
        assert held.stdout.readline() == "held\n"
        began = time.monotonic()
        with pytest.raises(ResourceError), only_writer(tmp_path, "training", "wait", patience=0.3):
            pass
        assert time.monotonic() - began >= 0.3
        held.send_signal(signal.SIGKILL)
        held.wait()
    with only_writer(tmp_path, "training", "wait", patience=5.0):
        pass
