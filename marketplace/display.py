"""How facts are worded on a page: durations, times, badges. Pure; what a page says is tested here."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from headwater.durations import format_duration
from headwater.expressions.readable import readable
from headwater.plans.plan import Expectation, Feature, Source, StreamView, View
from headwater.receipts.results import ViewCheck
from marketplace.facts import Freshness, Unknown


@dataclass(frozen=True)
class Badge:
    """A short label. `tone` is "good", "bad", "warn" or "quiet"; `title` says more."""

    text: str
    tone: str
    title: str = ""


def check_badge(check: ViewCheck | Unknown) -> Badge:
    """The last check in a few words: equal only where something was compared and all of it was equal."""
    if isinstance(check, Unknown):
        quiet = "not checked" if check.reason.startswith("no check") else "unknown"
        return Badge(quiet, "quiet", check.reason)
    asked, equal = check.drawn + check.compared, check.drawn_equal + check.compared_equal
    rows = f"{check.compared_equal:,} of {check.compared:,} equal"
    receipts = f"{check.drawn_equal:,} of {check.drawn:,} receipts equal"
    title = (
        f"receipts {check.drawn_equal:,} of {check.drawn:,} equal, "
        f"recomputed {check.compared_equal:,} of {check.compared:,} equal"
    )
    if check.defects:
        return Badge(counted(check.defects, "defect"), "bad", title)
    if not asked:
        return Badge("nothing compared", "quiet", title)
    if equal < asked or check.differences:
        return Badge(f"{asked - equal:,} differ, explained", "warn", title)
    return Badge(rows if check.compared else receipts, "good", title)


def freshness_badge(view: View, freshness: Freshness | Unknown) -> Badge:
    """The measured freshness, judged by the view's target where it has one."""
    if isinstance(freshness, Unknown):
        return Badge("unknown", "quiet", freshness.reason)
    text = milliseconds(freshness.ms)
    if view.freshness is None:
        return Badge(text, "quiet", "no target was set")
    within = freshness.ms * 1000 <= view.freshness
    target = format_duration(view.freshness)
    return Badge(text, "good" if within else "warn", f"{'within' if within else 'over'} the target of {target}")


def state_badge(state: str | Unknown) -> Badge:
    """Whether the view can be read online."""
    if isinstance(state, Unknown):
        return Badge("unknown", "quiet", state.reason)
    said = {
        "active": Badge("served online", "good", "readers use its rows"),
        "filling": Badge("filling", "warn", "its rows are being filled; readers do not see them yet"),
    }
    return said.get(state, Badge("not served yet", "quiet", "it has no complete rows; backfill or materialize it"))


def kind(view: View) -> str:
    """The view's kind as a word: "stream" or "batch"."""
    return "stream" if isinstance(view, StreamView) else "batch"


def feature_conditions(view: View) -> dict[str, str]:
    """Feature name -> its own `where` as text, for the features that have one."""
    if not isinstance(view, StreamView):
        return {}
    return {f.name: readable(f.where) for f in view.features if f.where is not None}


def parameters(feature: Feature) -> str:
    """What an operator was given beside its column and window: "n 3, limit 1,000"; "" where that is nothing."""
    given = [("n", feature.n), ("limit", feature.limit)]
    said = [f"{name} {value:,}" for name, value in given if value is not None]
    return ", ".join([*said, *([] if feature.q is None else [f"q {feature.q:g}"])])


def events_of(source: Source) -> str:
    """How a source's events come: "JSON", "Avro in Debezium's envelopes, updates are events"."""
    form = {"json": "JSON", "avro": "Avro", "protobuf": "Protobuf"}[source.format]
    if source.envelope is None:
        return form
    return f"{form} in Debezium's envelopes, updates are {'events' if source.updates == 'count' else 'ignored'}"


def milliseconds(value: float) -> str:
    """A length of time in the unit that reads best: "43 ms", "1.2 s", "12 min", "5.0 h", "3.1 days"."""
    value = max(value, 0.0)
    if value < 1000:
        return f"{value:.0f} ms"
    for unit, size, upto in (("s", 1e3, 120e3), ("min", 60e3, 7200e3), ("h", 3600e3, 172800e3)):
        if value < upto:
            return f"{value / size:.1f} {unit}" if value < 10 * size else f"{value / size:.0f} {unit}"
    return f"{value / 86400e3:,.1f} days"


def duration(micros: int | None, *, none: str) -> str:
    """A duration of a definition as people write it, `none` where there is none."""
    return none if micros is None else format_duration(micros)


def moment(micros: int) -> str:
    """A time as "2026-11-21 12:04:08 UTC"."""
    return f"{_utc(micros):%Y-%m-%d %H:%M:%S} UTC"


def iso(micros: int) -> str:
    """A time as RFC 3339 in UTC."""
    return _utc(micros).isoformat().replace("+00:00", "Z")


def counted(number: int, noun: str) -> str:
    """A number with its noun: "1 feature", "2,000 features"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def expectation(rule: Expectation) -> str:
    """An expectation as a sentence without its column: "between 0 and 100000, for at least 99% of the values"."""
    if rule.kind == "between":
        low, high = (None if x is None else f"{x:,}" for x in (rule.minimum, rule.maximum))
        said = f"between {low} and {high}" if low and high else f"at least {low}" if low else f"at most {high}"
    elif rule.kind == "in_set":
        said = "one of " + ", ".join(repr(v) for v in rule.values)
    else:
        said = {"not_null": "not null"}.get(rule.kind, rule.kind)
    return said if rule.mostly >= 1 else f"{said}, for at least {rule.mostly * 100:.6g}% of the values"


def _utc(micros: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)
