"""All events that were not admitted, from both places that keep them, and what has become of each since.

The topics TOPIC.dead-letters have what workers could not take; the lake has all that the sink did not admit, with the
whole bytes and the broker's time. Each (topic, partition, offset) is one letter.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from msgspec import structs

from headwater.errors import UsageError
from headwater.events.admission import IGNORED, Rejected
from headwater.events.timestamps import format_timestamp
from headwater.lake import Lake
from headwater.online.topic_facts import topic_facts
from headwater.plans.plan import Source
from headwater.repository import Repository
from pipelines.dead_letters import DeadLetter, as_json, read_letter_times
from pipelines.replays import Entry, Places, read_ledger


@dataclass(frozen=True)
class Letter:
    """One event that was not admitted.

    Attributes:
        letter: its place, kind, reason and bytes, as they are shown.
        broker_time: microseconds; None until the sink has kept it.
        raw: its whole bytes, None for a null payload, and until the sink has kept it.
        sent_at: when a worker last said that it could not take it, microseconds; None where none did.
        replayed: its entry in the ledger of replays.
    """

    letter: DeadLetter
    broker_time: int | None = None
    raw: bytes | None = None
    sent_at: int | None = None
    replayed: Entry | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain data, for people's scripts."""
        time, entry = self.broker_time, self.replayed
        return as_json(self.letter) | {
            "broker_time": None if time is None else format_timestamp(time),
            "replayed_as": None if entry is None else {"partition": entry.as_partition, "offset": entry.as_offset},
        }


@dataclass(frozen=True)
class Wanted:
    """Which letters: of a topic, of a kind, with a text in the reason (in any case), at one of these places."""

    topic: str | None = None
    kind: str | None = None
    reason: str | None = None
    places: tuple[tuple[str, int, int], ...] = ()

    def __call__(self, x: DeadLetter) -> bool:
        return (
            self.topic in (None, x.topic)
            and self.kind in (None, x.kind)
            and (self.reason or "").lower() in x.reason.lower()
            and (not self.places or x.place in self.places)
        )


def parse_place(text: str, topics: Sequence[str]) -> tuple[str, int, int]:
    """A place as people write it: 0/17 where there is one topic, orders/0/17, or orders[0]@17 as `list` prints it.

    Raises:
        UsageError: another form, or a topic that is none of the sources'.
    """
    found = re.fullmatch(r"(?:(?P<topic>[\w.-]+)/)?(?P<p>\d+)/(?P<o>\d+)", text) or re.fullmatch(
        r"(?P<topic>[\w.-]+)\[(?P<p>\d+)\]@(?P<o>\d+)", text
    )
    if found is None:
        raise UsageError(f"Place {text!r}: expected PARTITION/OFFSET or TOPIC/PARTITION/OFFSET, such as orders/0/17.")
    topic = found["topic"] or (topics[0] if len(topics) == 1 else None)
    if topic is None:
        raise UsageError(f"Place {text!r}: name the topic, such as {topics[0]}/{text}; there are {', '.join(topics)}.")
    if topic not in topics:
        raise UsageError(f"Place {text!r}: no source has the topic {topic!r}. There are {', '.join(topics)}.")
    return topic, int(found["p"]), int(found["o"])


def read_letters(repository: Repository, sources: Iterable[Source], wanted: Wanted | None = None) -> list[Letter]:
    """The letters of the sources, by topic, partition and offset.

    Raises:
        Unreachable: Kafka or the lake's object store does not answer.
    """
    by_topic: dict[str, Source] = {}
    for source in sources:
        by_topic.setdefault(source.topic, source)
    kafka, wanted = repository.need_kafka(), wanted or Wanted()
    found = {x.place: Letter(x, sent_at=at) for x, at in read_letter_times(kafka, list(by_topic)) if wanted(x)}
    ids = {name: facts.id for name, facts in topic_facts(kafka, by_topic, offsets=False).items()}
    lake = Lake(repository.lake)
    for topic, source in by_topic.items():
        for x in _kept(lake, source, ids.get(topic)):
            if wanted(x.letter):
                sent = found.get(x.letter.place)
                found[x.letter.place] = x if sent is None else _with_key(replace(x, sent_at=sent.sent_at), sent)
    ledgers = {topic: read_ledger(kafka, topic, id) for topic, id in ids.items()}
    return [_with_entry(found[place], ledgers) for place in sorted(found)]


def _kept(lake: Lake, source: Source, topic_id: str | None) -> Iterable[Letter]:
    snapshot = lake.events(source.topic)
    if snapshot is None:
        return
    # Of an earlier topic of that name letters are shown, and cannot be replayed: this one's places are others.
    same = topic_id is not None and snapshot.topic_id == topic_id
    table = snapshot.read_rejected(source)
    table = table.filter(pc.not_equal(table["_kind"], IGNORED))
    times = table["_broker_time"].cast(pa.int64()).to_pylist()
    for row, time in zip(table.drop_columns(["_broker_time"]).to_pylist(), times, strict=True):
        rejected = Rejected(-1, row["_partition"], row["_offset"], row["_kind"], row["_reason"], row["_raw"])
        letter = DeadLetter.of(source.topic, rejected)
        yield Letter(letter, time, row["_raw"]) if same else Letter(letter)


def _with_key(letter: Letter, sent: Letter) -> Letter:
    """The lake keeps no keys; what a worker sent may have one."""
    key, encoded = sent.letter.key, sent.letter.key_base64
    return replace(letter, letter=structs.replace(letter.letter, key=key, key_base64=encoded))


def _with_entry(letter: Letter, ledgers: Mapping[str, Places]) -> Letter:
    topic, partition, offset = letter.letter.place
    return replace(letter, replayed=ledgers.get(topic, {}).get((partition, offset)))


def shown_bytes(letter: Letter) -> str:
    """The event's bytes, safe for a terminal: as text where they are printable, else 16 a line in hexadecimal."""
    x = letter.letter
    raw = letter.raw
    if raw is None:
        raw = x.raw.encode() if x.raw is not None else base64.b64decode(x.raw_base64) if x.raw_base64 else None
    if raw is None:
        return "(null)"
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return _hexadecimal(raw)
    return text if text and all(c.isprintable() or c in "\n\t" for c in text) else _hexadecimal(raw)


def _hexadecimal(raw: bytes) -> str:
    lines = []
    for i in range(0, len(raw), 16):
        part = raw[i : i + 16]
        plain = "".join(chr(b) if 32 <= b < 127 else "." for b in part)
        lines.append(f"{i:08x}  {part.hex(' '):<47}  {plain}")
    return "\n".join(lines) or "(empty)"
