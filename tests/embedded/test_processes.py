"""Records of processes: nothing is left behind, and nobody else's process is touched."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from headwater.embedded.processes import free_port, is_alive, launch, port_is_free, stop, wait_until_ready
from headwater.embedded.redis_server import start_redis
from headwater.errors import Unreachable


def _python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_launched_process_lives_in_a_session_of_its_own_until_it_is_stopped(tmp_path):
    process = launch("sleeper", _python("import time; time.sleep(60)"), tmp_path / "log")
    assert is_alive(process)
    assert os.getsid(process.pid) == process.pid != os.getsid(0)
    assert stop([process]) == [process]
    assert not is_alive(process)
    assert stop([process]) == []


def test_a_process_that_ended_by_itself_is_not_alive(tmp_path):
    process = launch("brief", _python("pass"), tmp_path / "log")
    while is_alive(process):
        time.sleep(0.01)
    assert stop([process]) == []


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_process_whose_first_thread_has_ended_lives_as_long_as_the_others(tmp_path):
    # As Kafka does on its way out: what holds its port is another thread.
    code = (
        "import ctypes, platform, threading, time\n"
        "threading.Thread(target=time.sleep, args=(60,)).start()\n"
        "print('ready', flush=True)\n"
        "exit_thread = {'x86_64': 60, 'aarch64': 93}[platform.machine()]\n"
        "ctypes.CDLL(None).syscall(exit_thread, 0)\n"
    )
    process = launch("headless", _python(code), tmp_path / "log")
    wait_until_ready(process, lambda: _state(process.pid) == "Z", seconds=20)
    assert is_alive(process)
    assert stop([process], patience=0.2) == [process]
    assert not is_alive(process)
    with pytest.raises(ChildProcessError):
        os.waitpid(process.pid, os.WNOHANG)  # nothing was left to be collected


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_process_that_ignores_sigterm_is_killed(tmp_path):
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
    process = launch("stubborn", _python(code), tmp_path / "log")
    wait_until_ready(process, lambda: "ready" in Path(process.log).read_text(), seconds=20)
    stop([process], patience=0.2)
    assert not is_alive(process)


def test_the_same_id_with_another_start_is_a_stranger_and_is_spared(tmp_path):
    process = launch("sleeper", _python("import time; time.sleep(60)"), tmp_path / "log")
    assert stop([replace(process, started="an earlier life of this id")]) == []
    assert is_alive(process)
    stop([process])


def test_a_server_that_ends_at_once_is_an_error_with_the_end_of_its_log(tmp_path):
    process = launch("broken", _python("raise SystemExit('no such luck')"), tmp_path / "log")
    with pytest.raises(Unreachable, match=r"(?s)'broken' ended at once.*no such luck"):
        wait_until_ready(process, lambda: False, seconds=20)


def test_a_server_that_never_answers_is_stopped_and_named(tmp_path):
    process = launch("mute", _python("import time; time.sleep(60)"), tmp_path / "log")
    with pytest.raises(Unreachable, match="'mute' was not ready after 0 s"):
        wait_until_ready(process, lambda: False, seconds=0.2)
    assert not is_alive(process)


@pytest.mark.redis
def test_a_port_that_a_server_holds_is_not_free(tmp_path):
    port = free_port()
    assert port_is_free(port)
    process = start_redis(tmp_path, port)
    assert not port_is_free(port)
    stop([process])
    assert port_is_free(port)
