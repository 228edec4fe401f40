"""The Lua scripts that change rows and positions: check and write are one atomic step.

Plain Lua that runs on Redis 6.2 to 8. Positions are compared as the text they were read as,
so `offset` and `offset/mark/i` differ, and a missing position never matches. A position that a
repair holds is another text too: who writes from it is refused, reads it again, and waits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from headwater.online.connection import CommandError, Connection

WRITE_ROWS = b"""
-- KEYS: p positions, counters, rows, then as many keys where the rows' new values were set, in the same transaction.
-- ARGV: p; p expected; p new; digests (8 bytes a row); null_keys; derived_nulls; scaled_nulls; expiry in ms or ''.
-- Replies OK, FENCE, or the numbers of rows whose digest differs. Moving a value copies nothing; an argument of a
-- script is copied twice, and all of its bytes are hashed. Numbers of a range are texts: Lua's take Redis longer.
local p = tonumber(ARGV[1])
local first = p + 1
local rows = (#KEYS - first) / 2
for i = 1, p do
  if redis.call('GET', KEYS[i]) ~= ARGV[1 + i] then
    for s = first + rows + 1, #KEYS do redis.call('DEL', KEYS[s]) end
    return 'FENCE'
  end
end
local digests, counts, expiry, bad = ARGV[2 + 2 * p], 2 + 2 * p, ARGV[6 + 2 * p], {}
for n = 1, rows do
  local row, value = KEYS[first + n], KEYS[first + rows + n]
  local have = redis.call('GETRANGE', row, '0', '7')
  if have == '' then have = '\\0\\0\\0\\0\\0\\0\\0\\0' end
  if have == string.sub(digests, n * 8 - 7, n * 8) then
    redis.call('RENAME', value, row)
    if expiry ~= '' then redis.call('PEXPIRE', row, expiry) end
  else
    redis.call('DEL', value)
    bad[#bad + 1] = n - 1
  end
end
if #bad > 0 then return bad end
for i = 1, p do redis.call('SET', KEYS[i], ARGV[1 + p + i]) end
for i, name in ipairs({'null_keys', 'derived_nulls', 'scaled_nulls'}) do
  if ARGV[counts + i] ~= '0' then redis.call('HINCRBY', KEYS[first], name, ARGV[counts + i]) end
end
return 'OK'
"""

BEGIN = b"""
-- KEYS: positions. A batch that was cut short begins again: offset/mark/i becomes offset. Replies all positions,
-- or HELD where a repair holds one of them (offset/hold/token/end of the hold in ms) for some time yet.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for _, key in ipairs(KEYS) do
  local ends = string.match(redis.call('GET', key) or '', '/hold/%x+/(%d+)$')
  if ends and tonumber(ends) > now then return 'HELD' end
end
for _, key in ipairs(KEYS) do
  local offset = string.match(redis.call('GET', key) or '', '^(%d+)/')
  if offset then redis.call('SET', key, offset) end
end
return redis.call('MGET', unpack(KEYS))
"""

HOLD = b"""
-- KEYS: positions. ARGV: token; ms. Nobody writes rows from these positions until the time is over, or END_HOLD.
-- Replies the offsets, or HELD where somebody else holds one.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for _, key in ipairs(KEYS) do
  local token, ends = string.match(redis.call('GET', key) or '', '/hold/(%x+)/(%d+)$')
  if ends and token ~= ARGV[1] and tonumber(ends) > now then return 'HELD' end
end
local held = {}
for i, key in ipairs(KEYS) do
  local offset = string.match(redis.call('GET', key) or '', '^%d+')
  if offset then
    redis.call('SET', key, offset .. '/hold/' .. ARGV[1] .. '/' .. string.format('%.0f', now + ARGV[2]))
  end
  held[i] = offset or false
end
return held
"""

END_HOLD = b"""
-- KEYS: positions. ARGV: token. Ends a hold of that token, where it still is.
for _, key in ipairs(KEYS) do
  local offset, token = string.match(redis.call('GET', key) or '', '^(%d+)/hold/(%x+)/%d+$')
  if offset and token == ARGV[1] then redis.call('SET', key, offset) end
end
return 'OK'
"""

REPLACE = b"""
-- KEYS: the fill's record, rows. ARGV: expiry in ms or ''; then what each row is now and what it becomes: '1' and
-- its bytes, or '0' for none. Replies GONE, or the numbers of rows that are something else by now.
if redis.call('EXISTS', KEYS[1]) == 0 then return 'GONE' end
local bad = {}
for i = 2, #KEYS do
  local have = redis.call('GET', KEYS[i])
  local new = ARGV[2 * i - 1]
  if (have and '1' .. have or '0') ~= ARGV[2 * i - 2] then bad[#bad + 1] = i - 2
  elseif new == '0' then redis.call('DEL', KEYS[i])
  elseif ARGV[1] == '' then redis.call('SET', KEYS[i], string.sub(new, 2))
  else redis.call('SET', KEYS[i], string.sub(new, 2), 'PX', ARGV[1]) end
end
return bad
"""

SET_BACK = b"""
-- KEYS: a position. ARGV: what it is; the offset it becomes. Replies OK, or FENCE where it has moved.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'FENCE' end
redis.call('SET', KEYS[1], ARGV[2])
return 'OK'
"""

FILL_ROWS = b"""
-- KEYS: the backfill's lock, rows. ARGV: token; lease in ms; expiry in ms or ''; the rows' values.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'FENCE' end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
for i = 2, #KEYS do
  if ARGV[3] == '' then redis.call('SET', KEYS[i], ARGV[i + 2])
  else redis.call('SET', KEYS[i], ARGV[i + 2], 'PX', ARGV[3]) end
end
return 'OK'
"""

PLACE = b"""
-- KEYS: the backfill's lock, the fill's record, counters, positions. ARGV: token; record; null_keys; derived_nulls;
-- scaled_nulls; offsets. Opens the fill to workers.
if redis.call('GET', KEYS[1]) ~= ARGV[1] or redis.call('EXISTS', KEYS[2]) == 0 then return 'FENCE' end
redis.call('SET', KEYS[2], ARGV[2])
for i, name in ipairs({'null_keys', 'derived_nulls', 'scaled_nulls'}) do
  if ARGV[i + 2] ~= '0' then redis.call('HSET', KEYS[3], name, ARGV[i + 2]) end
end
for i = 4, #KEYS do redis.call('SET', KEYS[i], ARGV[i + 2]) end
redis.call('DEL', KEYS[1])
return 'OK'
"""

RELEASE = b"""
-- KEYS: a lock. ARGV: token. Lets go of the lock where it is still this token's.
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 'OK'
"""

PUBLISH = b"""
-- KEYS: plan id, plan, then keys to set. ARGV: expected plan id or ''; new id; new plan; n; n values;
-- then pairs of (new position key, old position key) that must not be behind, as further KEYS.
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 'CONFLICT' end
local n = tonumber(ARGV[4])
for i = n + 3, #KEYS, 2 do
  local new, old = redis.call('GET', KEYS[i]), redis.call('GET', KEYS[i + 1])
  if not new then return 'BEHIND' end
  if old and tonumber(string.match(new, '^%d+')) < tonumber(string.match(old, '^%d+')) then return 'BEHIND' end
end
for i = 1, n do redis.call('SET', KEYS[i + 2], ARGV[i + 4]) end
redis.call('SET', KEYS[2], ARGV[3])
redis.call('SET', KEYS[1], ARGV[2])
return 'OK'
"""


class Script:
    """A Lua script by its digest; loads itself where the server does not know it."""

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.sha = hashlib.sha1(text, usedforsecurity=False).hexdigest().encode()

    def run(self, connection: Connection, keys: Sequence[bytes], args: Sequence[bytes | str | int]) -> object:
        """Run it once and return its reply."""
        try:
            return connection.command("EVALSHA", self.sha, len(keys), *keys, *args)
        except CommandError as error:
            if not str(error).startswith("NOSCRIPT"):
                raise
        return connection.command("EVAL", self.text, len(keys), *keys, *args)

    def load(self, connection: Connection) -> None:
        """Make the server know it; to be done before its digest is used on a connection."""
        connection.command("SCRIPT", "LOAD", self.text)


begin, publish = Script(BEGIN), Script(PUBLISH)
fill_rows, place, release = Script(FILL_ROWS), Script(PLACE), Script(RELEASE)
hold, end_hold, replace, set_back = Script(HOLD), Script(END_HOLD), Script(REPLACE), Script(SET_BACK)
