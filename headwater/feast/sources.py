"""Where the rows of a Feast view come from: our plan and lake, or a Feast FileSource's Parquet file."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from feast.feature_view import DUMMY_ENTITY_NAME, FeatureView
from feast.infra.offline_stores.file_source import FileSource
from feast.repo_config import RepoConfig

from headwater.definitions.facts import facts_of
from headwater.definitions.registry import registry_plan
from headwater.definitions.sources import SnapshotSource, StreamSource
from headwater.dtypes import from_feast
from headwater.errors import UsageError, nearest
from headwater.history.as_of import PlainRows, sorted_rows
from headwater.history.files import write_parquet
from headwater.lake import Lake
from headwater.plans.plan import BatchView, Field, Plan, StreamView
from headwater.repository import load_repository


def lake_of(config: RepoConfig) -> Lake:
    """The lake of a Feast configuration: `lake` under offline_store, else the repository's."""
    place = getattr(config.offline_store, "lake", None)
    root = Path(config.repo_path) if config.repo_path else Path()
    if place is None:
        return Lake(load_repository(root).lake)
    return Lake(place if "://" in place else str((root / place).resolve()))


def view_of(config: RepoConfig, plan: Plan, view: FeatureView) -> StreamView | BatchView | PlainRows:
    """Our compiled view, or the rows of one of Feast's own over a Parquet file.

    Raises:
        UsageError: a Feast view over a source that this store cannot read.
    """
    if facts_of(view) is not None:
        ours: StreamView | BatchView = plan.view(view.name)
        return ours
    source = view.batch_source
    keys = tuple(_key(view, column) for column in view.entity_columns if view.entities != [DUMMY_ENTITY_NAME])
    ttl = round(view.ttl.total_seconds() * 1_000_000) if view.ttl else None
    time, created = source.timestamp_field, source.created_timestamp_column or None
    table = file_rows(config, source)
    wanted = [*(k.name for k in keys), *(f.name for f in view.features), time, *([created] if created else [])]
    for name in wanted:
        if name not in table.column_names:
            known = nearest(name, table.column_names)
            raise UsageError(f"View {view.name!r}: the file {source.path} has no column {name!r}. {known}")
    return PlainRows(view.name, table.select(list(dict.fromkeys(wanted))), keys, ttl or None, time, created)


def rows_of(config: RepoConfig, source: Any, time: str, start: datetime | None, end: datetime | None) -> pa.Table:
    """All rows of a source between two times (both included; None: open).

    Raises:
        UsageError: a stream source, whose values are not rows, or a source of another store.
    """
    if isinstance(source, StreamSource):
        raise UsageError(
            f"Source {source.name!r} is a stream: Feast's materialize has nothing to copy. A worker "
            f"('headwater stream') or 'headwater backfill' computes its views' rows."
        )
    if isinstance(source, SnapshotSource):
        table = lake_of(config).read_view(_batch_view(config, source.view))
    else:
        table = file_rows(config, source)
    for bound, compare in ((start, pc.greater_equal), (end, pc.less_equal)):
        if bound is not None:
            table = table.filter(compare(table[time], _scalar(bound, table[time].type)))
    return table


def newest_of_each_key(rows: pa.Table, keys: list[str], time: str, created: str | None) -> pa.Table:
    """One row a key: the newest by (time, created)."""
    rows = rows.take(pa.array(sorted_rows([rows[n] for n in (time, created) if n])))
    if not keys:
        return rows.slice(max(len(rows) - 1, 0))
    numbered = rows.select(keys).append_column("__row", pa.array(np.arange(len(rows))))
    last = numbered.group_by(keys).aggregate([("__row", "max")])["__row_max"]
    return rows.take(pa.array(np.sort(last.to_numpy())))


def file_rows(config: RepoConfig, source: Any) -> pa.Table:
    """The rows of a FileSource's Parquet file, its columns named as its field mapping says.

    Raises:
        UsageError: another source, another format, or no such file.
    """
    if not isinstance(source, FileSource) or not source.path.rstrip("/").endswith((".parquet", ".pq")):
        raise UsageError(
            f"Source {source.name!r} ({type(source).__name__}) cannot be read by headwater.feast.OfflineStore. "
            f"It reads Headwater's own views, and Feast's FileSource of a Parquet file."
        )
    uri = FileSource.get_uri_for_file_path(config.repo_path, source.path)
    system, path = FileSource.create_filesystem_and_path(str(uri), source.s3_endpoint_override)
    try:
        table = pq.read_table(path, filesystem=system)
    except FileNotFoundError as error:
        raise UsageError(f"Source {source.name!r}: there is no file {source.path}.") from error
    return table.rename_columns([source.field_mapping.get(n, n) for n in table.column_names])


def append_to_file(config: RepoConfig, source: FileSource, rows: pa.Table) -> None:
    """Adds rows to a FileSource's local Parquet file.

    Raises:
        UsageError: the rows' columns are not the file's.
    """
    path = Path(str(FileSource.get_uri_for_file_path(config.repo_path, source.path)).removeprefix("file://"))
    old = pq.read_table(path)
    if set(old.column_names) != set(rows.column_names):
        raise UsageError(
            f"Source {source.name!r}: the rows have the columns {', '.join(sorted(rows.column_names))}, "
            f"expected those of {source.path}: {', '.join(sorted(old.column_names))}."
        )
    write_parquet(pa.concat_tables([old, rows.select(old.column_names).cast(old.schema)]), path)


def _batch_view(config: RepoConfig, name: str) -> BatchView:
    plan = registry_plan(load_repository(config.repo_path or Path()))
    views = {} if plan is None else {v.name: v for v in plan.batch_views()}
    if name not in views:
        raise UsageError(f"The registry has no BatchView {name!r}. {nearest(name, views)} Apply it first.")
    return views[name]


def _key(view: FeatureView, column: Any) -> Field:
    dtype = from_feast(column.dtype)
    if dtype is None:
        raise UsageError(
            f"View {view.name!r}: its join key {column.name!r} has the type {column.dtype}, expected a scalar."
        )
    return Field(column.name, dtype)


def _scalar(moment: datetime, kind: pa.DataType) -> pa.Scalar:
    """A moment as a scalar of a column's timestamp type; naive moments and naive columns are UTC."""
    from datetime import UTC

    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (
        pa.scalar(aware.astimezone(UTC), pa.timestamp("us", "UTC"))
        .cast(pa.timestamp("us"))
        .cast(pa.timestamp("us", kind.tz) if kind.tz else pa.timestamp("us"))
    )
