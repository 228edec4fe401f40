"""The compiled reader of JSON events against the one in Python: the same columns and the same failures, to the bit."""

import json
import random
import shutil
import struct

import numpy as np
import pytest

from headwater.events.decode import Decoder
from headwater.events.json_columns import JsonColumns
from headwater.events.payloads import Payloads
from headwater.native import library
from headwater.plans.plan import Field, Source

FIELDS = (
    Field("at", "timestamp"), Field("n", "int64"), Field("x", "float64"), Field("name", "string"),
    Field("ok", "bool"), Field("größe", "string"),
    Field("vector", "list[float64]", 3), Field("xs", "list[float64]"), Field("ns", "list[int64]"),
    Field("names", "list[string]"), Field("oks", "list[bool]"), Field("times", "list[timestamp]"),
)  # fmt: skip
SOURCE = Source("s", "t", "at", None, 1, FIELDS)

COMPILERS = [name for name in ("cc", "gcc", "clang") if shutil.which(name)]

pytestmark = pytest.mark.skipif(
    library() is None and not COMPILERS, reason="the compiled library was not built: there is no C compiler"
)


def test_the_library_is_there_where_a_compiler_is():
    assert library() is not None, "headwater/native/_headwater.so is missing or old; python hatch_build.py makes it"


def both(values, columns=None):
    """What the compiled way and Python alone make of values."""
    mixed, python = Decoder(SOURCE, columns), Decoder(SOURCE, columns)
    assert mixed._native is not None
    python._native = None
    return mixed.decode(values), python.decode(values)


def assert_same(values, columns=None):
    ours, theirs = both(values, columns)
    assert ours.failures == theirs.failures
    assert ours.index.tolist() == theirs.index.tolist()
    assert set(ours.columns) <= set(theirs.columns)
    for name, column in ours.columns.items():
        other = theirs.columns[name]
        assert column.mask().tolist() == other.mask().tolist(), name
        if column.dtype == "float64":
            assert column.values.view(np.int64).tolist() == other.values.view(np.int64).tolist()
        else:
            assert column.values.tolist() == other.values.tolist(), name
            assert [type(v) for v in column.values.tolist()] == [type(v) for v in other.values.tolist()]
            # Of lists repr tells types, -0.0 and every bit of a double.
            assert repr(column.values.tolist()) == repr(other.values.tolist())


LISTS = [f.name for f in FIELDS if f.dtype.startswith("list")]
TEXTS = [
    "", "a", "plain text of some length", "caf\u00e9", "\U0001f600 emoji", 'quote " and \\ back', "line\nend",
    "\u0000", "\x1f",
    "\u2028", "null", "\x7f", "\ud83d\ude00", "01234567", "12345678",
]  # fmt: skip
NUMBERS = [
    "0", "-0", "-0.0", "0.1", "1.0", "1e3", "1E+3", "1e400", "-1e400", "1e-400", "5e-324",
    "1.7976931348623157e308", "9007199254740993",
    "9007199254740992", "123456789012345678", "1234567890123456789", "9223372036854775807", "9223372036854775808",
    "-9223372036854775808",
    "-9223372036854775809", "0.30000000000000004", "3.14159265358979323846", "00", "01", "1.", ".5", "+1", "-",
    "1e", "0x10", "1_000",
    "NaN", "Infinity", "-Infinity", "0.000001", "123456.789e-3", "18446744073709551616", "100000000000000000000000",
    "2.2250738585072011e-308", "179769313486231580793728971405301e276", "0e5", "-1", "-123456789012345678",
]  # fmt: skip
TIMES = [
    "2011-12-09T12:50:00Z", "2011-12-09T12:50:00", "2011-12-09 12:50:00.123", "2011-12-09t12:50:00.123456z",
    "2011-12-09T12:50:00.123456789Z", "2011-12-09T12:50:00.1234567891Z", "2011-12-09T12:50:00.1+05:30",
    "2011-12-09T12:50:00-23:59",
    "2011-12-09T12:50:00+24:00", "2011-02-29T00:00:00Z", "2012-02-29T00:00:00Z", "1900-02-29T00:00:00Z",
    "2000-02-29T00:00:00Z",
    "0001-01-01T00:00:00Z", "0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59.999999Z",
    "9999-12-31T23:59:59.999999-00:01",
    "0000-01-01T00:00:00Z", "2011-13-01T00:00:00Z", "2011-00-01T00:00:00Z", "2011-01-32T00:00:00Z",
    "2011-01-00T00:00:00Z",
    "2011-01-01T24:00:00Z", "2011-01-01T23:60:00Z", "2011-01-01T23:59:60Z", "2011-01-01", "2011-01-01T00:00:00.Z",
    "2011-01-01T00:00Z",
    "2011-01-01T00:00:00 Z", "\u0662011-01-01T00:00:00Z", "1969-12-31T23:59:59.999999Z", "2011-01-01T00:00:00+0000", "",
]  # fmt: skip


@pytest.mark.parametrize("number", NUMBERS)
def test_numbers(number):
    assert_same([f'{{"at":0,"{name}":{number}}}'.encode() for name in ("n", "x", "name", "ok", "at", "other")])
    for name in LISTS:
        assert_same([f'{{"at":0,"{name}":[{i}]}}'.encode() for i in (number, f"{number},1,2", f"0, 1 ,{number} ")])


@pytest.mark.parametrize("time", TIMES)
def test_timestamps(time):
    assert_same([json.dumps({"at": time, "n": 1}, ensure_ascii=ascii_).encode() for ascii_ in (True, False)])
    assert_same([json.dumps({"at": 1, "times": [time, 7, time]}).encode(), b'{"at":1,"times":[0,-1]}'])


def test_years_and_days():
    rng = random.Random(3)
    assert_same([f'{{"at":"{rng.randrange(0, 10000):04}-{rng.randrange(0, 14):02}-{rng.randrange(0, 33):02}T00:00:00Z"}}'.encode()
                 for _ in range(20_000)])  # fmt: skip


def test_texts():
    values = []
    for text in TEXTS:
        for ascii_ in (True, False):
            event = {
                "at": 1,
                "name": text,
                "größe": text + "x",
                "other": [text, {text: None}],
                "names": [text, text, "é"],
            }
            values.append(json.dumps(event, ensure_ascii=ascii_).encode("utf-8", "surrogatepass"))
    assert_same(values)
    for value in values:
        assert_same([value])


@pytest.mark.parametrize(
    "value",
    [
        None, b"", b" ", b"{}", b"[]", b"null", b'"x"', b"{", b"}", b'{"at"}', b'{"at":}', b'{"at":1,}',
        b'{,"at":1}', b'{"at":1}}',
        b'{"at":1} x', b' \t\r\n{ "at" : 1 , "n" : 2 } \n', b'{"at":1,"n":1,"n":2}', b'{"at":1,"n":null,"n":2}',
        b'{"at":1,"\\u006e":5}',
        b'\xef\xbb\xbf{"at":1}', b'{"at":1,"name":"\xff"}', b'{"at":1,"name":"\xc0\x80"}',
        b'{"at":1,"name":"\xed\xa0\x80"}',
        b'{"at":1,"name":"\xf4\x90\x80\x80"}', b'{"at":1,"name":"\xe2\x82"}', b'{"at":1,"other":"\xff"}',
        b'{"at":1,"name":"\\ud800"}',
        b'{"at":1,"name":"\\udc00\\ud800"}', b'{"at":1,"name":"\\x41"}', b'{"at":1,"name":"\\u12g4"}',
        b'{"at":1,"name":"tab\tin"}',
        b'{"at":1,"ok":tru}', b'{"at":1,"ok":truex}', b'{"at":1,"ok":nul}', b'{"at":1,"other":[1,2,]}',
        b'{"at":1,"other":{"a":1,}}',
        b'{"at":1,"other":[01]}', b'{"at":1,"other":' + b"[" * 70 + b"]" * 70 + b"}",
        b'{"at":1,"other":' + b"[" * 120 + b"]" * 120 + b"}",
        b'{"at":1,"n":{}}', b'{"at":1,"n":[1]}', b'{"at":1,"name":{"a":1}}', b'{"at":1,"x":"1"}',
        b'{"at":1,"name":1}', b'{"at":1,"ok":1}',
        b'{"at":true}', b'{"n":1}', b'{"at":null}', b'{"at":-99999999999999999}', b'{"at":253402300800000000}',
        b'{"at":1.5}', b'{"at":1.0}',
        b'{"at":1,"":2}', b'{"at":1,"other":"\\u006e \\n"}', b'{"at":1,"x":1e5,"n":12345678901234567890123}',
        b'{"AT":1}', b"\x00", b'{"at":1}\x00',
        *(b'{"at":1,"ns":' + text + b"}" for text in (
            b"[", b"]", b"[]", b"[ ]", b"[,]", b"[1,]", b"[,1]", b"[1 2]", b"[1", b"[1,", b"[null]", b"[1,null]", b"[[1]]",
            b"[{}]", b"null", b"nul", b"1", b'"1"', b"{}", b"[NaN]", b"[1],\"ns\":[2]", b"[true]", b'["1"]', b"[1.5]",
        )),
        b'{"at":1,"vector":[1,2]}', b'{"at":1,"vector":[1,2,3,4]}', b'{"at":1,"vector":[]}', b'{"at":1,"xs":[1e999]}',
        b'{"at":1,"names":["a","\\ud800"]}', b'{"at":1,"names":["a',  b'{"at":1,"names":["\\u00e9","a\\n"],"name":"\\u00e9"}',
        b'{"at":1,"oks":[true,false,tru]}', b'{"at":1,"times":["2011-12-09T12:50:00Z",1.5]}', b'{"at":1,"n":[1],"ns":1}',
        b'{"at":1,"x":NaN,"name":"NaN"}', b'{"at":1,"x":Infinity}', b'{"at":1,"name":"' + b"x" * 5000 + b'"}',
    ],
)  # fmt: skip
def test_odd_events(value):
    good = b'{"at":1,"n":2,"x":1.5,"name":"a","ok":true}'
    assert_same([value])
    assert_same([good, value, good, value])
    assert_same([value, good], columns={"n"})


def test_bytes_cut_and_changed():
    rng = random.Random(11)
    whole = json.dumps(
        {
            "at": "2011-12-09T12:50:00Z",
            "n": -12,
            "x": 3.25,
            "name": 'a "b" \u00e9',
            "ok": None,
            "more": [1, {"a": "b"}],
            "vector": [1, -2.5, 1e9],
            "names": ["a", "\n"],
            "ns": [1],
        },
        ensure_ascii=False,
    ).encode()
    values = [whole[:i] for i in range(len(whole))]
    for _ in range(20_000):
        changed = bytearray(whole)
        for _ in range(rng.choice([1, 1, 1, 2, 3])):
            at = rng.randrange(len(changed))
            what = rng.randrange(3)
            if what == 0:
                changed[at] = rng.choice(b'{}[]",:\\0123456789eE+-.ntf\x00\x1f \xc3\xa9\xff')
            elif what == 1:
                del changed[at]
            else:
                changed[at:at] = bytes([rng.choice(b'{}[]",:\\019e+-. \xc3\xff')])
        values.append(bytes(changed))
    assert_same(values)


def test_doubles():
    rng = random.Random(5)
    texts = []
    for _ in range(20_000):
        (x,) = struct.unpack("<d", rng.randbytes(8))
        if x - x == 0:
            texts += [repr(x), f"{x:.17g}", f"{x:e}"]
        digits = str(rng.randrange(10 ** rng.randrange(1, 25)))
        point = rng.randrange(0, len(digits))
        texts.append(f"{digits[:point].lstrip('0') or '0'}.{digits[point:]}")
    assert_same([f'{{"at":1,"x":{t}}}'.encode() for t in texts])


def test_lists_of_many_columns_lie_in_between_each_other():
    """Events with some lists and without others, empty ones, odd ones among them, in any order of the columns."""
    rng = random.Random(7)
    elements = {
        "vector": lambda: rng.choice([0.1, 1, -0.0, 5e-324, 2**53 + 1]), "xs": lambda: rng.uniform(-1e9, 1e9),
        "ns": lambda: rng.choice([0, -1, 10**17, 2**63 - 1 if rng.random() < 0.02 else 5]),
        "names": lambda: rng.choice(TEXTS), "oks": lambda: rng.random() < 0.5,
        "times": lambda: rng.choice(["2011-12-09T12:50:00Z", 1_000, "1969-12-31T23:59:59.5+01:00"]),
    }  # fmt: skip
    values = []
    for _ in range(5_000):
        event = {"at": 1, "n": len(values), "name": rng.choice(TEXTS)}
        for name in rng.sample(LISTS, rng.randrange(len(LISTS) + 1)):
            size = 3 if name == "vector" and rng.random() < 0.95 else rng.choice([0, 1, 2, 30])
            event[name] = None if rng.random() < 0.1 else [elements[name]() for _ in range(size)]
        values.append(json.dumps(event, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass"))
    assert_same(values)
    for wanted in ({"n"}, {"xs"}, {"names", "oks"}, {"ns", "vector", "times"}):
        assert_same(values, wanted)


def test_doubles_of_lists():
    rng = random.Random(6)
    rows = [[struct.unpack("<d", rng.randbytes(8))[0] for _ in range(8)] for _ in range(3_000)]
    assert_same([f'{{"at":1,"xs":{[x for x in row if x - x == 0]}}}'.encode() for row in rows])


def test_what_is_not_wanted_is_checked_all_the_same():
    values = [
        b'{"at":1,"name":"a","n":1}',
        b'{"at":1,"name":5,"n":2}',
        b'{"at":1,"name":"\\q"}',
        b'{"at":1,"n":99999999999999999999}',
    ]
    ours, _ = both(values, {"x"})
    assert set(ours.columns) == {"at", "x"}
    assert sorted(ours.failures) == [1, 2, 3]
    assert_same(values, {"x"})


def test_plain_events_are_read_by_the_compiled_reader():
    reader = JsonColumns.of(FIELDS, {f.name for f in FIELDS})
    assert reader is not None
    texts = ["plain", "caf\u00e9", 'a "quote"', "line\nend"]
    lists = {
        "vector": [0.1, 2, -3e-9],
        "ns": [1, 2],
        "names": texts,
        "oks": [True],
        "times": ["2011-12-09T12:50:00Z"],
        "xs": [],
    }
    events = [
        {"at": "2011-12-09T12:50:00+01:00", "n": 3, "x": 0.1, "name": t, "ok": True, "new": [1, {}], **lists}
        for t in texts
    ]
    _, odd = reader.read(Payloads.of([json.dumps(e, ensure_ascii=a).encode() for e in events for a in (True, False)]))
    assert odd.tolist() == []


def test_payloads_are_a_sequence():
    payloads = Payloads.concat([[b"a", None, b""], Payloads.of([b"bc"]), []])
    assert list(payloads) == [b"a", None, b"", b"bc"]
    assert payloads[-1] == b"bc"
    assert payloads[1:] == [None, b"", b"bc"]
    assert payloads.select(np.array([3, 1])) == [b"bc", None]
    with pytest.raises(IndexError):
        payloads[4]
