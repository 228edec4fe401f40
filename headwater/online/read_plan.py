"""A request for features, resolved: which rows to ask for, how to ask, and how to make the answer of the replies.

Apart from reads.py because nothing here talks to a server: a ReadPlan is made once for a list of features,
cached, and used for every request for them, by the blocking client and the asyncio server alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headwater.dtypes import Dtype
from headwater.errors import ReadError, Unavailable, UnknownName, UsageError, nearest
from headwater.online.entities import join_key_column, key_texts
from headwater.online.feature_rows import FeatureColumn, FeatureRows, Shape
from headwater.online.keys import fill_key, plan_id_key, row_prefix
from headwater.online.published import PublishedPlan
from headwater.plans.plan import BatchView, View
from headwater.receipts.receipt import Receipt
from headwater.rows.codec import read_header
from headwater.rows.plain import PlainReader
from headwater.rows.reader import RowsRead, ViewReader

Entities = Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Any]]
Texts = list[bytes | None]

_CHUNK = 2_000
"""Keys an MGET at most, so that a large read does not hold up Redis for everybody else."""
_HEADS = 40


@dataclass(frozen=True, slots=True)
class ViewPart:
    """What is read of one view: the fill's rows and the features asked for."""

    view: View
    fill: str
    names: tuple[str, ...]
    heads: tuple[bytes, ...]
    read: Callable[[Sequence[bytes | None], int | Sequence[int]], RowsRead]

    @classmethod
    def of(cls, project: str, view: View, fill: str, names: Sequence[str]) -> ViewPart:
        """The part of an active fill's definition."""
        prefix = row_prefix(project, view.name, view.state_hash, fill)
        heads = tuple(b"\r\n$%d\r\n%b" % (len(prefix) + i, prefix) for i in range(_HEADS))
        return cls(view, fill, tuple(names), heads, _reading(view, names))

    def arguments(self, texts: Texts) -> list[bytes]:
        """The rows' keys as arguments of a Redis command; rows without a key (null join keys) are left out."""
        heads = self.heads
        if None not in texts and len(max(texts, key=len, default=b"")) < _HEADS:  # type: ignore[arg-type]
            return [heads[len(text)] + text for text in texts]  # type: ignore[arg-type, operator]
        prefix = heads[0].split(b"\r\n", 2)[2]
        return [b"\r\n$%d\r\n%b%b" % (len(prefix) + len(t), prefix, t) for t in texts if t is not None]


@dataclass(frozen=True, slots=True)
class Prepared:
    """One request: its checked entities, each part's key texts, and the bytes to send for `count` replies."""

    entities: dict[str, list[Any]]
    texts: list[Texts]
    raw: bytes
    count: int


class ReadPlan:
    """Reads the given features of one published plan.

    Args:
        wanted: (view, feature) pairs in the order of the answer.

    Raises:
        UnknownName: a view or feature that is not there.
        Unavailable: a view without a complete fill.
    """

    def __init__(self, published: PublishedPlan, wanted: Sequence[tuple[str, str]]) -> None:
        self.id = published.id.encode()
        self._wanted = list(wanted)
        names: dict[str, list[str]] = {}
        for view, feature in wanted:
            names.setdefault(view, []).append(feature)
        project = published.plan.project
        active = [(published.active[view], features) for view, features in names.items()]
        self.parts = [ViewPart.of(project, a.definition, a.fill, features) for a, features in active]
        self.join_keys: dict[str, Dtype] = {k.name: k.dtype for part in self.parts for k in part.view.keys}
        self._other_keys: dict[str, Dtype] = {k.name: k.dtype for v in published.plan.views for k in v.keys}
        dtypes = {(p.view.name, f.name): f.dtype for p in self.parts for f in p.view.outputs()}
        self.shape = Shape([FeatureColumn(v, f, dtypes[v, f]) for v, f in wanted], self._other_keys)
        guards = [plan_id_key(project), *(fill_key(project, p.view.name, p.fill) for p in self.parts)]
        self._guards = b"".join([b"\r\n$%d\r\n%b" % (len(key), key) for key in guards])
        self._first = len(guards)

    def prepare(self, entities: Entities) -> Prepared:
        """Check the entities and encode the request.

        Raises:
            UsageError: a join key is missing, unknown or of another type, or columns differ in length.
        """
        given = _columns(entities)
        checked = self._checked(given)
        texts: list[Texts] = []
        for part in self.parts:
            texts.append(key_texts([checked[key.name] for key in part.view.keys]))
        arguments = [a for part, t in zip(self.parts, texts, strict=True) for a in part.arguments(t)]
        chunks = [arguments[i : i + _CHUNK] for i in range(0, len(arguments), _CHUNK)] or [[]]
        raw = b"".join(
            [b"*%d\r\n$4\r\nMGET%b%b\r\n" % (len(c) + 1 + self._first, self._guards, b"".join(c)) for c in chunks]
        )
        return Prepared(checked, texts, raw, len(chunks))

    def is_current(self, replies: Sequence[Any]) -> bool:
        """Whether the rows were read under the plan that this was made of, and its fills' records are all there."""
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return all(reply[0] == self.id and None not in reply[: self._first] for reply in replies)

    def answer(
        self, prepared: Prepared, replies: Sequence[Any], as_of: int | Sequence[int], receipts: bool = False
    ) -> FeatureRows:
        """The features of the replies at `as_of` (microseconds, one for all rows or one a row).

        Raises:
            ReadError: a damaged row, or a value past its type.
        """
        found = iter([row for reply in replies for row in reply[self._first :]])
        statuses, times, newest, proofs = {}, {}, {}, {}
        values: dict[str, dict[str, list[Any]]] = {}
        for part, texts in zip(self.parts, prepared.texts, strict=True):
            name = part.view.name
            rows = [None if text is None else next(found) for text in texts]
            read = part.read(rows, as_of)
            values[name], statuses[name] = read.values, read.status
            times[name], newest[name] = read.effective, read.newest
            if receipts:
                proofs[name] = list(_receipts(part, prepared.entities, texts, rows, read))
        columns = [values[view][feature] for view, feature in self._wanted]
        return FeatureRows(self.shape, prepared.entities, columns, statuses, times, newest, proofs)

    def _checked(self, given: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        for name in given:
            if name not in self._other_keys:
                raise UsageError(f"No join key '{name}'. {nearest(name, self.join_keys)}")
        for part in self.parts:
            for key in part.view.keys:
                if key.name not in given:
                    raise UsageError(
                        f"Feature view '{part.view.name}' is keyed by "
                        f"{', '.join(k.name for k in part.view.keys)}; the entities lack '{key.name}'."
                    )
        checked = {name: join_key_column(name, self._other_keys[name], values) for name, values in given.items()}
        if len({len(values) for values in checked.values()}) > 1:
            lengths = ", ".join(f"{name}: {len(values)}" for name, values in checked.items())
            raise UsageError(f"Entities: expected as many values of each join key, got {lengths}.")
        return checked


def resolve(published: PublishedPlan, features: Sequence[str], service: str | None) -> ReadPlan:
    """The ReadPlan of "VIEW:FEATURE" and "VIEW" (all its features) names, or of a feature service.

    Raises:
        UsageError: neither or both are given, or a name that is of neither form.
        UnknownName: a view, feature or service that the plan does not have.
        Unavailable: a view, or a feature that was added to it, is not filled yet.
    """
    if bool(features) == bool(service):
        raise UsageError("Ask for features (VIEW:FEATURE or VIEW) or for a feature service: for one of the two.")
    plan = published.plan
    if service:
        known = {s.name: s for s in plan.services}
        if service not in known:
            raise UnknownName(f"No feature service '{service}'. {nearest(service, known)}")
        wanted = [(view, name) for view, names in known[service].features for name in names]
    else:
        wanted = [pair for text in features for pair in _named(published, text)]
    for view, name in wanted:
        _check(published, view, name)
    return ReadPlan(published, list(dict.fromkeys(wanted)))


def _named(published: PublishedPlan, text: str) -> list[tuple[str, str]]:
    if not isinstance(text, str) or text.count(":") > 1:
        raise UsageError(f"Feature {text!r}: expected VIEW:FEATURE or VIEW.")
    view, _, name = text.partition(":")
    if name:
        return [(view, name)]
    _check(published, view, None)
    return [(view, field.name) for field in published.active[view].definition.outputs()]


def _check(published: PublishedPlan, view: str, feature: str | None) -> None:
    views = {v.name: v for v in published.plan.views}
    if view not in views:
        raise UnknownName(f"No feature view '{view}'. {nearest(view, views)}")
    how = "materialize" if isinstance(views[view], BatchView) else "backfill"
    active = published.active.get(view)
    if active is None:
        raise Unavailable(
            f"Feature view '{view}' is unavailable: none of its fills is complete yet. Run: headwater {how} {view}"
        )
    filled = {f.name for f in active.definition.outputs()}
    if feature is None or feature in filled:
        return
    if feature in {f.name for f in views[view].outputs()}:
        raise Unavailable(
            f"Feature '{view}:{feature}' is unavailable: its view was changed and the new fill is not complete yet. "
            f"Run: headwater {how} {view}"
        )
    raise UnknownName(f"Feature view '{view}' has no feature '{feature}'. {nearest(feature, filled)}")


def _reading(view: View, names: Sequence[str]) -> Callable[[Sequence[bytes | None], int | Sequence[int]], RowsRead]:
    if isinstance(view, BatchView):
        return PlainReader(view, names).read
    return ViewReader(view, names).read


def _columns(entities: Entities) -> Mapping[str, Sequence[Any]]:
    if isinstance(entities, Mapping):
        for name, values in entities.items():
            if isinstance(values, str | bytes) or not hasattr(values, "__len__"):
                raise UsageError(f"Join key '{name}': expected a list of values, got {values!r}.")
        return entities
    rows = list(entities)
    if not all(isinstance(row, Mapping) for row in rows):
        raise UsageError("Entities: expected {JOIN_KEY: [values]} or a list of {JOIN_KEY: value}.")
    names = list(dict.fromkeys(name for row in rows for name in row))
    for i, row in enumerate(rows):
        if len(row) != len(names):
            lacking = ", ".join(name for name in names if name not in row)
            raise UsageError(f"Entities: row {i} lacks {lacking}, which other rows have.")
    return {name: [row[name] for row in rows] for name in names}


def _receipts(
    part: ViewPart, entities: dict[str, list[Any]], texts: Texts, rows: Sequence[bytes | None], read: RowsRead
) -> Iterator[Receipt]:
    view = part.view
    for i, (text, row) in enumerate(zip(texts, rows, strict=True)):
        offsets: dict[int, tuple[int, int]] = {}
        digest = None
        if row is not None:
            header = read_header(row)
            if header.state_hash != view.state_hash:
                raise ReadError(f"Feature view '{view.name}': a row of another definition, {header.state_hash}.")
            offsets = {partition: (born, applied) for partition, born, applied in header.partitions}
            digest = f"{header.digest:016x}"
        yield Receipt(
            view=view.name,
            entity={key.name: entities[key.name][i] for key in view.keys},
            key=None if text is None else text.decode("utf-8", "backslashreplace"),
            effective_time=read.effective[i],
            state_hash=view.state_hash,
            fill=part.fill,
            offsets=offsets,
            digest=digest,
        )
