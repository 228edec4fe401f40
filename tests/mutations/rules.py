"""The rules of docs/stream.md, and for each how it is taken out of the code and which tests have to notice."""

from __future__ import annotations

from dataclasses import dataclass

SCRIPTS, FEEDS, WORKER = "headwater/online/scripts.py", "pipelines/feeds.py", "pipelines/worker.py"
TABLE, ADMISSION, STORE = "headwater/rows/table.py", "headwater/events/admission.py", "headwater/online/plan_store.py"
BATCHES, BACKFILL, SINK = "pipelines/micro_batches.py", "pipelines/backfill.py", "pipelines/sink.py"
LOG, CONNECTION, LETTERS = "headwater/lake/event_log.py", "headwater/online/connection.py", "pipelines/dead_letters.py"
TOPICS, FED = "pipelines/topic_checks.py", "pipelines/plan_feeds.py"

FENCE, AWAY, TWO = "test_fence.py", "test_servers_away.py", "test_two_workers.py"
SAY, PATH, TOPIC, FILLS = "test_rows_say.py", "test_admission_path.py", "test_topics.py", "test_fills.py"
WARN, KEPT = "test_warnings.py", "test_sink.py"


@dataclass(frozen=True)
class Mutation:
    """A rule taken out: `changes` are (file, text that stands there once, text instead); `how` says it in words."""

    rule: str
    how: str
    tests: tuple[str, ...]
    changes: tuple[tuple[str, str, str], ...]


def one(rule: str, how: str, tests: str, file: str, old: str, new: str) -> Mutation:
    """A mutation of one place; `tests` are FILE or FILE::BEGINNING of tests/pipelines, or paths, split by spaces."""
    return Mutation(rule, how, _paths(tests), ((file, old, new),))


def _paths(tests: str) -> tuple[str, ...]:
    return tuple(t if t.startswith("tests/") else f"tests/pipelines/{t}" for t in tests.split())


RULES = (
    # -- 1
    one("1. A script writes only at the position it was computed from", "no comparison", FENCE, SCRIPTS,
        "  if redis.call('GET', KEYS[i]) ~= ARGV[1 + i] then\n", "  if false then\n"),
    Mutation("1. The position moves with the last row", "moved by the first script", _paths(FENCE), (
        (FEEDS, 'was = [first + b"%d" % i if i else old[0], *old[1:]]',
         'was = [b"%d" % moving[p] for p in parts] if i else old'),
        (FEEDS, 'becomes = [first + b"%d" % (i + 1), *old[1:]] if counts is None else [b"%d" % moving[p] for p in parts]',
         'becomes = [b"%d" % moving[p] for p in parts]'),
    )),
    Mutation("1. Scripts sent ahead are a chain", "all at the offset", _paths(FENCE), (
        (FEEDS, 'was = [first + b"%d" % i if i else old[0], *old[1:]]', "was = old"),
        (FEEDS, 'becomes = [first + b"%d" % (i + 1), *old[1:]] if counts is None else [b"%d" % moving[p] for p in parts]',
         'becomes = old if counts is None else [b"%d" % moving[p] for p in parts]'),
    )),
    one("1. A half-done position is reset at the start", "not reset", FENCE, SCRIPTS,
        "  if offset then redis.call('SET', key, offset) end\nend\nreturn redis.call('MGET', unpack(KEYS))",
        "end\nreturn redis.call('MGET', unpack(KEYS))"),
    one("1. The mark is a worker's own, and new each time", "constant", FENCE, FEEDS,
        "self._mark = os.urandom(8).hex()", 'self._mark = "00"'),
    one("1. After a refusal positions are read again", "not read",
        f"{AWAY}::test_redis_rolled", WORKER,
        "                        self._batches.turn()\n                    self._restart()\n",
        "                        self._batches.turn()\n"),
    one("1. A refused worker asks the group before it goes on", "not asked",
        f"{AWAY}::test_a_refused", WORKER,
        "                    if self._batches is not None:\n                        self._batches.turn()\n", ""),
    one("1. After a reconnect positions are read again", "not read",
        f"{AWAY}::test_redis_cut", WORKER,
        "        # A reconnect must not hide a rollback: all positions are read again, the plan too.\n        self._hold()\n",
        ""),
    one("1. No silent reconnect", "reconnects", "tests/online/test_connection.py", CONNECTION,
        '            raise Unreachable(f"The connection to Redis at {self.address} is closed; reconnect first.")\n',
        "            self.reconnect()\n"),
    # -- 2
    one("2. A row is written over the bytes it was made from", "no comparison", TWO, SCRIPTS,
        "if have == string.sub(digests, n * 8 - 7, n * 8) then", "if true then"),
    one("2. The digest is of the content", "the length instead", f"{TWO} {SAY}", "headwater/rows/codec.py",
        "np.array([xxh(view[a + 8 : b]) for a, b in spans], np.uint64)",
        "np.array([b - a for a, b in spans], np.uint64)"),
    one("2. What differs is read and merged again", "not read", TWO, FEEDS,
        "        self._reload(again)\n        flight.merge_again(again)\n", "        flight.merge_again(again)\n"),
    one("2. What is set beside is moved or deleted", "left where the fence refuses", FENCE, SCRIPTS,
        "    for s = first + rows + 1, #KEYS do redis.call('DEL', KEYS[s]) end\n", ""),
    one("2. At most 1,000 rows a script", "any number", TWO, FEEDS, "ROWS_A_SCRIPT = 1000", "ROWS_A_SCRIPT = 10**9"),
    # -- 3
    one("3. Born: the first offset of the partition", "the batch's last", SAY, TABLE,
        "np.minimum.at(self.born, at, events.offset[first])", "self.born[at] = int(events.offset.max())"),
    one("3. Applied: the last event that counts", "the position instead", SAY, TABLE,
        "np.maximum.at(self.applied, (rows, events.partition), events.offset)",
        "np.maximum.at(self.applied, (rows, events.partition), events.offset + 1)"),
    one("3. Also one too late for any tile", "left out", SAY, TABLE,
        "        self._apply(rows, events, born)\n",
        "        seen = [r.group.tile(events.time) >= r.group.first_tile(self.newest[rows] + 1) for r in self.rings]\n"
        "        seen = np.logical_or.reduce(seen)\n"
        "        self._apply(rows[seen], events.take(seen), born)\n"),
    one("3. Newest event time never goes back", "the batch's newest", SAY, TABLE,
        "np.maximum(self.newest[touched], np.maximum.reduceat(time, starts))", "np.maximum.reduceat(time, starts)"),
    one("3. Pruned at every write", "three tiles more", SAY, TABLE,
        "[ring.gather(rows, ring.group.first_tile(read_at)) for ring in self.rings]",
        "[ring.gather(rows, ring.group.first_tile(read_at) - 3) for ring in self.rings]"),
    one("3. Tiles that no window sees are not merged", "merged", SAY, TABLE,
        "            seen = t >= group.first_tile(self.newest[r] + 1)\n",
        "            seen = np.ones(len(t), np.bool_)\n"),
    one("3. Effective read time, of few rows", "the time asked for", SAY, "headwater/rows/one_row.py",
        "at = as_of if as_of > newest else newest + 1", "at = as_of"),
    one("3. Effective read time, of many rows", "the time asked for", SAY, "headwater/rows/many_rows.py",
        "at = np.maximum(as_of, found.newest + 1)", "at = np.broadcast_to(as_of, found.newest.shape).copy()"),
    one("3. Expiry by the clock", "by the time of events", SAY, "headwater/online/scripts.py",
        "redis.call('PEXPIRE', row, expiry)", "redis.call('PEXPIREAT', row, 1320000000000 + expiry)"),
    one("3. No expiry of lifetime values", "always", SAY, "headwater/online/expiry.py",
        " or any(f.window is None for f in view.features)", ""),
    one("3. No expiry for a topic kept for ever", "a very large retention taken as it is", SAY,
        "headwater/online/expiry.py", "not 0 <= fill.retention_ms < _FOR_EVER", "fill.retention_ms < 0"),
    # -- 4
    one("4. The future is measured from the record's time", "from the clock", f"{PATH}::test_the_future", ADMISSION,
        "time.values > broker_time[index] + self.source.tolerance",
        'time.values > __import__("time").time_ns() // 1000 + self.source.tolerance'),
    one("4. `mostly` reports and withholds nothing", "withholds", f"{PATH}::test_what_admission",
        "headwater/plans/plan.py",
        "return self.mostly >= 1.0", "return True"),
    one("4. What admission asks is in the state hash", "without tolerance", f"{PATH}::test_what_admission",
        "headwater/plans/plan.py",
        "source.topic, source.event_time, source.tolerance, source.fields",
        "source.topic, source.event_time, source.fields"),
    one("4. Past 64 bits when scaled: null, and counted", "not counted", f"{PATH}::test_what_fits",
        "headwater/rows/counters.py",
        "misfits = sum(_misfits(selected.columns[name], scale) for name, scale in layout.scaled)", "misfits = 0"),
    one("4. A null join key is counted", "not counted", f"{PATH}::test_a_null", "headwater/events/select.py",
        "null_keys = int(np.count_nonzero(passes)) - len(index)", "null_keys = 0"),
    one("4. Sums are 128 bits wide", "64 bits", f"{PATH}::test_what_fits", "headwater/aggregations/components.py",
        "            np.ascontiguousarray(new.words[:, 0]), new.words[:, 1],\n        )  # fmt: skip\n"
        "        return States(np.stack(words, axis=1))",
        "            np.ascontiguousarray(new.words[:, 0]), new.words[:, 1],\n        )  # fmt: skip\n"
        "        return States(np.stack((words[0], words[0] >> 63), axis=1))"),
    one("4. The lake keeps what is not admitted", "dropped", f"{PATH}::test_garbage_is", "headwater/lake/event_rows.py",
        "return pa.concat_tables([taken, refused])", "return taken"),
    Mutation("4. Dead letters before the position", "after it", _paths(f"{PATH}::test_a_position"), (
        (WORKER, "            self._dead_letters.send(source.topic, dead)\n", ""),
        (WORKER, "        self._flying.append((source, batch))\n",
         "        self._flying.append((source, batch))\n        self._land(source)\n"
         "        if dead:\n            self._dead_letters.send(source.topic, dead)\n"),
    )),
    one("4. And acknowledged", "not waited for", f"{PATH}::test_a_position", LETTERS,
        "left = self._producer.flush(TIMEOUT + 5)", "left = 0"),
    Mutation("4. Each listed once", "each copy", _paths(f"{PATH}::test_workers_killed"), (
        (LETTERS, "letters[letter.place] = first, max(at, before)", "letters[*letter.place, len(letters)] = letter, at"),
    )),
    # -- 5
    one("5. No reset", "earliest", f"{TOPIC}::test_retention_under", BATCHES,
        '"auto.offset.reset": "error"', '"auto.offset.reset": "earliest"'),
    one("5. Past the ends of transactions", "last record plus one", f"{TOPIC}::test_transactions_catch", WORKER,
        "if at is not None and offset > at:", "if False:"),
    one("5. Committed records alone", "all", f"{TOPIC}::test_transactions_catch", BATCHES,
        '"isolation.level": "read_committed"', '"isolation.level": "read_uncommitted"'),
    one("5. The topic's id", "not looked at", f"{TOPIC}::test_a_recreated", TOPICS,
        "    if facts is None or facts.id != fill.topic_id:\n        if waits:",
        "    if facts is None:\n        if waits:"),
    Mutation("5. Also under a running worker", "neither asked nor heard of", _paths(f"{TOPIC}::test_a_topic"), (
        ("pipelines/topic_watch.py", "return any(self._other(future", "return False and any(self._other(future"),
        (BATCHES, "if fault.code in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.UNKNOWN_TOPIC_ID, 103):", "if False:"),
    )),
    one("5. A position past the end", "taken", f"{TOPIC}::test_a_position_past", TOPICS,
        "    if past:\n        raise", "    if False:\n        raise"),
    one("5. An end that was asked for before is asked for again", "not asked", f"{TOPIC}::test_a_position_that", TOPICS,
        "_LOOK_AGAIN = (0.0, 0.5, 1.5)", "_LOOK_AGAIN = ()"),
    one("5. A position before the log's start", "taken", f"{TOPIC}::test_what_retention", TOPICS,
        "    if not before:\n        return None\n", "    return None\n"),
    one("5. A person accepts a gap", "nobody asked", f"{FILLS}::test_what_neither", BACKFILL,
        "if not self.accept_gaps:", "if False:"),
    one("5. Added partitions begin at 0", "no position", f"{TWO} {TOPIC}::test_partitions_added", FEEDS,
        'self.connection.command("SET", self._position_key(p), 0, "NX")', "pass"),
    one("5. A compacted topic is refused", "taken", "tests/plans/test_apply.py", "headwater/plans/topics.py",
        "if s.topic in facts and facts[s.topic].compacted]", "if False]"),
    one("5. Lag past half of the retention, worker and sink", "unsaid", WARN, "pipelines/lag_alarms.py",
        "0 < retention_ms < 2 *", "0 < retention_ms < 0 *"),
    # -- 6
    one("6. Rows and positions of one snapshot", "positions read later", f"{FILLS}::test_rows_and", BACKFILL,
        "return snapshot.read(self.source, up_to=positions, columns=columns), positions",
        "table = snapshot.read(self.source, up_to=positions, columns=columns)\n"
        "        return table, {**positions, **self.lake.positions(self.source.topic)}"),
    one("6. Rows first, positions last", "positions first", f"{FILLS}::test_no_worker", BACKFILL,
        "        rows = 0\n        for batch in _batched(",
        "        rows = 0\n        for p, offset in positions.items():\n"
        "            self.connection.command(\"SET\", position_key(self.project, fill.view, fill.id, p), offset)\n"
        "        for batch in _batched("),
    Mutation("6. No worker touches a fill without positions", "fed from 0",
             _paths(f"{FILLS}::test_no_worker_touches"), (
        (FED, "if fill is None or not has_positions(self._connection, self._project, fill):", "if fill is None:"),
        (FEEDS, "        lost = [p for p, reply in zip(wanted, replies, strict=True) if reply is None]\n",
         "        replies, lost = [reply or b\"0\" for reply in replies], []\n"),
    )),
    one("6. A running worker takes up what a backfill has placed", "not looked at", f"{FILLS}::test_a_running", FED,
        " or self._filled_meanwhile():", ":"),
    one("6. The switch waits for every position", "only for some", f"{FILLS}::test_a_changed", SCRIPTS,
        "  if not new then return 'BEHIND' end\n  if old and tonumber(string.match(new, '^%d+')) < "
        "tonumber(string.match(old, '^%d+')) then return 'BEHIND' end\n", ""),
    one("6. Record and positions go before rows", "rows first", f"{FILLS}::test_a_fill_that", STORE,
        '    connection.command("DEL", fill_key(project, view, fill), counter_key(project, view, fill), *keys)\n'
        "    delete_rows(connection, row_prefix(project, view, definition.state_hash, fill))\n",
        "    delete_rows(connection, row_prefix(project, view, definition.state_hash, fill))\n"
        '    connection.command("DEL", fill_key(project, view, fill), counter_key(project, view, fill), *keys)\n'),
    one("6. Going back is a new fill", "the definition's own fill again", f"{FILLS}::test_going_back_to", STORE,
        '            new_id(), view.name, view.state_hash, topic.name,',
        '            "f" + view.state_hash, view.name, view.state_hash, topic.name,'),
    one("6. A missing record is unavailable", "zeros", f"{FILLS}::test_a_fill_whose", "headwater/online/read_plan.py",
        "reply[0] == self.id and None not in reply[: self._first]", "reply[0] == self.id"),
    one("6. A missing position fills again", "nothing is done", f"{FILLS}::test_a_position", FED,
        '                self._lost(lost.view, feed.fill.id, "positions of it are gone from Redis, so its rows may be, too")\n',
        "                pass\n"),
    one("6. apply publishes after a loss", "what it has is taken for alive", f"{FILLS}::test_an_emptied "
        f"{TOPIC}::test_after_apply", STORE,
        "return fill.definition.state_hash == view.state_hash and self._alive(view, fill.fill)",
        "return fill.definition.state_hash == view.state_hash"),
    one("6. One backfill a fill", "the lock is everybody's", f"{FILLS}::test_of_two", BACKFILL,
        'if self.connection.command("GET", self._lock) == self._token:', "if True:"),
    one("6. A backfill that slept writes nothing over another", "no comparison", f"{FILLS}::test_a_backfill", SCRIPTS,
        "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'FENCE' end\nredis.call('PEXPIRE', KEYS[1], ARGV[2])",
        "redis.call('PEXPIRE', KEYS[1], ARGV[2])"),
    # -- 7
    one("7. Written through the handle", "by path", f"tests/lake/test_lake.py {KEPT}::test_two_sinks", LOG,
        "write_deltalake(self._handle, rows,", "write_deltalake(self._table.uri, rows,"),
    one("7. From the table's positions", "from anywhere", "tests/lake/test_lake.py", LOG,
        "if known.get(partition, start) != start:", "if False:"),
    one("7. After a refused commit the batch is filtered", "written again as it was", f"{KEPT}::test_of_a_batch", SINK,
        "                rows = buffer.rows_from(rows, starts)\n", ""),
    one("7. The topic's id is the table's", "not looked at", "tests/lake/test_lake.py", LOG,
        "        if known != topic_id:\n", "        if False:\n"),
    one("7. The topic's id is asked for before every commit", "not asked", f"{KEPT}::test_a_topic", SINK,
        "        self._verify_topic(topic)\n", ""),
    one("7. What retention took is written down", "passed over", f"{KEPT}::test_records_that", SINK,
        "        self.lake.append_gap(topic, gap)\n", ""),
    one("7. A full disk is waited for", "deltalake's error ends the sink", f"{KEPT}::test_a_full",
        "headwater/lake/tables.py",
        '_STORAGE = re.compile(r"Generic \\w+ error|os error \\d+")', '_STORAGE = re.compile("never said")'),
    # -- 8, and servers that are away
    one("8. Eviction is warned of", "unsaid", WARN, CONNECTION, 'if policy != "noeviction":', "if False:"),
    one("8. That nothing is kept on disk is warned of", "unsaid", WARN, CONNECTION,
        'if facts.get("aof_enabled", "0") == "0" and not _saves(connection):', "if False:"),
    one("8. A full Redis is waited for", "an error like others", f"{AWAY}::test_a_redis",
        CONNECTION, '"BUSY ", "OOM ", ', '"BUSY ", '),
    one("An outage is said once", "each time", f"{AWAY}::test_kafka_stopped",
        "pipelines/outages.py", "if server not in self._since:", "if True:"),
    one("Its end is said once", "unsaid", f"{AWAY}::test_redis_stopped",
        "pipelines/outages.py", "            del self._since[server]\n",
        "            del self._since[server]\n            return\n"),
)  # fmt: skip
