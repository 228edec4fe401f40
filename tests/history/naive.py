"""The window law as a slow loop over all events: what tests compare every path with.

It keeps no tiles, uses no numpy, and shares no code with the product, so that the two cannot
share a bug. `where` and `derive` are given as Python functions of an event, for the same reason.

An event is a dict of its columns with `_partition` and `_offset`; times are int microseconds,
a null is None. A specification is a dict::

    {"keys": ["customer_id"], "event_time": "ts",
     "where": lambda e: ..., "derive": {"amount": lambda e: ...},          # both optional
     "features": [{"name": "amount_sum_1h", "function": "sum", "column": "amount",
                   "window": 3_600_000_000, "hop": 300_000_000,            # None, None: the lifetime window
                   "scale": 6, "where": lambda e: ...}]}                   # scale, where: optional

`known_by` in a question restricts it to events whose `_arrived_at` is not later.
"""

import hashlib
import math
from collections import Counter
from fractions import Fraction


def naive_answers(events, spec, questions):
    """One dict a question, (key values, at) or (key values, at, known_by): feature name -> value.

    An integer sum is given exactly, however large it is: what the product makes an error of a read.
    """
    prepared = [_prepare(event, spec) for event in events]
    return [{f["name"]: _answer(prepared, spec, f, *question) for f in spec["features"]} for question in questions]


def spec_of(view, event_time, where=None, derive=None, feature_where=None):
    """The specification of a plan's StreamView; conditions and derived columns are given as functions."""
    features = [
        {
            "name": f.name, "function": f.function, "column": f.column, "window": f.window, "hop": f.hop,
            "scale": f.scale, "n": f.n, "limit": f.limit, "q": f.q, "where": (feature_where or {}).get(f.name),
        }
        for f in view.features
    ]  # fmt: skip
    return {
        "keys": [k.name for k in view.keys], "event_time": event_time, "where": where,
        "derive": derive or {}, "features": features,
    }  # fmt: skip


def _prepare(event, spec):
    event = {name: _tidy(value) for name, value in event.items()}
    for name, derive in (spec.get("derive") or {}).items():
        event[name] = _tidy(derive(event))
    return event


def _tidy(value):
    if not isinstance(value, float):
        return value
    return value + 0.0 if math.isfinite(value) else None


def _answer(events, spec, feature, key, at, known_by=None):
    start = None if feature["window"] is None else (at - feature["window"]) // feature["hop"] * feature["hop"]
    inside = []
    for event in events:
        time = event[spec["event_time"]]
        names = tuple(event[k] for k in spec["keys"])
        if None in names or names != tuple(key) or time is None or time >= at:
            continue
        if start is not None and time < start:
            continue
        if known_by is not None and event["_arrived_at"] > known_by:
            continue
        if all(where is None or where(event) is True for where in (spec.get("where"), feature.get("where"))):
            inside.append((time, event["_partition"], event["_offset"], event.get(feature["column"])))
    return _aggregate(inside, feature)


def _aggregate(inside, feature):
    function = feature["function"]
    scale = 6 if feature.get("scale") is None else feature["scale"]
    if function == "count":
        return len(inside)
    values = [v for _, _, _, v in sorted(inside, key=lambda e: e[:3]) if v is not None]
    if function == "latest":
        return max(inside, key=lambda e: e[:3])[3] if inside else None
    if function == "approx_distinct":
        return _approx_distinct({h for h in map(_hash, values) if h is not None})
    if function == "distinct":
        return min(len(set(values)), feature["limit"])
    if function == "top_k":
        return _top_k(values, feature["n"], feature["limit"])
    if function == "last_n":
        return list(reversed(values))[: feature["n"]]
    unit = 10**scale if any(isinstance(v, float) for v in values) else 1
    if function in ("sum", "mean", "var", "stddev", "approx_quantile"):
        values = [i for i in (_scaled(v, scale) for v in values) if i is not None]
    if not values:
        return None
    if function == "sum":
        return sum(values) if unit == 1 else float(Fraction(sum(values), unit))
    if function == "mean":
        return float(Fraction(sum(values), unit * len(values)))
    if function == "approx_quantile":
        return _quantile(values, unit, feature["q"])
    if function in ("var", "stddev"):
        return _var(values, unit, function == "stddev")
    return {"min": min, "max": max, "first": lambda v: v[0], "last": lambda v: v[-1]}[function](values)


def _top_k(values, n, limit):
    counts = Counter(values)
    if len(counts) > limit:
        return None
    return [[v, counts[v]] for v in sorted(sorted(counts), key=counts.get, reverse=True)[:n]]


def _var(values, unit, root):
    """By the mean of squared distances from the mean, in fractions: another formula than the product's."""
    if len(values) < 2:
        return None
    mean = Fraction(sum(values), len(values))
    var = float(sum((v - mean) ** 2 for v in values) / (len(values) - 1) / unit**2)
    return math.sqrt(var) if root else var


def _quantile(values, unit, q):
    """The middle of all integers that share their sign, length and first seven binary digits with the one of the rank."""
    rank = next(r for r in range(1, len(values) + 1) if r >= Fraction(repr(q)) * len(values))
    value = sorted(values)[rank - 1]
    digits = f"{abs(value):b}"
    rest = len(digits[7:])
    least, most = int(digits[:7] + "0" * rest, 2), int(digits[:7] + "1" * rest, 2)
    return float(Fraction(least + most, 2) * (1 if value >= 0 else -1) / unit)


def _scaled(value, scale):
    if not isinstance(value, float):
        return value
    x = value * 10.0**scale + 0.5
    return math.floor(x) if -(2.0**63) <= x < 2.0**63 else None


def _hash(value):
    value = _scaled(value, 6)  # None where it does not fit: then its text is None, one value for all of them
    if isinstance(value, bool):
        value = "true" if value else "false"
    data = value if isinstance(value, bytes) else str(value).encode()
    return int(hashlib.md5(data).hexdigest()[:16], 16)


def _approx_distinct(hashes):
    """Exact to 256; above, Ertl's estimator (arXiv:1702.01284, algorithm 6) over 2,048 registers."""
    if len(hashes) <= 256:
        return len(hashes)
    registers = [0] * 2048
    for h in hashes:
        bits = f"{h:064b}"
        rank = (bits[11:] + "1").index("1") + 1
        registers[int(bits[:11], 2)] = max(registers[int(bits[:11], 2)], rank)
    counts = [registers.count(k) for k in range(55)]
    z = 2048 * _tau(1 - counts[54] / 2048)
    for k in range(53, 0, -1):
        z = 0.5 * (z + counts[k])
    z += 2048 * _sigma(counts[0] / 2048)
    return round(0.5 / math.log(2) * 2048 * 2048 / z)


def _sigma(x):
    total, power, weight = x, x, 1.0
    while True:
        power *= power
        if total + power * weight == total:
            return total
        total, weight = total + power * weight, weight * 2


def _tau(x):
    if x in (0.0, 1.0):
        return 0.0
    weight, total = 1.0, 1 - x
    while True:
        x, weight = math.sqrt(x), weight * 0.5
        change = (1 - x) ** 2 * weight
        if total - change == total:
            return total / 3
        total -= change
