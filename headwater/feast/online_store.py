"""Feast's online store on our rows: `FeatureStore.get_online_features` reads what Headwater's own client reads.

Apart from the client because Feast's interface ends here: inside are plans and Python values, outside are
Feast's protobufs. A repository names it by `online_store: {type: headwater.feast.OnlineStore}`; `feast apply`
publishes the plan through `update`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
from feast import utils
from feast.entity import Entity
from feast.feature_view import FeatureView
from feast.infra.online_stores import online_store
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus, GetOnlineFeaturesResponse
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import BoolList, BytesList, DoubleList, Int64List, StringList, Value
from feast.repo_config import FeastConfigBaseModel, RepoConfig
from google.protobuf.timestamp_pb2 import Timestamp

from headwater.columns import Column
from headwater.dtypes import Dtype, element_of, is_counts, is_list
from headwater.errors import Unavailable, UnknownName, UsageError, nearest
from headwater.online.connection import Connection
from headwater.online.feature_rows import FeatureRows, counts_text, to_datetime, with_times
from headwater.online.keys import plan_id_key, plan_key
from headwater.online.plain_writes import write_plain_rows
from headwater.online.plan_store import load_published, retire
from headwater.online.published import PublishedPlan
from headwater.plans.plan import BatchView
from headwater.repository import load_repository
from headwater.serving.client import Client

WriteRow = tuple[EntityKey, dict[str, Value], datetime, datetime | None]

_FIELDS: dict[str, tuple[str, type[Any]]] = {
    "int64": ("int64", Int64List), "float64": ("double", DoubleList), "string": ("string", StringList),
    "bool": ("bool", BoolList), "bytes": ("bytes", BytesList), "timestamp": ("unix_timestamp", Int64List),
}  # fmt: skip
"""How Feast's protobuf names a type's field, and the message of its lists."""
_NULL = Value()


class OnlineStoreConfig(FeastConfigBaseModel):  # type: ignore[misc]
    """What stands under `online_store` in feature_store.yaml."""

    type: Literal["headwater.feast.OnlineStore"] = "headwater.feast.OnlineStore"
    redis: str | None = None
    """redis://HOST:PORT/DB; where it is left out, the server that `headwater up` started for the repository."""


class OnlineStore(online_store.OnlineStore):  # type: ignore[misc]
    """Reads rows of StreamViews and BatchViews; writes those of BatchViews only."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._clients: dict[tuple[str, str], Client] = {}

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[tuple[datetime | None, dict[str, Value] | None]]:
        """For each key the row's newest event time and its values; (None, None) where there is none to give."""
        entities: dict[str, list[Any]] = {name: [] for name in (entity_keys[0].join_keys if entity_keys else ())}
        for key in entity_keys:
            for name, value in zip(key.join_keys, key.entity_values, strict=True):
                entities[name].append(_python(value))
        if not entities:
            return []
        rows = self._read(config, table.name, requested_features, entities)
        names = [column.feature for column in rows.shape.columns]
        columns = [_values(c.dtype, v) for c, v in zip(rows.shape.columns, rows.values, strict=True)]
        return [
            (to_datetime(newest), {name: column[i] for name, column in zip(names, columns, strict=True)})
            if status == "PRESENT" and newest is not None
            else (None, None)
            for i, (status, newest) in enumerate(zip(rows.statuses[table.name], rows.newest[table.name], strict=True))
        ]

    def _read_features_per_fv(
        self,
        config: RepoConfig,
        grouped_refs: list[tuple[FeatureView, list[str]]],
        join_key_values: dict[str, list[Value]],
        entity_name_to_join_key_map: dict[str, str],
        online_features_response: GetOnlineFeaturesResponse,
        full_feature_names: bool,
        include_feature_view_version_metadata: bool,
    ) -> None:
        """Feast's own place to read all views at once.

        Taken instead of `online_read`, which cannot say that a row is too old, that a value is null, or that
        the count of a window without events is 0 although there is no row.
        """
        for table, features in grouped_refs:
            protos = utils._get_table_entity_values(table, entity_name_to_join_key_map, join_key_values)
            entities = {name: [_python(value) for value in values] for name, values in protos.items()}
            rows = self._read(config, table.name, features, entities)
            _respond(online_features_response, table, rows, full_feature_names)
            if include_feature_view_version_metadata:
                _add_version(online_features_response, table)

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[WriteRow],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write rows of a BatchView; the newer event time wins.

        Raises:
            UsageError: a StreamView, whose rows only the worker and `headwater backfill` may write.
        """
        client = self._client(config)
        view, fill = _writable(client.published(), table.name)
        if data:
            keys, columns, times = _columns(view, data)
            with Connection(client.redis) as connection:
                write_plain_rows(connection, client.project, view, fill, keys, columns, times)
        if progress:
            progress(len(data))

    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
        partial: bool,
    ) -> None:
        """Publish the plan of the repository: what `feast apply` does beside writing the registry."""
        from headwater.plans.publishing import publish_registry_plan

        publish_registry_plan(str(_repo_path(config)))

    def teardown(self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[Entity]) -> None:
        """Take the project's plan and all its rows out of Redis."""
        client = self._client(config)
        with Connection(client.redis) as connection:
            published = load_published(connection, client.project)
            connection.command("DEL", plan_id_key(client.project), plan_key(client.project))
            for fills in (published.active, published.filling) if published else ():
                for name, each in fills.items():
                    retire(connection, client.project, name, each.fill, each.definition)

    def _read(
        self, config: RepoConfig, view: str, features: list[str] | None, entities: dict[str, list[Any]]
    ) -> FeatureRows:
        names = [view] if features is None else [f"{view}:{name}" for name in features]
        return self._client(config).get(names, entities=entities)

    def _client(self, config: RepoConfig) -> Client:
        redis = config.online_store.redis or load_repository(_repo_path(config)).need_redis()
        key = redis, config.project
        with self._lock:
            if key not in self._clients:
                self._clients[key] = Client(redis=redis, project=config.project)
            return self._clients[key]


def _respond(response: GetOnlineFeaturesResponse, table: FeatureView, rows: FeatureRows, full: bool) -> None:
    """Append one FeatureVector a feature."""
    times = [_timestamp(t) for t in rows.newest[table.name]]
    statuses = [FieldStatus.Value(s) for s in rows.statuses[table.name]]
    prefix = f"{table.projection.name_to_use()}__" if full else ""
    for column, values in zip(rows.shape.columns, rows.values, strict=True):
        response.metadata.feature_names.val.append(prefix + column.feature)
        marks = statuses
        if None in values:
            marks = [
                FieldStatus.NULL_VALUE if value is None and status == FieldStatus.PRESENT else status
                for value, status in zip(values, statuses, strict=True)
            ]
        response.results.append(
            GetOnlineFeaturesResponse.FeatureVector(
                values=_values(column.dtype, values), statuses=marks, event_timestamps=times
            )
        )


def _add_version(response: GetOnlineFeaturesResponse, table: FeatureView) -> None:
    name = table.projection.name_alias or table.projection.name
    if name not in [m.name for m in response.metadata.feature_view_metadata]:
        added = response.metadata.feature_view_metadata.add()
        added.name = name
        added.version = getattr(table, "current_version_number", 0) or 0


def _values(dtype: Dtype, values: list[Any]) -> list[Value]:
    if is_counts(dtype):
        return [_NULL if value is None else Value(json_val=counts_text(dtype, value)) for value in values]
    field, message = _FIELDS[element_of(dtype)]
    if element_of(dtype) == "timestamp":
        # Feast's timestamps are whole seconds.
        values = [with_times(dtype, value, lambda micros: micros // 1_000_000) for value in values]
    if is_list(dtype):
        return [_NULL if value is None else Value(**{f"{field}_list_val": message(val=value)}) for value in values]
    return [_NULL if value is None else Value(**{f"{field}_val": value}) for value in values]


def _python(value: Value) -> Any:
    which = value.WhichOneof("val")
    if which is None or which == "null_val":
        return None
    item = getattr(value, which)
    if which.endswith("_list_val"):
        return [v * 1_000_000 for v in item.val] if which == "unix_timestamp_list_val" else list(item.val)
    return item * 1_000_000 if which == "unix_timestamp_val" else item


def _timestamp(micros: int | None) -> Timestamp:
    stamp = Timestamp()
    if micros is not None:
        stamp.FromMicroseconds(micros)
    return stamp


def _writable(published: PublishedPlan, name: str) -> tuple[BatchView, str]:
    views = {v.name: v for v in published.plan.views}
    if name not in views:
        raise UnknownName(f"No feature view '{name}' in the published plan. {nearest(name, views)}")
    view = views[name]
    if not isinstance(view, BatchView):
        raise UsageError(
            f"Feature view '{name}' is a StreamView: its rows are written by 'headwater stream' and "
            f"'headwater backfill' alone, which fence them by the offsets of its topic. Feast may not write them."
        )
    active = published.active.get(name)
    if active is None or active.definition.state_hash != view.state_hash:
        raise Unavailable(
            f"Feature view '{name}' was changed and its new fill is not complete. Run: headwater materialize {name}"
        )
    return view, active.fill


def _columns(view: BatchView, data: list[WriteRow]) -> tuple[list[Column], dict[str, Column], np.ndarray[Any, Any]]:
    entities = [dict(zip(key.join_keys, key.entity_values, strict=True)) for key, _, _, _ in data]
    keys = [Column.of(k.dtype, [_python(row.get(k.name, _NULL)) for row in entities]) for k in view.keys]
    columns = {
        f.name: Column.of(f.dtype, [_python(values.get(f.name, _NULL)) for _, values, _, _ in data])
        for f in view.features
    }
    times = np.array([_micros(moment) for _, _, moment, _ in data], np.int64)
    return keys, columns, times


def _micros(moment: datetime) -> int:
    """A datetime without a zone is UTC, as everywhere in Feast."""
    aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    stamp = Timestamp()
    stamp.FromDatetime(aware)
    return int(stamp.ToMicroseconds())


def _repo_path(config: RepoConfig) -> Any:
    if config.repo_path is None:
        raise UsageError(
            "Headwater's online store needs the repository's folder: make the FeatureStore with repo_path=…, "
            "or give 'redis' under online_store."
        )
    return config.repo_path
