"""What became of the servers that `up` started: said beside an error that one cannot be reached."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwater.errors import HeadwaterError

if TYPE_CHECKING:
    from headwater.cli import Context


def what_ended(context: Context) -> str:
    """A sentence on the servers of `up` that have ended since, and what to do; empty where there are none."""
    from headwater.embedded.processes import is_alive
    from headwater.embedded.servers import BROKERS, load_servers

    try:
        servers = load_servers(context.repository().root)
    except HeadwaterError:
        return ""
    ended = [p for p in servers.processes if p.name in ("redis", *BROKERS) and not is_alive(p)]
    if not ended:
        return ""
    names = " and ".join(f"{p.name} (log: {p.log})" for p in ended)
    return f"Started by 'headwater up', and ended since: {names}. 'headwater up' brings back what died, with its data."
