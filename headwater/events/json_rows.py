"""Rows of a Parquet file -> JSON events of a source: the inverse of decoding.

Column by column in Polars, so that half a million rows take a second. Only columns of the source's schema
are sent. Timestamps become RFC 3339 with a Z (those without a zone are UTC), bytes base64, NaN null.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import polars as pl

from headwater.dtypes import element_of, is_list
from headwater.errors import UsageError
from headwater.plans.plan import Source

_TYPES: dict[str, Any] = {
    "int64": pl.Int64, "float64": pl.Float64, "string": pl.String, "bool": pl.Boolean, "bytes": pl.Binary,
    "timestamp": pl.Datetime("us", "UTC"),
}  # fmt: skip
_TYPES |= {f"list[{element}]": pl.List(kind) for element, kind in _TYPES.items()}


def typed(frame: pl.DataFrame, source: Source) -> pl.DataFrame:
    """The columns of the source's schema that the frame has, in the source's types.

    Raises:
        UsageError: no event time column, or a column that does not fit its field's type.
    """
    if source.event_time not in frame.columns:
        raise UsageError(
            f"Source {source.name!r} has its event time in {source.event_time!r}; the file has no such column. "
            f"It has: {', '.join(frame.columns)}."
        )
    columns = []
    for f in source.fields:
        if f.name in frame.columns:
            try:
                columns.append(_cast(frame[f.name], f.dtype))
            except pl.exceptions.PolarsError as error:
                raise UsageError(
                    f"Column {f.name!r} of the file is {frame[f.name].dtype}; source {source.name!r} expects {f.dtype}, "
                    f"and not all values fit: {error}"
                ) from error
    return pl.DataFrame(columns)


def shifted(frame: pl.DataFrame, source: Source, micros: int) -> pl.DataFrame:
    """The event times moved by some microseconds."""
    return frame.with_columns(pl.col(source.event_time) + pl.duration(microseconds=micros))


def newest(frame: pl.DataFrame, source: Source) -> int | None:
    """The newest event time, microseconds since the epoch; None where there is none."""
    value = frame[source.event_time].cast(pl.Datetime("us")).to_physical().max()
    return None if value is None else int(value)  # type: ignore[arg-type]


def json_rows(frame: pl.DataFrame) -> list[bytes]:
    """Each row as a JSON object; the frame comes from `typed`."""
    if not frame.height:
        return []
    buffer = io.BytesIO()
    frame.select([_written(frame[name]) for name in frame.columns]).write_ndjson(buffer)
    # Line ends inside of texts are escaped in JSON, so each line is a row.
    return buffer.getvalue().rstrip(b"\n").split(b"\n")


def key_texts(frame: pl.DataFrame, source: Source) -> Sequence[str | bytes | None]:
    """The records' keys: the text of the source's key column as in Redis; None for a null key or no key."""
    if source.key is None or source.key not in frame.columns:
        return [None] * frame.height
    column = frame[source.key]
    if column.dtype == pl.Binary:
        return column.to_list()
    if isinstance(column.dtype, pl.Datetime):
        column = column.to_physical()
    return column.cast(pl.String).to_list()


def _cast(column: pl.Series, dtype: str) -> pl.Series:
    if is_list(dtype):
        return _cast_lists(column, dtype)
    if column.dtype.is_float() and dtype != "float64":
        # Pandas writes integers with nulls as doubles with NaN.
        column = column.fill_nan(None)
        if dtype == "int64" and (column.floor() != column).any():
            raise pl.exceptions.InvalidOperationError("some have a fraction")
    if isinstance(column.dtype, pl.Datetime) and dtype == "timestamp" and column.dtype.time_zone is None:
        return column.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    if dtype == "string" and column.dtype not in (pl.String, pl.Categorical, pl.Enum, pl.Null):
        raise pl.exceptions.InvalidOperationError("a number is no text")
    return column.cast(_TYPES[dtype])


def physical(column: pl.Series) -> pl.Series:
    """The column with microseconds for timestamps."""
    if isinstance(column.dtype, pl.List):
        return column.cast(pl.List(pl.Int64)) if column.dtype.inner.is_temporal() else column
    return column.to_physical() if column.dtype.is_temporal() else column


def _cast_lists(column: pl.Series, dtype: str) -> pl.Series:
    """The elements are cast all at once, and each list is put together again."""
    if isinstance(column.dtype, pl.Array):
        column = column.arr.to_list()
    if not isinstance(column.dtype, pl.List):
        raise pl.exceptions.InvalidOperationError("one value is no list")
    return _each_element(column, lambda elements: _cast(elements, element_of(dtype)))


def _each_element(column: pl.Series, change: Callable[[pl.Series], pl.Series]) -> pl.Series:
    rows = column.to_frame("lists").with_row_index()
    # An empty list would explode into a null.
    some = rows.filter(pl.col("lists").list.len() > 0).explode("lists")
    changed = some.with_columns(change(some["lists"]).alias("lists"))
    lists = changed.group_by("index", maintain_order=True).agg("lists")
    empty = rows.filter(pl.col("lists").list.len() == 0).select(
        "index", pl.lit([], lists["lists"].dtype).alias("lists")
    )
    found = rows.select("index").join(pl.concat([lists, empty]), on="index", how="left", maintain_order="left")
    return found["lists"].alias(column.name)


def _written(column: pl.Series) -> pl.Series:
    if isinstance(column.dtype, pl.List):
        return _each_element(column, _written)
    if isinstance(column.dtype, pl.Datetime):
        return column.dt.replace_time_zone(None).dt.to_string("%Y-%m-%dT%H:%M:%S%.fZ")
    if column.dtype == pl.Binary:
        return column.bin.encode("base64")
    if column.dtype == pl.Float64:
        return column.to_frame().select(pl.when(pl.col(column.name).is_finite()).then(pl.col(column.name)))[column.name]
    return column
