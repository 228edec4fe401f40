"""How keys in Redis are spelled. Everything else asks here.

=====================================================  =========================================
``hw:plan:{PROJECT}``                                   the published plan (JSON, `PublishedPlan`)
``hw:plan-id:{PROJECT}``                                 its id alone: readers ask for it with every MGET
``hw:fill:{PROJECT}:{VIEW}:{FILL}``                      a fill's record (JSON, `Fill`)
``hw:lock:`` + a fill record's key                       a backfill's, while it fills
``hw:pos:{PROJECT}:{VIEW}:{FILL}:{PARTITION}``           a position: next offset, or offset/mark/i in a batch,
                                                        or offset/hold/token/end while rows are repaired
``hw:count:{PROJECT}:{VIEW}:{FILL}``                     counters of a fill (hash: rows/counters.py)
``hw:probe:{PROJECT}``                                   a write that only asks whether Redis takes writes
``hw:beside:{NUMBER}``                                   a row's new bytes within the transaction that moves them
``hw:stat:{PROJECT}:{VIEW}``                             what the last worker measured (JSON, `WorkerStatistics`)
``hw:row:{PROJECT}:{VIEW}:{HASH}:{FILL}:`` + entity key  a row
=====================================================  =========================================

The entity key is text: an integer in decimal, a string as it is, a boolean as true or false, a
timestamp in microseconds; several values are joined by ``|``, with ``\\`` and ``|`` escaped by ``\\``.
"""

from __future__ import annotations

from collections.abc import Sequence


def plan_key(project: str) -> bytes:
    """Where the published plan lies."""
    return f"hw:plan:{project}".encode()


def plan_id_key(project: str) -> bytes:
    """Where the published plan's id lies."""
    return f"hw:plan-id:{project}".encode()


def fill_key(project: str, view: str, fill: str) -> bytes:
    """Where a fill's record lies."""
    return f"hw:fill:{project}:{view}:{fill}".encode()


def lock_key(project: str, view: str, fill: str) -> bytes:
    """What a backfill holds while it fills."""
    return b"hw:lock:" + fill_key(project, view, fill)


def position_key(project: str, view: str, fill: str, partition: int) -> bytes:
    """Where the position of one partition of a fill lies."""
    return f"hw:pos:{project}:{view}:{fill}:{partition}".encode()


def counter_key(project: str, view: str, fill: str) -> bytes:
    """Where the counters of a fill lie."""
    return f"hw:count:{project}:{view}:{fill}".encode()


def beside_key(number: int) -> bytes:
    """Where a row's new bytes lie within a transaction."""
    return f"hw:beside:{number}".encode()


def probe_key(project: str) -> bytes:
    """What is written to learn whether Redis takes writes."""
    return f"hw:probe:{project}".encode()


def statistics_key(project: str, view: str) -> bytes:
    """Where the worker's measurements of a view lie."""
    return f"hw:stat:{project}:{view}".encode()


def row_prefix(project: str, view: str, state_hash: str, fill: str) -> bytes:
    """What all rows of a fill begin with."""
    return f"hw:row:{project}:{view}:{state_hash}:{fill}:".encode()


def entity_key(values: Sequence[object]) -> bytes:
    """The entity key of a row's join key values (in the order of the view's keys; none is None)."""
    if len(values) == 1:
        return _text(values[0])
    return b"|".join(_text(v).replace(b"\\", b"\\\\").replace(b"|", b"\\|") for v in values)


def key_parts(key: bytes) -> list[bytes]:
    """The texts that `entity_key` joined: one for each of several join keys."""
    parts, escaped = [bytearray()], False
    for c in key:
        if escaped or c not in b"\\|":
            parts[-1].append(c)
            escaped = False
        elif c == ord("|"):
            parts.append(bytearray())
        else:
            escaped = True
    return [bytes(p) for p in parts]


def entity_text(key: bytes, names: Sequence[str]) -> str:
    """An entity key as a command line takes it, such as "stock_code=85123A,country=France"."""
    parts = [key] if len(names) == 1 else key_parts(key)
    return ",".join(f"{n}={p.decode('utf-8', 'backslashreplace')}" for n, p in zip(names, parts, strict=False))


def sink_group(project: str) -> str:
    """The consumer group of a project's sinks; its offsets in Kafka are for monitors and the check."""
    return f"headwater-sink-{project}"


def _text(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, bool):
        return b"true" if value else b"false"
    return str(value).encode()
