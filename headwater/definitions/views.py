"""StreamView and BatchView: Feast views with a shorter constructor and facts that Feast cannot say.

Constructors do not judge: a wrong definition becomes an object all the same, and
`plans/compile.py` names all that is wrong in a repository at once. Only what Feast itself
could not hold (no source at all) is refused here.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Self, TypeVar

from feast import Entity, FeatureView, Field, StreamFeatureView

from headwater.definitions.expectations import expectation_facts
from headwater.definitions.facts import FACTS, BatchFacts, StreamFacts, encode_facts, facts_of
from headwater.definitions.operators import operator_facts
from headwater.definitions.sources import SnapshotSource, StreamSource, feast_type, type_names
from headwater.dtypes import feast_name, vector_length
from headwater.durations import format_duration, parse_duration
from headwater.errors import DefinitionError
from headwater.plans import plan

# Feast calls stream views experimental each time one is made or read from a registry; they are not ours
# to warn about. Its own module sets "once" at import, so this has to come after.
warnings.filterwarnings("ignore", "Stream feature views are experimental", RuntimeWarning)


_View = TypeVar("_View", bound=FeatureView)


class StreamView(StreamFeatureView):  # type: ignore[misc]
    """Windowed aggregates of one stream source, or the newest values of its columns, by one or several entities.

    Args:
        name: the view's name.
        source: the StreamSource whose events are aggregated.
        entity, entities: what the view is keyed by; give one of the two.
        where: a condition in the expression subset; only events for which it is true count.
        derive: new columns, name -> expression; they may use each other in any order.
        features: operators: Count, Sum, Mean, Var, Stddev, Min, Max, First, Last, LastN, Latest,
            Distinct, TopK, ApproxDistinct, ApproxQuantile; or names of columns, which mean Latest.
        ttl: how long the newest event of a key is served ("30d" or a timedelta); None for ever. Only for a view
            whose features are all columns.
        freshness: how old values may get before somebody is told, such as "10s".
        expect: expectations on features; they report, and withhold nothing.

    Raises:
        DefinitionError: the source is no StreamSource.
    """

    def __init__(
        self,
        name: str,
        *,
        source: StreamSource,
        entity: Entity | None = None,
        entities: Sequence[Entity] | None = None,
        where: str | None = None,
        derive: Mapping[str, str] | None = None,
        features: Sequence[Any] = (),
        ttl: str | timedelta | None = None,
        freshness: str | None = None,
        expect: Sequence[Any] = (),
        description: str = "",
        owner: str = "",
        tags: Mapping[str, str] | None = None,
    ) -> None:
        if not isinstance(source, StreamSource):
            raise DefinitionError(f"Stream view '{name}', source: expected a StreamSource, got {source!r}.")
        keyed = _entities(entity, entities)
        facts = StreamFacts(
            entities=tuple(e.name for e in keyed),
            source=source.name,
            where=where,
            derive=dict(derive or {}),
            features=tuple(operator_facts(f) for f in features),
            freshness=freshness,
            expect=tuple(expectation_facts(e) for e in expect),
            ttl=_ttl_text(ttl),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            super().__init__(
                name=name,
                source=source,
                entities=keyed,
                schema=_stream_schema(name, facts, keyed, source),
                timestamp_field=source.timestamp_field,
                ttl=_timedelta(facts.ttl),
                mode="python",
                description=description,
                owner=owner,
                tags={**(tags or {}), FACTS: encode_facts(facts)},
            )
        # Feast sets it for Kafka, Kinesis and Push sources only, and `feast apply` asserts it.
        self.stream_source = source

    def __copy__(self) -> Self:
        return _copied(self)

    def __getitem__(self, item: list[str]) -> Self:
        return _chosen(self, item)

    def _schema_or_udf_changed(self, other: Any) -> bool:
        # Feast keeps the registered view where its schema is the same; our facts are part of the definition.
        return (
            super()._schema_or_udf_changed(other)
            or facts_of(self) != facts_of(other)
            or self.stream_source != other.stream_source
        )

    @classmethod
    def from_proto(cls, sfv_proto: Any, skip_udf: bool = False) -> Any:
        """A registry's view, which is Feast's own class; its facts are read by `facts_of`."""
        return StreamFeatureView.from_proto(sfv_proto, skip_udf)

    __hash__ = StreamFeatureView.__hash__


class BatchView(FeatureView):  # type: ignore[misc]
    """The result of a SQL query over lake tables, by one or several entities.

    Args:
        name: the view's name.
        sql: one SELECT in DuckDB's dialect. It sees each StreamSource as a table of that name (its
            columns and _partition, _offset, _broker_time, _arrived_at), and `:as_of`, the time of
            the snapshot. It returns one row a key: the join keys and the features.
        entity, entities: what the view is keyed by; give one of the two.
        schema: features and their Feast types; left out, the query's result decides.
        ttl: how long a snapshot's values hold ("30d" or a timedelta); None for ever.
        freshness: how old the newest snapshot may get before somebody is told.
        expect: expectations on features; they gate a batch before it is published.
    """

    def __init__(
        self,
        name: str,
        *,
        sql: str,
        entity: Entity | None = None,
        entities: Sequence[Entity] | None = None,
        schema: Mapping[str, Any] | Sequence[Any] | None = None,
        ttl: str | timedelta | None = None,
        freshness: str | None = None,
        expect: Sequence[Any] = (),
        description: str = "",
        owner: str = "",
        tags: Mapping[str, str] | None = None,
    ) -> None:
        named = None if schema is None else type_names(schema)
        keyed = _entities(entity, entities)
        facts = BatchFacts(
            entities=tuple(e.name for e in keyed),
            sql=sql,
            ttl=_ttl_text(ttl),
            schema=named,
            freshness=freshness,
            expect=tuple(expectation_facts(e) for e in expect),
        )
        super().__init__(
            name=name,
            source=SnapshotSource.of(name),
            entities=keyed,
            schema=[
                Field(name=n, dtype=feast_type(t), vector_length=vector_length(t) or 0)
                for n, t in (named or {}).items()
            ],
            ttl=_timedelta(facts.ttl),
            description=description,
            owner=owner,
            tags={**(tags or {}), FACTS: encode_facts(facts)},
        )

    def __copy__(self) -> Self:
        return _copied(self)

    def __getitem__(self, item: list[str]) -> Self:
        return _chosen(self, item)

    def _schema_or_udf_changed(self, other: Any) -> bool:
        return super()._schema_or_udf_changed(other) or facts_of(self) != facts_of(other)

    @classmethod
    def from_proto(cls, feature_view_proto: Any, skip_udf: bool = False) -> Any:
        """A registry's view, which is Feast's own class; its facts are read by `facts_of`."""
        return FeatureView.from_proto(feature_view_proto, skip_udf)

    def settle(self, view: plan.BatchView) -> None:
        """Take over the schema that compiling the query found."""
        self.features = [_field(f) for f in view.features]
        self.entity_columns = [_field(f) for f in view.keys]
        if not self.projection.features:
            self.projection.features = list(self.features)

    __hash__ = FeatureView.__hash__


def _entities(entity: Entity | None, entities: Sequence[Entity] | None) -> list[Entity]:
    both = [*([entity] if entity is not None else []), *(entities or [])]
    return [e for e in both if isinstance(e, Entity)]


def _stream_schema(name: str, facts: StreamFacts, entities: list[Entity], source: StreamSource) -> list[Field]:
    """Join keys and features as Feast fields, as far as the definition can be compiled."""
    from headwater.plans.problems import Problems
    from headwater.plans.sources import compile_source
    from headwater.plans.streams import compile_stream_view

    # What is wrong is said when the whole repository is compiled, not here.
    unheard = Problems()
    view = compile_stream_view(name, facts, entities, compile_source(source.name, source.facts, unheard), unheard)
    names = {k.name for k in view.keys}
    features = {f.name: f for f in view.outputs() if f.name not in names}
    return [_field(f) for f in (*view.keys, *features.values())]


def _field(field: plan.Field) -> Field:
    return Field(name=field.name, dtype=feast_type(feast_name(field.dtype)), vector_length=field.length or 0)


def _ttl_text(ttl: Any) -> Any:
    return format_duration(ttl // timedelta(microseconds=1)) if isinstance(ttl, timedelta) else ttl


def _timedelta(ttl: Any) -> timedelta:
    try:
        return timedelta(0) if ttl is None else timedelta(microseconds=parse_duration(ttl))
    except ValueError:
        return timedelta(0)


def _copied(view: _View) -> _View:
    # Feast's own copies build the base class again, without our source and facts.
    twin = object.__new__(type(view))
    twin.__dict__.update(view.__dict__)
    twin.features = list(view.features)
    twin.entity_columns = list(view.entity_columns)
    twin.projection = copy.copy(view.projection)
    return twin


def _chosen(view: _View, names: list[str]) -> _View:
    # Feast raises at the first unknown name, and would hide why the feature is missing: a mistake in the view.
    twin = _copied(view)
    known = {f.name: f for f in view.features}
    twin.projection.features = [known[n] for n in names if n in known]
    twin.projection.desired_features = [] if set(names) <= known.keys() else list(names)
    return twin
